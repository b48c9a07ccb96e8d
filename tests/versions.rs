//! The versions that served, and going back to them; plugins that are switched off and on.

use std::fs;

use aviary_host::{
    app::{App, Live},
    plugin::{Hash, directory::OrderError},
};
use tempfile::TempDir;
use wasm_encoder::{CustomSection, Section};

use crate::{
    bot::{Bot, Setup, TOKEN},
    compiler::Gate,
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT, WELCOME, from_wat},
};

/// Puts a file in the place of another.
fn replace(bot: &Bot, file: &str, wasm: &[u8]) {
    let partial = bot.dir().join("partial");
    fs::write(&partial, wasm).unwrap();
    fs::rename(partial, bot.plugin_file(file)).unwrap();
}

/// A bot whose plugin was the echo, then the parrot.
async fn with_two_versions() -> Bot {
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).start().await;
    replace(&bot, "20-bot.wasm", &PARROT);
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    bot
}

/// The hashes of the kept versions, the newest first.
async fn kept(app: &App, name: &str) -> Vec<Hash> {
    app.versions(None, name).await.unwrap().iter().map(|version| version.hash).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_brings_the_version_that_served_before() {
    let bot = with_two_versions().await;
    let versions = bot.app.versions(None, "bot").await.unwrap();
    assert_eq!(versions.iter().map(|version| version.is_present).collect::<Vec<_>>(), [true, false]);
    assert!(
        versions.iter().all(|version| version.file_name == "20-bot.wasm" && version.first_served_s > 1_700_000_000)
    );
    assert_eq!(versions[1].bytes, ECHO.len() as u64);

    let done = bot.app.rollback(None, "bot", None).await.unwrap();
    assert_eq!((done.hash, &done.file), (Hash::of(&ECHO), &bot.plugin_file("20-bot.wasm")));
    assert_eq!(bot.says("hi").await, "hi");
    assert_eq!(fs::read(bot.plugin_file("20-bot.wasm")).unwrap(), *ECHO, "the directory is the truth");
    assert_eq!(fs::read_dir(bot.dir().join("plugins")).unwrap().count(), 1, "nothing else is left there");

    // What was left is not gone back to, unless it is named.
    assert!(matches!(bot.app.rollback(None, "bot", None).await, Err(OrderError::AllLeft { .. })));
    let parrot = Hash::of(&PARROT).to_string();
    bot.app.rollback(None, "bot", Some(&parrot[..8])).await.unwrap();
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_bad_version_that_follows_a_rollback_the_good_one_comes_back() {
    let bot = with_two_versions().await;
    bot.app.rollback(None, "bot", None).await.unwrap();
    replace(&bot, "20-bot.wasm", &MISBEHAVE);
    bot.app.reload().await;
    // The parrot is newer than the echo, but somebody went back from it.
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().hash, Hash::of(&ECHO));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_from_a_file_that_never_served_brings_what_serves() {
    let bot = with_two_versions().await;
    replace(&bot, "20-bot.wasm", b"not wasm");
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().hash, Hash::of(&PARROT));
    assert_eq!(fs::read(bot.plugin_file("20-bot.wasm")).unwrap(), *PARROT);
    assert!(bot.app.faults().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_another_file_name_takes_the_place_of_the_present_one() {
    let bot = Setup::new().plugin("20-bot-1.0.wasm", &ECHO).start().await;
    fs::remove_file(bot.plugin_file("20-bot-1.0.wasm")).unwrap();
    fs::write(bot.plugin_file("20-bot-1.1.wasm"), &*PARROT).unwrap();
    bot.app.reload().await;
    let done = bot.app.rollback(None, "bot", None).await.unwrap();
    assert_eq!(done.file, bot.plugin_file("20-bot-1.0.wasm"));
    assert_eq!((bot.chain(), bot.says("hi").await), (vec!["bot".to_owned()], "hi".to_owned()));
    let off = bot.plugin_file("20-bot-1.1.wasm.off");
    assert_eq!((off.exists(), done.set_aside), (true, vec![off.clone()]));

    // Forward again, and what was switched off is not in the way.
    let parrot = Hash::of(&PARROT).to_string();
    bot.app.rollback(None, "bot", Some(&parrot)).await.unwrap();
    assert_eq!((off.exists(), bot.says("hi").await), (false, "鹦鹉：hi".to_owned()));
    bot.app.disable(None, "bot").await.unwrap();
    assert_eq!(bot.says("hi").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_comes_back_with_the_conversation_that_it_held() {
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).file("plugins/20-bot.txt", "> hi\n< hi\n").start().await;
    fs::write(bot.plugin_file("20-bot.txt"), "> hi\n< 鹦鹉：hi\n").unwrap();
    replace(&bot, "20-bot.wasm", &PARROT);
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    bot.app.rollback(None, "bot", None).await.unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "hi");
    assert_eq!(fs::read_to_string(bot.plugin_file("20-bot.txt")).unwrap(), "> hi\n< hi\n");

    // One that came without a conversation is not judged by that of a later version.
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).start().await;
    fs::write(bot.plugin_file("20-bot.txt"), "> hi\n< 鹦鹉：hi\n").unwrap();
    replace(&bot, "20-bot.wasm", &PARROT);
    bot.app.reload().await;
    let aside = bot.plugin_file("20-bot.txt.off");
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().set_aside, std::slice::from_ref(&aside));
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "hi");
    assert!(aside.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_overwrites_no_conversation_that_is_kept_nowhere_else() {
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).file("plugins/20-bot.txt", "> hi\n< hi\n").start().await;
    let (canary, off) = (bot.plugin_file("20-bot.txt"), bot.plugin_file("20-bot.txt.off"));
    // Neither the version that came without a conversation nor the one that had another held this one.
    fs::remove_file(&canary).unwrap();
    replace(&bot, "20-bot.wasm", &PARROT);
    bot.app.reload().await;
    fs::write(&canary, "> hi\n< hello\n").unwrap();
    fs::write(&off, "notes").unwrap();
    let (second, third) = (bot.plugin_file("20-bot.txt.off.2"), bot.plugin_file("20-bot.txt.off.3"));
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().set_aside, std::slice::from_ref(&second));
    let text = |file| fs::read_to_string(file).unwrap();
    assert_eq!([text(&canary), text(&off), text(&second)], ["> hi\n< hi\n", "notes", "> hi\n< hello\n"]);
    // The echo's is kept.
    let parrot = Hash::of(&PARROT).to_string();
    assert_eq!(bot.app.rollback(None, "bot", Some(&parrot)).await.unwrap().set_aside, [] as [std::path::PathBuf; 0]);
    assert_eq!((canary.exists(), third.exists()), (false, false));
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_goes_back_while_it_is_switched_off_can_be_switched_off_again() {
    let bot = with_two_versions().await;
    let off = bot.app.disable(None, "bot").await.unwrap();
    // It comes back by its name, too.
    let parrot = Hash::of(&PARROT).to_string();
    bot.app.rollback(None, "bot", Some(&parrot)).await.unwrap();
    assert_eq!((bot.says("hi").await, off.exists()), ("鹦鹉：hi".to_owned(), false));
    bot.app.disable(None, "bot").await.unwrap();
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().hash, Hash::of(&ECHO));
    assert_eq!(bot.says("hi").await, "hi");
    bot.app.disable(None, "bot").await.unwrap();
    assert_eq!((bot.says("hi").await, fs::read(&off).unwrap()), (String::new(), ECHO.to_vec()));

    // What is kept nowhere else stays there.
    fs::write(&off, &*MISBEHAVE).unwrap();
    bot.app.rollback(None, "bot", Some(&parrot)).await.unwrap();
    assert_eq!((bot.says("hi").await, fs::read(&off).unwrap()), ("鹦鹉：hi".to_owned(), MISBEHAVE.to_vec()));
    assert!(matches!(bot.app.disable(None, "bot").await, Err(OrderError::InTheWay { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_does_not_go_back_to_what_its_table_does_not_allow() {
    let bot = with_two_versions().await;
    replace(&bot, "20-bot.wasm", &WELCOME);
    bot.app.reload().await;
    let settings = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{toml}\n[plugins.bot]\nsha256 = \"{}\"\n", Hash::of(&ECHO))).unwrap();
    bot.app.reload().await;
    let parrot = Hash::of(&PARROT).to_string();
    let refused = bot.app.rollback(None, "bot", Some(&parrot)).await.unwrap_err();
    let told = format!("its table says `sha256 = \"{}\"`; change that first", Hash::of(&ECHO));
    assert!(refused.to_string().contains(&told), "{refused}");
    assert_eq!(fs::read(bot.plugin_file("20-bot.wasm")).unwrap(), *WELCOME);
    // The one before is passed over.
    assert_eq!(bot.app.rollback(None, "bot", None).await.unwrap().hash, Hash::of(&ECHO));
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_there_after_a_restart_and_one_that_was_gone_back_to_stays() {
    let data = tempfile::tempdir().unwrap();
    let dir = bot_dir(&data, "");
    let start = async || {
        let config = aviary_host::config::Config::load(&dir.join("aviary.toml")).unwrap();
        let app = App::new(config, crate::bot::binary()).unwrap();
        app.reload().await;
        app
    };
    fs::write(dir.join("plugins/20-bot.wasm"), &*ECHO).unwrap();
    start().await;
    fs::write(dir.join("plugins/20-bot.wasm"), &*PARROT).unwrap();
    let app = start().await;
    assert_eq!(kept(&app, "bot").await, [Hash::of(&PARROT), Hash::of(&ECHO)]);
    app.rollback(None, "bot", None).await.unwrap();
    drop(app);

    let app = start().await;
    assert_eq!(app.live().named("main").unwrap().chain.plugins[0].code.hash, Hash::of(&ECHO));
    assert!(matches!(app.rollback(None, "bot", None).await, Err(OrderError::AllLeft { .. })), "not to what was left");
    drop(app);

    // A copy that a disk has spoiled is not put in the place of anything.
    fs::write(dir.join("plugins/20-bot.wasm"), &*WELCOME).unwrap();
    let app = start().await;
    let spoiled = fs::read_dir(dir.join("data/versions")).unwrap().next().unwrap().unwrap().path();
    fs::write(spoiled.join(format!("{}.wasm", Hash::of(&ECHO))), "spoiled").unwrap();
    assert!(matches!(app.rollback(None, "bot", None).await, Err(OrderError::Damaged { .. })));
    assert_eq!(fs::read(dir.join("plugins/20-bot.wasm")).unwrap(), *WELCOME);
    assert_eq!(kept(&app, "bot").await, [Hash::of(&WELCOME), Hash::of(&PARROT)]);
}

#[tokio::test]
async fn a_start_falls_back_only_to_what_would_have_stayed_without_it() {
    let log = Log::capture();
    let after_restart = async |setup: Setup, change: fn(&Bot)| {
        let bot = setup.start().await;
        change(&bot);
        let bot = bot.restart().await;
        let serving = bot.app.live().named("main").unwrap().chain.plugins.first().map(|plugin| plugin.code.hash);
        (serving, bot)
    };
    let echo = || Setup::new().plugin("20-bot.wasm", &ECHO);

    // A version that loads and does not hold its conversation.
    let worse = |bot: &Bot| {
        fs::write(bot.plugin_file("20-bot.txt"), "> hi\n< hello\n").unwrap();
        replace(bot, "20-bot.wasm", &PARROT);
    };
    let (serving, bot) = after_restart(echo(), worse).await;
    assert_eq!(serving, Some(Hash::of(&ECHO)));
    let told = format!("is loaded, the newest version of it that is kept serves: SHA-256 {}", Hash::of(&ECHO));
    assert_eq!((log.lines(&told).len(), log.lines("the version before it stays").len()), (1, 1));
    // It comes right without another restart.
    fs::remove_file(bot.plugin_file("20-bot.txt")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    assert!(bot.app.faults().is_empty());

    // Its plugin's table names another content.
    let pinned = format!("[plugins.bot]\nsha256 = \"{}\"", Hash::of(&ECHO));
    let broken = |bot: &Bot| replace(bot, "20-bot.wasm", b"not wasm");
    assert_eq!(after_restart(echo().settings(&pinned), broken).await.0, Some(Hash::of(&ECHO)));
    let pin = |bot: &Bot| {
        let toml = fs::read_to_string(bot.dir().join("aviary.toml")).unwrap();
        let pin = format!("{toml}\n[plugins.bot]\nsha256 = \"{}\"\n", Hash::of(&WELCOME));
        fs::write(bot.dir().join("aviary.toml"), pin).unwrap();
        replace(bot, "20-bot.wasm", &PARROT);
    };
    assert_eq!(after_restart(echo(), pin).await.0, None);
    assert_eq!(log.lines("and neither is the newest version of it that is kept").len(), 1);

    // It is another file, and the one that served is gone.
    let renamed = |bot: &Bot| {
        fs::remove_file(bot.plugin_file("20-bot.wasm")).unwrap();
        replace(bot, "20-bot-2.wasm", b"not wasm");
    };
    assert_eq!(after_restart(echo(), renamed).await.0, None);
    // Nothing is kept any more.
    let unkept = |bot: &Bot| {
        let toml = fs::read_to_string(bot.dir().join("aviary.toml")).unwrap();
        fs::write(bot.dir().join("aviary.toml"), format!("{toml}\n[versions]\ncount_max = 0\n")).unwrap();
        replace(bot, "20-bot.wasm", b"not wasm");
    };
    assert_eq!(after_restart(echo(), unkept).await.0, None);
    // Somebody switched it off.
    let off = |bot: &Bot| fs::rename(bot.plugin_file("20-bot.wasm"), bot.plugin_file("20-bot.wasm.off")).unwrap();
    assert_eq!(after_restart(echo(), off).await.0, None);
    let off_and_replaced = |bot: &Bot| {
        fs::rename(bot.plugin_file("20-bot.wasm"), bot.plugin_file("20-bot.wasm.off")).unwrap();
        replace(bot, "20-bot.wasm", b"not wasm");
    };
    assert_eq!(after_restart(echo(), off_and_replaced).await.0, None);
    // The copy is spoiled.
    let spoiled = |bot: &Bot| {
        let kept = fs::read_dir(bot.dir().join("data/versions")).unwrap().next().unwrap().unwrap().path();
        fs::write(kept.join(format!("{}.wasm", Hash::of(&ECHO))), &*PARROT).unwrap();
        replace(bot, "20-bot.wasm", b"not wasm");
    };
    assert_eq!(after_restart(echo(), spoiled).await.0, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_file_got_another_place_in_the_order_falls_back_there() {
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).start().await;
    fs::rename(bot.plugin_file("20-bot.wasm"), bot.plugin_file("10-bot.wasm")).unwrap();
    bot.app.reload().await;
    replace(&bot, "10-bot.wasm", b"not wasm");
    assert_eq!(bot.restart().await.says("hi").await, "hi");
}

/// A bot whose plugin is the echo, and what holds up its compiler; it has compiled nothing else.
async fn with_a_gate() -> (Bot, Gate, TempDir) {
    let (gate, data) = (Gate::new(), tempfile::tempdir().unwrap());
    gate.open();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let setup = Setup::new().plugin("20-bot.wasm", &ECHO).settings(&settings).compiler(&gate.compiler());
    (setup.start().await, gate, data)
}

#[tokio::test(flavor = "multi_thread")]
async fn until_a_new_version_is_compiled_after_a_start_the_kept_one_serves() {
    let (bot, gate, _data) = with_a_gate().await;
    replace(&bot, "20-bot.wasm", &PARROT);
    gate.close();
    let bot = bot.restart_unloaded().await;
    assert!(bot.app.look().await.pending);
    assert_eq!(bot.says("hi").await, "hi");

    gate.open();
    let is_parrot = |live: &Live| live.named("main").unwrap().chain.plugins[0].code.hash == Hash::of(&PARROT);
    bot.app.reload().await;
    bot.until(is_parrot).await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_away_does_not_come_back_while_what_replaces_it_is_compiled() {
    let (bot, gate, _data) = with_a_gate().await;
    fs::remove_file(bot.plugin_file("20-bot.wasm")).unwrap();
    bot.app.reload().await;
    gate.close();
    replace(&bot, "20-bot.wasm", &PARROT);
    assert!(bot.app.look().await.pending);
    gate.until_waited_for(2).await;
    assert_eq!(bot.says("hi").await, "");
}

/// A bot's directory that outlives its hosts.
fn bot_dir(parent: &TempDir, more: &str) -> std::path::PathBuf {
    let dir = parent.path().join("bot");
    fs::create_dir_all(dir.join("plugins")).unwrap();
    let toml = format!("[engine]\ninstances_max = 20\n{more}\n[accounts.main]\ntoken = \"{TOKEN}\"\n");
    fs::write(dir.join("aviary.toml"), toml).unwrap();
    dir
}

/// A plugin that says nothing, and is as long as wanted and unlike others.
fn silent(number: u8, bytes: usize) -> Vec<u8> {
    let mut module =
        from_wat(r#"(func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#);
    CustomSection { name: "padding".into(), data: vec![number; bytes].into() }.append_to(&mut module);
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_versions_are_kept_and_no_more_and_so_many_bytes() {
    let bot =
        Setup::new().plugin("20-bot.wasm", &ECHO).settings("[versions]\ncount_max = 3\nmib_max = 1").start().await;
    for number in 1..=4 {
        replace(&bot, "20-bot.wasm", &silent(number, 10));
        bot.app.reload().await;
    }
    let newest = [4, 3, 2].map(|number| Hash::of(&silent(number, 10)));
    assert_eq!(kept(&bot.app, "bot").await, newest);
    // Another of more than half a MiB, and its next version, leave no room for the first ones.
    replace(&bot, "30-large.wasm", &silent(5, 600_000));
    bot.app.reload().await;
    replace(&bot, "30-large.wasm", &silent(6, 700_000));
    bot.app.reload().await;
    let large = Hash::of(&silent(6, 700_000));
    assert_eq!(kept(&bot.app, "large").await, [large]);
    assert_eq!(kept(&bot.app, "bot").await, [newest[0]], "what serves stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_kept_is_kept_when_the_disk_has_room_again() {
    let bot = Setup::new().plugin("10-parrot.wasm", &PARROT).start().await;
    // In the place of the directory for the next one, there is a file.
    let versions = bot.dir().join("data/versions");
    fs::rename(&versions, bot.dir().join("aside")).unwrap();
    fs::write(&versions, "").unwrap();
    fs::write(bot.plugin_file("20-bot.wasm"), &*ECHO).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["parrot", "bot"]);

    fs::remove_file(&versions).unwrap();
    fs::rename(bot.dir().join("aside"), &versions).unwrap();
    fs::write(bot.plugin_file("30-welcome.wasm"), &*WELCOME).unwrap();
    bot.app.reload().await;
    assert_eq!(kept(&bot.app, "bot").await, [Hash::of(&ECHO)], "the next change is a try");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_switched_off_and_on() {
    let bot = Setup::new().plugin("10-parrot.wasm", &PARROT).plugin("20-echo.wasm", &ECHO).start().await;
    let off = bot.app.disable(None, "parrot").await.unwrap();
    assert_eq!(off, bot.plugin_file("10-parrot.wasm.off"));
    assert_eq!((bot.chain(), bot.says("hi").await), (vec!["echo".to_owned()], "hi".to_owned()));
    assert!(matches!(bot.app.disable(None, "parrot").await, Err(OrderError::Already { .. })));
    bot.app.enable(None, "10-parrot.wasm").await.unwrap();
    assert_eq!(bot.chain(), ["parrot", "echo"]);
    assert!(matches!(bot.app.enable(Some("main"), "parrot").await, Err(OrderError::Already { .. })));

    let unknown = bot.app.disable(None, "parot").await.unwrap_err();
    assert!(unknown.to_string().starts_with("there is no plugin `parot` in /"), "{unknown}");
    let unknown = bot.app.rollback(Some("shop"), "parrot", None).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no account `shop`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_two_directories_is_ambiguous_unless_the_account_or_the_file_is_named() {
    let bot = Setup::new()
        .plugin("20-echo.wasm", &ECHO)
        .file("own/25-echo.wasm", &*PARROT)
        .settings(&format!("[accounts.shop]\npath = \"/shop\"\ntoken = \"{TOKEN}\"\nplugins_dir = \"own\""))
        .start()
        .await;
    for account in [None, Some("shop")] {
        let error = bot.app.disable(account, "echo").await.unwrap_err().to_string();
        assert!(error.contains("20-echo.wasm") && error.contains("25-echo.wasm"), "{error}");
        assert!(matches!(bot.app.rollback(account, "echo", None).await, Err(OrderError::Ambiguous { .. })));
    }
    bot.app.disable(Some("shop"), "25-echo.wasm").await.unwrap();
    assert!(bot.dir().join("own/25-echo.wasm.off").exists());
    bot.app.disable(Some("main"), "echo").await.unwrap();
    assert!(bot.chain().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_never_overwrites_a_file() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).file("plugins/20-echo.wasm.off", "mine").start().await;
    let error = bot.app.disable(None, "echo").await.unwrap_err();
    assert!(error.to_string().ends_with("20-echo.wasm.off is in the way; move it away first"), "{error}");
    assert_eq!(fs::read(bot.plugin_file("20-echo.wasm.off")).unwrap(), b"mine");
}
