//! Whether the quotes of a row close. One that does not makes its cell go on in the lines below, and take in the rows that stand
//! there.

/// Returns a cell that goes on in the lines below it because its quote is not closed: it ends with the table, or at the quote
/// that begins another cell, which is where more text follows than a separator.
///
/// `row` is as it stands in the file. Where it ends, the reader of CSV has decided.
pub(super) fn unclosed(row: &str, separator: char) -> Option<&str> {
    let ends_cell = |char: char| char == separator || char == '\n';
    let mut rest = row;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_at(closing_quote(quoted)),
            None => ("", rest),
        };
        let is_closed = after.strip_prefix('"').is_some_and(|after| after.is_empty() || after.starts_with(ends_cell));
        if !is_closed && cell.trim_end().contains('\n') {
            return Some(cell);
        }
        rest = after.split_once(ends_cell)?.1;
    }
}

/// Where a quoted cell ends: at a quote that is not doubled, or with the text.
fn closing_quote(quoted: &str) -> usize {
    let mut from = 0;
    while let Some(at) = quoted[from..].find('"') {
        if !quoted[from + at + 1..].starts_with('"') {
            return from + at;
        }
        from += at + 2;
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_whose_quote_is_closed_may_have_anything_in_it() {
        for row in [
            "价格,\"第一行\n第二行, \"\"99\"\" 元\"\n",
            "\"a\nb\",\"c\nd\"",
            "价格,27\" 屏\n",
            "价格,\"99\" 元\n",
            "\"\n\",\"\"\"\n\"\"\"\n",
            "",
        ] {
            assert_eq!(unclosed(row, ','), None, "{row}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_takes_in_the_rows_below_to_the_end_or_to_the_next_quote() {
        assert_eq!(unclosed("价格,\"99 元\n地址,人民路\n", ','), Some("99 元\n地址,人民路\n"));
        assert_eq!(unclosed("价格;\"99 元\n地址;\"南京路; 2 号\"\n", ';'), Some("99 元\n地址;"));
        assert_eq!(unclosed("\"a\nb\",\"99 元\n地址,", ','), Some("99 元\n地址,"));
        assert_eq!(unclosed("价格,\"99 元\n", ','), None, "it took in nothing");
    }
}
