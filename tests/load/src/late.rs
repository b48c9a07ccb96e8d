//! Late replies: what recognising a message again costs, what the journal costs, and a thousand replies that are late at once.

mod api;
mod dedupe;

use std::{
    fmt, fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{task::JoinSet, time::sleep};

use self::api::Api;
use crate::{
    Run,
    account::{APP_ID, Mode, TOKEN},
    binaries,
    bot::{Bot, Plugins},
    budget::raise_open_files,
    generator::{self, Failures},
    http::Connection,
    server_process::ServerProcess,
    table::median,
    wechat::{Push, WeChat, now_s},
};

/// How many messages are late at once.
const LATE: usize = 1_000;

/// How long each takes: longer than it takes to send them all.
const TAKES: Duration = Duration::from_secs(3);

/// By when all of them are kept: a host that had not done it by then would be too slow to be measured so, and is found out when
/// they are fetched.
const UNTIL_KEPT: Duration = Duration::from_secs(8);

/// How many messages are sent, and then sent again, to see what that costs.
const REPEATED: usize = 20_000;

/// Over how many connections.
const CONNECTIONS: usize = 16;

/// How long the last reply may take, API calls included.
const PATIENCE: Duration = Duration::from_secs(120);

/// The figures of all rounds.
#[derive(Debug, Default)]
struct Rounds {
    /// CPU of a message, in µs: echoed, and sent again.
    first_us: Vec<f64>,
    again_us: Vec<f64>,
    dedupe_us: Vec<f64>,
    in_time: Vec<Wave>,
    kept: Vec<Wave>,
    sent: Vec<Wave>,
}

/// Measures everything, in several rounds.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    raise_open_files();
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let misbehave = binaries::plugin("aviary-misbehave", binaries::WASIP2)?;
    let (mut rounds, mut failures) = (Rounds::default(), Failures::default());
    for round in 1..=run.rounds {
        eprintln!("round {round} of {}", run.rounds);
        let (first_us, again_us) = repeated(&host, run, &mut failures).await?;
        rounds.first_us.push(first_us);
        rounds.again_us.push(again_us);
        rounds.dedupe_us.push(dedupe::cost_us().await?);
        for (kind, waves) in
            [(Kind::InTime, &mut rounds.in_time), (Kind::Kept, &mut rounds.kept), (Kind::Sent, &mut rounds.sent)]
        {
            waves.push(wave(&host, &misbehave, run, kind, &mut failures).await?);
        }
    }
    println!("{rounds}");
    Ok(failures)
}

impl fmt::Display for Rounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_us, again_us, dedupe_us, in_time, kept, sent } = self;
        let of = |waves: &[Wave], value: fn(&Wave) -> f64| median(waves.iter().map(value));
        let us = |values: &[f64]| median(values.iter().copied());
        writeln!(formatter, "CPU µs of the host per message; medians of {} rounds", first_us.len())?;
        writeln!(formatter, "  a message, echoed              {:8.1}", us(first_us))?;
        writeln!(formatter, "  the same again, from memory    {:8.1}", us(again_us))?;
        writeln!(formatter, "  of that the claim and its end  {:8.1}", us(dedupe_us))?;
        for (name, waves) in [("in its window", in_time), ("kept", kept), ("sent", sent)] {
            let [cpu_us, took_s, peak_mib] =
                [of(waves, |wave| wave.cpu_us), of(waves, |wave| wave.took_s), of(waves, |wave| wave.peak_mib)];
            writeln!(
                formatter,
                "  {LATE} that take {} s, {name:<13} {cpu_us:8.1}   all answered after {took_s:.2} s, {peak_mib:.0} MiB at most",
                TAKES.as_secs()
            )?;
        }
        let [in_time_us, kept_us, sent_us] = [in_time, kept, sent].map(|waves| of(waves, |wave| wave.cpu_us));
        writeln!(formatter, "  so the journal                 {:8.1}", kept_us - in_time_us)?;
        write!(formatter, "  and WeChat's API               {:8.1}", sent_us - kept_us)
    }
}

/// Sends messages that are echoed, each on its own and then once more. Returns the CPU time of each kind, in µs.
async fn repeated(host: &Path, run: &Run, failures: &mut Failures) -> anyhow::Result<(f64, f64)> {
    let bot = Bot::new(host, Plugins::Echo, Mode::Plain, &run.log)?;
    bot.warm_up()?;
    let server = bot.serve()?;
    let wechat = Arc::new(WeChat::new(Mode::Plain));
    generator::await_ready(server.address, &wechat).await?;
    let pushes: Arc<Vec<Push>> = Arc::new((0..REPEATED).map(|_| wechat.push(now_s())).collect());
    let first = exchange_all(&server, &wechat, &pushes, failures).await?;
    let again = exchange_all(&server, &wechat, &pushes, failures).await?;
    Ok((first, again))
}

/// Sends pushes over a few connections, and judges every answer. Returns the host's CPU time for each, in µs.
async fn exchange_all(
    server: &ServerProcess,
    wechat: &Arc<WeChat>,
    pushes: &Arc<Vec<Push>>,
    failures: &mut Failures,
) -> anyhow::Result<f64> {
    let before = server.cpu()?;
    let mut connections = JoinSet::new();
    for first in 0..CONNECTIONS {
        let (mut connection, wechat, pushes) =
            (Connection::open(server.address).await?, wechat.clone(), pushes.clone());
        connections.spawn(async move {
            for push in pushes.iter().skip(first).step_by(CONNECTIONS) {
                let response = connection.exchange(&push.request).await?;
                let heard = wechat.read(push, response.body).map_err(anyhow::Error::msg)?;
                ensure!(heard == push.text, "{:?} was answered with {heard:?}", push.text);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = connections.join_next().await {
        if let Err(error) = done? {
            failures.add(format!("{error:#}"));
        }
    }
    Ok(micros(server.cpu()? - before, pushes.len()))
}

/// How a thousand replies reach their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On the connection that asked.
    InTime,
    /// Kept, and fetched later: written down, and no call of WeChat's API.
    Kept,
    /// By customer service.
    Sent,
}

/// What came of a thousand messages at once.
#[derive(Debug)]
struct Wave {
    cpu_us: f64,
    took_s: f64,
    peak_mib: f64,
}

/// Sends [`LATE`] messages at once, and waits until each was answered, once.
async fn wave(host: &Path, misbehave: &[u8], run: &Run, kind: Kind, failures: &mut Failures) -> anyhow::Result<Wave> {
    let api = Api::start().await?;
    let bot = Bot::new(host, Plugins::Echo, Mode::Plain, &run.log)?.with_plugin("10-misbehave.wasm", misbehave)?;
    fs::write(bot.config_file(), settings(&run.log, api.address, kind))?;
    bot.warm_up()?;
    let server = bot.serve()?;
    let wechat = Arc::new(WeChat::new(Mode::Plain));
    generator::await_ready(server.address, &wechat).await?;

    let (before, begun) = (server.cpu()?, Instant::now());
    let put_off = ask_all(server.address, &wechat, failures).await?;
    let delivered = match kind {
        Kind::Kept => {
            sleep(UNTIL_KEPT.saturating_sub(begun.elapsed())).await;
            Ok(())
        }
        Kind::InTime | Kind::Sent => api.until_sent(put_off.len()).await,
    };
    let wave = Wave {
        cpu_us: micros(server.cpu()? - before, LATE),
        took_s: begun.elapsed().as_secs_f64(),
        peak_mib: server.memory()?.peak_mib,
    };
    // Whoever is sent something twice is, soon.
    sleep(Duration::from_millis(500)).await;
    let judged = match kind {
        Kind::Kept => fetch_all(server.address, &wechat, &put_off).await,
        Kind::InTime | Kind::Sent => delivered.and_then(|()| api.each_once(put_off.len())),
    };
    if let Err(error) = judged {
        failures.add(format!("{error:#}"));
    }
    let late = if kind == Kind::InTime { 0 } else { LATE };
    if put_off.len() != late {
        eprintln!("note: {} of {LATE} were late, where {late} should be", put_off.len());
    }
    Ok(wave)
}

/// Lets every user who was put off send the fetch word.
async fn fetch_all(address: SocketAddr, wechat: &WeChat, put_off: &[Push]) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    for push in put_off {
        let fetch = wechat.say_as(push, now_s(), "继续");
        let response = connection.exchange(&fetch.request).await?;
        let heard = wechat.read(&fetch, response.body).map_err(anyhow::Error::msg)?;
        ensure!(heard == "waited", "{heard:?} was kept for a user, not their reply");
    }
    Ok(())
}

/// Sends them all, each over a connection of its own. Returns those that were put off.
async fn ask_all(address: SocketAddr, wechat: &Arc<WeChat>, failures: &mut Failures) -> anyhow::Result<Vec<Push>> {
    let words: Arc<str> = format!("wait {}", TAKES.as_millis()).into();
    let mut asked = JoinSet::new();
    for _ in 0..LATE {
        let (wechat, words) = (wechat.clone(), words.clone());
        asked.spawn(async move {
            let push = wechat.say(now_s(), &words);
            let mut connection = Connection::open(address).await?;
            let response = connection.exchange(&push.request).await?;
            let is_there = match response.body {
                b"success" => false,
                body => wechat.read(&push, body).map_err(anyhow::Error::msg)? == "waited",
            };
            anyhow::Ok((!is_there).then_some(push))
        });
    }
    let mut put_off = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer? {
            Ok(late) => put_off.extend(late),
            Err(error) => failures.add(format!("{error:#}")),
        }
    }
    Ok(put_off)
}

fn settings(log_level: &str, api: SocketAddr, kind: Kind) -> String {
    let (deliver, window_ms) = match kind {
        Kind::InTime => ("customer-service", 5_000),
        Kind::Kept => ("next-try", 100),
        Kind::Sent => ("customer-service", 100),
    };
    format!(
        r#"
listen = "127.0.0.1:0"
admin_listen = ""
[log]
level = "{log_level},aviary_host::cli::serve=info"
[engine]
instances_max = {instances}
memory_mib = 8192
[plugins.misbehave]
match = [{{ starts_with = "wait " }}]
[late]
deliver = "{deliver}"
window_ms = {window_ms}
hold_ms = {window_ms}
[accounts.main]
token = "{TOKEN}"
app_id = "{APP_ID}"
app_secret = "0123456789abcdef0123456789abcdef"
api_base_url = "http://{api}"
"#,
        // One plugin gets half.
        instances = 2 * LATE + 200
    )
}

fn micros(time: Duration, messages: usize) -> f64 {
    time.as_secs_f64() * 1e6 / messages as f64
}
