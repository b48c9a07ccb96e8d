//! What the operator says about a plugin: the tables `[plugins.NAME]` and `[accounts.NAME.plugins.PLUGIN]`.

use std::collections::BTreeMap;

use super::{
    compile::{Compile, OwnCompile},
    defaults,
    document::{Node, Value, dotted},
    grants::{Grants, OwnGrants},
    limits::{Limits, OwnLimits},
    matches::MatchRule,
    quarantine::{OwnQuarantine, Quarantine},
    rate::Rate,
    section::Section,
};
use crate::{plugin::Hash, secret::Secret};

/// Everything that is set for one plugin in one account.
#[derive(Clone, Debug, Default)]
pub struct PluginSettings {
    /// `match`: which messages it is asked about: those that fit one of the rules. Default empty: every message.
    pub matches: Vec<MatchRule>,
    /// `env`: its environment variables by name. Default none.
    pub env: BTreeMap<String, Secret>,
    /// How often one user may call it. Default: no bound.
    pub per_user: Option<Rate>,
    /// `limits`, over `[limits]`.
    pub limits: Limits,
    /// `quarantine`, over `[quarantine]`.
    pub quarantine: Quarantine,
    /// `compile`, over `[compile]`.
    pub compile: Compile,
    /// `grants`: what it may reach. Default nothing.
    pub grants: Grants,
    /// `sha256`: the only content that its file may have. Default any.
    pub sha256: Option<Hash>,
}

/// One plugin's table.
#[derive(Clone, Debug)]
pub(super) struct PluginTable {
    matches: Option<Vec<MatchRule>>,
    env: BTreeMap<String, Secret>,
    per_user: Option<Option<Rate>>,
    limits: OwnLimits,
    quarantine: OwnQuarantine,
    compile: OwnCompile,
    grants: OwnGrants,
    /// Empty in an account's table, it takes the shared one away.
    sha256: Option<Option<Hash>>,
    /// What is allowed but hardly meant. One line each.
    pub(super) notes: Vec<String>,
}

impl PluginTable {
    /// Reads every table of `plugins` in a section.
    pub(super) fn read_all(section: &Section<'_>) -> BTreeMap<String, Self> {
        let tables = section.named("plugins", defaults::plugin()).into_iter();
        tables.map(|(name, section)| (name.to_owned(), Self::read(&section))).collect()
    }

    fn read(section: &Section<'_>) -> Self {
        let limits = section.table("limits").like(defaults::limits());
        let quarantine = section.table("quarantine").like(defaults::quarantine());
        let grants = section.table("grants").without_unknown_keys();
        Self {
            matches: MatchRule::read_all(section),
            notes: MatchRule::notes(section),
            env: env(section),
            per_user: section.given("per_user").and_then(|_| section.parsed("per_user", Rate::parse)),
            limits: OwnLimits::read(&limits),
            quarantine: OwnQuarantine::read(&quarantine),
            compile: OwnCompile::read(section.table("compile")),
            grants: OwnGrants::read(&grants),
            sha256: section.given("sha256").and_then(|_| section.parsed("sha256", sha256)),
        }
    }
}

impl PluginSettings {
    /// Lays tables over the defaults, the nearest first.
    pub(super) fn of(
        tables: [Option<&PluginTable>; 2],
        limits: &Limits,
        quarantine: &Quarantine,
        compile: &Compile,
    ) -> Self {
        let [nearest, shared] = tables;
        let mut env = shared.map(|table| table.env.clone()).unwrap_or_default();
        env.extend(nearest.map(|table| table.env.clone()).unwrap_or_default());
        let matches = tables.into_iter().flatten().find_map(|table| table.matches.clone());
        let per_user = tables.into_iter().flatten().find_map(|table| table.per_user).flatten();
        let over = |limits: Limits, table: &PluginTable| limits.with(&table.limits);
        let limits = [shared, nearest].into_iter().flatten().fold(limits.clone(), over);
        let over = |quarantine: Quarantine, table: &PluginTable| quarantine.with(&table.quarantine);
        let quarantine = [shared, nearest].into_iter().flatten().fold(quarantine.clone(), over);
        let over = |compile: Compile, table: &PluginTable| compile.with(&table.compile);
        let compile = [shared, nearest].into_iter().flatten().fold(compile.clone(), over);
        let over = |grants: Grants, table: &PluginTable| grants.with(&table.grants);
        let grants = [shared, nearest].into_iter().flatten().fold(Grants::default(), over);
        let sha256 = tables.into_iter().flatten().find_map(|table| table.sha256).flatten();
        Self { matches: matches.unwrap_or_default(), env, per_user, limits, quarantine, compile, grants, sha256 }
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

fn sha256(text: &str) -> Result<Option<Hash>, String> {
    match text {
        "" => Ok(None),
        text => {
            let hash = Hash::parse(text).map(Some);
            hash.ok_or_else(|| "must be 64 hexadecimal digits, as `sha256sum` and `aviary check` print them".to_owned())
        }
    }
}

fn variable(name: &str, value: &Value) -> Result<Secret, String> {
    match value {
        _ if name.is_empty() || name.contains(['=', '\0']) => Err("is no name for an environment variable".to_owned()),
        Value::Text { text, .. } if text.contains('\0') => Err("contains a zero byte".to_owned()),
        Value::Text { text, .. } => Ok(Secret::from(text.clone())),
        value => Err(format!("is {}; it must be a text in quotes", value.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};
    use super::*;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    fn env(settings: &PluginSettings) -> Vec<(&str, &str)> {
        settings.env.iter().map(|(name, value)| (&**name, value.expose())).collect()
    }

    #[test]
    fn a_plugin_without_a_table_has_the_shared_limits_and_nothing_else() {
        let config = load(&format!("{ACCOUNT}[limits]\ncpu_ms = 50\n"));
        let settings = config.plugin(&config.accounts[0], "weather", false);
        assert_eq!(settings.limits, Limits { cpu_ms: 50, ..Limits::default() });
        assert_eq!((settings.matches.len(), settings.env.len()), (0, 0));
    }

    #[test]
    fn an_accounts_table_replaces_the_shared_keys_and_merges_env_and_limits() {
        let config = load(&format!(
            "{ACCOUNT}
             [limits]
             handles_max = 16
             [plugins.weather]
             match = [{{ starts_with = \"天气\" }}, {{ event = \"CLICK\" }}]
             env = {{ CITY = \"Beijing\", UNIT = \"C\" }}
             limits = {{ memory_mib = 16, cpu_ms = 10 }}
             [accounts.main.plugins.weather]
             match = [{{ type = \"voice\" }}]
             env = {{ CITY = \"上海\", LANG = \"zh\" }}
             limits.cpu_ms = 20"
        ));
        let settings = config.plugin(&config.accounts[0], "weather", false);
        assert_eq!(settings.matches.len(), 1);
        assert_eq!(env(&settings), [("CITY", "上海"), ("LANG", "zh"), ("UNIT", "C")]);
        assert_eq!(settings.limits, Limits { memory_mib: 16, cpu_ms: 20, handles_max: 16, ..Limits::default() });
    }

    #[test]
    fn an_account_can_take_the_rules_away() {
        let config = load(&format!(
            "{ACCOUNT}plugins.weather.match = []\n[plugins.weather]\nmatch = [{{ type = \"text\" }}]\nenv.A = \"b\"\n"
        ));
        let settings = config.plugin(&config.accounts[0], "weather", false);
        assert_eq!((settings.matches.len(), env(&settings)), (0, vec![("A", "b")]));
    }

    #[test]
    fn a_plugin_in_an_accounts_own_directory_inherits_nothing_by_its_name() {
        let config = load(&format!(
            "{ACCOUNT}[plugins.weather]\nenv = {{ KEY = \"shared\" }}\nlimits.memory_mib = 1024\n
             [accounts.main.plugins.weather]\nenv = {{ CITY = \"上海\" }}\n"
        ));
        let settings = config.plugin(&config.accounts[0], "weather", true);
        assert_eq!(env(&settings), [("CITY", "上海")]);
        assert_eq!(settings.limits, Limits::default());
    }

    #[test]
    fn a_pin_is_a_hash_and_an_account_can_have_another_or_none() {
        let (one, two) = ("1".repeat(64), "Aa".repeat(32));
        let config = load(&format!(
            "{ACCOUNT}[plugins]\na.sha256 = \"{one}\"\nb.sha256 = \"{one}\"\nc.sha256 = \"{one}\"\n
             [accounts.main.plugins]\nb.sha256 = \"{two}\"\nc.sha256 = \"\"\n"
        ));
        let pin = |name| config.plugin(&config.accounts[0], name, false).sha256.map(|hash| hash.to_string());
        assert_eq!([pin("a"), pin("b"), pin("c"), pin("d")], [Some(one), Some("aa".repeat(32)), None, None]);
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\nsha256 = \"12\"\n")),
            "aviary.toml:4: `plugins.a.sha256` is \"12\"; it must be 64 hexadecimal digits, as `sha256sum` and \
             `aviary check` print them"
        );
    }

    #[test]
    fn env_holds_texts_by_name_and_no_error_shows_one() {
        assert_eq!(
            error(&format!(
                "{ACCOUNT}[plugins.a.env]\nKEY = 12345\n\"A=B\" = \"secret7\"\nZERO = \"secret7\\u0000\"\n"
            )),
            "aviary.toml:4: `plugins.a.env.KEY` is a number; it must be a text in quotes\n\
             aviary.toml:5: `plugins.a.env.\"A=B\"` is no name for an environment variable\n\
             aviary.toml:6: `plugins.a.env.ZERO` contains a zero byte"
        );
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\nenv = \"secret7\"\n")),
            "aviary.toml:4: `plugins.a.env` is a text; it must be a table: { NAME = \"…\" }"
        );
    }

    #[test]
    fn a_limit_of_a_plugin_has_the_bounds_of_the_shared_one() {
        assert_eq!(
            error(&format!(
                "{ACCOUNT}[plugins.a.limits]\nmemory_mib = 2000\nthreads = 2\n[accounts.main.plugins.a]\nlimit = 1\n"
            )),
            "aviary.toml:4: `plugins.a.limits.memory_mib` is 2000; it must be a whole number, 1 to 1024\n\
             aviary.toml:5: unknown key `plugins.a.limits.threads`; there are `calls_max`, `cpu_ms`, `handles_max`, \
             `host_data_mib`, `instances_max`, `log_bytes_max`, `memories_max`, `memory_mib`, `reply_bytes_max`, \
             `table_elements_max`, `tables_max`, `timeout_ms`, `wait_ms`, `wechat_calls_max`\n\
             aviary.toml:7: unknown key `accounts.main.plugins.a.limit`; did you mean `limits`?"
        );
    }

    #[test]
    fn calls_per_user_are_those_of_the_nearest_table_that_gives_them() {
        let config = load(&format!(
            "{ACCOUNT}plugins.weather.per_user = \"0\"\n[plugins.weather]\nper_user = \"20/1m\"\n\
             [plugins.news]\nper_user = \"5/1h\"\n"
        ));
        let of = |plugin| config.plugin(&config.accounts[0], plugin, false).per_user.map(|rate| rate.to_string());
        assert_eq!((of("weather"), of("news").as_deref(), of("echo")), (None, Some("5/1h"), None));
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\nper_user = \"20\"\n")),
            "aviary.toml:4: `plugins.a.per_user` is \"20\"; it must be a number of calls and a time, such as \"20/1m\" (s, m, \
             h, d; 1000000 calls and 31d at most), or \"\" for no bound"
        );
    }

    #[test]
    fn a_key_of_a_feature_that_does_not_exist_is_unknown() {
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\nwebsockets = true\n")),
            "aviary.toml:4: unknown key `plugins.a.websockets`; there are `compile`, `env`, `grants`, `limits`, `match`, \
             `per_user`, `quarantine`, `sha256`"
        );
    }
}
