//! Load: many connections that send WeChat's messages and judge every answer.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::timeout,
};

use crate::{
    http::{Connection, Response},
    latencies::Latencies,
    reload::Flock,
    wechat::{Push, WeChat, now_s},
};

/// How long the last answers may take after the end of a run; the host answers within 4.5 s.
const GRACE: Duration = Duration::from_secs(10);

/// How long a server may take until it echoes: the host compiles its plugins in this time.
const READY_MAX: Duration = Duration::from_secs(60);

/// The most messages of one run: a latency each is kept.
const MESSAGES_MAX: usize = 8_000_000;

/// How many failures are told in full.
const EXAMPLES_MAX: usize = 5;

/// One run of load.
#[derive(Clone, Debug)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub connect: Connect,
    pub pace: Pace,
    pub duration: Duration,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// When connections are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Before the run.
    Once,
    /// For each message, when its turn has come: what servers want that hang up after an answer.
    PerMessage,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The next as soon as the last is answered.
    Saturated,
    /// At fixed times, whatever the answers do. A latency counts from the time its message was to be sent, so that a
    /// slow answer delays what stands behind it in the figures, too.
    Offered { per_second: u32 },
}

/// What messages say, and which answers are right.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A text of its own each, and that text.
    Echo,
    /// A text of its own each, and what the plugin says that is in place.
    Flock(Arc<Flock>),
    /// All say the one, and are answered the other; nothing: whatever comes, also `success`.
    Words { said: Arc<str>, heard: Option<&'static str> },
    /// No message, but a visitor's request for a page, always the same.
    Page { request: Arc<str>, body: &'static str },
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Of the right answers.
    pub latencies: Latencies,
    pub failures: Failures,
    pub elapsed: Duration,
}

/// What went wrong: how often, and the first few in words.
#[derive(Debug, Default)]
pub struct Failures {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Load {
    /// A run of `duration` against a server, over connections that stay.
    pub fn new(address: SocketAddr, connections: u16, pace: Pace, duration: Duration) -> Self {
        Self { address, connections: connections.into(), connect: Connect::Once, pace, duration, stop: Arc::default() }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return formatter.write_str("Every answer was right.");
        }
        write!(formatter, "{} failures, so the figures do not count:", self.count)?;
        self.examples.iter().try_for_each(|example| write!(formatter, "\n  {example}"))
    }
}

impl Failures {
    /// Adds one.
    pub fn add(&mut self, failure: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(failure);
        }
    }

    /// Adds another run's or connection's.
    pub fn merge(&mut self, others: Self) {
        self.count += others.count;
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(others.examples.into_iter().take(room));
    }
}

/// Waits until a server gives this page. The host holds a visitor until its plugins are loaded.
pub async fn await_page(address: SocketAddr, request: &str, body: &str) -> anyhow::Result<()> {
    let given = async {
        let mut connection = Connection::open(address).await?;
        judge_page(&connection.exchange(request).await?, body)
    };
    timeout(READY_MAX, given).await.with_context(|| format!("no page within {READY_MAX:?}"))?
}

fn judge_page(response: &Response<'_>, body: &str) -> anyhow::Result<()> {
    ensure!(response.status == 200, "a visitor was answered with status {}", response.status);
    ensure!(response.body == body.as_bytes(), "a visitor got another page");
    Ok(())
}

/// Waits until a server echoes.
pub async fn await_ready(address: SocketAddr, wechat: &WeChat) -> anyhow::Result<()> {
    let echoed = async {
        let mut connection = Connection::open(address).await?;
        loop {
            // The host holds a message until its plugins are loaded, but not longer than WeChat waits.
            let push = wechat.push(now_s());
            let response = connection.exchange(&push.request).await?;
            if response.status != 200 {
                bail!("the first message was answered with status {}", response.status);
            }
            if response.body != b"success" {
                return wechat.read(&push, response.body).map(drop).map_err(anyhow::Error::msg);
            }
        }
    };
    timeout(READY_MAX, echoed).await.with_context(|| format!("no echo within {READY_MAX:?}"))?
}

/// Sees that a server refuses what WeChat did not sign: one that believes everybody has less to do.
pub async fn expect_refusal(address: SocketAddr, wechat: &WeChat) -> anyhow::Result<()> {
    let forged = wechat.push(now_s()).request.replacen("&nonce=", "&nonce=1", 1);
    let refused = async {
        let status = Connection::open(address).await?.exchange(&forged).await?.status;
        ensure!((400..500).contains(&status), "a forged message was answered with status {status}");
        Ok(())
    };
    timeout(READY_MAX, refused).await.with_context(|| format!("no refusal within {READY_MAX:?}"))?
}

/// Runs a load to its end, or to its last answer if that comes later.
pub async fn run(load: &Load, wechat: &Arc<WeChat>, expected: &Expected) -> Tally {
    let mut tally = Tally::default();
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        match load.connect {
            Connect::PerMessage => connections.push(None),
            Connect::Once => match Connection::open(load.address).await {
                Ok(connection) => connections.push(Some(connection)),
                Err(error) => tally.failures.add(format!("{error:#}")),
            },
        }
    }
    let start = Instant::now();
    let mut driven = JoinSet::new();
    for (connection, turns) in connections.into_iter().zip(turns(load, start)) {
        driven.spawn(drive(connection, load.clone(), turns, wechat.clone(), expected.clone()));
    }
    let all = async {
        while let Some(one) = driven.join_next().await {
            match one {
                Ok(one) => tally.merge(one),
                Err(error) => tally.failures.add(format!("a connection's task failed: {error}")),
            }
        }
    };
    if timeout(load.duration + GRACE, all).await.is_err() {
        tally.failures.add(format!("{} connections still waited {GRACE:?} after the end", driven.len()));
    }
    tally.elapsed = start.elapsed();
    tally
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.latencies.merge(other.latencies);
        self.failures.merge(other.failures);
    }
}

/// Sends what is to be sent on one connection at a time. A failure costs its connection; the next message goes out on a new one.
async fn drive(
    mut open: Option<Connection>,
    load: Load,
    mut turns: Turns,
    wechat: Arc<WeChat>,
    expected: Expected,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        // Before its turn comes, so that making it is in no latency.
        let push = match &expected {
            Expected::Echo | Expected::Flock(_) => wechat.push(now_s()),
            Expected::Words { said, .. } => wechat.say(now_s(), said),
            Expected::Page { request, .. } => Push::of_visitor(request),
        };
        let Some(intended) = turns.next().await else { return tally };
        let opened = match open.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(load.address).await,
        };
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                tally.failures.add(format!("{error:#}"));
                return tally;
            }
        };
        match tell(&mut connection, &push, &wechat, &expected).await {
            Ok(()) => {
                tally.latencies.add(intended.elapsed());
                open = (load.connect == Connect::Once).then_some(connection);
            }
            Err(error) => tally.failures.add(format!("{error:#}")),
        }
    }
}

/// Sends one message and judges the answer.
async fn tell(connection: &mut Connection, push: &Push, wechat: &WeChat, expected: &Expected) -> anyhow::Result<()> {
    let generation = match expected {
        Expected::Flock(flock) => flock.newest_heard(),
        Expected::Echo | Expected::Words { .. } | Expected::Page { .. } => 0,
    };
    let response = connection.exchange(&push.request).await?;
    if let Expected::Page { body, .. } = expected {
        return judge_page(&response, body);
    }
    if response.status != 200 {
        bail!("a message was answered with status {}", response.status);
    }
    let content = || wechat.read(push, response.body).map_err(anyhow::Error::msg);
    let (right, content) = match expected {
        Expected::Echo => (push.text.as_str(), content()?),
        Expected::Words { heard: Some(heard), .. } => (*heard, content()?),
        Expected::Words { heard: None, .. } | Expected::Page { .. } => return Ok(()),
        Expected::Flock(flock) => {
            return flock.hear(generation, &push.text, &content()?).map_err(anyhow::Error::msg);
        }
    };
    ensure!(content == right, "{:?} was answered with {content:?}", push.text);
    Ok(())
}

/// When a connection sends.
enum Turns {
    Now { end: Instant, left: usize, stop: Arc<AtomicBool> },
    At(UnboundedReceiver<Instant>),
}

impl Turns {
    /// Waits for the next turn and returns when it was to be.
    async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Now { end, left, stop } => {
                *left = left.checked_sub(1)?;
                let now = Instant::now();
                (now < *end && !stop.load(Ordering::Relaxed)).then_some(now)
            }
            Self::At(turns) => turns.recv().await,
        }
    }
}

fn turns(load: &Load, start: Instant) -> Vec<Turns> {
    match load.pace {
        Pace::Saturated => {
            let left = MESSAGES_MAX / load.connections;
            let turn = || Turns::Now { end: start + load.duration, left, stop: load.stop.clone() };
            (0..load.connections).map(|_| turn()).collect()
        }
        Pace::Offered { per_second } => {
            // Bounded by the run: at most `per_second` × `duration` turns are ever sent.
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..load.connections).map(|_| unbounded_channel()).unzip();
            let (duration, stop) = (load.duration, load.stop.clone());
            thread::spawn(move || pace(&senders, per_second, start, duration, &stop));
            receivers.into_iter().map(Turns::At).collect()
        }
    }
}

/// Hands out turns, one connection after the other. On a thread of its own, since the runtime's timer only knows whole
/// milliseconds; it ends with the run.
fn pace(senders: &[UnboundedSender<Instant>], per_second: u32, start: Instant, duration: Duration, stop: &AtomicBool) {
    for (number, sender) in (0..MESSAGES_MAX).zip(senders.iter().cycle()) {
        let after = intended(number, per_second);
        if after >= duration || stop.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep((start + after).saturating_duration_since(Instant::now()));
        if sender.send(start + after).is_err() && senders.iter().all(UnboundedSender::is_closed) {
            return;
        }
    }
}

/// How long after the start a message is to be sent.
fn intended(number: usize, per_second: u32) -> Duration {
    let nanos = number as u128 * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::Bytes,
        extract::RawQuery,
        http::{StatusCode, header},
    };
    use tokio::net::TcpListener;

    use super::*;
    use crate::{account::Mode, native};

    async fn serve(router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// An echo that hangs up after every answer.
    fn hangs_up() -> Router {
        Router::new().fallback(|RawQuery(query): RawQuery, body: Bytes| async move {
            let close = [(header::CONNECTION, "close")];
            match native::answer(Mode::Plain, &query.unwrap_or_default(), &body) {
                Ok(xml) => (StatusCode::OK, close, xml),
                Err(status) => (status, close, String::new()),
            }
        })
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_connected_to_for_each_message() {
        let address = serve(hangs_up()).await;
        let once = Load::new(address, 2, Pace::Offered { per_second: 1_000 }, Duration::from_millis(20));
        let per_message = Load { connect: Connect::PerMessage, ..once.clone() };
        let wechat = Arc::new(WeChat::new(Mode::Plain));
        let tally = run(&per_message, &wechat, &Expected::Echo).await;
        assert_eq!((tally.latencies.count(), tally.failures.count), (20, 0), "{}", tally.failures);
        assert_ne!(run(&once, &wechat, &Expected::Echo).await.failures.count, 0);
    }

    #[tokio::test]
    async fn a_server_that_believes_everybody_is_not_measured() {
        let wechat = WeChat::new(Mode::Plain);
        expect_refusal(serve(hangs_up()).await, &wechat).await.unwrap();
        let believes = Router::new().fallback(|| async { "success" });
        let error = expect_refusal(serve(believes).await, &wechat).await.unwrap_err();
        assert_eq!(error.to_string(), "a forged message was answered with status 200");
    }

    #[test]
    fn messages_are_offered_evenly() {
        assert_eq!(intended(0, 2_000), Duration::ZERO);
        assert_eq!(intended(1, 2_000), Duration::from_micros(500));
        assert_eq!(intended(2_000, 2_000), Duration::from_secs(1));
        assert_eq!(intended(1, 3), Duration::from_nanos(333_333_333));
    }

    #[test]
    fn the_first_failures_are_told_and_all_are_counted() {
        let mut failures = Failures::default();
        for number in 0..4 {
            failures.add(number.to_string());
        }
        let mut others = Failures::default();
        for number in 4..9 {
            others.add(number.to_string());
        }
        failures.merge(others);
        assert_eq!(failures.count, 9);
        assert_eq!(failures.to_string(), "9 failures, so the figures do not count:\n  0\n  1\n  2\n  3\n  4");
        assert_eq!(Failures::default().to_string(), "Every answer was right.");
    }

    #[tokio::test]
    async fn every_connection_gets_its_share_of_an_offered_rate() {
        let pace = Pace::Offered { per_second: 1_000 };
        let load = Load::new(SocketAddr::from(([127, 0, 0, 1], 0)), 4, pace, Duration::from_millis(20));
        let mut shares = Vec::new();
        for mut turns in turns(&load, Instant::now()) {
            let mut share = 0;
            while turns.next().await.is_some() {
                share += 1;
            }
            shares.push(share);
        }
        assert_eq!(shares, [5, 5, 5, 5]);
    }
}
