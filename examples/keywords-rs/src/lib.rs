//! Keywords: answers words with what the operator wrote beside them in the settings.
//!
//! ```toml
//! [plugins.keywords]
//! env = { WORDS = """
//! 价格 = 每份 99 元
//! 地址 | 在哪 = 人民路 1 号
//! """ }
//! ```
//!
//! Settings are environment variables. The bundled plugin `keywords` does the same with a table from a spreadsheet.

use std::env;

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use aviary::bot::types::{Body, Message, Reply};

struct Keywords;

impl exports::aviary::bot::handler::Guest for Keywords {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = message.body else { return Ok(None) };
        let words = env::var("WORDS").map_err(|_| "the setting `WORDS` is missing".to_owned())?;
        Ok(reply(&words, text.content.trim())?.map(|reply| Reply::Text(reply.to_owned())))
    }
}

export!(Keywords);

/// Finds what is said to a word.
fn reply<'a>(words: &'a str, asked: &str) -> Result<Option<&'a str>, String> {
    for (index, line) in words.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (names, reply) = line
            .split_once('=')
            .ok_or_else(|| format!("line {} of `WORDS` is not `word = reply`: {line}", index + 1))?;
        if names.split('|').any(|name| name.trim() == asked) {
            return Ok(Some(reply.trim()));
        }
    }
    Ok(None)
}
