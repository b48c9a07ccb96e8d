//! What plugins are asked: a message, with what is known of its push and of this attempt at an answer.

use std::sync::Arc;

use anyhow::bail;
use aviary_wechat::xml;
use bytes::Bytes;

use super::bindings::Message;
use crate::message::{self, Push};

/// A message on its way to an answer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Question {
    pub message: Arc<Message>,
    /// The push as WeChat wrote it, decrypted: what an existing webhook is forwarded, and what is read again after a crash.
    pub xml: Bytes,
    /// Whether it came encrypted.
    pub is_sealed: bool,
    /// 1, or more when a crash interrupted an earlier attempt at an answer.
    pub attempt: u32,
    /// Whether a reply that misses WeChat's window can still reach the user.
    pub late_reply: bool,
}

impl Question {
    /// A message that came in plain form, at its first attempt.
    pub fn new(message: Message, xml: Bytes) -> Self {
        Self { message: Arc::new(message), xml, is_sealed: false, attempt: 1, late_reply: true }
    }

    /// Reads a push to `account` that did not just come from WeChat.
    ///
    /// # Errors
    /// It is no message that somebody could answer.
    pub fn read(account: &str, xml: impl Into<Bytes>) -> anyhow::Result<Self> {
        let xml = xml.into();
        match message::parse(account, &xml::parse(&xml)?)? {
            Push::Message(message) => Ok(Self::new(*message, xml)),
            Push::Unanswerable(why) => bail!("nobody could be answered: {why}"),
        }
    }
}
