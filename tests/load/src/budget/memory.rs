//! What the host holds of the machine's memory after minutes of ordinary work.

use std::{sync::Arc, time::Duration};

use super::{Bench, Budget, Line};
use crate::{
    account::Mode,
    bot::{Bot, Plugins},
    generator::{self, Expected, Load, Pace},
    wechat::WeChat,
};

/// The most that was ever resident, in MiB.
const RESIDENT: Budget = Budget::AtMost(48.0);

/// Messages per second.
const RATE: u32 = 1_000;

/// Measures the three bundled plugins.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let seconds = bench.run.budget.memory_seconds;
    eprintln!("resident memory, {seconds} s");
    let bot = Bot::new(&bench.host, Plugins::Bundled, Mode::Plain, &bench.run.log)?;
    let wechat = Arc::new(WeChat::new(Mode::Plain));
    let server = bench.serve(&bot, &wechat).await?;
    let pace = Pace::Offered { per_second: RATE };
    let load = Load::new(server.address, bench.run.connections, pace, Duration::from_secs(seconds));
    let tally = generator::run(&load, &wechat, &Expected::Echo).await;
    bench.failures.merge(tally.failures);
    let memory = server.memory()?;
    Ok(vec![Line {
        what: format!("resident at most, {RATE}/s for {seconds} s"),
        figure: Ok(memory.peak_mib),
        unit: "MiB",
        budget: Some(RESIDENT),
        note: format!("at the end: {:.1} MiB", memory.resident_mib),
    }])
}
