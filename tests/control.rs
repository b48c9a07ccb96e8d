//! The running host as its operator sees and steers it: `aviary status` and `aviary plugins`, run as people run them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aviary_host::{
    control::{self, Socket},
    plugin::Hash,
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use wasm_encoder::{CustomSection, Section};

use crate::{
    bot::{Bot, PATIENCE, Setup},
    compiler::Gate,
    fake_wechat::{FakeWechat, STABLE_TOKEN},
    log::Log,
    plugins::{ECHO, KEYWORDS, MISBEHAVE, PARROT},
    process::{Finished, Running, aviary, finish},
};

/// Starts a bot that can be reached by its control socket.
async fn start(setup: Setup) -> Bot {
    with_socket(setup.start().await)
}

fn with_socket(bot: Bot) -> Bot {
    let socket = Socket::bind(&bot.dir().join("data")).unwrap();
    tokio::spawn(control::run(bot.app.clone(), socket));
    bot
}

/// Runs a command in a bot's directory.
async fn run(dir: &Path, args: &[&str]) -> Finished {
    finish(aviary(dir, args)).await
}

/// Runs a command that goes well, and returns what it prints.
async fn done(bot: &Bot, args: &[&str]) -> String {
    let Finished { code, stdout, stderr } = run(bot.dir(), args).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    stdout
}

/// Runs a command that fails, and returns why.
async fn refused(bot: &Bot, args: &[&str]) -> String {
    let Finished { code, stdout, stderr } = run(bot.dir(), args).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    stderr
}

/// Puts a file in the place of another, and lets the host find it.
async fn replace(bot: &Bot, file: &str, wasm: &[u8]) {
    let partial = bot.dir().join("partial");
    fs::write(&partial, wasm).unwrap();
    fs::rename(partial, bot.plugin_file(file)).unwrap();
    bot.app.reload().await;
}

/// What `status` says of a bot that something is wrong with.
async fn wrong(bot: &Bot) -> String {
    let Finished { code, stdout, stderr } = run(bot.dir(), &["status"]).await;
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_a_host_with_which_all_is_well() {
    let bot = start(Setup::new().plugin("20-echo.wasm", &ECHO)).await;
    let printed = done(&bot, &["status"]).await;
    let hash = Hash::of(&ECHO).to_string();
    for part in
        ["Account `main`", "mode            plain", &hash[..12], "plugins/20-echo.wasm, first served", "All is well"]
    {
        assert!(printed.contains(part), "no `{part}` in:\n{printed}");
    }

    let json: Value = serde_json::from_str(&done(&bot, &["status", "--json"]).await).unwrap();
    assert_eq!((&json["running"], &json["well"]), (&true.into(), &true.into()));
    let plugin = &json["accounts"][0]["plugins"][0];
    assert_eq!((&plugin["name"], &plugin["sha256"]), (&"echo".into(), &hash.into()));
    assert_eq!(plugin["quarantine"], Value::Null);
}

/// A broken upload is harmless while the host runs, and no outage of its plugin when it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_version_before_a_broken_file_serves_and_status_tells_of_the_file() {
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).start().await;
    replace(&bot, "20-bot.wasm", &PARROT).await;
    replace(&bot, "20-bot.wasm", b"not wasm").await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");

    let bot = with_socket(bot.restart().await);
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    let printed = wrong(&bot).await;
    let told = "wrong: plugins/20-bot.wasm is not loaded: this is no WebAssembly: it does not begin with `\\0asm`";
    assert!(printed.contains(told) && printed.contains("the version before it serves"), "{printed}");
    let parrot = Hash::of(&PARROT).to_string();
    assert!(printed.contains(&parrot[..12]), "{printed}");
    let listed = done(&bot, &["plugins"]).await;
    assert!(
        listed.contains("Not loaded  plugins/20-bot.wasm: ") && listed.contains("the version before it"),
        "{listed}"
    );

    // The directory stays the truth.
    fs::remove_file(bot.plugin_file("20-bot.wasm")).unwrap();
    let bot = bot.restart().await;
    assert_eq!(bot.says("hi").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fails_while_something_needs_a_person() {
    let bot = start(Setup::new().plugin("20-echo.wasm", &ECHO)).await;
    fs::write(bot.plugin_file("30-broken.wasm"), "not wasm").unwrap();
    fs::write(bot.plugin_file("40-odd.WASM"), "").unwrap();
    bot.app.reload().await;
    let printed = wrong(&bot).await;
    assert!(printed.contains("wrong: plugins/30-broken.wasm is not loaded: "), "{printed}");
    assert!(printed.contains("40-odd.WASM is no plugin") && printed.contains("2 things are wrong"), "{printed}");

    fs::remove_file(bot.plugin_file("30-broken.wasm")).unwrap();
    fs::remove_file(bot.plugin_file("40-odd.WASM")).unwrap();
    bot.app.reload().await;
    done(&bot, &["status"]).await;

    // Broken settings: the host has the old ones, and is found all the same.
    let file = bot.dir().join("aviary.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("brocken = 1\n{settings}\n[lat]\n")).unwrap();
    bot.app.reload().await;
    let printed = wrong(&bot).await;
    for key in ["brocken", "lat"] {
        let line = printed.lines().find(|line| line.contains(&format!("unknown key `{key}`"))).expect("it is told");
        assert!(line.starts_with("  wrong: aviary.toml:"), "{printed}");
    }
    assert!(printed.contains("2 things are wrong."), "{printed}");
    fs::write(&file, settings).unwrap();
    bot.app.reload().await;
    done(&bot, &["status"]).await;

    fs::remove_file(bot.plugin_file("20-echo.wasm")).unwrap();
    bot.app.reload().await;
    assert!(wrong(&bot).await.contains("it asks no plugin"));
}

/// What keeps a setting from its meaning is the same to whoever checks, whoever asks the host and whoever reads its log.
#[tokio::test]
async fn status_and_the_log_tell_what_check_tells() {
    let log = Log::capture();
    let tables = "[plugins.ecko]\n[plugins.echo.grants]\npages = true\n[accounts.two]\npath = \"/two\"\ntoken = \"two\"\n\
                  [accounts.two.plugins.misbehave.limits]\ntables_max = 1";
    let setup = Setup::new().plugin("20-echo.wasm", &ECHO).plugin("30-misbehave.wasm", &MISBEHAVE);
    let bot = start(setup.settings(tables)).await;
    let checked = run(bot.dir(), &["check"]).await.stdout;
    let told = [
        "is about no plugin: no file has that name; did you mean `echo`?",
        "but it exports no `wasi:http/incoming-handler`; build it with pages, or take the grant away",
        "cannot start",
        "it needs 2 tables; raise its `limits.tables_max`, which is 1",
    ];
    bot.app.reload().await;
    let printed = wrong(&bot).await;
    for part in told {
        assert!(checked.contains(part), "no `{part}` in:\n{checked}");
        assert!(printed.contains(part), "no `{part}` in:\n{printed}");
    }
    for (part, count) in told.into_iter().zip([1, 2, 1, 1]) {
        assert_eq!(log.lines(part).len(), count, "{part}: it is told once");
    }

    let file = bot.dir().join("aviary.toml");
    let mended = fs::read_to_string(&file).unwrap().replace("ecko", "misbehave").replace("pages = true", "");
    fs::write(&file, mended.replace("tables_max = 1", "tables_max = 2")).unwrap();
    bot.app.reload().await;
    done(&bot, &["status"]).await;
}

#[tokio::test]
async fn what_is_set_for_a_plugin_that_the_account_does_not_list_is_nothing_wrong() {
    let tables = "[accounts.two]\npath = \"/two\"\ntoken = \"two\"\nchain = [\"misbehave\"]\n\
                  [accounts.two.plugins.echo.grants]\npages = true";
    let setup = Setup::new().plugin("20-echo.wasm", &ECHO).plugin("30-misbehave.wasm", &MISBEHAVE);
    let bot = start(setup.settings(tables)).await;
    done(&bot, &["check"]).await;
    done(&bot, &["status"]).await;
}

/// WeChat may send tomorrow what nobody knows today, so it is no mistake.
#[tokio::test]
async fn a_misspelt_rule_is_noted_by_check_and_status_and_in_the_log_and_nothing_is_wrong() {
    let log = Log::capture();
    let rule = "[plugins.echo]\nmatch = [{ type = \"txt\" }]";
    let bot = start(Setup::new().plugin("20-echo.wasm", &ECHO).settings(rule)).await;
    let note = "`plugins.echo.match[0].type` is \"txt\", which WeChat is not known to send; did you mean `text`?";
    for command in ["check", "status"] {
        let printed = done(&bot, &[command]).await;
        let line = printed.lines().find(|line| line.contains(note)).expect("it is noted");
        assert!(line.starts_with("  note: aviary.toml:"), "{printed}");
    }
    assert!(log.lines(note)[0].contains("WARN"));
}

/// What is late then cannot be sent, and plugins get no answer of WeChat's; WeChat itself says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_that_wechats_api_cannot_be_called_until_it_can() {
    let fake = FakeWechat::start().await;
    let bot = start(Setup::new().plugin("20-echo.wasm", &ECHO).account(&fake.account())).await;
    done(&bot, &["status"]).await;
    fake.refuses(STABLE_TOKEN, 40_164, "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist");
    let live = bot.app.live();
    let api = live.named("main").unwrap().api.as_ref().expect("it has an AppSecret");
    api.access_token(Instant::now() + PATIENCE).await.unwrap_err();
    let printed = wrong(&bot).await;
    let (_, why) = printed.split_once("wrong: no access_token could be fetched for ").expect("it is told");
    assert!(why.contains("40164") && why.contains("add 1.2.3.4 to the IP whitelist"), "{printed}");

    fake.allows(STABLE_TOKEN);
    let fetched = async {
        // A fetch that failed is not repeated at once.
        while api.access_token(Instant::now() + PATIENCE).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, fetched).await.expect("it is fetched again");
    done(&bot, &["status"]).await;
}

/// The host serves on with the rows that are right, so nobody but `status` would remind of it.
#[tokio::test(flavor = "multi_thread")]
async fn status_names_a_plugin_whose_settings_are_wrong_until_they_are_mended() {
    let keywords = "[plugins.keywords]\nmatch = [{ type = \"text\" }, { event = \"aviary_check\" }]\n\
                    env = { TABLE = \"${file:keywords.csv}\" }";
    let setup = Setup::new().settings(keywords).plugin("15-keywords.wasm", &KEYWORDS);
    let bot = start(setup.file("keywords.csv", "关键词,匹配,回复\n价格,模糊,99 元\n")).await;
    let printed = wrong(&bot).await;
    let told = "wrong: plugin `keywords` has wrong settings: row 2 of the table: `匹配` is `模糊`";
    assert!(printed.contains(told) && printed.contains("mend them where they stand"), "{printed}");
    assert!(printed.contains("One thing is wrong."), "{printed}");

    fs::write(bot.dir().join("keywords.csv"), "关键词,匹配,回复\n价格,包含,99 元\n").unwrap();
    bot.app.reload().await;
    done(&bot, &["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_check_tell_of_a_plugin_in_quarantine() {
    let quarantine = "[quarantine]\nusers_min = 1\nfailures = 1\nback_off_s = 3600\nback_off_max_s = 3600";
    let bot = start(Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(quarantine)).await;
    bot.says("panic").await;
    let printed = wrong(&bot).await;
    assert!(printed.contains("wrong: plugin `misbehave` has been left alone for "), "{printed}");
    let json = run(bot.dir(), &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &status["well"]), (Some(1), &false.into()));
    assert_eq!(status["accounts"][0]["plugins"][0]["quarantine"]["plugin"], "misbehave");
    let checked = run(bot.dir(), &["check"]).await;
    let told = "wrong: in account `main` of the running host, plugin `misbehave` has been left alone for ";
    assert!(checked.code == Some(1) && checked.stdout.contains(told), "{}", checked.stdout);

    // Other code in its place is not to blame.
    replace(&bot, "10-misbehave.wasm", &PARROT).await;
    done(&bot, &["check"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_the_running_host_has_not_loaded_though_nothing_is_wrong_with_it() {
    let killed = Gate::doing("kill -KILL $$");
    let setup = Setup::new().plugin("10-echo.wasm", &ECHO).settings("cache_dir = \"cache\"");
    let bot = start(setup.compiler(&killed.compiler())).await;
    let checked = run(bot.dir(), &["check"]).await;
    let told = "wrong: the running host has not loaded it: the system killed the compiler";
    assert!(checked.code == Some(1) && checked.stdout.contains(told), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_switched_off_and_on_and_brought_back_and_each_time_the_right_version_answers() {
    let bot = start(Setup::new().plugin("20-bot.wasm", &ECHO)).await;
    replace(&bot, "20-bot.wasm", &PARROT).await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");

    let printed = done(&bot, &["plugins", "disable", "bot"]).await;
    assert!(printed.contains("switched off: plugins/20-bot.wasm.off"), "{printed}");
    assert!(printed.contains("No account asks a plugin of that name"), "{printed}");
    assert_eq!(bot.says("hi").await, "");
    assert!(refused(&bot, &["plugins", "disable", "bot"]).await.contains("switched off already"));
    assert!(run(bot.dir(), &["plugins"]).await.stdout.contains("Off  plugins/20-bot.wasm.off"));

    let printed = done(&bot, &["plugins", "enable", "bot"]).await;
    let parrot = Hash::of(&PARROT).to_string();
    assert!(printed.contains(&format!("Account `main` asks `bot`: {}", &parrot[..12])), "{printed}");
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");

    let echo = Hash::of(&ECHO).to_string();
    let listed = done(&bot, &["plugins"]).await;
    assert!(listed.contains(&format!("earlier         {}", &echo[..12])), "{listed}");
    let printed = done(&bot, &["plugins", "rollback", "bot"]).await;
    assert!(printed.contains(&format!("Account `main` asks `bot`: {}", &echo[..12])), "{printed}");
    assert_eq!(bot.says("hi").await, "hi");
    assert!(refused(&bot, &["plugins", "rollback", "bot"]).await.contains("was gone back from; name one with `--to`"));
    assert!(refused(&bot, &["plugins", "rollback", "bot", "--to", "xyz"]).await.contains("begins with `xyz`"));
    fs::write(bot.plugin_file("20-bot.txt"), "> hi\n< hi\n").unwrap();
    let printed = done(&bot, &["plugins", "rollback", "bot", "--to", &echo]).await;
    assert!(printed.contains("What lay in its place is now plugins/20-bot.txt.off"), "{printed}");
    done(&bot, &["plugins", "rollback", "bot", "--to", &parrot[..12]]).await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_on_waits_until_the_plugin_is_compiled() {
    // No run before has left code of this in the cache.
    let mut new = ECHO.to_vec();
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    CustomSection { name: "stamp".into(), data: stamp.to_le_bytes().to_vec().into() }.append_to(&mut new);
    let bot = start(Setup::new().plugin("10-parrot.wasm", &PARROT).plugin("5-new.wasm.off", &new)).await;
    let printed = done(&bot, &["plugins", "enable", "5-new.wasm"]).await;
    let hash = Hash::of(&new).to_string();
    assert!(printed.contains(&format!("Account `main` asks `new`: {}", &hash[..12])), "{printed}");
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_on_a_broken_file_says_why_it_does_not_serve() {
    let bot = start(Setup::new().plugin("20-echo.wasm", &ECHO).plugin("30-broken.wasm.off", b"not wasm")).await;
    let Finished { code, stdout, stderr } = run(bot.dir(), &["plugins", "enable", "broken"]).await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(
        stdout.contains("No account asks") && stderr.contains("30-broken.wasm is not loaded: "),
        "{stdout}{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_has_or_several_have_is_refused() {
    let setup = Setup::new().plugin("20-echo.wasm", &ECHO).file("own/30-echo.wasm", &*ECHO);
    let second = "[accounts.second]\ntoken = \"second\"\npath = \"/second\"\nplugins_dir = \"own\"";
    let bot = start(setup.settings(second)).await;
    let why = refused(&bot, &["plugins", "disable", "ehco"]).await;
    assert!(why.contains("there is no plugin `ehco` in ") && why.contains("/plugins"), "{why}");
    let why = refused(&bot, &["plugins", "disable", "echo"]).await;
    assert!(why.contains("20-echo.wasm") && why.contains("30-echo.wasm") && why.contains("say which account"), "{why}");
    let why = refused(&bot, &["plugins", "disable", "echo", "--account", "third"]).await;
    assert!(why.contains("there is no account `third`"), "{why}");
    done(&bot, &["plugins", "disable", "echo", "--account", "main"]).await;
    assert!(bot.plugin_file("20-echo.wasm.off").exists() && bot.dir().join("own/30-echo.wasm").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_status_says_how_to_start_it_and_plugins_are_changed_for_the_next_start() {
    let dir = Setup::new().plugin("20-echo.wasm", &ECHO).written();
    let status = run(dir.path(), &["status"]).await;
    assert_eq!(status.code, Some(1), "{}", status.stderr);
    assert!(status.stdout.contains("no host runs") && status.stdout.contains("aviary serve\n"), "{}", status.stdout);
    let json = run(dir.path(), &["status", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["running"], false);

    let off = run(dir.path(), &["plugins", "disable", "echo"]).await;
    assert_eq!(off.code, Some(0), "{}", off.stderr);
    assert!(off.stdout.contains("No host runs; it counts from the next start"), "{}", off.stdout);
    assert!(dir.path().join("plugins/20-echo.wasm.off").exists());

    let nowhere = run(dir.path(), &["status", "elsewhere"]).await;
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_opens_the_socket_for_its_user_alone_in_place_of_a_stale_one_and_takes_it_away() {
    let dir = Setup::new().plugin("20-echo.wasm", &ECHO).settings("listen = \"127.0.0.1:0\"").written();
    let socket = dir.path().join("data/control.sock");
    let mut killed = Running::start(aviary(dir.path(), &["serve"]));
    killed.line("Ready after").await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(dir.path(), &["status"]).await.code, Some(0));
    killed.kill().await;
    assert!(socket.exists(), "nobody could take it away");
    assert!(run(dir.path(), &["status"]).await.stdout.contains("no host runs"));

    let mut host = Running::start(aviary(dir.path(), &["serve"]));
    host.line("Ready after").await;
    assert_eq!(run(dir.path(), &["status"]).await.code, Some(0));
    let second = run(dir.path(), &["serve"]).await;
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("data_dir"), "{}", second.stderr);
    assert_eq!(run(dir.path(), &["status"]).await.code, Some(0), "the first still has its socket");
    assert_eq!(host.terminate().await, Some(0));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_answers_is_left_alone_and_a_file_in_its_place_too() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
    let error = Socket::bind(dir.path()).unwrap_err().to_string();
    assert!(error.contains("data_dir"), "{error}");
    drop(listener);
    Socket::bind(dir.path()).unwrap();
    fs::write(dir.path().join("control.sock"), "mine").unwrap();
    let error = Socket::bind(dir.path()).unwrap_err().to_string();
    assert!(error.contains("in the way"), "{error}");
}

/// Only Linux reaches a socket by more than one path.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_may_be_deeper_than_the_path_of_a_socket() {
    let deep = "deep/".repeat(40);
    let setup = Setup::new().plugin("20-echo.wasm", &ECHO).settings(&format!("data_dir = \"{deep}data\""));
    let bot = setup.start().await;
    let socket = Socket::bind(&bot.dir().join(&deep).join("data")).unwrap();
    let server = tokio::spawn(control::run(bot.app.clone(), socket));
    done(&bot, &["status"]).await;
    server.abort();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap_err();
    assert!(!bot.dir().join(&deep).join("data/control.sock").exists());
}
