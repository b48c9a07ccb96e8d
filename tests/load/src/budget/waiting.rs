//! What others notice of a thousand guests that wait for an answer over HTTP, and what memory those leave behind.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{Bench, Budget, Line};
use crate::{
    account::Mode,
    binaries,
    bot::Bot,
    generator::{self, Expected, Load, Pace, Tally},
    server_process::ServerProcess,
    slow_server::SlowServer,
    wechat::WeChat,
};

/// The others' p99 beside them, as a multiple of the p99 alone.
const OTHERS_P99: Budget = Budget::AtMost(2.0);

/// How many guests wait at once, at least.
const WAITING: f64 = 1_000.0;

/// How many plugins they are of: one gets at most half of the host's instances.
const PLUGINS: usize = 2;

/// How long they wait: WeChat's window is not over then.
const DELAY: Duration = Duration::from_millis(3_900);

/// What a guest says that has waited.
const WAITED: &str = "200 pong";

/// What each plugin is told.
type Orders = [Arc<str>; PLUGINS];

/// Each connection begins a wait every four seconds, one after the other, so that they do not all wake up at once; and
/// there are a few more than are to wait, since between two waits a connection pauses.
const CONNECTIONS: u16 = 520;
const PER_SECOND: u32 = 130;

/// Until every connection waits.
const RAMP: Duration = Duration::from_secs(5);

/// The longest run, whatever happens.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Measures echo's messages at the offered rate, with nothing beside them and beside the guests that wait.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let slow = SlowServer::start(DELAY).await?;
    let orders = [0, 1].map(|number| format!("http http://{}/{number}", slow.address).into());
    let bot = bot(bench, &slow, &orders)?;
    let (mut ratios, mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.run.rounds {
        eprintln!("round {round} of {}: a thousand guests that wait", bench.run.rounds);
        let wechat = Arc::new(WeChat::new(Mode::Plain));
        let server = bench.serve(&bot, &wechat).await?;
        let alone_ms = bench.p99_ms(&server, &wechat).await;
        before.push(server.memory()?.resident_mib);
        let (beside_ms, resident_mib) = beside_waiting(bench, &server, &wechat, &orders).await?;
        ratios.push(beside_ms / alone_ms);
        during.push(resident_mib);
        after.push(server.memory()?.resident_mib);
    }
    Ok(vec![
        Line::of_rounds("p99 beside 1,000 guests that wait", &ratios, "×", Some(OTHERS_P99)),
        Line::of_rounds("  resident before", &before, "MiB", None),
        Line::of_rounds("  while they wait", &during, "MiB", None),
        Line::of_rounds("  afterwards", &after, "MiB", None),
    ])
}

/// Two copies of `tests/misbehave`, each of which is asked to obey its own order only.
fn bot(bench: &Bench<'_>, slow: &SlowServer, orders: &Orders) -> anyhow::Result<Bot> {
    let misbehave = binaries::plugin("aviary-misbehave", binaries::WASIP2)?;
    orders.iter().enumerate().try_fold(bench.echo()?, |bot, (number, order)| {
        let tables = format!(
            "[plugins.wait{number}]\nmatch = [{{ type = \"text\", equals = \"{order}\" }}]\n\
             [plugins.wait{number}.grants]\nhttp = [\"http://{}\"]\n",
            slow.address
        );
        bot.with_plugin(&format!("10-wait{number}.wasm"), &misbehave)?.with_settings(&tables)
    })
}

/// Returns the others' p99 in ms, and the host's memory at that time.
async fn beside_waiting(
    bench: &mut Bench<'_>,
    server: &ServerProcess,
    wechat: &Arc<WeChat>,
    orders: &Orders,
) -> anyhow::Result<(f64, f64)> {
    let pace = Pace::Offered { per_second: PER_SECOND };
    let loads = [0, 1].map(|_| Load::new(server.address, CONNECTIONS, pace, RUN_MAX));
    let others = async {
        sleep(RAMP).await;
        let p99_ms = bench.p99_ms(server, wechat).await;
        let memory = server.memory();
        loads.iter().for_each(|load| load.stop.store(true, Ordering::Relaxed));
        anyhow::Ok((p99_ms, memory?.resident_mib))
    };
    let wait = |number: usize| {
        let expected = Expected::Words { said: orders[number].clone(), heard: Some(WAITED) };
        let load = &loads[number];
        async move { generator::run(load, wechat, &expected).await }
    };
    let (figures, first, second) = tokio::join!(others, wait(0), wait(1));
    let waiting = under_way(&first) + under_way(&second);
    for tally in [first, second] {
        bench.failures.merge(tally.failures);
    }
    if waiting < WAITING {
        bench.failures.add(format!("only {waiting:.0} guests waited at once, on the average"));
    }
    figures
}

/// How many messages were under way at once, on the average of the time when all connections were in use.
fn under_way(tally: &Tally) -> f64 {
    // The first round of the connections begins, and the last one ends, little by little.
    let in_full = tally.elapsed.as_secs_f64() - f64::from(CONNECTIONS) / f64::from(PER_SECOND);
    tally.latencies.total().as_secs_f64() / in_full
}
