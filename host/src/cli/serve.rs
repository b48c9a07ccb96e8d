//! `aviary serve`: runs a bot directory.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info};

use super::bot::CONFIG_FILE;
use crate::{
    admin,
    app::App,
    config::Config,
    control::{self, BindError, Socket},
    plugin, server,
};

/// Runs a bot directory: answers WeChat, and follows every change to its plugins and settings.
///
/// Ends on Ctrl-C or SIGTERM, after the messages in flight.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bot's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere; relative paths in them are relative to that file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Serves until the process is told to stop.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.config.unwrap_or_else(|| args.dir.join(CONFIG_FILE));
    let config = Config::load(&file)?;
    super::log::start(&config.log)?;
    // Before anyone can know that we run.
    let stop = stop_signal()?;
    let listener = bind(config.listen, "listen").await?;
    let admin = match config.admin_listen {
        Some(address) => Some(bind(address, "admin_listen").await?),
        None => None,
    };
    let app = App::new(config, &super::own_program()?)?;
    start(&app, &listener, admin)?;
    server::run(app, listener, stop).await;
    Ok(ExitCode::SUCCESS)
}

/// Binds the listener of a setting.
pub(super) async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another program using it? `{setting}` sets another"))
}

/// Tells where the bot is, answers the operator's tools, and begins to load plugins and to follow changes.
pub(super) fn start(app: &Arc<App>, listener: &TcpListener, admin: Option<TcpListener>) -> anyhow::Result<()> {
    raise_open_files();
    let address = listener.local_addr()?;
    for serving in app.live().accounts() {
        let (name, path) = (&serving.account.name, &serving.account.path);
        info!(account = %name, "Account `{name}` listens on http://{address}{path}");
    }
    if let Some(admin) = admin {
        info!("Metrics and health are on http://{}: /metrics, /healthz, /readyz", admin.local_addr()?);
        tokio::spawn(admin::run(app.clone(), admin));
    }
    open_control(app)?;
    let app = app.clone();
    tokio::spawn(async move {
        // What has to be compiled is not waited for: settings and other files are followed meanwhile.
        app.look().await;
        plugin::watch::run(app).await;
    });
    Ok(())
}

/// Answers `aviary status` and `aviary plugins`. Where no socket can be, messages are answered all the same.
fn open_control(app: &Arc<App>) -> Result<(), BindError> {
    match Socket::bind(&app.live().config.data_dir) {
        Ok(socket) => _ = tokio::spawn(control::run(app.clone(), socket)),
        Err(error @ BindError::InUse(_)) => return Err(error),
        Err(error) => error!("`aviary status` and `aviary plugins` cannot reach this host: {error}"),
    }
    Ok(())
}

/// Takes as many open files as the system lets us: it starts programs with 1,024, and every connection is one.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it cannot be raised, `listener.connections_max` connections may not fit; accepting them tells.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Done when the process is told to stop, from now on.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
