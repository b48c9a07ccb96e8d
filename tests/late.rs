//! The ladder of late replies, as stories: WeChat's clock is shortened by settings, its API is played over real HTTP.

mod customer_service;
mod fetch;
mod next_try;
mod owed;
mod stop;
mod untold;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aviary_host::{
    conversation::{Header, NoAnswer, Said},
    plugin::bindings::Reply,
    store::{Store, late::Kept},
};
use tokio::time::{sleep, timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, new_header},
    fake_wechat::FakeWechat,
    plugins::MISBEHAVE,
};

/// How long a try is open here: WeChat's 5 s, shortened.
const TRY: Duration = Duration::from_millis(600);

/// What misses its try, also where a busy disk takes long to write down that it is owed: until then the try is left open.
const SLOW: &str = "wait 3000";

/// How soon to look again at numbers that nobody is told of.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Lets the plugin count.
const KV: &str = "[plugins.misbehave.grants]\nkv = true";

/// A bot that does what it is told, on WeChat's clock ten times as fast.
fn setup(late: &str) -> Setup {
    clocked(450, late)
}

/// The same with another window, and tries that have three of it.
fn clocked(window_ms: u32, late: &str) -> Setup {
    let clock = format!("window_ms = {window_ms}\nhold_ms = {}\nbackground_ms = 30000", window_ms * 3);
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(&format!("[late]\n{clock}\n{late}"))
}

/// The same with an account whose API is there.
fn with_api(fake: &FakeWechat, late: &str) -> Setup {
    setup(late).account(&fake.account())
}

/// A message of a user, in the notation of conversation files.
pub fn push(openid: &str, words: &str) -> String {
    let header = Header { from_user: openid.to_owned(), ..new_header() };
    Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}")).to_xml(&header)
}

/// One try: what came back while it was open.
async fn attempt(bot: &Bot, xml: &str) -> Option<String> {
    let mut wechat = bot.simulator.clone();
    wechat.timeout = TRY;
    match wechat.push(xml).await {
        Ok(answer) => Some(bot.shown(&answer)),
        Err(error) if error.is::<NoAnswer>() => None,
        Err(error) => panic!("{error:#}"),
    }
}

/// WeChat's three tries, each as the one before is over. Returns which was answered, and what the user reads.
async fn three_tries(bot: &Bot, xml: &str) -> Option<(usize, String)> {
    for number in 1..=3 {
        if let Some(reply) = attempt(bot, xml).await {
            return Some((number, reply));
        }
    }
    None
}

/// What a user reads who is put off and has to ask.
const WAITING_TEXT: &str = "还在想，稍后回复“继续”查看";

/// WeChat's tries of a message whose reply is not there in time, and more of them where a busy disk takes longer to write
/// down that it is owed: at last the user is told to ask.
async fn put_off(bot: &Bot, xml: &str) {
    assert_eq!(attempt_until_answered(bot, xml).await, WAITING_TEXT);
}

/// As many tries as it takes until one is answered.
async fn attempt_until_answered(bot: &Bot, xml: &str) -> String {
    let tries = async {
        loop {
            if let Some(told) = attempt(bot, xml).await {
                return told;
            }
        }
    };
    timeout(PATIENCE, tries).await.expect("a try is answered")
}

/// What the user reads, on whichever try: a busy disk may take longer than the first to write down what is owed.
pub async fn read(bot: &Bot, xml: &str) -> String {
    three_tries(bot, xml).await.expect("a try is answered").1
}

/// A number of `/metrics`.
fn metric(bot: &Bot, step: &str) -> u64 {
    let name = format!("aviary_late_total{{account=\"main\",step=\"{step}\"}} ");
    let text = bot.app.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name.as_str())).unwrap_or_else(|| panic!("{text}"));
    line.parse().expect("it is a number")
}

/// Waits until a step of the ladder was taken so often.
pub async fn until(bot: &Bot, step: &str, count: u64) {
    let waiting = async {
        while metric(bot, step) < count {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("`{step}` did not happen"));
}

pub fn text_of(message: &serde_json::Value) -> &str {
    message["text"]["content"].as_str().unwrap_or_else(|| panic!("{message} is no text"))
}

/// Waits until so many messages are under way.
async fn in_flight(bot: &Bot, count: usize) {
    let waiting = async {
        while bot.app.tasks.len() != count {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("they get there");
}

/// Waits until nothing is written down as owed.
pub async fn until_nothing_is_owed(bot: &Bot) {
    let waiting = async {
        while bot.owed().await > 0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it is settled");
}

/// How often the plugin replied to this host.
fn replied(bot: &Bot) -> u64 {
    let name = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"replied\"} ";
    let text = bot.app.metrics();
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since_1970.as_millis()).expect("it is not the far future")
}

/// Lays a reply into the store of which its user knows nothing.
async fn kept(setup: &Setup, text: &str, for_so_long: Duration) {
    let store = Store::open(&setup.path("data")).expect("nobody has it yet");
    let until_ms = now_ms() + u64::try_from(for_so_long.as_millis()).expect("it is not the far future");
    let (account, openid, reply) = ("main".into(), "o1".into(), Reply::Text(text.to_owned()));
    let kept = Kept { account, openid, reply, has_more: false, shown_ms: 0, until_ms, is_untold: true };
    store.keep(None, Vec::new(), vec![kept], Instant::now() + PATIENCE).await.expect("it is written");
    store.close().await;
}
