//! One row: what is in its cells, and what would be right there.

use std::collections::BTreeMap;

use csv::StringRecord;

use crate::{
    aviary::bot::types::{Article, Reply},
    words::folded,
};

/// How much of a cell a mistake shows.
const EXCERPT_CHARS_MAX: usize = 20;

/// The columns, by their names in Chinese and in English.
const COLUMNS: [(Column, &str, &str); 7] = [
    (Column::Keyword, "关键词", "keyword"),
    (Column::Match, "匹配", "match"),
    (Column::Type, "类型", "type"),
    (Column::Reply, "回复", "reply"),
    (Column::Title, "标题", "title"),
    (Column::Url, "链接", "url"),
    (Column::Picture, "图片", "picture"),
];

/// One row without a mistake.
#[derive(Debug)]
pub(super) struct Row {
    /// As they are compared, none empty.
    pub(super) words: Vec<String>,
    pub(super) fit: Fit,
    pub(super) reply: Reply,
}

/// How a text must fit a word; the closest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    Exact,
    Prefix,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Keyword,
    Match,
    Type,
    Reply,
    Title,
    Url,
    Picture,
}

/// The columns of a table, from left to right; one without a name is nothing.
pub(super) struct Header(Vec<Option<Column>>);

impl Row {
    /// Whether it answers this text, which is folded.
    pub(super) fn fits(&self, text: &str) -> bool {
        self.words.iter().any(|word| match self.fit {
            Fit::Exact => text == word,
            Fit::Prefix => text.starts_with(word),
            Fit::Contains => text.contains(word),
        })
    }

    /// Leaves out the words that a row above answers already, and says which was the first; the others it goes on to answer.
    pub(super) fn leave_what_is_told(&mut self, exact: &mut BTreeMap<String, usize>, row: usize) -> Result<(), String> {
        if self.fit != Fit::Exact {
            return Ok(());
        }
        let mut told = None;
        self.words.retain(|word| {
            let before = *exact.entry(word.clone()).or_insert(row);
            if before != row {
                told.get_or_insert_with(|| format!("`{}` is in row {before} already", excerpt(word)));
            }
            before == row
        });
        told.map_or(Ok(()), Err)
    }
}

impl Header {
    /// Reads the names of the columns.
    pub(super) fn read(record: &StringRecord) -> Result<Self, String> {
        let mut columns = Vec::new();
        for cell in record {
            let column = named(cell)?;
            if column.is_some() && columns.contains(&column) {
                return Err(format!("there are two columns `{}`", excerpt(cell)));
            }
            columns.push(column);
        }
        match [Column::Keyword, Column::Reply].iter().find(|column| !columns.contains(&Some(**column))) {
            Some(missing) => Err(format!("there is no column {}", shown(*missing))),
            None => Ok(Self(columns)),
        }
    }

    /// Reads a row that has anything in it.
    pub(super) fn row(&self, record: &StringRecord) -> Result<Row, String> {
        let surplus = record.iter().skip(self.0.len()).find(|cell| !cell.trim().is_empty());
        if let Some(cell) = surplus {
            return Err(format!("`{}` is right of the last column; a text with a comma needs \"…\"", excerpt(cell)));
        }
        let cells = Cells { header: self, record };
        let words = cells.get(Column::Keyword).split(['|', '｜', '\n']).map(folded);
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        let Some(first) = words.first() else {
            return Err(format!("there is no {}", shown(Column::Keyword)));
        };
        Ok(Row { reply: cells.reply(first)?, fit: cells.fit()?, words })
    }
}

/// The cells of a row, by their columns.
struct Cells<'a> {
    header: &'a Header,
    record: &'a StringRecord,
}

impl<'a> Cells<'a> {
    /// A cell without white space around it; empty if there is none.
    fn get(&self, column: Column) -> &'a str {
        let index = self.header.0.iter().position(|named| *named == Some(column));
        index.and_then(|index| self.record.get(index)).unwrap_or_default().trim()
    }

    fn fit(&self) -> Result<Fit, String> {
        match folded(self.get(Column::Match)).as_str() {
            "" | "完全" | "exact" => Ok(Fit::Exact),
            "开头" | "prefix" => Ok(Fit::Prefix),
            "包含" | "contains" => Ok(Fit::Contains),
            other => {
                let other = excerpt(other);
                Err(format!("`匹配` is `{other}`; it is 完全 (exact), 开头 (prefix) or 包含 (contains)"))
            }
        }
    }

    fn reply(&self, word: &str) -> Result<Reply, String> {
        let needed = |column: Column| match self.get(column) {
            "" => Err(format!("`{}` has no {}", excerpt(word), shown(column))),
            text => Ok(text),
        };
        match folded(self.get(Column::Type)).as_str() {
            "" if self.get(Column::Url).is_empty() => Ok(Reply::Text(needed(Column::Reply)?.to_owned())),
            "文字" | "text" => Ok(Reply::Text(needed(Column::Reply)?.to_owned())),
            "链接" | "link" => {
                let (above, title, url) = (self.get(Column::Reply), needed(Column::Title)?, needed(Column::Url)?);
                Ok(Reply::Text(link(above, title, web(url)?)))
            }
            "" | "图文" | "news" => Ok(Reply::News(vec![Article {
                title: needed(Column::Title)?.to_owned(),
                description: some(self.get(Column::Reply)),
                pic_url: some(web_or_none(self.get(Column::Picture))?),
                url: web(needed(Column::Url)?)?.to_owned(),
            }])),
            other => Err(format!("`类型` is `{}`; it is 文字 (text), 链接 (link) or 图文 (news)", excerpt(other))),
        }
    }
}

/// The column that a cell of the first row names; an empty one names none.
fn named(cell: &str) -> Result<Option<Column>, String> {
    let name = folded(cell);
    let found = COLUMNS.iter().find(|(_, chinese, english)| name == *chinese || name == *english);
    match found {
        Some((column, ..)) => Ok(Some(*column)),
        None if name.is_empty() => Ok(None),
        None => {
            let names = COLUMNS.map(|(_, chinese, english)| format!("`{chinese}` ({english})")).join(", ");
            Err(format!("`{}` names no column; there are {names}", excerpt(cell)))
        }
    }
}

/// A line that opens a page, below the text if there is one.
fn link(above: &str, title: &str, url: &str) -> String {
    let link = format!("<a href=\"{url}\">{title}</a>");
    if above.is_empty() { link } else { format!("{above}\n{link}") }
}

fn web_or_none(url: &str) -> Result<&str, String> {
    if url.is_empty() { Ok(url) } else { web(url) }
}

/// Checks an address: what is not one would be a link that does nothing.
fn web(url: &str) -> Result<&str, String> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    match is_web && !url.contains(|char: char| char.is_whitespace() || "\"<>".contains(char)) {
        true => Ok(url),
        false => Err(format!("`{}` is no address; it begins with https:// and has no blanks", excerpt(url))),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn shown(column: Column) -> String {
    let name = COLUMNS.iter().find(|(known, ..)| *known == column).map_or("", |(_, chinese, _)| chinese);
    format!("`{name}`")
}

/// Enough of a cell to find it by, on one line.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
