//! What each target begins with: the project's vectors, as inputs.

use std::{fs, path::Path};

use serde_json::Value;

/// Pieces that mean something to one side or the other.
pub const PIECES: [&str; 44] = [
    "<",
    ">",
    "/",
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
    "<Encrypt>",
    "</Encrypt>",
    "<FromUserName>v</FromUserName>",
    "</FromUserName>",
    "<MsgType>",
    "</MsgType>",
    "<MsgId>7</MsgId>",
    "<CreateTime>",
    "event",
    "\n",
    "\0",
    "\u{feff}",
    "\u{fffe}",
    "你",
    "=",
    "&signature=",
    "&msg_signature=",
    "&timestamp=",
    "&nonce=",
    "&echostr=",
    "%00",
];

/// Where the first two bytes of a webhook's input lead; see `Asked` there.
const PLAIN: u8 = b'H';
const COMPATIBLE: u8 = b'I';
const SAFE: u8 = b'J';
const ROTATING: u8 = b'K';
const GET: u8 = b'@';
const OWN_TIME: u8 = 1 << 5;
const SIGNED: u8 = 1;
const SEALED: u8 = 1 << 1;
const BESIDE: u8 = 1 << 2;
const PREVIOUS_TOKEN: u8 = 1 << 3;
const PREVIOUS_KEY: u8 = 1 << 4;
const OTHER_APP_ID: u8 = 1 << 5;
const SPOILT: u8 = 1 << 6;
const OLD: u8 = 1 << 7;

/// The vectors in `tests/wire`.
pub struct Vectors {
    inbound: Value,
    malformed: Value,
    replies: Value,
    crypto: Value,
    signatures: Value,
}

impl Vectors {
    /// Reads them.
    pub fn read(wire: &Path) -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(wire.join(name)).expect("the vectors are there");
            serde_json::from_str(&text).expect("they are JSON")
        };
        Self {
            inbound: read("inbound.json"),
            malformed: read("malformed.json"),
            replies: read("replies.json"),
            crypto: read("crypto.json"),
            signatures: read("signatures.json"),
        }
    }

    /// Bodies, and texts that become elements where nobody looks.
    pub fn xml(&self) -> Vec<Vec<u8>> {
        let mut seeds: Vec<String> = self.pushes().map(str::to_owned).collect();
        seeds.extend(self.lists());
        seeds.extend(self.malformed());
        seeds.extend(texts(&self.replies["replies"], "expected_xml").map(str::to_owned));
        seeds.extend(texts(&self.crypto["vectors"], "envelope").map(str::to_owned));
        let typed = seeds.iter().filter_map(|seed| between(seed, "<Content><![CDATA[", "]]></Content>"));
        let typed: Vec<String> = typed.map(str::to_owned).collect();
        seeds.extend(typed);
        seeds.into_iter().map(String::into_bytes).collect()
    }

    /// A letter for the kind, and what it is about.
    pub fn envelope(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        let mut add = |kind: u8, rest: &[u8]| seeds.push([&[kind], rest].concat());
        let vectors = &self.crypto["vectors"];
        let lists = [vectors, &self.crypto["synthetic_bad"], &self.crypto["synthetic_padding"]["cases"]];
        for text in texts(vectors, "encoding_aes_key") {
            add(b'k', text.as_bytes());
            add(b'k', &text.as_bytes()[1..]);
        }
        for text in lists.into_iter().flat_map(|list| texts(list, "encrypt")) {
            add(b'c', text.as_bytes());
            add(b'v', text.as_bytes());
        }
        for row in rows(vectors) {
            let (message, app_id) = (text(&row["expect"]["plaintext"]), text(&row["expect"]["appid_in_payload"]));
            let length = u32::try_from(message.len()).expect("a vector is short");
            add(
                b'p',
                &[&b"aaaabbbbccccdddd"[..], &length.to_be_bytes(), message.as_bytes(), app_id.as_bytes()].concat(),
            );
            add(b'r', format!("{app_id}\n{}\n{message}", text(&row["nonce"])).as_bytes());
        }
        for padding in [0, 1, 16, 31, 32, 33] {
            add(b'p', &[padding; 64]);
        }
        for changes in [&[][..], &[0, 1], &[16, 1], &[19, 4, 63, 32]] {
            add(b's', changes);
        }
        for row in rows(vectors) {
            let [encrypt, msg_signature, timestamp, nonce] =
                ["encrypt", "msg_signature", "timestamp", "nonce"].map(|field| text(&row[field]));
            let envelope = format!(
                "<xml><Encrypt>{encrypt}</Encrypt><MsgSignature>{msg_signature}</MsgSignature>\
                 <TimeStamp>{timestamp}</TimeStamp><Nonce>{nonce}</Nonce></xml>"
            );
            add(b'e', envelope.as_bytes());
        }
        seeds
    }

    /// Two bytes for account and form, a query, a line feed, and a body.
    pub fn webhook(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        let mut add = |first: u8, second: u8, query: &str, body: &str| {
            seeds.push([&[first, second], query.as_bytes(), b"\n", body.as_bytes()].concat());
        };
        for push in self.pushes().map(str::to_owned).chain(self.lists()) {
            let push = push.as_str();
            add(PLAIN, SIGNED, "openid=o1", push);
            add(COMPATIBLE, SIGNED | SEALED | BESIDE, "openid=o1&encrypt_type=aes", push);
            add(SAFE, SIGNED | SEALED, "openid=o1&encrypt_type=aes", push);
        }
        for body in self.malformed() {
            add(PLAIN, SIGNED, "", &body);
            add(SAFE, SIGNED, "", &body);
            add(SAFE, SIGNED | SEALED, "", &body);
            add(COMPATIBLE, SPOILT | SIGNED, "", &body);
        }
        let push = self.pushes().next().expect("there are some");
        for second in [
            SIGNED | SEALED | PREVIOUS_TOKEN,
            SIGNED | SEALED | PREVIOUS_KEY,
            SIGNED | SEALED | PREVIOUS_KEY | PREVIOUS_TOKEN | BESIDE,
            SIGNED | PREVIOUS_TOKEN,
            SIGNED | SEALED | OTHER_APP_ID,
            SIGNED | SEALED | SPOILT,
            SIGNED | SEALED | OLD,
            SIGNED | OLD,
            SEALED,
            0,
        ] {
            for first in [PLAIN, COMPATIBLE, SAFE, ROTATING] {
                add(first, second, "", push);
                add(first & 3 | GET, second & !SEALED, "echostr=5833258582299191661", "");
            }
        }
        let header = "<ToUserName>v</ToUserName><FromUserName>v</FromUserName><CreateTime>9</CreateTime>\
                      <MsgType>event</MsgType><MsgId>7</MsgId></xml>";
        let two_headers = push.replace("</xml>", header);
        add(PLAIN, SIGNED, "", &two_headers);
        add(SAFE, SIGNED | SEALED, "", &two_headers);
        let long = "n".repeat(65);
        for (timestamp, nonce) in [
            ("1", "1"),
            ("+1", "1"),
            ("-1", "1"),
            ("1.0", "1"),
            ("18446744073709551616", "1"),
            ("1", &long[1..]),
            ("1", &long),
            ("1", ""),
            ("", "1"),
            ("1", "%E5%A5%BD+%00"),
        ] {
            let query = format!("timestamp={timestamp}&nonce={nonce}");
            add(GET | OWN_TIME, SIGNED, &format!("{query}&echostr=5833258582299191661"), "");
            add(PLAIN | OWN_TIME, SIGNED, &query, push);
            add(COMPATIBLE | OWN_TIME, SIGNED, &query, push);
            add(SAFE | OWN_TIME, SIGNED | SEALED, &query, push);
        }
        for row in rows(&self.signatures["vectors"]).filter(|row| row["kind"] == "signature") {
            let signed = query(row, &[("signature", "expected"), ("timestamp", "timestamp"), ("nonce", "nonce")]);
            for (account, get) in [(PLAIN, GET), (ROTATING, GET | 3)] {
                add(get, 0, &format!("{signed}&echostr={}", text(&row["echostr"])), "");
                add(account, 0, &signed, push);
            }
        }
        let names = ["timestamp", "nonce", "msg_signature"].map(|name| (name, name));
        for row in rows(&self.crypto["vectors"]) {
            let query = query(row, &[("signature", "signature_plain"), names[0], names[1], names[2]]);
            let envelope = format!("<xml><ToUserName/><Encrypt>{}</Encrypt></xml>", text(&row["encrypt"]));
            for first in [PLAIN, SAFE, ROTATING] {
                add(first, 0, &query, row["envelope"].as_str().unwrap_or(&envelope));
            }
            add(SAFE, SIGNED, "", &envelope);
        }
        add(PLAIN, SIGNED, "", &format!("<xml>{}</xml>", "x".repeat(4_096)));
        seeds
    }

    fn pushes(&self) -> impl Iterator<Item = &str> {
        texts(&self.inbound["samples"], "xml")
    }

    /// Pushes with a list, which is longer than in the vectors.
    fn lists(&self) -> impl Iterator<Item = String> {
        self.pushes().filter_map(|push| {
            let start = push.find("<List>").or_else(|| push.find("<item>"))?;
            let end = push.find("</List>").or_else(|| push.find("</item>"))? + "</List>".len();
            Some([&push[..start], &push[start..end].repeat(5), &push[end..]].concat())
        })
    }

    fn malformed(&self) -> impl Iterator<Item = String> {
        rows(&self.malformed["cases"]).flat_map(|case| match &case["body_repeat"] {
            Value::Null => vec![text(&case["body"]).to_owned()],
            // A fuzzer is quicker with short inputs: just not too deep, and just too deep.
            repeat => {
                let part = |name: &str, times| text(&repeat[name]).repeat(times);
                let nested = |times| [part("before", 1), part("open", times), part("close", times), part("after", 1)];
                [15, 16].map(|times| nested(times).concat()).to_vec()
            }
        })
    }
}

/// Writes parameters, each from a field of a vector that has it.
fn query(row: &Value, fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().filter_map(|(name, field)| Some(format!("{name}={}", row[field].as_str()?)));
    fields.collect::<Vec<_>>().join("&")
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().expect("it is a list").iter()
}

fn texts<'a>(list: &'a Value, field: &'static str) -> impl Iterator<Item = &'a str> {
    rows(list).filter_map(move |row| row[field].as_str())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.rsplit_once(end)?.0)
}
