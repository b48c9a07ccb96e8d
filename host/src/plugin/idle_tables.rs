//! Tables of settings that are about no plugin: what they grant or limit counts nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use crate::config::{Account, Config};

/// How many slips of the pen may lie between a table's name and the plugin's.
const SLIPS_MAX: usize = 2;

/// Which plugins lie in each directory, by their names. A directory that could not be read is not there.
pub type Names = BTreeMap<PathBuf, BTreeSet<String>>;

/// Names every table that is about no plugin, with the way out: one sentence each.
pub fn idle_tables(config: &Config, names: &Names) -> Vec<String> {
    let idle = |(account, name): (Option<&Account>, &str)| {
        let known = known(config, account, names)?;
        let is_idle = !known.iter().any(|known| known.contains(name));
        is_idle.then(|| {
            let owner = config.accounts.iter().find(|account| owns(account, name, names));
            sentence(account, name, &known, owner.filter(|_| account.is_none()).map(Arc::as_ref))
        })
    };
    config.plugin_tables().into_iter().filter_map(idle).collect()
}

/// The plugins that a table can be about; nothing where that is not known.
fn known<'a>(config: &Config, account: Option<&Account>, names: &'a Names) -> Option<Vec<&'a BTreeSet<String>>> {
    let own = account.and_then(|account| account.plugins_dir.as_ref());
    [Some(&config.plugins_dir), own].into_iter().flatten().map(|dir| names.get(dir)).collect()
}

/// Whether a plugin lies in the account's own directory.
fn owns(account: &Account, name: &str, names: &Names) -> bool {
    account.plugins_dir.as_ref().and_then(|dir| names.get(dir)).is_some_and(|own| own.contains(name))
}

/// `owner`: an account whose own plugin has the name, which only a table of that account can be about.
fn sentence(account: Option<&Account>, name: &str, known: &[&BTreeSet<String>], owner: Option<&Account>) -> String {
    if let Some(Account { name: owner, .. }) = owner {
        return format!(
            "[plugins.{name}] is about no plugin: {name}.wasm lies in account `{owner}`'s own directory; call the table \
             [accounts.{owner}.plugins.{name}]"
        );
    }
    let table = account.map(|account| format!("accounts.{}.", account.name)).unwrap_or_default();
    let slips = |known: &&String| strsim::damerau_levenshtein(known, name);
    let near = known.iter().copied().flatten().min_by_key(slips).filter(|known| slips(known) <= SLIPS_MAX);
    let way_out = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("put {name}.wasm where the others are, or remove the table"),
    };
    format!("[{table}plugins.{name}] is about no plugin: no file has that name; {way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::load;

    const MAIN: &str = "[accounts.main]\ntoken = \"abc\"\nplugins_dir = \"own\"\n";

    /// What is told of these tables, where `echo` is shared and `menu` is the account's own.
    fn told(tables: &str, unreadable: &str) -> Vec<String> {
        let config = load(&format!("{MAIN}{tables}"));
        let plugins = [("echo", &config.plugins_dir), ("menu", config.accounts[0].plugins_dir.as_ref().unwrap())];
        let readable = plugins.into_iter().filter(|(_, dir)| !dir.ends_with(unreadable));
        let names = readable.map(|(name, dir)| (dir.clone(), BTreeSet::from([name.to_owned()]))).collect();
        idle_tables(&config, &names)
    }

    #[test]
    fn a_table_is_about_a_plugin_that_it_reaches() {
        assert!(
            told("[plugins.echo]\n[accounts.main.plugins.echo]\n[accounts.main.plugins.menu]\n", "none").is_empty()
        );
        assert_eq!(
            told("[plugins.menu]\n[accounts.main.plugins.meun]\n[accounts.main.plugins.weather]\n", "none"),
            [
                "[plugins.menu] is about no plugin: menu.wasm lies in account `main`'s own directory; call the table \
                 [accounts.main.plugins.menu]",
                "[accounts.main.plugins.meun] is about no plugin: no file has that name; did you mean `menu`?",
                "[accounts.main.plugins.weather] is about no plugin: no file has that name; put weather.wasm where the others \
                 are, or remove the table",
            ]
        );
    }

    #[test]
    fn of_a_directory_that_cannot_be_read_nobody_knows_what_is_missing_there() {
        let tables = "[plugins.ecko]\n[accounts.main.plugins.meun]\n";
        assert_eq!(told(tables, "own").len(), 1);
        assert!(told(tables, "plugins").is_empty());
    }
}
