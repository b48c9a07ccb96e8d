//! What a message is, by its `MsgType`.

use super::{event, fields::Fields};
use crate::plugin::bindings::{Body, Image, Link, Location, Text, Video, Voice};

/// Reads the body. One that is new, or that lacks what WeChat promises, is `other`, and its leaves stay.
///
/// Source: <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/receive-message>
pub(super) fn read(fields: &mut Fields<'_>, msg_type: String) -> Body {
    let body = fields.attempt(|fields| {
        Some(match msg_type.to_ascii_lowercase().as_str() {
            "text" => Body::Text(text(fields)?),
            "image" => Body::Image(image(fields)?),
            "voice" => Body::Voice(voice(fields)?),
            "video" => Body::Video(video(fields)?),
            "shortvideo" => Body::ShortVideo(video(fields)?),
            "location" => Body::Location(location(fields)?),
            "link" => Body::Link(link(fields)?),
            "event" => Body::Event(event::read(fields)?),
            _ => return None,
        })
    });
    body.unwrap_or(Body::Other(msg_type))
}

fn text(fields: &mut Fields<'_>) -> Option<Text> {
    Some(Text { content: fields.text("Content")?, menu_id: fields.text("bizmsgmenuid") })
}

fn image(fields: &mut Fields<'_>) -> Option<Image> {
    Some(Image { pic_url: fields.text("PicUrl")?, media_id: fields.text("MediaId")? })
}

fn voice(fields: &mut Fields<'_>) -> Option<Voice> {
    Some(Voice {
        media_id: fields.text("MediaId")?,
        format: fields.text("Format")?,
        media_id16k: fields.text("MediaId16K"),
        recognition: fields.text("Recognition"),
    })
}

fn video(fields: &mut Fields<'_>) -> Option<Video> {
    Some(Video { media_id: fields.text("MediaId")?, thumb_media_id: fields.text("ThumbMediaId")? })
}

fn location(fields: &mut Fields<'_>) -> Option<Location> {
    Some(Location {
        latitude: fields.decimal("Location_X")?,
        longitude: fields.decimal("Location_Y")?,
        scale: fields.number("Scale")?,
        label: fields.text("Label")?,
    })
}

fn link(fields: &mut Fields<'_>) -> Option<Link> {
    Some(Link { title: fields.text("Title")?, description: fields.text("Description")?, url: fields.text("Url")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{extra, message};

    #[test]
    fn each_type_has_its_fields() {
        for (content, expected) in [
            (
                "<MsgType>image</MsgType><PicUrl>u</PicUrl><MediaId>m</MediaId>",
                Body::Image(Image { pic_url: "u".into(), media_id: "m".into() }),
            ),
            (
                "<MsgType>voice</MsgType><MediaId>m</MediaId><Format>amr</Format>\
                 <MediaId16K>n</MediaId16K><Recognition/>",
                Body::Voice(Voice {
                    media_id: "m".into(),
                    format: "amr".into(),
                    media_id16k: Some("n".into()),
                    recognition: Some(String::new()),
                }),
            ),
            (
                "<MsgType>voice</MsgType><MediaId>m</MediaId><Format>speex</Format>",
                Body::Voice(Voice {
                    media_id: "m".into(),
                    format: "speex".into(),
                    media_id16k: None,
                    recognition: None,
                }),
            ),
            (
                "<MsgType>shortvideo</MsgType><MediaId>m</MediaId><ThumbMediaId>t</ThumbMediaId>",
                Body::ShortVideo(Video { media_id: "m".into(), thumb_media_id: "t".into() }),
            ),
            (
                "<MsgType>location</MsgType><Location_X>23.5</Location_X><Location_Y>-113</Location_Y>\
                 <Scale>20</Scale><Label/>",
                Body::Location(Location { latitude: 23.5, longitude: -113.0, scale: 20, label: String::new() }),
            ),
            (
                "<MsgType>link</MsgType><Title>t</Title><Description>d</Description><Url>u</Url>",
                Body::Link(Link { title: "t".into(), description: "d".into(), url: "u".into() }),
            ),
        ] {
            let message = message(content);
            assert_eq!(message.body, expected);
            assert_eq!(extra(&message), [""; 0], "{content}");
        }
    }

    #[test]
    fn case_does_not_matter_to_a_known_type_and_is_kept_of_a_new_one() {
        let known = message("<MsgType>TEXT</MsgType><Content>a</Content>");
        assert_eq!(known.body, Body::Text(Text { content: "a".into(), menu_id: None }));
        let new = message("<MsgType>miniProgramPage</MsgType><Title>t</Title>");
        assert_eq!(new.body, Body::Other("miniProgramPage".into()));
        assert_eq!(extra(&new), ["Title=t"]);
    }

    #[test]
    fn a_body_with_a_part_missing_or_unreadable_is_other_and_keeps_all_its_leaves() {
        for (content, name, expected) in [
            ("<MsgType>text</MsgType><bizmsgmenuid>1</bizmsgmenuid>", "text", vec!["bizmsgmenuid=1"]),
            ("<MsgType>Image</MsgType><PicUrl>u</PicUrl>", "Image", vec!["PicUrl=u"]),
            (
                "<MsgType>location</MsgType><Location_X>1</Location_X><Location_Y>NaN</Location_Y>\
                 <Scale>20</Scale><Label>l</Label>",
                "location",
                vec!["Location_X=1", "Location_Y=NaN", "Scale=20", "Label=l"],
            ),
            (
                "<MsgType>location</MsgType><Location_X>1</Location_X><Location_Y>2</Location_Y>\
                 <Scale>-1</Scale><Label>l</Label>",
                "location",
                vec!["Location_X=1", "Location_Y=2", "Scale=-1", "Label=l"],
            ),
            ("<MsgType>event</MsgType><EventKey>k</EventKey>", "event", vec!["EventKey=k"]),
        ] {
            let message = message(content);
            assert_eq!(message.body, Body::Other(name.into()));
            assert_eq!(extra(&message), expected);
        }
    }

    #[test]
    fn a_field_is_its_first_occurrence() {
        let message = message("<MsgType>image</MsgType><MediaId>1</MediaId><PicUrl>u</PicUrl><MediaId>2</MediaId>");
        assert_eq!(message.body, Body::Image(Image { pic_url: "u".into(), media_id: "1".into() }));
        assert_eq!(extra(&message), ["MediaId[2]=2"]);
    }
}
