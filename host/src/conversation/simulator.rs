//! WeChat's side of a conversation over HTTP: signs, encrypts, waits five seconds, tries three times, reads the reply as
//! WeChat does. `push`, `demo` and the tests play WeChat with it, and so does the host, to the webhook behind an account.
//!
//! See <https://developers.weixin.qq.com/doc/service/guide/dev/push/>.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use aviary_wechat::{
    crypt::{self, AesKey},
    envelope,
    signature::{sign, sign_message},
    xml::{self, Element},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, USER_AGENT},
    http::uri::{PathAndQuery, Uri},
};

pub use crate::https::{Answer, NoAnswer};
use crate::{
    config::{Account, Mode},
    https::Client,
    secret::Secret,
};

/// When WeChat hangs up, and tries again.
const TRY: Duration = Duration::from_secs(5);

/// How often WeChat sends a push that is not answered.
pub const TRIES_MAX: u32 = 3;

/// How long a URL may be; WeChat's form takes fewer.
const URL_BYTES_MAX: usize = 2048;

/// How much of a `FromUserName` goes into the query. WeChat's openids have 28 characters.
const OPENID_CHARS_MAX: usize = 128;

/// WeChat as one account's host sees it.
#[derive(Clone, Debug)]
pub struct Simulator {
    /// The account's token.
    pub token: Secret,
    /// How pushes are encrypted. Default: not at all.
    pub encryption: Encryption,
    /// How long a try waits for its answer. Default: 5 s, as WeChat does.
    pub timeout: Duration,
    url: Uri,
    client: Client,
}

/// How pushes are encrypted: the three modes of WeChat's console.
#[derive(Clone, Debug, Default)]
pub enum Encryption {
    /// 明文模式
    #[default]
    Plain,
    /// 兼容模式: each push carries both forms.
    Compatible { key: AesKey, app_id: String },
    /// 安全模式: only the ciphertext.
    Safe { key: AesKey, app_id: String },
}

impl Encryption {
    /// The encryption that an account is set up for.
    pub fn of(account: &Account) -> Self {
        // `Config` gives no account an encrypted mode without a key and an app id.
        match (account.mode, account.encoding_aes_key.clone(), account.app_id.clone()) {
            (Mode::Compatible, Some(key), Some(app_id)) => Self::Compatible { key, app_id },
            (Mode::Safe, Some(key), Some(app_id)) => Self::Safe { key, app_id },
            _ => Self::Plain,
        }
    }
}

/// A push, signed: what goes over the wire at every try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// WeChat's parameters, without the `?`.
    pub query: String,
    pub body: String,
}

/// What came back from the URL check.
#[derive(Clone, Debug)]
pub struct UrlCheck {
    /// What should have come back.
    pub echostr: String,
    pub answer: Answer,
}

impl Simulator {
    /// Plays WeChat for the account at `url`, in plain mode.
    ///
    /// # Errors
    ///
    /// The URL is not `http://…` or `https://…`.
    pub fn new(url: &str, token: &str) -> anyhow::Result<Simulator> {
        let wrong = || format!("`{url}` is no URL such as `http://127.0.0.1:8000/`");
        ensure!(url.len() <= URL_BYTES_MAX, "the URL has more than {URL_BYTES_MAX} bytes");
        let uri: Uri = url.parse().with_context(wrong)?;
        let scheme = uri.scheme_str().unwrap_or_default();
        ensure!(matches!(scheme, "http" | "https") && uri.authority().is_some(), wrong());
        Ok(Self {
            token: token.into(),
            encryption: Encryption::Plain,
            timeout: TRY,
            url: uri,
            client: Client::default(),
        })
    }

    /// Plays WeChat for the webhook behind an account, if it has one, in the account's mode.
    pub fn of_webhook(account: &Account, client: Client) -> Option<Simulator> {
        let (token, encryption) = (account.token.clone(), Encryption::of(account));
        Some(Self { token, encryption, timeout: TRY, url: account.forward.clone()?, client })
    }

    /// Pushes a message once.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`], or the system has no random numbers.
    pub async fn push(&self, xml: &str) -> anyhow::Result<Answer> {
        Ok(self.send(&self.sign(xml)?).await?)
    }

    /// Signs a push, and encrypts it as the mode says, with new random numbers.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn sign(&self, xml: &str) -> anyhow::Result<Signed> {
        let mut query = self.signed_query()?;
        let push = xml::parse(xml.as_bytes()).unwrap_or_default();
        let openid = push.text_of("FromUserName").unwrap_or_default();
        query.add("openid", &openid.chars().take(OPENID_CHARS_MAX).collect::<String>());
        let (key, app_id) = match &self.encryption {
            Encryption::Plain => return Ok(Signed { query: query.text, body: xml.to_owned() }),
            Encryption::Compatible { key, app_id } | Encryption::Safe { key, app_id } => (key, app_id),
        };

        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let encrypt = crypt::encrypt(key, random, xml.as_bytes(), app_id);
        query.add("encrypt_type", "aes");
        let msg_signature = sign_message(self.token.expose(), &query.timestamp, &query.nonce, &encrypt);
        query.add("msg_signature", &msg_signature);
        let body = match &self.encryption {
            Encryption::Compatible { .. } => with_ciphertext(xml, &encrypt),
            _ => envelope::push(push.text_of("ToUserName").unwrap_or_default(), &encrypt),
        };
        Ok(Signed { query: query.text, body })
    }

    /// Sends a signed push once.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`].
    pub async fn send(&self, push: &Signed) -> Result<Answer, NoAnswer> {
        self.send_within(push, self.timeout).await
    }

    /// Sends a signed push once, and waits so long for its answer.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`].
    pub async fn send_within(&self, push: &Signed, timeout: Duration) -> Result<Answer, NoAnswer> {
        let mut request = self.request(Method::POST, &push.query, push.body.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        self.client.send(request, timeout).await
    }

    /// Sends a signed push by WeChat's clock until it is answered, or was tried `tries` times; shows `each` what came of
    /// every try.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] of the last try.
    pub async fn deliver(
        &self,
        push: &Signed,
        tries: u32,
        mut each: impl FnMut(u32, &Result<Answer, NoAnswer>),
    ) -> Result<Answer, NoAnswer> {
        let mut number = 1;
        loop {
            let next = tokio::time::Instant::now() + self.timeout;
            let result = self.send(push).await;
            each(number, &result);
            if result.is_ok() || number >= tries {
                return result;
            }
            // A host that is down refuses at once, but WeChat's next try comes no sooner for it.
            tokio::time::sleep_until(next).await;
            number += 1;
        }
    }

    /// Checks the URL, as WeChat does when the form of its console is saved.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`], or the system has no random numbers.
    pub async fn check_url(&self) -> anyhow::Result<UrlCheck> {
        let echostr = getrandom::u64()?.to_string();
        let mut query = self.signed_query()?;
        query.add("echostr", &echostr);
        let request = self.request(Method::GET, &query.text, String::new());
        let answer = self.client.send(request, self.timeout).await?;
        Ok(UrlCheck { echostr, answer })
    }

    /// Reads an answer's reply, decrypted; nothing for `success` and for an empty body.
    ///
    /// # Errors
    ///
    /// What WeChat would not understand, and would tell the user that the account is out of order.
    pub fn reply(&self, answer: &Answer) -> anyhow::Result<Option<Element>> {
        if matches!(&answer.body[..], b"" | b"success") {
            return Ok(None);
        }
        let body = xml::parse(&answer.body).context("the reply is no XML")?;
        let is_sealed = envelope::ciphertext(&body).is_some();
        let (key, app_id) = match (&self.encryption, is_sealed) {
            (Encryption::Plain, true) => bail!("the reply is encrypted, but the push was not"),
            (Encryption::Safe { .. }, false) => bail!("the reply is not encrypted, but the push was"),
            (Encryption::Plain | Encryption::Compatible { .. }, false) => return Ok(Some(body)),
            (Encryption::Compatible { key, app_id } | Encryption::Safe { key, app_id }, true) => (key, app_id),
        };
        let opened = envelope::open(key, app_id, self.token.expose(), &answer.body);
        let opened = opened.context("the reply's envelope cannot be opened")?;
        Ok(Some(xml::parse(&opened).context("the decrypted reply is no XML")?))
    }

    fn signed_query(&self) -> anyhow::Result<Query> {
        let timestamp = now_s().to_string();
        let nonce = getrandom::u32()?.to_string();
        let signature = sign(self.token.expose(), &timestamp, &nonce);
        let mut query = Query { text: String::new(), timestamp, nonce };
        query.add("signature", &signature);
        query.add("timestamp", &query.timestamp.clone());
        query.add("nonce", &query.nonce.clone());
        Ok(query)
    }

    fn request(&self, method: Method, query: &str, body: String) -> Request<Full<Bytes>> {
        let path = self.url.path();
        // The account's own parameters, if its URL has any, come first.
        let path_and_query = match self.url.query() {
            Some(own) if !own.is_empty() => format!("{path}?{own}&{query}"),
            _ => format!("{path}?{query}"),
        };
        let mut parts = self.url.clone().into_parts();
        let path_and_query = PathAndQuery::try_from(path_and_query);
        parts.path_and_query = Some(path_and_query.expect("both are bounded, and were a URL's or are escaped"));
        let uri = Uri::from_parts(parts).expect("a URL with another query is a URL");
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("Mozilla/4.0"));
        request
    }
}

impl UrlCheck {
    /// Tells whether WeChat would accept the URL.
    pub fn passed(&self) -> bool {
        self.answer.status == StatusCode::OK && self.answer.body == self.echostr
    }
}

/// WeChat's parameters, so far.
struct Query {
    text: String,
    timestamp: String,
    nonce: String,
}

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        let separator = if self.text.is_empty() { "" } else { "&" };
        self.text.extend([separator, name, "="]);
        self.text.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
}

/// Adds `Encrypt` after the plaintext's elements, also to what is no XML: that is the host's to refuse.
fn with_ciphertext(xml: &str, encrypt: &str) -> String {
    let end = xml.rfind("</xml>").unwrap_or(xml.len());
    let (elements, end) = xml.split_at(end);
    format!("{elements}<Encrypt><![CDATA[{encrypt}]]></Encrypt>{end}")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use aviary_wechat::signature::{verify, verify_message};
    use hyper::HeaderMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PUSH: &str =
        "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[o_小明]]></FromUserName></xml>";

    fn key() -> AesKey {
        AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG").unwrap()
    }

    fn simulator(encryption: Encryption) -> Simulator {
        Simulator { encryption, ..Simulator::new("http://127.0.0.1:1/wx?a=b", "token").unwrap() }
    }

    fn compatible() -> Encryption {
        Encryption::Compatible { key: key(), app_id: "wx1".into() }
    }

    fn safe() -> Encryption {
        Encryption::Safe { key: key(), app_id: "wx1".into() }
    }

    fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    fn answer(body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        Answer { status: StatusCode::OK, headers: HeaderMap::new(), body, elapsed: Duration::ZERO }
    }

    /// A host that gives each connection one of these answers, and then holds on without a word.
    async fn host(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            let mut answers = answers.iter();
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).await;
                match answers.next().copied() {
                    Some("") | None => held.push(connection),
                    Some(answer) => {
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                        let _ = connection.write_all((head + answer).as_bytes()).await;
                    }
                }
            }
        });
        format!("http://{address}/")
    }

    #[test]
    fn a_plain_push_is_signed_and_left_as_it_is() {
        let signed = simulator(Encryption::Plain).sign(PUSH).unwrap();
        let query = |name| parameter(&signed.query, name).unwrap();
        assert!(verify("token", query("timestamp"), query("nonce"), query("signature")));
        assert_eq!(query("openid"), "o_%E5%B0%8F%E6%98%8E");
        assert_eq!(parameter(&signed.query, "encrypt_type"), None);
        assert_eq!(signed.body, PUSH);
    }

    #[test]
    fn an_encrypted_push_is_signed_with_its_ciphertext() {
        for encryption in [compatible(), safe()] {
            let signed = simulator(encryption).sign(PUSH).unwrap();
            let body = xml::parse(signed.body.as_bytes()).unwrap();
            let encrypt = envelope::ciphertext(&body).unwrap();
            let query = |name| parameter(&signed.query, name).unwrap();
            assert_eq!(query("encrypt_type"), "aes");
            assert!(verify_message("token", query("timestamp"), query("nonce"), encrypt, query("msg_signature")));
            assert_eq!(crypt::decrypt(&key(), encrypt, "wx1").unwrap(), PUSH.as_bytes());
            assert_eq!(body.text_of("ToUserName"), Some("gh_1"));
        }
    }

    #[test]
    fn only_the_compatible_mode_sends_the_plaintext_too() {
        assert!(simulator(compatible()).sign(PUSH).unwrap().body.contains("o_小明"));
        assert!(!simulator(safe()).sign(PUSH).unwrap().body.contains("o_小明"));
    }

    #[test]
    fn two_pushes_of_one_message_are_signed_anew() {
        let simulator = simulator(safe());
        assert_ne!(simulator.sign(PUSH).unwrap(), simulator.sign(PUSH).unwrap());
    }

    #[test]
    fn a_url_keeps_its_own_parameters() {
        let request = simulator(Encryption::Plain).request(Method::GET, "c=d", String::new());
        assert_eq!(request.uri(), "http://127.0.0.1:1/wx?a=b&c=d");
        let bare = Simulator::new("https://example.com", "token").unwrap();
        assert_eq!(bare.request(Method::GET, "c=d", String::new()).uri(), "https://example.com/?c=d");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["", "127.0.0.1:8000", "/wx", "ftp://a/", "http://", "http://a b/"] {
            let error = Simulator::new(url, "token").unwrap_err();
            assert!(error.to_string().contains("is no URL such as"), "{url}: {error}");
        }
    }

    #[test]
    fn a_url_or_a_user_without_end_is_bounded() {
        assert!(Simulator::new(&format!("http://a/{}", "a".repeat(70_000)), "token").is_err());
        let long = format!("<xml><FromUserName>{}</FromUserName></xml>", "微".repeat(70_000));
        let simulator = simulator(Encryption::Plain);
        let signed = simulator.sign(&long).unwrap();
        assert!(simulator.request(Method::POST, &signed.query, signed.body).uri().query().is_some());
    }

    #[test]
    fn success_and_nothing_are_no_reply_in_every_mode() {
        for encryption in [Encryption::Plain, compatible(), safe()] {
            let simulator = simulator(encryption);
            assert_eq!(simulator.reply(&answer("success")).unwrap(), None);
            assert_eq!(simulator.reply(&answer("")).unwrap(), None);
            assert!(simulator.reply(&answer("{\"errcode\":0}")).is_err());
        }
    }

    #[test]
    fn a_reply_comes_in_the_form_that_the_mode_allows() {
        let sealed = envelope::seal(&key(), "wx1", "token", 1, "2", [9; 16], PUSH);
        let understood = |encryption, body: &str| {
            let reply = simulator(encryption).reply(&answer(body.to_owned()));
            reply.is_ok_and(|reply| reply.unwrap().text_of("ToUserName") == Some("gh_1"))
        };
        assert!(understood(Encryption::Plain, PUSH));
        assert!(!understood(Encryption::Plain, &sealed));
        assert!(understood(compatible(), PUSH));
        assert!(understood(compatible(), &sealed));
        assert!(!understood(safe(), PUSH));
        assert!(understood(safe(), &sealed));
        assert!(!understood(Encryption::Safe { key: key(), app_id: "wx2".into() }, &sealed));
    }

    #[tokio::test]
    async fn an_answer_is_read_whole() {
        let simulator = Simulator::new(&host(&["success"]).await, "token").unwrap();
        let answer = simulator.push(PUSH).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"success"[..]));
    }

    #[tokio::test]
    async fn a_url_that_echoes_something_else_does_not_pass() {
        let simulator = Simulator::new(&host(&["hello"]).await, "token").unwrap();
        assert!(!simulator.check_url().await.unwrap().passed());
    }

    #[tokio::test]
    async fn a_try_that_is_not_answered_is_followed_by_the_same_push() {
        let mut simulator = Simulator::new(&host(&["", "", "success"]).await, "token").unwrap();
        simulator.timeout = Duration::from_millis(50);
        let push = simulator.sign(PUSH).unwrap();
        let mut tries = Vec::new();
        let answer = simulator.deliver(&push, TRIES_MAX, |number, result| tries.push((number, result.is_ok()))).await;
        assert_eq!(answer.unwrap().body, "success");
        assert_eq!(tries, [(1, false), (2, false), (3, true)]);
    }

    #[tokio::test]
    async fn after_the_last_try_there_is_no_answer() {
        let mut simulator = Simulator::new(&host(&[]).await, "token").unwrap();
        simulator.timeout = Duration::from_millis(20);
        let push = simulator.sign(PUSH).unwrap();
        let error = simulator.deliver(&push, 2, |_, _| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 20 ms");
    }

    #[tokio::test]
    async fn a_host_that_is_down_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let simulator = Simulator::new(&format!("http://{address}/wx?secret=1"), "token").unwrap();
        let error = simulator.send(&simulator.sign(PUSH).unwrap()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot reach http://{address}/wx: ")), "{error}");
    }
}
