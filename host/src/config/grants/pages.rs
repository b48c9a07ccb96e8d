//! `grants.pages`: pages that the plugin serves.

use super::Section;
use crate::config::document::Value;

/// That a plugin may serve pages, and what may be on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagesGrant {
    /// Whether scripts run on them. Default false.
    pub scripts: bool,
}

/// Reads `pages`; `None` if the table has none, `Some(None)` if it takes the grant away.
pub(super) fn read(section: &Section<'_>) -> Option<Option<PagesGrant>> {
    let found = section.given("pages")?;
    match &found.node.value {
        Value::Truth(true) => Some(Some(PagesGrant::default())),
        Value::Truth(false) => Some(None),
        Value::Table(_) => {
            let table = section.table("pages").without_unknown_keys();
            Some(Some(PagesGrant { scripts: table.truth("scripts")? }))
        }
        value => {
            let text = format!("`{}` is {value}; it must be true, false or a table: {{ scripts = true }}", found.key);
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

    fn grant(lines: &str) -> Option<PagesGrant> {
        let config = load(&format!("{ACCOUNT}{lines}\n"));
        config.plugin(&config.accounts[0], "shop", false).grants.pages
    }

    #[test]
    fn no_plugin_serves_pages_unless_the_operator_says_so_and_scripts_are_granted_apart() {
        assert_eq!(grant(""), None);
        assert_eq!(grant("[plugins.shop.grants]\npages = false"), None);
        assert_eq!(grant("[plugins.shop.grants]\npages = true"), Some(PagesGrant { scripts: false }));
        assert_eq!(grant("[plugins.shop.grants.pages]"), Some(PagesGrant { scripts: false }));
        assert_eq!(grant("[plugins.shop.grants]\npages = { scripts = true }"), Some(PagesGrant { scripts: true }));
        let taken = "[plugins.shop.grants]\npages = true\n[accounts.main.plugins.shop.grants]\npages = false";
        assert_eq!(grant(taken), None);
    }

    #[test]
    fn a_mistake_names_the_key_and_what_it_may_be() {
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.a]\ngrants.pages = 5\n[plugins.b.grants]\npages = {{ scripts = 1 }}\n")),
            "aviary.toml:4: `plugins.a.grants.pages` is 5; it must be true, false or a table: { scripts = true }\n\
             aviary.toml:6: `plugins.b.grants.pages.scripts` is 1; it must be true or false"
        );
    }
}
