//! What WeChat says about an account when it is asked, and the webhook behind it.

use std::time::{Duration, Instant};

use super::Report;
use crate::{
    api::{Api, ApiError, Apis, CallbackCheck},
    cli::api::missing_for_api,
    config::Config,
    conversation::Simulator,
    https::Client,
};

/// How much longer than one exchange a call may take: the end of the exchange says more than that of the call.
const GRACE: Duration = Duration::from_secs(5);

/// Asks for every account that can be asked for.
pub(super) async fn check(config: &Config, timeout: Duration, report: &mut Report) {
    let mut is_asked = false;
    let mut config = config.clone();
    config.wechat_api.timeout = timeout;
    let apis = Apis::of_command(&config);
    for account in &config.accounts {
        report.heading(&format!("\nOnline: account `{}`", account.name));
        match apis.of(account) {
            Some(api) => {
                is_asked = true;
                ask(&api, report).await;
            }
            None => report.note(&format!("not asked: {}", missing_for_api(account, ""))),
        }
        if let Some(mut webhook) = Simulator::of_webhook(account, Client::trusting(&config.http.authorities)) {
            is_asked = true;
            webhook.timeout = timeout;
            check_webhook(&webhook, report).await;
        }
    }
    if !is_asked {
        report.wrong("no account could be asked about");
    }
}

/// Checks the URL of the webhook behind an account, as WeChat would.
async fn check_webhook(webhook: &Simulator, report: &mut Report) {
    match webhook.check_url().await {
        Ok(check) if check.passed() => report.fact("forward", "it passes WeChat's check of its URL"),
        Ok(check) => report.wrong(&format!(
            "`forward` does not pass WeChat's check of its URL (status {}); most likely its token is another, or it is \
             another address",
            check.answer.status
        )),
        Err(error) => report.wrong(&format!("`forward`: {error:#}")),
    }
}

async fn ask(api: &Api, report: &mut Report) {
    let deadline = || Instant::now() + api.timeout() + GRACE;
    let token = match api.access_token(deadline()).await {
        Ok(token) => token,
        Err(error) => return refused("access_token", &error, report),
    };
    let expires_in_s = token.expires_in.as_secs();
    report.fact("access_token", &format!("good for {expires_in_s} s: AppID, AppSecret and IP address are right"));
    match api.check_callback(deadline()).await {
        Ok(check) => seen(&check, report),
        Err(error) => refused("callback check", &error, report),
    }
}

fn refused(what: &str, error: &ApiError, report: &mut Report) {
    report.wrong(&format!("{what}: {}", error.advised()));
}

/// Prints what WeChat saw of the URL's host.
fn seen(check: &CallbackCheck, report: &mut Report) {
    for found in &check.dns {
        report.fact("URL's host", &format!("{} ({})", found.ip.escape_debug(), found.real_operator.escape_debug()));
    }
    if check.dns.is_empty() {
        report.wrong("WeChat finds no address for the host of the URL in its form; see that name's DNS entry");
    }
    for ping in &check.ping {
        let (ip, from) = (ping.ip.escape_debug(), ping.from_operator.escape_debug());
        match ping.package_loss.as_str() {
            "0%" => report.fact("ping", &format!("{ip} from {from}: {}", ping.time.escape_debug())),
            _ => report.note(&format!(
                "a ping to {ip} from {from} was lost: a firewall may drop pings, or WeChat cannot reach that address"
            )),
        }
    }
}
