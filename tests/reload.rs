//! Plugins and settings change while the host serves.

use std::fs;

use crate::{
    bot::{Setup, names},
    plugins::{ECHO, PARROT, WELCOME},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_dropped_replaced_and_removed_is_followed() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).watched().start().await;
    assert_eq!(bot.chain(), ["echo"]);

    fs::write(bot.plugin_file("10-welcome.wasm"), &*WELCOME).unwrap();
    bot.until(|live| names(live) == ["welcome", "echo"]).await;
    assert_eq!(bot.says("[subscribe]").await, "感谢您的关注!");

    let mut live = bot.app.follow();
    live.mark_unchanged();
    fs::write(bot.dir().join("new.wasm"), &*PARROT).unwrap();
    fs::rename(bot.dir().join("new.wasm"), bot.plugin_file("20-echo.wasm")).unwrap();
    live.changed().await.unwrap();
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");

    fs::remove_file(bot.plugin_file("20-echo.wasm")).unwrap();
    bot.until(|live| names(live) == ["welcome"]).await;
    assert_eq!(bot.says("hi").await, "");
}
