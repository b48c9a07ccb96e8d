//! What comes back, on its way to the guest: in time, unpacked, not too large, and without the grant's headers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Frame, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep_until},
};

use super::{
    NoAnswer, Waits,
    client::{Outflow, root_cause},
    gates::{Room, Turn},
    pool::{Connection, Key, Pool},
    redact::Redactor,
    request::is_hosts_own,
    unpack::{Coding, Unpacker},
};

/// An answer whose body may still be on its way.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Without those that are about the connection or about how the body was packed.
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

/// The body as the guest may have it. Dropping it ends the exchange.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    unpacker: Unpacker,
    redactor: Redactor,
    /// What came and is not unpacked yet.
    packed: Bytes,
    /// Whether others had the thread since the last piece was unpacked.
    has_paused: bool,
    /// What could be the beginning of a secret.
    held_back: Vec<u8>,
    packed_bytes: usize,
    bytes_max: usize,
    timer: Pin<Box<Sleep>>,
    waits: Waits,
    exchange: Option<Exchange>,
}

/// A body that is all here, with the room that it takes.
#[derive(Debug)]
pub struct Whole {
    pub bytes: Vec<u8>,
    /// One of each gate that its bytes passed.
    room: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Source {
    Network(Incoming),
    Here(Bytes),
    Ended,
}

/// What an exchange holds until its end.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) connection: Connection,
    pub(super) key: Key,
    pub(super) pool: Arc<Pool>,
    pub(super) outflow: Arc<Outflow>,
    pub(super) room: Room,
    pub(super) _turn: Turn,
}

impl Answer {
    /// Takes the answer of an exchange.
    pub(super) fn of(
        response: hyper::Response<Incoming>,
        exchange: Exchange,
        redactor: Redactor,
        waits: Waits,
        bytes_max: usize,
    ) -> Result<Self, NoAnswer> {
        let (head, incoming) = response.into_parts();
        let codings: Vec<_> = head.headers.get_all(CONTENT_ENCODING).iter().map(|name| name.to_str()).collect();
        let coding = match codings[..] {
            [] => Coding::Plain,
            [Ok(name)] => Coding::named(name),
            _ => Coding::Unknown,
        };
        if coding == Coding::Unknown && redactor.is_needed() {
            let text = "the answer is packed in a way in which the grant's headers cannot be found and removed";
            return Err(NoAnswer::Lost(text.into()));
        }
        if incoming.size_hint().lower() > bytes_max as u64 {
            return Err(NoAnswer::TooLarge(bytes_max as u64));
        }
        let is_changed = redactor.is_needed() || !matches!(coding, Coding::Plain | Coding::Unknown);
        let headers = headers(head.headers, &redactor, is_changed);
        let body = AnswerBody {
            unpacker: Unpacker::new(coding, bytes_max),
            redactor,
            exchange: Some(exchange),
            ..AnswerBody::new(Source::Network(incoming), waits, bytes_max)
        };
        Ok(Self { status: head.status, headers, body })
    }

    /// Makes an answer of what is here already.
    pub(super) fn here(status: StatusCode, headers: HeaderMap, body: Bytes, waits: Waits) -> Self {
        let bytes_max = body.len();
        Self { status, headers, body: AnswerBody::new(Source::Here(body), waits, bytes_max) }
    }
}

impl Whole {
    fn take_room(&mut self, room: &Room, bytes: usize) -> Result<(), NoAnswer> {
        for (index, (gate, full)) in room.iter().enumerate() {
            let taken = u32::try_from(bytes).ok().and_then(|bytes| gate.clone().try_acquire_many_owned(bytes).ok());
            let taken = taken.ok_or_else(|| NoAnswer::Lost((*full).into()))?;
            match self.room.get_mut(index) {
                Some(room) => room.merge(taken),
                None => self.room.push(taken),
            }
        }
        Ok(())
    }
}

impl AnswerBody {
    fn new(source: Source, waits: Waits, bytes_max: usize) -> Self {
        Self {
            source,
            unpacker: Unpacker::new(Coding::Plain, bytes_max),
            redactor: Redactor::default(),
            packed: Bytes::new(),
            has_paused: false,
            held_back: Vec::new(),
            packed_bytes: 0,
            bytes_max,
            timer: Box::pin(sleep_until(waits.next().into())),
            waits,
            exchange: None,
        }
    }

    /// Waits for the whole body.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]; [`NoAnswer::Lost`] also when the host holds too much for others already.
    pub async fn whole(mut self) -> Result<Whole, NoAnswer> {
        let room = self.exchange.as_ref().map(|exchange| exchange.room.clone()).unwrap_or_default();
        let mut whole = Whole { bytes: Vec::new(), room: Vec::new() };
        while let Some(frame) = self.frame().await {
            let part = frame?.into_data().unwrap_or_default();
            whole.take_room(&room, part.len())?;
            whole.bytes.extend_from_slice(&part);
        }
        Ok(whole)
    }

    /// Takes a part from the network, and returns the first of what can be handed on.
    fn take(&mut self, part: Bytes) -> Result<Bytes, NoAnswer> {
        self.packed_bytes += part.len();
        if self.packed_bytes > self.bytes_max {
            return Err(NoAnswer::TooLarge(self.bytes_max as u64));
        }
        self.packed = part;
        self.unpack()
    }

    /// Unpacks one more piece of what is here.
    fn unpack(&mut self) -> Result<Bytes, NoAnswer> {
        let unpacked = self.unpacker.push(&mut self.packed)?;
        self.has_paused = false;
        Ok(self.redact(unpacked, false))
    }

    /// Ends the body, and returns the rest. The connection is kept if it is good for more.
    fn finish(&mut self) -> Result<Bytes, NoAnswer> {
        let unpacked = self.unpacker.finish(self.packed_bytes == 0)?;
        if let Some(Exchange { connection, key, pool, outflow, .. }) = self.exchange.take()
            && outflow.has_ended()
        {
            pool.put(key, connection);
        }
        Ok(self.redact(unpacked, true))
    }

    fn redact(&mut self, bytes: Bytes, end: bool) -> Bytes {
        if !self.redactor.is_needed() {
            return bytes;
        }
        self.held_back.extend_from_slice(&bytes);
        self.redactor.split_off(&mut self.held_back, end).into()
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, NoAnswer>> {
        loop {
            let part = match &mut self.source {
                Source::Ended => return Poll::Ready(Ok(None)),
                Source::Here(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.source = Source::Ended;
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Source::Network(_) if !self.packed.is_empty() && !self.has_paused => {
                    self.has_paused = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Source::Network(_) if !self.packed.is_empty() => None,
                Source::Network(incoming) => Some(Pin::new(incoming).poll_frame(context)),
            };
            // Also while parts keep coming: a body that drips ends at the deadline.
            let is_late = self.timer.as_mut().poll(context).is_ready();
            let handed_on = match part {
                _ if is_late => return Poll::Ready(Err(NoAnswer::Timeout)),
                None => self.unpack()?,
                Some(Poll::Pending) => return Poll::Pending,
                Some(Poll::Ready(Some(Ok(frame)))) => {
                    self.timer.as_mut().reset(self.waits.next().into());
                    // Trailers are dropped: nobody needs them, and they could say anything.
                    self.take(frame.into_data().unwrap_or_default())?
                }
                Some(Poll::Ready(Some(Err(error)))) => {
                    let reason = self.redactor.text(&root_cause(&error));
                    return Poll::Ready(Err(NoAnswer::Lost(format!("the answer broke off: {reason}"))));
                }
                Some(Poll::Ready(None)) => {
                    self.source = Source::Ended;
                    self.finish()?
                }
            };
            if !handed_on.is_empty() {
                return Poll::Ready(Ok(Some(handed_on)));
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = NoAnswer;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NoAnswer>>> {
        self.poll_part(context).map(|part| match part {
            Ok(part) => part.map(|part| Ok(Frame::data(part))),
            Err(error) => {
                self.source = Source::Ended;
                self.exchange = None;
                Some(Err(error))
            }
        })
    }
}

impl Waits {
    /// When the next part has to be here.
    fn next(&self) -> Instant {
        let between = self.between_bytes.map(|between| Instant::now() + between.min(Duration::from_secs(3_600)));
        between.map_or(self.deadline, |between| between.min(self.deadline))
    }
}

/// Leaves out what is about the connection, and what no longer holds of a body that was changed.
fn headers(received: HeaderMap, redactor: &Redactor, is_changed: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &received {
        let is_length = name == CONTENT_LENGTH;
        let is_untrue = is_changed && (is_length || name == CONTENT_ENCODING);
        if !is_untrue && (is_length || !is_hosts_own(name)) {
            headers.append(name, redactor.header(value.clone()));
        }
    }
    headers
}
