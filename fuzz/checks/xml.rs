//! What must hold of the reader and the writer of XML, whatever the bytes.

use std::collections::HashSet;

use aviary_wechat::xml::{self, DEPTH_MAX, ELEMENTS_MAX, Element, NAME_BYTES_MAX, Writer, is_illegal, is_name};

use super::printable::assert_printable;

/// What says who sent a message, and which: of the first four the first counts, of the last one the last.
const HEADER: [&str; 5] = ["ToUserName", "FromUserName", "CreateTime", "MsgType", "MsgId"];

/// Takes the bytes as a body, as what a user typed, and as what a plugin replies.
pub fn check(bytes: &[u8]) {
    match xml::parse(bytes) {
        Ok(root) => read(&root),
        Err(error) => assert_printable(&error.to_string()),
    }
    let text = String::from_utf8_lossy(bytes);
    typed_as_content(&text);
    typed_as_title(&text);
    written(&text);
}

fn read(root: &Element) {
    assert_eq!(root.name, "xml");
    let mut elements = 0;
    bounded(root, 1, &mut elements);

    for name in HEADER {
        let texts: Vec<&str> =
            root.children.iter().filter(|child| child.name == name).map(|child| &*child.text).collect();
        assert_eq!((root.text_of(name), root.last_text_of(name)), (texts.first().copied(), texts.last().copied()));
    }

    let leaves = root.leaves();
    let mut paths = HashSet::new();
    for leaf in &leaves {
        assert!(paths.insert(&leaf.path), "two leaves at {}", leaf.path);
        assert_eq!(at(root, &leaf.path).map(|element| element.text.as_str()), Some(leaf.value), "{}", leaf.path);
    }
    assert_eq!(leaves.len(), childless(root), "{root:?}");

    // A second `Content` would be taken for the user's text in the first one.
    if !root.children.is_empty() && leaves.iter().filter(|leaf| leaf.path.contains("Content")).count() < 2 {
        let mut writer = Writer::new();
        root.children.iter().for_each(|child| write(child, &mut writer));
        assert_eq!(xml::parse(writer.finish().as_bytes()), Ok(legal(root)));
    }
}

fn bounded(element: &Element, depth: usize, elements: &mut usize) {
    *elements += 1;
    assert!(depth <= DEPTH_MAX && *elements <= ELEMENTS_MAX);
    assert!(is_name(&element.name) && element.name.len() <= NAME_BYTES_MAX, "{:?}", element.name);
    assert!(element.children.is_empty() || element.text.is_empty(), "{element:?}");
    element.children.iter().for_each(|child| bounded(child, depth + 1, elements));
}

/// Walks down a leaf's path, such as `List[2]/TemplateId`.
fn at<'a>(root: &'a Element, path: &str) -> Option<&'a Element> {
    path.split('/').try_fold(root, |element, step| {
        let (name, number) = match step.strip_suffix(']').and_then(|step| step.split_once('[')) {
            Some((name, number)) => (name, number.parse().expect("it is a number")),
            None => (step, 1_usize),
        };
        element.children.iter().filter(|child| child.name == name).nth(number - 1)
    })
}

/// How many elements below this one have no elements inside.
fn childless(element: &Element) -> usize {
    element.children.iter().map(|child| if child.children.is_empty() { 1 } else { childless(child) }).sum()
}

fn write(element: &Element, writer: &mut Writer) {
    if element.children.is_empty() {
        writer.text(&element.name, &element.text);
    } else {
        writer.open(&element.name);
        element.children.iter().for_each(|child| write(child, writer));
        writer.close(&element.name);
    }
}

/// The same tree without the characters that XML does not have, which the writer leaves out.
fn legal(element: &Element) -> Element {
    Element {
        name: element.name.clone(),
        text: element.text.replace(is_illegal, ""),
        children: element.children.iter().map(legal).collect(),
    }
}

/// WeChat does not escape what a user types: it must stay text, and nothing beside it may change, with and without the
/// white space that WeChat puts around some values.
fn typed_as_content(typed: &str) {
    for blank in ["", "\r\n\t "] {
        let cdata = |value: &str| format!("{blank}<![CDATA[{value}]]>{blank}");
        let (to_user, from_user, msg_type, content) = (cdata("gh_1"), cdata("o1"), cdata("text"), cdata(typed));
        let body = format!(
            "<xml>{blank}<ToUserName>{to_user}</ToUserName>{blank}<FromUserName>{from_user}</FromUserName>\
             <CreateTime>{blank}1{blank}</CreateTime><MsgType>{msg_type}</MsgType>\
             <Content>{content}</Content{blank}>{blank}<MsgId>99</MsgId></xml>{blank}"
        );
        let push = xml::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        let content = typed.replace("]]><![CDATA[", "");
        let expected = [
            ("ToUserName", "gh_1"),
            ("FromUserName", "o1"),
            ("CreateTime", "1"),
            ("MsgType", "text"),
            ("Content", content.as_str()),
            ("MsgId", "99"),
        ];
        let leaves = push.leaves();
        assert!(leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.value)).eq(expected), "{leaves:?}");
    }
}

/// Elsewhere a user may add elements, or spoil the push, but never be somebody else.
fn typed_as_title(typed: &str) {
    let body = format!(
        "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\n<FromUserName><![CDATA[o1]]></FromUserName>\n\
         <CreateTime>1</CreateTime>\n<MsgType><![CDATA[link]]></MsgType>\n<Title><![CDATA[{typed}]]></Title>\n\
         <Description><![CDATA[{typed}]]></Description>\n<Url><![CDATA[u]]></Url>\n<MsgId>99</MsgId>\n</xml>"
    );
    let Ok(push) = xml::parse(body.as_bytes()) else { return };
    let [header @ .., msg_id] = HEADER;
    assert_eq!(header.map(|name| push.text_of(name)), [Some("gh_1"), Some("o1"), Some("1"), Some("link")], "{body}");
    assert_eq!(push.last_text_of(msg_id), Some("99"), "{body}");
}

/// What a plugin replies is read back to the character.
fn written(text: &str) {
    let mut writer = Writer::new();
    writer.text("Content", text).open("Image").text("MediaId", text).close("Image").number("Count", text.len() as u64);
    let (legal, count) = (text.replace(is_illegal, ""), text.len().to_string());
    let reply = xml::parse(writer.finish().as_bytes()).expect("the writer writes XML");
    let leaves = reply.leaves();
    let expected = [("Content", legal.as_str()), ("Image/MediaId", legal.as_str()), ("Count", count.as_str())];
    assert!(leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.value)).eq(expected), "{leaves:?}");
}
