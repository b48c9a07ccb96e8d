//! What plugins keep: across messages, restarts and crashes, and apart from each other.

use crate::{bot::Setup, plugins::MISBEHAVE};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_keeps_outlives_the_message() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .settings("[plugins.misbehave.grants]\nkv = true")
        .start()
        .await;
    assert_eq!(bot.says("kv visits").await, "1");
    assert_eq!(bot.says("kv visits").await, "2");
    assert_eq!(bot.says("my visits").await, "1");
}
