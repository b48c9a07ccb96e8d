//! Step 4, second half: WeChat's tree becomes the message that plugins are given.
//!
//! [`parse`] reads the header here, the content in `body` and `event`. All of them read through `Fields`, which hands
//! every leaf of the tree to one reader at most and puts what nobody took into `extra`: that is why nothing that WeChat
//! sends is ever lost.

mod body;
mod event;
mod fields;

use aviary_wechat::{excerpt, xml::Element};

use crate::plugin::bindings::{ArticlePosition, Message};
use fields::Fields;

/// What a push turned out to be.
#[derive(Debug, PartialEq)]
pub enum Push {
    /// A message for the plugins.
    Message(Box<Message>),
    /// A push that no plugin is asked about. It is answered `success` and logged.
    Unanswerable(Unanswerable),
}

/// Why there is nobody to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// `InfoType` without `MsgType`: WeChat talks to the third-party platform itself, not to an account.
    #[error(
        "`InfoType` is `{0}`: that is for a third-party platform, not for an account; give the platform its own URL"
    )]
    InfoType(String),
    /// WeChat Cloud Run asks whether something listens on this path.
    #[error("WeChat Cloud Run checks this path (`CheckContainerPath`); nothing to do")]
    CheckContainerPath,
    /// `FromUserName` is missing or empty.
    #[error(
        "`FromUserName` is missing, so there is nobody to answer; see who else calls this URL, or set \
         `mode = \"safe\"` against replayed signatures"
    )]
    NoFromUserName,
    /// `ToUserName` is missing or empty.
    #[error(
        "`ToUserName` is missing, so a reply would have no sender; see who else calls this URL, or set \
         `mode = \"safe\"` against replayed signatures"
    )]
    NoToUserName,
}

/// Why a push is not the message it claims to be. It is answered with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// `MsgType` is missing or empty, and it is no [`Unanswerable`] either.
    #[error("`MsgType` is missing; look who else calls this URL, or set `mode = \"safe\"` against replayed signatures")]
    NoMsgType,
    /// `CreateTime` is missing.
    #[error(
        "`CreateTime` is missing; look who else calls this URL, or set `mode = \"safe\"` against replayed signatures"
    )]
    NoCreateTime,
    /// `CreateTime` is something else than whole seconds since 1970.
    #[error(
        "`CreateTime` is `{0}`, not whole seconds since 1970; look who else calls this URL, or set `mode = \"safe\"` \
         against replayed signatures"
    )]
    CreateTime(String),
}

/// Reads what was pushed to `account`, a name from `aviary.toml`.
///
/// A user can type elements into a push (see [`aviary_wechat::xml`]). The four header elements come before anything a
/// user types, so the first of each counts; `MsgId` comes after it, so the last one does. The others stay in `extra`,
/// where nobody mistakes them for the header.
///
/// What has a `MsgType` is a message, whatever else is in it. The two names are asked for before `CreateTime`: a push
/// that nobody waits for is answered `success`, whatever its time.
///
/// # Errors
///
/// A push that no Official Account is ever sent; see [`Malformed`].
pub fn parse(account: &str, root: &Element) -> Result<Push, Malformed> {
    let mut fields = Fields::of(root);
    let Some(msg_type) = fields.filled("MsgType") else {
        return match without_msg_type(root) {
            Some(unanswerable) => Ok(Push::Unanswerable(unanswerable)),
            None => Err(Malformed::NoMsgType),
        };
    };
    let Some(from_user) = fields.filled("FromUserName") else {
        return Ok(Push::Unanswerable(Unanswerable::NoFromUserName));
    };
    let Some(to_user) = fields.filled("ToUserName") else {
        return Ok(Push::Unanswerable(Unanswerable::NoToUserName));
    };
    let Some(create_time) = fields.number("CreateTime") else {
        return Err(match root.text_of("CreateTime") {
            Some(text) => Malformed::CreateTime(excerpt(text)),
            None => Malformed::NoCreateTime,
        });
    };
    Ok(Push::Message(Box::new(Message {
        account: account.to_owned(),
        to_user,
        from_user,
        create_time,
        msg_id: fields.last_number("MsgId"),
        article: fields.attempt(|fields| {
            Some(ArticlePosition { msg_data_id: fields.text("MsgDataId")?, idx: fields.number("Idx")? })
        }),
        body: body::read(&mut fields, msg_type),
        extra: fields.into_extra(),
    })))
}

/// Tells which of the pushes that are no messages this is.
fn without_msg_type(root: &Element) -> Option<Unanswerable> {
    if let Some(info_type) = root.text_of("InfoType") {
        return Some(Unanswerable::InfoType(excerpt(info_type)));
    }
    let checks_path = root.text_of("action") == Some("CheckContainerPath");
    checks_path.then_some(Unanswerable::CheckContainerPath)
}

#[cfg(test)]
mod tests {
    use aviary_wechat::xml;
    use serde_json::Value;

    use super::*;
    use crate::plugin::bindings::{Body, Event, Field, Text};

    const WIRE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/wire");

    /// Reads a push of `content` after a complete header.
    pub(super) fn message(content: &str) -> Message {
        let xml = format!(
            "<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName>\
             <CreateTime>1</CreateTime>{content}</xml>"
        );
        match push(&xml) {
            Ok(Push::Message(message)) => *message,
            other => panic!("{xml} is no message: {other:?}"),
        }
    }

    /// Writes `extra` as `path=value`.
    pub(super) fn extra(message: &Message) -> Vec<String> {
        message.extra.iter().map(|field| format!("{}={}", field.path, field.value)).collect()
    }

    fn push(xml: &str) -> Result<Push, Malformed> {
        parse("main", &xml::parse(xml.as_bytes()).unwrap())
    }

    fn rows(file: &str, list: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(format!("{WIRE}/{file}")).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(file[list].take()).unwrap()
    }

    #[test]
    fn a_text_is_read_whole() {
        let push = push(
            "<xml>
                <ToUserName><![CDATA[gh_1]]></ToUserName>
                <FromUserName><![CDATA[o1]]></FromUserName>
                <CreateTime>1348831860</CreateTime>
                <MsgType><![CDATA[text]]></MsgType>
                <Content><![CDATA[ 你好 ]]></Content>
                <bizmsgmenuid>101</bizmsgmenuid>
                <MsgId>18446744073709551615</MsgId>
                <MsgDataId>a1</MsgDataId>
                <Idx>2</Idx>
            </xml>",
        );
        let message = Message {
            account: "main".into(),
            to_user: "gh_1".into(),
            from_user: "o1".into(),
            create_time: 1_348_831_860,
            msg_id: Some(u64::MAX),
            article: Some(ArticlePosition { msg_data_id: "a1".into(), idx: 2 }),
            body: Body::Text(Text { content: " 你好 ".into(), menu_id: Some("101".into()) }),
            extra: vec![],
        };
        assert_eq!(push, Ok(Push::Message(Box::new(message))));
    }

    #[test]
    fn a_user_who_types_a_header_is_still_themselves() {
        let message = message(
            "<MsgType>text</MsgType><Content>a</Content><FromUserName>victim</FromUserName>\
             <MsgType>event</MsgType><CreateTime>9</CreateTime><MsgId>7</MsgId><MsgId>99</MsgId>",
        );
        assert_eq!((message.from_user.as_str(), message.create_time), ("o1", 1));
        assert_eq!(message.msg_id, Some(99));
        assert_eq!(message.body, Body::Text(Text { content: "a".into(), menu_id: None }));
        assert_eq!(extra(&message), ["FromUserName[2]=victim", "MsgType[2]=event", "CreateTime[2]=9", "MsgId=7"]);
    }

    #[test]
    fn a_header_that_is_no_value_is_not_taken_from_further_down() {
        let xml = "<xml><ToUserName>gh_1</ToUserName><FromUserName><a>o1</a></FromUserName>\
                   <FromUserName>victim</FromUserName><CreateTime>1</CreateTime><MsgType>text</MsgType></xml>";
        assert_eq!(push(xml), Ok(Push::Unanswerable(Unanswerable::NoFromUserName)));
    }

    #[test]
    fn a_msg_id_that_is_no_number_is_left_in_extra() {
        let message = message("<MsgType>text</MsgType><Content>a</Content><MsgId>1</MsgId><MsgId>x</MsgId>");
        assert_eq!(message.msg_id, None);
        assert_eq!(extra(&message), ["MsgId=1", "MsgId[2]=x"]);
    }

    #[test]
    fn an_article_without_a_position_is_left_in_extra_whole() {
        let text = "<MsgType>text</MsgType><Content>a</Content>";
        for rest in ["<MsgDataId>m</MsgDataId><Idx>xxxx</Idx>", "<MsgDataId>m</MsgDataId>", "<Idx>1</Idx>"] {
            let message = message(&format!("{text}{rest}"));
            assert_eq!(message.article, None, "{rest}");
            assert_eq!(message.extra.len(), rest.matches("</").count(), "{rest}");
        }
    }

    #[test]
    fn what_has_no_field_is_kept_in_order_but_for_the_ciphertext() {
        let message = message(
            "<MsgType>text</MsgType><URL>u</URL><Encrypt><a>1</a></Encrypt><Content>a</Content>\
             <Encrypt>2</Encrypt><A><B>3</B><B/><Encrypt>4</Encrypt></A><Encryption>5</Encryption>",
        );
        assert_eq!(extra(&message), ["URL=u", "A/B=3", "A/B[2]=", "A/Encrypt=4", "Encryption=5"]);
    }

    #[test]
    fn pushes_for_nobody_are_told_from_messages() {
        use Unanswerable::{CheckContainerPath, InfoType, NoFromUserName, NoToUserName};
        let header = "<MsgType>text</MsgType><CreateTime>x</CreateTime>";
        let from = "<FromUserName>o1</FromUserName>";
        let to = "<ToUserName>gh_1</ToUserName>";
        for (content, expected) in [
            ("<InfoType>authorized</InfoType><CreateTime>x</CreateTime>".into(), InfoType("authorized".into())),
            ("<action>CheckContainerPath</action>".into(), CheckContainerPath),
            (format!("{header}{to}"), NoFromUserName),
            (format!("{header}{to}<FromUserName><![CDATA[ ]]></FromUserName>"), NoFromUserName),
            (format!("{header}{from}"), NoToUserName),
            (format!("{header}{from}<ToUserName/>"), NoToUserName),
        ] {
            let push = push(&format!("<xml>{content}</xml>"));
            assert_eq!(push, Ok(Push::Unanswerable(expected)), "{content}");
        }
    }

    #[test]
    fn a_message_that_mentions_a_platform_is_still_a_message() {
        let message = message(
            "<MsgType>text</MsgType><Content>a</Content><InfoType>b</InfoType><action>CheckContainerPath</action>",
        );
        assert_eq!(extra(&message), ["InfoType=b", "action=CheckContainerPath"]);
    }

    #[test]
    fn what_is_not_a_message_is_malformed() {
        use Malformed::{CreateTime, NoCreateTime, NoMsgType};
        let header = "<ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName>";
        for (content, expected) in [
            ("<Content>a</Content>", NoMsgType),
            ("<MsgType/><CreateTime>1</CreateTime>", NoMsgType),
            ("<action>DropDatabase</action>", NoMsgType),
            ("<MsgType>text</MsgType>", NoCreateTime),
            ("<MsgType>text</MsgType><CreateTime>-1</CreateTime>", CreateTime("-1".into())),
            ("<MsgType>text</MsgType><CreateTime>1.5</CreateTime>", CreateTime("1.5".into())),
            ("<MsgType>text</MsgType><CreateTime><a/></CreateTime>", CreateTime(String::new())),
            (
                "<MsgType>text</MsgType><CreateTime>18446744073709551616</CreateTime>",
                CreateTime("18446744073709551616".into()),
            ),
        ] {
            assert_eq!(push(&format!("<xml>{header}{content}</xml>")), Err(expected), "{content}");
        }
    }

    #[test]
    fn an_error_repeats_little_of_what_was_sent() {
        let long = format!("\n{}", "9".repeat(1_000));
        assert_eq!(excerpt(&long), format!("\u{fffd}{}", "9".repeat(39)));
    }

    /// The kind of each of WeChat's samples that has a type of its own. All other samples are `other`.
    const TYPED: &[(&str, &str)] = &[
        ("Text", "doc-text text-padding-preserved text-emoji text-no-cdata text-1 text-6 text-8"),
        ("Image", "image-3 image-4"),
        ("Voice", "doc-voice-recognition voice-recognition-empty voice-1 voice-2 voice-3"),
        ("Video", "doc-video video-3"),
        ("ShortVideo", "doc-shortvideo shortvideo-2 shortvideo-3"),
        ("Location", "doc-location location-2 location-4 location-5"),
        ("Link", "doc-link link-2 link-3 link-4"),
        ("Event/Subscribe", "doc-subscribe doc-subscribe-qr subscribe-last-trade-no event-subscribe-2"),
        ("Event/Unsubscribe", "doc-unsubscribe event-unsubscribe-1 event-unsubscribe-2"),
        ("Event/Scan", "doc-scan"),
        ("Event/Location", "doc-location-event event-location-1"),
        ("Event/Click", "doc-click"),
        ("Event/View", "event-view-1 event-view-2"),
        ("Event/ViewMiniprogram", "doc-view-miniprogram event-view_miniprogram-1"),
        ("Event/ScancodePush", "doc-scancode-push event-scancode_push-1"),
        ("Event/PicSysphoto", "doc-pic-sysphoto event-pic_sysphoto-1"),
        ("Event/PicPhotoOrAlbum", "pic-repeated-piclist event-pic_photo_or_album-1 event-pic_photo_or_album-2"),
        ("Event/PicWeixin", "doc-pic-weixin event-pic_weixin-1"),
        ("Event/LocationSelect", "doc-location-select event-location_select-1"),
        ("Event/TemplateSendFinished", "doc-template-ok doc-template-block doc-template-fail"),
        ("Event/MassSendFinished", "event-masssendjobfinish-1 event-masssendjobfinish-4"),
        ("Event/KfSwitchSession", "event-kf_switch_session-1"),
        ("Event/SubscribeMsgChange", "event-subscribe_msg_change_event-1"),
        ("Event/SubscribeMsgSent", "event-subscribe_msg_sent_event-1"),
        ("Event/UserAuthorizationCancellation", "auth-cancel"),
    ];

    #[test]
    fn every_sample_has_its_kind_and_loses_nothing() {
        let mut messages = 0;
        for row in rows("inbound.json", "samples") {
            let id = row["id"].as_str().unwrap();
            if row["product"] != "official-account" {
                continue;
            }
            let root = xml::parse(row["xml"].as_str().unwrap().as_bytes()).unwrap();
            match parse("main", &root) {
                Ok(Push::Message(message)) => {
                    let untyped = if row["msg_type"] == "event" { "Event/Other" } else { "Other" };
                    let typed = TYPED.iter().find(|(_, ids)| ids.split(' ').any(|typed| typed == id));
                    assert_eq!(kind(&message), typed.map_or(untyped, |(kind, _)| kind), "{id}");
                    assert_nothing_lost(id, &root, &message);
                    messages += 1;
                }
                push => {
                    let info_type = row["info_type"].as_str().unwrap().to_owned();
                    assert_eq!(push, Ok(Push::Unanswerable(Unanswerable::InfoType(info_type))), "{id}");
                }
            }
        }
        assert_eq!(messages, 96);
    }

    #[test]
    fn no_sample_loses_anything_when_a_part_is_gone_twisted_or_there_twice() {
        for row in rows("inbound.json", "samples") {
            let id = row["id"].as_str().unwrap();
            let root = xml::parse(row["xml"].as_str().unwrap().as_bytes()).unwrap();
            for root in variations(&root) {
                if let Ok(Push::Message(message)) = parse("main", &root) {
                    assert_nothing_lost(id, &root, &message);
                }
            }
        }
    }

    /// Returns the tree without each of its elements in turn, with each one blank, with each one nonsense,
    /// and with each one twice.
    fn variations(root: &Element) -> Vec<Element> {
        let mut variations = Vec::new();
        for (index, child) in root.children.iter().enumerate() {
            let blank = Element { name: child.name.clone(), ..Element::default() };
            let nonsense = Element { text: "NaN".into(), ..blank.clone() };
            let mut replacements = vec![vec![], vec![blank], vec![nonsense], vec![child.clone(), child.clone()]];
            replacements.extend(variations_of_child(child));
            for replacement in replacements {
                let mut root = root.clone();
                root.children.splice(index..=index, replacement);
                variations.push(root);
            }
        }
        variations
    }

    fn variations_of_child(child: &Element) -> impl Iterator<Item = Vec<Element>> {
        variations(child).into_iter().map(|child| vec![child])
    }

    /// Names the case of the body, and of the event: `Event/Click`.
    fn kind(message: &Message) -> String {
        let case = |value: &Value| match value {
            Value::Object(case) => case.keys().next().unwrap().clone(),
            case => case.as_str().unwrap().to_owned(),
        };
        let body = serde_json::to_value(&message.body).unwrap();
        match &message.body {
            Body::Event(_) => format!("Event/{}", case(&body["Event"])),
            _ => case(&body),
        }
    }

    /// Every leaf is in `extra`, or its value is somewhere in the typed part, once for each leaf.
    fn assert_nothing_lost(id: &str, root: &Element, message: &Message) {
        let mut extra = message.extra.clone();
        let mut typed = Vec::new();
        let without_extra = Message { account: String::new(), extra: vec![], ..message.clone() };
        scalars(&serde_json::to_value(&without_extra).unwrap(), &mut typed);
        // The names of these two are the case of the body and of the event.
        let named = |path: &str| match path {
            "MsgType" => !matches!(message.body, Body::Other(_)),
            "Event" => matches!(&message.body, Body::Event(event) if !matches!(event, Event::Other(_))),
            _ => false,
        };
        for leaf in root.leaves() {
            let in_extra = |field: &Field| field.path == leaf.path && field.value == leaf.value;
            if let Some(index) = extra.iter().position(in_extra) {
                extra.remove(index);
            } else if let Some(index) = typed.iter().position(|value| same(value, leaf.value)) {
                typed.remove(index);
            } else {
                assert!(named(&leaf.path) || leaf.path.starts_with("Encrypt"), "{id} lost {leaf:?}: {message:?}");
            }
        }
        assert_eq!(extra, [], "{id} has in extra what nobody sent");
    }

    #[test]
    #[should_panic(expected = "lost Leaf")]
    fn a_loss_would_be_noticed() {
        let root = xml::parse(b"<xml><Content>a</Content><New>b</New></xml>").unwrap();
        let message = message("<MsgType>text</MsgType><Content>a</Content>");
        assert_nothing_lost("a message without New", &root, &message);
    }

    fn scalars(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.values().for_each(|value| scalars(value, found)),
            Value::Array(values) => values.iter().for_each(|value| scalars(value, found)),
            Value::String(text) => found.push(text.clone()),
            Value::Number(number) => found.push(number.to_string()),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Compares numbers by value, and the key of a subscribe event without its prefix.
    fn same(typed: &str, sent: &str) -> bool {
        let number = |text: &str| text.parse::<f64>().ok();
        let is_key = |prefix: &str| sent.strip_prefix(prefix) == Some(typed);
        typed == sent
            || (number(sent).is_some() && number(typed) == number(sent))
            || is_key("qrscene_")
            || is_key("last_trade_no_")
    }

    #[test]
    fn malformed_pushes_are_what_the_table_of_answers_says() {
        let text = |content: &str, msg_id| Ok((content.to_owned(), msg_id));
        let injection = "a]]></Content><FromUserName><![CDATA[victim]]></FromUserName>\
                         <MsgType><![CDATA[event]]></MsgType><Event><![CDATA[CLICK]]></Event>\
                         <MsgId>7</MsgId><Content><![CDATA[b";
        let mut seen = 0;
        for case in rows("malformed.json", "cases") {
            let id = case["id"].as_str().unwrap();
            let expected = match id {
                "nested-xml-in-content" => text("<xml><a>1</a></xml>", Some(1)),
                "cdata-split" => text("a]]>b", Some(1)),
                "cdata-nested-open" => text("a<![CDATA[b", Some(1)),
                "content-injection" => text(injection, Some(99)),
                "bom" => text("hi", Some(1)),
                "createtime-huge" | "lowercase-msgtype-mixed" | "encrypt-missing-in-safe-mode" => text("x", Some(1)),
                "missing-from" => Err(Ok(Unanswerable::NoFromUserName)),
                "createtime-not-number" => Err(Err(Malformed::CreateTime("abc".into()))),
                // What remains when an envelope is taken for a push.
                "encrypt-not-base64" | "encrypt-empty" | "encrypt-15-bytes" => Err(Err(Malformed::NoMsgType)),
                // The others end before this step.
                _ => continue,
            };
            let push = push(case["body"].as_str().unwrap());
            let outcome = match push {
                Ok(Push::Message(message)) => match message.body {
                    Body::Text(text) => {
                        assert_eq!(message.from_user, "fromUser", "{id}");
                        assert_eq!(message.extra, [], "{id}");
                        Ok((text.content, message.msg_id))
                    }
                    body => panic!("{id} became {body:?}"),
                },
                Ok(Push::Unanswerable(unanswerable)) => Err(Ok(unanswerable)),
                Err(malformed) => Err(Err(malformed)),
            };
            assert_eq!(outcome, expected, "{id}");
            seen += 1;
        }
        assert_eq!(seen, 13);
    }
}
