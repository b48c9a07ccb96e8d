//! What a reply should be.

use anyhow::{Context, ensure};
use regex::{Regex, RegexBuilder};

use super::{escaped, folded, unescaped, unfolded};

/// How large an expression may become while it is looked for: a conversation may come from a stranger's example.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// What is shown for no reply.
const SILENCE: &str = "nothing (`success`)";

/// A reply that a turn should have.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where it stands in the file, from 1.
    pub line: usize,
    /// `<~`: it comes after `success` went out, by whichever way the account has.
    pub late: bool,
    /// As it stands in the file, after `<`.
    pub written: String,
    pattern: Pattern,
}

#[derive(Clone, Debug)]
enum Pattern {
    Silence,
    Literal(String),
    /// As text: compiled it takes up to a megabyte, and its turn may never come.
    Expression(String),
}

impl Expected {
    /// Reads what stands after `<` or `<~`.
    ///
    /// # Errors
    ///
    /// An expression that is none; a late reply that says nothing.
    pub(super) fn parse(line: usize, late: bool, written: &str) -> anyhow::Result<Expected> {
        ensure!(!(late && written.is_empty()), "a late reply says something; write it after `<~`");
        let text = trimmed(&canonical(written));
        let pattern = if let Some(expression) = expression_of(written) {
            compile(expression).with_context(|| format!("`{written}` is no expression"))?;
            Pattern::Expression(expression.to_owned())
        } else if text.is_empty() {
            Pattern::Silence
        } else if text.contains('*') {
            let expression = wildcards(&text);
            compile(&expression).context("the text is too long for `*`")?;
            Pattern::Expression(expression)
        } else {
            Pattern::Literal(text)
        };
        Ok(Expected { line, late, written: written.to_owned(), pattern })
    }

    /// Tells whether it takes the work of an expression to see whether it [fits](Expected::fits).
    pub fn is_expression(&self) -> bool {
        matches!(self.pattern, Pattern::Expression(_))
    }

    /// Tells whether a reply, as [`shown`](super::shown()) shows it, is this one.
    ///
    /// White space at the end of a line does not count. Only an empty `<` fits silence: `*` is any reply, but a reply. For an
    /// expression this is work: up to some seconds for the worst that the notation allows.
    pub fn fits(&self, shown: &str) -> bool {
        let text = trimmed(&unfolded(shown));
        match &self.pattern {
            Pattern::Silence => text.is_empty(),
            _ if text.is_empty() => false,
            Pattern::Literal(literal) => *literal == text,
            Pattern::Expression(expression) => compile(expression).is_ok_and(|regex| regex.is_match(&text)),
        }
    }
}

/// Says for a person how a reply differs from the expected one.
pub fn difference(expected: &Expected, actual: &str) -> String {
    let line = expected.line;
    let when = if expected.late { "late " } else { "" };
    let indented = |text: &str| match text {
        "" => SILENCE.to_owned(),
        text => folded(&unfolded(text)).replace('\n', "\n          "),
    };
    format!(
        "line {line}: another {when}reply than expected\n  expected: {}\n  got:      {}",
        indented(&expected.written),
        indented(actual),
    )
}

/// Drops a backslash that is not needed, so that `\[微笑]` is `[微笑]` here too.
fn canonical(written: &str) -> String {
    match unescaped(written) {
        text if text.len() < written.len() => escaped(text),
        text => text.to_owned(),
    }
}

/// The inside of `/…/`; nothing for a text such as WeChat's face `/::)`.
pub(super) fn expression_of(written: &str) -> Option<&str> {
    let inside = written.strip_prefix('/')?.strip_suffix('/')?;
    (!inside.is_empty()).then_some(inside)
}

fn compile(expression: &str) -> anyhow::Result<Regex> {
    let mut builder = RegexBuilder::new(expression);
    builder.dot_matches_new_line(true).size_limit(EXPRESSION_BYTES_MAX);
    Ok(builder.build()?)
}

/// Returns the expression for a text in which `*` stands for anything and `\*` for a star.
fn wildcards(text: &str) -> String {
    let mut expression = String::from(r"\A");
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if chars.next_if_eq(&'*').is_some() => literal.push('*'),
            '*' => {
                expression.push_str(&regex::escape(&std::mem::take(&mut literal)));
                expression.push_str(".*");
            }
            other => literal.push(other),
        }
    }
    expression.push_str(&regex::escape(&literal));
    expression.push_str(r"\z");
    expression
}

/// Drops the white space that an editor would: at the end of every line.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.split('\n').map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(written: &str) -> Expected {
        Expected::parse(7, false, written).unwrap()
    }

    #[test]
    fn a_literal_fits_itself_only() {
        assert!(expected("你好").fits("你好"));
        assert!(!expected("你好").fits("你好!"));
        assert!(!expected("你好").fits(""));
        assert!(expected("a.c").fits("a.c"));
        assert!(!expected("a.c").fits("abc"));
    }

    #[test]
    fn a_star_is_anything_but_silence() {
        assert!(expected("北京：*").fits("北京：晴"));
        assert!(expected("北京：*").fits("北京："));
        assert!(expected("*度*").fits("今天 20 度\n    | 明天 21 度"));
        assert!(!expected("北京：*").fits("上海：晴"));
        assert!(expected("*").fits("x"));
        assert!(!expected("*").fits(""));
    }

    #[test]
    fn a_star_can_be_meant() {
        assert!(expected(r"2 \* 3").fits("2 * 3"));
        assert!(!expected(r"2 \* 3").fits("2 x 3"));
        assert!(expected(r"\* *").fits("* anything"));
    }

    #[test]
    fn an_expression_looks_at_the_whole_text() {
        assert!(expected("/^北京.*度$/").fits("北京 20 度"));
        assert!(expected("/^北京.*度$/").fits("北京\n    | 20 度"));
        assert!(!expected("/^北京.*度$/").fits("北京 20 度!"));
        assert!(expected("/20/").fits("北京 20 度"));
        assert!(!expected("/.*/").fits(""));
        assert!(expected("/::)").fits("/::)"));
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        let error = Expected::parse(7, false, "/(/").unwrap_err();
        assert_eq!(error.to_string(), "`/(/` is no expression");
        assert!(Expected::parse(7, false, "/((a{1000}){1000}){1000}/").is_err());
    }

    #[test]
    fn an_empty_expectation_is_silence() {
        assert!(expected("").fits(""));
        assert!(!expected("").fits("x"));
        assert!(Expected::parse(7, true, "").is_err());
    }

    #[test]
    fn white_space_at_the_end_of_a_line_does_not_count() {
        assert!(expected("a\nb").fits("a \n    | b\t"));
        assert!(!expected("a\nb").fits("a\n    |  b"));
        assert!(!expected("a").fits("a\n    | "));
    }

    #[test]
    fn a_backslash_before_a_bracket_is_only_needed_where_it_could_be_a_word() {
        assert!(expected(r"\[image] x").fits(r"\[image] x"));
        assert!(!expected("[image] x").fits(r"\[image] x"));
        assert!(expected(r"\[微笑]").fits("[微笑]"));
        assert!(expected("[微笑]").fits("[微笑]"));
    }

    #[test]
    fn a_difference_names_the_line_and_both_sides() {
        assert_eq!(
            difference(&expected("北京：*"), "上海：晴\n    | 明天"),
            "line 7: another reply than expected\n  expected: 北京：*\n  got:      上海：晴\n              | 明天"
        );
        assert_eq!(
            difference(&expected("a"), ""),
            "line 7: another reply than expected\n  expected: a\n  got:      nothing (`success`)"
        );
    }
}
