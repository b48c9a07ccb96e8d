//! Keeper: the plugin that keeps what the tests tell it to.
//!
//! A text message is orders, one a line; the reply has the answers with `; ` between. Built for `wasm32-wasip2` and never shipped. An
//! order that begins with `my` is about the user's own keys, any other about the plugin's.
//!
//! | order | what it says |
//! |---|---|
//! | `get KEY` | the value, or `nothing` |
//! | `set KEY VALUE` | `set` |
//! | `set KEY VALUE for N` | `set`, for N seconds |
//! | `fill KEY N` | `set`, to a value of N bytes |
//! | `delete KEY` | `deleted` |
//! | `add N KEY` | the sum |
//! | `swap KEY OLD NEW` | `true` or `false`; `-` stands for nothing |
//! | `keys PREFIX AFTER LIMIT` | the keys with blanks between; `-` stands for nothing |
//! | `open N` | `opened`, after opening N buckets and closing each at once |
//! | `hold N` | `opened`, while it holds N buckets |
//! | `# WORDS` | nothing: WORDS are for the rules that choose the plugin |
//!
//! An operation that is refused is quoted in debug form: `Error::Full("…")`. Any other message gets no answer.

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use std::fmt::Debug;

use aviary::bot::kv::{self, Bucket, Scope};
use aviary::bot::types::{Body, Message, Reply};

/// What the host calls.
#[derive(Debug)]
pub struct Keeper;

impl exports::aviary::bot::handler::Guest for Keeper {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = message.body else { return Ok(None) };
        let orders = text.content.lines().filter(|line| !line.starts_with('#'));
        let answers: Option<Vec<String>> = orders.map(obey).collect();
        Ok(answers.map(|answers| Reply::Text(answers.join("; "))))
    }
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Keeper;
    super::export!(Keeper with_types_in super);
}

/// Carries out one order of the table above; `None` if it is none.
fn obey(order: &str) -> Option<String> {
    let (scope, order) = match order.strip_prefix("my ") {
        Some(order) => (Scope::User, order),
        None => (Scope::Plugin, order),
    };
    let words: Vec<&str> = order.split(' ').collect();
    let open = || kv::open(scope);
    Some(match words[..] {
        ["get", key] => said(open().and_then(|bucket| Ok(shown(bucket.get(key)?)))),
        ["set", key, value] => said(open().and_then(|bucket| set(&bucket, key, value.as_bytes(), None))),
        ["set", key, value, "for", seconds] => {
            let seconds = seconds.parse().ok()?;
            said(open().and_then(|bucket| set(&bucket, key, value.as_bytes(), Some(seconds))))
        }
        ["fill", key, bytes] => {
            let value = vec![b'x'; bytes.parse().ok()?];
            said(open().and_then(|bucket| set(&bucket, key, &value, None)))
        }
        ["delete", key] => said(open().and_then(|bucket| bucket.delete(key)).map(|()| "deleted".into())),
        ["add", delta, key] => {
            let delta = delta.parse().ok()?;
            said(open().and_then(|bucket| Ok(bucket.increment(key, delta, None)?.to_string())))
        }
        ["swap", key, old, new] => said(open().and_then(|bucket| {
            let swapped = bucket.compare_and_set(key, unless_dash(old), unless_dash(new), None)?;
            Ok(swapped.to_string())
        })),
        ["keys", prefix, after, limit] => {
            let limit = limit.parse().ok()?;
            let prefix = if prefix == "-" { "" } else { prefix };
            said(open().and_then(|bucket| {
                Ok(bucket.keys(prefix, Some(after).filter(|after| *after != "-"), limit)?.join(" "))
            }))
        }
        ["open", count] => said((0..count.parse().ok()?).try_for_each(|_| open().map(drop)).map(|()| "opened".into())),
        ["hold", count] => {
            let held: Result<Vec<Bucket>, _> = (0..count.parse().ok()?).map(|_| open()).collect();
            said(held.map(|_| "opened".into()))
        }
        _ => return None,
    })
}

fn set(bucket: &Bucket, key: &str, value: &[u8], ttl_s: Option<u32>) -> Result<String, kv::Error> {
    bucket.set(key, value, ttl_s)?;
    Ok("set".into())
}

fn unless_dash(word: &str) -> Option<&[u8]> {
    Some(word.as_bytes()).filter(|word| *word != b"-")
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or_else(|| "nothing".into(), |value| String::from_utf8_lossy(&value).into_owned())
}

fn said(outcome: Result<String, impl Debug>) -> String {
    outcome.unwrap_or_else(|error| format!("{error:?}"))
}
