//! Plugins and settings change while the host serves.

mod compiled;
mod settings;

use std::{fs, sync::Arc};

use aviary_host::{
    app::Live,
    plugin::{
        Hash,
        engine::Engine,
        loader::Loader,
        services::Services,
        set::{Fault, Patience, Set},
    },
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, names},
    compiler::Gate,
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT, WELCOME, from_wat},
};

/// Waits for the next change of what serves.
async fn next(live: &mut watch::Receiver<Arc<Live>>) {
    timeout(PATIENCE, live.changed()).await.expect("it is noticed").expect("the host is there");
}

/// A plugin with 72 pages of 64 KiB, which is 4.5 MiB.
fn large() -> Vec<u8> {
    from_wat(
        r#"(memory $more 64)
           (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#,
    )
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
