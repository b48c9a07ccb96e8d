//! Conversations held with plugins inside this process, without a server: by `chat`, and by canaries.

use std::time::{Duration, Instant};

use aviary_wechat::xml;

use crate::{
    conversation::{Conversation, Expected, Playback, Turn, difference, shown},
    dispatch::{self, Chain, Dispatch, Step},
    plugin::{aside, question::Question},
    reply,
};

/// How long the plugins have for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// As the account gives them.
    pub window: Duration,
    /// Where a late reply is expected.
    pub late: Duration,
}

/// The first answer that was another than expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// On several lines, for a person.
    pub difference: String,
    /// The plugins that failed at it, and how.
    pub failures: Vec<String>,
}

/// Asks the plugins, as the host would. Returns the reply in the notation of conversation files, too, as it looks after its
/// way over the wire.
///
/// # Errors
/// A push that is no message that could be answered.
pub async fn say(chain: &Chain, push: &str, time: Duration) -> anyhow::Result<(Dispatch, String)> {
    let question = Question::read("main", push.to_owned())?;
    let dispatch = dispatch::run(chain, &question, Instant::now() + time).await;
    let message = &question.message;
    let address = reply::Address::back_to(message);
    let xml = dispatch.reply.as_ref().and_then(|reply| reply::to_xml(reply, &address, message.create_time));
    let element = xml.map(|xml| xml::parse(xml.as_bytes())).transpose()?;
    Ok((dispatch, shown(element.as_ref())))
}

/// Holds plugins to a conversation, and shows `each` answer. Returns how many expected replies came, or the first that did
/// not.
///
/// A late reply fits whether it comes late or not: nothing is delivered here, so a turn that expects one is given the time
/// for it, and the silence before it is no reply.
///
/// # Errors
/// As [`say`].
pub async fn replay(
    chain: &Chain,
    conversation: &Conversation,
    pace: Pace,
    mut each: impl FnMut(&Turn, &Dispatch, &str),
) -> anyhow::Result<Result<usize, Fault>> {
    let mut count = 0;
    for (turn, push) in Playback::default().turns(conversation) {
        let is_late = turn.expected.iter().any(|expected| expected.late);
        let (dispatch, reply) = say(chain, &push, if is_late { pace.late } else { pace.window }).await?;
        each(turn, &dispatch, &reply);
        for expected in &turn.expected {
            let is_put_off = is_late && !expected.late && expected.written.is_empty();
            if !is_put_off && !fits(expected, &reply).await {
                let failures = dispatch.steps.iter().filter_map(failure).collect();
                return Ok(Err(Fault { difference: difference(expected, &reply), failures }));
            }
            count += 1;
        }
    }
    Ok(Ok(count))
}

/// Tells whether a reply is the expected one. An expression may be a stranger's, so its work holds up no message.
async fn fits(expected: &Expected, reply: &str) -> bool {
    if !expected.is_expression() {
        return expected.fits(reply);
    }
    let (expected, reply) = (expected.clone(), reply.to_owned());
    aside(move || expected.fits(&reply)).await
}

fn failure(step: &Step) -> Option<String> {
    step.outcome.as_ref().err().map(|failure| format!("plugin `{}` failed: it {failure}", step.plugin))
}
