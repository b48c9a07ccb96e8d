//! Against what users run today: what a message costs the host, and what it costs a bot with the libraries that tutorials name,
//! behind the servers that they name.

use crate::{
    Run,
    account::{Mode, TOKEN},
    binaries,
    bot::{Bot, Plugins},
    budget::{self, Budget, Cpu, Line, Table, number},
    compare::{self, Contestant, Turn},
    generator::{Connect, Failures},
    server_process::ServerProcess,
    table,
};

mod workshop;

use self::workshop::Workshop;

/// CPU of a message in co-wechat on koa, as a multiple of the host's.
const KOA: Budget = Budget::AtLeast(7.5);

/// In Flask with xmltodict behind uWSGI.
const UWSGI: Budget = Budget::AtLeast(13.0);

/// In Flask behind gunicorn, with xmltodict or with wechatpy.
const GUNICORN: Budget = Budget::AtLeast(20.0);

/// Processes of each server in Python: two for each of two cores and one more, as gunicorn's documentation says.
const WORKERS: &str = "5";

/// A bot of `tests/load/today` behind its server.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    budget: Budget,
    program: &'static str,
    args: &'static [&'static str],
    /// The last argument.
    app: &'static str,
    /// What the server says before its address.
    announcement: &'static str,
    connect: Connect,
}

/// uWSGI without a router of its own in front. It ends where the bot cannot be loaded, and logs a line for each message, as it does
/// unless it is told not to.
const UWSGI_ARGS: &[&str] =
    &["--master", "--need-app", "--processes", WORKERS, "--http-socket", "127.0.0.1:0", "--module"];

/// gunicorn's control socket would be in the user's home.
const GUNICORN_ARGS: &[&str] = &["--workers", WORKERS, "--no-control-socket", "--bind", "127.0.0.1:0"];

const XMLTODICT_ON_GUNICORN: Way = Way {
    name: "gunicorn, xmltodict",
    budget: GUNICORN,
    program: "gunicorn",
    args: GUNICORN_ARGS,
    app: "flask_bot:app",
    announcement: "Listening at: http://",
    connect: Connect::PerMessage,
};

const WAYS: [Way; 4] = [
    Way {
        name: "koa, co-wechat",
        budget: KOA,
        program: "node",
        args: &[],
        app: "co_wechat_bot.js",
        announcement: "listens on http://",
        connect: Connect::Once,
    },
    Way {
        name: "uWSGI, xmltodict",
        budget: UWSGI,
        program: "uwsgi",
        args: UWSGI_ARGS,
        app: "flask_bot:app",
        announcement: "bound to TCP address ",
        connect: Connect::PerMessage,
    },
    XMLTODICT_ON_GUNICORN,
    Way { name: "gunicorn, wechatpy", app: "wechatpy_bot:app", ..XMLTODICT_ON_GUNICORN },
];

/// A bot as users run it today.
#[derive(Debug)]
pub struct Incumbent {
    way: Way,
    workshop: Workshop,
    /// For its log.
    dir: tempfile::TempDir,
}

impl Incumbent {
    /// Serves it.
    pub fn serve(&self) -> anyhow::Result<ServerProcess> {
        let Way { program, args, app, announcement, .. } = self.way;
        let mut command = self.workshop.command(program);
        command.args(args).arg(app).env("WECHAT_TOKEN", TOKEN).env("NODE_ENV", "production");
        ServerProcess::start_announced(command, &self.dir.path().join("log"), announcement)
    }
}

/// Measures all servers in turns, and prints the table and what of it is held to a budget.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let workshop = Workshop::install().await?;
    let hosted = |name| -> anyhow::Result<Contestant> {
        let bot = Bot::new(&host, Plugins::Echo, Mode::Plain, &run.log)?;
        // Nothing is to be compiled while a message is measured.
        bot.warm_up()?;
        Ok(Contestant::host(name, Mode::Plain, bot))
    };
    let mut contestants = vec![
        Contestant::native("native", Mode::Plain)?,
        hosted("host, echo")?,
        hosted("host, connected anew")?.connected(Connect::PerMessage),
    ];
    for way in WAYS {
        let incumbent = Incumbent { way, workshop: workshop.clone(), dir: tempfile::tempdir()? };
        contestants.push(Contestant::incumbent(way.name, incumbent).connected(way.connect));
    }

    let mut failures = Failures::default();
    compare::rounds(&mut contestants, run, &mut failures).await?;
    println!("{}{}\n\n{}", compare::heading(run), workshop.versions()?, table::print(&contestants));
    let mut budgets = Table::begin();
    lines(&contestants, run.rate).iter().for_each(|line| budgets.print(line));
    budgets.end();
    Ok(failures)
}

/// CPU time per message of each incumbent as a multiple of the host's, beside what it is to be.
fn lines(contestants: &[Contestant], rate: u32) -> Vec<Line> {
    let [native, host, anew, incumbents @ ..] = contestants else { return Vec::new() };
    let mut lines = Vec::new();
    for (pace, cpu_us) in budget::paces(rate) {
        for (way, incumbent) in WAYS.iter().zip(incumbents) {
            let times = |of: &Contestant| ratios(&incumbent.turns, &of.turns, cpu_us);
            let beside = |of: &Contestant| number(table::median(times(of).into_iter()));
            let what = format!("{}, × the host's CPU, {pace}", way.name);
            let mut line = Line::of_rounds(what, &times(host), "×", Some(way.budget));
            line.note += &format!("; {} × native", beside(native));
            if way.connect == Connect::PerMessage {
                line.note += &format!("; {} × the host connected anew", beside(anew));
            }
            lines.push(line);
        }
    }
    lines
}

/// One server's figure over another's, round by round.
fn ratios(turns: &[Turn], others: &[Turn], cpu_us: Cpu) -> Vec<f64> {
    turns.iter().zip(others).map(|(turn, other)| cpu_us(turn) / cpu_us(other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::Figures, server_process::Memory};

    /// A server that was measured once.
    fn measured(saturated_us: f64, offered_us: f64) -> Contestant {
        let figures = |cpu_us| Figures { cpu_us, per_second: 1e3, p50_ms: 1.0, p99_ms: 2.0, generator_us: 9.0 };
        let memory = Memory { resident_mib: 20.0, peak_mib: 20.0 };
        let mut contestant = Contestant::native("any", Mode::Plain).unwrap();
        contestant.turns.push(Turn { saturated: figures(saturated_us), offered: figures(offered_us), memory });
        contestant
    }

    #[test]
    fn each_incumbent_is_held_to_its_multiple_of_the_host() {
        let [native, host, anew] = [(20.0, 80.0), (30.0, 100.0), (40.0, 150.0)].map(|(a, b)| measured(a, b));
        let [koa, uwsgi, xmltodict, wechatpy] =
            [(225.0, 250.0), (389.0, 400.0), (600.0, 700.0), (664.0, 750.0)].map(|(a, b)| measured(a, b));
        let lines = lines(&[native, host, anew, koa, uwsgi, xmltodict, wechatpy], 500);
        let lines: Vec<String> = lines.iter().map(Line::to_string).collect();
        assert_eq!(lines.len(), 8);
        let ends = |line: usize, end: &str| assert!(lines[line].ends_with(end), "{}", lines[line]);
        ends(0, "7.50 ×    ≥ 7.50 ×  yes  rounds: 7.50; 11 × native");
        ends(1, "13 ×      ≥ 13 ×  NO   rounds: 13; 19 × native; 9.72 × the host connected anew");
        ends(2, "20 ×      ≥ 20 ×  yes  rounds: 20; 30 × native; 15 × the host connected anew");
        ends(3, "22 ×      ≥ 20 ×  yes  rounds: 22; 33 × native; 17 × the host connected anew");
        assert!(lines[4].starts_with("koa, co-wechat, × the host's CPU, 500/s "), "{}", lines[4]);
        ends(4, "2.50 ×    ≥ 7.50 ×  NO   rounds: 2.50; 3.12 × native");
    }
}
