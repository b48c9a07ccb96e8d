//! Reading a push.

use std::{borrow::Cow, io::BufRead};

use quick_xml::{
    Reader,
    errors::Error as ReaderError,
    escape::resolve_xml_entity,
    events::{BytesRef, Event},
};

use super::{Element, is_name};
use crate::excerpt;

/// How many elements may stand inside one another, the root counted.
/// WeChat's deepest push, `PUBLISHJOBFINISH`, has five.
pub const DEPTH_MAX: usize = 16;

/// How many elements a push may have.
/// WeChat's largest, a mass-send report on eight articles, has about a hundred.
pub const ELEMENTS_MAX: usize = 1000;

/// How long an element's name may be. WeChat's longest, `AuthorizationCodeExpiredTime`, has 28 bytes.
/// Every value below an element repeats its name in its path: one long name could fill the memory.
pub const NAME_BYTES_MAX: usize = 128;

const CDATA_OPEN: &str = "<![CDATA[";
const CDATA_CLOSE: &str = "]]>";

/// XML's own white space. A user's ideographic space is not layout.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// Why a body is not a push.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing in it but white space.
    #[error("the body is empty")]
    Empty,
    /// It does not begin like XML, as JSON or a form does not.
    #[error("the body is not XML, and an Official Account is sent nothing else")]
    NotXml,
    /// It is XML of something else.
    #[error("the root element is `{name}` instead of `xml`")]
    Root {
        /// The root's name, shortened.
        name: String,
    },
    /// A document type, which can define entities and name files.
    #[error("a DOCTYPE is refused")]
    Doctype,
    /// A `<?…?>` other than the XML declaration at the beginning.
    #[error("a processing instruction is refused")]
    ProcessingInstruction,
    /// `&name;` that is neither one of XML's five nor a character's number.
    #[error("the entity `&{name};` is not defined")]
    Entity {
        /// The entity's name, shortened.
        name: String,
    },
    /// Something that is no name, or has more than [`NAME_BYTES_MAX`], stands where a name should.
    #[error("an element cannot be named `{name}`")]
    Name {
        /// What stands there, shortened.
        name: String,
    },
    /// More elements inside one another than [`DEPTH_MAX`].
    #[error("elements are nested deeper than {DEPTH_MAX}")]
    Depth,
    /// More elements than [`ELEMENTS_MAX`].
    #[error("there are more than {ELEMENTS_MAX} elements")]
    Elements,
    /// The body ends before its elements do; perhaps it was cut off on its way.
    #[error("the body ends inside the element `{name}`")]
    Unclosed {
        /// The innermost open element, shortened.
        name: String,
    },
    /// Something follows the end of the root element.
    #[error("something follows after `</xml>`")]
    Trailing,
    /// A tag, a comment or a reference that is not well-formed.
    #[error("not well-formed at byte {at}: {reason}")]
    Malformed {
        /// How many bytes into the body.
        at: u64,
        /// What the reader said, without the text it stumbled upon.
        reason: String,
    },
}

/// Reads a push, or the envelope of an encrypted one, into the tree under its `<xml>`.
///
/// - A byte-order mark and an XML declaration are accepted; comments and attributes are ignored.
/// - Bytes that are not UTF-8 become U+FFFD: a broken character must not cost the user the answer.
/// - Text in CDATA is kept to the byte. Without CDATA it is trimmed, except in the root's `Content`,
///   where white space is the user's; white space around CDATA is dropped.
/// - An element with child elements has no text.
/// - The first `Content` is read as the [module](super) says, so that a user cannot add elements.
///
/// The caller bounds the body's size; [`DEPTH_MAX`], [`ELEMENTS_MAX`] and [`NAME_BYTES_MAX`] bound the tree.
///
/// # Errors
///
/// Everything that is not one well-formed `<xml>` element; see [`ParseError`].
///
/// ```
/// let push = "<xml>
///     <FromUserName><![CDATA[oVictim]]></FromUserName>
///     <Content><![CDATA[a]]></Content><Event><![CDATA[b]]></Content>
/// </xml>";
/// let push = aviary_wechat::xml::parse(push.as_bytes())?;
/// assert_eq!(push.text_of("FromUserName"), Some("oVictim"));
/// assert_eq!(push.text_of("Content"), Some("a]]></Content><Event><![CDATA[b"));
/// assert_eq!(push.text_of("Event"), None);
/// # Ok::<(), aviary_wechat::xml::ParseError>(())
/// ```
pub fn parse(bytes: &[u8]) -> Result<Element, ParseError> {
    // Nearly every body is UTF-8, of which this is sure sooner.
    let text = str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match text.trim_start_matches(BLANK).chars().next() {
        Some('<') => {}
        Some(_) => return Err(ParseError::NotXml),
        None => return Err(ParseError::Empty),
    }

    let mut reader = Reader::from_str(text);
    let mut tree = Tree::default();
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                tree.open(tag.name().as_ref())?;
                if tree.enters_content() {
                    skip_content(text, &mut reader, &mut tree)?;
                }
            }
            Ok(Event::Empty(tag)) => {
                tree.open(tag.name().as_ref())?;
                tree.close();
            }
            Ok(Event::End(_)) => tree.close(),
            Ok(Event::Text(text)) => tree.characters(&text)?,
            Ok(Event::CData(text)) => tree.cdata(&text)?,
            Ok(Event::GeneralRef(reference)) => {
                let mut buffer = [0; 4];
                tree.characters(resolve(&reference, &mut buffer)?)?;
            }
            Ok(Event::Comment(_)) => {}
            Ok(Event::Decl(_)) if tree.is_untouched() => {}
            Ok(Event::Decl(_) | Event::PI(_)) => return Err(ParseError::ProcessingInstruction),
            Ok(Event::DocType(_)) => return Err(ParseError::Doctype),
            Ok(Event::Eof) => return tree.finish(),
            Err(error) => return Err(malformed(&error, reader.error_position())),
        }
    }
}

/// Takes the user's text, if there is any, in one piece, so that the reader never sees inside.
fn skip_content(text: &str, reader: &mut Reader<&[u8]>, tree: &mut Tree) -> Result<(), ParseError> {
    let position = usize::try_from(reader.buffer_position()).expect("it is inside the body");
    let body = &text[position..];
    let Some((content, rest)) = split_content(body) else {
        return Ok(());
    };
    // Two adjacent sections are how `]]>` is written by those who do escape it.
    if content.contains("]]><![CDATA[") {
        tree.cdata(&content.replace("]]><![CDATA[", ""))?;
    } else {
        tree.cdata(content)?;
    }
    reader.stream().consume(body.len() - rest.len());
    Ok(())
}

/// Splits what follows a `<Content>` into the text up to the last `]]></Content>`, and the rest from
/// `</Content>` on; nothing if it does not begin with CDATA or never ends so.
fn split_content(body: &str) -> Option<(&str, &str)> {
    let body = body.trim_start_matches(BLANK).strip_prefix(CDATA_OPEN)?;
    let mut search = body;
    while let Some(end) = search.rfind("</Content") {
        let (before, rest) = body.split_at(end);
        let tag = rest["</Content".len()..].trim_start_matches(BLANK);
        let content = before.trim_end_matches(BLANK).strip_suffix(CDATA_CLOSE);
        if tag.starts_with('>') && content.is_some() {
            return content.map(|content| (content, rest));
        }
        search = before;
    }
    None
}

fn resolve<'a>(reference: &BytesRef<'_>, buffer: &'a mut [u8; 4]) -> Result<&'a str, ParseError> {
    if let Some(text) = resolve_xml_entity(reference) {
        return Ok(text);
    }
    match reference.resolve_char_ref() {
        Ok(Some(char)) => Ok(char.encode_utf8(buffer)),
        Ok(None) | Err(_) => Err(ParseError::Entity { name: excerpt(reference) }),
    }
}

/// Says what is wrong without the body's words, which the reader's own text would repeat.
fn malformed(error: &ReaderError, at: u64) -> ParseError {
    use quick_xml::errors::IllFormedError::{MismatchedEndTag, UnmatchedEndTag};
    let reason = match error {
        ReaderError::IllFormed(MismatchedEndTag { expected, found }) => {
            let (expected, found) = (excerpt(expected), excerpt(found));
            format!("expected `</{expected}>`, but found `</{found}>`")
        }
        ReaderError::IllFormed(UnmatchedEndTag(found)) => {
            format!("`</{}>` closes nothing", excerpt(found))
        }
        // No other text of the reader repeats what it read.
        other => other.to_string(),
    };
    ParseError::Malformed { at, reason }
}

fn is_blank(text: &str) -> bool {
    text.trim_start_matches(BLANK).is_empty()
}

/// The tree as far as it is read: a stack instead of recursion, so that depth costs heap, not stack.
#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    root: Option<Element>,
    elements: usize,
    has_content: bool,
}

/// An element whose end is not read yet.
#[derive(Default)]
struct Open {
    element: Element,
    /// Where the character data after the last CDATA section begins in the text.
    run: usize,
    has_cdata: bool,
}

impl Tree {
    fn open(&mut self, name: &str) -> Result<(), ParseError> {
        if self.root.is_some() {
            return Err(ParseError::Trailing);
        }
        if name.len() > NAME_BYTES_MAX || !is_name(name) {
            let name = excerpt(name);
            return Err(ParseError::Name { name });
        }
        if self.open.is_empty() && name != "xml" {
            let name = excerpt(name);
            return Err(ParseError::Root { name });
        }
        if self.open.len() == DEPTH_MAX {
            return Err(ParseError::Depth);
        }
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(ParseError::Elements);
        }
        let mut open = Open::default();
        name.clone_into(&mut open.element.name);
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) {
        // The reader has checked that every end has its start.
        let Some(mut open) = self.open.pop() else {
            return;
        };
        let keeps_blanks = self.open.len() == 1 && open.element.name == "Content";
        open.settle_text(keeps_blanks);
        match self.open.last_mut() {
            Some(parent) => parent.element.children.push(open.element),
            None => self.root = Some(open.element),
        }
    }

    /// Tells, once, that the root's `Content` was just opened. Only once, because it is only once in
    /// what WeChat sends, and because looking for its end can cost a pass over the body.
    fn enters_content(&mut self) -> bool {
        let enters = !self.has_content && matches!(self.open.as_slice(), [_, open] if open.element.name == "Content");
        self.has_content |= enters;
        enters
    }

    /// Tells whether no element was opened yet.
    fn is_untouched(&self) -> bool {
        self.elements == 0
    }

    fn characters(&mut self, text: &str) -> Result<(), ParseError> {
        match self.open.last_mut() {
            Some(open) => open.push_characters(text),
            None if is_blank(text) => {}
            None => return Err(self.outside()),
        }
        Ok(())
    }

    fn cdata(&mut self, text: &str) -> Result<(), ParseError> {
        match self.open.last_mut() {
            Some(open) => open.push_cdata(text),
            None => return Err(self.outside()),
        }
        Ok(())
    }

    fn outside(&self) -> ParseError {
        match self.root {
            Some(_) => ParseError::Trailing,
            None => ParseError::NotXml,
        }
    }

    fn finish(mut self) -> Result<Element, ParseError> {
        if let Some(open) = self.open.last() {
            let name = excerpt(&open.element.name);
            return Err(ParseError::Unclosed { name });
        }
        self.root.take().ok_or(ParseError::NotXml)
    }
}

impl Open {
    fn push_characters(&mut self, text: &str) {
        if self.element.children.is_empty() {
            self.element.text.push_str(text);
        }
    }

    fn push_cdata(&mut self, text: &str) {
        if self.element.children.is_empty() {
            self.drop_blank_run();
            self.element.text.push_str(text);
            self.run = self.element.text.len();
            self.has_cdata = true;
        }
    }

    fn settle_text(&mut self, keeps_blanks: bool) {
        let text = &mut self.element.text;
        if !self.element.children.is_empty() {
            *text = String::new();
        } else if self.has_cdata {
            self.drop_blank_run();
        } else if !keeps_blanks {
            trim(text);
        }
    }

    /// Forgets the character data since the last CDATA section if it was only layout.
    fn drop_blank_run(&mut self) {
        if is_blank(&self.element.text[self.run..]) {
            self.element.text.truncate(self.run);
        }
    }
}

/// Trims in place: most values have nothing to trim, and none needs a second allocation.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(BLANK).len());
    let start = text.len() - text.trim_start_matches(BLANK).len();
    text.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A push as WeChat writes it around what a user typed.
    fn push(typed: &str) -> String {
        format!(
            "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\
             <FromUserName><![CDATA[o1]]></FromUserName><CreateTime>1348831860</CreateTime>\
             <MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{typed}]]></Content>\
             <MsgId>99</MsgId></xml>"
        )
    }

    fn read(body: &str) -> Element {
        parse(body.as_bytes()).expect(body)
    }

    fn refuse(body: &str) -> ParseError {
        parse(body.as_bytes()).expect_err(body)
    }

    fn value(body: &str) -> String {
        read(&format!("<xml><V>{body}</V></xml>")).children.remove(0).text
    }

    #[test]
    fn what_a_user_types_stays_text_whatever_it_is() {
        let typed = [
            "",
            "]]>",
            "a]]></Content>",
            "a]]></Content></xml>",
            "a]]></Content><MsgId>7</MsgId></xml>\n<!-- ",
            "a]]></Content><MsgId>7</MsgId><Content><![CDATA[b",
            "a]]></Content><Event><![CDATA[CLICK]]></Event><Content>",
            "a]]></Content ><FromUserName>victim</FromUserName><Content ><![CDATA[",
            "a]]> </Content><FromUserName>victim</FromUserName>",
            "a]]></Content\n><X",
            "]]></Content><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
            "]]></Content><?php system('id') ?>",
            "]]></Content><Content><Content><Content>",
            "<![CDATA[<![CDATA[<![CDATA[",
            "]]><a></b>",
            "]]></Contents></Content-Type></Content",
            "]]>&undefined;&#xffffffff;&",
            "\0\u{1}\u{1f}\u{fffe}\u{feff}",
            "  two blanks, a tab\tand \r\n a line  \n",
            "&amp; &lt; 你好😀",
        ];
        for typed in typed {
            let push = read(&push(typed));
            let names: Vec<_> = push.children.iter().map(|child| child.name.as_str()).collect();
            let expected = ["ToUserName", "FromUserName", "CreateTime", "MsgType", "Content", "MsgId"];
            assert_eq!(names, expected, "{typed:?}");
            assert_eq!(push.text_of("FromUserName"), Some("o1"), "{typed:?}");
            assert_eq!(push.text_of("Content"), Some(typed), "{typed:?}");
            assert_eq!(push.text_of("MsgId"), Some("99"), "{typed:?}");
        }
    }

    #[test]
    fn what_a_user_types_counts_towards_no_limit() {
        let deep = format!("]]></Content>{}", "<a>".repeat(2 * ELEMENTS_MAX));
        assert_eq!(read(&push(&deep)).text_of("Content"), Some(deep.as_str()));
    }

    #[test]
    fn adjacent_sections_of_content_are_joined() {
        let push = read(&push("a]]]]><![CDATA[>b]]><![CDATA[c"));
        assert_eq!(push.text_of("Content"), Some("a]]>bc"));
    }

    #[test]
    fn white_space_around_the_section_of_content_is_layout() {
        let push = read("<xml><Content> \n<![CDATA[ a ]]>\n </Content >\n<MsgId>1</MsgId></xml>");
        assert_eq!(push.text_of("Content"), Some(" a "));
        assert_eq!(push.text_of("MsgId"), Some("1"));
    }

    #[test]
    fn content_that_never_ends_is_an_error() {
        assert!(matches!(refuse("<xml><Content><![CDATA[a"), ParseError::Malformed { .. }));
        let name = "Content".to_owned();
        assert_eq!(refuse("<xml><Content><![CDATA[a]]>"), ParseError::Unclosed { name });
    }

    #[test]
    fn content_without_cdata_ends_where_it_ends() {
        let push = read("<xml><Content> a &lt; b </Content><X>1</X><Content>c</Content></xml>");
        assert_eq!(push.text_of("Content"), Some(" a < b "));
        assert_eq!(push.text_of("X"), Some("1"));
        assert_eq!(push.last_text_of("Content"), Some("c"));
    }

    #[test]
    fn only_the_first_content_is_searched_for_a_later_end() {
        let push = read(
            "<xml><Content>a</Content><Content><![CDATA[b]]></Content><X>1</X>\
             <Content><![CDATA[c]]></Content></xml>",
        );
        assert_eq!(push.text_of("Content"), Some("a"));
        assert_eq!(push.text_of("X"), Some("1"));
        assert_eq!(push.last_text_of("Content"), Some("c"));
    }

    #[test]
    fn an_element_whose_name_only_begins_with_content_is_another() {
        let push = read("<xml><Content><![CDATA[a]]></Content><ContentType><![CDATA[b]]></ContentType></xml>");
        assert_eq!(push.text_of("Content"), Some("a"));
        assert_eq!(push.text_of("ContentType"), Some("b"));
    }

    #[test]
    fn content_that_is_not_the_roots_own_ends_where_it_ends() {
        let push = read(
            "<xml><A><Content><![CDATA[a]]></Content></A>\
             <B><Content><![CDATA[b]]></Content></B></xml>",
        );
        let text = |name| push.child(name).and_then(|child| child.text_of("Content"));
        assert_eq!((text("A"), text("B")), (Some("a"), Some("b")));
    }

    #[test]
    fn text_in_cdata_is_kept_to_the_byte() {
        assert_eq!(value("<![CDATA[ a\r\n&amp;\t]]>"), " a\r\n&amp;\t");
        assert_eq!(value("<![CDATA[a]]]]><![CDATA[>b]]>"), "a]]>b");
        assert_eq!(value("\n <![CDATA[ a ]]> <![CDATA[b]]>\n "), " a b");
        assert_eq!(value("<![CDATA[]]>"), "");
        assert_eq!(value("<![CDATA[ ]]>"), " ");
    }

    #[test]
    fn text_without_cdata_is_decoded_and_trimmed() {
        assert_eq!(value("\n 1348831860\t"), "1348831860");
        assert_eq!(value(" a &lt;&gt;&amp;&quot;&apos; b "), "a <>&\"' b");
        assert_eq!(value("&#20320;&#x597D;"), "你好");
        assert_eq!(value(" \n "), "");
        assert_eq!(value("\u{3000}全角\u{3000}"), "\u{3000}全角\u{3000}");
    }

    #[test]
    fn text_beside_cdata_is_kept_when_it_is_not_blank() {
        assert_eq!(value(" a <![CDATA[b]]> &amp; "), " a b & ");
        assert_eq!(value("<![CDATA[a]]>b<!-- c -->d"), "abd");
    }

    #[test]
    fn text_beside_elements_is_dropped() {
        let push = read("<xml> a <V>1</V> b <![CDATA[c]]> &lt; </xml>");
        assert_eq!(push.text, "");
        assert_eq!(push.text_of("V"), Some("1"));
    }

    #[test]
    fn what_is_not_data_is_ignored() {
        let plain = read("<xml><V>1</V></xml>");
        for body in [
            "\u{feff}<xml><V>1</V></xml>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xml><V>1</V></xml>",
            "\u{feff}\n<?xml version='1.0'?><!-- a --><xml><V>1</V></xml>\n<!-- b -->\n",
            "<xml a='>' b=\"</xml>\"><V c>1</V></xml>",
            "<xml ><V\n>1</V\t></xml >",
            "<xml><V><!-- 2 -->1</V></xml>",
        ] {
            assert_eq!(read(body), plain, "{body:?}");
        }
    }

    #[test]
    fn control_characters_are_kept() {
        assert_eq!(value("<![CDATA[a\0\u{8}\u{1f}b]]>"), "a\0\u{8}\u{1f}b");
        assert_eq!(value("a\u{1}b"), "a\u{1}b");
    }

    #[test]
    fn bytes_that_are_not_utf_8_cost_only_their_character() {
        let push = parse(b"<xml><V><![CDATA[a\xff\xe4\xbdb]]></V><W>1</W></xml>").unwrap();
        assert_eq!(push.text_of("V"), Some("a\u{fffd}\u{fffd}b"));
        assert_eq!(push.text_of("W"), Some("1"));
    }

    #[test]
    fn an_empty_body_and_other_formats_are_named() {
        assert_eq!(refuse(""), ParseError::Empty);
        assert_eq!(refuse("\u{feff} \r\n"), ParseError::Empty);
        for body in ["success", "{\"a\":1}", "a=1&b=2", "\u{feff}\u{feff}<xml/>", "<!-- a -->b<xml/>"] {
            assert_eq!(refuse(body), ParseError::NotXml, "{body:?}");
        }
        assert_eq!(refuse("<!-- a -->"), ParseError::NotXml);
        assert_eq!(refuse("<![CDATA[a]]><xml/>"), ParseError::NotXml);
    }

    #[test]
    fn another_root_is_named() {
        for root in ["msg", "XML", "xmlx", "html"] {
            let name = root.to_owned();
            assert_eq!(refuse(&format!("<{root}/>")), ParseError::Root { name });
        }
    }

    #[test]
    fn nothing_may_follow_the_root() {
        for after in ["a", "<xml/>", "<a></a>", "<![CDATA[]]>", "&lt;", " \n.", "\0"] {
            assert_eq!(refuse(&format!("<xml></xml>{after}")), ParseError::Trailing, "{after:?}");
        }
    }

    #[test]
    fn what_xml_can_do_beyond_data_is_refused() {
        for body in ["<!DOCTYPE xml><xml/>", "<xml><!DOCTYPE a></xml>", "<!doctype x><xml/>"] {
            assert_eq!(refuse(body), ParseError::Doctype, "{body:?}");
        }
        for body in ["<?php a ?><xml/>", "<xml><?a?></xml>", "<xml/><?xml version='1.0'?>"] {
            assert_eq!(refuse(body), ParseError::ProcessingInstruction, "{body:?}");
        }
    }

    #[test]
    fn only_the_five_entities_and_character_numbers_are_known() {
        for name in ["foo", "nbsp", "LT", "#", "#x", "#x110000", "#xd800", "#0", "#-1"] {
            let body = format!("<xml><V>&{name};</V></xml>");
            let name = name.to_owned();
            assert_eq!(refuse(&body), ParseError::Entity { name });
        }
    }

    #[test]
    fn the_limits_are_exact() {
        let nested = |depth: usize| {
            let (open, close) = ("<xml>", "</xml>");
            parse(format!("{}{}", open.repeat(depth), close.repeat(depth)).as_bytes())
        };
        assert!(nested(DEPTH_MAX).is_ok());
        assert_eq!(nested(DEPTH_MAX + 1), Err(ParseError::Depth));
        assert_eq!(nested(100_000), Err(ParseError::Depth));

        let many = |count: usize| parse(format!("<xml>{}</xml>", "<a/>".repeat(count)).as_bytes());
        assert!(many(ELEMENTS_MAX - 1).is_ok());
        assert_eq!(many(ELEMENTS_MAX), Err(ParseError::Elements));

        let named = |bytes: usize| parse(format!("<xml><{0}></{0}></xml>", "a".repeat(bytes)).as_bytes());
        assert!(named(NAME_BYTES_MAX).is_ok());
        assert_eq!(named(NAME_BYTES_MAX + 1), Err(ParseError::Name { name: "a".repeat(40) }));
    }

    /// A name of 120 KiB around 990 elements was a push of 250 KiB whose paths had 116 MiB.
    #[test]
    fn the_paths_of_a_push_stay_small() {
        let name = "n".repeat(120 << 10);
        let body = format!("<xml><{name}>{}</{name}></xml>", "<a/>".repeat(990));
        assert!(matches!(refuse(&body), ParseError::Name { .. }));
        let name = "n".repeat(NAME_BYTES_MAX);
        let push = read(&format!("<xml><{name}>{}</{name}></xml>", "<a/>".repeat(990)));
        let bytes: usize = push.leaves().iter().map(|leaf| leaf.path.len()).sum();
        assert!(bytes < 256 << 10, "{bytes}");
    }

    #[test]
    fn a_body_that_was_cut_off_says_where() {
        let name = "FromUserName".to_owned();
        let body = "<xml><FromUserName><![CDATA[o1]]>";
        assert_eq!(refuse(body), ParseError::Unclosed { name });
        for cut in ["<xml><From", "<xml><V>&am", "<xml><!-- a", "<xml><V><![CDATA[a]]", "<xml><V></V"] {
            assert!(matches!(refuse(cut), ParseError::Malformed { .. }), "{cut:?}");
        }
    }

    #[test]
    fn tags_that_do_not_match_are_named() {
        assert_eq!(
            refuse("<xml><a></b></xml>").to_string(),
            "not well-formed at byte 8: expected `</a>`, but found `</b>`"
        );
        assert_eq!(refuse("<xml></xml></xml>").to_string(), "not well-formed at byte 11: `</xml>` closes nothing");
    }

    #[test]
    fn an_error_points_behind_skipped_content() {
        let body = push("a]]></Content>").replace("</MsgId>", "</MsgID>");
        let at = body.find("</MsgID>").unwrap() as u64;
        let error = refuse(&body);
        assert!(matches!(&error, ParseError::Malformed { at: found, .. } if *found == at), "{error}");
    }

    #[test]
    fn an_error_repeats_little_and_nothing_invisible() {
        let secret = "机密".repeat(1000);
        for body in [
            format!("<{secret}/>"),
            format!("<xml><a></{secret}></xml>"),
            format!("<xml></xml></\n{secret}>"),
            format!("<xml><\n{secret}/></xml>"),
            format!("<xml><V>&{secret};</V></xml>"),
            format!("<xml><V>&{secret}</V></xml>"),
            format!("<xml><!{secret}></xml>"),
            format!("<xml><{secret}"),
            format!("<xml><{secret}>"),
        ] {
            let text = refuse(&body).to_string();
            assert!(text.chars().count() < 160, "{text}");
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}
