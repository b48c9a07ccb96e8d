//! Plugins and settings change while the host serves.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use aviary_host::{
    app::{App, Live},
    config::Config,
    conversation::Said,
    plugin::{
        Hash,
        engine::Engine,
        loader::Loader,
        services::Services,
        set::{Fault, Patience, Set},
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use wasm_encoder::{CustomSection, Section};

use crate::{
    bot::{Bot, PATIENCE, Setup, binary, names, new_header},
    compiler::Gate,
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT, WELCOME, from_wat},
    process::{aviary, finish, shell},
};

/// Waits for the next change of what serves.
async fn next(live: &mut watch::Receiver<Arc<Live>>) {
    timeout(PATIENCE, live.changed()).await.expect("it is noticed").expect("the host is there");
}

/// A file appears whole under its name, as `mv` and careful programs do it.
fn rename_over(bot: &Bot, file: &str, content: &[u8]) {
    let partial = bot.dir().join("partial");
    fs::write(&partial, content).unwrap();
    fs::rename(partial, bot.plugin_file(file)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_dropped_replaced_and_removed_is_followed() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).watched().start().await;
    assert_eq!(bot.chain(), ["echo"]);

    fs::write(bot.plugin_file("10-welcome.wasm"), &*WELCOME).unwrap();
    bot.until(|live| names(live) == ["welcome", "echo"]).await;
    assert_eq!(bot.says("[subscribe]").await, "感谢您的关注!");

    let mut live = bot.app.follow();
    rename_over(&bot, "20-echo.wasm", &PARROT);
    next(&mut live).await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");

    // Written in place, by a program that truncates first.
    fs::write(bot.plugin_file("20-echo.wasm"), &*ECHO).unwrap();
    next(&mut live).await;
    assert_eq!(bot.says("hi").await, "hi");

    fs::rename(bot.plugin_file("20-echo.wasm"), bot.plugin_file("20-echo.wasm.off")).unwrap();
    bot.until(|live| names(live) == ["welcome"]).await;
    assert_eq!(bot.says("hi").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_events_arrive_changes_are_found_by_looking() {
    // A directory that was not there could not be watched.
    let bot = Setup::new().settings("plugins_dir = \"later\"\n[watch]\npoll_ms = 100").watched().start().await;
    assert!(bot.chain().is_empty());
    fs::rename(bot.dir().join("plugins"), bot.dir().join("later")).unwrap();
    fs::write(bot.dir().join("later/20-echo.wasm"), &*ECHO).unwrap();
    bot.until(|live| names(live) == ["echo"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_plugin_that_was_there() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    let half = &PARROT[..PARROT.len() / 2];
    for broken in [&b"not wasm"[..], &b""[..], half] {
        rename_over(&bot, "20-echo.wasm", broken);
        assert!(!bot.app.reload().await.changed);
        assert_eq!(bot.says("hi").await, "hi");
    }
    // The rest of the half-written file arrives.
    rename_over(&bot, "20-echo.wasm", &PARROT);
    assert!(bot.app.reload().await.changed);
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_file_does_not_stop_the_others() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    rename_over(&bot, "10-broken.wasm", b"not wasm");
    rename_over(&bot, "15-parrot.wasm", &PARROT);
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["parrot", "echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_read() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).file("plugins/10-directory.wasm/x", "").start_unloaded().await;
    // Nobody writes to the pipe: whoever opens it waits for ever.
    let made = std::process::Command::new("mkfifo").arg(bot.plugin_file("15-pipe.wasm")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("nowhere", bot.plugin_file("18-dangling.wasm")).unwrap();
    timeout(PATIENCE, bot.app.reload()).await.unwrap();
    assert_eq!(bot.chain(), ["echo"]);

    // Nor are settings.
    let settings = bot.dir().join("aviary.toml");
    fs::remove_file(&settings).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&settings).status().unwrap().success());
    timeout(PATIENCE, bot.app.reload()).await.unwrap();
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_looked_at_keeps_its_plugin() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    let file = bot.plugin_file("20-echo.wasm");
    fs::remove_file(&file).unwrap();
    // A link to itself: nobody can say whether there is a file.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let log = Log::capture();
    assert!(!bot.app.reload().await.changed);
    assert_eq!(bot.says("hi").await, "hi");
    assert_eq!(log.lines("cannot be looked at").len(), 1);
    fs::remove_file(&file).unwrap();
    assert!(bot.app.reload().await.changed, "it is gone for certain");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compiled_before_does_not_wait_for_what_was_not() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    Setup::new().plugin("20-echo.wasm", &ECHO).settings(&settings).start().await.stop().await;
    let bot = Setup::new()
        .plugin("10-welcome.wasm", &WELCOME)
        .plugin("20-echo.wasm", &ECHO)
        .settings(&settings)
        .start_unloaded()
        .await;
    let config = bot.app.live().config.clone();
    let gate = Gate::new();
    let (engine, cache_dir) = (Engine::new(&config.engine).unwrap(), config.cache_dir.clone());
    let loader = Loader::new(engine, gate.compiler(), cache_dir, Services::scratch()).unwrap();
    let mut set = Set::new(loader);
    let mut names = async |patience| {
        assert!(set.look(&config, patience).await.changed);
        set.chains(&config)[0].plugins.iter().map(|plugin| plugin.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(Patience::Brief).await, ["echo"]);
    gate.open();
    assert_eq!(names(Patience::Whole).await, ["welcome", "echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trouble_that_is_not_the_files_fault_passes() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let bot = Setup::new().settings(&settings).start().await;
    // Where the code is to be kept, there is a file: nothing can be kept.
    let cache = data.path().join("cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "").unwrap();
    rename_over(&bot, "20-echo.wasm", &ECHO);
    bot.app.reload().await;
    assert!(bot.chain().is_empty());
    fs::remove_file(&cache).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["echo"]);
}

#[tokio::test]
async fn a_trouble_that_stays_is_not_tried_at_every_look() {
    let log = Log::capture();
    let data = tempfile::tempdir().unwrap();
    let bot = Setup::new().settings(&format!("data_dir = \"{}\"", data.path().display())).start().await;
    let cache = data.path().join("cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "").unwrap();
    rename_over(&bot, "20-echo.wasm", &ECHO);
    for _ in 0..50 {
        bot.app.reload().await;
    }
    // At once, at the next look, and then after a wait that doubles.
    let tries = log.lines("it is tried again").len();
    assert!((2..10).contains(&tries), "{tries} tries");
}

/// The last try failed for a full disk; what the file is refused for now is told, and not that.
#[tokio::test(flavor = "multi_thread")]
async fn a_trouble_that_has_passed_is_told_no_longer() {
    let data = tempfile::tempdir().unwrap();
    let bot = Setup::new().settings(&format!("data_dir = \"{}\"", data.path().display())).start().await;
    let cache = data.path().join("cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "").unwrap();
    rename_over(&bot, "20-echo.wasm", &ECHO);
    bot.app.reload().await;
    let why = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.why).collect::<Vec<_>>().concat();
    assert!(why(bot.app.faults()).contains("it is tried again"));
    fs::remove_file(&cache).unwrap();
    rename_over(&bot, "20-echo.wasm", b"not wasm");
    bot.app.reload().await;
    let told = why(bot.app.faults());
    assert!(told.contains("this is no WebAssembly") && !told.contains("it is tried again"), "{told}");
}

/// Only Linux has a regular file that can be opened and not be read.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_cannot_be_read_just_now_is_tried_again() {
    let log = Log::capture();
    let data = tempfile::tempdir().unwrap();
    let settings =
        format!("data_dir = \"{}\"\n[versions]\ncount_max = 0\n[compile]\ncache_days = 0", data.path().display());
    let bot = Setup::new().settings(&settings).start().await;
    // Nothing lies at address 0 of this process.
    std::os::unix::fs::symlink("/proc/self/mem", bot.plugin_file("20-echo.wasm")).unwrap();
    bot.app.reload().await;
    bot.app.reload().await;
    let told = log.lines("20-echo.wasm is not loaded: it cannot be read").len();
    assert_eq!((told, log.lines("it is tried again").len()), (1, 2), "it is tried twice, and told once");
    // It keeps nothing of what others leave in the compile cache.
    rename_over(&bot, "30-bot.wasm", &ECHO);
    bot.app.reload().await;
    rename_over(&bot, "30-bot.wasm", &PARROT);
    bot.app.reload().await;
    assert_eq!(log.lines("that no plugin uses from the compile cache").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_only_touched_is_no_change() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    rename_over(&bot, "20-echo.wasm", &ECHO);
    assert!(!bot.app.reload().await.changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_flight_finishes_on_the_chain_it_began_with() {
    let bot = Setup::new().plugin("20-bot.wasm", &MISBEHAVE).watched().start().await;
    let mut live = bot.app.follow();
    let old = Arc::downgrade(&bot.app.live());
    let (waited, ()) = tokio::join!(bot.says("wait 1500"), async {
        rename_over(&bot, "20-bot.wasm", &PARROT);
        next(&mut live).await;
        assert_eq!(bot.says("hi").await, "鹦鹉：hi", "new messages meet the new plugin");
    });
    assert_eq!(waited, "waited");
    live.mark_unchanged();
    assert!(old.upgrade().is_none(), "nothing keeps the old chain");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_while_a_plugin_is_replaced_ten_times() {
    let bot = Arc::new(Setup::new().plugin("20-echo.wasm", &ECHO).watched().start().await);
    let (stop, stopped) = watch::channel(false);
    let mut users = JoinSet::new();
    for _ in 0..4 {
        let (bot, stopped) = (bot.clone(), stopped.clone());
        users.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let reply = bot.says("hi").await;
                assert!(["hi", "鹦鹉：hi"].contains(&reply.as_str()), "{reply}");
                count += 1;
            }
            count
        });
    }
    let mut live = bot.app.follow();
    for round in 0..10 {
        let (wasm, reply) = if round % 2 == 0 { (&PARROT, "鹦鹉：hi") } else { (&ECHO, "hi") };
        rename_over(&bot, "20-echo.wasm", wasm);
        next(&mut live).await;
        assert_eq!(bot.says("hi").await, reply);
    }
    stop.send_replace(true);
    let counts = users.join_all().await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

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

/// A plugin with 72 pages of 64 KiB, which is 4.5 MiB.
fn large() -> Vec<u8> {
    from_wat(
        r#"(memory $more 64)
           (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_while_it_is_compiled_is_compiled_no_longer() {
    let data = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let bot = Setup::new().settings(&settings).compiler(&gate.compiler()).watched().start().await;
    rename_over(&bot, "10-welcome.wasm", &WELCOME);
    gate.until_waited_for(1).await;
    fs::remove_file(bot.plugin_file("10-welcome.wasm")).unwrap();
    // The turn is free for the next.
    rename_over(&bot, "20-echo.wasm", &ECHO);
    gate.until_waited_for(2).await;
    gate.open();
    bot.until(|live| names(live) == ["echo"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_content_are_compiled_and_loaded_once() {
    let data = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    gate.open();
    let bot = Setup::new()
        .plugin("10-one.wasm", &ECHO)
        .plugin("20-two.wasm", &ECHO)
        .plugin("30-three.wasm", &ECHO)
        .settings(&format!("data_dir = \"{}\"", data.path().display()))
        .compiler(&gate.compiler())
        .start()
        .await;
    assert_eq!(bot.chain(), ["one", "two", "three"]);
    assert_eq!(gate.compiled(), 1);
    let plugins = &bot.app.live().named("main").unwrap().chain.plugins.clone();
    assert!(plugins.iter().all(|plugin| Arc::ptr_eq(&plugin.code, &plugins[0].code)));
}

#[tokio::test]
async fn a_file_that_does_not_compile_is_not_compiled_again_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    gate.open();
    let start = async |more: &str| {
        let log = Log::capture();
        let setup = Setup::new().plugin("10-half.wasm", &PARROT[..PARROT.len() / 2]).plugin("20-echo.wasm", &ECHO);
        let settings = format!("data_dir = \"{}\"\n{more}", data.path().display());
        let bot = setup.settings(&settings).compiler(&gate.compiler()).start().await;
        assert_eq!(bot.chain(), ["echo"]);
        let [line] = &log.lines("10-half.wasm is not loaded")[..] else { panic!("{:?}", log.lines("half")) };
        bot.stop().await;
        (line.clone(), gate.compiled())
    };
    let (line, compiled) = start("").await;
    assert!(line.contains("unexpected end"), "{line}");
    assert_eq!(compiled, 2);
    let (line, compiled) = start("").await;
    assert!(line.contains("unexpected end") && line.contains("known from an earlier try"), "{line}");
    assert_eq!(compiled, 2);
    // Under other limits it may come to something else.
    let (_, compiled) = start("[compile]\nmemory_mib = 2048").await;
    assert_eq!(compiled, 3);
}

/// A plugin that computes before it can be asked, as long as it may.
const THAT_NEVER_STARTS: &str = r#"(func $start (loop $again (br $again))) (start $start)
    (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_holds_up_no_look_and_no_status() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"\n[plugins.stuck.limits]\ncpu_ms = 3000", data.path().display());
    let setup = || Setup::new().settings(&settings);
    let stuck = from_wat(THAT_NEVER_STARTS);
    let bot = setup().plugin("10-stuck.wasm", &stuck).plugin("20-echo.wasm", &ECHO).start().await;
    assert!(bot.app.faults()[0].why.contains("it does not start: it computed longer than 3000 ms"));
    bot.stop().await;

    // All is compiled. It comes while the host serves:
    let bot = setup().plugin("20-echo.wasm", &ECHO).start().await;
    fs::write(bot.plugin_file("10-stuck.wasm"), &stuck).unwrap();
    assert!(bot.app.look().await.pending, "it is still tried when the look ends");
    bot.stop().await;

    // And it lies there when the host starts, which waits for it.
    let bot = setup().plugin("10-stuck.wasm", &stuck).plugin("20-echo.wasm", &ECHO).start_unloaded().await;
    let app = bot.app.clone();
    let loading = tokio::spawn(async move { app.reload().await });
    let tried = async {
        while !bot.app.metrics().contains("aviary_guests_running 1") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("it is tried");
    assert!(bot.app.troubles().await.faults.is_empty());
    assert!(!loading.is_finished());
    loading.await.unwrap();
    assert_eq!((bot.chain(), bot.app.troubles().await.faults.len()), (vec!["echo".to_owned()], 1));
}

/// Neither a time-out nor code without end is tried a second time.
#[tokio::test]
async fn a_compiler_that_does_not_end_or_writes_too_much_is_stopped_and_that_is_remembered() {
    let cases = [
        (Gate::new(), 1, &ECHO, "compiling took longer than 1 s; raise `compile.timeout_s` if the file is trusted"),
        (Gate::doing("exec cat /dev/zero"), 600, &PARROT, "its machine code has more than "),
    ];
    for (compiler, timeout_s, wasm, why) in cases {
        let log = Log::capture();
        let settings = format!("data_dir = \"data\"\n[compile]\ntimeout_s = {timeout_s}");
        let setup = Setup::new().plugin("20-bot.wasm", wasm).settings(&settings).compiler(&compiler.compiler());
        let bot = setup.start().await;
        let [told] = &log.lines("20-bot.wasm is not loaded: ")[..] else { panic!("it is told once") };
        assert!(told.contains(why), "{told}");
        let begun = format!(
            "Compiling {} ({} KiB), which may take ",
            bot.plugin_file("20-bot.wasm").display(),
            wasm.len() >> 10
        );
        assert_eq!(log.lines(&begun).len(), 1, "{begun}");
        let bot = bot.restart().await;
        assert!(bot.app.faults()[0].why.contains("known from an earlier try"), "{:?}", bot.app.faults());
        assert_eq!(compiler.compiled(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_may_have_a_larger_file_and_a_longer_compile_than_others_and_that_counts_at_once() {
    let gate = Gate::new();
    let mut large =
        from_wat(r#"(func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#);
    CustomSection { name: "padding".into(), data: vec![0; 1 << 20].into() }.append_to(&mut large);
    let setup = Setup::new().plugin("10-echo.wasm", &ECHO).plugin("20-large.wasm", &large);
    let settings = "data_dir = \"data\"\n[compile]\nfile_mib_max = 1\ntimeout_s = 1";
    let bot = setup.settings(settings).compiler(&gate.compiler()).start().await;
    let whys: Vec<String> = bot.app.faults().into_iter().map(|fault| fault.why).collect();
    assert!(whys[0].contains("compiling took longer than 1 s") && whys[1].contains("`compile.file_mib_max` allows"));

    gate.open();
    let file = bot.dir().join("aviary.toml");
    let own = "[plugins.echo]\ncompile.timeout_s = 600\n[plugins.large.compile]\nfile_mib_max = 2\ntimeout_s = 600";
    fs::write(&file, format!("{}\n{own}\n", fs::read_to_string(&file).unwrap())).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["echo", "large"], "{:?}", bot.app.faults());
}

/// It is this process that the system ends when memory is short, and that waits when messages are to be answered.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_compiler_gives_way_to_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut command =
        aviary(dir.path(), &["compile-plugin", "--class", "small", "--memory-mib", "512", "--cpu-s", "60"]);
    let mut compiler = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let id = compiler.id().expect("it waits for a file");
    // After the name in parentheses, which is the second field; the nice value is the nineteenth.
    let nice = |id: &str| -> i32 {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    let (wanted, id) = ((nice("self") + 10).min(19), id.to_string());
    let lowered = async {
        while nice(&id) != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, lowered).await.expect("its priority is lowered before it reads anything");
    assert_eq!(fs::read_to_string(format!("/proc/{id}/oom_score_adj")).unwrap(), "1000\n");
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    for (limit, value) in [("Max address space", 512 << 20), ("Max cpu time", 60), ("Max core file size", 0)] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        let soft = line[limit.len()..].split_whitespace().next().unwrap();
        assert_eq!(soft, value.to_string(), "{line}");
    }
    compiler.kill().await.unwrap();
}

/// A host with less address space than `compile.memory_mib` compiles within that.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_compiler_stays_within_the_limits_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("echo.wasm"), &*ECHO).unwrap();
    let compiler = format!("{} compile-plugin --class small --memory-mib 4096 --cpu-s 60", binary().display());
    // Its output goes through a pipe: it may write to no file.
    let line = format!("ulimit -v 1000000; {compiler} < echo.wasm | cat > code");
    let done = finish(shell(dir.path(), &line)).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(fs::metadata(dir.path().join("code")).unwrap().len() > 1_000);
}

/// As the system does where memory is short.
#[tokio::test]
async fn a_file_whose_compiler_is_killed_is_tried_three_times_and_its_operator_told_of_memory() {
    let log = Log::capture();
    let data = tempfile::tempdir().unwrap();
    let killed = Gate::doing("kill -KILL $$");
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let setup = Setup::new().plugin("20-echo.wasm", &ECHO).settings(&settings).compiler(&killed.compiler());
    let bot = setup.start().await;
    let last = "after 3 tries it is not tried again until it or the settings change, or the host is started again";
    let told = async {
        while log.lines(last).is_empty() {
            sleep(Duration::from_millis(20)).await;
            bot.app.reload().await;
        }
    };
    timeout(PATIENCE, told).await.expect("it ends");
    bot.app.reload().await;
    assert_eq!(killed.compiled(), 3);
    let why = &bot.app.faults()[0].why;
    assert!(why.contains("killed the compiler") && why.contains("48 MiB: give this machine"), "{why}");

    let bot = bot.restart().await;
    assert_eq!(killed.compiled(), 4, "there may be more memory now");
    drop(bot);
}

#[tokio::test]
async fn more_files_than_the_bound_and_near_misses_are_told() {
    let log = Log::capture();
    let bot = Setup::new()
        .plugin("10-echo.wasm", &ECHO)
        .plugin("20-parrot.wasm", &PARROT)
        .plugin("30-welcome.WASM", &WELCOME)
        .settings("plugin_files_max = 1")
        .start()
        .await;
    assert_eq!(bot.chain(), ["echo"]);
    bot.app.reload().await;
    for told in ["`plugin_files_max` is 1", "30-welcome.WASM is no plugin: its name must end with `.wasm` in small"] {
        assert_eq!(log.lines(told).len(), 1, "{told}");
    }
}

#[tokio::test]
async fn a_file_with_another_hash_than_its_table_says_is_not_loaded() {
    let log = Log::capture();
    let (echo, parrot) = (Hash::of(&ECHO), Hash::of(&PARROT));
    let settings = format!("[plugins.bot]\nsha256 = \"{echo}\"");
    let bot = Setup::new().plugin("20-bot.wasm", &ECHO).settings(&settings).start().await;
    assert_eq!(bot.says("hi").await, "hi");
    rename_over(&bot, "20-bot.wasm", &PARROT);
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "hi", "the version before it stays");
    let told = format!("20-bot.wasm is not loaded: its SHA-256 is {parrot}, but its table says `sha256 = \"{echo}\"`");
    assert_eq!(log.lines(&told).len(), 1);

    let file = bot.dir().join("aviary.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(&file, toml.replace(&echo.to_string(), &parrot.to_string())).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi", "what was refused is tried again with the new pin");

    // A pin that comes later takes nothing away that serves.
    fs::write(&file, toml).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    assert_eq!(log.lines("plugin `bot` still runs with SHA-256").len(), 1);
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

#[tokio::test]
async fn code_that_was_tampered_with_is_not_run() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let start = || Setup::new().plugin("20-echo.wasm", &ECHO).settings(&settings).start();
    start().await.stop().await;
    let cached = fs::read_dir(data.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&cached).unwrap();
    // Another plugin's code, which the engine would take without a word.
    let parrot = tempfile::tempdir().unwrap();
    let other = format!("data_dir = \"{}\"", parrot.path().display());
    Setup::new().plugin("20-echo.wasm", &PARROT).settings(&other).start().await.stop().await;
    let parrot = fs::read_dir(parrot.path().join("cache")).unwrap().next().unwrap().unwrap().path();

    for (tampered, what) in [(fs::read(parrot).unwrap(), "another's"), (whole[..whole.len() - 1].to_vec(), "cut")] {
        let log = Log::capture();
        fs::write(&cached, tampered).unwrap();
        let bot = start().await;
        assert_eq!(bot.says("hi").await, "hi", "{what}");
        assert_eq!(log.lines("is not used: it does not match its checksum").len(), 1, "{what}");
        assert_eq!(fs::read(&cached).unwrap(), whole, "{what}: compiled again");
        bot.stop().await;
    }
    // Nor is what others can write, or a link.
    let log = Log::capture();
    fs::set_permissions(&cached, fs::Permissions::from_mode(0o666)).unwrap();
    start().await.stop().await;
    let elsewhere = data.path().join("elsewhere");
    fs::rename(&cached, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &cached).unwrap();
    start().await.stop().await;
    assert_eq!(log.lines("The cached code of").len(), 2);
    let metadata = fs::symlink_metadata(&cached).unwrap();
    assert!(metadata.is_file() && metadata.permissions().mode() & 0o777 == 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_open_to_others_is_refused() {
    let setup = Setup::new().settings("data_dir = \"data\"");
    let cache = setup.path("data/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    let config = setup.config();
    let error = App::new(config, binary()).unwrap_err().to_string();
    assert!(error.contains("mode 0700"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_forgets_what_no_plugin_uses() {
    let data = tempfile::tempdir().unwrap();
    let cached = || fs::read_dir(data.path().join("cache")).unwrap().count();
    let start = async |wasm: &[u8], more: &str| {
        let settings = format!("data_dir = \"{}\"\n{more}", data.path().display());
        let bot = Setup::new().plugin("20-bot.wasm", wasm).settings(&settings).start().await;
        assert_eq!(bot.chain(), ["bot"]);
        bot.stop().await;
    };
    let keep_none = "[versions]\ncount_max = 0";
    start(&ECHO, keep_none).await;
    start(&PARROT, keep_none).await;
    assert_eq!(cached(), 2, "30 days");
    start(&PARROT, &format!("{keep_none}\n[compile]\ncache_days = 0")).await;
    assert_eq!(cached(), 1);
    // A version that is kept can be gone back to without a compile.
    start(&PARROT, "[compile]\ncache_days = 0").await;
    start(&ECHO, "[compile]\ncache_days = 0").await;
    start(&ECHO, "[compile]\ncache_days = 0").await;
    assert_eq!(cached(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_half_written_is_removed() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let start = || Setup::new().plugin("20-echo.wasm", &ECHO).settings(&settings).start();
    start().await.stop().await;
    let half = data.path().join("cache/.tmpKilled.partial");
    fs::write(&half, "half of some code").unwrap();
    let bot = start().await;
    assert!(!half.exists());
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_compile_again() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"", data.path().display());
    let start = || Setup::new().plugin("20-echo.wasm", &ECHO).settings(&settings).start();
    start().await.stop().await;
    let cached = fs::read_dir(data.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    let written = fs::metadata(&cached).unwrap().ino();
    let bot = start().await;
    assert_eq!(bot.says("hi").await, "hi");
    assert_eq!(fs::metadata(&cached).unwrap().ino(), written);
    bot.stop().await;

    // Spoiled code is noticed, and made again from the plugin itself.
    fs::write(&cached, b"spoiled").unwrap();
    let bot = start().await;
    assert_eq!(bot.says("hi").await, "hi");
    assert!(fs::metadata(&cached).unwrap().len() > 1_000);
}
