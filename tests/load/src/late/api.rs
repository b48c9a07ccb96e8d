//! WeChat's API, as far as late replies need it, on this machine.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use axum::{Router, extract::Request};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};

use super::PATIENCE;

/// WeChat's API, as far as late replies need it.
pub(super) struct Api {
    pub address: SocketAddr,
    /// How often each user was sent something.
    sent: Arc<Mutex<HashMap<String, usize>>>,
    changed: watch::Sender<usize>,
    _serving: JoinSet<()>,
}

impl Api {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sent, changed) = (Arc::<Mutex<HashMap<_, _>>>::default(), watch::Sender::new(0));
        let router = Router::new().fallback({
            let (sent, changed) = (sent.clone(), changed.clone());
            async move |request: Request| answer(request, &sent, &changed).await.to_string()
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { _ = axum::serve(listener, router).await });
        Ok(Self { address, sent, changed, _serving: serving })
    }

    /// Waits until so many users were sent something.
    pub async fn until_sent(&self, users: usize) -> anyhow::Result<()> {
        let mut changed = self.changed.subscribe();
        let all = timeout(PATIENCE, changed.wait_for(|count| *count >= users)).await;
        all.with_context(|| format!("{} of {users} late replies came", *self.changed.borrow()))??;
        Ok(())
    }

    pub fn each_once(&self, users: usize) -> anyhow::Result<()> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = sent.values().filter(|count| **count > 1).count();
        ensure!(
            sent.len() == users && twice == 0,
            "{} of {users} users got a late reply, {twice} of them twice",
            sent.len()
        );
        Ok(())
    }
}

async fn answer(
    request: Request,
    sent: &Mutex<HashMap<String, usize>>,
    changed: &watch::Sender<usize>,
) -> serde_json::Value {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    match path.as_str() {
        "/cgi-bin/stable_token" => serde_json::json!({ "access_token": "load", "expires_in": 7_200 }),
        "/cgi-bin/message/custom/send" => {
            let message: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let user = message["touser"].as_str().unwrap_or_default().to_owned();
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            *sent.entry(user).or_default() += 1;
            changed.send_replace(sent.len());
            serde_json::json!({ "errcode": 0, "errmsg": "ok" })
        }
        _ => serde_json::json!({ "errcode": 0, "errmsg": "ok" }),
    }
}
