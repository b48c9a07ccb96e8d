//! The headers of a conversation's pushes.

use std::time::SystemTime;

use super::{Conversation, Said, Turn};

/// The account where it does not matter which.
const TO_USER: &str = "gh_aviary";

/// What stands in a push beside what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `ToUserName`: the account, `gh_…`.
    pub to_user: String,
    /// `FromUserName`: the user.
    pub from_user: String,
    /// `CreateTime`, in seconds.
    pub create_time: u64,
    /// `MsgId`; events do not carry it.
    pub msg_id: u64,
}

/// Plays a conversation: every push is a new message, also two events that are alike.
#[derive(Clone, Debug)]
pub struct Playback {
    /// `ToUserName` of every push.
    pub to_user: String,
    /// `CreateTime` of the next push. Each is a second later: an event has no other name of its own.
    pub create_time: u64,
    /// `MsgId` of the next push.
    pub msg_id: u64,
}

impl Default for Playback {
    /// Begins now, with a `MsgId` that no other playback has.
    fn default() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A bot may keep it in a signed column: one bit less. Without random numbers the clock is new enough.
        let msg_id = getrandom::u64().unwrap_or(since.subsec_nanos().into()) >> 1;
        Playback { to_user: TO_USER.into(), create_time: since.as_secs(), msg_id }
    }
}

impl Playback {
    /// Returns the header of the next push, as `user` sends it.
    pub fn header(&mut self, user: &str) -> Header {
        let header = Header {
            to_user: self.to_user.clone(),
            from_user: user.to_owned(),
            create_time: self.create_time,
            msg_id: self.msg_id,
        };
        self.create_time = self.create_time.wrapping_add(1);
        self.msg_id = self.msg_id.wrapping_add(1);
        header
    }

    /// Returns the next push, as `user` sends it.
    pub fn push(&mut self, user: &str, said: &Said) -> String {
        said.to_xml(&self.header(user))
    }

    /// Returns each turn of a conversation with its push.
    pub fn turns(mut self, conversation: &Conversation) -> impl Iterator<Item = (&Turn, String)> {
        let turns = conversation.turns.iter();
        turns.map(move |turn| (turn, self.push(&turn.user, &turn.said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_playbacks_are_two_conversations() {
        let (one, two) = (Playback::default(), Playback::default());
        assert_ne!(one.msg_id, two.msg_id);
        assert!(one.create_time > 1_700_000_000);
    }

    #[test]
    fn saying_the_same_twice_makes_two_messages() {
        let conversation = Conversation::parse("> [CLICK a]\n小明> [CLICK a]\n> hi\n").unwrap();
        let playback = Playback { to_user: "gh_bot".into(), create_time: 100, msg_id: 7 };
        let pushes: Vec<String> = playback.turns(&conversation).map(|(_, push)| push).collect();
        assert!(pushes[0].contains("<FromUserName><![CDATA[user]]></FromUserName><CreateTime>100<"));
        assert!(pushes[1].contains("<FromUserName><![CDATA[小明]]></FromUserName><CreateTime>101<"));
        assert!(pushes[2].contains("<CreateTime>102<") && pushes[2].contains("<MsgId>9</MsgId>"));
    }
}
