//! `grants.customer_service`: to whom a plugin may send customer-service messages.

use super::Section;

/// Whom a plugin reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomerServiceGrant {
    /// The user whose message is being answered.
    Sender,
    /// Every user of the account.
    Anyone,
}

/// Reads `customer_service`; `None` if the table has none, `Some(None)` if it takes the grant away.
pub(super) fn read(section: &Section<'_>) -> Option<Option<CustomerServiceGrant>> {
    section.given("customer_service")?;
    section.choice(
        "customer_service",
        &[("", None), ("sender", Some(CustomerServiceGrant::Sender)), ("anyone", Some(CustomerServiceGrant::Anyone))],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{error, load};

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    fn grant(lines: &str) -> Option<CustomerServiceGrant> {
        let config = load(&format!("{ACCOUNT}{lines}\n"));
        config.plugin(&config.accounts[0], "news", false).grants.customer_service
    }

    #[test]
    fn a_plugin_reaches_whom_the_operator_says_and_else_nobody() {
        assert_eq!(grant(""), None);
        let shared = "[plugins.news.grants]\ncustomer_service = \"anyone\"\n";
        assert_eq!(grant(shared), Some(CustomerServiceGrant::Anyone));
        let own =
            |word: &str| grant(&format!("{shared}[accounts.main.plugins.news.grants]\ncustomer_service = \"{word}\""));
        assert_eq!((own("sender"), own("")), (Some(CustomerServiceGrant::Sender), None));
    }

    #[test]
    fn a_mistake_names_the_key_and_what_it_may_be() {
        assert_eq!(
            error(&format!("{ACCOUNT}[plugins.news.grants]\ncustomer_service = \"all\"\n")),
            "aviary.toml:4: `plugins.news.grants.customer_service` is \"all\"; it may be \"\", \"sender\" or \"anyone\""
        );
    }
}
