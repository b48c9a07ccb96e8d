//! The soak: minutes of mixed load with a plugin in the chain that misbehaves, while another is replaced every second.
//! Every message must be answered right, memory must not grow, and nobody but the misbehaving may be left alone.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aviary_host::conversation::{Encryption, Playback, Said, Simulator, shown};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    Run,
    account::{APP_ID, ENCODING_AES_KEY, Mode, TOKEN, aes_key},
    binaries,
    bot::{Bot, Plugins},
    generator::Failures,
    http::Connection,
    latencies::Latencies,
    reload::{PARROT, stamped},
    server_process::ServerProcess,
    table::median,
};

/// How many users write to the two accounts, in turn to the one and the other.
const USERS: u64 = 40;

/// How often each of them writes: 200 messages a second in all. Each goes over a connection of its own.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// How often a plugin is replaced.
const REPLACE_EVERY: Duration = Duration::from_secs(1);

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const LOOKS_PER_MINUTE: usize = 60;

/// How much more may be resident in the last minute than in the second, by their medians. Some 480 reloads and 96,000 messages
/// lie between the two of a run of ten minutes: what leaks a hundred bytes with each message shows.
const GROWTH_MIB_MAX: f64 = 4.0;

/// How long the plugins may take until they are heard.
const READY_MAX: Duration = Duration::from_secs(60);

/// In `main` the misbehaving plugin is never left alone, so that it misbehaves to the end; in `safe` it soon is, again and
/// again. Messages are remembered for a minute only: a memory that fills for longer would look like a leak.
fn settings(log_level: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[log]
level = "{log_level},aviary_host::cli::serve=info"
[accounts.main]
token = "{TOKEN}"
signature_max_age_s = 10
[accounts.main.plugins.misbehave.quarantine]
failures = 0
share_percent = 0
[accounts.safe]
path = "/safe"
token = "{TOKEN}"
encoding_aes_key = "{ENCODING_AES_KEY}"
app_id = "{APP_ID}"
signature_max_age_s = 10
[accounts.safe.plugins.misbehave.quarantine]
share_percent = 5
back_off_s = 2
back_off_max_s = 10
[plugins.keywords]
match = [{{ type = "text" }}, {{ event = "CLICK" }}]
env = {{ TABLE = "关键词,匹配,回复\n价格,,99 元" }}
[plugins.misbehave.limits]
cpu_ms = 20
timeout_ms = 200
memory_mib = 16
"#
    )
}

/// What the misbehaving plugin is told, and what it says if it may do that.
const ORDERS: [(&str, Option<&str>); 16] = [
    ("loop forever", None),
    ("recurse", None),
    ("trap", None),
    ("panic", None),
    ("exit 1", None),
    ("fail on purpose", None),
    ("grow 12", Some("grew by 12 MiB")),
    ("grow 64", None),
    ("leak 300", Some("leaked")),
    ("leak 100000", None),
    ("flood 1", Some("flooded")),
    ("flood 100000", None),
    ("wait 50", Some("waited")),
    ("sleep 365", None),
    ("no media", None),
    ("empty", None),
];

/// What the soak can be told.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Instead of comparing, load for minutes with a plugin that misbehaves and one that is replaced every second
    #[arg(long, conflicts_with_all = ["safe", "reload", "budget"])]
    pub soak: bool,
    /// How long the soak takes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=1440), requires = "soak")]
    minutes: u32,
}

/// Who answered, how often.
#[derive(Debug, Default)]
struct Heard {
    echo: AtomicU64,
    parrot: AtomicU64,
    misbehave: AtomicU64,
    others: AtomicU64,
}

/// Loads, replaces, looks at memory, and judges.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let misbehave = binaries::plugin("aviary-misbehave", binaries::WASIP2)?;
    let parrot = binaries::plugin("aviary-test-parrot", binaries::BARE)?;
    let bot = Bot::new(&host, Plugins::Bundled, Mode::Plain, &run.log)?.with_plugin("15-misbehave.wasm", &misbehave)?;
    fs::write(bot.config_file(), settings(&run.log))?;
    let server = bot.serve()?;
    let wechats = wechats(server.address)?;
    await_ready(&wechats).await?;
    let compiled_before = Outcomes::read(&bot.log()?).await?.compiled();

    let minutes = run.soak.minutes;
    println!(
        "{minutes} minutes, {USERS} users, a message every {WRITE_EVERY:?} each, a replacement every {REPLACE_EVERY:?}"
    );
    let end = Instant::now() + Duration::from_secs(60) * minutes;
    let heard = Arc::<Heard>::default();
    let (tally, replaced, resident_mib) =
        tokio::join!(write(&wechats, &heard, end), replace(&bot, &parrot, end), look(&server, end));
    let (mut latencies, mut failures) = tally;
    if heard.echo.load(Ordering::Relaxed) == 0 || heard.parrot.load(Ordering::Relaxed) == 0 {
        failures.add("one of the two builds was never heard".into());
    }

    let outcomes = Outcomes::read(&bot.log()?).await?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Heard { echo, parrot, misbehave, others } = &*heard;
    println!(
        "  {} messages answered: {} by echo, {} by parrot in its place, {} by misbehave, {} by the others; {} replacements, {} reloads",
        latencies.count(),
        count(echo),
        count(parrot),
        count(misbehave),
        count(others),
        replaced?,
        // A file that is replaced before the host has looked at it is no reload.
        outcomes.compiled() - compiled_before
    );
    let [p50, p99, longest] = [50, 99, 100].map(|percent| latencies.percentile(percent).as_secs_f64() * 1e3);
    println!("  p50 {p50:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms");
    judge_memory(&resident_mib?, &mut failures);
    judge_outcomes(&outcomes, &mut failures);
    println!();
    Ok(failures)
}

/// WeChat, as each of the two accounts knows it.
fn wechats(address: SocketAddr) -> anyhow::Result<[Simulator; 2]> {
    let plain = Simulator::new(&format!("http://{address}/"), TOKEN)?;
    let mut safe = Simulator::new(&format!("http://{address}/safe"), TOKEN)?;
    safe.encryption = Encryption::Safe { key: aes_key(), app_id: APP_ID.into() };
    Ok([plain, safe])
}

/// Waits until every plugin is heard in both accounts: until then the next in the chain may have answered.
async fn await_ready(wechats: &[Simulator; 2]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut playback = Playback::default();
    let mut users = (0..).map(|number| format!("oReady{number}"));
    for wechat in wechats {
        for (words, reply) in [
            ("[subscribe]", "感谢您的关注!"),
            ("价格", "99 元"),
            ("say 在", "在"),
            ("在", "在"),
            ("[image]", "无法识别该消息!"),
        ] {
            // A push is held until the plugins are compiled, which may take longer than WeChat waits; what the same user says next
            // would wait behind it.
            for user in &mut users {
                let heard = ask(wechat, &mut playback, &user, words).await;
                if heard.as_ref().is_ok_and(|heard| heard == reply) {
                    break;
                }
                ensure!(
                    begun.elapsed() < READY_MAX,
                    "`{words}` is not answered with `{reply}` in {READY_MAX:?}: {heard:?}"
                );
                sleep(WRITE_EVERY).await;
            }
        }
    }
    Ok(())
}

/// Pushes what a user says, in the notation of conversation files, and returns the reply in it.
async fn ask(wechat: &Simulator, playback: &mut Playback, user: &str, words: &str) -> anyhow::Result<String> {
    let answer = wechat.push(&playback.push(user, &Said::parse(words)?)).await?;
    ensure!(answer.status == 200, "`{words}` was answered with status {}", answer.status);
    Ok(shown(wechat.reply(&answer)?.as_ref()))
}

/// Lets all users write until the end.
async fn write(wechats: &[Simulator; 2], heard: &Arc<Heard>, end: Instant) -> (Latencies, Failures) {
    let mut writing = JoinSet::new();
    for user in 0..USERS {
        let wechat = wechats[usize::from(user % 2 == 1)].clone();
        writing.spawn(write_as(user, wechat, heard.clone(), end));
    }
    let (mut latencies, mut failures) = (Latencies::default(), Failures::default());
    for (user_latencies, user_failures) in writing.join_all().await {
        latencies.merge(user_latencies);
        failures.merge(user_failures);
    }
    (latencies, failures)
}

async fn write_as(user: u64, wechat: Simulator, heard: Arc<Heard>, end: Instant) -> (Latencies, Failures) {
    let (mut latencies, mut failures) = (Latencies::default(), Failures::default());
    let openid = format!("oSoak_{user:022}");
    let mut playback = Playback::default();
    // Not all at once.
    sleep(WRITE_EVERY.mul_f64(user as f64 / USERS as f64)).await;
    let mut turns = interval(WRITE_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0.. {
        turns.tick().await;
        if Instant::now() >= end {
            break;
        }
        let message = Message::of(user, number);
        let begun = Instant::now();
        let judged = match ask(&wechat, &mut playback, &openid, &message.words).await {
            Ok(reply) => message.judge(&reply, &heard),
            Err(error) => Err(format!("{error:#}")),
        };
        match judged {
            Ok(()) => latencies.add(begun.elapsed()),
            Err(failure) => failures.add(failure),
        }
    }
    (latencies, failures)
}

/// What a user writes, with the answers that are right.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    words: String,
    right: Right,
}

#[derive(Debug, PartialEq, Eq)]
enum Right {
    /// This reply and no other; `""` is silence.
    Only(&'static str),
    /// What echo or parrot makes of the words, or what the misbehaving plugin says first.
    Echoed { or: Option<&'static str> },
}

impl Message {
    /// The message that a user writes as number so-and-so: the same in every run.
    fn of(user: u64, number: u64) -> Self {
        // Every kind comes up in no order that a reload could fall in step with.
        let drawn = (user << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let (words, right) = match drawn % 100 {
            0..10 => ("[image]".into(), Right::Only("无法识别该消息!")),
            10..15 => ("[subscribe]".into(), Right::Only("感谢您的关注!")),
            15..20 => ("[CLICK weather]".into(), Right::Only("")),
            20..25 => ("价格".into(), Right::Only("99 元")),
            25..35 => {
                let (order, or) = ORDERS[usize::try_from(drawn / 100).unwrap_or_default() % ORDERS.len()];
                (order.into(), Right::Echoed { or })
            }
            _ => (format!("第 {number} 条：今天 <北京> 天气怎么样？"), Right::Echoed { or: None }),
        };
        Self { words, right }
    }

    fn judge(&self, reply: &str, heard: &Heard) -> Result<(), String> {
        let by = match &self.right {
            Right::Only(right) if reply == *right => &heard.others,
            Right::Echoed { or } if *or == Some(reply) => &heard.misbehave,
            Right::Echoed { .. } if reply == self.words => &heard.echo,
            Right::Echoed { .. } if reply.strip_prefix(PARROT) == Some(&self.words) => &heard.parrot,
            _ => return Err(format!("`{}` was answered with `{reply:.80}`", self.words)),
        };
        by.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Replaces echo by parrot and parrot by echo, each a build that the host has never seen. Returns how often.
async fn replace(bot: &Bot, parrot: &[u8], end: Instant) -> anyhow::Result<u64> {
    let echo = fs::read(bot.echo())?;
    let mut turns = interval(REPLACE_EVERY);
    for generation in 1.. {
        turns.tick().await;
        if Instant::now() >= end {
            return Ok(generation - 1);
        }
        let build = if generation % 2 == 1 { parrot } else { &echo };
        fs::write(bot.beside(), stamped(build, generation))?;
        fs::rename(bot.beside(), bot.echo())?;
    }
    unreachable!("the end comes first")
}

/// Looks at the host's memory until the end: MiB resident.
async fn look(server: &ServerProcess, end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut resident_mib = Vec::new();
    let mut turns = interval(LOOK_EVERY);
    while Instant::now() < end {
        turns.tick().await;
        resident_mib.push(server.memory()?.resident_mib);
    }
    Ok(resident_mib)
}

/// Compares the last minute with the second: in the first everything is met for the first time.
fn judge_memory(resident_mib: &[f64], failures: &mut Failures) {
    let minutes: Vec<f64> =
        resident_mib.chunks_exact(LOOKS_PER_MINUTE).map(|minute| median(minute.iter().copied())).collect();
    let words: Vec<String> = minutes.iter().map(|mib| format!("{mib:.1}")).collect();
    println!("  MiB resident, the median of each minute: {}", words.join(" "));
    let growth = growth(&minutes);
    if growth > GROWTH_MIB_MAX {
        failures.add(format!("memory grew by {growth:.1} MiB after the first minute"));
    }
}

fn growth(minutes: &[f64]) -> f64 {
    match minutes {
        [_, second, .., last] => last - second,
        _ => 0.0,
    }
}

/// What came of the plugins' turns and files, as the host's metrics count it.
#[derive(Debug)]
struct Outcomes(String);

impl Outcomes {
    async fn read(log: &str) -> anyhow::Result<Self> {
        let address = log.split_once("Metrics and health are on http://").and_then(|(_, rest)| rest.split_once(": "));
        let address = address.context("the host does not tell where its metrics are")?.0.parse()?;
        let mut connection = Connection::open(address).await?;
        let response = connection.exchange("GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await?;
        Ok(Self(String::from_utf8(response.body.to_vec())?))
    }

    /// How many builds the host has compiled: each is loaded once.
    fn compiled(&self) -> u64 {
        let count = self.0.lines().find_map(|line| line.strip_prefix("aviary_compiles_total{result=\"compiled\"} "));
        count.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// A plugin's outcomes in all accounts together, each with how often: all that ever came up.
    fn counts(&self, plugin: &str) -> Vec<(&str, u64)> {
        let plugin = format!("plugin=\"{plugin}\"");
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for line in
            self.0.lines().filter(|line| line.starts_with("aviary_plugin_calls_total{") && line.contains(&plugin))
        {
            let outcome = line.split_once("outcome=\"").and_then(|(_, rest)| rest.split_once('"'));
            let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
            let (Some((outcome, _)), Some(count)) = (outcome, count) else { continue };
            match counts.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, sum)) => *sum += count,
                None => counts.push((outcome, count)),
            }
        }
        counts.retain(|(_, count)| *count > 0);
        counts
    }

    fn count(&self, plugin: &str, outcome: &str) -> u64 {
        self.counts(plugin).iter().find(|(known, _)| *known == outcome).map_or(0, |(_, count)| *count)
    }

    fn of(&self, plugin: &str) -> String {
        self.counts(plugin).iter().map(|(outcome, count)| format!("{outcome} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// Nobody is blamed for what somebody else did; and who was to misbehave did.
fn judge_outcomes(outcomes: &Outcomes, failures: &mut Failures) {
    for innocent in ["welcome", "keywords", "echo", "fallback"] {
        let counts = outcomes.counts(innocent);
        if counts.is_empty() || counts.iter().any(|(outcome, _)| !["replied", "passed"].contains(outcome)) {
            failures.add(format!("`{innocent}` is innocent, and yet came to: {}", outcomes.of(innocent)));
        }
    }
    println!("  misbehave: {}", outcomes.of("misbehave"));
    for outcome in ["replied", "passed", "cpu", "timeout", "memory", "stack", "trap", "error", "refused", "quarantined"]
    {
        if outcomes.count("misbehave", outcome) == 0 {
            failures.add(format!("`misbehave` never came to `{outcome}`: it did not misbehave enough"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_message_comes_up() {
        let all: Vec<Message> =
            (0..USERS).flat_map(|user| (0..300).map(move |number| Message::of(user, number))).collect();
        let words = ORDERS.iter().map(|(order, _)| *order).chain(["[image]", "[subscribe]", "[CLICK weather]", "价格"]);
        for words in words {
            assert!(all.iter().any(|message| message.words == words), "{words}");
        }
        let texts = all.iter().filter(|message| message.words.starts_with('第')).count();
        assert!((all.len() * 6 / 10..all.len() * 8 / 10).contains(&texts), "{texts} of {}", all.len());
    }

    #[test]
    fn an_answer_is_right_or_it_is_not() {
        let heard = Heard::default();
        let order = Message { words: "wait 50".into(), right: Right::Echoed { or: Some("waited") } };
        for right in ["wait 50", "鹦鹉：wait 50", "waited"] {
            assert_eq!(order.judge(right, &heard), Ok(()));
        }
        assert!(order.judge("", &heard).unwrap_err().contains("`wait 50` was answered with ``"));
        let click = Message { words: "[CLICK weather]".into(), right: Right::Only("") };
        assert_eq!(click.judge("", &heard), Ok(()));
        assert!(click.judge("[CLICK weather]", &heard).is_err());
    }

    #[test]
    fn memory_is_compared_between_the_second_minute_and_the_last() {
        assert_eq!(growth(&[10.0, 40.0, 90.0, 41.5]), 1.5);
        assert_eq!(growth(&[10.0, 40.0]), 0.0);
        let mut failures = Failures::default();
        judge_memory(&[[10.0; 60], [40.0; 60], [44.5; 60]].concat(), &mut failures);
        assert_eq!(failures.count, 1);
    }

    #[test]
    fn outcomes_of_all_accounts_count_together() {
        let outcomes = Outcomes(
            "# TYPE aviary_plugin_calls counter\n\
             aviary_plugin_calls_total{account=\"main\",plugin=\"echo\",outcome=\"replied\"} 7\n\
             aviary_plugin_calls_total{account=\"safe\",plugin=\"echo\",outcome=\"replied\"} 5\n\
             aviary_plugin_calls_total{account=\"safe\",plugin=\"echo\",outcome=\"quarantined\"} 1\n\
             aviary_plugin_calls_total{account=\"safe\",plugin=\"echo\",outcome=\"trap\"} 0\n\
             aviary_compiles_total{result=\"failed\"} 2\n\
             aviary_compiles_total{result=\"compiled\"} 9\n"
                .into(),
        );
        assert_eq!(outcomes.of("echo"), "replied 12, quarantined 1");
        assert_eq!((outcomes.count("echo", "trap"), outcomes.compiled()), (0, 9));
        let mut failures = Failures::default();
        judge_outcomes(&outcomes, &mut failures);
        assert!(
            failures.to_string().contains("`echo` is innocent, and yet came to: replied 12, quarantined 1"),
            "{failures}"
        );
    }
}
