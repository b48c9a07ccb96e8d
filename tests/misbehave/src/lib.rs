//! Misbehave: the plugin that does what the tests tell it, above all what no plugin should.
//!
//! A text message is an order. Built for `wasm32-wasip2`, so it is a component with a libc's real imports, unlike the
//! bundled plugins. It is never shipped.
//!
//! | order | what it does |
//! |---|---|
//! | `loop forever` | computes and never returns |
//! | `recurse` | calls itself until the stack is used up |
//! | `trap` | runs into `unreachable` |
//! | `panic` | says why on standard error, then traps |
//! | `exit N` | asks to end the process: as a success if N is 0, else as a failure |
//! | `grow N` | fills N MiB of memory and says so; traps when it gets less |
//! | `hold N` | fills N MiB of memory and keeps them for ever |
//! | `wait MS` | blocks for so long, then says `waited` |
//! | `sleep DAYS` | the same for days |
//! | `poll N` | waits for N timers of a year at once |
//! | `leak N` | makes N timers and forgets them, then says `leaked` |
//! | `random MIB` | takes so many random bytes in one piece and says how many bytes came |
//! | `fail WORDS` | answers `err(WORDS)` |
//! | `pass` | answers none |
//! | `nothing` | answers "handled, say nothing" |
//! | `say TEXT` | answers the text |
//! | `reply N` | answers a text of N bytes |
//! | `empty` | answers an empty text, which WeChat would refuse |
//! | `no media` | answers a picture without an id, which WeChat would refuse |
//! | `news N` | answers N articles |
//! | `count` | says how often this sandbox was asked: `1`, if it is fresh |
//! | `message` | says the message as it arrived, in Rust's debug form |
//! | `env NAME` | says the variable's value, or `unset` |
//! | `info` | says milliseconds left, whether a late reply can be delivered, and the attempt: `4500 true 1` |
//! | `clock` | says how fine its clocks are: what is left of the time in ns after whole milliseconds |
//! | `input` | says how many bytes it reads from standard input |
//! | `open PATH` | says what comes of reading a file |
//! | `connect ADDRESS` | says what comes of connecting there |
//! | `print TEXT` | writes a line to standard output, then says `printed` |
//! | `flood MIB` | writes so much to standard output, then says `flooded` |
//! | `complain TEXT` | writes a line to standard error, then says `complained` |
//! | `kv KEY` | adds 1 to one of the plugin's keys and says the sum |
//! | `my KEY` | adds 1 to one of the user's keys and says the sum |
//! | `http URL` | fetches it and says status and body: `200 pong` |
//! | `api PATH` | GETs it from WeChat's API and says the JSON |
//! | `send TEXT` | sends the user a customer-service message, then says `sent` |
//!
//! An interface that refuses is quoted in debug form: `Error::Denied("…")`. Any other message gets no answer, so that the
//! next plugin is asked; an order without the number it needs is a failure that says so.

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "aviary:misbehave/misbehave",
    additional_derives: [PartialEq],
    generate_all,
});

use std::fmt::{Debug, Display};
use std::hint::{black_box, spin_loop};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aviary::bot::types::{Article, Body, Message, Reply};
use aviary::bot::{call_info, customer_service, http, kv, wechat_api};
use wasi::clocks::monotonic_clock::{Pollable, subscribe_duration};
use wasi::io::poll;
use wasi::random::random;

/// A day, in s.
const DAY_S: u64 = 24 * 60 * 60;

/// What the host calls.
#[derive(Debug)]
pub struct Misbehave;

impl exports::aviary::bot::handler::Guest for Misbehave {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        match &message.body {
            Body::Text(text) => obey(&text.content, &message),
            _ => Ok(None),
        }
    }
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Misbehave;
    super::export!(Misbehave with_types_in super);
}

/// Carries out one order of the table above.
fn obey(order: &str, message: &Message) -> Result<Option<Reply>, String> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let number = || rest.parse::<u32>().map_err(|_| format!("`{order}` needs a number"));
    Ok(Some(match verb {
        "loop" if rest == "forever" => forever(),
        "recurse" => say(descend(u64::MAX)),
        "trap" => std::process::abort(),
        "panic" => panic!("told to panic"),
        "exit" => std::process::exit(number()?.cast_signed()),
        "grow" => say(grow(number()?)),
        "hold" => {
            let _block = black_box(vec![1_u8; (number()? as usize) << 20]);
            std::thread::sleep(Duration::MAX);
            say("held")
        }
        "wait" => {
            std::thread::sleep(Duration::from_millis(number()?.into()));
            say("waited")
        }
        "sleep" => {
            std::thread::sleep(Duration::from_secs(u64::from(number()?) * DAY_S));
            say("slept")
        }
        "poll" => {
            let timers = year_long(number()?);
            say(format!("{:?} are ready", poll::poll(&timers.iter().collect::<Vec<_>>())))
        }
        "leak" => {
            std::mem::forget(year_long(number()?));
            say("leaked")
        }
        "random" => say(random::get_random_bytes(u64::from(number()?) << 20).len()),
        "fail" => return Err(rest.into()),
        "pass" => return Ok(None),
        "nothing" => Reply::Nothing,
        "say" => say(rest),
        "reply" => say("x".repeat(number()? as usize)),
        "empty" => say(""),
        "no" if rest == "media" => Reply::Image(String::new()),
        "news" => Reply::News((1..=number()?).map(article).collect()),
        "count" => say(count()),
        "message" => say(format!("{message:?}")),
        "env" => say(std::env::var(rest).unwrap_or_else(|_| "unset".into())),
        "info" => say(info()),
        "clock" => say(clock()),
        "input" => say(or_error(std::io::read_to_string(std::io::stdin()).map(|text| text.len()))),
        "open" => say(or_error(std::fs::read_to_string(rest))),
        "connect" => say(or_error(TcpStream::connect(rest).map(|_| "connected"))),
        "print" => {
            println!("{rest}");
            say("printed")
        }
        "flood" => {
            flood(number()?)?;
            say("flooded")
        }
        "complain" => {
            eprintln!("{rest}");
            say("complained")
        }
        "kv" => say(or_error(kv::open(kv::Scope::Plugin).and_then(|bucket| bucket.increment(rest, 1, None)))),
        "my" => say(or_error(kv::open(kv::Scope::User).and_then(|bucket| bucket.increment(rest, 1, None)))),
        "http" => say(or_error(fetch(rest))),
        "api" => say(or_error(wechat_api::call("GET", rest, &[], None))),
        "send" => say(or_error(send(&message.from_user, rest))),
        _ => return Ok(None),
    }))
}

fn say(text: impl Display) -> Reply {
    Reply::Text(text.to_string())
}

fn or_error(result: Result<impl Display, impl Debug>) -> String {
    match result {
        Ok(answer) => answer.to_string(),
        Err(error) => format!("{error:?}"),
    }
}

fn forever() -> ! {
    loop {
        spin_loop();
    }
}

/// Goes down `depth` frames. What each does on the way up depends on what came from below, so no compiler makes a loop of it.
fn descend(depth: u64) -> u64 {
    if depth == 0 {
        return 1;
    }
    descend(depth - 1).rotate_left(7) ^ depth
}

/// What its clocks tell beyond milliseconds, as they stand one after another for a while: 0, if they are coarse.
fn clock() -> u128 {
    let start = Instant::now();
    (0..1_000).map(|_| start.elapsed().as_nanos() % 1_000_000 + now().as_nanos() % 1_000_000).sum()
}

/// The time of day.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Fills memory: pages that were never written might never exist.
fn grow(mib: u32) -> String {
    let block = black_box(vec![1_u8; (mib as usize) << 20]);
    format!("grew by {} MiB", block.len() >> 20)
}

/// Makes timers, each one of the host's handles.
fn year_long(count: u32) -> Vec<Pollable> {
    let year_ns = 365 * DAY_S * 1_000_000_000;
    (0..count).map(|_| subscribe_duration(year_ns)).collect()
}

fn flood(mib: u32) -> Result<(), String> {
    /// Not on the stack, which is no larger.
    static BLOCK: [u8; 1 << 16] = [b'x'; 1 << 16];
    let mut stdout = std::io::stdout().lock();
    (0..mib << 4).try_for_each(|_| stdout.write_all(&BLOCK)).map_err(|error| error.to_string())
}

/// Counts in memory, where nothing may survive a call.
fn count() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

fn article(number: u32) -> Article {
    Article {
        title: format!("第 {number} 篇"),
        description: None,
        pic_url: None,
        url: format!("https://example.com/{number}"),
    }
}

fn info() -> String {
    let info = call_info::current();
    format!("{} {} {}", info.time_left_ms, info.late_reply, info.attempt)
}

fn fetch(url: &str) -> Result<String, http::Error> {
    let request =
        http::Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None };
    let response = http::send(&request)?;
    Ok(format!("{} {}", response.status, String::from_utf8_lossy(&response.body)))
}

fn send(openid: &str, text: &str) -> Result<&'static str, customer_service::Error> {
    let content = customer_service::Content::Text(text.into());
    let options = customer_service::Options { kf_account: None, is_ai: false };
    customer_service::send(openid, &content, &options)?;
    Ok("sent")
}
