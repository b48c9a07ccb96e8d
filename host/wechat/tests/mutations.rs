//! What must hold for any input whatever: a bounded, repeatable walk through mutated vectors.

use aviary_wechat::crypt::{AesKey, decrypt, encrypt};
use aviary_wechat::xml::{DEPTH_MAX, ELEMENTS_MAX, Element, Writer, is_name, parse};
use serde_json::Value;

const ROUNDS: usize = 20_000;

/// Pieces that mean something to one side or the other.
const PIECES: [&str; 38] = [
    "<",
    ">",
    "/",
    "]",
    "]]",
    "]]>",
    "<![CDATA[",
    "<!--",
    "-->",
    "<!DOCTYPE x [",
    "<?xml ",
    "?>",
    "&",
    "&lt;",
    "&#0;",
    "&x;",
    ";",
    "<xml>",
    "</xml>",
    "<Content>",
    "</Content>",
    "</Content >",
    "</Content",
    "<Content/>",
    "<MsgId>7</MsgId>",
    "<FromUserName>",
    "</FromUserName>",
    "'",
    "\"",
    " ",
    "\n",
    "\0",
    "\u{feff}",
    "\u{fffe}",
    "你",
    "😀",
    "a",
    "=",
];

/// Marsaglia's xorshift64: the same walk every time, without a dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn pieces(&mut self, count_max: usize) -> String {
        (0..self.below(count_max + 1)).map(|_| *self.of(&PIECES)).collect()
    }

    /// Spoils a few places: a piece put in, a stretch cut out, doubled, or a byte changed.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let start = self.below(bytes.len() + 1);
            let end = (start + self.below(40)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.splice(start..start, self.of(&PIECES).bytes())),
                1 => drop(bytes.drain(start..end)),
                2 => drop(bytes.splice(start..start, bytes[start..end].to_vec())),
                _ => bytes[start..end].iter_mut().take(1).for_each(|byte| {
                    *byte = self.next().to_le_bytes()[0];
                }),
            }
        }
    }
}

/// Every text in the vectors that is long enough to be a body.
fn corpus() -> Vec<String> {
    fn collect(value: Value, bodies: &mut Vec<String>) {
        match value {
            Value::String(text) if text.contains("<xml>") => bodies.push(text),
            Value::Array(values) => values.into_iter().for_each(|value| collect(value, bodies)),
            Value::Object(fields) => fields.into_iter().for_each(|(_, value)| collect(value, bodies)),
            _ => {}
        }
    }
    let mut bodies = Vec::new();
    for file in ["inbound", "replies", "malformed"] {
        let wire = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/wire");
        let text = std::fs::read_to_string(format!("{wire}/{file}.json")).expect("the vectors");
        collect(serde_json::from_str(&text).expect("JSON"), &mut bodies);
    }
    bodies
}

fn assert_bounded(element: &Element, depth: usize, elements: &mut usize) {
    *elements += 1;
    assert!(depth <= DEPTH_MAX && *elements <= ELEMENTS_MAX);
    assert!(is_name(&element.name), "{:?}", element.name);
    assert!(element.children.is_empty() || element.text.is_empty());
    for child in &element.children {
        assert_bounded(child, depth + 1, elements);
    }
}

#[test]
fn whatever_is_read_is_bounded_and_nothing_panics() {
    let corpus = corpus();
    let mut random = Random(0x5eed_0001);
    let mut read = 0;
    for _ in 0..ROUNDS {
        let mut bytes = random.of(&corpus).clone().into_bytes();
        random.mutate(&mut bytes);
        if let Ok(push) = parse(&bytes) {
            assert_eq!(push.name, "xml");
            assert_bounded(&push, 1, &mut 0);
            assert!(push.leaves().len() <= ELEMENTS_MAX);
            read += 1;
        }
    }
    // Neither all nor nothing: the walk stays near what is well-formed.
    assert!((ROUNDS / 20..ROUNDS).contains(&read), "{read}");
}

#[test]
fn nothing_a_user_types_becomes_an_element() {
    let mut random = Random(0x5eed_0002);
    for _ in 0..ROUNDS {
        let typed = random.pieces(12);
        let body = format!(
            "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\n\
             <FromUserName><![CDATA[o1]]></FromUserName>\n<CreateTime>1</CreateTime>\n\
             <MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[{typed}]]></Content>\n\
             <MsgId>99</MsgId>\n</xml>"
        );
        let push = parse(body.as_bytes()).expect(&body);
        let leaves = push.leaves();
        let leaves: Vec<_> = leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.value)).collect();
        let content = typed.replace("]]><![CDATA[", "");
        let expected = [
            ("ToUserName", "gh_1"),
            ("FromUserName", "o1"),
            ("CreateTime", "1"),
            ("MsgType", "text"),
            ("Content", content.as_str()),
            ("MsgId", "99"),
        ];
        assert_eq!(leaves, expected, "{typed:?}");
    }
}

#[test]
fn whatever_is_written_is_read_back_without_the_characters_that_xml_lacks() {
    let mut random = Random(0x5eed_0003);
    for _ in 0..ROUNDS {
        let text = random.pieces(12);
        let mut writer = Writer::new();
        writer.text("Content", &text).open("A").text("Title", &text).close("A");
        let tree = parse(writer.finish().as_bytes()).expect(&text);
        let legal = text.replace(['\0', '\u{fffe}'], "");
        assert_eq!(tree.text_of("Content"), Some(legal.as_str()), "{text:?}");
        let title = tree.child("A").and_then(|nested| nested.text_of("Title"));
        assert_eq!(title, Some(legal.as_str()), "{text:?}");
    }
}

#[test]
fn a_spoilt_ciphertext_never_panics_and_never_grows() {
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let key = AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG").expect("43 characters");
    let mut random = Random(0x5eed_0004);
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let message = vec![b'm'; random.below(100)];
        let block = [random.next().to_le_bytes()[0]; 16];
        let mut text = encrypt(&key, block, &message, "wx1").into_bytes();
        if random.below(2) == 0 {
            // Still base64, so that what is behind it is met.
            let place = random.below(text.len());
            text[place] = *random.of(BASE64);
        } else {
            random.mutate(&mut text);
        }
        match decrypt(&key, &String::from_utf8_lossy(&text), "wx1") {
            Ok(decrypted) => assert!(decrypted.len() <= text.len()),
            Err(_) => refused += 1,
        }
    }
    assert!((ROUNDS / 4..ROUNDS).contains(&refused), "{refused}");
}
