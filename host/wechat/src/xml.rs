//! Step 4, first half: bytes into a tree; and step 7, second half: values into bytes.
//!
//! [`parse`] reads what WeChat pushes. It is stricter than XML where XML is dangerous (no DOCTYPE, no
//! entities of one's own, bounded depth and size) and laxer where WeChat is (control characters,
//! white space around values, bytes that are not UTF-8).
//!
//! # Users can write XML into a push
//!
//! WeChat wraps what a user types in CDATA, but does not escape `]]>` in it. A user who types
//! `]]></Content><FromUserName>…` adds elements to a correctly signed push. Three rules keep them out:
//!
//! - `Content` directly under the root is read up to the *last* `]]></Content>` of the body; what is
//!   between is text, whatever it looks like ([`parse`] does this);
//! - `ToUserName`, `FromUserName`, `CreateTime` and `MsgType` come before anything a user types: their
//!   *first* occurrence counts ([`Element::text_of`]);
//! - `MsgId` comes after it: its *last* occurrence counts ([`Element::last_text_of`]).

mod read;
mod write;

pub use read::{DEPTH_MAX, ELEMENTS_MAX, NAME_BYTES_MAX, ParseError, parse};
pub use write::{Writer, is_illegal};

/// An element: a name, and either text or child elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The name between the angle brackets, such as `FromUserName`.
    pub name: String,
    /// The decoded text of an element without children; empty where there are children.
    pub text: String,
    /// The elements inside, in the order of the document.
    pub children: Vec<Element>,
}

/// A value and where it stands in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// The names from below the root down to the value, such as `ScanCodeInfo/ScanType`.
    /// The second and later of several siblings of one name are numbered: `List[2]/TemplateId`.
    pub path: String,
    /// The text, empty for an empty element.
    pub value: &'a str,
}

impl Element {
    /// Returns the first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns the text of the first child of that name: the right one for everything but `MsgId`.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// Returns the text of the last child of that name.
    ///
    /// `MsgId` comes after all that a user can type, so a user's own `MsgId` is never the last.
    ///
    /// ```
    /// let push = b"<xml><MsgId>7</MsgId><MsgId>99</MsgId></xml>";
    /// let push = aviary_wechat::xml::parse(push)?;
    /// assert_eq!(push.text_of("MsgId"), Some("7"));
    /// assert_eq!(push.last_text_of("MsgId"), Some("99"));
    /// # Ok::<(), aviary_wechat::xml::ParseError>(())
    /// ```
    pub fn last_text_of(&self, name: &str) -> Option<&str> {
        let child = self.children.iter().rfind(|child| child.name == name)?;
        Some(&child.text)
    }

    /// Returns every value below this element, in the order of the document.
    ///
    /// ```
    /// let push = b"<xml><Event>e</Event><List><Id>1</Id></List><List><Id/></List></xml>";
    /// let push = aviary_wechat::xml::parse(push)?;
    /// let leaves: Vec<_> = push.leaves().into_iter().map(|leaf| (leaf.path, leaf.value)).collect();
    /// assert_eq!(leaves, [
    ///     ("Event".into(), "e"),
    ///     ("List/Id".into(), "1"),
    ///     ("List[2]/Id".into(), ""),
    /// ]);
    /// # Ok::<(), aviary_wechat::xml::ParseError>(())
    /// ```
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        let mut leaves = Vec::with_capacity(self.children.len());
        self.collect_leaves("", &mut leaves);
        leaves
    }

    // Recursive, as dropping a tree is: `DEPTH_MAX` bounds both.
    fn collect_leaves<'a>(&'a self, prefix: &str, leaves: &mut Vec<Leaf<'a>>) {
        for (index, child) in self.children.iter().enumerate() {
            let earlier = &self.children[..index];
            let same = earlier.iter().filter(|other| other.name == child.name);
            let path = match same.count() {
                0 => [prefix, &child.name].concat(),
                count => format!("{prefix}{}[{}]", child.name, count + 1),
            };
            if child.children.is_empty() {
                let value = &child.text;
                leaves.push(Leaf { path, value });
            } else {
                child.collect_leaves(&format!("{path}/"), leaves);
            }
        }
    }
}

/// Tells whether `name` can be the name of an element.
///
/// These are [XML's names](https://www.w3.org/TR/xml/#NT-Name) without the colon, which WeChat never
/// uses and which would mean a namespace.
pub fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_part)
}

fn is_name_part(char: char) -> bool {
    is_name_start(char)
        || matches!(char,
            '0'..='9' | '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

fn is_name_start(char: char) -> bool {
    matches!(char,
        'a'..='z' | 'A'..='Z' | '_'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}'
        | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}'
        | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_xml_without_the_colon() {
        for name in ["Content", "xml", "article_detail", "Location_X", "_a", "a-b.c1", "元素"] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "1a", "-a", "a b", " a", "a/b", "a[2]", "a:b", "a>", "a\0", "a\u{fffe}"] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_leaf_that_is_missing_is_not_a_leaf_that_is_empty() {
        let push = parse(b"<xml><EventKey/></xml>").unwrap();
        assert_eq!(push.text_of("EventKey"), Some(""));
        assert_eq!(push.text_of("Ticket"), None);
        assert_eq!(push.last_text_of("Ticket"), None);
    }

    #[test]
    fn leaves_of_repeated_siblings_are_numbered_by_name() {
        let push = parse(b"<xml><a>1</a><b>2</b><a><c>3</c><c>4</c></a><a/></xml>").unwrap();
        let leaves: Vec<_> = push.leaves().into_iter().map(|leaf| (leaf.path, leaf.value)).collect();
        let expected = [("a", "1"), ("b", "2"), ("a[2]/c", "3"), ("a[2]/c[2]", "4"), ("a[3]", "")];
        assert_eq!(leaves, expected.map(|(path, value)| (path.to_owned(), value)));
    }

    #[test]
    fn a_root_without_children_has_no_leaves() {
        assert_eq!(parse(b"<xml>text</xml>").unwrap().leaves(), []);
    }
}
