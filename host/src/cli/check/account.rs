//! An account: what is set, what is missing, and whom it asks.

use std::path::Path;

use hyper::Uri;

use super::{Report, plugin::Examined, shown};
use crate::{
    config::{Account, Config, Grants, Mode},
    dispatch::Chain,
    egress::address::Reach,
    https::without_parameters,
};

/// How WeChat writes an AppID: `wx` and 16 hexadecimal digits.
const APP_ID_CHARS: usize = 18;

/// How long WeChat's AppSecrets are.
const APP_SECRET_CHARS: usize = 32;

/// Prints an account.
pub(super) fn check(account: &Account, chain: &Chain, config: &Config, plugins: &[Examined], report: &mut Report) {
    report.heading(&format!("\nAccount `{}`", account.name));
    let present = |is_there: bool| if is_there { "present" } else { "none" };
    report.fact("path", &account.path);
    report.fact("mode", mode(account.mode));
    report.fact("EncodingAESKey", present(account.encoding_aes_key.is_some()));
    report.fact("AppID", account.app_id.as_deref().unwrap_or("none"));
    report.fact("AppSecret", present(account.app_secret.is_some()));
    let names: Vec<&str> = chain.plugins.iter().map(|plugin| &*plugin.name).collect();
    let asked = names.join(", ");
    report.fact("asks", if names.is_empty() { "no plugin" } else { &asked });
    if let Some(forward) = &account.forward {
        report.fact("forward", &format!("{}, what no plugin answered", without_parameters(forward)));
    }
    oddities(account).iter().for_each(|note| report.note(note));
    if account.app_id.is_none() || account.app_secret.is_none() {
        let needs_api = chain.plugins.iter().filter(|plugin| uses_api(&plugin.settings.grants));
        needs_api.for_each(|plugin| {
            report.note(&format!(
                "plugin `{}` is granted WeChat's API, which needs `app_id` and `app_secret`",
                plugin.name
            ));
        });
    }
    if names.is_empty() && account.forward.is_none() {
        report.note("every message is answered `success`, which the user sees as silence");
    }
    for name in account.plugins.iter().filter(|name| !names.contains(&name.as_str())) {
        report.wrong(&format!("it lists plugin `{name}`, but no plugin of that name is loaded"));
    }
    for (file, first) in namesakes(account, chain, config, plugins) {
        let (file, first) = (shown(file, config).display(), shown(first, config).display());
        report.wrong(&format!(
            "it does not ask {file}, because {first} is a plugin of the same name; rename one of them"
        ));
    }
}

fn uses_api(grants: &Grants) -> bool {
    grants.customer_service.is_some() || !grants.wechat_api.is_empty()
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "plain (明文模式)",
        Mode::Compatible => "compatible (兼容模式)",
        Mode::Safe => "safe (安全模式)",
    }
}

/// What is allowed, but may not be meant.
fn oddities(account: &Account) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |is_odd: bool, text: &str| {
        if is_odd {
            notes.push(text.to_owned());
        }
    };
    let is_app_id = |id: &str| id.len() == APP_ID_CHARS && id.starts_with("wx");
    let is_app_secret = |secret: &str| secret.len() == APP_SECRET_CHARS;
    let is_previous = account.previous_token.is_some() || account.previous_encoding_aes_key.is_some();
    note(
        account.app_id.as_deref().is_some_and(|id| !is_app_id(id)),
        "`app_id` does not look like an AppID: `wx` and 16 more letters and digits",
    );
    note(
        account.app_secret.as_ref().is_some_and(|secret| !is_app_secret(secret.expose())),
        "`app_secret` does not look like an AppSecret: 32 letters and digits",
    );
    note(account.app_secret.is_some() && account.app_id.is_none(), "`app_secret` is of no use without `app_id`");
    note(
        account.api_base_url.scheme_str() == Some("http"),
        "`api_base_url` begins with http://, so the AppSecret travels unencrypted",
    );
    note(
        account.mode != Mode::Safe && account.forward.as_ref().is_some_and(is_open_road),
        "`forward` begins with http://, so what users write travels unencrypted to that machine",
    );
    note(is_previous, "a previous token or key is still accepted; take it out when the log no longer tells of its use");
    note(account.signature_max_age.is_zero(), "`signature_max_age_s` is 0: a push is accepted however old it is");
    notes
}

/// Whether an address is reached over the internet without encryption. A name without a dot is one of the own network.
fn is_open_road(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let is_public = match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(ip) => Reach::of(ip) == Reach::Public,
        Err(_) => host.contains('.'),
    };
    url.scheme_str() == Some("http") && is_public
}

/// The files that the account could ask, if another had not the same name; each with that other one.
fn namesakes<'a>(
    account: &Account,
    chain: &'a Chain,
    config: &Config,
    plugins: &'a [Examined],
) -> Vec<(&'a Path, &'a Path)> {
    let dirs = [Some(config.plugins_dir.as_path()), account.plugins_dir.as_deref()];
    let could_be_asked = |plugin: &&Examined| plugin.loaded.is_ok() && dirs.contains(&plugin.file.parent());
    let first = |plugin: &'a Examined| {
        let of_its_name = chain.plugins.iter().find(|asked| *asked.name == *plugin.name);
        of_its_name.map(|asked| asked.file.as_path()).filter(|file| *file != plugin.file)
    };
    let could = plugins.iter().filter(could_be_asked);
    could.filter_map(|plugin| Some((plugin.file.as_path(), first(plugin)?))).collect()
}
