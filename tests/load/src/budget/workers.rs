//! How the host scales: the same messages through the webhook in process, with one worker thread and with two. Beside it the
//! native handler's work, which shares nothing: what the machine's second core is worth.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use aviary_host::{app::App, webhook};
use axum::{
    body::Body,
    extract::{Request, State},
};
use http_body_util::BodyExt;
use tokio::{runtime::Builder, task::JoinSet};

use super::{Bench, Budget, Line, in_process};
use crate::{
    account::Mode,
    bot::Bot,
    generator::Failures,
    native,
    wechat::{Push, WeChat, now_s},
};

/// Messages per second with two workers, as a multiple of those with one.
const SCALING: Budget = Budget::AtLeast(1.8);

/// How many messages one measurement sends. They are signed before the clock runs.
const MESSAGES: usize = 40_000;

/// How many of them are under way at once.
const AT_ONCE: usize = 16;

/// What was answered: the push and the answer's body.
type Answered = (Push, Vec<u8>);

/// Whose work is measured.
#[derive(Clone)]
enum Work {
    Host(Arc<Bot>),
    /// Verifies, parses and writes, and nothing else.
    Native,
}

/// Who does it, in this process.
#[derive(Clone)]
enum Handler {
    Host(Arc<App>),
    Native,
}

/// Measures both in turns.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let bot = Work::Host(Arc::new(bench.echo()?));
    let (mut host, mut native) = (Vec::new(), Vec::new());
    for round in 1..=bench.run.rounds {
        eprintln!("round {round} of {}: two workers against one", bench.run.rounds);
        host.push(scaling(bench, &bot).await?);
        native.push(scaling(bench, &Work::Native).await?);
    }
    Ok(vec![
        Line::of_rounds("two workers against one, in process", &host, "×", Some(SCALING)),
        Line::of_rounds("  the native handler's verify, parse and write", &native, "×", None),
    ])
}

/// How many times as fast as one two workers are.
async fn scaling(bench: &mut Bench<'_>, work: &Work) -> anyhow::Result<f64> {
    let [one, two] = [seconds(bench, work, 1).await?, seconds(bench, work, 2).await?];
    Ok(one / two)
}

/// Sends the messages with so many workers, and returns how long they took.
async fn seconds(bench: &mut Bench<'_>, work: &Work, workers: usize) -> anyhow::Result<f64> {
    let work = work.clone();
    // A runtime of its own, with nothing but the workers that are measured.
    let (elapsed, failures) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        // As in the host's own.
        let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().event_interval(16).build()?;
        runtime.block_on(async {
            let handler = match &work {
                Work::Host(bot) => Handler::Host(in_process::load(bot).await?),
                Work::Native => Handler::Native,
            };
            let wechat = WeChat::new(Mode::Plain);
            let warm_up = send(&handler, pushes(&wechat, MESSAGES / 10)).await?.1;
            let (elapsed, answered) = send(&handler, pushes(&wechat, MESSAGES)).await?;
            Ok((elapsed, judge(&wechat, warm_up.iter().chain(&answered))))
        })
    })
    .await??;
    bench.failures.merge(failures);
    Ok(elapsed.as_secs_f64())
}

/// Messages for each of the tasks that send.
fn pushes(wechat: &WeChat, count: usize) -> Vec<Vec<Push>> {
    let now_s = now_s();
    (0..AT_ONCE).map(|_| (0..count / AT_ONCE).map(|_| wechat.push(now_s)).collect()).collect()
}

/// Sends each list one after another, all lists at once.
async fn send(handler: &Handler, lists: Vec<Vec<Push>>) -> anyhow::Result<(Duration, Vec<Answered>)> {
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for list in lists {
        let handler = handler.clone();
        senders.spawn(async move {
            let mut answered = Vec::with_capacity(list.len());
            for push in list {
                let body = handler.answer(&push).await?;
                answered.push((push, body));
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = Vec::new();
    while let Some(list) = senders.join_next().await {
        answered.extend(list.context("a sender failed")??);
    }
    Ok((start.elapsed(), answered))
}

impl Handler {
    async fn answer(&self, push: &Push) -> anyhow::Result<Vec<u8>> {
        let (query, body) = push.query_and_body();
        match self {
            Self::Host(app) => {
                let request = Request::post(format!("/?{query}")).body(Body::from(body.to_owned()))?;
                let response = webhook::handle(State(app.clone()), request).await;
                Ok(response.into_body().collect().await?.to_bytes().into())
            }
            Self::Native => {
                let answer = native::answer(Mode::Plain, query, body.as_bytes());
                Ok(answer.map_err(|status| anyhow!("the native handler answered {status}"))?.into_bytes())
            }
        }
    }
}

fn judge<'a>(wechat: &WeChat, answered: impl Iterator<Item = &'a Answered>) -> Failures {
    let mut failures = Failures::default();
    for (push, body) in answered {
        match wechat.read(push, body) {
            Ok(content) if content == push.text => {}
            Ok(content) => failures.add(format!("{:?} was answered with {content:?}", push.text)),
            Err(error) => failures.add(error),
        }
    }
    failures
}
