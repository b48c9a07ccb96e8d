//! The lines with `!`: what the bot is given before the conversation begins.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long an answer may be held back: longer than any wait of the host, short enough to notice a slip.
const AFTER_MAX: Duration = Duration::from_secs(600);

/// An HTTP request that plugins may make in this conversation, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub method: String,
    pub url: String,
    pub status: u16,
    /// The answer's body.
    pub body: String,
    /// How long the answer takes.
    pub after: Duration,
}

/// Reads `NAME=value`.
pub(super) fn variable(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a setting is written `! env NAME=value`")?;
    let name = name.trim();
    let is_name = !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    ensure!(is_name, "`{name}` cannot name a setting; it has letters, digits and `_`");
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `METHOD URL -> STATUS BODY after 8s`; body and time may be missing.
pub(super) fn exchange(text: &str) -> anyhow::Result<Exchange> {
    const USAGE: &str = "`!` begins `! env NAME=value` or `! METHOD https://… -> STATUS BODY after 8s`";
    let (request, answer) = text.split_once(" -> ").context(USAGE)?;
    let (method, url) = request.trim().split_once(char::is_whitespace).context(USAGE)?;
    let url = url.trim();
    ensure!(
        !method.is_empty() && method.chars().all(|char| char.is_ascii_uppercase()),
        "`{method}` is no HTTP method such as `GET` or `POST`"
    );
    ensure!(
        (url.starts_with("https://") || url.starts_with("http://")) && !url.contains(char::is_whitespace),
        "`{url}` is no address; it begins with `https://` or `http://` and has no blanks"
    );

    let (status, body) = answer.trim().split_once(char::is_whitespace).unwrap_or((answer.trim(), ""));
    let code = status.parse().ok().filter(|code| (100..600).contains(code));
    let status = code.with_context(|| format!("`{status}` is no HTTP status from 100 to 599"))?;
    let (body, after) = match format!(" {body}").rsplit_once(" after ") {
        Some((body, time)) if time.starts_with(|char: char| char.is_ascii_digit()) => {
            (body.trim().to_owned(), duration(time.trim())?)
        }
        _ => (body.trim().to_owned(), Duration::ZERO),
    };
    Ok(Exchange { method: method.to_owned(), url: url.to_owned(), status, body, after })
}

/// Reads `8s` or `300ms`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or_default(), Duration::from_secs(1)),
    };
    let time = number.parse().ok().and_then(|number| unit.checked_mul(number));
    match time {
        Some(time) if time <= AFTER_MAX => Ok(time),
        _ => bail!("`{text}` is no time such as `8s` or `300ms`, at most {} s", AFTER_MAX.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_may_answer_at_once_and_with_nothing() {
        let get = exchange("GET https://a/b?c=d -> 204").unwrap();
        assert_eq!((get.method.as_str(), get.url.as_str()), ("GET", "https://a/b?c=d"));
        assert_eq!((get.status, get.body.as_str(), get.after), (204, "", Duration::ZERO));
        let slow = exchange("GET https://a/ -> 500 after 300ms").unwrap();
        assert_eq!((slow.body.as_str(), slow.after), ("", Duration::from_millis(300)));
    }

    #[test]
    fn a_body_may_speak_of_time() {
        let exchange = exchange("GET https://a/ -> 200 the day after tomorrow -> sun").unwrap();
        assert_eq!(exchange.body, "the day after tomorrow -> sun");
        assert_eq!(exchange.after, Duration::ZERO);
    }

    #[test]
    fn an_exchange_that_is_none_says_why() {
        let refusal = |text| exchange(text).unwrap_err().to_string();
        assert!(refusal("environment A=b").contains("! env NAME=value"));
        assert!(refusal("get https://a/ -> 200").contains("`get` is no HTTP method"));
        assert!(refusal("GET a/b -> 200").contains("`a/b` is no address"));
        assert!(refusal("GET https://a/ -> ok").contains("`ok` is no HTTP status"));
        assert!(refusal("GET https://a/ -> 200 x after 8h").contains("`8h` is no time"));
        assert!(refusal("GET https://a/ -> 200 x after 99999999999s").contains("is no time"));
    }

    #[test]
    fn a_setting_keeps_its_value() {
        assert_eq!(variable("A_1=b = c").unwrap(), ("A_1".into(), "b = c".into()));
        assert_eq!(variable("A=").unwrap(), ("A".into(), String::new()));
        for wrong in ["A", "=b", "1A=b", "A B=c", "城市=北京"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
