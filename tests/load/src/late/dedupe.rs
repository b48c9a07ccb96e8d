//! What recognising a message costs, without the rest of the message: the claim, what is told, and what is remembered.

use std::time::{Duration, Instant};

use anyhow::bail;
use aviary_host::{
    dedupe::{Claim, Dedupe, Key},
    plugin::question::Question,
};
use aviary_wechat::xml;

use crate::{
    account::Mode,
    server_process::own_cpu,
    wechat::{WeChat, now_s},
};

/// How many messages are remembered, as `dedupe.keys_max` and `signature_max_age_s` have it by default.
const KEYS_MAX: usize = 1_000_000;
const LIFETIME: Duration = Duration::from_secs(630);

/// How many messages are claimed.
const MESSAGES: usize = 20_000;

/// Claims messages and ends them as the host does. Returns the CPU time of each, in µs.
pub(super) async fn cost_us() -> anyhow::Result<f64> {
    let (wechat, dedupe) = (WeChat::new(Mode::Plain), Dedupe::new(KEYS_MAX, LIFETIME));
    let mut messages = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        let push = wechat.push(now_s());
        let (_, body) = push.query_and_body();
        let question = Question::read("main", body.to_owned())?;
        messages.push((question, xml::parse(body.as_bytes())?, format!("{number:040x}")));
    }
    let before = own_cpu();
    for (question, root, signature) in &messages {
        let key = Key::of(&question.message, root);
        let Claim::First(slot, tried) = dedupe.claim(key, Some(signature), Instant::now(), Duration::ZERO) else {
            bail!("a new message was taken for an old one");
        };
        slot.publish(None);
        tried.outcome().await;
        drop(tried);
        dedupe.settle(&key);
    }
    Ok(super::micros(own_cpu() - before, MESSAGES))
}
