//! What a file says: its TOML as a tree whose values know the line they stand on, with every `${…}` filled in.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::{Place, Problems};

/// How much of a value an error shows.
const SHOWN_CHARACTERS_MAX: usize = 60;

pub(super) type Table = BTreeMap<String, Node>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text {
        text: String,
        /// As it stands in the file. Errors show this one: what `${…}` stands for may be secret.
        written: String,
    },
    Integer(i64),
    Truth(bool),
    Array(Vec<Node>),
    Table(Table),
    /// A value of a kind that no setting has (a fraction, a date), as written.
    Other(String),
}

impl Value {
    /// Names the kind of value, for errors about secrets and tables.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } => "a text",
            Self::Integer(_) => "a number",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Truth(_) => "a truth value",
            Self::Other(_) => "no text",
        }
    }
}

/// Shows the value as errors do: shortened, and as it stands in the file.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { written, .. } => write!(formatter, "{:?}", shorten(written)),
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::Truth(truth) => write!(formatter, "{truth}"),
            Self::Other(written) => formatter.write_str(&shorten(written)),
            Self::Array(_) | Self::Table(_) => formatter.write_str(self.kind()),
        }
    }
}

/// Joins a table's path and a key the way TOML writes it.
pub(super) fn dotted(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let key = if bare { shorten(key) } else { format!("{:?}", shorten(key)) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parses the text of a file. `expand` fills in the `${…}` of a text, or says why it cannot.
pub(super) fn parse(
    file: &Arc<str>,
    text: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, String>,
    problems: &Problems,
) -> Option<Table> {
    let lines = Lines::of(file, text);
    match DeTable::parse(text) {
        Ok(table) => Some(Reader { lines, expand, problems }.table("", table.get_ref())),
        // Only the parser's words: the line it quotes may hold a secret.
        Err(error) => {
            problems.add(&lines.place(&error.span().unwrap_or(0..0)), syntax(error.message(), text, error.span()));
            None
        }
    }
}

/// Says what the parser says, and the way out of the mistake that its words do not explain.
fn syntax(message: &str, text: &str, span: Option<Range<usize>>) -> String {
    let message = message.trim().replace('\n', ", ");
    let start = span.map_or(0, |span| span.start);
    let line = text.get(..start).map_or(0, |before| before.rfind('\n').map_or(0, |end| end + 1));
    let tables_of_account = text.get(line..).is_some_and(|line| {
        line.lines().next().is_some_and(|line| line.trim_start().starts_with("[accounts.") && line.contains(".plugins"))
    });
    if tables_of_account {
        format!("{message}; where an account has tables `plugins.NAME`, its list of plugins is called `chain`")
    } else {
        format!("{message}; this is not TOML")
    }
}

/// Turns the parser's offsets into lines.
struct Lines<'a> {
    file: &'a Arc<str>,
    /// Where the lines end.
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a Arc<str>, text: &str) -> Self {
        Self { file, ends: text.match_indices('\n').map(|(end, _)| end).collect() }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        Place { file: self.file.clone(), line: 1 + self.ends.partition_point(|end| *end < span.start) }
    }
}

struct Reader<'a> {
    lines: Lines<'a>,
    expand: &'a mut dyn FnMut(&str) -> Result<String, String>,
    problems: &'a Problems,
}

impl Reader<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Table {
        let node = |(key, value): (&Spanned<_>, &Spanned<_>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let place = self.lines.place(&key.span());
            let node = self.node(&dotted(path, key.get_ref()), place, value);
            (key.get_ref().to_string(), node)
        };
        table.iter().map(node).collect()
    }

    fn node(&mut self, path: &str, place: Place, value: &Spanned<DeValue<'_>>) -> Node {
        let value = match value.get_ref() {
            DeValue::String(written) => self.text(path, &place, written),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Other(number.to_string()), Value::Integer),
            DeValue::Array(items) => Value::Array(self.items(path, items.iter())),
            DeValue::Table(table) => Value::Table(self.table(path, table)),
            DeValue::Float(number) => Value::Other(number.to_string()),
            DeValue::Boolean(truth) => Value::Truth(*truth),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
        };
        Node { place, value }
    }

    fn items<'i>(&mut self, path: &str, items: impl Iterator<Item = &'i Spanned<DeValue<'i>>>) -> Vec<Node> {
        let node = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
            let place = self.lines.place(&item.span());
            self.node(&format!("{path}[{index}]"), place, item)
        };
        items.enumerate().map(node).collect()
    }

    fn text(&mut self, path: &str, place: &Place, written: &str) -> Value {
        let text = (self.expand)(written).unwrap_or_else(|reason| {
            self.problems.add(place, format!("`{path}` {reason}"));
            String::new()
        });
        Value::Text { text, written: written.to_owned() }
    }
}
