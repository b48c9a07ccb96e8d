//! How one table is read: each value of its kind and inside its bounds, from the file or else from `defaults.toml`.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    defaults,
    document::{Node, Table, Value, dotted},
    error::{Place, Problems},
};

/// A table as given, in front of the tables that it stands over.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) problems: &'a Problems,
    /// The nearest first; empty if no file has the table.
    layers: Vec<Layer<'a>>,
    /// Which keys there are, and their defaults.
    pattern: &'static Table,
}

#[derive(Clone, Debug)]
struct Layer<'a> {
    path: String,
    place: &'a Place,
    table: &'a Table,
}

/// A value and its whole name.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) key: String,
    pub(super) node: &'a Node,
}

impl<'a> Section<'a> {
    /// Takes the top level of the files.
    pub(super) fn top(root: &'a Table, place: &'a Place, problems: &'a Problems) -> Self {
        let layers = vec![Layer { path: String::new(), place, table: root }];
        Self { problems, layers, pattern: defaults::root() }.without_unknown_keys()
    }

    /// Takes a table in this one.
    pub(super) fn table(&self, key: &str) -> Self {
        let tables =
            self.layers.iter().filter_map(|layer| layer.table.get(key).map(|node| (dotted(&layer.path, key), node)));
        let layers = tables.filter_map(|(path, node)| self.layer(path, node)).collect();
        Self { problems: self.problems, layers, pattern: defaults::table(self.pattern, key) }
    }

    /// Takes each table of a table whose keys are names, with its name.
    pub(super) fn named(&self, key: &str, pattern: &'static Table) -> Vec<(&'a str, Self)> {
        let Some(layer) = self.given(key).and_then(|found| self.layer(found.key, found.node)) else {
            return Vec::new();
        };
        let entry =
            |(name, node): (&'a String, &'a Node)| Some((name.as_str(), self.layer(dotted(&layer.path, name), node)?));
        let entries = layer.table.iter().filter_map(entry);
        entries.map(|(name, layer)| (name, self.with(layer, pattern))).collect()
    }

    /// Takes each table of a list; `None` if no file gives the list.
    pub(super) fn listed(&self, key: &str, pattern: &'static Table) -> Option<Vec<Self>> {
        let found = self.given(key)?;
        let Value::Array(items) = &found.node.value else {
            let text = format!("`{}` is {}; it must be a list of tables: [{{ … }}]", found.key, found.node.value);
            self.problems.add(&found.node.place, text);
            return None;
        };
        let entry = |(index, node)| self.layer(format!("{}[{index}]", found.key), node);
        Some(items.iter().enumerate().filter_map(entry).map(|layer| self.with(layer, pattern)).collect())
    }

    fn with(&self, layer: Layer<'a>, pattern: &'static Table) -> Self {
        Self { problems: self.problems, layers: vec![layer], pattern }.without_unknown_keys()
    }

    fn layer(&self, path: String, node: &'a Node) -> Option<Layer<'a>> {
        match &node.value {
            Value::Table(table) => Some(Layer { path, place: &node.place, table }),
            // Only the kind: someone who leaves out an account's name has the token here.
            value => {
                self.problems.add(&node.place, format!("`{path}` is {}; it must be a table", value.kind()));
                None
            }
        }
    }

    /// Puts this table over another: what is not given here is looked up there, and the keys are those of the other.
    pub(super) fn over(mut self, other: &Self) -> Self {
        self.layers.extend(other.layers.iter().cloned());
        self.pattern = other.pattern;
        self.without_unknown_keys()
    }

    /// Takes the table's keys to be those of another.
    pub(super) fn like(mut self, pattern: &'static Table) -> Self {
        self.pattern = pattern;
        self.without_unknown_keys()
    }

    /// Reports every key that `defaults.toml` does not have.
    pub(super) fn without_unknown_keys(self) -> Self {
        for layer in &self.layers {
            for (key, node) in layer.table.iter().filter(|(key, _)| !self.pattern.contains_key(*key)) {
                self.problems.add(&node.place, self.unknown(&layer.path, key));
            }
        }
        self
    }

    fn unknown(&self, path: &str, key: &str) -> String {
        let full = dotted(path, key);
        match defaults::nearest(key, self.pattern) {
            Some(near)
                if !path.is_empty() && !self.pattern.contains_key(&near) && defaults::root().contains_key(&near) =>
            {
                format!("unknown key `{full}`; `{near}` belongs at the top of the file, before the first [table]")
            }
            Some(near) => format!("unknown key `{full}`; did you mean `{near}`?"),
            None => {
                let valid: Vec<_> = self.pattern.keys().map(|key| format!("`{key}`")).collect();
                format!("unknown key `{full}`; there are {}", valid.join(", "))
            }
        }
    }

    /// Returns the value that a file gives.
    pub(super) fn given(&self, key: &str) -> Option<Found<'a>> {
        let found = |layer: &Layer<'a>| layer.table.get(key).map(|node| Found { key: dotted(&layer.path, key), node });
        self.layers.iter().find_map(found)
    }

    /// Returns the value that a file gives, else the default. `None` only for a key that `defaults.toml` lacks.
    fn value(&self, key: &str) -> Option<Found<'a>> {
        let default = || self.pattern.get(key).map(|node| Found { key: self.name(key), node });
        self.given(key).or_else(default)
    }

    /// Returns the whole name of the table.
    pub(super) fn path(&self) -> &str {
        self.layers.first().map_or("", |layer| &layer.path)
    }

    /// Returns the whole name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        dotted(self.path(), key)
    }

    /// Reports a mistake about the table as a whole, or about a key that it lacks.
    pub(super) fn problem(&self, text: impl Into<String>) {
        if let Some(layer) = self.layers.first() {
            self.problems.add(layer.place, text);
        }
    }

    /// Returns where the table stands.
    pub(super) fn place(&self) -> Option<&'a Place> {
        self.layers.first().map(|layer| layer.place)
    }

    /// Returns a text, parsed. A failure is the sentence's end: "must be …".
    pub(super) fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let found = self.value(key)?;
        match &found.node.value {
            Value::Text { text, .. } => {
                let wrong = |reason| format!("`{}` is {}; it {reason}", found.key, found.node.value);
                let wrong = |reason| self.problems.add(&found.node.place, wrong(reason));
                parse(text).map_err(wrong).ok()
            }
            value => {
                self.problems
                    .add(&found.node.place, format!("`{}` is {value}; it must be a text in quotes", found.key));
                None
            }
        }
    }

    /// Returns a text that no error shows, parsed, or `Some(None)` if it is empty. A failure follows the key's name.
    pub(super) fn secret<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        let found = self.value(key)?;
        match &found.node.value {
            Value::Text { text, .. } if text.is_empty() => Some(None),
            Value::Text { text, .. } => {
                let wrong = |reason| self.problems.add(&found.node.place, format!("`{}` {reason}", found.key));
                parse(text).map_err(wrong).ok().map(Some)
            }
            value => {
                let text = format!("`{}` is {}; it must be a text in quotes", found.key, value.kind());
                self.problems.add(&found.node.place, text);
                None
            }
        }
    }

    /// Returns a text as it is.
    pub(super) fn text(&self, key: &str) -> String {
        self.parsed(key, |text| Ok(text.to_owned())).unwrap_or_default()
    }

    /// Returns what one of a few words stands for.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
            chosen.ok_or_else(|| format!("may be {}", words(choices)))
        })
    }

    /// Returns a list of texts with the places they stand on.
    pub(super) fn texts(&self, key: &str) -> Vec<(&'a str, &'a Node)> {
        let Some(found) = self.value(key) else { return Vec::new() };
        let Value::Array(items) = &found.node.value else {
            let text = format!("`{}` is {}; it must be a list of texts: [\"…\"]", found.key, found.node.value);
            self.problems.add(&found.node.place, text);
            return Vec::new();
        };
        items.iter().enumerate().filter_map(|(index, node)| self.item(&found.key, index, node)).collect()
    }

    fn item(&self, key: &str, index: usize, node: &'a Node) -> Option<(&'a str, &'a Node)> {
        match &node.value {
            Value::Text { text, .. } => Some((text.as_str(), node)),
            value => {
                self.problems.add(&node.place, format!("`{key}[{index}]` is {value}; it must be a text in quotes"));
                None
            }
        }
    }

    /// Returns whether something is so.
    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        let found = self.value(key)?;
        match &found.node.value {
            Value::Truth(truth) => Some(*truth),
            value => {
                let text = format!("`{}` is {value}; it must be true or false", found.key);
                self.problems.add(&found.node.place, text);
                None
            }
        }
    }

    /// Returns a number inside its bounds if a file gives one.
    pub(super) fn given_number(&self, key: &str, bounds: &RangeInclusive<u64>) -> Option<u64> {
        let found = self.given(key)?;
        match &found.node.value {
            Value::Integer(number) if u64::try_from(*number).is_ok_and(|number| bounds.contains(&number)) => {
                u64::try_from(*number).ok()
            }
            value => {
                let (least, most) = (bounds.start(), bounds.end());
                let text = format!("`{}` is {value}; it must be a whole number, {least} to {most}", found.key);
                self.problems.add(&found.node.place, text);
                None
            }
        }
    }

    /// Returns a number: a given one inside its bounds, else the default.
    pub(super) fn number(&self, key: &str, bounds: RangeInclusive<u64>) -> u64 {
        self.given_number(key, &bounds).unwrap_or_else(|| defaults::number(self.pattern, key))
    }

    /// Returns a number of things.
    pub(super) fn count(&self, key: &str, bounds: RangeInclusive<u64>) -> usize {
        to_usize(self.number(key, bounds))
    }

    /// Returns a time given in ms.
    pub(super) fn millis(&self, key: &str, bounds: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(key, bounds))
    }
}

/// Converts a number that its bound keeps small.
pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn words<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
