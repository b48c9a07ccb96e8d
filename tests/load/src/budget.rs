//! The budget run: each line of section 5 of the design, measured, beside what it may be.
//!
//! One kind of measurement is one file, and the number that its figure is held to stands there, once.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    Run, binaries,
    bot::Bot,
    compare,
    generator::{self, Expected, Failures, Load, Pace},
    server_process::ServerProcess,
    table,
    wechat::WeChat,
};

mod messages;

mod workers;

mod languages;

mod loops;

mod waiting;

mod memory;

mod start;

mod reloading;

mod in_process;

pub use self::{
    languages::call_cpu_us,
    messages::{Cpu, paces},
};

/// What the budget run can be told.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Instead of comparing, measure every budget and print it beside its figure
    #[arg(long, conflicts_with_all = ["safe", "reload"])]
    pub budget: bool,
    /// Only these budgets
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', requires = "budget")]
    only: Vec<Kind>,
    /// How long the measurement of memory takes
    #[arg(long, value_name = "S", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    memory_seconds: u64,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// CPU of a message: one sandbox, further plugins that pass, a thousand whose rules do not fit
    Messages,
    /// Two workers against one, in process
    Workers,
    /// CPU of a call in JavaScript, Go and Python
    Languages,
    /// Latency beside two guests that loop for ever
    Loops,
    /// Latency beside a thousand guests that wait
    Waiting,
    /// Resident memory
    Memory,
    /// Start with a hundred plugins
    Start,
    /// A plugin's file dropped, to its first answer
    Reload,
}

/// What every measurement needs.
#[derive(Debug)]
struct Bench<'a> {
    run: &'a Run,
    host: PathBuf,
    failures: Failures,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

/// The table, printed line by line.
#[derive(Debug, Default)]
pub struct Table {
    met: usize,
    held: usize,
}

/// One line of the table.
#[derive(Debug)]
pub struct Line {
    what: String,
    /// Or why there is none.
    figure: Result<f64, String>,
    unit: &'static str,
    /// None: the figure is printed for comparison only.
    budget: Option<Budget>,
    /// What stands beside it.
    pub note: String,
}

/// Measures the budgets one after another and prints each line as soon as it is known.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    raise_open_files();
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let mut bench = Bench { run, host, failures: Failures::default() };
    println!("{}", compare::heading(run));
    let mut table = Table::begin();
    for &kind in Kind::value_variants() {
        if !run.budget.only.is_empty() && !run.budget.only.contains(&kind) {
            continue;
        }
        for line in bench.measure(kind).await? {
            table.print(&line);
        }
    }
    table.end();
    Ok(bench.failures)
}

impl Bench<'_> {
    async fn measure(&mut self, kind: Kind) -> anyhow::Result<Vec<Line>> {
        match kind {
            Kind::Messages => messages::measure(self).await,
            Kind::Workers => workers::measure(self).await,
            Kind::Languages => languages::measure(self).await,
            Kind::Loops => loops::measure(self).await,
            Kind::Waiting => waiting::measure(self).await,
            Kind::Memory => memory::measure(self).await,
            Kind::Start => start::measure(self).await,
            Kind::Reload => reloading::measure(self).await,
        }
    }

    /// Serves a bot whose plugins are compiled, and waits until it echoes.
    async fn serve(&self, bot: &Bot, wechat: &WeChat) -> anyhow::Result<ServerProcess> {
        bot.warm_up()?;
        let server = bot.serve()?;
        generator::await_ready(server.address, wechat).await?;
        Ok(server)
    }

    /// Sends echo's messages at the offered rate for one measurement, and returns the p99 in ms.
    async fn p99_ms(&mut self, server: &ServerProcess, wechat: &Arc<WeChat>) -> f64 {
        let pace = Pace::Offered { per_second: self.run.rate };
        let load = Load::new(server.address, self.run.connections, pace, self.run.duration());
        let mut tally = generator::run(&load, wechat, &Expected::Echo).await;
        self.failures.merge(tally.failures);
        ms(tally.latencies.percentile(99))
    }
}

impl Budget {
    fn allows(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl Table {
    /// Prints the heading.
    pub fn begin() -> Self {
        println!("{:58} {:>11} {:>11}  met", "", "figure", "budget");
        Self::default()
    }

    /// Prints a line.
    pub fn print(&mut self, line: &Line) {
        println!("{line}");
        self.held += usize::from(line.budget.is_some());
        self.met += usize::from(line.is_met() == Some(true));
    }

    /// Prints how many budgets are met.
    pub fn end(self) {
        let Self { met, held } = self;
        println!("\n{met} of {held} budgets are met.");
    }
}

impl Line {
    /// A figure that is the median of its rounds.
    pub fn of_rounds(what: impl Into<String>, rounds: &[f64], unit: &'static str, budget: Option<Budget>) -> Self {
        let each: Vec<String> = rounds.iter().map(|&round| number(round)).collect();
        Self {
            what: what.into(),
            figure: Ok(table::median(rounds.iter().copied())),
            unit,
            budget,
            note: format!("rounds: {}", each.join(" ")),
        }
    }

    /// Whether the budget is kept; nothing if the line has none. A figure that is missing keeps none.
    fn is_met(&self) -> Option<bool> {
        Some(self.figure.as_ref().is_ok_and(|&figure| self.budget.is_some_and(|budget| budget.allows(figure))))
            .filter(|_| self.budget.is_some())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, figure, unit, budget, note } = self;
        let (sign, bound) = match budget {
            Some(Budget::AtMost(most)) => ("≤ ", number(*most)),
            Some(Budget::AtLeast(least)) => ("≥ ", number(*least)),
            None => ("", String::new()),
        };
        let bound = if bound.is_empty() { bound } else { format!("{sign}{bound} {unit}") };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        match figure {
            Ok(figure) => {
                let figure = format!("{} {unit}", number(*figure));
                write!(formatter, "{what:58} {figure:>11} {bound:>11}  {met:4} {note}")
            }
            Err(why) => write!(formatter, "{what:58} {:>11} {bound:>11}  {met:4} {why}", "missing"),
        }
    }
}

/// Two decimals where they say something.
pub fn number(figure: f64) -> String {
    if figure.abs() < 10.0 {
        let text = format!("{figure:.2}");
        text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
    } else {
        format!("{figure:.0}")
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Takes as many open files as the system lets us: each guest that waits has a connection.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it cannot be raised, the connections that do not open are failures that say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_its_budget_is_kept() {
        let line = |rounds: &[f64]| Line::of_rounds("a message", rounds, "×", Some(Budget::AtMost(1.35))).to_string();
        assert!(
            line(&[1.2, 1.349, 9.0]).ends_with("1.35 ×    ≤ 1.35 ×  yes  rounds: 1.20 1.35 9"),
            "{}",
            line(&[1.349])
        );
        assert!(line(&[1.36]).contains("  NO "));
        let least = Line::of_rounds("two workers", &[1.9], "×", Some(Budget::AtLeast(1.8)));
        assert_eq!(least.is_met(), Some(true));
        assert_eq!(Line::of_rounds("beside it", &[1.9], "×", None).is_met(), None);
    }

    #[test]
    fn a_figure_that_is_missing_keeps_no_budget() {
        let line = Line {
            what: "Go".into(),
            figure: Err("run build.sh".into()),
            unit: "µs",
            budget: Some(Budget::AtMost(200.0)),
            note: String::new(),
        };
        assert_eq!(line.is_met(), Some(false));
        assert!(line.to_string().ends_with("missing    ≤ 200 µs  NO   run build.sh"), "{line}");
    }
}
