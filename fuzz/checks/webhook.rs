//! What must hold of the webhook, whatever the request: no panic, no 5xx, no 200 for what WeChat did not send, and for
//! everything else the status that the table of answers says. [`expected`] is that table, written a second time.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aviary_host::{
    app::App,
    config::Config,
    message::{self, Push},
    webhook::{self, SUCCESS},
};
use aviary_wechat::{
    crypt::{self, AesKey},
    envelope, signature,
    xml::{self, Element},
};
use axum::{
    body::Body,
    extract::State,
    http::{Method, Request, Uri, header::CONTENT_TYPE},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::decrypt::{Step, decrypted, key_bytes};

/// The account of Senparc's vectors, which are real traffic, before and after its key was changed.
const TOKEN: &str = "weixin";
const APP_ID: &str = "wx669ef95216eef885";
const ENCODING_AES_KEY: &str = "YTJkZmVjMzQ5NDU5NDY3MDhiZWI0NTdiMjFiY2I5MmU";
const PREVIOUS_ENCODING_AES_KEY: &str = "mNnY5GekpChwqhy2c4NBH90g3hND6GeI4gii2YCvKLY";
const PREVIOUS_TOKEN: &str = "weixin4j";

/// Small, so that the bound is met.
const BODY_BYTES_MAX: usize = 4_096;

const MAX_AGE_S: u64 = 600;

/// An account in each mode. But for one they take any age, so that recorded signatures count.
const ACCOUNTS: [Account; 4] = [
    Account { path: "/plain", mode: Mode::Plain, has_previous: false, max_age_s: 0 },
    Account { path: "/compatible", mode: Mode::Compatible, has_previous: false, max_age_s: MAX_AGE_S },
    Account { path: "/safe", mode: Mode::Safe, has_previous: false, max_age_s: 0 },
    Account { path: "/rotating", mode: Mode::Compatible, has_previous: true, max_age_s: 0 },
];

struct Account {
    path: &'static str,
    mode: Mode,
    has_previous: bool,
    max_age_s: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Compatible,
    Safe,
}

/// A host without plugins.
pub struct Harness {
    runtime: Runtime,
    app: Arc<App>,
    _dir: TempDir,
}

/// What the first two bytes of an input ask for. The others are a query, a line feed, and a body.
struct Asked {
    account: &'static Account,
    method: Method,
    /// The harness puts WeChat's parameters before the query.
    signed: bool,
    /// What it signs is the query's own timestamp and nonce.
    own_time: bool,
    /// The harness encrypts the body.
    sealed: bool,
    /// Encrypted, the body stays beside its ciphertext.
    beside: bool,
    previous_token: bool,
    previous_key: bool,
    other_app_id: bool,
    /// The last digit of the signature is another one.
    spoilt: bool,
    /// The signature was made yesterday.
    old: bool,
}

/// A request as it goes over the wire.
struct Sent {
    account: &'static Account,
    method: Method,
    query: Vec<u8>,
    body: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    body: Vec<u8>,
}

impl Harness {
    /// Starts the host in a directory of its own.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let file = dir.path().join("aviary.toml");
        fs::write(&file, settings()).expect("the directory is there");
        fs::create_dir(dir.path().join("plugins")).expect("the directory is there");
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        let app = App::new(config, Path::new("no-plugin-is-compiled")).expect("the host starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it needs nothing");
        runtime.block_on(app.reload());
        Self { runtime, app, _dir: dir }
    }

    /// Sends the request that an input describes, and some that follow from it.
    pub fn check(&self, input: &[u8]) {
        let [first, second, rest @ ..] = input else { return };
        let (query, body) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &[][..]),
        };
        let asked = Asked::of(*first, *second);
        let sent = sent(&asked, query, body);
        // What hyper would not read never gets here.
        let Some(answer) = self.answer(&sent) else { return };
        let (expected, message) = expected(&sent);
        // A signature without a new nonce may have come with another message in an earlier input.
        if (!asked.signed || asked.own_time) && message == Some(Form::Plain) && answer.status == 403 {
            return;
        }
        assert_eq!(answer, expected, "{} {}", sent.account.path, String::from_utf8_lossy(&sent.query));
        if expected.status != 200 || sent.method != Method::POST {
            return;
        }
        assert_eq!(self.answer(&sent), Some(answer), "a retry gets the same answer");
        if message == Some(Form::Plain) {
            let other = Sent { query: sent.query.clone(), body: new_message().into(), ..sent };
            let answer = self.answer(&other).expect("the query was read before");
            assert_eq!(answer, Answer::refusal(403), "a signature is good for one message");
        }
    }

    fn answer(&self, sent: &Sent) -> Option<Answer> {
        let target = [sent.account.path.as_bytes(), b"?", &sent.query].concat();
        let uri = Uri::from_maybe_shared(target).ok()?;
        let mut request = Request::new(Body::from(sent.body.clone()));
        *request.uri_mut() = uri;
        *request.method_mut() = sent.method.clone();
        Some(self.runtime.block_on(async {
            let response = webhook::handle(State(self.app.clone()), request).await;
            let content_type = response.headers().get(CONTENT_TYPE);
            Answer {
                status: response.status().as_u16(),
                content_type: content_type.map(|value| value.to_str().expect("it is ASCII").to_owned()),
                body: axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("it is in memory").into(),
            }
        }))
    }
}

fn settings() -> String {
    let mut toml = format!(
        "[listener]\nbody_bytes_max = {BODY_BYTES_MAX}\n[dedupe]\nkeys_max = 1000\n[engine]\ninstances_max = 1\n\
         [log]\nlevel = \"off\"\n"
    );
    for Account { path, mode, has_previous, max_age_s } in ACCOUNTS {
        let mode = match mode {
            Mode::Plain => "plain",
            Mode::Compatible => "compatible",
            Mode::Safe => "safe",
        };
        toml += &format!(
            "[accounts.{}]\npath = \"{path}\"\nmode = \"{mode}\"\ntoken = \"{TOKEN}\"\napp_id = \"{APP_ID}\"\n\
             encoding_aes_key = \"{ENCODING_AES_KEY}\"\nsignature_max_age_s = {max_age_s}\n",
            &path[1..]
        );
        if has_previous {
            toml += &format!(
                "previous_token = \"{PREVIOUS_TOKEN}\"\nprevious_encoding_aes_key = \"{PREVIOUS_ENCODING_AES_KEY}\"\n"
            );
        }
    }
    toml
}

impl Asked {
    fn of(first: u8, second: u8) -> Self {
        let is = |bit: u8| second >> bit & 1 == 1;
        Self {
            account: &ACCOUNTS[usize::from(first & 3)],
            method: match first >> 2 & 7 {
                0 => Method::GET,
                1 => Method::PUT,
                _ => Method::POST,
            },
            signed: is(0),
            own_time: first >> 5 & 1 == 1,
            sealed: is(1),
            beside: is(2),
            previous_token: is(3),
            previous_key: is(4),
            other_app_id: is(5),
            spoilt: is(6),
            old: is(7),
        }
    }
}

fn sent(asked: &Asked, query: &[u8], body: &[u8]) -> Sent {
    let body = if asked.sealed { sealed(asked, body) } else { body.to_vec() };
    let mut all = Vec::new();
    if asked.signed {
        all.extend_from_slice(parameters(asked, query, &body).as_bytes());
        if !query.is_empty() {
            all.push(b'&');
        }
    }
    all.extend_from_slice(query);
    Sent { account: asked.account, method: asked.method.clone(), query: all, body }
}

/// The body as WeChat encrypts it.
fn sealed(asked: &Asked, message: &[u8]) -> Vec<u8> {
    let key = if asked.previous_key { PREVIOUS_ENCODING_AES_KEY } else { ENCODING_AES_KEY };
    let app_id = if asked.other_app_id { "wx0000000000000000" } else { APP_ID };
    let encrypt = crypt::encrypt(&aes_key(key), [7; 16], message, app_id);
    match message.strip_suffix(b"</xml>") {
        Some(message) if asked.beside => {
            [message, b"<Encrypt><![CDATA[", encrypt.as_bytes(), b"]]></Encrypt></xml>"].concat()
        }
        _ => envelope::push("gh_1", &encrypt).into(),
    }
}

/// WeChat's parameters, with a nonce that no other request has, or those that the query lacks.
fn parameters(asked: &Asked, query: &[u8], body: &[u8]) -> String {
    static NONCE: AtomicU64 = AtomicU64::new(100_000_000);
    let (timestamp, nonce, time) = if asked.own_time {
        let query = Parameters::of(query);
        let first = |name| query.first(name).unwrap_or_default().to_owned();
        (first("timestamp"), first("nonce"), String::new())
    } else {
        let timestamp = (now_s() - if asked.old { 86_400 } else { 0 }).to_string();
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed).to_string();
        let time = format!("&timestamp={timestamp}&nonce={nonce}");
        (timestamp, nonce, time)
    };
    let token = if asked.previous_token { PREVIOUS_TOKEN } else { TOKEN };
    let mut signature = signature::sign(token, &timestamp, &nonce);
    let outer = xml::parse(body).unwrap_or_default();
    let encrypt = envelope::ciphertext(&outer).unwrap_or_default();
    let mut msg_signature = signature::sign_message(token, &timestamp, &nonce, encrypt);
    if asked.spoilt {
        for signature in [&mut signature, &mut msg_signature] {
            let last = signature.pop();
            signature.push(if last == Some('0') { '1' } else { '0' });
        }
    }
    format!("signature={signature}&msg_signature={msg_signature}{time}")
}

impl Answer {
    fn text(body: &str) -> Self {
        let content_type = Some("text/plain; charset=utf-8".to_owned());
        Self { status: 200, content_type, body: body.into() }
    }

    /// A status and not a word.
    fn refusal(status: u16) -> Self {
        Self { status, content_type: None, body: Vec::new() }
    }
}

/// In which form a message came: in plain form one signature is good for one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Plain,
    Sealed,
}

/// The table of answers.
fn expected(sent: &Sent) -> (Answer, Option<Form>) {
    let query = Parameters::of(&sent.query);
    match sent.method {
        Method::GET => (url_check(sent.account, &query), None),
        Method::POST => match push(sent, &query) {
            Ok(form) => (Answer::text(SUCCESS), form),
            Err(status) => (Answer::refusal(status), None),
        },
        _ => (Answer::refusal(405), None),
    }
}

fn url_check(account: &Account, query: &Parameters) -> Answer {
    if !["signature", "timestamp", "nonce", "echostr"].iter().any(|name| query.count(name) > 0) {
        let text = "这是公众号接口地址，只有微信服务器能使用；能看到这行字，说明网络已经通了。\n\
                    This URL is for WeChat's servers only; that you can read this line shows that the network works.\n";
        return Answer { status: 403, ..Answer::text(text) };
    }
    match query.one("echostr") {
        _ if !query.is_signed(account) || !query.is_young(account) => Answer::refusal(403),
        None if query.count("echostr") == 0 => Answer::refusal(400),
        None => Answer::refusal(403),
        Some(echostr) => Answer::text(echostr),
    }
}

fn push(sent: &Sent, query: &Parameters) -> Result<Option<Form>, u16> {
    let Sent { account, body, .. } = sent;
    if !query.is_complete() || account.mode == Mode::Plain && !query.is_signed(account) {
        return Err(403);
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(413);
    }
    let outer = xml::parse(body).map_err(|_| if query.is_signed(account) { 400_u16 } else { 403 })?;
    let encrypt = outer.children.iter().find(|child| child.name == "Encrypt").map(|child| child.text.as_str());
    match (account.mode, encrypt) {
        (Mode::Safe, None) => Err(403),
        (Mode::Plain, Some(_)) if outer.child("MsgType").is_none() => Err(403),
        (Mode::Plain, _) | (Mode::Compatible, None) => {
            if !query.is_signed(account) || !query.is_young(account) {
                return Err(403);
            }
            Ok(is_message(&outer)?.then_some(Form::Plain))
        }
        (Mode::Compatible | Mode::Safe, Some(encrypt)) => {
            if !query.is_signed_over(account, encrypt) || !query.is_young(account) {
                return Err(403);
            }
            let message = opened(account, encrypt)?;
            let message = xml::parse(&message).map_err(|_| 400_u16)?;
            Ok(is_message(&message)?.then_some(Form::Sealed))
        }
    }
}

fn is_message(root: &Element) -> Result<bool, u16> {
    match message::parse("any", root) {
        Ok(Push::Message(message)) => {
            assert_eq!(Some(message.from_user.as_str()), root.text_of("FromUserName"));
            assert_eq!(Some(message.to_user.as_str()), root.text_of("ToUserName"));
            Ok(true)
        }
        Ok(Push::Unanswerable(_)) => Ok(false),
        Err(_) => Err(400),
    }
}

fn opened(account: &Account, encrypt: &str) -> Result<Vec<u8>, u16> {
    let open = |key| decrypted(&key_bytes(key).expect("WeChat gave it out"), encrypt, APP_ID);
    match (open(ENCODING_AES_KEY), open(PREVIOUS_ENCODING_AES_KEY)) {
        (Ok(message), _) => Ok(message),
        (_, Ok(message)) if account.has_previous => Ok(message),
        (Err(Step::AppId), _) => Err(403),
        _ => Err(400),
    }
}

/// A query, read without the host's code.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: &[u8]) -> Self {
        // A fragment never leaves a browser; should one arrive, the query ends where it begins.
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(key, _)| key == name).count()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|_| self.count(name) == 1)
    }

    /// A timestamp of digits and a nonce that is not too long: without them nothing else is looked at.
    fn timed(&self) -> Option<(&str, &str)> {
        let (timestamp, nonce) = (self.one("timestamp")?, self.one("nonce")?);
        let is_number = !timestamp.is_empty() && timestamp.chars().all(|char| char.is_ascii_digit());
        (is_number && nonce.len() <= 64).then_some((timestamp, nonce))
    }

    fn is_complete(&self) -> bool {
        self.timed().is_some()
    }

    fn is_signed(&self, account: &Account) -> bool {
        let signed = || {
            let ((timestamp, nonce), given) = (self.timed()?, self.one("signature")?);
            Some(tokens(account).any(|token| signature::sign(token, timestamp, nonce) == given))
        };
        signed().unwrap_or_default()
    }

    fn is_signed_over(&self, account: &Account, encrypt: &str) -> bool {
        let signed = || {
            let ((timestamp, nonce), given) = (self.timed()?, self.one("msg_signature")?);
            Some(tokens(account).any(|token| signature::sign_message(token, timestamp, nonce, encrypt) == given))
        };
        signed().unwrap_or_default()
    }

    fn is_young(&self, account: &Account) -> bool {
        let timestamp = self.one("timestamp").and_then(|timestamp| timestamp.parse::<u64>().ok());
        account.max_age_s == 0 || timestamp.is_some_and(|timestamp| now_s().abs_diff(timestamp) <= account.max_age_s)
    }
}

fn tokens(account: &Account) -> impl Iterator<Item = &'static str> {
    [TOKEN].into_iter().chain(account.has_previous.then_some(PREVIOUS_TOKEN))
}

fn aes_key(text: &str) -> AesKey {
    AesKey::parse(text).expect("WeChat gave it out")
}

/// A message that nobody sent before.
fn new_message() -> String {
    static MSG_ID: AtomicU64 = AtomicU64::new(1 << 62);
    let msg_id = MSG_ID.fetch_add(1, Ordering::Relaxed);
    format!(
        "<xml><ToUserName>gh_1</ToUserName><FromUserName>forged</FromUserName><CreateTime>1</CreateTime>\
         <MsgType>text</MsgType><Content>x</Content><MsgId>{msg_id}</MsgId></xml>"
    )
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}
