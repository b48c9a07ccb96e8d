//! The last one asked: what no plugin answered goes to the account's own webhook, `accounts.NAME.forward`, signed and
//! encrypted as WeChat does it, and what that says is a reply like a plugin's.
//!
//! So a bot of before gets joined retries and, where the account has them, late replies, without a changed line: to it,
//! Aviary is WeChat. It is asked once for each message, on a connection of its own, and no redirect is followed: what would
//! ask twice could make a bot answer, or charge, twice. Where nobody is there to connect to, it was not asked: as WeChat would,
//! we try again then until WeChat's last try begins, so that a bot that is being restarted loses no message.

mod away;
mod line;
mod trouble;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{away::Missed, line::Line};
pub use self::{line::Lines, trouble::Failing};
use crate::{
    config::Account,
    conversation::{Answer, Encryption, Signed, Simulator},
    https::{Client, NoAnswer, without_parameters},
    metrics::{ForwardMetrics, ForwardOutcome, Metrics},
    plugin::{self, bindings::Reply, question::Question},
    reply,
};

/// How long after a connection that could not be made the next one is tried.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The webhook behind an account.
#[derive(Debug)]
pub struct Forward {
    account: Arc<str>,
    /// Its address without parameters, which may be secrets.
    url: String,
    /// WeChat as the webhook knows it, for what came plain and for what came encrypted.
    plain: Simulator,
    sealed: Simulator,
    line: Arc<Line>,
    places_max: usize,
    /// How long before a message's deadline WeChat's last try begins: until then a connection is tried, so that this try can
    /// be told what came of it.
    after_tries: Duration,
    stopping: CancellationToken,
    reply_bytes_max: usize,
    metrics: ForwardMetrics,
}

/// Why a webhook gave no reply. Reads on after "it ".
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("was not asked: no time was left")]
    NoTime,
    #[error("has {max} messages to answer already (`forward_calls_max`)")]
    Busy { max: usize },
    #[error("gave no answer within {} ms", .limit.as_millis())]
    Timeout { limit: Duration },
    #[error("cannot be reached: {reason}")]
    Unreachable { reason: String, may_pass: bool },
    #[error("broke off the connection: {0}")]
    BrokenOff(String),
    #[error("answered with a redirect ({status}), which is not followed; put the address it leads to into `forward`")]
    Redirect { status: u16 },
    #[error("answered with status {0}; most likely its token is not this account's")]
    Forbidden(StatusCode),
    #[error("answered with status {0}; its own log should say why")]
    Status(StatusCode),
    #[error("answered with {0}; WeChat takes XML or the word `success`")]
    NotXml(&'static str),
    #[error("answered with more than can be a reply")]
    TooLarge,
    #[error("answered what WeChat would not read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Refused(#[from] reply::Refused),
}

impl Forward {
    /// The webhook of an account, if it has one.
    pub fn of(
        account: &Account,
        client: &Client,
        reply_bytes_max: usize,
        metrics: &Metrics,
        lines: &Lines,
    ) -> Option<Self> {
        let sealed = Simulator::of_webhook(account, client.clone())?;
        let mut plain = sealed.clone();
        plain.encryption = Encryption::Plain;
        let late = &account.late;
        Some(Self {
            account: account.name.as_str().into(),
            url: account.forward.as_ref().map(without_parameters)?,
            plain,
            sealed,
            line: lines.of(account)?,
            places_max: account.forward_calls_max,
            after_tries: late.background + late.window,
            stopping: lines.stopping.clone(),
            reply_bytes_max,
            metrics: metrics.forward(&account.name),
        })
    }

    /// Its address, for a person to read.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether nobody was there the last time.
    pub fn is_away(&self) -> bool {
        self.line.away.is_so()
    }

    /// How it fails, if it failed at the last messages.
    pub fn failing(&self) -> Option<Failing> {
        self.line.trouble.told(Instant::now())
    }

    /// Asks it about a message, and tells what came of that. `success` and an empty answer are the reply `nothing`; without a
    /// reply it failed.
    pub async fn ask(&self, question: &Question, deadline: Instant) -> Option<Reply> {
        let started = Instant::now();
        let asked = self.exchange(question, deadline).await;
        self.metrics.asked(ForwardOutcome::of(&asked), started.elapsed());
        self.line.trouble.judge(asked.as_ref().err(), started, Instant::now());
        let failure = match asked {
            Ok(reply) => return Some(reply),
            Err(failure) => failure,
        };
        let (account, url, duration_ms) = (&self.account, &self.url, plugin::millis(started.elapsed()));
        warn!(%account, duration_ms, "Webhook {url} of account `{account}` failed: it {failure}");
        None
    }

    async fn exchange(&self, question: &Question, deadline: Instant) -> Result<Reply, Failure> {
        if deadline <= Instant::now() {
            return Err(Failure::NoTime);
        }
        let wechat = if question.is_sealed { &self.sealed } else { &self.plain };
        let push = wechat.sign(&String::from_utf8_lossy(&question.xml));
        let push = push.map_err(|error| Failure::Unreachable { reason: error.to_string(), may_pass: false })?;
        let answer = self.send(wechat, &push, deadline).await?;
        let reply = read(wechat, answer)?;
        let (reply, warning) = reply::check(reply, &question.message, self.reply_bytes_max)?;
        if let Some(warning) = warning {
            warn!(account = %self.account, "Webhook {} of account `{}` {warning}", self.url, self.account);
        }
        Ok(reply)
    }

    /// Sends a push, and again as long as no connection can be made and that may pass in time.
    async fn send(&self, wechat: &Simulator, push: &Signed, deadline: Instant) -> Result<Answer, Failure> {
        let last_try = deadline.checked_sub(self.after_tries);
        loop {
            let sent = self.send_once(wechat, push, deadline).await;
            let is_over = last_try.is_none_or(|last_try| Instant::now() + AGAIN_AFTER >= last_try);
            if !self.note_connection(&sent) || is_over {
                return sent;
            }
            // Whoever waits behind it may have its place meanwhile.
            tokio::select! {
                () = sleep(AGAIN_AFTER) => {}
                () = self.stopping.cancelled() => return sent,
            }
        }
    }

    /// Takes note of whether a connection could be made. Returns whether none could, and one may be soon.
    fn note_connection(&self, sent: &Result<Answer, Failure>) -> bool {
        let (failure, reason) = match sent {
            Err(failure @ Failure::Unreachable { reason, may_pass: true }) => (failure, reason),
            Ok(_) | Err(Failure::BrokenOff(_) | Failure::TooLarge) => {
                self.line.away.met();
                return false;
            }
            Err(_) => return false,
        };
        let now = Instant::now();
        self.line.trouble.missed(failure, now);
        let missed = self.line.away.missed(now);
        if missed == Missed::First {
            let (account, url) = (&self.account, &self.url);
            info!(%account, "Webhook {url} of account `{account}` is not there ({reason}); messages wait a little for it");
        }
        missed != Missed::ForLong
    }

    async fn send_once(&self, wechat: &Simulator, push: &Signed, deadline: Instant) -> Result<Answer, Failure> {
        let busy = Failure::Busy { max: self.places_max };
        let Ok(Ok(_place)) = timeout_at(deadline.into(), self.line.places.acquire()).await else { return Err(busy) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Those before it ended with its time.
            return Err(busy);
        }
        Ok(wechat.send_within(push, left).await?)
    }
}

/// Reads an answer as WeChat would.
fn read(wechat: &Simulator, mut answer: Answer) -> Result<Reply, Failure> {
    match answer.status {
        status if status.is_success() => {}
        status if status.is_redirection() => return Err(Failure::Redirect { status: status.as_u16() }),
        status if matches!(status.as_u16(), 401 | 403) => return Err(Failure::Forbidden(status)),
        status => return Err(Failure::Status(status)),
    }
    // PHP files often end in a line break.
    answer.body = answer.body.slice_ref(answer.body.trim_ascii());
    if let Some(what) = not_xml(&answer.body) {
        return Err(Failure::NotXml(what));
    }
    let root = wechat.reply(&answer).map_err(|error| Failure::Unreadable(format!("{error:#}")))?;
    Ok(root.map_or(Reply::Nothing, |root| reply::parse(&root)))
}

/// What an answer is in place of a reply, by its beginning; nothing for what may be one.
fn not_xml(body: &[u8]) -> Option<&'static str> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let begins = |with: &[u8]| body.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    match body.first() {
        None => None,
        Some(b'<') => (begins(b"<!doctype html") || begins(b"<html")).then_some("HTML"),
        Some(b'{' | b'[') => Some("JSON"),
        Some(_) => (body != b"success").then_some("text"),
    }
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Timeout { limit } => Self::Timeout { limit },
            NoAnswer::Unreachable { reason, may_pass, .. } => Self::Unreachable { reason, may_pass },
            NoAnswer::BrokenOff(reason) => Self::BrokenOff(reason),
            NoAnswer::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use aviary_wechat::{crypt::AesKey, envelope};
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    const REPLY: &str = "<xml><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[你好]]></Content></xml>";

    fn key() -> AesKey {
        AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG").unwrap()
    }

    fn wechat(encryption: Encryption) -> Simulator {
        let mut wechat = Simulator::new("http://127.0.0.1:1/", "token").unwrap();
        wechat.encryption = encryption;
        wechat
    }

    fn safe() -> Simulator {
        wechat(Encryption::Safe { key: key(), app_id: "wx1".into() })
    }

    fn read_status(wechat: &Simulator, status: u16, body: impl Into<String>) -> Result<Reply, String> {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.into().into();
        let answer = Answer { status, headers: HeaderMap::new(), body, elapsed: Duration::ZERO };
        read(wechat, answer).map_err(|failure| failure.to_string())
    }

    fn read_plain(body: &str) -> Result<Reply, String> {
        read_status(&wechat(Encryption::Plain), 200, body)
    }

    #[test]
    fn success_and_silence_are_nothing_with_or_without_a_line_break() {
        for body in ["", "success", "success\n", "\r\n"] {
            assert_eq!(read_plain(body), Ok(Reply::Nothing), "{body:?}");
        }
        assert_eq!(read_status(&safe(), 204, ""), Ok(Reply::Nothing));
        assert_eq!(read_status(&safe(), 200, "success"), Ok(Reply::Nothing));
    }

    #[test]
    fn a_reply_is_read_as_wechat_reads_it() {
        let said = Ok(Reply::Text("你好".into()));
        assert_eq!(read_plain(REPLY), said);
        assert_eq!(read_plain(&format!("\u{feff}<?xml version=\"1.0\"?>\n{REPLY}\n")), said);
        let sealed = |token| envelope::seal(&key(), "wx1", token, 1, "2", [7; 16], REPLY);
        assert_eq!(read_status(&safe(), 200, sealed("token")), said);
        let wrong = "answered what WeChat would not read: the reply's envelope cannot be opened: `MsgSignature` is wrong; most \
                     likely the tokens differ";
        assert_eq!(read_status(&safe(), 200, sealed("other")), Err(wrong.to_owned()));
    }

    #[test]
    fn the_form_follows_the_push_as_wechat_wants_it() {
        let plain = "answered what WeChat would not read: the reply is not encrypted, but the push was";
        assert_eq!(read_status(&safe(), 200, REPLY), Err(plain.to_owned()));
        let compatible = wechat(Encryption::Compatible { key: key(), app_id: "wx1".into() });
        assert_eq!(read_status(&compatible, 200, REPLY), Ok(Reply::Text("你好".into())));
    }

    #[test]
    fn what_is_no_reply_is_told_for_what_it_is() {
        let told = |body: &str| read_plain(body).unwrap_err();
        let takes = "WeChat takes XML or the word `success`";
        assert_eq!(told("<!DOCTYPE html>\n<p>debug"), format!("answered with HTML; {takes}"));
        assert_eq!(told("\n<HTML>"), format!("answered with HTML; {takes}"));
        assert_eq!(told("{\"code\":0}"), format!("answered with JSON; {takes}"));
        assert_eq!(told("你好"), format!("answered with text; {takes}"));
        assert!(told("<xml><MsgType>text").starts_with("answered what WeChat would not read: the reply is no XML: "));
    }

    #[test]
    fn a_status_other_than_that_of_success_is_a_failure_with_advice() {
        let told = |status| read_status(&wechat(Encryption::Plain), status, REPLY).unwrap_err();
        assert_eq!(told(500), "answered with status 500 Internal Server Error; its own log should say why");
        assert_eq!(told(403), "answered with status 403 Forbidden; most likely its token is not this account's");
        assert_eq!(
            told(302),
            "answered with a redirect (302), which is not followed; put the address it leads to into `forward`"
        );
    }
}
