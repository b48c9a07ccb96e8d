//! The admin listener: what the operator's own tools ask, apart from what WeChat calls.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all that is counted, in the format of OpenMetrics, for Prometheus |
//! | `/healthz` | 200 as long as the process can answer anything: otherwise restart it |
//! | `/readyz` | 200 while messages are answered, 503 with the reason while plugins are loaded or the host stops |

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper_util::{server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::net::TcpListener;

use crate::{app::App, config, server};

/// How many connections may be open at once: a scraper, a load balancer and a few people.
const CONNECTIONS_MAX: usize = 64;

/// What Prometheus knows the format by.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until it is dropped: a host that stops still says so.
pub async fn run(app: Arc<App>, listener: TcpListener) {
    let public = app.live().config.listener.clone();
    let settings = config::Listener { connections_max: CONNECTIONS_MAX, ..public };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(readyz))
        .with_state(app);
    server::accept(&listener, &settings, &TowerToHyperService::new(router), &GracefulShutdown::new()).await;
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], app.metrics())
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    match app.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
