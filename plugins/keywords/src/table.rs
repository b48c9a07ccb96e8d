//! The table: words, and what is said to them.
//!
//! It is CSV as spreadsheet programs write it: with a mark at its beginning or without, separated by commas, semicolons or
//! tabs; a cell in double quotes may have those, and line breaks. (Where it is in GBK, the host makes UTF-8 of it.) The first
//! row names the columns, in any order, in Chinese or in English:
//!
//! | column | is |
//! |---|---|
//! | `关键词` `keyword` | the words that the row answers, several of them separated by `\|`, `｜` or line breaks |
//! | `匹配` `match` | `完全` `exact` (also an empty cell): the whole text; `开头` `prefix`: its beginning; `包含` `contains`: a part |
//! | `类型` `type` | `文字` `text`, `链接` `link`, `图文` `news`; empty: news where the row has a link, else text |
//! | `回复` `reply` | the text; above a link; under the title of news |
//! | `标题` `title` | what a link or news is called |
//! | `链接` `url` | what a tap opens |
//! | `图片` `picture` | the picture of news |
//!
//! Of the rows that fit a text, an exact one comes first, then one that fits its beginning, then one that fits a part; among
//! those, the upper one.

mod quotes;
mod row;

use std::{collections::BTreeMap, fmt};

use csv::{ReaderBuilder, StringRecord};

use self::{
    quotes::unclosed,
    row::{Header, Row, excerpt},
};
use crate::{aviary::bot::types::Reply, words::folded};

/// How many mistakes are told at once: enough to mend, and within what the log shows of a failure.
const MISTAKES_TOLD_MAX: usize = 5;

/// What cells may be separated by; the first is that of a table with one column.
const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// The rows that can be answered, and what is wrong with the others.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    mistakes: Vec<Mistake>,
}

/// What is wrong in a row, as spreadsheet programs number them.
#[derive(Debug)]
struct Mistake {
    row: usize,
    /// Where that is in the file: another number where cells have line breaks.
    line: usize,
    problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, line, problem } = self;
        match row == line {
            true => write!(f, "row {row} of the table: {problem}"),
            false => write!(f, "row {row} of the table (line {line} of the file): {problem}"),
        }
    }
}

impl Table {
    /// Reads a table; what is wrong in it is for [`Table::check`] to tell.
    pub(crate) fn read(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let mut table = Self::default();
        let mut records = Records::of(&text);
        let separator = records.separator;
        let header = match records.next() {
            Some((at, record)) => Header::read(&record).map_err(|problem| table.mistakes.push(at.mistake(problem))),
            None => Err(()),
        };
        let Ok(header) = header else { return table };
        let mut exact = BTreeMap::new();
        for (at, record) in records.filter(|(_, record)| record.iter().any(|cell| !cell.trim().is_empty())) {
            match closed(at.text, separator).and_then(|()| header.row(&record)) {
                Ok(mut row) => {
                    if let Err(problem) = row.leave_what_is_told(&mut exact, at.row) {
                        table.mistakes.push(at.mistake(problem));
                    }
                    table.rows.push(row);
                }
                Err(problem) => table.mistakes.push(at.mistake(problem)),
            }
        }
        table
    }

    /// Returns the reply to a text, of the row that fits it best.
    pub(crate) fn reply_to_text(self, text: &str) -> Option<Reply> {
        let text = folded(text);
        let fitting = self.rows.into_iter().filter(|row| row.fits(&text));
        // The first of those that are alike.
        fitting.min_by_key(|row| row.fit).map(|row| row.reply)
    }

    /// Returns the reply to a menu item, whose key is a whole keyword.
    pub(crate) fn reply_to_key(self, key: &str) -> Option<Reply> {
        let key = folded(key);
        self.rows.into_iter().find(|row| row.words.contains(&key)).map(|row| row.reply)
    }

    /// Tells the mistakes of the table, if there are any.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        let told: Vec<String> = self.mistakes.iter().take(MISTAKES_TOLD_MAX).map(Mistake::to_string).collect();
        let more = match self.mistakes.len() - told.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(told.join("; ") + &more)
    }
}

/// Refuses a row that has taken in those below it: its reply would be what is said to others.
fn closed(row: &str, separator: char) -> Result<(), String> {
    // Nearly all rows are one line.
    let cell = if row.trim_end().contains('\n') { unclosed(row, separator) } else { None };
    cell.map_or(Ok(()), |cell| {
        let (excerpt, lines) = (excerpt(cell), cell.trim_end().lines().count());
        Err(format!(
            "`{excerpt}…` goes on for {lines} lines, for want of a `\"` at its end; one within a text is `\"\"`"
        ))
    })
}

/// Where a row stands, and how it is written there.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    row: usize,
    line: usize,
    text: &'a str,
}

impl Place<'_> {
    fn mistake(self, problem: String) -> Mistake {
        Mistake { row: self.row, line: self.line, problem }
    }
}

/// The rows of a text, each with its place.
struct Records<'a> {
    text: &'a str,
    separator: char,
    reader: csv::Reader<&'a [u8]>,
    row: usize,
    /// The lines before `counted`, so that each is counted once.
    lines: usize,
    counted: usize,
}

impl<'a> Records<'a> {
    fn of(text: &'a str) -> Self {
        let first_line = text.lines().next().unwrap_or_default();
        let count = |separator: &char| first_line.matches(*separator).count();
        let separator = SEPARATORS.into_iter().max_by_key(count).filter(|separator| count(separator) > 0);
        let separator = separator.unwrap_or(SEPARATORS[0]);
        let mut builder = ReaderBuilder::new();
        // How many cells a row has is looked at with its mistakes.
        builder.has_headers(false).flexible(true).delimiter(separator as u8);
        Self { text, separator, reader: builder.from_reader(text.as_bytes()), row: 0, lines: 0, counted: 0 }
    }

    /// How many bytes were read so far.
    fn read_to(&self) -> Option<usize> {
        usize::try_from(self.reader.position().byte()).ok()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (Place<'a>, StringRecord);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.read_to()?;
        let mut record = StringRecord::new();
        // What is UTF-8 and of any width cannot be wrong.
        if !self.reader.read_record(&mut record).ok()? {
            return None;
        }
        // The reader passes over empty lines, which are rows all the same.
        let text = self.text.get(start..self.read_to()?)?;
        let row = text.trim_start_matches('\n');
        let blank = text.len() - row.len();
        self.row += blank + 1;
        self.lines += self.text[self.counted..start + blank].matches('\n').count();
        self.counted = start + blank;
        Some((Place { row: self.row, line: self.lines + 1, text: row }, record))
    }
}

#[cfg(test)]
mod tests;
