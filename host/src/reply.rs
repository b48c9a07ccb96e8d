//! Step 7: a reply becomes XML, or nothing, which the webhook answers with the word `success`.
//!
//! [`check`] stands behind every plugin's call: what WeChat would refuse is the plugin's failure, and articles that it would
//! not show are cut here, where the operator can be told. A text may have any length: [`parts`] splits it. [`to_xml`] writes
//! what has passed. [`parse`] reads what another bot wrote.
//!
//! Names, order and limits: <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/passive-reply>

mod other;
mod parse;
pub mod parts;

use std::fmt;

use aviary_wechat::xml::{Writer, is_illegal};

use crate::plugin::bindings::{Article, Body, Field, Message, Music, OtherReply, Reply, VideoReply};
use other::Nodes;

pub use other::{Misplaced, Unwritable};
pub use parse::parse;

/// The longest text of a reply, in bytes of UTF-8. WeChat's page on passive replies names no number; this is the one for
/// [customer-service messages](https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage).
pub const TEXT_BYTES_MAX: usize = 2_048;

/// How many articles answer a message. WeChat drops the others, says its page on
/// [passive replies](https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/passive-reply).
pub const ARTICLES_TO_MESSAGE_MAX: usize = 1;

/// How many articles answer an event; from the same page.
pub const ARTICLES_TO_EVENT_MAX: usize = 8;

/// Whom a reply goes to, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The user's openid: `FromUserName` of the push.
    pub to_user_name: &'a str,
    /// The account's original id: `ToUserName` of the push.
    pub from_user_name: &'a str,
}

/// What was done to a reply to make it one that WeChat takes. Reads on after "plugin `x` ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// There were more articles than WeChat shows.
    ArticlesCut {
        /// How many there were.
        articles: usize,
        /// How many are left.
        shown: usize,
    },
}

/// Why a reply cannot go out. Reads on after "plugin `x` ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// WeChat shows the user a fault for it (silenceper/wechat#543).
    #[error("replied with an empty text, for which WeChat shows an error; to stay silent, reply `nothing`")]
    EmptyText,
    /// A value that WeChat's documentation requires is empty.
    #[error("replied with {reply} without `{field}`, which WeChat requires")]
    Missing {
        /// The case of `reply`.
        reply: &'static str,
        /// The missing element.
        field: &'static str,
    },
    /// A news reply with nothing in it.
    #[error("replied with news without an article; to stay silent, reply `nothing`")]
    NoArticles,
    /// A handover to an agent without a name.
    #[error(
        "replied with transfer-customer-service to an agent without a name; leave the agent out to let WeChat choose"
    )]
    NoAgent,
    /// More than the plugin's limit.
    #[error("replied with {bytes} bytes, and its `limits.reply_bytes_max` is {bytes_max}; send less, or a link to it")]
    TooLarge {
        /// What the texts and paths have together.
        bytes: usize,
        /// What they may have.
        bytes_max: usize,
    },
    /// `other` whose parts make no XML, or not the plugin's.
    #[error(transparent)]
    Other(#[from] Unwritable),
}

impl<'a> Address<'a> {
    /// Returns the way back to whoever sent `message`.
    pub fn back_to(message: &'a Message) -> Self {
        Self { to_user_name: &message.from_user, from_user_name: &message.to_user }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArticlesCut { articles, shown } => write!(
                formatter,
                "replied with {articles} articles, of which WeChat shows {shown} here; \
                 {ARTICLES_TO_MESSAGE_MAX} answers a message, {ARTICLES_TO_EVENT_MAX} answer an event"
            ),
        }
    }
}

/// Returns what a plugin's reply to `message` is once WeChat's limits are applied, and what they cost. All texts and
/// paths of it together may have `bytes_max` bytes: the replies that are kept for WeChat's retries must not fill the
/// host's memory.
///
/// # Errors
///
/// A reply for which WeChat would show the user an error, or nothing; see [`Refused`].
pub fn check(reply: Reply, message: &Message, bytes_max: usize) -> Result<(Reply, Option<Warning>), Refused> {
    let (reply, warning) = match reply {
        Reply::Text(content) => (Reply::Text(cleaned(content)), None),
        Reply::News(articles) => {
            let (articles, warning) = cut_articles(articles, &message.body);
            (Reply::News(articles), warning)
        }
        reply => (reply, None),
    };
    let bytes = bytes(&reply);
    if bytes > bytes_max {
        return Err(Refused::TooLarge { bytes, bytes_max });
    }
    complete(&reply)?;
    Ok((reply, warning))
}

/// Writes a reply that has passed [`check`]; `create_time` is the caller's clock, in seconds since 1970.
///
/// Returns nothing where nothing is to be said. So does an `other` that `check` would have refused: half of
/// it would be another reply.
pub fn to_xml(reply: &Reply, address: &Address<'_>, create_time: u64) -> Option<String> {
    let mut xml = Writer::new();
    let head = |xml: &mut Writer, msg_type: &str| {
        xml.text("ToUserName", address.to_user_name)
            .text("FromUserName", address.from_user_name)
            .number("CreateTime", create_time)
            .text("MsgType", msg_type);
    };
    match reply {
        Reply::Text(content) => {
            head(&mut xml, "text");
            xml.text("Content", content);
        }
        Reply::Image(media_id) => {
            head(&mut xml, "image");
            xml.open("Image").text("MediaId", media_id).close("Image");
        }
        Reply::Voice(media_id) => {
            head(&mut xml, "voice");
            xml.open("Voice").text("MediaId", media_id).close("Voice");
        }
        Reply::Video(video) => {
            head(&mut xml, "video");
            xml.open("Video").text("MediaId", &video.media_id);
            optional(&mut xml, "Title", video.title.as_deref());
            optional(&mut xml, "Description", video.description.as_deref());
            xml.close("Video");
        }
        Reply::Music(music) => {
            head(&mut xml, "music");
            xml.open("Music");
            optional(&mut xml, "Title", music.title.as_deref());
            optional(&mut xml, "Description", music.description.as_deref());
            optional(&mut xml, "MusicUrl", music.music_url.as_deref());
            optional(&mut xml, "HQMusicUrl", music.hq_music_url.as_deref());
            xml.text("ThumbMediaId", &music.thumb_media_id).close("Music");
        }
        Reply::News(articles) => {
            head(&mut xml, "news");
            xml.number("ArticleCount", articles.len() as u64).open("Articles");
            for article in articles {
                write_article(&mut xml, article);
            }
            xml.close("Articles");
        }
        Reply::TransferCustomerService(kf_account) => {
            head(&mut xml, "transfer_customer_service");
            if let Some(kf_account) = kf_account {
                xml.open("TransInfo").text("KfAccount", kf_account).close("TransInfo");
            }
        }
        Reply::Nothing => return None,
        Reply::Other(other) => {
            let nodes = Nodes::of(other).ok()?;
            head(&mut xml, &other.msg_type);
            nodes.write(&mut xml);
        }
    }
    Some(xml.finish())
}

fn write_article(xml: &mut Writer, article: &Article) {
    xml.open("item").text("Title", &article.title);
    optional(xml, "Description", article.description.as_deref());
    optional(xml, "PicUrl", article.pic_url.as_deref());
    xml.text("Url", &article.url).close("item");
}

/// Writes what was given, even if it is empty.
fn optional(xml: &mut Writer, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        xml.text(name, text);
    }
}

fn cleaned(text: String) -> String {
    if text.contains(is_cleaned) { clean(&text).collect() } else { text }
}

/// Returns the characters of a text that arrive. Others count neither as text nor towards its length.
fn clean(text: &str) -> impl Iterator<Item = char> {
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            match chars.next()? {
                // `\r\n` misbehaves on iPhones.
                '\r' if chars.peek() == Some(&'\n') => {}
                '\r' => return Some('\n'),
                char if is_cleaned(char) => {}
                char => return Some(char),
            }
        }
    })
}

/// Tells whether a character is written otherwise, or, if XML has no such character, not at all.
fn is_cleaned(char: char) -> bool {
    char == '\r' || is_illegal(char)
}

fn cut_articles(mut all: Vec<Article>, body: &Body) -> (Vec<Article>, Option<Warning>) {
    let shown = match body {
        Body::Event(_) => ARTICLES_TO_EVENT_MAX,
        _ => ARTICLES_TO_MESSAGE_MAX,
    };
    let articles = all.len();
    all.truncate(shown);
    (all, (articles > shown).then_some(Warning::ArticlesCut { articles, shown }))
}

/// Returns how much a plugin said.
fn bytes(reply: &Reply) -> usize {
    fn maybe(text: &Option<String>) -> usize {
        text.as_ref().map_or(0, String::len)
    }
    match reply {
        Reply::Text(text) | Reply::Image(text) | Reply::Voice(text) => text.len(),
        Reply::Video(VideoReply { media_id, title, description }) => media_id.len() + maybe(title) + maybe(description),
        Reply::Music(Music { title, description, music_url, hq_music_url, thumb_media_id }) => {
            let texts = [title, description, music_url, hq_music_url];
            thumb_media_id.len() + texts.map(maybe).iter().sum::<usize>()
        }
        Reply::News(articles) => articles
            .iter()
            .map(|Article { title, description, pic_url, url }| {
                title.len() + maybe(description) + maybe(pic_url) + url.len()
            })
            .sum(),
        Reply::TransferCustomerService(kf_account) => maybe(kf_account),
        Reply::Nothing => 0,
        Reply::Other(OtherReply { msg_type, fields }) => {
            let fields = fields.iter().map(|Field { path, value }| path.len() + value.len());
            msg_type.len() + fields.sum::<usize>()
        }
    }
}

/// Checks that nothing is missing without which WeChat refuses the reply.
fn complete(reply: &Reply) -> Result<(), Refused> {
    let required = |reply, field, value: &str| {
        if clean(value).all(char::is_whitespace) { Err(Refused::Missing { reply, field }) } else { Ok(()) }
    };
    match reply {
        // White space is a text: WeChat's documentation asks for no more than that it is not empty.
        Reply::Text(content) if content.is_empty() => Err(Refused::EmptyText),
        Reply::Text(_) | Reply::Nothing | Reply::TransferCustomerService(None) => Ok(()),
        Reply::Image(media_id) => required("image", "MediaId", media_id),
        Reply::Voice(media_id) => required("voice", "MediaId", media_id),
        Reply::Video(video) => required("video", "MediaId", &video.media_id),
        Reply::Music(music) => required("music", "ThumbMediaId", &music.thumb_media_id),
        Reply::News(articles) if articles.is_empty() => Err(Refused::NoArticles),
        Reply::News(articles) => articles.iter().try_for_each(|article| {
            required("news", "Title", &article.title)?;
            required("news", "Url", &article.url)
        }),
        Reply::TransferCustomerService(Some(kf_account)) => {
            required("transfer-customer-service", "KfAccount", kf_account).map_err(|_| Refused::NoAgent)
        }
        Reply::Other(other) => {
            Nodes::of(other)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use aviary_wechat::xml::{self, Element};
    use serde_json::Value;

    use super::*;
    use crate::plugin::bindings::{Event, Image, Link, Location, Text, Video, Voice};

    const REPLY_BYTES_MAX: usize = 65_536;

    fn checked(reply: Reply, message: &Message) -> Result<(Reply, Option<Warning>), Refused> {
        check(reply, message, REPLY_BYTES_MAX)
    }

    fn message(body: Body) -> Message {
        Message {
            account: "main".into(),
            to_user: "gh_1".into(),
            from_user: "o1".into(),
            create_time: 1,
            msg_id: None,
            article: None,
            body,
            extra: vec![],
        }
    }

    fn hello() -> Message {
        message(Body::Text(Text { content: "你好".into(), menu_id: None }))
    }

    fn text(content: &str) -> Reply {
        Reply::Text(content.into())
    }

    fn article(title: &str) -> Article {
        Article { title: title.into(), description: None, pic_url: None, url: "https://a".into() }
    }

    fn music(thumb_media_id: &str) -> Reply {
        Reply::Music(Music {
            title: None,
            description: None,
            music_url: None,
            hq_music_url: None,
            thumb_media_id: thumb_media_id.into(),
        })
    }

    fn other(msg_type: &str, fields: &[(&str, &str)]) -> Reply {
        let field = |(path, value): &(&str, &str)| Field { path: (*path).into(), value: (*value).into() };
        Reply::Other(OtherReply { msg_type: msg_type.into(), fields: fields.iter().map(field).collect() })
    }

    #[test]
    fn a_reply_goes_back_to_where_the_message_came_from() {
        let xml = to_xml(&text("hi"), &Address::back_to(&hello()), 12);
        assert_eq!(
            xml.as_deref(),
            Some(
                "<xml><ToUserName><![CDATA[o1]]></ToUserName><FromUserName><![CDATA[gh_1]]></FromUserName>\
                 <CreateTime>12</CreateTime><MsgType><![CDATA[text]]></MsgType>\
                 <Content><![CDATA[hi]]></Content></xml>"
            )
        );
    }

    #[test]
    fn nothing_is_no_xml() {
        let (reply, warning) = checked(Reply::Nothing, &hello()).unwrap();
        assert_eq!(to_xml(&reply, &Address::back_to(&hello()), 1), None);
        assert_eq!(warning, None);
    }

    #[test]
    fn a_text_that_fits_is_left_alone() {
        for content in ["0", " ", "\n", "第一行\n第二行", &"啊".repeat(682)] {
            assert_eq!(checked(text(content), &hello()), Ok((text(content), None)), "{content:?}");
        }
    }

    #[test]
    fn a_text_loses_what_would_not_arrive() {
        for (content, expected) in [("a\u{1}b", "ab"), ("a\r\nb\rc\r\r\nd", "a\nb\nc\n\nd"), ("a\u{fffe}", "a")] {
            assert_eq!(checked(text(content), &hello()), Ok((text(expected), None)), "{content:?}");
        }
    }

    #[test]
    fn a_text_without_text_is_refused() {
        for content in ["", "\0", "\u{1}\u{1f}\u{ffff}"] {
            assert_eq!(checked(text(content), &hello()), Err(Refused::EmptyText), "{content:?}");
        }
    }

    #[test]
    fn a_long_text_stays_whole_for_it_goes_out_in_parts() {
        let content = "啊".repeat(2_000);
        assert_eq!(checked(text(&content), &hello()), Ok((text(&content), None)));
        let bytes = REPLY_BYTES_MAX + 1;
        let refused = Refused::TooLarge { bytes, bytes_max: REPLY_BYTES_MAX };
        assert_eq!(checked(text(&"a".repeat(bytes)), &hello()), Err(refused));
    }

    #[test]
    fn what_does_not_arrive_does_not_count() {
        let content = format!("{}\u{1}\r\n", "a".repeat(2_047));
        let expected = format!("{}\n", "a".repeat(2_047));
        assert_eq!(checked(text(&content), &hello()), Ok((text(&expected), None)));
    }

    #[test]
    fn a_message_is_answered_with_one_article() {
        let video = Video { media_id: "m".into(), thumb_media_id: "t".into() };
        for body in [
            Body::Text(Text { content: "a".into(), menu_id: None }),
            Body::Image(Image { pic_url: "u".into(), media_id: "m".into() }),
            Body::Voice(Voice { media_id: "m".into(), format: "amr".into(), media_id16k: None, recognition: None }),
            Body::Video(video.clone()),
            Body::ShortVideo(video),
            Body::Location(Location { latitude: 1.0, longitude: 2.0, scale: 3, label: "l".into() }),
            Body::Link(Link { title: "t".into(), description: "d".into(), url: "u".into() }),
            Body::Other("file".into()),
        ] {
            let (reply, warning) = checked(Reply::News(vec![article("1"), article("2")]), &message(body)).unwrap();
            assert_eq!(reply, Reply::News(vec![article("1")]));
            assert_eq!(warning, Some(Warning::ArticlesCut { articles: 2, shown: 1 }));
        }
    }

    #[test]
    fn an_event_is_answered_with_eight_articles() {
        let unsubscribe = message(Body::Event(Event::Unsubscribe));
        let nine: Vec<_> = (1..=9).map(|number| article(&number.to_string())).collect();
        let eight = nine[..8].to_vec();
        assert_eq!(checked(Reply::News(eight.clone()), &unsubscribe), Ok((Reply::News(eight.clone()), None)));
        assert_eq!(
            checked(Reply::News(nine), &unsubscribe),
            Ok((Reply::News(eight), Some(Warning::ArticlesCut { articles: 9, shown: 8 })))
        );
    }

    #[test]
    fn a_reply_without_what_wechat_requires_is_refused() {
        let missing = |reply, field| Refused::Missing { reply, field };
        let video = VideoReply { media_id: "\u{1}".into(), title: None, description: None };
        let no_url = Article { url: " ".into(), ..article("a") };
        for (reply, expected) in [
            (Reply::Image(String::new()), missing("image", "MediaId")),
            (Reply::Voice(" ".into()), missing("voice", "MediaId")),
            (Reply::Video(video), missing("video", "MediaId")),
            (music(""), missing("music", "ThumbMediaId")),
            (Reply::News(vec![]), Refused::NoArticles),
            (Reply::News(vec![article("")]), missing("news", "Title")),
            (Reply::News(vec![no_url]), missing("news", "Url")),
            (Reply::TransferCustomerService(Some(String::new())), Refused::NoAgent),
            (other("", &[]), Refused::Other(Unwritable::MsgType(String::new()))),
        ] {
            assert_eq!(checked(reply, &hello()), Err(expected));
        }
    }

    #[test]
    fn an_other_that_would_be_refused_has_no_xml() {
        let reply = other("card", &[("Card", "a"), ("ToUserName", "victim")]);
        assert!(matches!(checked(reply.clone(), &hello()), Err(Refused::Other(_))));
        assert_eq!(to_xml(&reply, &Address::back_to(&hello()), 1), None);
    }

    #[test]
    fn a_reply_has_a_largest_size() {
        let reply = |bytes| Reply::Image("a".repeat(bytes));
        assert!(checked(reply(REPLY_BYTES_MAX), &hello()).is_ok());
        let bytes = REPLY_BYTES_MAX + 1;
        assert_eq!(checked(reply(bytes), &hello()), Err(Refused::TooLarge { bytes, bytes_max: REPLY_BYTES_MAX }));
        let large = other("card", &[("Card", &"a".repeat(REPLY_BYTES_MAX))]);
        assert!(matches!(checked(large, &hello()), Err(Refused::TooLarge { .. })));
    }

    #[test]
    fn warnings_and_refusals_read_on_after_the_plugins_name() {
        assert_eq!(
            Warning::ArticlesCut { articles: 9, shown: 8 }.to_string(),
            "replied with 9 articles, of which WeChat shows 8 here; 1 answers a message, 8 answer an event"
        );
        assert_eq!(
            Refused::Missing { reply: "music", field: "ThumbMediaId" }.to_string(),
            "replied with music without `ThumbMediaId`, which WeChat requires"
        );
    }

    /// What becomes of a row of `replies.json`.
    enum Row {
        /// Our XML means the same.
        Same,
        /// The same but for elements that WeChat no longer reads.
        Without(&'static [&'static str]),
        /// WeChat shows no such reply.
        Refused(Refused),
        /// The type has no field for one of its elements; `other` writes it.
        AsOther(Reply),
    }

    fn expected(id: &str) -> Row {
        let missing = |reply, field| Row::Refused(Refused::Missing { reply, field });
        match id {
            "peer-news-8" => Row::Refused(Refused::NoArticles),
            "peer-music-7" | "peer-music-15" | "peer-music-20" => missing("music", "ThumbMediaId"),
            "peer-text-18" | "peer-text-21" => Row::Without(&["FuncFlag"]),
            "peer-news-19" => Row::Without(&["FuncFlag", "Content"]),
            // `ThumbMediaId` is documented for music, not for video.
            "peer-video-17" => {
                Row::AsOther(other("video", &[("Video/MediaId", "mediaId"), ("Video/ThumbMediaId", "thumbMediaId")]))
            }
            _ => Row::Same,
        }
    }

    #[test]
    fn every_sample_is_written_as_wechat_reads_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/wire/replies.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        // An event, so that WeChat takes every sample's articles.
        let mut event = message(Body::Event(Event::Unsubscribe));
        let rows = file["replies"].as_array().unwrap();
        for row in rows {
            let id = row["id"].as_str().unwrap();
            let given = &row["reply"];
            event.to_user = given["from"].as_str().unwrap_or_default().into();
            event.from_user = given["to"].as_str().unwrap_or_default().into();
            let write = |reply: Reply| {
                let (reply, warning) = checked(reply, &event)?;
                assert_eq!(warning, None, "{id}");
                let create_time = given["create_time"].as_u64().unwrap_or_default();
                let xml = to_xml(&reply, &Address::back_to(&event), create_time);
                if let Some(xml) = &xml {
                    assert_eq!(parse(&xml::parse(xml.as_bytes()).unwrap()), read_back(reply), "{id}");
                }
                Ok(xml)
            };
            let meaning = |xml: Option<String>| xml.map(|xml| meaning(&xml::parse(xml.as_bytes()).unwrap()));
            let parsed = (!row["parsed"].is_null()).then(|| row["parsed"].clone());
            let written = write(reply(given));
            match expected(id) {
                Row::Same => assert_eq!(written.map(meaning), Ok(parsed), "{id}"),
                Row::Without(obsolete) => {
                    let mut parsed = parsed.unwrap();
                    obsolete.iter().for_each(|name| drop(parsed.as_object_mut().unwrap().remove(*name)));
                    assert_eq!(written.map(meaning), Ok(Some(parsed)), "{id}");
                }
                Row::Refused(refused) => assert_eq!(written, Err(refused), "{id}"),
                Row::AsOther(reply) => {
                    assert_ne!(written.map(meaning), Ok(parsed.clone()), "{id}");
                    assert_eq!(write(reply).map(meaning), Ok(parsed), "{id}");
                }
            }
        }
        assert_eq!(rows.len(), 41);
    }

    /// What a reply is after its way over the wire: a type that the contract knows is never `other`.
    fn read_back(reply: Reply) -> Reply {
        match reply {
            Reply::Other(OtherReply { msg_type, fields }) if msg_type == "video" => {
                let media_id = fields[0].value.clone();
                Reply::Video(VideoReply { media_id, title: None, description: None })
            }
            reply => reply,
        }
    }

    /// Builds the reply that a row describes.
    fn reply(given: &Value) -> Reply {
        let maybe = |name: &str| given[name].as_str().map(str::to_owned);
        let text = |name: &str| maybe(name).unwrap_or_default();
        match given["type"].as_str().unwrap() {
            "text" => Reply::Text(text("content")),
            "image" => Reply::Image(text("media_id")),
            "voice" => Reply::Voice(text("media_id")),
            "video" => Reply::Video(VideoReply {
                media_id: text("media_id"),
                title: maybe("title"),
                description: maybe("description"),
            }),
            "music" => Reply::Music(Music {
                title: maybe("title"),
                description: maybe("description"),
                music_url: maybe("music_url"),
                hq_music_url: maybe("hq_music_url"),
                thumb_media_id: text("thumb_media_id"),
            }),
            "news" => Reply::News(given["articles"].as_array().unwrap().iter().map(given_article).collect()),
            "transfer_customer_service" => Reply::TransferCustomerService(maybe("kf_account")),
            "none" | "empty" => Reply::Nothing,
            other => panic!("no reply is of type {other}"),
        }
    }

    fn given_article(given: &Value) -> Article {
        let maybe = |name: &str| given[name].as_str().map(str::to_owned);
        Article {
            title: maybe("title").unwrap(),
            description: maybe("description"),
            pic_url: maybe("pic_url"),
            url: maybe("url").unwrap(),
        }
    }

    /// Writes a tree as `parsed` has it: an element of children is an object, a repeated one a list.
    fn meaning(element: &Element) -> Value {
        if element.children.is_empty() {
            return element.text.clone().into();
        }
        let mut children = serde_json::Map::new();
        for child in &element.children {
            let value = meaning(child);
            match children.get_mut(&child.name) {
                None => drop(children.insert(child.name.clone(), value)),
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        children.into()
    }
}
