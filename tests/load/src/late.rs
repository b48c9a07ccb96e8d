//! Late replies: what recognising a message again costs, what the journal costs, and a thousand replies that are late at once.

use std::{
    collections::HashMap,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Router, extract::Request};
use http_body_util::BodyExt;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

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
    in_time: Vec<Wave>,
    late: Vec<Wave>,
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
        rounds.in_time.push(wave(&host, &misbehave, run, 5_000, &mut failures).await?);
        rounds.late.push(wave(&host, &misbehave, run, 100, &mut failures).await?);
    }
    println!("{rounds}");
    Ok(failures)
}

impl fmt::Display for Rounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_us, again_us, in_time, late } = self;
        let of = |waves: &[Wave], value: fn(&Wave) -> f64| median(waves.iter().map(value));
        let us = |values: &[f64]| median(values.iter().copied());
        writeln!(formatter, "CPU µs of the host per message; medians of {} rounds", first_us.len())?;
        writeln!(formatter, "  a message, echoed              {:8.1}", us(first_us))?;
        writeln!(formatter, "  the same again, from memory    {:8.1}", us(again_us))?;
        for (name, waves) in [("in its window", in_time), ("late", late)] {
            let [cpu_us, took_s, peak_mib] =
                [of(waves, |wave| wave.cpu_us), of(waves, |wave| wave.took_s), of(waves, |wave| wave.peak_mib)];
            writeln!(
                formatter,
                "  {LATE} that take {} s, {name:<13} {cpu_us:8.1}   all answered after {took_s:.2} s, {peak_mib:.0} MiB at most",
                TAKES.as_secs()
            )?;
        }
        let journal_us = of(late, |wave| wave.cpu_us) - of(in_time, |wave| wave.cpu_us);
        write!(formatter, "  so the journal and WeChat's API {journal_us:7.1}")
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

/// What came of a thousand messages at once.
#[derive(Debug)]
struct Wave {
    cpu_us: f64,
    took_s: f64,
    peak_mib: f64,
}

/// Sends [`LATE`] messages at once, and waits until each was answered, once: in its window of `window_ms`, or after it.
async fn wave(
    host: &Path,
    misbehave: &[u8],
    run: &Run,
    window_ms: u64,
    failures: &mut Failures,
) -> anyhow::Result<Wave> {
    let api = Api::start().await?;
    let bot = Bot::new(host, Plugins::Echo, Mode::Plain, &run.log)?.with_plugin("10-misbehave.wasm", misbehave)?;
    fs::write(bot.config_file(), settings(&run.log, api.address, window_ms))?;
    bot.warm_up()?;
    let server = bot.serve()?;
    let wechat = Arc::new(WeChat::new(Mode::Plain));
    generator::await_ready(server.address, &wechat).await?;

    let (before, begun) = (server.cpu()?, Instant::now());
    let put_off = ask_all(server.address, &wechat, failures).await?;
    let sent = api.until_sent(put_off).await;
    let wave = Wave {
        cpu_us: micros(server.cpu()? - before, LATE),
        took_s: begun.elapsed().as_secs_f64(),
        peak_mib: server.memory()?.peak_mib,
    };
    // Whoever is sent something twice is, soon.
    sleep(Duration::from_millis(500)).await;
    if let Err(error) = sent.and_then(|()| api.each_once(put_off)) {
        failures.add(format!("{error:#}"));
    }
    if put_off != 0 && put_off != LATE {
        eprintln!("note: {put_off} of {LATE} were late with a window of {window_ms} ms");
    }
    Ok(wave)
}

/// Sends them all, each over a connection of its own. Returns how many were put off.
async fn ask_all(address: SocketAddr, wechat: &Arc<WeChat>, failures: &mut Failures) -> anyhow::Result<usize> {
    let words: Arc<str> = format!("wait {}", TAKES.as_millis()).into();
    let mut asked = JoinSet::new();
    for _ in 0..LATE {
        let (wechat, words) = (wechat.clone(), words.clone());
        asked.spawn(async move {
            let push = wechat.say(now_s(), &words);
            let mut connection = Connection::open(address).await?;
            let response = connection.exchange(&push.request).await?;
            match response.body {
                b"success" => Ok(false),
                body => wechat.read(&push, body).map(|heard| heard == "waited").map_err(anyhow::Error::msg),
            }
        });
    }
    let mut put_off = 0;
    while let Some(answer) = asked.join_next().await {
        match answer? {
            Ok(true) => {}
            Ok(false) => put_off += 1,
            Err(error) => failures.add(format!("{error:#}")),
        }
    }
    Ok(put_off)
}

fn settings(log_level: &str, api: SocketAddr, window_ms: u64) -> String {
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
deliver = "customer-service"
window_ms = {window_ms}
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

/// WeChat's API, as far as late replies need it.
struct Api {
    address: SocketAddr,
    /// How often each user was sent something.
    sent: Arc<Mutex<HashMap<String, usize>>>,
    changed: watch::Sender<usize>,
    _serving: JoinSet<()>,
}

impl Api {
    async fn start() -> anyhow::Result<Self> {
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
    async fn until_sent(&self, users: usize) -> anyhow::Result<()> {
        let mut changed = self.changed.subscribe();
        let all = timeout(PATIENCE, changed.wait_for(|count| *count >= users)).await;
        all.with_context(|| format!("{} of {users} late replies came", *self.changed.borrow()))??;
        Ok(())
    }

    fn each_once(&self, users: usize) -> anyhow::Result<()> {
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

fn micros(time: Duration, messages: usize) -> f64 {
    time.as_secs_f64() * 1e6 / messages as f64
}
