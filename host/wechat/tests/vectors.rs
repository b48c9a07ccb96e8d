//! Every case of `tests/wire` that this crate can decide: official samples, and those of other
//! people's libraries. Each case names its source there.

use aviary_wechat::crypt::{AesKey, DecryptError, KeyError, decrypt, encrypt};
use aviary_wechat::envelope;
use aviary_wechat::signature::{sign, sign_jssdk, sign_message, verify, verify_message};
use aviary_wechat::xml::{Element, ParseError, parse};
use serde::Deserialize;
use serde_json::{Map, Value};

macro_rules! wire {
    ($file:literal) => {
        serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/wire/", $file)))
            .expect(concat!($file, " has the shape that is read here"))
    };
}

mod signatures {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
        negative: Vec<Negative>,
    }

    #[derive(Deserialize)]
    struct Vector {
        id: String,
        #[serde(flatten)]
        signed: Signed,
        expected: String,
    }

    #[derive(Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Signed {
        Signature {
            token: String,
            timestamp: String,
            nonce: String,
        },
        MsgSignature {
            token: String,
            timestamp: String,
            nonce: String,
            encrypt: String,
        },
        Jssdk {
            jsapi_ticket: String,
            noncestr: String,
            timestamp: String,
            url: String,
        },
        /// Only the sorting and hashing, of any parts.
        Primitive {
            sort_parts: Vec<String>,
        },
    }

    #[derive(Deserialize)]
    struct Negative {
        id: String,
        token: String,
        #[serde(default)]
        timestamp: String,
        #[serde(default)]
        nonce: String,
        #[serde(default)]
        signature: String,
    }

    #[test]
    fn every_signature_is_the_one_that_was_sent() {
        let file: File = wire!("signatures.json");
        assert_eq!(file.vectors.len(), 23);
        for Vector { id, signed, expected } in file.vectors {
            assert_eq!(signature_of(&signed), expected, "{id}");
        }
    }

    fn signature_of(signed: &Signed) -> String {
        match signed {
            Signed::Signature { token, timestamp, nonce } => sign(token, timestamp, nonce),
            Signed::MsgSignature { token, timestamp, nonce, encrypt } => sign_message(token, timestamp, nonce, encrypt),
            Signed::Jssdk { jsapi_ticket, noncestr, timestamp, url } => {
                sign_jssdk(jsapi_ticket, noncestr, timestamp, url)
            }
            // An empty part sorts first and adds nothing.
            Signed::Primitive { sort_parts } => match sort_parts.as_slice() {
                [a, b] => sign(a, b, ""),
                [a, b, c] => sign(a, b, c),
                other => panic!("{} parts", other.len()),
            },
        }
    }

    #[test]
    fn every_signature_is_accepted_and_not_one_that_is_off_by_a_digit() {
        let file: File = wire!("signatures.json");
        for Vector { id, signed, expected } in file.vectors {
            let last = if expected.ends_with('0') { "1" } else { "0" };
            let off = format!("{}{last}", &expected[..39]);
            match &signed {
                Signed::Signature { token, timestamp, nonce } => {
                    assert!(verify(token, timestamp, nonce, &expected), "{id}");
                    assert!(!verify(token, timestamp, nonce, &off), "{id}");
                }
                Signed::MsgSignature { token, timestamp, nonce, encrypt } => {
                    assert!(verify_message(token, timestamp, nonce, encrypt, &expected), "{id}");
                    assert!(!verify_message(token, timestamp, nonce, encrypt, &off), "{id}");
                }
                Signed::Jssdk { .. } | Signed::Primitive { .. } => {}
            }
        }
    }

    #[test]
    fn no_wrong_or_missing_signature_is_accepted() {
        let file: File = wire!("signatures.json");
        assert_eq!(file.negative.len(), 2);
        for case in file.negative {
            let accepted = verify(&case.token, &case.timestamp, &case.nonce, &case.signature);
            assert!(!accepted, "{}", case.id);
        }
    }
}

mod crypto {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
        negative: Vec<Negative>,
        synthetic_padding: Synthetic,
        synthetic_bad: Vec<Bad>,
    }

    #[derive(Clone, Deserialize)]
    struct Vector {
        id: String,
        token: Option<String>,
        encoding_aes_key: String,
        appid_configured: String,
        timestamp: Option<String>,
        nonce: Option<String>,
        msg_signature: Option<String>,
        signature_plain: Option<String>,
        encrypt: String,
        envelope: Option<Value>,
        expect: Expect,
    }

    #[derive(Clone, Deserialize)]
    struct Expect {
        random: String,
        plaintext: String,
        msg_len: usize,
        appid_in_payload: String,
    }

    #[derive(Deserialize)]
    struct Negative {
        id: String,
        base: String,
        change: Change,
    }

    #[derive(Deserialize)]
    struct Change {
        msg_signature: Option<String>,
        appid_configured: Option<String>,
        encoding_aes_key: Option<String>,
        timestamp: Option<String>,
        nonce: Option<String>,
        encrypt: Option<String>,
    }

    #[derive(Deserialize)]
    struct Synthetic {
        encoding_aes_key: String,
        appid: String,
        cases: Vec<Padded>,
    }

    #[derive(Deserialize)]
    struct Padded {
        id: String,
        msg_len: usize,
        random: String,
        /// Missing where it would be long.
        encrypt: Option<String>,
        encrypt_sha1: String,
    }

    #[derive(Deserialize)]
    struct Bad {
        id: String,
        encoding_aes_key: String,
        appid: String,
        encrypt: String,
    }

    /// Where a request ends that should not get through.
    #[derive(Debug, PartialEq)]
    enum Refused {
        Key(KeyError),
        Signature,
        Decrypt(DecryptError),
    }

    fn key(encoding_aes_key: &str) -> AesKey {
        AesKey::parse(encoding_aes_key).expect("a key of the vectors")
    }

    fn random(text: &str) -> [u8; 16] {
        text.as_bytes().try_into().expect("16 bytes")
    }

    impl Vector {
        /// What the host does with a push: key, then signature, then ciphertext.
        fn receive(&self) -> Result<Vec<u8>, Refused> {
            let key = AesKey::parse(&self.encoding_aes_key).map_err(Refused::Key)?;
            if let Some(signature) = &self.msg_signature {
                let [token, timestamp, nonce] = [&self.token, &self.timestamp, &self.nonce]
                    .map(|part| part.as_deref().expect("what is signed has all parts"));
                if !verify_message(token, timestamp, nonce, &self.encrypt, signature) {
                    return Err(Refused::Signature);
                }
            }
            decrypt(&key, &self.encrypt, &self.appid_configured).map_err(Refused::Decrypt)
        }
    }

    impl Change {
        fn apply(self, vector: &mut Vector) {
            if self.msg_signature.is_some() {
                vector.msg_signature = self.msg_signature;
            }
            if self.timestamp.is_some() {
                vector.timestamp = self.timestamp;
            }
            if self.nonce.is_some() {
                vector.nonce = self.nonce;
            }
            if let Some(app_id) = self.appid_configured {
                vector.appid_configured = app_id;
            }
            if let Some(key) = self.encoding_aes_key {
                vector.encoding_aes_key = key;
            }
            match self.encrypt.as_deref() {
                Some("drop first character") => drop(vector.encrypt.remove(0)),
                Some(other) => panic!("unknown change {other:?}"),
                None => {}
            }
        }
    }

    #[test]
    fn every_message_decrypts_to_what_was_sent() {
        let file: File = wire!("crypto.json");
        assert_eq!(file.vectors.len(), 12);
        for mut vector in file.vectors {
            // One vector is configured with an app id that is not the message's; a negative has it.
            vector.appid_configured = vector.expect.appid_in_payload.clone();
            let message = vector.receive().expect(&vector.id);
            assert_eq!(message.len(), vector.expect.msg_len, "{}", vector.id);
            assert_eq!(String::from_utf8(message).as_ref(), Ok(&vector.expect.plaintext), "{}", vector.id);
        }
    }

    #[test]
    fn every_message_encrypts_to_the_same_bytes() {
        let file: File = wire!("crypto.json");
        for Vector { id, encoding_aes_key, encrypt: expected, expect, .. } in file.vectors {
            let ciphertext = encrypt(
                &key(&encoding_aes_key),
                random(&expect.random),
                expect.plaintext.as_bytes(),
                &expect.appid_in_payload,
            );
            assert_eq!(ciphertext, expected, "{id}");
        }
    }

    #[test]
    fn the_plain_signature_beside_the_other_is_good_too() {
        let file: File = wire!("crypto.json");
        let mut checked = 0;
        for vector in file.vectors {
            let Vector {
                id,
                token: Some(token),
                timestamp: Some(timestamp),
                nonce: Some(nonce),
                signature_plain: Some(signature),
                ..
            } = vector
            else {
                continue;
            };
            assert!(verify(&token, &timestamp, &nonce, &signature), "{id}");
            checked += 1;
        }
        assert_eq!(checked, 4);
    }

    #[test]
    fn the_ciphertext_is_found_beside_the_plaintext() {
        let file: File = wire!("crypto.json");
        let mut checked = 0;
        for vector in file.vectors {
            // The other envelope is JSON, for mini programs.
            let Some(Value::String(body)) = vector.envelope else {
                continue;
            };
            let push = parse(body.as_bytes()).expect(&vector.id);
            assert_eq!(envelope::ciphertext(&push), Some(vector.encrypt.as_str()));
            assert_eq!(push.text_of("MsgType"), Some("text"));
            checked += 1;
        }
        assert_eq!(checked, 1);
    }

    #[test]
    fn a_reply_is_sealed_as_others_seal_it() {
        let file: File = wire!("crypto.json");
        let replies: Value = wire!("replies.json");
        let template = replies["encrypted_envelope"]["template"].as_str();
        let find = |vector: &&Vector| vector.id == "wechatpy-encrypt";
        let vector = file.vectors.iter().find(find).expect("the vector is there");
        let msg_signature = vector.msg_signature.as_deref().expect("it is signed");
        let token = vector.token.as_deref().expect("it is signed");
        let sealed = envelope::seal(
            &key(&vector.encoding_aes_key),
            &vector.appid_configured,
            token,
            1_411_525_903,
            "461056294",
            random(&vector.expect.random),
            &vector.expect.plaintext,
        );
        let expected = template
            .expect("the template is there")
            .replace("{encrypt}", &vector.encrypt)
            .replace("{msg_signature}", msg_signature)
            .replace("{unix_seconds}", "1411525903")
            .replace("{nonce}", "461056294");
        assert_eq!(sealed, expected);
    }

    #[test]
    fn every_amount_of_padding_goes_both_ways() {
        let file: File = wire!("crypto.json");
        let Synthetic { encoding_aes_key, appid, cases } = file.synthetic_padding;
        let key = key(&encoding_aes_key);
        assert_eq!(cases.len(), 11);
        for case in cases {
            let message = "a".repeat(case.msg_len).into_bytes();
            let ciphertext = encrypt(&key, random(&case.random), &message, &appid);
            // Signing one part alone is its SHA-1.
            assert_eq!(sign(&ciphertext, "", ""), case.encrypt_sha1, "{}", case.id);
            if let Some(expected) = case.encrypt {
                assert_eq!(ciphertext, expected, "{}", case.id);
            }
            let decrypted = decrypt(&key, &ciphertext, &appid);
            assert_eq!(decrypted, Ok(message), "{}", case.id);
        }
    }

    #[test]
    fn every_spoilt_push_is_refused_at_its_step() {
        let file: File = wire!("crypto.json");
        assert_eq!(file.negative.len(), 7);
        for Negative { id, base, change } in file.negative {
            let base = file.vectors.iter().find(|vector| vector.id == base);
            let mut vector = base.expect("the base is a vector").clone();
            change.apply(&mut vector);
            let found = vector.expect.appid_in_payload.clone();
            let expected = match id.as_str() {
                "neg-sig" | "neg-foreign-signature" | "neg-tamper-first-char" => Refused::Signature,
                "neg-appid" | "neg-appid-payload" => Refused::Decrypt(DecryptError::AppId { found }),
                "neg-oldkey" => Refused::Decrypt(DecryptError::Padding),
                "neg-key-42" => Refused::Key(KeyError::Length { found: 42 }),
                other => panic!("nobody says what to expect of {other}"),
            };
            assert_eq!(vector.receive(), Err(expected), "{id}");
        }
    }

    #[test]
    fn every_spoilt_plaintext_is_refused_at_its_step() {
        let file: File = wire!("crypto.json");
        assert_eq!(file.synthetic_bad.len(), 4);
        for bad in file.synthetic_bad {
            let error = decrypt(&key(&bad.encoding_aes_key), &bad.encrypt, &bad.appid).expect_err(&bad.id);
            let as_expected = match bad.id.as_str() {
                "bad-pad-33" => error == DecryptError::Padding,
                "bad-len-too-large" => matches!(error, DecryptError::Length { .. }),
                "bad-len-negative" => {
                    matches!(error, DecryptError::Length { claimed: u32::MAX, .. })
                }
                "pkcs7-16" => error == DecryptError::Blocks { bytes: 48 },
                other => panic!("nobody says what to expect of {other}"),
            };
            assert!(as_expected, "{}: {error}", bad.id);
        }
    }
}

/// The shape of `parsed` in the vectors: an element with children is an object, one without is its
/// text, and several of one name are an array.
fn to_json(element: &Element) -> Value {
    if element.children.is_empty() {
        return Value::String(element.text.clone());
    }
    let mut object = Map::new();
    for child in &element.children {
        let value = to_json(child);
        match object.get_mut(&child.name) {
            None => drop(object.insert(child.name.clone(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}

#[derive(Deserialize)]
struct Sample {
    id: String,
    #[serde(alias = "expected_xml")]
    xml: String,
    parsed: Option<Value>,
}

#[test]
fn every_push_has_the_tree_that_it_should_have() {
    #[derive(Deserialize)]
    struct File {
        samples: Vec<Sample>,
    }
    let file: File = wire!("inbound.json");
    assert_eq!(file.samples.len(), 107);
    for Sample { id, xml, parsed } in file.samples {
        let push = parse(xml.as_bytes()).expect(&id);
        assert_eq!(Some(to_json(&push)), parsed, "{id}");
    }
}

#[test]
fn every_reply_has_the_tree_that_it_should_have() {
    #[derive(Deserialize)]
    struct File {
        replies: Vec<Sample>,
    }
    let file: File = wire!("replies.json");
    assert_eq!(file.replies.len(), 41);
    for Sample { id, xml, parsed } in file.replies {
        // `success` and the empty answer are no XML, and their `parsed` is nothing.
        let tree = parse(xml.as_bytes()).ok();
        assert_eq!(tree.as_ref().map(to_json), parsed, "{id}");
    }
}

mod malformed {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        id: String,
        body: Option<String>,
        body_repeat: Option<Repeat>,
    }

    #[derive(Deserialize)]
    struct Repeat {
        before: String,
        open: String,
        close: String,
        times: usize,
        after: String,
    }

    impl Case {
        fn body(&self) -> String {
            match (&self.body, &self.body_repeat) {
                (Some(body), None) => body.clone(),
                (None, Some(repeat)) => {
                    let open = repeat.open.repeat(repeat.times);
                    let close = repeat.close.repeat(repeat.times);
                    format!("{}{open}{close}{}", repeat.before, repeat.after)
                }
                _ => panic!("{} has one kind of body", self.id),
            }
        }
    }

    /// What this crate owes to a case; the rest is for whoever gives the tree a meaning.
    enum Expected {
        Refused(fn(&ParseError) -> bool),
        Has(&'static [(&'static str, &'static str)]),
        Undecryptable(DecryptError),
    }

    fn expected(id: &str) -> Expected {
        use Expected::{Has, Refused, Undecryptable};
        match id {
            "empty-body" => Refused(|error| *error == ParseError::Empty),
            "json-body" => Refused(|error| *error == ParseError::NotXml),
            "doctype-xxe" | "billion-laughs" => Refused(|error| *error == ParseError::Doctype),
            "undefined-entity" => Refused(|error| matches!(error, ParseError::Entity { name } if name == "foo")),
            "deep-nesting" => Refused(|error| *error == ParseError::Depth),
            "bad-space-tag" => Refused(|error| matches!(error, ParseError::Name { .. })),
            "no-xml-root" => Refused(|error| matches!(error, ParseError::Root { name } if name == "msg")),
            "nested-xml-in-content" => Has(&[("Content", "<xml><a>1</a></xml>")]),
            "cdata-split" => Has(&[("Content", "a]]>b")]),
            "cdata-nested-open" => Has(&[("Content", "a<![CDATA[b")]),
            "content-injection" => Has(&[
                ("ToUserName", "toUser"),
                ("FromUserName", "fromUser"),
                ("MsgType", "text"),
                (
                    "Content",
                    "a]]></Content><FromUserName><![CDATA[victim]]></FromUserName>\
                     <MsgType><![CDATA[event]]></MsgType><Event><![CDATA[CLICK]]></Event>\
                     <MsgId>7</MsgId><Content><![CDATA[b",
                ),
                ("MsgId", "99"),
            ]),
            "bom" => Has(&[("ToUserName", "toUser"), ("Content", "hi")]),
            "missing-from" => Has(&[("ToUserName", "t"), ("Content", "x")]),
            "createtime-not-number" => Has(&[("CreateTime", "abc")]),
            "createtime-huge" => Has(&[("CreateTime", "4102444800")]),
            "lowercase-msgtype-mixed" => Has(&[("MsgType", "Text")]),
            "encrypt-missing-in-safe-mode" => Has(&[("MsgType", "text")]),
            "encrypt-not-base64" => Undecryptable(DecryptError::Base64),
            "encrypt-empty" => Undecryptable(DecryptError::Blocks { bytes: 0 }),
            "encrypt-15-bytes" => Undecryptable(DecryptError::Blocks { bytes: 15 }),
            other => panic!("nobody says what to expect of {other}"),
        }
    }

    #[test]
    fn every_malformed_push_is_refused_or_read_safely() {
        let file: File = wire!("malformed.json");
        assert_eq!(file.cases.len(), 21);
        for case in file.cases {
            let id = &case.id;
            let push = parse(case.body().as_bytes());
            match expected(id) {
                Expected::Refused(is_expected) => {
                    let error = push.expect_err(id);
                    assert!(is_expected(&error), "{id}: {error}");
                }
                Expected::Has(texts) => {
                    let push = push.expect(id);
                    for &(name, text) in texts {
                        assert_eq!(push.text_of(name), Some(text), "{id}");
                        assert_eq!(push.last_text_of(name), Some(text), "{id}");
                    }
                }
                Expected::Undecryptable(error) => {
                    let key = AesKey::parse(&"A".repeat(43)).expect("43 characters");
                    let push = push.expect(id);
                    let encrypt = envelope::ciphertext(&push).expect(id);
                    assert_eq!(decrypt(&key, encrypt, "wx1"), Err(error), "{id}");
                }
            }
        }
    }
}
