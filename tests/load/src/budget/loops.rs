//! What others notice of guests that compute and never return.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{Bench, Budget, Line, ms};
use crate::{
    account::Mode,
    binaries,
    generator::{self, Expected, Load, Pace},
    server_process::ServerProcess,
    wechat::WeChat,
};

/// The others' p99, in ms.
const OTHERS_P99: Budget = Budget::AtMost(60.0);

/// How many guests loop at any time.
const LOOPS: u16 = 2;

/// The order that `tests/misbehave` never comes back from. When its computing time is used up, echo is asked next, if
/// there is time.
const ORDER: &str = "loop forever";

/// How long the loops run before the others are measured.
const HEAD_START: Duration = Duration::from_millis(500);

/// A loop is stopped by `limits.cpu_ms`, a second; one that ends before half of it was not run at all.
const LOOP_MIN: Duration = Duration::from_millis(500);

/// The longest run, whatever happens.
const RUN_MAX: Duration = Duration::from_secs(120);

/// However often it fails, it is asked again.
const SETTINGS: &str = r#"
[plugins.misbehave]
match = [{ type = "text", equals = "loop forever" }]
quarantine = { failures = 0, share_percent = 0 }
"#;

/// Measures echo's messages at the offered rate, with nothing beside them and beside the loops.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let misbehave = binaries::plugin("aviary-misbehave", binaries::WASIP2)?;
    let bot = bench.echo()?.with_plugin("10-misbehave.wasm", &misbehave)?.with_settings(SETTINGS)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=bench.run.rounds {
        eprintln!("round {round} of {}: {LOOPS} guests that loop", bench.run.rounds);
        let wechat = Arc::new(WeChat::new(Mode::Plain));
        let server = bench.serve(&bot, &wechat).await?;
        alone.push(bench.p99_ms(&server, &wechat).await);
        beside.push(beside_loops(bench, &server, &wechat).await);
    }
    Ok(vec![
        Line::of_rounds("p99 at the offered rate", &alone, "ms", None),
        Line::of_rounds("  beside two guests that loop for ever", &beside, "ms", Some(OTHERS_P99)),
    ])
}

async fn beside_loops(bench: &mut Bench<'_>, server: &ServerProcess, wechat: &Arc<WeChat>) -> f64 {
    let load = Load::new(server.address, LOOPS, Pace::Saturated, RUN_MAX);
    let expected = Expected::Words { said: ORDER.into(), heard: None };
    let others = async {
        sleep(HEAD_START).await;
        let p99_ms = bench.p99_ms(server, wechat).await;
        load.stop.store(true, Ordering::Relaxed);
        p99_ms
    };
    let (p99_ms, mut loops) = tokio::join!(others, generator::run(&load, wechat, &expected));
    let shortest = loops.latencies.percentile(0);
    bench.failures.merge(loops.failures);
    if shortest < LOOP_MIN {
        bench.failures.add(format!(
            "a guest that was to loop for ever came back after {:.0} ms: it is in quarantine, or was not asked",
            ms(shortest)
        ));
    }
    p99_ms
}
