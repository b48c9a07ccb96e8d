//! The reload run: while messages come in, the plugin that answers them is replaced, again and again, and nobody notices
//! but by what it says.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    sync::watch,
    time::{error::Elapsed, timeout},
};

use crate::{
    Run,
    account::Mode,
    binaries,
    bot::{Bot, Plugins},
    generator::{self, Expected, Failures, Load, Pace},
    wechat::WeChat,
};

/// How often the plugin is replaced in each run.
const REPLACEMENTS: u64 = 10;

/// How long the new plugin may take to be heard. It is compiled first, beside a saturated machine.
const HEARD_MAX: Duration = Duration::from_secs(20);

/// How many answers a plugin gives before the next takes its place: late words of the one before have come by then.
const SETTLED: u64 = 500;

/// The longest run, whatever happens.
const RUN_MAX: Duration = Duration::from_secs(300);

/// What parrot puts before a text.
pub const PARROT: &str = "鹦鹉：";

/// Which plugin was heard. Generation 0 is the bundled echo; each replacement is the next, parrot and echo in turn.
#[derive(Debug)]
pub struct Flock {
    /// The generation that was last put in place.
    placed: AtomicU64,
    heard: watch::Sender<Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    newest: u64,
    first_at: Instant,
    /// Of the newest.
    answers: u64,
}

/// Replaces the plugin under a saturated load, and under the offered rate.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let parrot = binaries::plugin("aviary-test-parrot", binaries::BARE)?;
    let mut failures = Failures::default();
    let offered = Pace::Offered { per_second: run.rate };
    let paces = [("saturated".into(), Pace::Saturated), (format!("{} messages/s", run.rate), offered)];
    for (name, pace) in paces {
        println!(
            "{REPLACEMENTS} replacements of 20-echo.wasm by another build; {name}, {} connections",
            run.connections
        );
        let bot = Bot::new(&host, Plugins::Echo, Mode::Plain, &run.log)?;
        let replaced = replace_under_load(&bot, &parrot, run, pace).await?;
        println!("{replaced}");
        failures.merge(replaced.failures);
    }
    Ok(failures)
}

/// What came of the replacements under one load.
#[derive(Debug)]
pub struct Replaced {
    /// From each rename to the first answer of the new build; none if one was not heard.
    pub times: Vec<Duration>,
    pub answered: usize,
    pub elapsed: Duration,
    /// Of all answers meanwhile, in ms.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
    pub failures: Failures,
}

impl fmt::Display for Replaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, answered, elapsed, p50_ms, p99_ms, longest_ms, failures } = self;
        let times: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
        writeln!(formatter, "  ms from rename to the first answer of the new build: {}", times.join(" "))?;
        writeln!(formatter, "  {answered} messages answered by echo or parrot, {} failures", failures.count)?;
        let elapsed_s = elapsed.as_secs_f64();
        writeln!(
            formatter,
            "  p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, longest {longest_ms:.2} ms, over {elapsed_s:.1} s"
        )
    }
}

/// Replaces the echo of `bot` ten times, by a build of `parrot` and one of its own in turn, while messages come in.
pub async fn replace_under_load(bot: &Bot, parrot: &[u8], run: &Run, pace: Pace) -> anyhow::Result<Replaced> {
    let echo = fs::read(bot.echo())?;
    let server = bot.serve()?;
    let wechat = Arc::new(WeChat::new(Mode::Plain));
    generator::await_ready(server.address, &wechat).await?;
    let flock = Arc::new(Flock::new());
    let load = Load::new(server.address, run.connections, pace, RUN_MAX);
    let expected = Expected::Flock(flock.clone());
    let replaced = async {
        let replaced = replace_all(bot, &echo, parrot, &flock).await;
        load.stop.store(true, Ordering::Relaxed);
        replaced
    };
    let (replaced, mut tally) = tokio::join!(replaced, generator::run(&load, &wechat, &expected));
    let mut failures = tally.failures;
    let times = replaced.unwrap_or_else(|error| {
        failures.add(format!("{error:#}"));
        Vec::new()
    });
    let [p50_ms, p99_ms, longest_ms] =
        [50, 99, 100].map(|percent| tally.latencies.percentile(percent).as_secs_f64() * 1e3);
    let answered = tally.latencies.count();
    Ok(Replaced { times, answered, elapsed: tally.elapsed, p50_ms, p99_ms, longest_ms, failures })
}

/// Replaces the plugin again and again and returns how long each took to be heard.
async fn replace_all(bot: &Bot, echo: &[u8], parrot: &[u8], flock: &Flock) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    flock.settled(0).await.context("the first plugin was not heard")?;
    for generation in 1..=REPLACEMENTS {
        let build = if is_parrot(generation) { parrot } else { echo };
        fs::write(bot.beside(), stamped(build, generation))?;
        // Before the rename: the host may be quicker than we are.
        flock.placed.store(generation, Ordering::SeqCst);
        let renamed = Instant::now();
        fs::rename(bot.beside(), bot.echo())?;
        let first_at = flock
            .settled(generation)
            .await
            .with_context(|| format!("replacement {generation} was not heard within {HEARD_MAX:?}"))?;
        times.push(first_at.saturating_duration_since(renamed));
    }
    Ok(times)
}

impl Flock {
    fn new() -> Self {
        let heard = Heard { newest: 0, first_at: Instant::now(), answers: 0 };
        Self { placed: AtomicU64::new(0), heard: watch::Sender::new(heard) }
    }

    /// The newest generation that has answered. No older one may answer what is sent from now on.
    pub fn newest_heard(&self) -> u64 {
        self.heard.borrow().newest
    }

    /// Judges an answer to a message that was sent when `sent` was the newest heard.
    pub fn hear(&self, sent: u64, text: &str, content: &str) -> Result<(), String> {
        let by_parrot = match content.strip_prefix(PARROT) {
            _ if content == text => false,
            Some(rest) if rest == text => true,
            _ => return Err(format!("{text:?} was answered with {content:?}")),
        };
        // The one that was heard last, or the one whose turn it is next.
        let by = if is_parrot(sent) == by_parrot { sent } else { sent + 1 };
        if by > self.placed.load(Ordering::SeqCst) {
            return Err(format!("generation {sent} was heard already, yet its predecessor answered {content:?}"));
        }
        self.heard.send_if_modified(|heard| {
            if by > heard.newest {
                *heard = Heard { newest: by, first_at: Instant::now(), answers: 0 };
            }
            heard.answers += u64::from(by == heard.newest);
            heard.answers == SETTLED
        });
        Ok(())
    }

    /// Waits until a generation has answered often, and returns when it first did.
    async fn settled(&self, generation: u64) -> Result<Instant, Elapsed> {
        let mut heard = self.heard.subscribe();
        let settled = heard.wait_for(|heard| heard.newest == generation && heard.answers >= SETTLED);
        // The sender lives as long as `self`, so waiting itself cannot fail.
        timeout(HEARD_MAX, settled).await.map(|heard| heard.map_or_else(|_| Instant::now(), |heard| heard.first_at))
    }
}

fn is_parrot(generation: u64) -> bool {
    generation % 2 == 1
}

/// Makes a build of its own: a custom section changes nothing but the file's hash, so that the host has to compile it.
pub fn stamped(module: &[u8], generation: u64) -> Vec<u8> {
    const NAME: &[u8] = b"build";
    let mut section = vec![u8::try_from(NAME.len()).expect("it is short")];
    section.extend_from_slice(NAME);
    section.extend_from_slice(&generation.to_le_bytes());
    // Both lengths are below 128, where LEB128 is the number itself.
    let length = u8::try_from(section.len()).expect("it is short");
    [module, &[0, length], &section].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_plugin_may_answer_once_it_is_in_place() {
        let flock = Flock::new();
        assert_eq!(flock.hear(0, "你好", "你好"), Ok(()));
        assert!(flock.hear(0, "你好", "鹦鹉：你好").is_err());
        flock.placed.store(1, Ordering::SeqCst);
        assert_eq!(flock.hear(0, "你好", "你好"), Ok(()));
        assert_eq!(flock.hear(0, "你好", "鹦鹉：你好"), Ok(()));
        assert_eq!(flock.newest_heard(), 1);
    }

    #[test]
    fn the_old_plugin_answers_only_what_was_sent_before_the_new_one_was_heard() {
        let flock = Flock::new();
        flock.placed.store(1, Ordering::SeqCst);
        flock.hear(0, "你好", "鹦鹉：你好").unwrap();
        assert_eq!(flock.hear(0, "你好", "你好"), Ok(()));
        assert!(flock.hear(1, "你好", "你好").unwrap_err().contains("predecessor"));
    }

    #[test]
    fn another_text_is_no_answer() {
        assert!(Flock::new().hear(0, "你好", "你").is_err());
    }

    #[test]
    fn builds_differ_by_a_custom_section_at_the_end() {
        assert_eq!(stamped(b"\0asm\x01\0\0\0", 2), b"\0asm\x01\0\0\0\0\x0e\x05build\x02\0\0\0\0\0\0\0");
    }
}
