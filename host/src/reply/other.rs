//! A reply by its parts: paths and values, as in `message.extra`, become elements inside one another.

use aviary_wechat::xml::{Writer, is_name};

use crate::plugin::bindings::OtherReply;

/// How many fields a reply may have. A news reply of eight articles has 33.
const FIELDS_MAX: usize = 256;

/// How deep its elements may stand inside one another; WeChat's own replies have three levels.
const DEPTH_MAX: usize = 8;

/// The longest type of a reply, in bytes; WeChat's has 25.
const MSG_TYPE_BYTES_MAX: usize = 64;

/// How much of a guest's text an error repeats. The guest chose its length.
const EXCERPT_CHARS_MAX: usize = 64;

/// What the host writes itself: a plugin that could would speak to another user.
pub(super) const RESERVED: [&str; 4] = ["ToUserName", "FromUserName", "CreateTime", "MsgType"];

/// Why an `other` reply cannot be written. Reads on after "plugin `x` ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The type is no word of WeChat's.
    #[error("replied with the type {0:?}; a `MsgType` has 1 to {MSG_TYPE_BYTES_MAX} letters, digits and `_`")]
    MsgType(String),
    /// More fields than a reply may have.
    #[error("replied with {fields} fields; send at most {FIELDS_MAX}")]
    TooMany {
        /// How many there were.
        fields: usize,
    },
    /// A field that has no place.
    #[error("replied with a field at {path:?}, which {reason}")]
    Field {
        /// Its path, shortened.
        path: String,
        /// Why it has none.
        reason: Misplaced,
    },
}

/// Why a field has no place in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// A step is neither `name` nor `name[2]`.
    #[error("is no path; write names joined by `/`, and a number from 2 on repeated ones: `Articles/item[2]/Title`")]
    NoPath,
    /// One of the four elements that every reply has.
    #[error("is the host's to write; leave it out")]
    Reserved,
    /// More levels than a reply may have.
    #[error("is nested deeper than {DEPTH_MAX} elements; send fewer levels")]
    TooDeep,
    /// `item[3]` without `item[2]`.
    #[error("skips a number; send repeated elements in order")]
    OutOfOrder,
    /// The same path twice, or one element with text and with elements.
    #[error("has a value already; number repeated elements: `item`, `item[2]`")]
    Taken,
}

/// The elements of one reply, in the order in which the plugin named them first.
#[derive(Debug, Default)]
pub(super) struct Nodes<'a>(Vec<Node<'a>>);

#[derive(Debug)]
struct Node<'a> {
    name: &'a str,
    /// Which of its siblings of that name it is, from 1.
    number: usize,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Text(&'a str),
    Nodes(Nodes<'a>),
}

impl<'a> Nodes<'a> {
    /// Puts every field in its place.
    pub(super) fn of(reply: &'a OtherReply) -> Result<Self, Unwritable> {
        if !is_msg_type(&reply.msg_type) {
            return Err(Unwritable::MsgType(excerpt(&reply.msg_type)));
        }
        if reply.fields.len() > FIELDS_MAX {
            return Err(Unwritable::TooMany { fields: reply.fields.len() });
        }
        let mut nodes = Self::default();
        for field in &reply.fields {
            nodes.place(&field.path, &field.value).map_err(|reason| {
                let path = excerpt(&field.path);
                Unwritable::Field { path, reason }
            })?;
        }
        Ok(nodes)
    }

    /// Writes the elements. Recursive: [`DEPTH_MAX`] bounds it.
    pub(super) fn write(&self, xml: &mut Writer) {
        for node in &self.0 {
            match &node.content {
                Content::Text(text) => {
                    xml.text(node.name, text);
                }
                Content::Nodes(nodes) => {
                    xml.open(node.name);
                    nodes.write(xml);
                    xml.close(node.name);
                }
            }
        }
    }

    fn place(&mut self, path: &'a str, value: &'a str) -> Result<(), Misplaced> {
        let steps: Vec<_> = path.split('/').map(step).collect::<Result<_, _>>()?;
        let [parents @ .., (name, number)] = steps.as_slice() else {
            return Err(Misplaced::NoPath);
        };
        if steps.len() > DEPTH_MAX {
            return Err(Misplaced::TooDeep);
        }
        if RESERVED.contains(&steps[0].0) {
            return Err(Misplaced::Reserved);
        }
        let mut nodes = self;
        for (name, number) in parents {
            nodes = nodes.descend(name, *number)?;
        }
        if nodes.position(name, *number).is_some() {
            return Err(Misplaced::Taken);
        }
        nodes.push(Node { name, number: *number, content: Content::Text(value) })
    }

    /// Returns what is inside the element, which is made if it is not there yet.
    fn descend(&mut self, name: &'a str, number: usize) -> Result<&mut Self, Misplaced> {
        let index = match self.position(name, number) {
            Some(index) => index,
            None => {
                self.push(Node { name, number, content: Content::Nodes(Self::default()) })?;
                self.0.len() - 1
            }
        };
        match &mut self.0[index].content {
            Content::Nodes(nodes) => Ok(nodes),
            Content::Text(_) => Err(Misplaced::Taken),
        }
    }

    fn position(&self, name: &str, number: usize) -> Option<usize> {
        self.0.iter().position(|node| node.number == number && node.name == name)
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), Misplaced> {
        let earlier = self.0.iter().filter(|other| other.name == node.name).count();
        if node.number != earlier + 1 {
            return Err(Misplaced::OutOfOrder);
        }
        self.0.push(node);
        Ok(())
    }
}

/// Splits `item[2]` into its name and number; an element without one is the first.
fn step(step: &str) -> Result<(&str, usize), Misplaced> {
    let (name, number) = match step.split_once('[') {
        Some((name, number)) => (name, repeated(number).ok_or(Misplaced::NoPath)?),
        None => (step, 1),
    };
    if is_name(name) { Ok((name, number)) } else { Err(Misplaced::NoPath) }
}

/// Reads the `2]` of `item[2]`. A number has one spelling, and the first element has none.
fn repeated(text: &str) -> Option<usize> {
    let digits = text.strip_suffix(']')?;
    let number: usize = digits.parse().ok()?;
    (number >= 2 && digits == number.to_string()).then_some(number)
}

fn is_msg_type(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MSG_TYPE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_part)
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::bindings::Field;

    fn write(msg_type: &str, fields: &[(&str, &str)]) -> Result<String, Unwritable> {
        let fields = fields.iter().map(|(path, value)| Field { path: (*path).into(), value: (*value).into() });
        let reply = OtherReply { msg_type: msg_type.into(), fields: fields.collect() };
        let mut xml = Writer::new();
        Nodes::of(&reply)?.write(&mut xml);
        Ok(xml.finish())
    }

    fn misplaced(fields: &[(&str, &str)]) -> Misplaced {
        match write("card", fields) {
            Err(Unwritable::Field { reason, .. }) => reason,
            other => panic!("{fields:?} became {other:?}"),
        }
    }

    #[test]
    fn paths_become_elements_inside_one_another() {
        let xml = write(
            "news",
            &[
                ("ArticleCount", "2"),
                ("Articles/item/Title", "a"),
                ("Articles/item/Url", "b"),
                ("Articles/item[2]/Title", "c"),
                ("Flag", ""),
                // Back to an element that seemed finished.
                ("Articles/item/PicUrl", "]]>"),
            ],
        );
        let expected = "<xml><ArticleCount><![CDATA[2]]></ArticleCount><Articles>\
            <item><Title><![CDATA[a]]></Title><Url><![CDATA[b]]></Url>\
            <PicUrl><![CDATA[]]]]><![CDATA[>]]></PicUrl></item>\
            <item><Title><![CDATA[c]]></Title></item></Articles><Flag><![CDATA[]]></Flag></xml>";
        assert_eq!(xml.as_deref(), Ok(expected));
    }

    #[test]
    fn what_the_path_of_a_leaf_says_is_written_back() {
        let push = b"<xml><A><B>1</B><C/><B>2</B></A><A><B>3</B></A></xml>";
        let push = aviary_wechat::xml::parse(push).unwrap();
        let leaves = push.leaves();
        let fields: Vec<_> = leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.value)).collect();
        let written = write("card", &fields).unwrap();
        assert_eq!(aviary_wechat::xml::parse(written.as_bytes()).unwrap(), push);
    }

    #[test]
    fn the_header_is_the_hosts() {
        for path in ["ToUserName", "FromUserName[2]", "CreateTime/a", "MsgType"] {
            assert_eq!(misplaced(&[("FromUserNames", ""), (path, "x")]), Misplaced::Reserved, "{path}");
        }
        assert!(write("card", &[("Card/FromUserName", "x")]).is_ok());
    }

    #[test]
    fn a_path_is_names_and_numbers() {
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a b",
            "<a>",
            "a>",
            "1a",
            "a[",
            "a[]",
            "a[0]",
            "a[1]",
            "a[02]",
            "a[+2]",
            "a[2]b",
            "a[2][2]",
            "[2]",
            "a]",
            "a[99999999999999999999]",
        ] {
            assert_eq!(misplaced(&[("a", ""), (path, "x")]), Misplaced::NoPath, "{path}");
        }
    }

    #[test]
    fn an_element_has_one_value_or_elements_and_comes_in_order() {
        assert_eq!(misplaced(&[("a", "1"), ("a", "2")]), Misplaced::Taken);
        assert_eq!(misplaced(&[("a", "1"), ("a/b", "2")]), Misplaced::Taken);
        assert_eq!(misplaced(&[("a/b", "1"), ("a", "2")]), Misplaced::Taken);
        assert_eq!(misplaced(&[("a[2]", "1")]), Misplaced::OutOfOrder);
        assert_eq!(misplaced(&[("a", "1"), ("a[3]/b", "2")]), Misplaced::OutOfOrder);
    }

    #[test]
    fn depth_and_count_have_a_bound() {
        let deep = ["a"; DEPTH_MAX].join("/");
        assert!(write("card", &[(&deep, "x")]).is_ok());
        assert_eq!(misplaced(&[(&format!("{deep}/a"), "x")]), Misplaced::TooDeep);
        let names: Vec<_> = (0..=FIELDS_MAX).map(|number| format!("a{number}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert!(write("card", &fields[1..]).is_ok());
        assert_eq!(write("card", &fields), Err(Unwritable::TooMany { fields: FIELDS_MAX + 1 }));
    }

    #[test]
    fn a_type_is_a_word() {
        for msg_type in ["", " ", "a b", "card>", "卡", "a\n", &"a".repeat(MSG_TYPE_BYTES_MAX + 1)] {
            assert!(matches!(write(msg_type, &[]), Err(Unwritable::MsgType(_))), "{msg_type:?}");
        }
        assert_eq!(write("mini_program2", &[]).as_deref(), Ok("<xml></xml>"));
    }

    #[test]
    fn the_error_says_what_to_write_instead() {
        let error = write("card", &[("Card[1]", "x")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "replied with a field at \"Card[1]\", which is no path; \
             write names joined by `/`, and a number from 2 on repeated ones: `Articles/item[2]/Title`"
        );
    }
}
