//! The way back: the XML of a passive reply, as a bot elsewhere writes it, becomes a [`Reply`].

use aviary_wechat::xml::{Element, Leaf};

use super::other::RESERVED;
use crate::plugin::bindings::{Article, Field, Music, OtherReply, Reply, VideoReply};

/// Reads a reply. Elements that its type does not have are left out, as WeChat does; a type that is not known here becomes
/// `other`, with all that it has.
///
/// Whether WeChat would take it is for [`check`](super::check) to say: what is missing is empty.
pub fn parse(root: &Element) -> Reply {
    let msg_type = root.text_of("MsgType").unwrap_or_default().trim();
    match msg_type {
        "text" => Reply::Text(text(root, "Content")),
        "image" => Reply::Image(media_id(root, "Image")),
        "voice" => Reply::Voice(media_id(root, "Voice")),
        "video" => Reply::Video(video(root)),
        "music" => Reply::Music(music(root)),
        "news" => Reply::News(root.child("Articles").map(articles).unwrap_or_default()),
        "transfer_customer_service" => Reply::TransferCustomerService(optional(root.child("TransInfo"), "KfAccount")),
        _ => Reply::Other(other(msg_type, root)),
    }
}

fn text(element: &Element, name: &str) -> String {
    element.text_of(name).unwrap_or_default().to_owned()
}

fn optional(element: Option<&Element>, name: &str) -> Option<String> {
    element.and_then(|element| element.text_of(name)).map(str::to_owned)
}

fn media_id(root: &Element, name: &str) -> String {
    root.child(name).map(|media| text(media, "MediaId")).unwrap_or_default()
}

fn video(root: &Element) -> VideoReply {
    let video = root.child("Video");
    VideoReply {
        media_id: optional(video, "MediaId").unwrap_or_default(),
        title: optional(video, "Title"),
        description: optional(video, "Description"),
    }
}

fn music(root: &Element) -> Music {
    let music = root.child("Music");
    Music {
        title: optional(music, "Title"),
        description: optional(music, "Description"),
        music_url: optional(music, "MusicUrl"),
        hq_music_url: optional(music, "HQMusicUrl"),
        thumb_media_id: optional(music, "ThumbMediaId").unwrap_or_default(),
    }
}

fn articles(articles: &Element) -> Vec<Article> {
    let items = articles.children.iter().filter(|child| child.name == "item");
    let article = |item: &Element| Article {
        title: text(item, "Title"),
        description: optional(Some(item), "Description"),
        pic_url: optional(Some(item), "PicUrl"),
        url: text(item, "Url"),
    };
    items.map(article).collect()
}

fn other(msg_type: &str, root: &Element) -> OtherReply {
    // What the host writes itself is not the bot's, however often it stands there.
    let is_its_own = |leaf: &Leaf<'_>| {
        let name = leaf.path.split(['/', '[']).next().unwrap_or_default();
        !RESERVED.contains(&name)
    };
    let leaves = root.leaves().into_iter().filter(is_its_own);
    let fields = leaves.map(|Leaf { path, value }| Field { path, value: value.to_owned() }).collect();
    OtherReply { msg_type: msg_type.to_owned(), fields }
}

#[cfg(test)]
mod tests {
    use aviary_wechat::xml;

    use super::*;

    /// Reads a reply of that type, with these elements after the four that every reply has.
    fn read(msg_type: &str, elements: &str) -> Reply {
        let xml = format!(
            "<xml><ToUserName><![CDATA[oUser]]></ToUserName><FromUserName><![CDATA[gh_1]]></FromUserName>\
             <CreateTime>1</CreateTime><MsgType><![CDATA[{msg_type}]]></MsgType>{elements}</xml>"
        );
        parse(&xml::parse(xml.as_bytes()).unwrap())
    }

    #[test]
    fn a_tutorials_reply_is_read_with_its_habits() {
        for xml in [
            // Flask, xmltodict.
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<xml><ToUserName>o</ToUserName><FromUserName>g</FromUserName>\
             <CreateTime>1</CreateTime><MsgType>text</MsgType><Content>你好 &lt;3</Content></xml>",
            // PHP, with an element that WeChat gave up.
            "<xml>\n <ToUserName><![CDATA[o]]></ToUserName>\n <CreateTime>1</CreateTime>\n <MsgType><![CDATA[text]]></MsgType>\n\
             <Content><![CDATA[你好 <3]]></Content>\n <FuncFlag>0</FuncFlag>\n</xml>\n",
        ] {
            assert_eq!(parse(&xml::parse(xml.as_bytes()).unwrap()), Reply::Text("你好 <3".into()), "{xml}");
        }
    }

    #[test]
    fn news_are_items_in_order_and_nothing_else() {
        let news = read(
            "news",
            "<ArticleCount>7</ArticleCount><Articles><item><Title>一</Title><Url>https://a</Url></item><other/>\
             <item><Title>二</Title><Description/><PicUrl>p</PicUrl><Url>https://b</Url></item></Articles>",
        );
        let article = |title: &str, description, pic_url: Option<&str>, url: &str| Article {
            title: title.into(),
            description,
            pic_url: pic_url.map(Into::into),
            url: url.into(),
        };
        assert_eq!(
            news,
            Reply::News(vec![
                article("一", None, None, "https://a"),
                article("二", Some(String::new()), Some("p"), "https://b"),
            ])
        );
    }

    #[test]
    fn a_type_that_is_not_known_keeps_all_but_the_header() {
        let card = read("card", "<Card><Id>7</Id></Card><Card><Id>8</Id></Card><ToUserName>oOther</ToUserName><Flag/>");
        let field = |(path, value): (&str, &str)| Field { path: path.into(), value: value.into() };
        let fields = [("Card/Id", "7"), ("Card[2]/Id", "8"), ("Flag", "")].map(field).to_vec();
        assert_eq!(card, Reply::Other(OtherReply { msg_type: "card".into(), fields }));
    }

    #[test]
    fn what_is_missing_is_empty_and_without_a_type_it_is_no_reply_that_passes() {
        assert_eq!(read("text", ""), Reply::Text(String::new()));
        assert_eq!(read("image", "<Image/>"), Reply::Image(String::new()));
        assert_eq!(read("news", ""), Reply::News(vec![]));
        assert_eq!(read("transfer_customer_service", ""), Reply::TransferCustomerService(None));
        assert_eq!(read("", ""), Reply::Other(OtherReply { msg_type: String::new(), fields: vec![] }));
    }
}
