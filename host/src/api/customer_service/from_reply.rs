//! A passive reply as a customer-service message: for what comes too late to be a reply.

use super::Content;
use crate::plugin::bindings::Reply;

/// Why a reply cannot be sent as a customer-service message. Reads on after "the reply ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// There is nothing to send.
    #[error("says nothing")]
    Nothing,
    /// Only the answer to a push hands a user over.
    #[error("hands the user over to customer service, which only the answer to a push can do")]
    Transfer,
    /// Its type is known to passive replies only, as far as the host knows.
    #[error("is of a type that no customer-service message has")]
    Other,
}

/// Returns what a reply is as a customer-service message. Of several articles it is the first: WeChat takes one.
///
/// # Errors
///
/// [`Unsendable`].
pub fn content_of(reply: &Reply) -> Result<Content, Unsendable> {
    match reply {
        Reply::Text(text) => Ok(Content::Text(text.clone())),
        Reply::Image(media_id) => Ok(Content::Image(media_id.clone())),
        Reply::Voice(media_id) => Ok(Content::Voice(media_id.clone())),
        Reply::Video(video) => Ok(Content::Video(video.clone())),
        Reply::Music(music) => Ok(Content::Music(music.clone())),
        Reply::News(articles) => articles.first().cloned().map(Content::News).ok_or(Unsendable::Nothing),
        Reply::TransferCustomerService(_) => Err(Unsendable::Transfer),
        Reply::Nothing => Err(Unsendable::Nothing),
        Reply::Other(_) => Err(Unsendable::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::bindings::{Article, OtherReply};

    fn article(title: &str) -> Article {
        Article { title: title.into(), description: None, pic_url: None, url: "https://a/".into() }
    }

    #[test]
    fn of_several_articles_the_first_is_sent() {
        assert_eq!(content_of(&Reply::News(vec![article("a"), article("b")])), Ok(Content::News(article("a"))));
        assert_eq!(content_of(&Reply::News(vec![])), Err(Unsendable::Nothing));
    }

    #[test]
    fn what_only_the_answer_to_a_push_can_do_is_not_sent() {
        let other = OtherReply { msg_type: "hardware".into(), fields: Vec::new() };
        for (reply, unsendable) in [
            (Reply::Nothing, Unsendable::Nothing),
            (Reply::TransferCustomerService(None), Unsendable::Transfer),
            (Reply::Other(other), Unsendable::Other),
        ] {
            assert_eq!(content_of(&reply), Err(unsendable));
        }
        assert_eq!(content_of(&Reply::Text("晚".into())), Ok(Content::Text("晚".into())));
    }
}
