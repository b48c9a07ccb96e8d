//! Writing a reply.

use super::is_name;

/// Most replies fit: the elements every reply has, and a few hundred bytes of text.
const CAPACITY_BYTES: usize = 512;

/// Writes a reply, or an envelope, without white space, as WeChat's own samples have it.
///
/// The root `<xml>` is implied. Text goes into CDATA, whatever it holds; numbers do not. Names are the
/// caller's own; one that comes from elsewhere is checked with [`is_name`] first.
///
/// ```
/// use aviary_wechat::xml::Writer;
///
/// let mut reply = Writer::new();
/// reply.text("ToUserName", "toUser").number("CreateTime", 12345678);
/// reply.open("Image").text("MediaId", "media_id").close("Image");
/// assert_eq!(
///     reply.finish(),
///     "<xml><ToUserName><![CDATA[toUser]]></ToUserName><CreateTime>12345678</CreateTime>\
///      <Image><MediaId><![CDATA[media_id]]></MediaId></Image></xml>",
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    xml: String,
}

impl Writer {
    /// Begins the document with `<xml>`.
    pub fn new() -> Self {
        let mut xml = String::with_capacity(CAPACITY_BYTES);
        xml.push_str("<xml>");
        Self { xml }
    }

    /// Writes an element with text.
    ///
    /// `]]>` is split over two CDATA sections. Characters that XML 1.0 does not have are left out:
    /// WeChat would refuse the whole reply for one of them.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.open(name);
        self.cdata(text);
        self.close(name)
    }

    /// Writes an element with a number, such as `CreateTime` or `ArticleCount`.
    pub fn number(&mut self, name: &str, number: u64) -> &mut Self {
        self.open(name);
        self.xml.push_str(&number.to_string());
        self.close(name)
    }

    /// Begins an element with child elements; [`Writer::close`] ends it.
    pub fn open(&mut self, name: &str) -> &mut Self {
        self.tag("<", name)
    }

    /// Ends the element that [`Writer::open`] began.
    pub fn close(&mut self, name: &str) -> &mut Self {
        self.tag("</", name)
    }

    /// Ends the document and returns it.
    pub fn finish(mut self) -> String {
        self.xml.push_str("</xml>");
        self.xml
    }

    fn tag(&mut self, bracket: &str, name: &str) -> &mut Self {
        debug_assert!(is_name(name), "not a name: {name:?}");
        self.xml.push_str(bracket);
        self.xml.push_str(name);
        self.xml.push('>');
        self
    }

    fn cdata(&mut self, text: &str) {
        self.xml.push_str("<![CDATA[");
        if is_plain(text) {
            self.xml.push_str(text);
        } else {
            text.split(is_illegal).for_each(|run| self.legal_run(run));
        }
        self.xml.push_str("]]>");
    }

    fn legal_run(&mut self, run: &str) {
        for (index, part) in run.split('>').enumerate() {
            if index > 0 {
                // What was written so far is asked, not `run`: the brackets may stand before a
                // character that was left out.
                if self.xml.ends_with("]]") {
                    self.xml.push_str("]]><![CDATA[");
                }
                self.xml.push('>');
            }
            self.xml.push_str(part);
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells whether nothing in a text can need care. Of bytes that is told sooner than of characters; those not in Unicode's
/// first 128 that XML lacks begin with the last byte here, as do some that it has.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != b'>' && byte != 0xef)
}

/// Tells whether XML 1.0 has no such character: <https://www.w3.org/TR/xml/#charsets>.
pub fn is_illegal(char: char) -> bool {
    matches!(char, '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}') && !matches!(char, '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn written(text: &str) -> String {
        let mut writer = Writer::new();
        writer.text("V", text);
        writer.finish()
    }

    fn read_back(text: &str) -> String {
        let tree = parse(written(text).as_bytes()).expect("it is well-formed");
        assert_eq!(tree.children.len(), 1);
        tree.children[0].text.clone()
    }

    #[test]
    fn a_reply_is_the_official_sample_to_the_byte() {
        let mut reply = Writer::new();
        reply
            .text("ToUserName", "toUser")
            .text("FromUserName", "fromUser")
            .number("CreateTime", 12_345_678)
            .text("MsgType", "news")
            .number("ArticleCount", 1)
            .open("Articles")
            .open("item")
            .text("Title", "title1")
            .text("Url", "url")
            .close("item")
            .close("Articles");
        assert_eq!(
            reply.finish(),
            "<xml><ToUserName><![CDATA[toUser]]></ToUserName>\
             <FromUserName><![CDATA[fromUser]]></FromUserName>\
             <CreateTime>12345678</CreateTime><MsgType><![CDATA[news]]></MsgType>\
             <ArticleCount>1</ArticleCount><Articles><item><Title><![CDATA[title1]]></Title>\
             <Url><![CDATA[url]]></Url></item></Articles></xml>"
        );
    }

    #[test]
    fn the_end_of_a_section_is_split() {
        assert_eq!(written("a]]>b"), "<xml><V><![CDATA[a]]]]><![CDATA[>b]]></V></xml>");
    }

    #[test]
    fn what_is_left_out_does_not_make_an_end_of_a_section() {
        assert_eq!(written("]\u{1}]\0>"), "<xml><V><![CDATA[]]]]><![CDATA[>]]></V></xml>");
    }

    #[test]
    fn every_text_is_read_back_as_it_was() {
        for text in [
            "",
            "你好😀",
            " \t\r\n ",
            ">",
            "]",
            "]]",
            "]]>",
            "]]]]>>",
            "]]>]]>",
            "]]]]><![CDATA[>",
            "<![CDATA[",
            "</V><V>",
            "]]></V><V><![CDATA[",
            "a&b&amp;c<d>\"'",
            "\u{7f}\u{85}\u{2028}\u{fffd}",
        ] {
            assert_eq!(read_back(text), text, "{text:?}");
        }
    }

    #[test]
    fn characters_that_xml_does_not_have_are_left_out() {
        let illegal: String = ('\0'..='\u{1f}').chain(['\u{fffe}', '\u{ffff}']).collect();
        assert_eq!(read_back(&illegal), "\t\n\r");
        assert_eq!(read_back("a\0b\u{b}c"), "abc");
    }

    #[test]
    fn a_number_is_written_in_full() {
        let mut writer = Writer::new();
        writer.number("A", 0).number("B", u64::MAX);
        assert_eq!(writer.finish(), "<xml><A>0</A><B>18446744073709551615</B></xml>");
    }

    #[test]
    #[should_panic(expected = "not a name")]
    #[cfg(debug_assertions)]
    fn a_name_that_is_none_is_the_callers_mistake() {
        Writer::new().text("a><b", "c");
    }
}
