//! Keywords: answers words with what the operator wrote beside them in the settings.
//!
//! ```toml
//! [plugins.keywords]
//! match = [{ type = "text" }, { event = "aviary_check" }]
//! env = { WORDS = """
//! 价格 = 每份 99 元
//! 地址 | 在哪 = 人民路 1 号
//! """ }
//! ```
//!
//! Settings are environment variables. What is wrong with them is told when the host asks, in its log and by `aviary check`.
//! The bundled plugin `keywords` does the same with a table from a spreadsheet.

use std::env;

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use aviary::bot::types::{Body, Event, Message, Reply};

/// The event by which the host asks whether the settings are right, whenever they are new.
const CHECK: &str = "aviary_check";

struct Keywords;

impl exports::aviary::bot::handler::Guest for Keywords {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        match message.body {
            Body::Text(text) => Ok(reply(&words()?, text.content.trim()).map(|reply| Reply::Text(reply.to_owned()))),
            Body::Event(Event::Other(name)) if name == CHECK => check(&words()?).map(|()| None),
            _ => Ok(None),
        }
    }
}

export!(Keywords);

/// The setting. Without it nothing can be answered, and whoever does not let the host ask is told so by each message.
fn words() -> Result<String, String> {
    env::var("WORDS").map_err(|error| format!("the setting `WORDS`: {error}"))
}

/// Finds what is said to a word. A line that is wrong answers nobody, and keeps no other from it.
fn reply<'a>(words: &'a str, asked: &str) -> Option<&'a str> {
    let is_asked = |names: &str| names.split(['|', '｜']).any(|name| name.trim() == asked);
    lines(words).filter_map(Result::ok).find(|(names, _)| is_asked(names)).map(|(_, reply)| reply)
}

/// Tells the first mistake.
fn check(words: &str) -> Result<(), String> {
    match lines(words).find_map(Result::err) {
        Some(mistake) => Err(mistake),
        None if lines(words).next().is_none() => Err("the setting `WORDS` has no words".into()),
        None => Ok(()),
    }
}

/// Returns the words and the reply of each line, or what is wrong with it.
fn lines(words: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let lines = words.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        match line.split_once('=').map(|(names, reply)| (names, reply.trim())) {
            Some((_, "")) => Err(format!("line {number} of `WORDS` has no reply: {line}")),
            Some(pair) => Ok(pair),
            None => Err(format!("line {number} of `WORDS` is not `word = reply`: {line}")),
        }
    })
}
