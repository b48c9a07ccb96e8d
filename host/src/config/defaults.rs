//! What a setting is when nobody gives it, and which settings there are: `defaults.toml`, compiled in.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::document::{self, Node, Table, Value, dotted};
use super::error::Problems;

/// The text of `defaults.toml`: every setting, documented.
pub const DEFAULTS: &str = include_str!("../../defaults.toml");

static ROOT: LazyLock<Table> = LazyLock::new(|| {
    let file = Arc::from("defaults.toml");
    document::parse(&file, DEFAULTS, &mut |text| Ok(text.to_owned()), &Problems::default())
        .expect("the tests parse this constant")
});

/// Every key of a rule: the patterns' rules together, for no single rule can have all keys.
static RULE: LazyLock<Table> = LazyLock::new(|| match plugin().get("match") {
    Some(Node { value: Value::Array(rules), .. }) => rules.iter().flat_map(table_of).map(owned).collect(),
    _ => Table::new(),
});

static NOTHING: Table = BTreeMap::new();

/// Returns the top level.
pub(super) fn root() -> &'static Table {
    &ROOT
}

/// Returns the pattern of an account's table.
pub(super) fn account() -> &'static Table {
    table(table(&ROOT, "accounts"), "main")
}

/// Returns the pattern of a plugin's table.
pub(super) fn plugin() -> &'static Table {
    table(table(&ROOT, "plugins"), "example")
}

/// Returns the table `[limits]`.
pub(super) fn limits() -> &'static Table {
    table(&ROOT, "limits")
}

/// Returns the keys of a `match` rule.
pub(super) fn rule() -> &'static Table {
    &RULE
}

/// Returns a table in a table. One that is not there has no keys, and so every key given in it is refused.
pub(super) fn table(table: &'static Table, key: &str) -> &'static Table {
    table.get(key).map_or(&NOTHING, table_of)
}

/// Returns the default of a number, 0 for a key that is not there.
pub(super) fn number(table: &Table, key: &str) -> u64 {
    match table.get(key).map(|node| &node.value) {
        Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

/// Returns the valid key that is meant by an unknown one: the nearest in its own table, or the same in another.
pub(super) fn nearest(key: &str, valid: &Table) -> Option<String> {
    let distance = |valid: &String| strsim::damerau_levenshtein(key, valid);
    let near = valid.keys().min_by_key(|valid| distance(valid)).filter(|valid| distance(valid) <= 1 + valid.len() / 4);
    near.cloned().or_else(|| elsewhere(key, &ROOT, ""))
}

fn elsewhere(key: &str, table: &Table, path: &str) -> Option<String> {
    if table.contains_key(key) {
        return Some(dotted(path, key));
    }
    table.iter().find_map(|(name, node)| match &node.value {
        Value::Table(table) => elsewhere(key, table, &dotted(path, name)),
        _ => None,
    })
}

fn table_of(node: &Node) -> &Table {
    match &node.value {
        Value::Table(table) => table,
        _ => &NOTHING,
    }
}

fn owned((key, node): (&String, &Node)) -> (String, Node) {
    (key.clone(), node.clone())
}
