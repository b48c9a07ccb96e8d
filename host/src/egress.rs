//! The way out: HTTP that guests ask for, to the hosts that their grants name and to no others.
//!
//! A [`Request`] is well-formed (`request`, `target`). The `client` finds the grant that allows it, adds the
//! grant's headers, and waits for a turn (`gates`). It takes a connection that nobody uses (`pool`), or makes one
//! (`connector`) to an address that was checked (`address`). What comes back passes through [`AnswerBody`], which ends
//! it in time, unpacks it (`unpack`), keeps it small, and takes the grant's headers out again (`redact`).

pub mod address;
mod answer;
mod client;
mod connector;
mod gates;
mod played;
mod pool;
mod redact;
pub mod request;
pub mod target;
mod unpack;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tracing::warn;

pub(crate) use self::redact::Redactor;
pub use self::{
    answer::{Answer, AnswerBody},
    request::Request,
};
use self::{
    client::Client,
    connector::is_local,
    played::Played,
    target::{Host, Target},
};
use crate::{
    config::{HostPattern, Http, HttpGrant},
    conversation::Exchange,
    refusal::OnceAMinute,
};

/// What a guest keeps of its time for saying that no answer came.
const LEFT_FOR_THE_GUEST: Duration = Duration::from_millis(100);

/// From how many characters on a part of a denied host's name is not logged: an openid has 28.
const MASKED_LABEL_CHARS: usize = 28;

/// Sends guests' requests. Cheap to clone: all clones share their connections.
#[derive(Clone, Debug)]
pub enum Egress {
    /// To the network.
    Network(Arc<Network>),
    /// To nobody: the exchanges of a conversation file are played, anything else is refused.
    Played(Arc<Played>),
}

/// The way to the network, as the settings have it now.
#[derive(Debug)]
pub struct Network {
    client: RwLock<Arc<Client>>,
    /// Which plugin's denied requests were told of lately.
    denials: OnceAMinute<Arc<str>>,
}

/// Whose a request is: a plugin's, in one account. There it gets at most half of what the host has for all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub account: Arc<str>,
    pub plugin: Arc<str>,
}

/// How long an exchange may take, and its parts.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// When all of it is over.
    pub deadline: Instant,
    /// The connection, if the guest limits it.
    pub connect: Option<Duration>,
    /// From the request to the answer's header.
    pub first_byte: Option<Duration>,
    /// From one part of the body to the next.
    pub between_bytes: Option<Duration>,
}

/// Why there was no answer. No text has a URL's path or query in it, or a header's value.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The grants do not allow it. The text ends a sentence that begins with who asked.
    #[error("{0}")]
    Denied(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    #[error("nothing came in time")]
    Timeout,
    #[error("the body has more than {0} bytes")]
    TooLarge(u64),
    #[error("{0}")]
    Unreachable(String),
    /// The request went out, at least in part, and no whole answer came back.
    #[error("{0}")]
    Lost(String),
}

impl Egress {
    /// Opens the way to the network.
    pub fn network(http: &Http) -> Self {
        let client = RwLock::new(Arc::new(Client::new(http.clone())));
        Self::Network(Arc::new(Network { client, denials: OnceAMinute::default() }))
    }

    /// Plays these exchanges. They say what the guest may meet, so no grant is needed.
    pub fn played(exchanges: Vec<Exchange>) -> Self {
        Self::Played(Arc::new(Played::new(exchanges)))
    }

    /// Follows a change of the settings. Requests on their way end under the old ones; their connections are not kept.
    /// Where nothing changed, everything stays.
    pub fn configure(&self, http: &Http) {
        if let Self::Network(network) = self
            && network.client().http != *http
        {
            *network.client.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Client::new(http.clone()));
        }
    }

    /// Sends a request, of a plugin or of nobody but the host, if one of the grants allows it. Redirects are answers like
    /// others: they are not followed.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`], also from the body of an answer. An answer of any status is one.
    pub async fn send(
        &self,
        owner: Option<&Owner>,
        grants: &[HttpGrant],
        request: Request,
        waits: Waits,
    ) -> Result<Answer, NoAnswer> {
        match self {
            Self::Network(network) => network.client().send(owner, grants, request, waits).await,
            Self::Played(played) => {
                let exchange = played.find(&request)?;
                drop(request);
                Played::answer(exchange, waits).await
            }
        }
    }

    /// The largest header of an answer, in bytes.
    pub fn header_bytes_max(&self) -> usize {
        match self {
            Self::Network(network) => network.client().http.header_bytes_max,
            Self::Played(_) => played::HEADER_BYTES_MAX,
        }
    }

    /// Tells the operator which grant a plugin missed: once a minute for each plugin.
    pub fn tell_denied(&self, plugin: &Arc<str>, reason: &str) {
        if let Self::Network(network) = self
            && network.denials.turn(plugin.clone(), Instant::now()).is_some()
        {
            let reason = masked(reason);
            warn!(plugin.name = %plugin, "Plugin `{plugin}` {reason}");
        }
    }
}

/// Hides what could be an openid, a key or a message in a text with a host name that a guest chose.
fn masked(text: &str) -> String {
    let is_in_label = |char: char| char.is_alphanumeric() || char == '-' || char == '_';
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|char| !is_in_label(char)).unwrap_or(rest.len());
        let (label, after) = rest.split_at(end);
        masked.push_str(if label.chars().count() < MASKED_LABEL_CHARS { label } else { "[masked]" });
        let next = after.find(is_in_label).unwrap_or(after.len());
        masked.push_str(&after[..next]);
        rest = &after[next..];
    }
    masked
}

impl HttpGrant {
    /// The grant of an address of the operator's own, such as that of WeChat's API. It may lead into a private network, as
    /// far as no proxy stands in front; what is public goes through the proxy, if there is one.
    pub(crate) fn of_operator(written: &str, target: &Target, http: &Http) -> Self {
        let is_near = matches!(&target.host, Host::Name(name) if is_local(name));
        Self {
            written: written.to_owned(),
            secure: target.secure,
            host: HostPattern::Exact(target.host.clone()),
            port: target.port,
            path: String::new(),
            private: http.proxy.is_none() || is_near,
            headers: Vec::new(),
        }
    }
}

impl Network {
    fn client(&self) -> Arc<Client> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Waits {
    /// An exchange of a guest whose call ends at `deadline`. It ends a little earlier, so that the guest can still
    /// answer without it.
    pub fn of_call(deadline: Instant, timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let left = left - LEFT_FOR_THE_GUEST.min(left / 10);
        let deadline = now + timeout.map_or(left, |timeout| timeout.min(left));
        Self { deadline, connect: None, first_byte: None, between_bytes: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(egress: &Egress) -> Arc<Client> {
        match egress {
            Egress::Network(network) => network.client(),
            Egress::Played(_) => unreachable!("it was made for the network"),
        }
    }

    #[test]
    fn connections_are_kept_until_their_settings_change() {
        let proxy = |user: &str| {
            let host = target::Host::Name("proxy.example".to_owned());
            Some(crate::config::Proxy { host, port: 3128, user: Some(user.into()) })
        };
        let http = Http { connections_max: 1, proxy: proxy("ann:1"), ..Http::default() };
        let egress = Egress::network(&http);
        let before = client(&egress);
        egress.configure(&http.clone());
        assert!(Arc::ptr_eq(&before, &client(&egress)));
        egress.configure(&Http { proxy: proxy("ann:2"), ..http });
        assert!(!Arc::ptr_eq(&before, &client(&egress)));
    }

    #[test]
    fn what_could_be_an_openid_in_a_host_name_is_not_logged() {
        let (short, long) = ("a".repeat(27), "o6_bmjrptlm6_2sgvt7hmzopfl2k");
        let text =
            format!("may not reach `https://{long}.{short}.example.com`; add it to its grants: http = [\"{long}.x\"]");
        assert_eq!(
            masked(&text),
            format!(
                "may not reach `https://[masked].{short}.example.com`; add it to its grants: http = [\"[masked].x\"]"
            )
        );
    }
}
