//! `grants.kv`: keys of the plugin's own in the store.

use super::Section;
use crate::{
    config::{defaults, document::Value},
    store::kv::Quota,
};

/// How much a plugin may keep in one account, all of its users together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvGrant {
    /// Its keys and values together, in MiB. Default 10.
    pub mib: u64,
    /// How many keys. Default 100,000.
    pub keys: u64,
}

impl KvGrant {
    fn of(table: &Section<'_>) -> Self {
        Self { mib: table.number("mib", 1..=65_536), keys: table.number("keys", 1..=100_000_000) }
    }

    /// Returns the grant as the store counts it.
    pub fn quota(&self) -> Quota {
        Quota { bytes: self.mib << 20, keys: self.keys }
    }
}

/// The grant of `kv = true`: the bounds of `defaults.toml`.
impl Default for KvGrant {
    fn default() -> Self {
        let table = defaults::table(defaults::table(defaults::plugin(), "grants"), "kv");
        Self { mib: defaults::number(table, "mib"), keys: defaults::number(table, "keys") }
    }
}

/// Reads `kv`; `None` if the table has none, `Some(None)` if it takes the grant away.
pub(super) fn read(section: &Section<'_>) -> Option<Option<KvGrant>> {
    let found = section.given("kv")?;
    match &found.node.value {
        Value::Truth(true) => Some(Some(KvGrant::default())),
        Value::Truth(false) => Some(None),
        Value::Table(_) => Some(Some(KvGrant::of(&section.table("kv").without_unknown_keys()))),
        value => {
            let text =
                format!("`{}` is {value}; it must be true, false or a table: {{ mib = 10, keys = 100000 }}", found.key);
            section.problems.add(&found.node.place, text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{error, load};

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    fn grant(lines: &str) -> Option<KvGrant> {
        let config = load(&format!("{ACCOUNT}{lines}\n"));
        config.plugin(&config.accounts[0], "notes", false).grants.kv
    }

    #[test]
    fn nothing_is_granted_unless_the_operator_says_so() {
        assert_eq!(grant(""), None);
        assert_eq!(grant("[plugins.notes]"), None);
        assert_eq!(grant("[plugins.notes.grants]\nkv = false"), None);
        assert_eq!(grant("[plugins.other.grants]\nkv = true"), None);
    }

    #[test]
    fn a_grant_has_the_bounds_it_names_and_else_the_defaults() {
        let default = KvGrant { mib: 10, keys: 100_000 };
        assert_eq!(grant("[plugins.notes.grants]\nkv = true"), Some(default.clone()));
        assert_eq!(grant("[plugins.notes.grants.kv]"), Some(default.clone()));
        assert_eq!(grant("[plugins.notes.grants]\nkv = { mib = 1 }"), Some(KvGrant { mib: 1, ..default.clone() }));
        assert_eq!(grant("[plugins.notes]\ngrants.kv.keys = 5"), Some(KvGrant { keys: 5, ..default }));
    }

    #[test]
    fn an_account_gives_another_grant_or_takes_it_away() {
        let shared = "[plugins.notes.grants]\nkv = { mib = 1, keys = 5 }\n[accounts.main.plugins.notes.grants]\n";
        assert_eq!(grant(shared), Some(KvGrant { mib: 1, keys: 5 }));
        assert_eq!(grant(&format!("{shared}kv = {{ keys = 7 }}")), Some(KvGrant { mib: 10, keys: 7 }));
        assert_eq!(grant(&format!("{shared}kv = false")), None);
    }

    #[test]
    fn a_plugin_in_an_accounts_own_directory_inherits_no_grant_by_its_name() {
        let config = load(&format!("{ACCOUNT}[plugins.notes.grants]\nkv = true\n"));
        assert_eq!(config.plugin(&config.accounts[0], "notes", true).grants.kv, None);
    }

    #[test]
    fn a_mistake_names_the_key_and_what_it_may_be() {
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\ngrants.kv = 5\n[plugins.b.grants]\nkv = {{ mib = 0, key = 1 }}\n")),
            "aviary.toml:4: `plugins.a.grants.kv` is 5; it must be true, false or a table: { mib = 10, keys = 100000 }\n\
             aviary.toml:6: `plugins.b.grants.kv.mib` is 0; it must be a whole number, 1 to 65536\n\
             aviary.toml:6: unknown key `plugins.b.grants.kv.key`; did you mean `keys`?"
        );
    }
}
