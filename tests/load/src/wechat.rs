//! WeChat's side of the wire: pushes, each a new message, and what their answers say.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use aviary_wechat::{
    crypt::{self, AesKey},
    envelope, signature,
    xml::{self, Writer},
};

use crate::account::{self, Mode};

/// How many users write to the account, in turn.
const USERS: u64 = 10_000;

/// The first MsgId; WeChat's have 17 digits and more.
const MSG_ID_FIRST: u64 = 10_000_000_000_000_000;

/// An odd number, so that multiplying by it maps the 32-bit numbers one to one: nonces look random and never repeat,
/// which matters because a signature is good for one message.
const NONCE_STEP: u32 = 0x9e37_79b1;

/// Writes pushes and reads their answers. Shared by all connections.
#[derive(Debug)]
pub struct WeChat {
    key: Option<AesKey>,
    sent: AtomicU64,
}

/// A text message on its way.
#[derive(Debug)]
pub struct Push {
    /// The whole HTTP request.
    pub request: String,
    pub text: String,
    from_user_name: String,
}

impl Push {
    /// A request that is no push, as it is.
    pub fn of_visitor(request: &str) -> Self {
        Self { request: request.to_owned(), text: String::new(), from_user_name: String::new() }
    }
}

impl WeChat {
    /// Begins with the first message of an account in this mode.
    pub fn new(mode: Mode) -> Self {
        let key = (mode == Mode::Safe).then(account::aes_key);
        Self { key, sent: AtomicU64::new(0) }
    }

    /// Writes the next message, signed at `now_s`, with a text of its own.
    pub fn push(&self, now_s: u64) -> Push {
        self.write(now_s, |number| format!("第 {number} 条：今天 <北京> 天气怎么样？"))
    }

    /// Writes the next message, signed at `now_s`, with this text.
    pub fn say(&self, now_s: u64, text: &str) -> Push {
        self.write(now_s, |_| text.into())
    }

    /// Writes the next message of the user who sent `before`.
    pub fn say_as(&self, before: &Push, now_s: u64, text: &str) -> Push {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        self.write_as(before.from_user_name.clone(), number, now_s, text.into())
    }

    fn write(&self, now_s: u64, text: impl FnOnce(u64) -> String) -> Push {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        self.write_as(format!("oLoad_{:022}", number % USERS), number, now_s, text(number))
    }

    fn write_as(&self, from_user_name: String, number: u64, now_s: u64, text: String) -> Push {
        let xml = message(&from_user_name, &text, MSG_ID_FIRST + number, now_s);
        let (timestamp, nonce) = (now_s.to_string(), nonce(number).to_string());
        let signature = signature::sign(account::TOKEN, &timestamp, &nonce);
        let mut query = format!("signature={signature}&timestamp={timestamp}&nonce={nonce}&openid={from_user_name}");
        let body = match &self.key {
            None => xml,
            Some(key) => {
                let encrypt = crypt::encrypt(key, u128::from(number).to_be_bytes(), xml.as_bytes(), account::APP_ID);
                let msg_signature = signature::sign_message(account::TOKEN, &timestamp, &nonce, &encrypt);
                let _ = write!(query, "&encrypt_type=aes&msg_signature={msg_signature}");
                envelope::push(account::USER_NAME, &encrypt)
            }
        };
        Push { request: request(&query, &body), text, from_user_name }
    }

    /// Reads the text of the reply to `push`, if it is a text, and for that push's user.
    pub fn read(&self, push: &Push, body: &[u8]) -> Result<String, String> {
        let xml = match &self.key {
            None => Cow::Borrowed(body),
            Some(key) => envelope::open(key, account::APP_ID, account::TOKEN, body)
                .map_err(|error| format!("an answer cannot be opened: {error}"))?
                .into(),
        };
        let reply = xml::parse(&xml).map_err(|error| {
            format!("an answer is no reply ({error}): {:?}", String::from_utf8_lossy(&xml[..xml.len().min(80)]))
        })?;
        let is = |name, value: &str| match reply.text_of(name) {
            Some(found) if found == value => Ok(()),
            found => Err(format!("`{name}` of an answer is {found:?} instead of {value:?}")),
        };
        is("ToUserName", &push.from_user_name)?;
        is("FromUserName", account::USER_NAME)?;
        is("MsgType", "text")?;
        reply.text_of("Content").map(str::to_owned).ok_or_else(|| "an answer has no `Content`".into())
    }
}

impl Push {
    /// The request's query and body.
    pub fn query_and_body(&self) -> (&str, &str) {
        let (head, body) = self.request.split_once("\r\n\r\n").expect("we wrote it so");
        let query = head.strip_prefix("POST /?").and_then(|rest| rest.split(' ').next());
        (query.expect("we wrote it so"), body)
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn message(from_user_name: &str, text: &str, msg_id: u64, now_s: u64) -> String {
    let mut xml = Writer::new();
    xml.text("ToUserName", account::USER_NAME)
        .text("FromUserName", from_user_name)
        .number("CreateTime", now_s)
        .text("MsgType", "text")
        .text("Content", text)
        .number("MsgId", msg_id);
    xml.finish()
}

/// The header is WeChat's own.
fn request(query: &str, body: &str) -> String {
    format!(
        "POST /?{query} HTTP/1.1\r\nUser-Agent: Mozilla/4.0\r\nAccept: */*\r\nHost: bot.example.com\r\n\
         Pragma: no-cache\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn nonce(number: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "nonces repeat after 4 billion messages, a timestamp sooner")]
    let number = number as u32;
    number.wrapping_mul(NONCE_STEP)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::native;

    #[test]
    fn a_push_is_signed_and_says_its_text() {
        let push = WeChat::new(Mode::Plain).push(1_714_036_504);
        let (query, body) = push.query_and_body();
        let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let of = |name| query.iter().find(|(key, _)| key == name).unwrap().1.as_ref();
        assert!(signature::verify(account::TOKEN, of("timestamp"), of("nonce"), of("signature")));
        let root = xml::parse(body.as_bytes()).unwrap();
        assert_eq!(root.text_of("Content"), Some("第 0 条：今天 <北京> 天气怎么样？"));
        assert_eq!(root.text_of("FromUserName"), Some("oLoad_0000000000000000000000"));
        assert_eq!(root.text_of("CreateTime"), Some("1714036504"));
        assert_eq!(root.last_text_of("MsgId"), Some("10000000000000000"));
        assert!(push.request.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn no_two_pushes_share_a_signature_or_a_body() {
        let wechat = WeChat::new(Mode::Plain);
        let pushes: Vec<Push> = (0..1_000).map(|_| wechat.push(1_714_036_504)).collect();
        assert_eq!(pushes.iter().map(|push| push.query_and_body().0).collect::<HashSet<_>>().len(), 1_000);
        assert_eq!(pushes.iter().map(|push| push.query_and_body().1).collect::<HashSet<_>>().len(), 1_000);
    }

    #[test]
    fn the_native_handler_echoes_in_both_modes() {
        for mode in [Mode::Plain, Mode::Safe] {
            let wechat = WeChat::new(mode);
            let push = wechat.push(now_s());
            let (query, body) = push.query_and_body();
            let answer = native::answer(mode, query, body.as_bytes()).unwrap();
            assert_eq!(wechat.read(&push, answer.as_bytes()), Ok(push.text.clone()));
        }
    }

    #[test]
    fn the_echo_of_another_users_message_is_no_answer() {
        let wechat = WeChat::new(Mode::Plain);
        let (push, other) = (wechat.push(now_s()), wechat.push(now_s()));
        let (query, body) = other.query_and_body();
        let answer = native::answer(Mode::Plain, query, body.as_bytes()).unwrap();
        assert!(wechat.read(&push, answer.as_bytes()).unwrap_err().contains("`ToUserName`"));
        assert!(wechat.read(&push, b"success").unwrap_err().contains("no reply"));
    }
}
