//! A reply in the notation.

use aviary_wechat::xml::Element;

use super::{escaped, folded};

/// The elements every reply has.
const HEADER: [&str; 4] = ["ToUserName", "FromUserName", "CreateTime", "MsgType"];

/// Returns a reply in the notation, as it stands after `<`; empty for none.
///
/// A further line of a text, or a further article, begins with `    | `. Control characters are spelled out, so that a
/// reply cannot command a terminal.
pub fn shown(reply: Option<&Element>) -> String {
    let Some(reply) = reply else {
        return String::new();
    };
    let shown = match reply.text_of("MsgType").unwrap_or_default() {
        "text" => text(reply.text_of("Content").unwrap_or_default()),
        "image" => word("image", &fields(reply, "Image", &["MediaId"])),
        "voice" => word("voice", &fields(reply, "Voice", &["MediaId"])),
        "video" => word("video", &fields(reply, "Video", &["MediaId", "Title", "Description"])),
        "music" => {
            let names = ["Title", "Description", "MusicUrl", "HQMusicUrl", "ThumbMediaId"];
            word("music", &fields(reply, "Music", &names))
        }
        "news" => news(reply),
        "transfer_customer_service" => word("transfer_customer_service", &fields(reply, "TransInfo", &["KfAccount"])),
        other => word(&format!("type {}", visible(other)), &leaves(reply)),
    };
    folded(&shown)
}

fn text(content: &str) -> String {
    // A blank text is a fault that must not look like silence.
    if content.trim().is_empty() {
        return "[text]".into();
    }
    escaped(&visible(content))
}

fn news(reply: &Element) -> String {
    let articles = reply.child("Articles").map_or(&[][..], |articles| &articles.children);
    let lines: Vec<String> = articles
        .iter()
        .map(|article| {
            let names = ["Title", "Url", "Description", "PicUrl"];
            joined(names.map(|name| article.text_of(name).unwrap_or_default()))
        })
        .collect();
    word("news", &lines.join("\n"))
}

fn fields(reply: &Element, parent: &str, names: &[&str]) -> String {
    let parent = reply.child(parent);
    joined(names.iter().map(|name| parent.and_then(|parent| parent.text_of(name)).unwrap_or_default()))
}

fn leaves(reply: &Element) -> String {
    let leaves = reply.leaves().into_iter().filter(|leaf| !HEADER.contains(&leaf.path.as_str()));
    let leaves: Vec<String> = leaves.map(|leaf| format!("{}={}", leaf.path, leaf.value)).collect();
    joined(leaves.iter().map(String::as_str))
}

fn word(name: &str, rest: &str) -> String {
    format!("[{name}] {rest}").trim_end().to_owned()
}

/// Joins values by ` | `; those missing at the end leave no trace.
fn joined<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = |value: &str| visible(&value.replace('\\', r"\\").replace('|', r"\|").replace('\n', r"\n"));
    let values: Vec<String> = values.into_iter().map(quoted).collect();
    values.join(" | ").trim_end_matches([' ', '|']).to_owned()
}

/// Spells out control characters, except those that lay out a text.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && !matches!(char, '\n' | '\t') {
            visible.extend(char.escape_default());
        } else {
            visible.push(char);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::expected::Expected;

    /// Shows a reply, and holds it to itself: whatever is shown can be expected.
    fn reply(msg_type: &str, body: &str) -> String {
        let xml = format!(
            "<xml><ToUserName>a</ToUserName><FromUserName>b</FromUserName><CreateTime>1</CreateTime>\
             <MsgType><![CDATA[{msg_type}]]></MsgType>{body}</xml>"
        );
        let element = aviary_wechat::xml::parse(xml.as_bytes()).unwrap();
        let shown = shown(Some(&element));
        let expected = Expected::parse(1, false, &super::super::unfolded(&shown)).unwrap();
        assert!(expected.fits(&shown), "{shown}");
        shown
    }

    fn text(content: &str) -> String {
        reply("text", &format!("<Content><![CDATA[{content}]]></Content>"))
    }

    #[test]
    fn no_reply_is_nothing() {
        assert_eq!(shown(None), "");
    }

    #[test]
    fn a_text_is_shown_as_it_is() {
        assert_eq!(text("你好 * <b> \\n"), "你好 * <b> \\n");
        assert_eq!(text("第一行\n第二行\n"), "第一行\n    | 第二行\n    | ");
        assert_eq!(text("[微笑] 你好"), "[微笑] 你好");
        assert_eq!(text(r"a \[image]"), r"a \[image]");
    }

    #[test]
    fn a_text_is_never_taken_for_another_reply_or_for_silence() {
        assert_eq!(text("[image] MEDIA_ID"), r"\[image] MEDIA_ID");
        assert_eq!(text(r"\[image] MEDIA_ID"), r"\\[image] MEDIA_ID");
        assert_eq!(text("[type x]"), r"\[type x]");
        assert_eq!(text(""), "[text]");
        assert_eq!(text(" \n"), "[text]");
        assert_eq!(text("[text]"), r"\[text]");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(text("a\u{1b}[31mb\r\n"), "a\\u{1b}[31mb\\r\n    | ");
        assert_eq!(
            reply("image", "<Image><MediaId><![CDATA[a\u{1b}\nb|c\\]]></MediaId></Image>"),
            r"[image] a\u{1b}\nb\|c\\"
        );
    }

    #[test]
    fn every_kind_of_reply_has_a_form() {
        assert_eq!(reply("image", "<Image><MediaId>m</MediaId></Image>"), "[image] m");
        assert_eq!(reply("image", ""), "[image]");
        assert_eq!(reply("voice", "<Voice><MediaId>m</MediaId></Voice>"), "[voice] m");
        assert_eq!(
            reply("video", "<Video><MediaId>m</MediaId><Title>t</Title><Description>d</Description></Video>"),
            "[video] m | t | d"
        );
        assert_eq!(
            reply("video", "<Video><MediaId>m</MediaId><Description>d</Description></Video>"),
            "[video] m |  | d"
        );
        assert_eq!(
            reply(
                "music",
                "<Music><Title>t</Title><Description>d</Description><MusicUrl>u</MusicUrl>\
                 <HQMusicUrl>h</HQMusicUrl><ThumbMediaId>m</ThumbMediaId></Music>"
            ),
            "[music] t | d | u | h | m"
        );
        assert_eq!(reply("transfer_customer_service", ""), "[transfer_customer_service]");
        assert_eq!(
            reply("transfer_customer_service", "<TransInfo><KfAccount>test1@test</KfAccount></TransInfo>"),
            "[transfer_customer_service] test1@test"
        );
        assert_eq!(reply("sticker", "<Sticker><Id>7</Id></Sticker><X/>"), "[type sticker] Sticker/Id=7 | X=");
    }

    #[test]
    fn articles_are_shown_one_to_a_line() {
        let one =
            "<item><Title>标题</Title><Description>说明</Description><PicUrl>p</PicUrl><Url>https://a/</Url></item>";
        let two = "<item><Title>b</Title><Url>https://b/</Url></item>";
        assert_eq!(
            reply("news", &format!("<ArticleCount>2</ArticleCount><Articles>{one}{two}</Articles>")),
            "[news] 标题 | https://a/ | 说明 | p\n    | b | https://b/"
        );
        assert_eq!(reply("news", ""), "[news]");
    }
}
