//! `aviary check`: what an operator is told before the bot is started, and what WeChat says about it.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    bot::TOKEN,
    fake_wechat::{ACCESS_TOKEN, APP_ID, APP_SECRET, FakeWechat, refusal},
    plugins::{ECHO, MISBEHAVE, PAGER, WELCOME},
    process::{Finished, aviary, finish},
};

/// A bot directory with the echo in it; `account` is the account's, `more` the rest of the file.
fn bot(account: &str, more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::write(dir.path().join("plugins/20-echo.wasm"), &*ECHO).unwrap();
    let config = format!("[accounts.main]\ntoken = \"{TOKEN}\"\n{account}\n{more}");
    fs::write(dir.path().join("aviary.toml"), config).unwrap();
    dir
}

async fn check(dir: &Path, args: &[&str]) -> Finished {
    finish(aviary(dir, &[&["check"], args].concat())).await
}

/// What stands after each `wrong:`.
fn wrong(checked: &Finished) -> Vec<&str> {
    checked.stdout.lines().filter_map(|line| line.trim().strip_prefix("wrong: ")).collect()
}

/// The part of a report that begins with this, to the next blank line; runs of blanks are one.
fn part(checked: &Finished, heading: &str) -> String {
    let found = checked.stdout.split("\n\n").find(|part| part.trim().starts_with(heading));
    let part = found.unwrap_or_else(|| panic!("no `{heading}` in:\n{}", checked.stdout));
    let lines = part.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_bot_that_is_well_is_shown_with_its_accounts_and_plugins() {
    let key = "encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C\"";
    let dir = bot(&format!("app_id = \"{APP_ID}\"\n{key}"), "[plugins.echo]\nenv = { A = \"b\" }\n");
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert_eq!(
        part(&checked, "Account"),
        format!(
            "Account `main`\npath /\nmode safe (安全模式)\nEncodingAESKey present\nAppID {APP_ID}\nAppSecret none\nasks echo"
        )
    );
    let plugin = part(&checked, "Plugin `echo`: plugins/20-echo.wasm");
    assert!(plugin.contains("\ncontract aviary:bot/handler@0.1.0\ncode compiled in "), "{plugin}");
    assert!(plugin.ends_with("\nstarts with 64 KiB of memory\nasked by main\nimports nothing"), "{plugin}");
    assert!(checked.stdout.ends_with("\nAll is well.\n"));
    assert!(!checked.stdout.contains(TOKEN) && !checked.stdout.contains("jWmY"), "it shows no secret");

    let again = check(dir.path(), &[]).await;
    assert!(part(&again, "Plugin `echo`").contains("\ncode cached\n"), "the start after it is warm: {}", again.stdout);
}

#[tokio::test]
async fn a_file_that_is_no_plugin_is_wrong_and_the_others_are_shown() {
    let dir = bot("", "");
    let plugins = dir.path().join("plugins");
    fs::write(plugins.join("30-compiled.cwasm"), b"\x7fELF").unwrap();
    fs::write(plugins.join("40-text.wasm"), "hello").unwrap();
    fs::write(plugins.join("50-half.wasm"), &ECHO[..ECHO.len() / 2]).unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(1));
    assert!(part(&checked, "Files").contains("30-compiled.cwasm is refused: compiled code cannot be checked"));
    assert!(part(&checked, "Plugin `text`").contains("wrong: not loaded: this is no WebAssembly"));
    assert!(part(&checked, "Plugin `half`").contains("wrong: not loaded: unexpected end"));
    assert!(part(&checked, "Plugin `echo`").contains("asked by main"));
    assert!(checked.stdout.ends_with("\n3 things are wrong.\n"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_hash_can_be_pasted_into_a_plugins_table() {
    let dir = bot("", "");
    let checked = check(dir.path(), &[]).await;
    let hash = part(&checked, "Plugin `echo`").lines().find_map(|line| line.strip_prefix("sha256 ").map(str::to_owned));
    let hash = hash.unwrap_or_else(|| panic!("{}", checked.stdout));
    let file = dir.path().join("aviary.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}[plugins.echo]\nsha256 = \"{hash}\"\n")).unwrap();
    assert_eq!(check(dir.path(), &[]).await.code, Some(0));
    fs::write(dir.path().join("plugins/20-echo.wasm"), &*WELCOME).unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(1));
    let told = format!("but its table says `sha256 = \"{hash}\"`");
    assert!(wrong(&checked)[0].contains(&told), "{}", checked.stdout);
}

#[tokio::test]
async fn the_conversation_beside_a_plugin_is_held() {
    let dir = bot("", "");
    let file = dir.path().join("plugins/20-echo.txt");
    fs::write(&file, "> hi\n< hi\n> ho\n< ho\n").unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let plugin = part(&checked, "Plugin `echo`");
    assert!(plugin.contains("conversation 20-echo.txt (2 replies as expected)"), "{plugin}");
    fs::write(&file, "> hi\n< ho\n").unwrap();
    let checked = check(dir.path(), &["plugins/20-echo.wasm"]).await;
    assert_eq!(checked.code, Some(1));
    assert!(
        wrong(&checked)[0].ends_with("line 2: another reply than expected; expected: ho; got: hi"),
        "{}",
        checked.stdout
    );
}

#[tokio::test]
async fn whoever_checks_a_plugin_that_takes_long_is_told_what_for() {
    let dir = bot("", "");
    fs::write(dir.path().join("plugins/50-slow.wasm"), &*MISBEHAVE).unwrap();
    // The conversation takes part in it, and a machine cannot be too fast for that.
    fs::write(dir.path().join("plugins/50-slow.txt"), "> wait 1000\n< waited\n").unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let told = checked.stderr.lines().find(|line| line.contains("50-slow.wasm … ")).expect(&checked.stderr);
    assert!(told.ends_with(" s"), "{told}");
}

#[tokio::test]
async fn what_did_not_compile_before_is_tried_again() {
    let dir = bot("", "");
    fs::write(dir.path().join("plugins/50-half.wasm"), &ECHO[..ECHO.len() / 2]).unwrap();
    for _ in 0..2 {
        let checked = check(dir.path(), &[]).await;
        assert!(wrong(&checked)[0].starts_with("not loaded: unexpected end"), "{}", checked.stdout);
        assert!(!checked.stdout.contains("known from an earlier try"), "{}", checked.stdout);
    }
}

#[tokio::test]
async fn what_the_settings_name_and_nobody_has_is_wrong() {
    let dir = bot(
        "chain = [\"echo\", \"wether\"]",
        "[plugins.ecko]\nenv = { A = \"b\" }\n[plugins.off]\n[plugins.weather]\n",
    );
    fs::write(dir.path().join("plugins/30-off.wasm.off"), &*ECHO).unwrap();
    fs::write(dir.path().join("plugins/10-echo-1.2.wasm"), &*WELCOME).unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(1));
    assert_eq!(
        wrong(&checked),
        [
            "it lists plugin `wether`, but no plugin of that name is loaded",
            "it does not ask plugins/20-echo.wasm, because plugins/10-echo-1.2.wasm is a plugin of the same name; rename \
             one of them",
            "[plugins.ecko] is about no plugin: no file has that name; did you mean `echo`?",
            "[plugins.weather] is about no plugin: no file has that name; put weather.wasm where the others are, or remove \
             the table",
        ]
    );
}

#[tokio::test]
async fn an_included_file_that_is_broken_is_wrong_and_an_odd_setting_is_noted() {
    let grants = "[plugins.echo.grants]\ncustomer_service = \"sender\"\n";
    let dir = bot("app_id = \"wx1\"\nprevious_token = \"older7\"\nsignature_max_age_s = 0", grants);
    let config = fs::read_to_string(dir.path().join("aviary.toml")).unwrap();
    fs::write(dir.path().join("aviary.toml"), format!("include = [\"more.toml\"]\n{config}")).unwrap();
    fs::write(dir.path().join("more.toml"), "[accounts.two]\npath = \"/two\"\n").unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(1));
    let wrong = wrong(&checked);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("more.toml:1: `accounts.two.token` is missing"), "{wrong:?}");
    let account = part(&checked, "Account `main`");
    for note in [
        "note: `app_id` does not look",
        "note: a previous token",
        "note: `signature_max_age_s` is 0",
        "note: plugin `echo` is granted WeChat's API, which needs `app_id` and `app_secret`",
    ] {
        assert!(account.contains(note), "{account}");
    }
}

#[tokio::test]
async fn a_plugin_in_an_accounts_own_directory_is_asked_by_that_account_alone() {
    let two = format!("[accounts.two]\npath = \"/two\"\ntoken = \"{TOKEN}\"\nplugins_dir = \"two\"\n");
    let dir = bot("", &two);
    fs::create_dir(dir.path().join("two")).unwrap();
    fs::write(dir.path().join("two/10-welcome.wasm"), &*WELCOME).unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(part(&checked, "Account `two`").ends_with("asks welcome, echo"), "{}", checked.stdout);
    assert!(part(&checked, "Plugin `echo`").contains("\nasked by main, two\n"));
    assert!(part(&checked, "Plugin `welcome`: two/10-welcome.wasm").contains("\nasked by two\n"));
}

#[tokio::test]
async fn a_plugin_that_does_not_fit_into_one_accounts_limits_is_wrong_there() {
    let two = format!(
        "[accounts.two]\npath = \"/two\"\ntoken = \"{TOKEN}\"\n[accounts.two.plugins.misbehave.limits]\ntables_max = 1\n"
    );
    let dir = bot("", &two);
    fs::write(dir.path().join("plugins/30-misbehave.wasm"), &*MISBEHAVE).unwrap();
    let checked = check(dir.path(), &[]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert_eq!(
        wrong(&checked),
        ["it cannot start in account `two`: it needs 2 tables; raise its `limits.tables_max`, which is 1"]
    );
}

#[tokio::test]
async fn settings_that_do_not_load_are_explained_and_nothing_is_tried() {
    let dir = bot("encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2\"", "");
    let refused = check(dir.path(), &[]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("`accounts.main.encoding_aes_key` has 42 characters"), "{}", refused.stderr);
    let key = "encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C\"";
    let refused = check(bot(key, "").path(), &[]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`accounts.main.app_id` is missing"), "{}", refused.stderr);
    assert_eq!(check(dir.path(), &["nowhere"]).await.code, Some(2));
}

#[tokio::test]
async fn plugins_are_checked_without_a_bot() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("30-misbehave-1.0.wasm"), &*MISBEHAVE).unwrap();
    let checked = check(dir.path(), &["30-misbehave-1.0.wasm"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let plugin = part(&checked, "Plugin `misbehave`");
    assert!(plugin.contains("\nimports aviary:bot/call-info@0.1.0, wasi:cli/{environment, "), "{plugin}");
    assert!(
        plugin.contains("wasi:random/random@0.2.6 (always there)\nwasi:filesystem/{types, preopens}@0.2.6, "),
        "{plugin}"
    );
    assert!(plugin.contains("}@0.2.6 (always refused; a language's runtime imports it without need)\n"), "{plugin}");
    assert!(plugin.contains("\naviary:bot/kv@0.1.0 (`kv` is not granted)\n"), "{plugin}");
    let toml = "[plugins.misbehave.grants]\nkv = true\nhttp = [\"api.example.com\"] # the hosts that it is to reach\n\
                wechat_api = [\"GET /cgi-bin/user/info\"] # the calls that it is to make\n\
                customer_service = \"sender\" # the user whom it answers; or \"anyone\"";
    assert!(plugin.contains(toml), "{plugin}");
    assert!(!dir.path().join("data").exists());

    let missing = check(dir.path(), &["30-misbehave-1.0.wasm", "nowhere.wasm"]).await;
    assert_eq!((missing.code, wrong(&missing).len()), (Some(1), 1), "{}", missing.stdout);
    let mixed = check(dir.path(), &["30-misbehave-1.0.wasm", "."]).await;
    assert_eq!(mixed.code, Some(2), "{}", mixed.stderr);
}

#[tokio::test]
async fn pages_are_held_against_the_grant_for_them() {
    let api = format!("app_id = \"{APP_ID}\"\napp_secret = \"s\"\noauth.domains = [\"shop.example.com\"]");
    let dir = bot(&api, "[plugins.echo.grants]\npages = true\n");
    fs::write(dir.path().join("plugins/30-pager.wasm"), &*PAGER).unwrap();
    let checked = check(dir.path(), &[]).await;
    let pager = part(&checked, "Plugin `pager`");
    assert!(pager.contains("\npages `pages` is not granted\n"), "{pager}");
    assert!(pager.contains("\n[plugins.pager.grants]\n") && pager.contains("\npages = true"), "{pager}");
    let idle = "account `main` grants it `pages`, but it exports no `wasi:http/incoming-handler`; build it with pages, or take \
                the grant away";
    assert_eq!((checked.code, wrong(&checked)), (Some(1), vec![idle]), "{}", checked.stdout);

    let granted = bot(&api, "[plugins.pager.grants]\npages = true\n");
    fs::write(granted.path().join("plugins/30-pager.wasm"), &*PAGER).unwrap();
    let checked = check(granted.path(), &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(part(&checked, "Plugin `pager`").contains("\npages `pages` is granted\n"), "{}", checked.stdout);
}

/// Checks a bot with the right AppID and this AppSecret against an API.
async fn online(wechat: &FakeWechat, secret: &str, args: &[&str]) -> Finished {
    let account = format!("app_id = \"{APP_ID}\"\napp_secret = \"{secret}\"\napi_base_url = \"{}\"", wechat.base_url);
    let checked = check(bot(&account, "").path(), &[&["--online"], args].concat()).await;
    let (said, told) = (&checked.stdout, &checked.stderr);
    for hidden in [APP_SECRET, secret, ACCESS_TOKEN] {
        assert!(!said.contains(hidden) && !told.contains(hidden), "it shows no secret:\n{said}\n{told}");
    }
    checked
}

const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
const CALLBACK_CHECK: &str = "/cgi-bin/callback/check";

#[tokio::test(flavor = "multi_thread")]
async fn online_tells_that_wechat_knows_the_account_and_finds_the_url() {
    let checked = online(&FakeWechat::start().await, APP_SECRET, &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert_eq!(
        part(&checked, "Online"),
        "Online: account `main`\naccess_token good for 345 s: AppID, AppSecret and IP address are right\n\
         URL's host 111.161.64.40 (UNICOM)\nping 111.161.64.40 from UNICOM: 23.079ms"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn online_tells_that_the_secret_is_wrong_without_showing_it() {
    let checked = online(&FakeWechat::start().await, "fedcba9876543210fedcba9876543210", &[]).await;
    assert_eq!(checked.code, Some(1));
    let [wrong] = wrong(&checked)[..] else { panic!("{}", checked.stdout) };
    assert!(
        wrong.starts_with(
            "access_token: WeChat refused: 40125 invalid appsecret [redacted]; `app_secret` is not this account's AppSecret"
        ),
        "{wrong}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn online_says_what_to_do_about_each_refusal() {
    for (code, message, advice) in [
        (40013, "invalid appid", "`app_id` is not this account's AppID"),
        (40164, "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist", "add 1.2.3.4 to the IP whitelist"),
        (40243, "AppSecret已被冻结", "unfreeze it"),
        (89503, "此次调用需要管理员确认", "administrator has to confirm"),
        (-1, "system error", "WeChat is busy; try again"),
    ] {
        let wechat = FakeWechat::start().await.says(STABLE_TOKEN, refusal(code, message));
        let checked = online(&wechat, APP_SECRET, &[]).await;
        assert_eq!(checked.code, Some(1), "{code}");
        let [wrong] = wrong(&checked)[..] else { panic!("{code}: {}", checked.stdout) };
        assert!(wrong.contains(&format!("{code} {message}")) && wrong.contains(advice), "{code}: {wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn online_tells_that_wechat_does_not_find_the_url() {
    let wechat = FakeWechat::start().await.says(CALLBACK_CHECK, json!({ "dns": [], "ping": [] }));
    let checked = online(&wechat, APP_SECRET, &[]).await;
    assert_eq!(checked.code, Some(1));
    assert!(wrong(&checked)[0].starts_with("WeChat finds no address for the host of the URL"), "{}", checked.stdout);

    let wechat = FakeWechat::start().await.says(CALLBACK_CHECK, refusal(40201, "invalid url"));
    let checked = online(&wechat, APP_SECRET, &[]).await;
    assert_eq!(checked.code, Some(1));
    assert!(wrong(&checked)[0].contains("fill WeChat's 服务器配置 form first"), "{}", checked.stdout);

    let lost = json!({ "ip": "1.2.3.4", "from_operator": "CAP", "package_loss": "100%" });
    let found = json!({ "dns": [{ "ip": "1.2.3.4", "real_operator": "CAP" }], "ping": [lost] });
    let checked = online(&FakeWechat::start().await.says(CALLBACK_CHECK, found), APP_SECRET, &[]).await;
    assert_eq!(checked.code, Some(0), "a firewall may drop pings: {}", checked.stdout);
    assert!(part(&checked, "Online").contains("note: a ping to 1.2.3.4 from CAP was lost"), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn online_does_not_wait_for_ever_and_does_not_believe_everything() {
    let checked = online(&FakeWechat::start().await.hangs(STABLE_TOKEN), APP_SECRET, &["--timeout-ms", "200"]).await;
    assert_eq!((checked.code, wrong(&checked)), (Some(1), vec!["access_token: no answer within 200 ms"]));
    let checked = online(&FakeWechat::start().await.hangs(CALLBACK_CHECK), APP_SECRET, &["--timeout-ms", "2000"]).await;
    assert_eq!((checked.code, wrong(&checked)), (Some(1), vec!["callback check: no answer within 2000 ms"]));

    for (status, body, told) in [
        (502, "<html>", "access_token: WeChat's API answered with status 502 Bad Gateway"),
        (200, "<html>", "access_token: the answer is no JSON"),
        (200, "{\"ok\":true}", "access_token: the answer is JSON, but not what this call gives"),
    ] {
        let wechat = FakeWechat::start().await.breaks(STABLE_TOKEN, status, body);
        let checked = online(&wechat, APP_SECRET, &[]).await;
        assert_eq!(checked.code, Some(1));
        assert!(wrong(&checked)[0].starts_with(told), "{}", checked.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn online_says_which_account_could_not_be_asked_about() {
    let wechat = FakeWechat::start().await;
    let two = format!(
        "[accounts.two]\npath = \"/two\"\ntoken = \"{TOKEN}\"\napp_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\n\
         api_base_url = \"{}/\"\n",
        wechat.base_url
    );
    let checked = check(bot(&format!("app_id = \"{APP_ID}\""), &two).path(), &["--online"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(part(&checked, "Online: account `main`").ends_with("note: not asked: `app_secret` is missing"));
    assert!(part(&checked, "Online: account `two`").contains("access_token good for 345 s"));

    let checked = check(bot("", "").path(), &["--online"]).await;
    assert_eq!((checked.code, wrong(&checked)), (Some(1), vec!["no account could be asked about"]));
}
