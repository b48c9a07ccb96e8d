//! Shows a user that the bot is typing, while they wait for a customer-service message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tracing::debug;

use crate::{app::Serving, exchange::Exchange, plugin::question::Question};

/// How long WeChat shows it.
const SHOWN: Duration = Duration::from_secs(15);

/// How often: WeChat takes it within 30 s of the user's message.
const TIMES: u32 = 2;

/// How long one call may take.
const TAKES_MAX: Duration = Duration::from_secs(5);

/// Shows it until the call is over.
pub fn show(serving: &Serving, question: &Question, exchange: &Arc<Exchange>) {
    let Some(api) = serving.api.clone() else { return };
    let (openid, exchange) = (question.message.from_user.clone(), exchange.clone());
    tokio::spawn(async move {
        for _ in 0..TIMES {
            if let Err(error) = api.typing(&openid, true, Instant::now() + TAKES_MAX).await {
                debug!("A user was not shown that the bot is typing: {error}");
            }
            if timeout(SHOWN, exchange.over()).await.is_ok() {
                return;
            }
        }
    });
}
