//! Which plugin answers, and what happens when one fails.

use crate::{
    bot::Setup,
    plugins::{ECHO, FALLBACK, MISBEHAVE, WELCOME},
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
async fn misbehaving() -> crate::bot::Bot {
    Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-echo.wasm", &ECHO)
        .settings("[plugins.misbehave.limits]\ncpu_ms = 100\nmemory_mib = 8")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_is_skipped_and_the_next_one_answers() {
    let bot = misbehaving().await;
    for order in
        ["trap", "panic", "recurse", "loop forever", "grow 64", "fail on purpose", "exit 1", "empty", "no media", "news 0"]
    {
        assert_eq!(bot.says(order).await, order, "the echo answers `{order}`");
        assert_eq!(bot.says("say still there").await, "still there", "after `{order}`");
    }
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
