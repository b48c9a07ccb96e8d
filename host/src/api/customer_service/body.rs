//! A customer-service message as WeChat takes it: JSON with WeChat's own names, in the order of its page.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{Content, Options};
use crate::{
    api::ApiError,
    plugin::bindings::{Article, Music, VideoReply},
};

/// A whole message.
pub(super) struct Body<'a> {
    openid: &'a str,
    content: &'a Content,
    /// The JSON of a type that has none here.
    other: Option<Value>,
    options: &'a Options,
}

impl<'a> Body<'a> {
    /// Puts a message together.
    ///
    /// # Errors
    ///
    /// [`ApiError::Invalid`] for a type by its parts that is no word, or whose JSON is none.
    pub(super) fn of(openid: &'a str, content: &'a Content, options: &'a Options) -> Result<Self, ApiError> {
        let other = match content {
            Content::Other((msgtype, json)) => Some(other(msgtype, json).map_err(ApiError::Invalid)?),
            _ => None,
        };
        Ok(Self { openid, content, other, options })
    }
}

/// Keys that are the host's to write: a type of that name would be another message.
const RESERVED: [&str; 4] = ["touser", "msgtype", "customservice", "aimsgcontext"];

fn other(msgtype: &str, json: &str) -> Result<Value, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if msgtype.is_empty() || !msgtype.bytes().all(is_word) || RESERVED.contains(&msgtype) {
        return Err("the type is none of WeChat's: a `msgtype` has letters, digits and `_`".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("what stands under `{msgtype}` is no JSON: {error}"))
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let msgtype = msgtype(self.content);
        map.serialize_entry("touser", self.openid)?;
        map.serialize_entry("msgtype", msgtype)?;
        match self.content {
            Content::Text(content) => map.serialize_entry(msgtype, &One("content", content))?,
            Content::Image(media_id) | Content::Voice(media_id) | Content::Mpnews(media_id) => {
                map.serialize_entry(msgtype, &One("media_id", media_id))?;
            }
            Content::Video(video) => map.serialize_entry(msgtype, &VideoBody::of(video))?,
            Content::Music(music) => map.serialize_entry(msgtype, &MusicBody::of(music))?,
            Content::News(article) => {
                map.serialize_entry(msgtype, &NewsBody { articles: [ArticleBody::of(article)] })?
            }
            Content::MpnewsArticle(article_id) => map.serialize_entry(msgtype, &One("article_id", article_id))?,
            Content::Menu(menu) => map.serialize_entry(msgtype, &MenuBody::of(menu))?,
            Content::Card(card_id) => map.serialize_entry(msgtype, &One("card_id", card_id))?,
            Content::MiniprogramPage(page) => map.serialize_entry(msgtype, &PageBody::of(page))?,
            Content::Other(_) => map.serialize_entry(msgtype, &self.other)?,
        }
        if let Some(kf_account) = &self.options.kf_account {
            map.serialize_entry("customservice", &One("kf_account", kf_account))?;
        }
        if self.options.is_ai {
            map.serialize_entry("aimsgcontext", &One("is_ai_msg", &1))?;
        }
        map.end()
    }
}

fn msgtype(content: &Content) -> &str {
    match content {
        Content::Text(_) => "text",
        Content::Image(_) => "image",
        Content::Voice(_) => "voice",
        Content::Video(_) => "video",
        Content::Music(_) => "music",
        Content::News(_) => "news",
        Content::Mpnews(_) => "mpnews",
        Content::MpnewsArticle(_) => "mpnewsarticle",
        Content::Menu(_) => "msgmenu",
        Content::Card(_) => "wxcard",
        Content::MiniprogramPage(_) => "miniprogrampage",
        Content::Other((msgtype, _)) => msgtype,
    }
}

/// An object of one key.
struct One<'a, T: ?Sized>(&'static str, &'a T);

impl<T: Serialize + ?Sized> Serialize for One<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, self.1)])
    }
}

type Maybe<'a> = Option<&'a str>;

/// `thumb_media_id` is left out: WeChat shows a picture of the video itself.
#[derive(Serialize)]
struct VideoBody<'a> {
    media_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Maybe<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Maybe<'a>,
}

impl<'a> VideoBody<'a> {
    fn of(video: &'a VideoReply) -> Self {
        let (title, description) = (video.title.as_deref(), video.description.as_deref());
        Self { media_id: &video.media_id, title, description }
    }
}

#[derive(Serialize)]
struct MusicBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Maybe<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Maybe<'a>,
    thumb_media_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    musicurl: Maybe<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hqmusicurl: Maybe<'a>,
}

impl<'a> MusicBody<'a> {
    fn of(music: &'a Music) -> Self {
        Self {
            title: music.title.as_deref(),
            description: music.description.as_deref(),
            thumb_media_id: &music.thumb_media_id,
            musicurl: music.music_url.as_deref(),
            hqmusicurl: music.hq_music_url.as_deref(),
        }
    }
}

/// WeChat takes exactly one article since 2018 (45008).
#[derive(Serialize)]
struct NewsBody<'a> {
    articles: [ArticleBody<'a>; 1],
}

#[derive(Serialize)]
struct ArticleBody<'a> {
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Maybe<'a>,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    picurl: Maybe<'a>,
}

impl<'a> ArticleBody<'a> {
    fn of(article: &'a Article) -> Self {
        let (description, picurl) = (article.description.as_deref(), article.pic_url.as_deref());
        Self { title: &article.title, description, url: &article.url, picurl }
    }
}

#[derive(Serialize)]
struct MenuBody<'a> {
    head_content: &'a str,
    list: Vec<MenuItem<'a>>,
    tail_content: &'a str,
}

#[derive(Serialize)]
struct MenuItem<'a> {
    id: &'a str,
    content: &'a str,
}

impl<'a> MenuBody<'a> {
    fn of(menu: &'a super::Menu) -> Self {
        let list = menu.items.iter().map(|(id, content)| MenuItem { id, content }).collect();
        Self { head_content: &menu.head, list, tail_content: &menu.tail }
    }
}

#[derive(Serialize)]
struct PageBody<'a> {
    title: &'a str,
    appid: &'a str,
    pagepath: &'a str,
    thumb_media_id: &'a str,
}

impl<'a> PageBody<'a> {
    fn of(page: &'a super::MiniprogramPage) -> Self {
        let (title, appid) = (&*page.title, &*page.app_id);
        Self { title, appid, pagepath: &page.page_path, thumb_media_id: &page.thumb_media_id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &Content) -> Result<String, String> {
        let options = Options { kf_account: None, is_ai: false };
        let body = Body::of("o1", content, &options).map_err(|error| error.to_string())?;
        Ok(serde_json::to_string(&body).unwrap())
    }

    #[test]
    fn what_is_not_ascii_is_written_as_it_is() {
        let text = Content::Text("“你好”\n😀\u{7f}".into());
        assert_eq!(
            written(&text).unwrap(),
            "{\"touser\":\"o1\",\"msgtype\":\"text\",\"text\":{\"content\":\"“你好”\\n😀\u{7f}\"}}"
        );
    }

    #[test]
    fn a_type_by_its_parts_stands_under_its_name() {
        let other = |msgtype: &str, json: &str| written(&Content::Other((msgtype.into(), json.into())));
        assert_eq!(
            other("video", "{\"thumb_media_id\":\"T\", \"media_id\": \"M\"}").unwrap(),
            "{\"touser\":\"o1\",\"msgtype\":\"video\",\"video\":{\"media_id\":\"M\",\"thumb_media_id\":\"T\"}}"
        );
        for (msgtype, json) in
            [("touser", "\"evil\""), ("a\":1,\"b", "1"), ("", "1"), ("x", "1},\"touser\":{"), ("x", "")]
        {
            assert!(other(msgtype, json).is_err(), "{msgtype} {json}");
        }
    }
}
