//! Settings change while the host serves.

use std::fs;

use aviary_host::{config::Config, conversation::Said, plugin::Hash};

use super::{large, next, rename_over};
use crate::{
    bot::{Setup, names, new_header},
    compiler::Gate,
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT},
};

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_reloaded_and_a_broken_edit_keeps_the_old_ones() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .settings("[plugins.misbehave]\nenv = { CITY = \"北京\" }")
        .watched()
        .start()
        .await;
    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    assert_eq!(bot.says("env CITY").await, "北京");

    let mut live = bot.app.follow();
    fs::write(&file, toml.replace("北京", "上海")).unwrap();
    next(&mut live).await;
    assert_eq!(bot.says("env CITY").await, "上海");

    fs::write(&file, toml.replace("env =", "evn =")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("env CITY").await, "上海");

    fs::write(&file, toml).unwrap();
    bot.until(|live| city(&live.config) == "北京").await;
    assert_eq!(bot.says("env CITY").await, "北京");
}

/// Whoever searches the log for one of them, or is alerted to each, finds both.
#[tokio::test]
async fn two_mistakes_in_the_settings_are_two_entries_of_the_log() {
    let log = Log::capture();
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("brocken = 1\n{toml}\n[lat]\n")).unwrap();
    bot.app.reload().await;
    for key in ["brocken", "lat"] {
        let told = log.lines(&format!("unknown key `{key}`"));
        let is_whole =
            |line: &String| line.contains("ERROR") && line.contains("not reloaded; the old ones stay: aviary.toml:");
        assert!(told.len() == 1 && told.iter().all(is_whole), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lack_a_file_count_when_it_comes() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .settings("[plugins.misbehave]\nenv = { CITY = \"北京\" }")
        .start()
        .await;
    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(&file, toml.replace("北京", "${file:cities/here.txt}")).unwrap();
    bot.app.reload().await;
    assert!(bot.app.troubles().await.settings[0].contains("needs the file `cities/here.txt`"));
    assert_eq!(bot.says("env CITY").await, "北京");

    fs::create_dir(bot.dir().join("cities")).unwrap();
    fs::write(bot.dir().join("cities/here.txt"), "上海\n").unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("env CITY").await, "上海");
    assert!(bot.app.troubles().await.settings.is_empty());
}

fn city(config: &Config) -> String {
    config.plugin(&config.accounts[0], "misbehave", false).env["CITY"].expose().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_failed_for_its_settings_is_tried_again_when_they_change() {
    let bot =
        Setup::new().plugin("10-large.wasm", &large()).settings("[plugins.large.limits]\nmemory_mib = 1").start().await;
    assert!(bot.chain().is_empty());
    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(&file, toml.replace("memory_mib = 1", "memory_mib = 16")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["large"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_added_is_served_without_a_restart() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).settings("include = [\"accounts/*.toml\"]").start().await;
    let shop = bot.account("/shop");
    let push = Said::text("hi").to_xml(&new_header());
    assert_eq!(shop.push(&push).await.unwrap().status, 404);
    fs::create_dir(bot.dir().join("accounts")).unwrap();
    fs::write(bot.dir().join("accounts/shop.toml"), "[accounts.shop]\npath = \"/shop\"\ntoken = \"testtoken\"\n")
        .unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says_to(&shop, "hi").await, "hi");
    // One that is broken stops no other.
    fs::write(bot.dir().join("accounts/broken.toml"), "[accounts.broken]\npath = \"/shop\"\n").unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says_to(&shop, "hi").await, "hi");
    assert_eq!(bot.app.live().config.problems.len(), 1, "{:?}", bot.app.live().config.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_other_plugins_count_while_a_file_is_compiled() {
    let data = tempfile::tempdir().unwrap();
    let settings =
        format!("data_dir = \"{}\"\n[plugins.misbehave]\nenv = {{ CITY = \"北京\" }}", data.path().display());
    let setup = |gate: &Gate| {
        Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(&settings).compiler(&gate.compiler())
    };
    let gate = Gate::new();
    gate.open();
    setup(&gate).plugin("20-echo.wasm", &ECHO).start().await.stop().await;

    // The same host again, that has only the parrot to compile, which takes as long as the gate is closed.
    let gate = Gate::new();
    let bot = setup(&gate).watched().start().await;
    rename_over(&bot, "30-parrot.wasm", &PARROT);
    gate.until_waited_for(1).await;
    rename_over(&bot, "20-echo.wasm", &ECHO);
    bot.until(|live| names(live) == ["misbehave", "echo"]).await;
    let file = bot.dir().join("aviary.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("北京", "上海")).unwrap();
    bot.until(|live| city(&live.config) == "上海").await;
    assert_eq!(bot.says("env CITY").await, "上海");
    assert_eq!(bot.chain(), ["misbehave", "echo"], "the parrot is not there yet");

    // Its load began under the old settings, and ends under the new ones without another compile.
    gate.open();
    bot.until(|live| names(live) == ["misbehave", "echo", "parrot"]).await;
    assert_eq!(gate.compiled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_before_the_host_is_ready_are_not_lost() {
    let (gate, data) = (Gate::new(), tempfile::tempdir().unwrap());
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .settings(&format!("data_dir = \"{}\"", data.path().display()))
        .settings("[plugins.misbehave]\nenv = { CITY = \"北京\" }")
        .compiler(&gate.compiler())
        .start_unloaded()
        .await;
    assert!(bot.app.look().await.pending);
    let file = bot.dir().join("aviary.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("北京", "上海")).unwrap();
    bot.app.look().await;
    assert!(bot.app.unready().is_some());
    assert_eq!(city(&bot.app.live().config), "上海", "WeChat's check of the URL goes by it");
    gate.open();
    bot.app.reload().await;
    assert_eq!(bot.says("env CITY").await, "上海");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_tried_under_the_limits_that_count_when_it_is_compiled() {
    let data = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let settings = format!("data_dir = \"{}\"\n[plugins.large.limits]\nmemory_mib = 1", data.path().display());
    let bot = Setup::new().settings(&settings).compiler(&gate.compiler()).watched().start().await;
    rename_over(&bot, "10-large.wasm", &large());
    gate.until_waited_for(1).await;
    let file = bot.dir().join("aviary.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("memory_mib = 1", "memory_mib = 16")).unwrap();
    let memory_mib = |config: &Config| config.plugin(&config.accounts[0], "large", false).limits.memory_mib;
    bot.until(|live| memory_mib(&live.config) == 16).await;
    gate.open();
    bot.until(|live| names(live) == ["large"]).await;
    assert_eq!(gate.compiled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_needs_other_limits_is_tried_again_when_they_change() {
    let large = large();
    let settings = "[plugins.bot.limits]\nmemory_mib = 2";
    let bot = Setup::new().plugin("10-bot.wasm", &ECHO).settings(settings).start().await;
    rename_over(&bot, "10-bot.wasm", &large);
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "hi");
    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(&file, toml.replace("memory_mib = 2", "memory_mib = 16")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.app.live().named("main").unwrap().chain.plugins[0].code.hash, Hash::of(&large));
}
