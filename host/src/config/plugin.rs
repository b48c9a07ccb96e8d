//! What the operator says about a plugin: the tables `[plugins.NAME]` and `[accounts.NAME.plugins.PLUGIN]`.

use std::collections::BTreeMap;

use super::defaults;
use super::document::{Node, Value, dotted};
use super::limits::{Limits, OwnLimits};
use super::matches::MatchRule;
use super::section::Section;
use crate::secret::Secret;

/// Everything that is set for one plugin in one account.
#[derive(Clone, Debug, Default)]
pub struct PluginSettings {
    /// `match`: which messages it is asked about: those that fit one of the rules. Default empty: every message.
    pub matches: Vec<MatchRule>,
    /// `env`: its environment variables by name. Default none.
    pub env: BTreeMap<String, Secret>,
    /// `limits`, over `[limits]`.
    pub limits: Limits,
}

/// One plugin's table.
#[derive(Clone, Debug)]
pub(super) struct PluginTable {
    matches: Option<Vec<MatchRule>>,
    env: BTreeMap<String, Secret>,
    limits: OwnLimits,
}

impl PluginTable {
    /// Reads every table of `plugins` in a section.
    pub(super) fn read_all(section: &Section<'_>) -> BTreeMap<String, Self> {
        let tables = section.named("plugins", defaults::plugin()).into_iter();
        tables.map(|(name, section)| (name.to_owned(), Self::read(&section))).collect()
    }

    fn read(section: &Section<'_>) -> Self {
        let limits = section.table("limits").like(defaults::limits());
        Self { matches: MatchRule::read_all(section), env: env(section), limits: OwnLimits::read(&limits) }
    }
}

impl PluginSettings {
    /// Lays tables over the defaults, the nearest first.
    pub(super) fn of(tables: [Option<&PluginTable>; 2], limits: &Limits) -> Self {
        let [nearest, shared] = tables;
        let mut env = shared.map(|table| table.env.clone()).unwrap_or_default();
        env.extend(nearest.map(|table| table.env.clone()).unwrap_or_default());
        let matches = tables.into_iter().flatten().find_map(|table| table.matches.clone());
        let over = |limits: Limits, table: &PluginTable| limits.with(&table.limits);
        let limits = [shared, nearest].into_iter().flatten().fold(limits.clone(), over);
        Self { matches: matches.unwrap_or_default(), env, limits }
    }
}

/// Reads `env`. No error shows a value: it may be an API key.
fn env(section: &Section<'_>) -> BTreeMap<String, Secret> {
    let Some(found) = section.given("env") else { return BTreeMap::new() };
    let Value::Table(table) = &found.node.value else {
        let text = format!("`{}` is {}; it must be a table: {{ NAME = \"…\" }}", found.key, found.node.value.kind());
        section.problems.add(&found.node.place, text);
        return BTreeMap::new();
    };
    let entry = |(name, node): (&String, &Node)| match variable(name, &node.value) {
        Ok(value) => Some((name.clone(), value)),
        Err(reason) => {
            section.problems.add(&node.place, format!("`{}` {reason}", dotted(&found.key, name)));
            None
        }
    };
    table.iter().filter_map(entry).collect()
}

fn variable(name: &str, value: &Value) -> Result<Secret, String> {
    match value {
        _ if name.is_empty() || name.contains(['=', '\0']) => Err("is no name for an environment variable".to_owned()),
        Value::Text { text, .. } if text.contains('\0') => Err("contains a zero byte".to_owned()),
        Value::Text { text, .. } => Ok(Secret::from(text.clone())),
        value => Err(format!("is {}; it must be a text in quotes", value.kind())),
    }
}
