//! What a message costs the host, as a multiple of what it costs the native handler in the same round.

use std::fmt::Write as _;

use super::{Bench, Budget, Line};
use crate::{
    account::Mode,
    binaries,
    bot::{Bot, Plugins},
    compare::{self, Contestant, Turn},
};

/// A message through the whole host, with one fresh sandbox.
const FRESH: Budget = Budget::AtMost(1.35);

/// What each further plugin adds that is asked and passes.
const PASSING: Budget = Budget::AtMost(0.35);

/// What all plugins together add whose `match` does not fit.
const NOT_FITTING: Budget = Budget::AtMost(0.5);

/// How many plugins pass before echo answers.
const PASSING_COUNT: u32 = 10;

/// How many plugins are not asked.
const NOT_FITTING_COUNT: u32 = 1_000;

/// Measures all five servers in turns, so that one native figure holds for all.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let host = |name, bot: Bot| -> anyhow::Result<Contestant> {
        // Nothing is to be compiled while a message is measured.
        bot.warm_up()?;
        Ok(Contestant::host(name, Mode::Plain, bot))
    };
    let mut contestants = [
        Contestant::native("native", Mode::Plain)?,
        host("echo", bench.echo()?)?,
        host("echo for wasip2", wasip2(bench)?)?,
        host("ten pass", passing(bench)?)?,
        host("a thousand do not fit", not_fitting(bench)?)?,
    ];
    compare::rounds(&mut contestants, bench.run, &mut bench.failures).await?;
    let [native, echo, wasip2, passing, not_fitting] = contestants.map(|contestant| contestant.turns);

    let mut lines = Vec::new();
    for (pace, cpu_us) in paces(bench.run.rate) {
        let each = |of: &dyn Fn([f64; 5]) -> f64| -> Vec<f64> {
            (0..native.len())
                .map(|round| of([&native, &echo, &wasip2, &passing, &not_fitting].map(|turns| cpu_us(&turns[round]))))
                .collect()
        };
        let line = |what: &str, budget, of: &dyn Fn([f64; 5]) -> f64| {
            Line::of_rounds(format!("{what}, {pace}"), &each(of), "×", budget)
        };
        lines.push(line("a message, one fresh sandbox (echo)", Some(FRESH), &|[native, echo, ..]| echo / native));
        lines.push(line("  an echo in Rust for wasip2", None, &|[native, _, wasip2, ..]| wasip2 / native));
        lines.push(line("each further plugin that passes", Some(PASSING), &|[native, echo, _, passing, _]| {
            (passing - echo) / f64::from(PASSING_COUNT) / native
        }));
        lines.push(line("1,000 plugins that do not fit", Some(NOT_FITTING), &|[native, echo, .., not_fitting]| {
            (not_fitting - echo) / native
        }));
    }
    Ok(lines)
}

/// The CPU time of a message in a turn.
pub type Cpu = fn(&Turn) -> f64;

/// Both measurements of a turn, by name.
pub fn paces(rate: u32) -> [(String, Cpu); 2] {
    [("saturated".into(), |turn| turn.saturated.cpu_us), (format!("{rate}/s"), |turn| turn.offered.cpu_us)]
}

impl Bench<'_> {
    /// A bot with echo alone.
    pub(super) fn echo(&self) -> anyhow::Result<Bot> {
        Bot::new(&self.host, Plugins::Echo, Mode::Plain, &self.run.log)
    }

    /// A bot with echo, and `count` plugins before it that are asked about pictures only: no message here is one.
    pub(super) fn crowd(&self, count: u32, file: impl Fn(u32) -> Vec<u8>) -> anyhow::Result<Bot> {
        let (mut bot, mut tables) = (self.echo()?, String::new());
        for number in 0..count {
            bot = bot.with_plugin(&format!("10-idle{number}.wasm"), &file(number))?;
            let _ = writeln!(tables, "[plugins.idle{number}]\nmatch = [{{ type = \"image\" }}]");
        }
        bot.with_settings(&tables)
    }
}

/// Echo as an author would write and build it, with a libc and WASI's imports.
fn wasip2(bench: &Bench<'_>) -> anyhow::Result<Bot> {
    bench.echo()?.with_plugin("20-echo.wasm", &binaries::echo_rs()?)
}

/// Ten times `welcome` before echo: it is asked about every message, and reads its settings only when somebody subscribes.
fn passing(bench: &Bench<'_>) -> anyhow::Result<Bot> {
    let welcome = binaries::plugin("aviary-plugin-welcome", binaries::BARE)?;
    (0..PASSING_COUNT)
        .try_fold(bench.echo()?, |bot, number| bot.with_plugin(&format!("10-welcome{number}.wasm"), &welcome))
}

/// The files are one and the same, so that the host compiles one: what a message costs is the same, and what a start
/// costs is measured elsewhere.
fn not_fitting(bench: &Bench<'_>) -> anyhow::Result<Bot> {
    let echo = binaries::plugin("aviary-plugin-echo", binaries::BARE)?;
    bench.crowd(NOT_FITTING_COUNT, |_| echo.clone())
}
