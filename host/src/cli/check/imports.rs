//! What a plugin imports, held against what it is granted.

use std::collections::BTreeMap;

use super::Report;
use crate::{
    config::{Grants, PluginSettings},
    plugin::code::{Code, PAGES},
};

/// The interface that every plugin has, as it hears and says something. It holds no functions: there is nothing to ask for.
const TYPES: &str = "aviary:bot/types";

/// An account that asks a plugin, and what it lets it do.
pub(super) struct Asker<'a> {
    pub(super) account: &'a str,
    /// Whether the file is in the account's own directory.
    pub(super) is_own: bool,
    /// Whether it has pages at all.
    pub(super) has_domains: bool,
    pub(super) settings: &'a PluginSettings,
}

impl Asker<'_> {
    fn has_grants(&self) -> bool {
        OF_IMPORTS.iter().chain([&Grant::Pages]).any(|grant| grant.is_in(&self.settings.grants))
    }
}

/// How an import is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Always as it should be.
    Always,
    /// Only with a refusal: a language's runtime imports it whether its program needs it or not.
    Never,
    /// As the grants say.
    Granted(Grant),
}

/// What the operator can grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Kv,
    Http,
    WechatApi,
    CustomerService,
    /// Asked for not by an import, but by what the plugin exports.
    Pages,
}

/// What a plugin asks for by its imports.
const OF_IMPORTS: [Grant; 4] = [Grant::Kv, Grant::Http, Grant::WechatApi, Grant::CustomerService];

impl Answer {
    fn to(import: &str) -> Self {
        match name(import) {
            "aviary:bot/kv" => Self::Granted(Grant::Kv),
            "aviary:bot/http" | "wasi:http/outgoing-handler" => Self::Granted(Grant::Http),
            "aviary:bot/wechat-api" => Self::Granted(Grant::WechatApi),
            "aviary:bot/customer-service" => Self::Granted(Grant::CustomerService),
            name if name.starts_with("wasi:sockets/") || name.starts_with("wasi:filesystem/") => Self::Never,
            _ => Self::Always,
        }
    }
}

impl Grant {
    /// Its key in a table of grants.
    fn key(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Http => "http",
            Self::WechatApi => "wechat_api",
            Self::CustomerService => "customer_service",
            Self::Pages => "pages",
        }
    }

    /// A line of TOML that grants it.
    fn toml(self) -> &'static str {
        match self {
            Self::Kv => "kv = true",
            Self::Http => "http = [\"api.example.com\"]  # the hosts that it is to reach",
            Self::WechatApi => "wechat_api = [\"GET /cgi-bin/user/info\"]  # the calls that it is to make",
            Self::CustomerService => "customer_service = \"sender\"  # the user whom it answers; or \"anyone\"",
            Self::Pages => "pages = true",
        }
    }

    fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::Kv => grants.kv.is_some(),
            Self::Http => !grants.http.is_empty(),
            Self::WechatApi => !grants.wechat_api.is_empty(),
            Self::CustomerService => grants.customer_service.is_some(),
            Self::Pages => grants.pages.is_some(),
        }
    }
}

/// Prints a plugin's imports and whether it has pages, and how to grant what it asks for. Nobody asks a plugin that is checked
/// without a bot.
pub(super) fn print(plugin: &str, code: &Code, askers: &[Asker<'_>], report: &mut Report) {
    let imports = code.imports();
    let imports: Vec<&String> = imports.iter().filter(|import| name(import) != TYPES).collect();
    print_imports(&imports, askers, report);
    let is_asked = |grant: &Grant| imports.iter().any(|import| Answer::to(import) == Answer::Granted(*grant));
    let mut asked: Vec<Grant> = OF_IMPORTS.into_iter().filter(is_asked).collect();
    if code.has_pages() {
        report.fact("pages", &pages(askers));
        asked.push(Grant::Pages);
    }
    let missing = missing(plugin, &asked, askers);
    if !missing.is_empty() {
        report.note("what is not granted is answered `denied`; if it is to have it, add to the settings:");
        missing.iter().for_each(|line| report.heading(&format!("      {line}")));
    }
    for Asker { account, .. } in idle(code.has_pages(), askers) {
        report.wrong(&format!(
            "account `{account}` grants it `pages`, but it exports no `{PAGES}`; build it with pages, or take the grant away"
        ));
    }
}

fn print_imports(imports: &[&String], askers: &[Asker<'_>], report: &mut Report) {
    if imports.is_empty() {
        return report.fact("imports", "nothing");
    }
    let answered = |answer: Answer| {
        grouped(imports.iter().map(|import| import.as_str()).filter(|import| Answer::to(import) == answer))
    };
    let mut fact = |name: &str, imports: String, why: &str| {
        if !imports.is_empty() {
            report.fact(name, &format!("{imports}{why}"));
        }
    };
    fact("imports", answered(Answer::Always), " (always there)");
    fact("", answered(Answer::Never), " (always refused; a language's runtime imports it without need)");
    for grant in OF_IMPORTS {
        fact("", answered(Answer::Granted(grant)), &format!(" ({})", standing(grant, askers)));
    }
}

/// Says who can open its pages: an account without domains has none.
fn pages(askers: &[Asker<'_>]) -> String {
    let standing = standing(Grant::Pages, askers);
    let closed: Vec<&str> = askers.iter().filter(|asker| !asker.has_domains).map(|asker| asker.account).collect();
    match closed.as_slice() {
        [] => standing,
        closed => format!("{standing}; nobody can open them in {}, which has no `oauth.domains`", closed.join(", ")),
    }
}

/// The accounts whose grant means nothing.
fn idle<'a>(has_pages: bool, askers: &'a [Asker<'a>]) -> impl Iterator<Item = &'a Asker<'a>> {
    askers.iter().filter(move |asker| !has_pages && Grant::Pages.is_in(&asker.settings.grants))
}

/// Names interfaces, those of one package together: `wasi:cli/{environment, exit}@0.2.6`.
fn grouped<'a>(imports: impl Iterator<Item = &'a str>) -> String {
    let mut packages: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for import in imports {
        let (name, version) = import.split_once('@').unwrap_or((import, ""));
        let (package, interface) = name.split_once('/').unwrap_or((name, ""));
        packages.entry((package, version)).or_default().push(interface);
    }
    let group = |((package, version), interfaces): ((&str, &str), Vec<&str>)| match interfaces.as_slice() {
        [interface] => format!("{package}/{interface}@{version}"),
        interfaces => format!("{package}/{{{}}}@{version}", interfaces.join(", ")),
    };
    packages.into_iter().map(group).collect::<Vec<_>>().join(", ")
}

/// Says who grants it.
fn standing(grant: Grant, askers: &[Asker<'_>]) -> String {
    let (granting, others): (Vec<_>, Vec<_>) = askers.iter().partition(|asker| grant.is_in(&asker.settings.grants));
    let names = |askers: &[&Asker<'_>]| askers.iter().map(|asker| asker.account).collect::<Vec<_>>().join(", ");
    match (granting.as_slice(), others.as_slice()) {
        ([], _) => format!("`{}` is not granted", grant.key()),
        (_, []) => format!("`{}` is granted", grant.key()),
        (granting, others) => {
            format!("`{}` is granted in {}, not granted in {}", grant.key(), names(granting), names(others))
        }
    }
}

/// Writes the tables that grant what is asked for and missing: one for all, unless accounts differ.
fn missing(plugin: &str, asked: &[Grant], askers: &[Asker<'_>]) -> Vec<String> {
    let lacks = |asker: &Asker<'_>, grant: &Grant| !grant.is_in(&asker.settings.grants);
    let shared: Vec<Grant> =
        asked.iter().copied().filter(|grant| askers.iter().all(|asker| lacks(asker, grant))).collect();
    let shares = !askers.iter().any(|asker| asker.is_own);
    let is_there = askers.iter().any(Asker::has_grants);
    let mut lines = if shares { table(&format!("plugins.{}", key(plugin)), &shared, is_there) } else { Vec::new() };
    for asker in askers {
        let own = asked.iter().copied().filter(|grant| lacks(asker, grant) && !(shares && shared.contains(grant)));
        let path = format!("accounts.{}.plugins.{}", asker.account, key(plugin));
        lines.extend(table(&path, &own.collect::<Vec<_>>(), asker.has_grants()));
    }
    lines
}

/// Writes one table of grants; nothing if nothing is in it. A table that is there already must not be written twice.
fn table(path: &str, grants: &[Grant], may_be_there: bool) -> Vec<String> {
    if grants.is_empty() {
        return Vec::new();
    }
    let hint = if may_be_there { "  # only the lines below, if it is there already" } else { "" };
    let lines = grants.iter().map(|grant| grant.toml().to_owned());
    [format!("[{path}.grants]{hint}")].into_iter().chain(lines).collect()
}

/// An interface without its version.
fn name(import: &str) -> &str {
    import.split('@').next().unwrap_or(import)
}

/// A plugin's name as a key of TOML.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_bare) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::fixture::load;

    const ACCOUNTS: &str = "[accounts.main]\ntoken = \"abc\"\n[accounts.shop]\npath = \"/shop\"\ntoken = \"abc\"\n";

    fn askers<'a>(config: &'a Config, settings: &'a [PluginSettings], is_own: bool) -> Vec<Asker<'a>> {
        let named = config.accounts.iter().zip(settings);
        named
            .map(|(account, settings)| Asker {
                account: &account.name,
                is_own,
                has_domains: account.pages.are_on(),
                settings,
            })
            .collect()
    }

    fn settings(config: &Config) -> Vec<PluginSettings> {
        config.accounts.iter().map(|account| config.plugin(account, "weather", false)).collect()
    }

    #[test]
    fn what_needs_no_grant_is_told_from_what_does_and_from_what_nobody_gets() {
        for (import, answer) in [
            ("aviary:bot/call-info@0.1.0", Answer::Always),
            ("wasi:clocks/wall-clock@0.2.9", Answer::Always),
            ("wasi:http/types@0.2.6", Answer::Always),
            ("aviary:bot/kv@0.1.0", Answer::Granted(Grant::Kv)),
            ("aviary:bot/http@0.1.0", Answer::Granted(Grant::Http)),
            ("wasi:http/outgoing-handler@0.2.6", Answer::Granted(Grant::Http)),
            ("wasi:sockets/tcp@0.2.9", Answer::Never),
            ("wasi:filesystem/preopens@0.2.9", Answer::Never),
        ] {
            assert_eq!(Answer::to(import), answer, "{import}");
        }
    }

    #[test]
    fn the_interfaces_of_one_package_are_named_together() {
        let imports = ["wasi:cli/exit@0.2.6", "aviary:bot/kv@0.1.0", "wasi:cli/stdin@0.2.6"];
        assert_eq!(grouped(imports.into_iter()), "aviary:bot/kv@0.1.0, wasi:cli/{exit, stdin}@0.2.6");
    }

    #[test]
    fn what_nobody_grants_is_written_for_all_accounts() {
        let config = load(ACCOUNTS);
        let settings = settings(&config);
        let asked = [Grant::Kv, Grant::Http];
        let lines = missing("weather", &asked, &askers(&config, &settings, false));
        let http = "http = [\"api.example.com\"]  # the hosts that it is to reach";
        assert_eq!(lines, ["[plugins.weather.grants]", "kv = true", http]);
        assert_eq!(missing("weather", &asked, &[]), lines, "without a bot it is the same");
        assert_eq!(standing(Grant::Kv, &[]), "`kv` is not granted");
    }

    #[test]
    fn a_table_that_is_there_already_is_not_to_be_written_twice() {
        let config = load(&format!("{ACCOUNTS}[plugins.weather.grants]\nkv = true"));
        let settings = settings(&config);
        let lines = missing("weather", &[Grant::Kv, Grant::Pages], &askers(&config, &settings, false));
        assert_eq!(lines, ["[plugins.weather.grants]  # only the lines below, if it is there already", "pages = true"]);
    }

    #[test]
    fn a_plugin_of_an_accounts_own_gets_its_grants_there() {
        let config = load(ACCOUNTS);
        let settings = settings(&config);
        let askers = askers(&config, &settings[..1], true);
        let lines = missing("天气", &[Grant::Kv], &askers);
        assert_eq!(lines, ["[accounts.main.plugins.\"天气\".grants]", "kv = true"]);
    }

    #[test]
    fn what_is_printed_to_be_pasted_grants_what_is_asked_for() {
        let all = [&OF_IMPORTS[..], &[Grant::Pages]].concat();
        let lines = missing("weather", &all, &[]);
        let config = load(&format!("{ACCOUNTS}{}", lines.join("\n")));
        let settings = settings(&config);
        assert!(all.iter().all(|grant| grant.is_in(&settings[0].grants)), "{lines:?}");
        assert_eq!(missing("weather", &all, &askers(&config, &settings, false)), [""; 0]);
    }

    #[test]
    fn a_grant_of_pages_is_held_against_what_a_plugin_has_and_an_account_can_show() {
        let api = "app_id = \"wx0123456789abcdef\"\napp_secret = \"s\"\noauth.domains = [\"a.example\"]";
        let config = load(&format!(
            "[accounts.main]\ntoken = \"abc\"\n{api}\n[accounts.shop]\npath = \"/shop\"\ntoken = \"abc\"\n\
             [accounts.shop.plugins.weather.grants]\npages = true"
        ));
        let settings = settings(&config);
        let askers = askers(&config, &settings, false);
        assert_eq!(
            pages(&askers),
            "`pages` is granted in shop, not granted in main; nobody can open them in shop, which has no `oauth.domains`"
        );
        let named = |has_pages| idle(has_pages, &askers).map(|asker| asker.account).collect::<Vec<_>>();
        assert_eq!((named(false), named(true)), (vec!["shop"], vec![]));
        let lines = missing("weather", &[Grant::Pages], &askers);
        assert_eq!(lines, ["[accounts.main.plugins.weather.grants]", "pages = true"]);
    }
}
