//! Which plugin answers, and what happens when one fails.

use std::fs;

use aviary_host::{dispatch::Said, plugin::Hash};

use crate::{
    bot::{Bot, Setup},
    plugins::{ECHO, FALLBACK, MISBEHAVE, PARROT, WELCOME, from_wat, untyped},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_plugins_greet_echo_and_fall_back() {
    let bot = Setup::new()
        .plugin("10-welcome.wasm", &WELCOME)
        .plugin("20-echo.wasm", &ECHO)
        .plugin("90-fallback.wasm", &FALLBACK)
        .start()
        .await;
    assert_eq!(bot.says("[subscribe]").await, "感谢您的关注!");
    assert_eq!(bot.says("你好").await, "你好");
    assert_eq!(bot.says("[image]").await, "无法识别该消息!");
    assert_eq!(bot.says("[poi_check_notify]").await, "");
}

/// A bot whose first plugin misbehaves on demand, with the echo behind it.
async fn misbehaving() -> Bot {
    Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-echo.wasm", &ECHO)
        .settings(
            "[plugins.misbehave]\nenv = { CITY = \"北京\" }\n\
             [plugins.misbehave.quarantine]\nfailures = 0\nshare_percent = 0\n\
             [plugins.misbehave.limits]\ncpu_ms = 100\nmemory_mib = 8\nreply_bytes_max = 4096\nlog_bytes_max = 64",
        )
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_is_skipped_and_the_next_one_answers() {
    let bot = misbehaving().await;
    for (order, failure) in [
        ("trap", "trapped: wasm trap: wasm `unreachable` instruction executed"),
        ("panic", "trapped: wasm trap: wasm `unreachable` instruction executed"),
        ("exit 1", "trapped: Exited with i32 exit status 1"),
        ("recurse", "recursed too deep: its stack is used up"),
        ("loop forever", "computed longer than 100 ms (`limits.cpu_ms`)"),
        ("grow 64", "asked for more than 8 MiB of memory (`limits.memory_mib`)"),
        ("fail on purpose", "said: on purpose"),
        ("empty", "gave a reply that is not sent: "),
        ("no media", "gave a reply that is not sent: "),
        ("news 0", "gave a reply that is not sent: "),
    ] {
        let dispatch = bot.asked(order).await;
        let told = dispatch.steps[0].outcome.as_ref().unwrap_err().to_string();
        assert!(told.starts_with(failure), "`{order}` {told}");
        assert_eq!(dispatch.answered_by(), Some("echo"), "after `{order}`");
        // Over the wire it looks the same, and the plugin is as good as new.
        assert_eq!(bot.says(order).await, order);
        assert_eq!(bot.says("say still there").await, "still there", "after `{order}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_too_long_goes_out_in_parts_and_is_no_failure() {
    let bot = misbehaving().await;
    assert_eq!(bot.asked("reply 4000").await.answered_by(), Some("misbehave"));
    let first = bot.says("reply 4000").await;
    assert!(first.len() <= 2_048 && first.starts_with(&"x".repeat(2_000)), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_waits_longer_than_it_may_is_skipped() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-echo.wasm", &ECHO)
        .settings("[plugins.misbehave.limits]\ntimeout_ms = 100")
        .start()
        .await;
    let dispatch = bot.asked("wait 60000").await;
    assert_eq!(dispatch.steps[0].outcome.as_ref().unwrap_err().to_string(), "gave no answer within 100 ms");
    assert_eq!(dispatch.answered_by(), Some("echo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stops_the_chain_and_pass_does_not() {
    let bot = misbehaving().await;
    assert_eq!(bot.says("nothing").await, "");
    assert_eq!(bot.says("pass").await, "pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_meets_a_fresh_sandbox() {
    let bot = misbehaving().await;
    for _ in 0..3 {
        assert_eq!(bot.says("count").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_reach_a_plugin_as_environment_variables() {
    let bot = misbehaving().await;
    assert_eq!(bot.says("env CITY").await, "北京");
    assert_eq!(bot.says("env HOME").await, "unset");
    assert_eq!(bot.says("env PATH").await, "unset");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_prints_is_kept_up_to_its_limit() {
    let bot = misbehaving().await;
    assert_eq!(bot.asked("print 第一行").await.steps[0].output, ["第一行"]);
    let flood = format!("print {}", ".".repeat(100));
    let output = &bot.asked(&flood).await.steps[0].output;
    assert_eq!(output.len(), 2);
    assert_eq!(output[1], "(37 more bytes were dropped: `log_bytes_max` is 64)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_asked_only_when_its_rules_fit() {
    let bot = Setup::new()
        .plugin("10-parrot.wasm", &PARROT)
        .plugin("20-echo.wasm", &ECHO)
        .settings("[plugins.parrot]\nmatch = [{ starts_with = \"天气\" }, { regex = '^\\d+$' }]")
        .start()
        .await;
    assert_eq!(bot.says("天气 北京").await, "鹦鹉：天气 北京");
    assert_eq!(bot.says("42").await, "鹦鹉：42");
    assert_eq!(bot.says("你好").await, "你好");
    let dispatch = bot.asked("你好").await;
    assert_eq!(dispatch.steps.iter().map(|step| &*step.plugin).collect::<Vec<_>>(), ["echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_have_their_own_plugins_and_settings() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-echo.wasm", &ECHO)
        .file("shop/20-parrot.wasm", &*PARROT)
        .settings(
            "[plugins.misbehave]\nenv = { CITY = \"北京\", HOUR = \"8\" }\n\
             [accounts.shop]\npath = \"/shop\"\ntoken = \"testtoken\"\nplugins_dir = \"shop\"\n\
             chain = [\"misbehave\", \"parrot\"]\n\
             [accounts.shop.plugins.misbehave]\nenv = { CITY = \"上海\" }",
        )
        .account("path = \"/wx\"")
        .start()
        .await;
    assert_eq!(bot.says("env CITY").await, "北京");
    assert_eq!(bot.says("hi").await, "hi");
    let shop = bot.account("/shop");
    assert_eq!(bot.says_to(&shop, "env CITY").await, "上海");
    assert_eq!(bot.says_to(&shop, "env HOUR").await, "8");
    assert_eq!(bot.says_to(&shop, "hi").await, "鹦鹉：hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_plugin_of_one_name_is_not_asked() {
    let bot = Setup::new().plugin("10-echo.wasm", &ECHO).plugin("20-echo-2.0.wasm", &PARROT).start().await;
    assert_eq!(bot.chain(), ["echo"]);
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_without_a_type_is_taken_as_a_bot() {
    let bot = Setup::new().plugin("10-plain.wasm", &untyped(&ECHO)).start().await;
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wasip1_module_gets_its_adapter() {
    // `ok(none)` is all zeros.
    let wasip1 = from_wat(
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
           (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32)
               (drop (call $random (i32.const 2048) (i32.const 8)))
               (i32.const 1024))"#,
    );
    let bot = Setup::new().plugin("10-wasip1.wasm", &wasip1).plugin("20-echo.wasm", &ECHO).start().await;
    let dispatch = bot.asked("hi").await;
    assert!(matches!(dispatch.steps[0].outcome, Ok(Said::Passed)), "{:?}", dispatch.steps[0]);
    assert_eq!(dispatch.answered_by(), Some("echo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_plugins_are_told_and_left_out() {
    let no_handler = wat::parse_str("(component)").unwrap();
    let bot = Setup::new()
        .plugin("10-text.wasm", b"this is no WebAssembly")
        .plugin("20-half.wasm", &ECHO[..ECHO.len() / 2])
        .plugin("30-empty.wasm", b"")
        .plugin("40-no-handler.wasm", &no_handler)
        .plugin("50-compiled.cwasm", b"\x7fELF")
        .plugin("60-echo.wasm", &ECHO)
        .start()
        .await;
    assert_eq!(bot.chain(), ["echo"]);
    assert_eq!(bot.says("hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_is_kept_where_only_its_owner_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    let cache = bot.app.live().config.cache_dir.clone();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    let hash = Hash::of(&ECHO).to_string();
    let kept: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&hash))
        .collect();
    // An earlier build may have left its own there.
    assert!(!kept.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_may_import_any_release_of_wasi_0_2() {
    // A core module with its component type inside, which names the release wherever it names the interface.
    const IMPORTED: &[u8] = b"wasi:cli/environment@0.2.0";
    for release in b'0'..=b'9' {
        let mut wasm = FALLBACK.clone();
        let places: Vec<usize> =
            wasm.windows(IMPORTED.len()).enumerate().filter(|(_, name)| *name == IMPORTED).map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "it imports WASI");
        places.iter().for_each(|at| wasm[at + IMPORTED.len() - 1] = release);
        let settings = "[plugins.fallback]\nenv = { TEXT = \"听到了\" }";
        let bot = Setup::new().settings(settings).plugin("90-fallback.wasm", &wasm).start().await;
        assert_eq!(bot.says("你好").await, "听到了", "wasi:cli@0.2.{}", char::from(release));
        bot.stop().await;
    }
}
