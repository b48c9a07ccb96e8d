//! One exchange with the network: grant, turn, connection, request, answer.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Uri,
    body::{Body, Frame, SizeHint},
    header::{ACCEPT_ENCODING, HOST, HeaderValue, IF_RANGE, RANGE, USER_AGENT},
};
use tokio::time::timeout_at;

use super::{
    Answer, NoAnswer, Owner, Request, Waits,
    answer::Exchange,
    connector::{Connector, Route, look_up},
    gates::{Gates, Turn},
    pool::{Connection, Key, Pool},
    redact::Redactor,
    request::OutgoingBody,
    target::{Host, Target},
    unpack,
};
use crate::config::{Http, HttpGrant};

/// How a request introduces itself, unless the guest does: some APIs refuse those that do not.
const OWN_USER_AGENT: &str = concat!("aviary/", env!("CARGO_PKG_VERSION"));

/// Longer than any deadline: what a guest allows beyond it does not count.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(3_600);

/// The way to the network under one state of the settings.
#[derive(Debug)]
pub struct Client {
    pub(super) http: Http,
    connector: Connector,
    gates: Gates,
    pool: Arc<Pool>,
}

impl Client {
    pub(super) fn new(http: Http) -> Self {
        Self { connector: Connector::new(&http, look_up), gates: Gates::new(&http), pool: Pool::new(&http), http }
    }

    /// Sends a request if one of the grants allows it, and waits for the header of the answer.
    pub(super) async fn send(
        &self,
        owner: Option<&Owner>,
        grants: &[HttpGrant],
        request: Request,
        waits: Waits,
    ) -> Result<Answer, NoAnswer> {
        let Some(grant) = HttpGrant::of(grants, &request.target) else {
            return Err(NoAnswer::Denied(not_granted(&request.target)));
        };
        let redactor = Redactor::of(&grant.headers);
        let exchange = self.exchange(owner, grant, request, waits, redactor.clone());
        let answer = timeout_at(waits.deadline.into(), exchange).await;
        match answer.unwrap_or(Err(NoAnswer::Timeout)) {
            Err(NoAnswer::Unreachable(reason)) => Err(NoAnswer::Unreachable(redactor.text(&reason))),
            Err(NoAnswer::Lost(reason)) => Err(NoAnswer::Lost(redactor.text(&reason))),
            answer => answer,
        }
    }

    async fn exchange(
        &self,
        owner: Option<&Owner>,
        grant: &HttpGrant,
        request: Request,
        waits: Waits,
        redactor: Redactor,
    ) -> Result<Answer, NoAnswer> {
        let bytes_max = self.http.body_bytes_max();
        if request.length.is_some_and(|length| length > bytes_max as u64) {
            return Err(NoAnswer::TooLarge(bytes_max as u64));
        }
        let route = self.connector.route(grant, &request.target)?;
        let (target, key) = (request.target.clone(), Key::new(&request.target, grant.private));
        let (mut outgoing, outflow) = outgoing(grant, request, &route, &redactor, bytes_max)?;
        let turn = self.gates.connection(owner, grant).await;
        loop {
            let kept = self.pool.take(&key).await;
            let is_fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => {
                    let lookup = self.gates.lookup(owner, grant);
                    self.connect(&target, &route, lookup, waits).await?
                }
            };
            let sent = match waits.first_byte.map(|wait| Instant::now() + wait.min(FIRST_BYTE_MAX)) {
                Some(first_byte) => timeout_at(first_byte.into(), connection.sender.try_send_request(outgoing)).await,
                None => Ok(connection.sender.try_send_request(outgoing).await),
            };
            let Ok(sent) = sent else { return Err(NoAnswer::Timeout) };
            match sent {
                Ok(response) => {
                    let (pool, room) = (self.pool.clone(), self.gates.room(owner));
                    let exchange = Exchange { connection, key, pool, outflow, room, _turn: turn };
                    return Answer::of(response, exchange, redactor, waits, bytes_max);
                }
                // The other side closed a kept connection just now, and nothing was sent on it.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_fresh => outgoing = unsent,
                    _ => return Err(broken_off(&error.into_error(), &outflow, &target, bytes_max)),
                },
            }
        }
    }

    /// Makes a connection within the settings' time, or the guest's if that is shorter.
    async fn connect(
        &self,
        target: &Target,
        route: &Route,
        lookup: impl Future<Output = Turn>,
        waits: Waits,
    ) -> Result<Connection, NoAnswer> {
        let limit = waits.connect.unwrap_or(self.http.connect_timeout).min(self.http.connect_timeout);
        let connected =
            timeout_at((Instant::now() + limit).into(), self.connector.connect(target, route, lookup)).await;
        connected.unwrap_or_else(|_| {
            let text = format!("cannot reach {}: no connection within {} ms", target.origin(), limit.as_millis());
            Err(NoAnswer::Unreachable(text))
        })
    }
}

/// What to say of a request that no grant allows: the line that would.
fn not_granted(target: &Target) -> String {
    let origin = target.origin();
    let line = match (&target.host, target.secure, target.port) {
        (Host::Name(name), true, 443) => name.clone(),
        _ => origin.clone(),
    };
    format!("may not reach `{origin}`; add it to its grants: http = [\"{line}\"]")
}

fn broken_off(error: &hyper::Error, outflow: &Outflow, target: &Target, bytes_max: usize) -> NoAnswer {
    match outflow.was_too_large() {
        true => NoAnswer::TooLarge(bytes_max as u64),
        false => NoAnswer::Lost(format!("{} broke off: {}", target.origin(), root_cause(error))),
    }
}

/// What happened in the end, which is what a person can act on.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Writes the request as it goes over the wire: the guest's headers, the host's, and over both those of the grant.
fn outgoing(
    grant: &HttpGrant,
    request: Request,
    route: &Route,
    redactor: &Redactor,
    bytes_max: usize,
) -> Result<(hyper::Request<Outgoing>, Arc<Outflow>), NoAnswer> {
    let Request { method, target, headers, body, length } = request;
    let (body, outflow) = Outgoing::new(body, length, bytes_max);
    let invalid = |what: &str| NoAnswer::Invalid(format!("the URL has {what} that no request can have"));
    let uri = match route {
        // A proxy is told the whole URL; with TLS it only passes bytes on.
        Route::Proxy(proxy) if !target.secure => format!("{}{}", target.origin(), target.path_and_query),
        _ => target.path_and_query.clone(),
    };
    let mut outgoing = hyper::Request::new(body);
    *outgoing.method_mut() = method;
    *outgoing.uri_mut() = uri.parse::<Uri>().map_err(|_| invalid("a path"))?;
    *outgoing.headers_mut() = headers;
    let headers = outgoing.headers_mut();
    if redactor.is_needed() {
        // A key that an echo gives away in parts is found in none of them.
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
    }
    let authority = HeaderValue::from_str(&target.authority()).map_err(|_| invalid("a host"))?;
    headers.insert(HOST, authority);
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(OWN_USER_AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted(headers)));
    if let (Route::Proxy(proxy), false) = (route, target.secure)
        && let Some(authorization) = proxy.authorization()
    {
        headers.insert(hyper::header::PROXY_AUTHORIZATION, authorization);
    }
    for (name, value) in &grant.headers {
        let mut value = HeaderValue::from_str(value.expose()).expect("it was tried when the settings were read");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok((outgoing, outflow))
}

/// Only what we unpack; nothing packed if the guest wants it so, or only a part of it.
fn accepted(headers: &HeaderMap) -> &'static str {
    let is_plain = headers.get(ACCEPT_ENCODING).is_some_and(|value| value == "identity");
    if is_plain || headers.contains_key(RANGE) { "identity" } else { unpack::ACCEPTED }
}

/// A request's body on its way out, counted.
pub(super) struct Outgoing {
    body: OutgoingBody,
    /// What the guest said it would send; it is held to that by hyper.
    length: Option<u64>,
    left: usize,
    outflow: Arc<Outflow>,
}

/// How far a request's body has come, as seen from the answer's side.
#[derive(Debug, Default)]
pub(super) struct Outflow(AtomicU8);

impl Outflow {
    const ENDED: u8 = 1;
    const TOO_LARGE: u8 = 2;

    /// Whether all of it was sent.
    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::ENDED
    }

    fn was_too_large(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::TOO_LARGE
    }
}

impl Outgoing {
    fn new(body: OutgoingBody, length: Option<u64>, bytes_max: usize) -> (Self, Arc<Outflow>) {
        let outflow = Arc::new(Outflow::default());
        // hyper does not ask an empty body for its end.
        if body.is_end_stream() {
            outflow.0.store(Outflow::ENDED, Ordering::Release);
        }
        (Self { body, length, left: bytes_max, outflow: outflow.clone() }, outflow)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match frame {
            Some(Ok(frame)) => match self.left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(left) => {
                    self.left = left;
                    // With a known length, hyper does not come back for the end.
                    if self.body.is_end_stream() {
                        self.outflow.0.store(Outflow::ENDED, Ordering::Release);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                None => {
                    self.outflow.0.store(Outflow::TOO_LARGE, Ordering::Release);
                    Poll::Ready(Some(Err("the body is too large".into())))
                }
            },
            None => {
                self.outflow.0.store(Outflow::ENDED, Ordering::Release);
                Poll::Ready(None)
            }
            error => Poll::Ready(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Outgoing").finish_non_exhaustive()
    }
}
