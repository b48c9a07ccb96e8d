//! What a setting is when nobody gives it, and which settings there are: `defaults.toml`, compiled in.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::{
    document::{self, Node, Table, Value, dotted},
    error::Problems,
};

/// The text of `defaults.toml`: every setting, documented.
const DEFAULTS: &str = include_str!("../../defaults.toml");

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

/// Returns the table `[quarantine]`.
pub(super) fn quarantine() -> &'static Table {
    table(&ROOT, "quarantine")
}

/// Returns the table `[compile]`.
pub(super) fn compile() -> &'static Table {
    table(&ROOT, "compile")
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

/// Returns each key of `defaults.toml` with the comment above it.
#[cfg(test)]
pub(super) fn documented() -> Vec<(String, String)> {
    let (mut path, mut comment, mut keys) = (String::new(), String::new(), Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment += text;
        } else if let Some(header) = line.strip_prefix('[') {
            path = header.trim_matches(['[', ']']).to_owned();
            comment.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            // Several keys in a row share the comment above the first.
            keys.push((dotted(&path, key), comment.clone()));
        } else {
            comment.clear();
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::super::{
        Config,
        fixture::{Directory, error, load},
    };
    use super::*;

    /// `defaults.toml` with the one value that must be given.
    fn defaults_with_token() -> String {
        DEFAULTS.replacen("\ntoken = \"\"", "\ntoken = \"abc\"", 1)
    }

    /// `defaults.toml` with one value replaced.
    fn defaults_with(key: &str, value: &str) -> String {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let (mut path, mut replaced) = (String::new(), String::new());
        for line in defaults_with_token().lines() {
            if let Some(header) = line.strip_prefix('[') {
                path = header.trim_matches(['[', ']']).to_owned();
            }
            let is_key = path == table && line.starts_with(&format!("{name} = "));
            let line = if is_key { format!("{name} = {value}") } else { line.to_owned() };
            replaced += &format!("{line}\n");
        }
        replaced
    }

    #[test]
    fn the_file_of_defaults_is_itself_a_file_of_settings() {
        let config = load(&defaults_with_token());
        let bare = load("[accounts.main]\ntoken = \"abc\"\n");
        assert_eq!(config.limits, bare.limits);
        assert_eq!(config.listener, bare.listener);
        assert_eq!(config.compile, bare.compile);
        assert_eq!(config.log, bare.log);
        assert_eq!(config.plugin(&config.accounts[0], "example", false).matches.len(), 3);
    }

    #[test]
    fn the_patterns_make_no_account_and_no_plugin() {
        let config = load("[accounts.other]\ntoken = \"abc\"\n");
        assert_eq!(config.accounts.iter().map(|account| &account.name).collect::<Vec<_>>(), ["other"]);
        assert!(config.plugin(&config.accounts[0], "example", false).matches.is_empty());
    }

    #[test]
    fn every_key_is_documented() {
        for (key, comment) in documented() {
            assert!(comment.len() > 20, "`{key}` has no comment");
        }
    }

    #[test]
    fn every_documented_key_is_read_and_holds_its_kind_of_value() {
        for (key, _) in documented() {
            let error = error(&defaults_with(&key, "2001-01-01"));
            let name = key.rsplit_once('.').map_or(&*key, |(_, name)| name);
            assert!(error.contains(&format!("{name}` is ")) && error.contains("it must be"), "{key}: {error}");
        }
    }

    #[test]
    fn every_number_keeps_the_bounds_that_its_comment_names() {
        let bounds = Regex::new(r"whole number, (\d+) to (\d+)").unwrap();
        let mut numbers = 0;
        for (key, comment) in documented() {
            let refused = error(&defaults_with(&key, "-1"));
            let Some(found) = bounds.captures(&refused) else { continue };
            let (least, most): (i64, i64) = (found[1].parse().unwrap(), found[2].parse().unwrap());
            assert!(comment.contains(&format!("{least} to {most}")), "{key}: {refused}");
            for (number, allowed) in [(least, true), (most, true), (least - 1, false), (most + 1, false)] {
                let is_refused = refuses_number(&defaults_with(&key, &number.to_string()));
                assert_eq!(is_refused, !allowed, "{key} = {number}");
            }
            numbers += 1;
        }
        assert_eq!(numbers, DEFAULTS.lines().filter(|line| line.split_once(" = ").is_some_and(is_number)).count());
    }

    fn refuses_number(main: &str) -> bool {
        let loaded = Config::load(&Directory::with(main).path("aviary.toml"));
        loaded.is_err_and(|error| error.to_string().contains("whole number"))
    }

    fn is_number((key, value): (&str, &str)) -> bool {
        !key.starts_with('#') && value.parse::<i64>().is_ok()
    }
}
