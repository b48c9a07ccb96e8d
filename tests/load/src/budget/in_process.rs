//! The host as a library in this process: everything but sockets and a log.

use std::sync::Arc;

use aviary_host::{app::App, config::Config};

use crate::bot::Bot;

/// Loads a bot and its plugins.
pub async fn load(bot: &Bot) -> anyhow::Result<Arc<App>> {
    bot.warm_up()?;
    let app = App::new(Config::load(&bot.config_file())?, bot.host())?;
    app.reload().await;
    Ok(app)
}
