//! The conversation beside a plugin: a version that does not hold it does not serve.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{
    bot::{Bot, Setup},
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT},
};

fn write(bot: &Bot, file: &str, content: impl AsRef<[u8]>) {
    let partial = bot.dir().join("partial");
    fs::write(&partial, content).unwrap();
    fs::rename(partial, bot.plugin_file(file)).unwrap();
}

#[tokio::test]
async fn a_version_that_does_not_hold_its_conversation_does_not_replace_the_one_before() {
    let log = Log::capture();
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).file("plugins/20-bot.txt", "> hi\n< hi\n").start().await;
    assert_eq!(log.lines("20-bot.wasm holds its conversation (1 replies) and is loaded").len(), 1);
    write(&bot, "20-bot.wasm", &*PARROT);
    for _ in 0..3 {
        assert!(!bot.app.reload().await.changed);
    }
    assert_eq!(bot.says("hi").await, "hi");
    let [line] = &log.lines("20-bot.wasm is not loaded")[..] else { panic!("it is told once") };
    let difference = "it does not hold its conversation 20-bot.txt: line 2: another reply than expected; expected: hi; \
                      got: 鹦鹉：hi; the version before it stays";
    assert!(line.contains(difference), "{line}");

    // The conversation is changed with it, and is held again.
    write(&bot, "20-bot.txt", "> hi\n< 鹦鹉：*\n");
    assert!(bot.app.reload().await.changed);
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test]
async fn a_plugin_that_never_held_its_conversation_is_not_asked_and_others_are() {
    let log = Log::capture();
    let bot = Setup::new()
        .plugin("10-bot.wasm", &ECHO)
        .file("plugins/10-bot.txt", "> hi\n< bye\n")
        .plugin("20-parrot.wasm", &PARROT)
        .start()
        .await;
    assert_eq!(bot.chain(), ["parrot"]);
    assert_eq!(log.lines("expected: bye; got: hi; its plugin is not asked").len(), 1);
    let [fault] = &bot.app.faults()[..] else { panic!("one file is at fault") };
    assert!(fault.why.contains("expected: bye") && !fault.serving, "{fault:?}");

    fs::remove_file(bot.plugin_file("10-bot.txt")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["bot", "parrot"]);
    assert!(bot.app.faults().is_empty());
}

#[tokio::test]
async fn a_conversation_that_changes_is_held_again_and_what_serves_stays() {
    let log = Log::capture();
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).start().await;
    write(&bot, "20-bot.txt", "> hi\n< hi\n> ho\n< he\n");
    bot.app.reload().await;
    assert_eq!(log.lines("line 4: another reply than expected").len(), 1);
    assert_eq!(bot.says("hi").await, "hi");
    write(&bot, "20-bot.txt", "> hi\n< hi\n");
    assert!(!bot.app.reload().await.changed, "the same code serves");
    assert!(bot.app.faults().is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_conversation_is_named_with_its_line() {
    let log = Log::capture();
    let setup = Setup::new().plugin("20-bot.wasm", &ECHO).file("plugins/20-bot.txt", "> hi\n< hi\nho\n");
    let bot = setup.start().await;
    assert!(bot.chain().is_empty());
    assert_eq!(log.lines("its conversation 20-bot.txt: line 3: a line begins with `>`").len(), 1);
    write(&bot, "20-bot.txt", b"> \xff\n");
    bot.app.reload().await;
    assert_eq!(log.lines("its conversation 20-bot.txt is not in UTF-8").len(), 1);
    write(&bot, "20-bot.txt", "#".repeat((1 << 20) + 1));
    bot.app.reload().await;
    assert_eq!(log.lines("its conversation 20-bot.txt has 1048577 bytes").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_has_the_settings_of_its_file_and_none_of_the_operators() {
    // The same questions, asked by the canary and by a user.
    let bot = Setup::new()
        .plugin("20-bot.wasm", &MISBEHAVE)
        .file(
            "plugins/20-bot.txt",
            "! env CITY=北京\n> env CITY\n< 北京\n> env API_KEY\n< unset\n> print secret\n< printed\n",
        )
        .settings(
            "[plugins.bot]\nenv = { CITY = \"上海\", API_KEY = \"secret7\" }\nmatch = [{ starts_with = \"env\" }]",
        )
        .start()
        .await;
    assert_eq!(bot.chain(), ["bot"]);
    assert_eq!(bot.says("env CITY").await, "上海");
    assert_eq!(bot.says("env API_KEY").await, "secret7");
    assert_eq!(bot.says("print x").await, "", "the rules are the operator's, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_has_the_limits_of_its_plugin() {
    let bot = Setup::new()
        .plugin("20-bot.wasm", &MISBEHAVE)
        .file("plugins/20-bot.txt", "> grow 16\n< grew by 16 MiB\n")
        .settings("[plugins.bot.limits]\nmemory_mib = 8")
        .start()
        .await;
    assert!(bot.chain().is_empty());
    let why = &bot.app.faults()[0].why;
    assert!(why.contains("plugin `bot` failed: it asked for more than 8 MiB"), "{why}");
    let file = bot.dir().join("aviary.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("memory_mib = 8", "memory_mib = 32")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["bot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_ends_in_time_and_holds_up_nobody() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).settings("[canary]\ntimeout_s = 1").watched().start().await;
    fs::write(bot.plugin_file("10-slow.txt"), "> wait 60000\n<~ waited\n").unwrap();
    write(&bot, "10-slow.wasm", &*MISBEHAVE);
    write(&bot, "30-parrot.wasm", &*PARROT);
    bot.until(|live| crate::bot::names(live) == ["echo", "parrot"]).await;
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["echo", "parrot"]);
    assert!(bot.app.faults()[0].why.contains("took longer than 1 s; raise `canary.timeout_s`"));
}

#[tokio::test]
async fn a_start_does_not_wait_for_a_canary_that_takes_its_time() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .file("plugins/10-misbehave.txt", "> wait 600000\n<~ waited\n")
        .plugin("20-echo.wasm", &ECHO)
        .settings("[canary]\ntimeout_s = 600")
        .start_unloaded()
        .await;
    assert!(bot.app.look().await.pending);
    assert_eq!(bot.chain(), ["echo"]);
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_may_come_late_may_come_at_once() {
    let bot = Setup::new()
        .plugin("20-bot.wasm", &MISBEHAVE)
        .file("plugins/20-bot.txt", "> wait 300\n<\n<~ waited\n> say hi\n<~ hi\n")
        .settings("[late]\nwindow_ms = 100")
        .start()
        .await;
    assert_eq!(bot.chain(), ["bot"], "{:?}", bot.app.faults());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_held_its_conversation_is_not_made_to_at_a_restart_until_it_changes() {
    let data = tempfile::tempdir().unwrap();
    let start = async |canary: &str, limits: &str| {
        let settings = format!(
            "data_dir = \"{}\"\n[canary]\ntimeout_s = 5\n[plugins.bot.limits]\n{limits}",
            data.path().display()
        );
        let setup = Setup::new().plugin("20-bot.wasm", &MISBEHAVE).file("plugins/20-bot.txt", canary);
        let bot = setup.settings(&settings).start().await;
        let loaded = bot.chain().len();
        bot.stop().await;
        loaded
    };
    let inode = || {
        let cache = fs::read_dir(data.path().join("cache")).unwrap();
        let mut files = cache.map(|entry| entry.unwrap().path());
        let held = files.find(|file| file.extension().is_some_and(|extension| extension == "held"));
        fs::metadata(held.unwrap()).unwrap().ino()
    };
    assert_eq!(start("> wait 200\n<~ waited\n", "").await, 1);
    let before = inode();
    assert_eq!(start("> wait 200\n<~ waited\n", "").await, 1);
    assert_eq!(inode(), before);
    assert_eq!(start("> wait 200\n<~ waited\n", "timeout_ms = 100").await, 0, "other limits");
    assert_eq!(start("> wait 200\n<~ not\n", "").await, 0, "another conversation");
}

#[tokio::test]
async fn what_a_canary_does_is_no_failure_of_a_users_message() {
    let log = Log::capture();
    let bot = Setup::new().plugin("20-bot.wasm", &MISBEHAVE).file("plugins/20-bot.txt", "> trap\n<\n").start().await;
    assert_eq!(bot.chain(), ["bot"], "silence was expected");
    assert!(log.lines("failed").is_empty(), "{:?}", log.lines("failed"));
}
