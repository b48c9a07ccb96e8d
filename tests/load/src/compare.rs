//! The comparison: what a message costs each server.

use std::{env, process::Command, sync::Arc, time::Duration};

use anyhow::bail;

use crate::{
    Run,
    account::Mode,
    binaries,
    bot::{Bot, Plugins},
    generator::{self, Connect, Expected, Failures, Load, Pace, Tally},
    server_process::{Memory, ServerProcess, own_cpu},
    table,
    today::Incumbent,
    wechat::WeChat,
};

/// A server that is measured, with what was measured in each round.
#[derive(Debug)]
pub struct Contestant {
    pub name: &'static str,
    pub mode: Mode,
    server: Server,
    asked: Expected,
    connect: Connect,
    pub turns: Vec<Turn>,
}

#[derive(Debug)]
enum Server {
    Native { dir: tempfile::TempDir },
    Host(Bot),
    Incumbent(Incumbent),
}

/// A server's turn in one round.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub saturated: Figures,
    pub offered: Figures,
    pub memory: Memory,
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// User and system time of the server, per message that was answered right.
    pub cpu_us: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// The generator's own CPU time, per message.
    pub generator_us: f64,
}

/// Measures all servers in turns and prints the table.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let hosted = |name, mode, plugins| -> anyhow::Result<Contestant> {
        Ok(Contestant::host(name, mode, Bot::new(&host, plugins, mode, &run.log)?))
    };
    let mut contestants = vec![
        Contestant::native("native", Mode::Plain)?,
        hosted("host, echo", Mode::Plain, Plugins::Echo)?,
        hosted("host, the bundled three", Mode::Plain, Plugins::Bundled)?,
    ];
    if run.safe {
        contestants.push(Contestant::native("native, safe mode", Mode::Safe)?);
        contestants.push(hosted("host, echo, safe mode", Mode::Safe, Plugins::Echo)?);
    }

    let mut failures = Failures::default();
    rounds(&mut contestants, run, &mut failures).await?;
    println!("{}", heading(run));
    print!("{}", table::print(&contestants));
    Ok(failures)
}

/// Measures each server once a round.
pub async fn rounds(contestants: &mut [Contestant], run: &Run, failures: &mut Failures) -> anyhow::Result<()> {
    for round in 1..=run.rounds {
        for contestant in &mut *contestants {
            eprintln!("round {round} of {}: {}", run.rounds, contestant.name);
            let turn = contestant.turn(run, failures).await?;
            contestant.turns.push(turn);
        }
    }
    Ok(())
}

impl Contestant {
    /// The native handler.
    pub fn native(name: &'static str, mode: Mode) -> anyhow::Result<Self> {
        Ok(Self::new(name, mode, Server::Native { dir: tempfile::tempdir()? }))
    }

    /// The host, with a bot of that mode.
    pub fn host(name: &'static str, mode: Mode, bot: Bot) -> Self {
        Self::new(name, mode, Server::Host(bot))
    }

    /// A bot of those that users run today, in plain mode.
    pub fn incumbent(name: &'static str, incumbent: Incumbent) -> Self {
        Self::new(name, Mode::Plain, Server::Incumbent(incumbent))
    }

    fn new(name: &'static str, mode: Mode, server: Server) -> Self {
        Self { name, mode, server, asked: Expected::Echo, connect: Connect::Once, turns: Vec::new() }
    }

    /// Asks it for something else than an echo.
    pub fn asked_for(self, asked: Expected) -> Self {
        Self { asked, ..self }
    }

    /// Connects to it in this way.
    pub fn connected(self, connect: Connect) -> Self {
        Self { connect, ..self }
    }

    /// Starts the server, measures it, and ends it: every turn begins with a fresh process.
    async fn turn(&self, run: &Run, failures: &mut Failures) -> anyhow::Result<Turn> {
        let server = self.server.start(self.mode)?;
        let wechat = Arc::new(WeChat::new(self.mode));
        if let Err(error) = self.await_ready(&server, &wechat).await {
            bail!("{} is not fit to be measured: {error:#}; it said:\n{}", self.name, server.log());
        }
        let load = |pace, duration| Load {
            connect: self.connect,
            ..Load::new(server.address, run.connections, pace, duration)
        };
        let warm_up = load(Pace::Saturated, Duration::from_secs(run.warm_up));
        failures.merge(generator::run(&warm_up, &wechat, &self.asked).await.failures);
        let [saturated, offered] =
            [Pace::Saturated, Pace::Offered { per_second: run.rate }].map(|pace| load(pace, run.duration()));
        let saturated = self.measure(&server, &wechat, &saturated, failures).await?;
        let offered = self.measure(&server, &wechat, &offered, failures).await?;
        Ok(Turn { saturated, offered, memory: server.memory()? })
    }

    async fn await_ready(&self, server: &ServerProcess, wechat: &WeChat) -> anyhow::Result<()> {
        if let Expected::Page { request, body } = &self.asked {
            return generator::await_page(server.address, request, body).await;
        }
        generator::await_ready(server.address, wechat).await?;
        generator::expect_refusal(server.address, wechat).await
    }

    async fn measure(
        &self,
        server: &ServerProcess,
        wechat: &Arc<WeChat>,
        load: &Load,
        failures: &mut Failures,
    ) -> anyhow::Result<Figures> {
        let (cpu, generator_cpu) = (server.cpu()?, own_cpu());
        let mut tally = generator::run(load, wechat, &self.asked).await;
        let (cpu, generator_cpu) = (server.cpu()?.saturating_sub(cpu), own_cpu() - generator_cpu);
        failures.merge(std::mem::take(&mut tally.failures));
        Ok(Figures::of(&mut tally, cpu, generator_cpu))
    }
}

impl Server {
    fn start(&self, mode: Mode) -> anyhow::Result<ServerProcess> {
        match self {
            Self::Native { dir } => {
                let mut command = Command::new(env::current_exe()?);
                command.args(["native", "--port", "0"]).args((mode == Mode::Safe).then_some("--safe"));
                ServerProcess::start(command, &dir.path().join("log"))
            }
            Self::Host(bot) => bot.serve(),
            Self::Incumbent(incumbent) => incumbent.serve(),
        }
    }
}

impl Figures {
    fn of(tally: &mut Tally, cpu: Duration, generator_cpu: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a run has fewer messages than an f64 has whole numbers")]
        let answered = tally.latencies.count().max(1) as f64;
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / answered,
            per_second: answered / tally.elapsed.as_secs_f64(),
            p50_ms: ms(tally.latencies.percentile(50)),
            p99_ms: ms(tally.latencies.percentile(99)),
            generator_us: generator_cpu.as_secs_f64() * 1e6 / answered,
        }
    }
}

/// Says on what and how a run measures.
pub fn heading(run: &Run) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile = if cfg!(debug_assertions) { "debug build, figures mean little" } else { "release build" };
    let Run { connections, rounds, seconds, rate, log, .. } = run;
    format!(
        "{cores} cores, shared with the generator; {profile}; {connections} connections; medians of {rounds} rounds; \
         saturated for {seconds} s, then {rate} messages/s for {seconds} s; host log level {log}\n"
    )
}
