//! What a user says or does, and the push that WeChat makes of it.

use anyhow::{Context, bail, ensure};
use aviary_wechat::xml::{Writer, is_name};

use super::{
    Header, unescaped,
    words::{self, Kind, Value, Word},
};
use crate::plugin::bindings::Field;

/// How many elements may be set by hand: each is looked for among the others.
const SET_MAX: usize = 256;

/// Something a user says or does: a text, or one of WeChat's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// `MsgType`: `event` for every event.
    pub msg_type: String,
    /// What WeChat sends between the header and `MsgId`, in its order; an event's begins with `Event`.
    pub fields: Vec<Field>,
    /// What the conversation's author set or added by hand; the header's own elements too.
    pub set: Vec<Field>,
}

impl Said {
    /// Reads what stands after `>` in the notation: a text, or a word in brackets and its fields on the next lines.
    ///
    /// # Errors
    ///
    /// A word without the value it needs, with something after its bracket, or that is nearly one of WeChat's; a field
    /// that is not `Path=value`; nothing at all.
    pub fn parse(written: &str) -> anyhow::Result<Said> {
        ensure!(!written.is_empty(), "a user cannot send an empty text; write what is said after `>`");
        let (line, fields) = written.split_once('\n').unwrap_or((written, ""));
        let Some((name, rest)) = bracketed(line) else {
            return Ok(Said::text(unescaped(written)));
        };
        let mut said = match word_of(name, rest)? {
            Some(said) => said,
            None => return Ok(Said::text(written)),
        };
        for field in fields.lines() {
            ensure!(said.set.len() < SET_MAX, "at most {SET_MAX} elements of a message are set by hand");
            said.set.push(parse_field(field)?);
        }
        Ok(said)
    }

    /// A text message, whatever it looks like.
    pub fn text(content: impl Into<String>) -> Said {
        Said { msg_type: "text".into(), fields: vec![field("Content", content)], set: Vec::new() }
    }

    /// An event, with the elements that WeChat sends with it where it is known; `value` as after its word in the
    /// notation, which is the `EventKey` of an unknown one.
    ///
    /// # Errors
    ///
    /// The event needs a value, or takes none.
    pub fn event(name: &str, value: &str) -> anyhow::Result<Said> {
        ensure!(!name.is_empty(), "an event has a name, such as `CLICK`");
        if let Some(word) = words::find_kind(Kind::Event, name) {
            return from_word(word, value);
        }
        let mut fields = vec![field("Event", name)];
        if !value.is_empty() {
            fields.push(field("EventKey", value));
        }
        Ok(Said { msg_type: "event".into(), fields, set: Vec::new() })
    }

    /// Returns what an event's value is called, such as `KEY`, where it cannot be left out.
    pub fn needs(event: &str) -> Option<&'static str> {
        let word = words::find_kind(Kind::Event, event)?;
        word.fields.iter().find_map(|(_, value)| match value {
            Value::Needed(what) => Some(*what),
            Value::Is(_) | Value::Or(..) | Value::Given(_) => None,
        })
    }

    /// Returns every word of WeChat's with its values, one to a line, for a person to read.
    pub fn words() -> String {
        words::list()
    }

    /// Returns the push, as WeChat writes it.
    pub fn to_xml(&self, header: &Header) -> String {
        let mut fields = vec![
            field("ToUserName", &header.to_user),
            field("FromUserName", &header.from_user),
            field("CreateTime", header.create_time.to_string()),
            field("MsgType", &self.msg_type),
        ];
        fields.extend(self.fields.iter().cloned());
        if self.msg_type != "event" {
            fields.push(field("MsgId", header.msg_id.to_string()));
        }
        for set in &self.set {
            put(&mut fields, set);
        }
        write(&fields)
    }
}

/// Splits `[name rest]` or `[name]…` after the name; nothing for what is text in any case.
fn bracketed(line: &str) -> Option<(&str, &str)> {
    let inside = line.strip_prefix('[')?;
    let end = inside.find(|char: char| char.is_whitespace() || char == ']')?;
    let (name, rest) = inside.split_at(end);
    (!name.is_empty()).then_some((name, rest.trim_end()))
}

/// Returns what a word in brackets means; nothing if it is not one of WeChat's.
fn word_of(name: &str, rest: &str) -> anyhow::Result<Option<Said>> {
    let word = words::find(name);
    let any = ["event", "type"].into_iter().find(|any| any.eq_ignore_ascii_case(name));
    if word.is_none() && any.is_none() {
        refuse_slip(name, rest)?;
        return Ok(None);
    }
    let value = match rest.strip_suffix(']') {
        Some("") => "",
        Some(value) if value.starts_with(char::is_whitespace) => value.trim(),
        _ => bail!(
            "`[{name}…]` is one of WeChat's words and must stand alone on its line; if it is text, write `\\[{name}…`"
        ),
    };
    let said = match (word, any) {
        (Some(word), _) => from_word(word, value)?,
        (None, Some("event")) => {
            let (event, key) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
            Said::event(event, key.trim())?
        }
        (None, _) => of_type(value)?,
    };
    Ok(Some(said))
}

/// A slip of the pen must not become a text that no one meant.
fn refuse_slip(name: &str, rest: &str) -> anyhow::Result<()> {
    if let Some(near) = rest.ends_with(']').then(|| words::nearest(name)).flatten() {
        bail!(
            "`[{name}]` is not one of WeChat's words; write `[{near}]` if that was meant, `[event {name}]` for an event of \
             that name, or `\\[{name}]` if it is text"
        );
    }
    Ok(())
}

fn of_type(value: &str) -> anyhow::Result<Said> {
    let (msg_type, value) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
    ensure!(!msg_type.is_empty(), "`[type]` needs a name, such as `[type sticker]`");
    if let Some(word) = words::find_kind(Kind::Message, msg_type) {
        return from_word(word, value.trim());
    }
    ensure!(
        value.trim().is_empty(),
        "`[type {msg_type}]` takes no value; write its elements on the next lines, as `    | Path=value`"
    );
    Ok(Said { msg_type: msg_type.into(), fields: Vec::new(), set: Vec::new() })
}

fn from_word(word: &Word, value: &str) -> anyhow::Result<Said> {
    let count = word.fields.iter().filter(|(_, value)| value.what().is_some()).count();
    ensure!(count > 0 || value.is_empty(), "`[{}]` takes no value, so not `{value}`", word.name);

    let mut values = values(value, count).into_iter();
    let mut fields = match word.kind {
        Kind::Message => Vec::new(),
        Kind::Event => vec![field("Event", word.name)],
    };
    for (path, source) in word.fields {
        let text = match source {
            Value::Is(text) => Some(*text),
            Value::Or(_, text) => Some(values.next().unwrap_or(text)),
            Value::Given(_) => values.next(),
            Value::Needed(what) => {
                let text = values.next();
                Some(text.with_context(|| format!("`[{}]` needs its {what}: write `{}`", word.name, word.usage()))?)
            }
        };
        fields.extend(text.map(|text| field(*path, text)));
    }
    // Only a follow through a QR code carries one.
    if word.name == "subscribe" && value.starts_with("qrscene_") {
        fields.push(field("Ticket", "TICKET"));
    }
    let msg_type = match word.kind {
        Kind::Message => word.name,
        Kind::Event => "event",
    };
    Ok(Said { msg_type: msg_type.into(), fields, set: Vec::new() })
}

/// Splits at most `count` values: at ` | ` where there is one, else at white space. The last takes what is left.
fn values(text: &str, count: usize) -> Vec<&str> {
    if text.is_empty() {
        return Vec::new();
    }
    if count > 1 && text.contains(" | ") {
        return text.splitn(count, " | ").map(str::trim).collect();
    }
    let mut values = Vec::new();
    let mut rest = text;
    while values.len() + 1 < count
        && let Some((value, after)) = rest.split_once(char::is_whitespace)
    {
        values.push(value);
        rest = after.trim_start();
    }
    values.push(rest);
    values
}

/// Reads `Path=value`, with paths as in the contract's `field`: `ScanCodeInfo/ScanType`, `List[2]/TemplateId`.
fn parse_field(line: &str) -> anyhow::Result<Field> {
    let (path, value) = line
        .split_once('=')
        .with_context(|| format!("`{line}` is not `Path=value`, as the lines under a word in brackets are"))?;
    let path = path.trim();
    let is_segment = |segment: &str| match segment.split_once('[') {
        None => is_name(segment),
        Some((name, number)) => {
            let number = number.strip_suffix(']').and_then(|number| number.parse::<usize>().ok());
            is_name(name) && number.is_some_and(|number| number > 1)
        }
    };
    ensure!(
        path.split('/').all(is_segment),
        "`{path}` is not a path of element names, such as `ScanCodeInfo/ScanType` or `List[2]/TemplateId`"
    );
    Ok(field(path, value))
}

fn field(path: impl Into<String>, value: impl Into<String>) -> Field {
    Field { path: path.into(), value: value.into() }
}

/// Replaces the field of that path, or adds it: beside the others of its element, or at the end.
fn put(fields: &mut Vec<Field>, new: &Field) {
    if let Some(old) = fields.iter_mut().find(|old| old.path == new.path) {
        old.value.clone_from(&new.value);
        return;
    }
    let element = |field: &Field| field.path.split('/').next().map(str::to_owned);
    let beside = fields.iter().rposition(|old| old.path.contains('/') && element(old) == element(new));
    fields.insert(beside.map_or(fields.len(), |index| index + 1), new.clone());
}

fn write(fields: &[Field]) -> String {
    let mut writer = Writer::new();
    let mut open: Vec<&str> = Vec::new();
    for field in fields {
        let (parents, name) = field.path.rsplit_once('/').unwrap_or(("", &field.path));
        let parents: Vec<&str> = parents.split('/').filter(|parent| !parent.is_empty()).collect();
        let shared = open.iter().zip(&parents).take_while(|(open, parent)| open == parent).count();
        for closed in open.drain(shared..).rev() {
            writer.close(name_of(closed));
        }
        for parent in &parents[shared..] {
            writer.open(name_of(parent));
            open.push(parent);
        }
        match number(field) {
            Some(number) => writer.number(name_of(name), number),
            None => writer.text(name_of(name), &field.value),
        };
    }
    for closed in open.iter().rev() {
        writer.close(name_of(closed));
    }
    writer.finish()
}

/// The number that WeChat writes without CDATA; nothing for a text, even one of digits.
fn number(field: &Field) -> Option<u64> {
    let number = field.value.parse().ok()?;
    // `007` and `+7` stay what the author wrote.
    (words::is_number(&field.path) && field.value == u64::to_string(&number)).then_some(number)
}

/// `List[2]` is a second `List`.
fn name_of(segment: &str) -> &str {
    segment.split_once('[').map_or(segment, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(written: &str) -> String {
        let header = Header {
            to_user: "toUser".into(),
            from_user: "fromUser".into(),
            create_time: 1_348_831_860,
            msg_id: 1_234_567_890_123_456,
        };
        let xml = Said::parse(written).unwrap().to_xml(&header);
        let begin = "<xml><ToUserName><![CDATA[toUser]]></ToUserName>\
                     <FromUserName><![CDATA[fromUser]]></FromUserName>\
                     <CreateTime>1348831860</CreateTime><MsgType>";
        xml.strip_prefix(begin).unwrap().strip_suffix("</xml>").unwrap().to_owned()
    }

    fn text(written: &str) -> String {
        let said = Said::parse(written).unwrap();
        assert_eq!((said.msg_type.as_str(), said.fields.len()), ("text", 1), "{written}");
        said.fields[0].value.clone()
    }

    fn refusal(written: &str) -> String {
        Said::parse(written).unwrap_err().to_string()
    }

    #[test]
    fn a_text_is_pushed_as_wechat_does() {
        assert_eq!(
            push("this is a test"),
            "<![CDATA[text]]></MsgType><Content><![CDATA[this is a test]]></Content>\
             <MsgId>1234567890123456</MsgId>"
        );
    }

    #[test]
    fn an_event_carries_no_msg_id() {
        assert_eq!(push("[subscribe]"), "<![CDATA[event]]></MsgType><Event><![CDATA[subscribe]]></Event>");
        assert_eq!(
            push("[subscribe qrscene_123123]"),
            "<![CDATA[event]]></MsgType><Event><![CDATA[subscribe]]></Event>\
             <EventKey><![CDATA[qrscene_123123]]></EventKey><Ticket><![CDATA[TICKET]]></Ticket>"
        );
        assert_eq!(
            push("[subscribe last_trade_no_42]"),
            "<![CDATA[event]]></MsgType><Event><![CDATA[subscribe]]></Event>\
             <EventKey><![CDATA[last_trade_no_42]]></EventKey>"
        );
    }

    #[test]
    fn nested_elements_are_opened_and_closed() {
        assert_eq!(
            push("[scancode_push 6 1]"),
            "<![CDATA[event]]></MsgType><Event><![CDATA[scancode_push]]></Event>\
             <EventKey><![CDATA[6]]></EventKey><ScanCodeInfo><ScanType><![CDATA[qrcode]]></ScanType>\
             <ScanResult><![CDATA[1]]></ScanResult></ScanCodeInfo>"
        );
        assert_eq!(
            push("[pic_sysphoto 6]"),
            "<![CDATA[event]]></MsgType><Event><![CDATA[pic_sysphoto]]></Event>\
             <EventKey><![CDATA[6]]></EventKey><SendPicsInfo><Count>1</Count><PicList><item>\
             <PicMd5Sum><![CDATA[1b5f7c23b5bf75682a53e7b6d163e185]]></PicMd5Sum></item></PicList></SendPicsInfo>"
        );
    }

    #[test]
    fn case_does_not_matter_except_between_the_two_locations() {
        assert_eq!(push("[click a b]"), push("[CLICK a b]"));
        assert!(push("[click a b]").contains("<Event><![CDATA[CLICK]]></Event><EventKey><![CDATA[a b]]>"));
        assert!(push("[location 23.1 113.3 广州 海珠]").contains("<Label><![CDATA[广州 海珠]]></Label>"));
        assert!(push("[LOCATION 23.1 113.3 65]").contains("<Precision>65</Precision>"));
        assert!(push("[Location]").contains("<Label>"));
        assert!(push("[event location]").contains("<Precision>"));
    }

    #[test]
    fn values_with_blanks_are_separated_by_bars() {
        let link = push("[link 两个 词 | https://a/?b=1]");
        assert!(link.contains("<Title><![CDATA[两个 词]]></Title>"), "{link}");
        assert!(link.contains("<Url><![CDATA[https://a/?b=1]]></Url>"), "{link}");
        assert!(push("[CLICK a | b]").contains("<EventKey><![CDATA[a | b]]>"));
    }

    #[test]
    fn brackets_that_are_not_wechats_are_text() {
        for written in ["[微笑]", "[Smile] hi", "[", "[]", "[]]", "[ image]", "[image", "[微笑] [image]", "[a]\nb"]
        {
            assert_eq!(text(written), written);
        }
    }

    #[test]
    fn a_backslash_makes_a_word_text() {
        assert_eq!(text(r"\[image]"), "[image]");
        assert_eq!(text(r"\\[image]"), r"\[image]");
        assert_eq!(text(r"\n [image]"), r"\n [image]");
        assert_eq!(text("\\[image]\n第二行"), "[image]\n第二行");
    }

    #[test]
    fn a_slip_is_no_text() {
        assert!(refusal("[subscibe]").contains("write `[subscribe]` if that was meant"));
        assert!(refusal("[imge 7]").contains("[image]"));
        assert!(refusal("[image] hi").contains(r"write `\[image…`"));
        assert!(refusal("[event]").contains("an event has a name"));
        assert!(refusal("[CLICK]").contains("`[CLICK KEY]`"));
        assert!(refusal("").contains("empty text"));
    }

    #[test]
    fn any_event_and_any_type_can_be_named() {
        assert_eq!(
            push("[event a_new_one some key]"),
            "<![CDATA[event]]></MsgType><Event><![CDATA[a_new_one]]></Event><EventKey><![CDATA[some key]]></EventKey>"
        );
        assert_eq!(push("[event Click k]"), push("[CLICK k]"));
        assert_eq!(push("[type sticker]"), "<![CDATA[sticker]]></MsgType><MsgId>1234567890123456</MsgId>");
        assert_eq!(push("[type image]"), push("[image]"));
        assert!(refusal("[type sticker 7]").contains("on the next lines"));
    }

    #[test]
    fn only_so_many_elements_are_set() {
        let written = |count: usize| format!("[image]\n{}", (0..count).map(|n| format!("A{n}=\n")).collect::<String>());
        assert_eq!(Said::parse(&written(SET_MAX)).unwrap().set.len(), SET_MAX);
        let error = Said::parse(&written(SET_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "at most 256 elements of a message are set by hand");
    }

    #[test]
    fn a_long_name_is_no_slip_of_the_pen() {
        let name = format!("{}image", "x".repeat(1 << 20));
        assert_eq!(Said::parse(&format!("[{name}]")).unwrap(), Said::text(format!("[{name}]")));
    }

    #[test]
    fn fields_are_set_or_added() {
        let scan = push("[scancode_push 6 1]\nScanCodeInfo/ScanType=barcode\nScanCodeInfo/X=1\nNew= a=b ");
        assert!(
            scan.ends_with(
                "<ScanCodeInfo><ScanType><![CDATA[barcode]]></ScanType><ScanResult><![CDATA[1]]></ScanResult>\
                 <X><![CDATA[1]]></X></ScanCodeInfo><New><![CDATA[ a=b ]]></New>"
            ),
            "{scan}"
        );
        let popup = push("[subscribe_msg_popup_event]\nSubscribeMsgPopupEvent/List[2]/TemplateId=b");
        assert!(popup.ends_with("</List><List><TemplateId><![CDATA[b]]></TemplateId></List></SubscribeMsgPopupEvent>"));
        assert!(
            push("[text 你好]\nMsgId=7\nbizmsgmenuid=101")
                .ends_with("<MsgId>7</MsgId><bizmsgmenuid><![CDATA[101]]></bizmsgmenuid>")
        );
        assert!(push("[image]\nMsgId=abc").ends_with("<MsgId><![CDATA[abc]]></MsgId>"));
    }

    #[test]
    fn a_field_that_is_no_element_is_refused() {
        for wrong in ["no value", "a b=1", "=1", "a//b=1", "<a>=1", "a[1]=2", "a[x]=2", "a]=2"] {
            assert!(Said::parse(&format!("[image]\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_word_can_be_said_and_read_back() {
        for line in words::list().lines().filter(|line| line.starts_with("  [") && line.ends_with(']')) {
            let written = line.trim().replace('?', "").replace(" BYTES", " 7");
            let said = Said::parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
            let header = Header { to_user: "a".into(), from_user: "b".into(), create_time: 1, msg_id: 2 };
            let xml = said.to_xml(&header);
            let element = aviary_wechat::xml::parse(xml.as_bytes()).unwrap();
            assert_eq!(element.text_of("MsgType"), Some(said.msg_type.as_str()), "{xml}");
        }
    }
}
