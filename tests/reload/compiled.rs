//! What is compiled, and by whom; and what is kept of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use aviary_host::app::App;
use tokio::time::{sleep, timeout};
use wasm_encoder::{CustomSection, Section};

use super::rename_over;
use crate::{
    bot::{PATIENCE, Setup, binary, names},
    compiler::Gate,
    log::Log,
    plugins::{ECHO, PARROT, WELCOME, from_wat},
    process::{aviary, finish, shell},
};

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
