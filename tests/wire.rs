//! Real pushes and hostile ones, from `tests/wire`, over HTTP: what each is answered, and that the host still serves.
//!
//! Every case has an account of its own: many of them carry the same `MsgId`, and would be retries of one another.

use std::{fs, sync::LazyLock};

use aviary_host::{
    config::Config,
    conversation::{Answer, Encryption, Simulator},
};
use aviary_wechat::{
    crypt::AesKey,
    envelope,
    signature::{sign, sign_message},
    xml::{self, Element},
};
use serde_json::Value;

use crate::{
    bot::{Bot, Setup, TOKEN},
    http::{Response, ask, encoded, get, new_nonce, now_s, post, sealed_query, signed, signed_at},
    plugins::{ECHO, FALLBACK, WELCOME, workspace},
};

const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const APP_ID: &str = "wxb11529c136998cb6";

/// A list of a file in `tests/wire`.
fn rows(file: &str, list: &str) -> Vec<Value> {
    let path = workspace().join("tests/wire").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value = serde_json::from_str(&text).expect("it is JSON");
    file[list].as_array().unwrap_or_else(|| panic!("there is a list `{list}`")).clone()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("{row} has no text `{name}`"))
}

fn id(row: &Value) -> &str {
    text(row, "id")
}

/// The bundled bots, and one account for each id, on the path `/ID`.
fn bundled<'a>(accounts: impl IntoIterator<Item = (&'a str, String)>) -> Setup {
    let setup = Setup::new()
        .plugin("10-welcome.wasm", &WELCOME)
        .plugin("20-echo.wasm", &ECHO)
        .plugin("90-fallback.wasm", &FALLBACK);
    accounts.into_iter().fold(setup, |setup, (id, keys)| {
        setup.settings(&format!("[accounts.{id}]\npath = \"/{id}\"\nsignature_max_age_s = 0\n{keys}\n"))
    })
}

fn plain() -> String {
    format!("token = \"{TOKEN}\"")
}

fn encrypted(mode: &str, token: &str, key: &str, app_id: &str) -> String {
    format!("mode = \"{mode}\"\ntoken = \"{token}\"\nencoding_aes_key = \"{key}\"\napp_id = \"{app_id}\"")
}

/// The texts of a reply that tell who is answered, and how.
fn read(reply: &Element) -> [String; 3] {
    ["ToUserName", "MsgType", "Content"].map(|name| reply.text_of(name).unwrap_or_default().to_owned())
}

/// Status and reply of an answer; no reply for `success`.
fn outcome(wechat: &Simulator, answer: &Answer) -> (u16, Option<[String; 3]>) {
    let status = answer.status.as_u16();
    match (status, &answer.body[..]) {
        (200, b"success") => (200, None),
        (200, _) => (200, wechat.reply(answer).expect("WeChat reads the reply").as_ref().map(read)),
        (_, body) => {
            assert_eq!(body, b"", "a refusal says nothing");
            (status, None)
        }
    }
}

async fn assert_serves(bot: &Bot, after: &str) {
    assert_eq!(bot.says("still here").await, "still here", "after {after}");
}

#[tokio::test]
async fn every_known_signature_passes_the_url_check() {
    let vectors = rows("signatures.json", "vectors");
    let vectors: Vec<_> = vectors.iter().filter(|row| row["kind"] == "signature").collect();
    let accounts = vectors.iter().map(|row| (id(row), format!("token = \"{}\"", text(row, "token"))));
    let bot = bundled(accounts).start().await;
    for row in &vectors {
        let echostr = row["echostr"].as_str().unwrap_or("4375120948345356249");
        let (signature, timestamp, nonce) = (text(row, "expected"), text(row, "timestamp"), text(row, "nonce"));
        let check = |signature: &str| {
            format!("/{}?signature={signature}&timestamp={timestamp}&nonce={nonce}&echostr={echostr}", id(row))
        };
        assert_eq!(get(&bot.origin, &check(signature)).await.told(), (200, echostr), "{}", id(row));
        let other = signature.replace(&signature[..1], if signature.starts_with('0') { "1" } else { "0" });
        assert_eq!(get(&bot.origin, &check(&other)).await.told(), (403, ""), "{}", id(row));
    }
    assert!(vectors.len() >= 9, "{} vectors", vectors.len());
}

#[tokio::test]
async fn every_signature_known_to_be_wrong_is_refused() {
    for row in rows("signatures.json", "negative") {
        let (token, target) = match id(&row) {
            "wechatpy-bad" => {
                let parameters = ["signature", "timestamp", "nonce"].map(|name| format!("{name}={}", text(&row, name)));
                (text(&row, "token"), format!("/case?{}", parameters.join("&")))
            }
            // Its token has a blank, which WeChat's form does not take.
            "missing-signature" => (TOKEN, "/case".into()),
            unknown => panic!("say here what `{unknown}` is answered"),
        };
        let bot = bundled([("case", format!("token = \"{token}\""))]).start().await;
        assert_eq!(get(&bot.origin, &target).await.status, 403, "{}", id(&row));
        assert_eq!(post(&bot.origin, &target, "<xml/>").await.told(), (403, ""), "{}", id(&row));
    }
}

#[tokio::test]
async fn every_sample_of_real_traffic_is_answered() {
    let samples = rows("inbound.json", "samples");
    let bot = bundled(samples.iter().map(|row| (id(row), plain()))).start().await;
    for row in &samples {
        let wechat = bot.account(&format!("/{}", id(row)));
        let answer = wechat.push(text(row, "xml")).await.unwrap();
        let parsed = &row["parsed"];
        let expected = match (row["msg_type"].as_str(), row["event"].as_str()) {
            (Some("text"), _) => Some(text(parsed, "Content")),
            (Some("event"), Some("subscribe")) => Some("感谢您的关注!"),
            (Some("event"), _) | (None, _) => None,
            _ => Some("无法识别该消息!"),
        };
        let expected = expected.map(|content| [text(parsed, "FromUserName"), "text", content].map(str::to_owned));
        assert_eq!(outcome(&wechat, &answer), (200, expected), "{}", id(row));
    }
    assert!(samples.len() >= 107, "{} samples", samples.len());
}

/// What a case of `malformed.json` is answered, plain or decrypted: the status, and what the echo says to `fromUser`.
fn answer_to(case: &str) -> (u16, Option<&'static str>) {
    match case {
        "empty-body" | "json-body" | "no-xml-root" | "bad-space-tag" => (400, None),
        "doctype-xxe" | "billion-laughs" | "undefined-entity" | "deep-nesting" => (400, None),
        "createtime-not-number" => (400, None),
        "missing-from" => (200, None),
        "nested-xml-in-content" => (200, Some("<xml><a>1</a></xml>")),
        "cdata-split" => (200, Some("a]]>b")),
        "cdata-nested-open" => (200, Some("a<![CDATA[b")),
        "content-injection" => (
            200,
            Some(
                "a]]></Content><FromUserName><![CDATA[victim]]></FromUserName><MsgType><![CDATA[event]]></MsgType>\
                 <Event><![CDATA[CLICK]]></Event><MsgId>7</MsgId><Content><![CDATA[b",
            ),
        ),
        "bom" => (200, Some("hi")),
        "createtime-huge" | "lowercase-msgtype-mixed" | "encrypt-missing-in-safe-mode" => (200, Some("x")),
        // Encrypted, and the account is not.
        "encrypt-not-base64" | "encrypt-empty" | "encrypt-15-bytes" => (403, None),
        unknown => panic!("say here what `{unknown}` is answered"),
    }
}

fn body(case: &Value) -> String {
    let Some(repeat) = case["body_repeat"].as_object() else { return text(case, "body").to_owned() };
    let times = usize::try_from(repeat["times"].as_u64().expect("it is a number")).expect("it is small");
    let part = |name: &str| repeat[name].as_str().expect("it is a text");
    [part("before"), &part("open").repeat(times), &part("close").repeat(times), part("after")].concat()
}

#[tokio::test]
async fn every_malformed_push_is_answered_as_the_table_says() {
    let cases = rows("malformed.json", "cases");
    let bot = bundled(cases.iter().map(|case| (id(case), plain()))).start().await;
    for case in &cases {
        let wechat = bot.account(&format!("/{}", id(case)));
        let answer = wechat.push(&body(case)).await.unwrap();
        let (status, content) = answer_to(id(case));
        let reply = content.map(|content| ["fromUser", "text", content].map(str::to_owned));
        assert_eq!(outcome(&wechat, &answer), (status, reply), "{}", id(case));
        assert_serves(&bot, id(case)).await;
    }
}

#[tokio::test]
async fn encryption_changes_nothing_about_a_malformed_push() {
    let cases = rows("malformed.json", "cases");
    let keys = encrypted("safe", TOKEN, KEY, APP_ID);
    let bot = bundled(cases.iter().map(|case| (id(case), keys.clone()))).start().await;
    for case in &cases {
        let mut wechat = bot.account(&format!("/{}", id(case)));
        wechat.encryption = Encryption::Safe { key: AesKey::parse(KEY).unwrap(), app_id: APP_ID.into() };
        let answer = wechat.push(&body(case)).await.unwrap();
        let (status, content) = match id(case) {
            // A ciphertext within a ciphertext is no message.
            "encrypt-not-base64" | "encrypt-empty" | "encrypt-15-bytes" => (400, None),
            plain => answer_to(plain),
        };
        let reply = content.map(|content| ["fromUser", "text", content].map(str::to_owned));
        assert_eq!(outcome(&wechat, &answer), (status, reply), "{}", id(case));
        assert_serves(&bot, id(case)).await;
    }
}

#[tokio::test]
async fn a_malformed_ciphertext_is_refused() {
    let cases = rows("malformed.json", "cases");
    let bot = bundled([("safe", encrypted("safe", TOKEN, KEY, APP_ID))]).start().await;
    let cases: Vec<_> = cases.iter().filter(|case| id(case).starts_with("encrypt-")).collect();
    for case in &cases {
        let body = body(case);
        let encrypt = xml::parse(body.as_bytes()).unwrap().text_of("Encrypt").unwrap_or_default().to_owned();
        let (signed_well, signed_badly) = match id(case) {
            "encrypt-missing-in-safe-mode" => (403, 403),
            "encrypt-not-base64" | "encrypt-empty" | "encrypt-15-bytes" => (400, 403),
            unknown => panic!("say here what `{unknown}` is answered"),
        };
        let query = sealed_query(TOKEN, &now_s().to_string(), &new_nonce(), &encrypt);
        assert_eq!(post(&bot.origin, &format!("/safe?{query}"), &body).await.told(), (signed_well, ""), "{}", id(case));
        let query = sealed_query(TOKEN, &now_s().to_string(), &new_nonce(), "another");
        assert_eq!(
            post(&bot.origin, &format!("/safe?{query}"), &body).await.told(),
            (signed_badly, ""),
            "{}",
            id(case)
        );
        assert_serves(&bot, id(case)).await;
    }
    assert!(cases.len() >= 4);
}

#[tokio::test]
async fn every_malformed_request_is_answered_as_the_table_says() {
    let message = "<xml><ToUserName>gh</ToUserName><FromUserName>o</FromUserName><CreateTime>1</CreateTime>\
                   <MsgType>text</MsgType><Content>x</Content><MsgId>1</MsgId></xml>";
    let bot = bundled([("safe", encrypted("safe", TOKEN, KEY, APP_ID))]).start().await;
    let origin = bot.origin.as_str();
    for request in rows("malformed.json", "requests") {
        match id(&request) {
            "query-array" => {
                let target = format!("/?{}", text(&request, "query"));
                assert_eq!(get(origin, &target).await.told(), (403, ""));
                assert_eq!(post(origin, &target, message).await.told(), (403, ""));
            }
            "aes-but-encrypt_type-raw" => {
                let encrypt =
                    aviary_wechat::crypt::encrypt(&AesKey::parse(KEY).unwrap(), [7; 16], message.as_bytes(), APP_ID);
                let body = envelope::push("gh", &encrypt);
                let query = sealed_query(TOKEN, &now_s().to_string(), &new_nonce(), &encrypt);
                let without_type = query.replace("&encrypt_type=aes", "");
                assert_eq!(post(origin, &format!("/?{without_type}"), &body).await.told(), (403, ""), "plain");
                assert_eq!(
                    post(origin, &format!("/safe?{}", signed()), &body).await.told(),
                    (403, ""),
                    "no msg_signature"
                );
                let raw = format!("/safe?{without_type}&encrypt_type=raw");
                assert_eq!(post(origin, &raw, message).await.told(), (403, ""), "a downgrade");
                let answer = post(origin, &raw, &body).await;
                assert!(answer.told().1.starts_with("<xml><Encrypt>"), "the body decides: {answer:?}");
            }
            "old-timestamp" => {
                let yesterday = format!("/?{}", signed_at(now_s() - 86_400));
                assert_eq!(post(origin, &yesterday, message).await.told(), (403, ""));
            }
            "method-put" => assert_eq!(ask(origin, "PUT", &format!("/?{}", signed())).await.told(), (405, "")),
            "get-without-echostr" => assert_eq!(get(origin, &format!("/?{}", signed())).await.told(), (400, "")),
            "echostr-html" => {
                let html = "<script>alert(1)</script>";
                let good = get(origin, &format!("/?{}&echostr={}", signed(), encoded(html))).await;
                assert_eq!((good.told(), good.header("content-type")), ((200, html), "text/plain; charset=utf-8"));
                let forged = signed().replace("signature=", "signature=0");
                assert_eq!(get(origin, &format!("/?{forged}&echostr={}", encoded(html))).await.told(), (403, ""));
            }
            unknown => panic!("say here what `{unknown}` is answered"),
        }
        assert_serves(&bot, id(&request)).await;
    }
}

#[tokio::test]
async fn what_a_user_types_never_becomes_a_field_of_the_message() {
    let injections = [
        "]]></Content><MsgId>1</MsgId><Content><![CDATA[",
        "]]></Content></xml><xml><Content><![CDATA[",
        "]]></Content><FromUserName><![CDATA[oVictim]]></FromUserName><ToUserName>gh_x</ToUserName><Content><![CDATA[",
        "]]></Content><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[subscribe]]></Event><Content><![CDATA[",
        "]]></Content><Encrypt><![CDATA[AAAA]]></Encrypt><Content><![CDATA[",
        "]]></Content><CreateTime>x</CreateTime><Content><![CDATA[",
        "]]></Content><!-- <Content><![CDATA[",
    ];
    let bot = bundled([]).start().await;
    for (number, typed) in injections.iter().enumerate() {
        let push = format!(
            "<xml><ToUserName><![CDATA[gh]]></ToUserName><FromUserName><![CDATA[oUser]]></FromUserName>\
             <CreateTime>{number}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{typed}]]></Content>\
             <MsgId>{number}</MsgId></xml>"
        );
        let answer = bot.push(&push).await;
        let expected = ["oUser", "text", *typed].map(str::to_owned);
        assert_eq!(outcome(&bot.simulator, &answer), (200, Some(expected)), "{typed}");

        let label = typed.replace("Content>", "Label>");
        let push = format!(
            "<xml><ToUserName><![CDATA[gh]]></ToUserName><FromUserName><![CDATA[oUser]]></FromUserName>\
             <CreateTime>{number}</CreateTime><MsgType><![CDATA[location]]></MsgType><Location_X>1</Location_X>\
             <Location_Y>2</Location_Y><Scale>3</Scale><Label><![CDATA[{label}]]></Label><MsgId>9{number}</MsgId></xml>"
        );
        let (status, reply) = outcome(&bot.simulator, &bot.push(&push).await);
        assert!(
            status == 400 || reply == Some(["oUser", "text", "无法识别该消息!"].map(str::to_owned)),
            "{label}: {reply:?}"
        );
    }
}

/// A ciphertext of somebody else's, and what an account needs to read it.
#[derive(Clone)]
struct Vector {
    id: String,
    token: String,
    key: String,
    app_id: String,
    timestamp: String,
    nonce: String,
    msg_signature: String,
    encrypt: String,
    /// The whole body, where it is known.
    body: Option<String>,
    plaintext: String,
}

static VECTORS: LazyLock<Vec<Vector>> =
    LazyLock::new(|| rows("crypto.json", "vectors").iter().map(Vector::of).collect());

impl Vector {
    fn of(row: &Value) -> Self {
        let or = |name: &str, absent: &str| row[name].as_str().unwrap_or(absent).to_owned();
        let mut vector = Self {
            id: id(row).to_owned(),
            token: or("token", TOKEN),
            key: text(row, "encoding_aes_key").to_owned(),
            app_id: text(row, "appid_configured").to_owned(),
            timestamp: or("timestamp", "1458889120"),
            nonce: or("nonce", "2066297436"),
            msg_signature: or("msg_signature", ""),
            encrypt: text(row, "encrypt").to_owned(),
            body: row["envelope"].as_str().map(str::to_owned),
            plaintext: text(&row["expect"], "plaintext").to_owned(),
        };
        if vector.msg_signature.is_empty() {
            vector.msg_signature = sign_message(&vector.token, &vector.timestamp, &vector.nonce, &vector.encrypt);
        }
        vector
    }

    fn named(id: &str) -> &'static Self {
        VECTORS.iter().find(|vector| vector.id == id).unwrap_or_else(|| panic!("there is no vector `{id}`"))
    }

    fn account(&self) -> String {
        let mode = if self.body.is_some() { "compatible" } else { "safe" };
        encrypted(mode, &self.token, &self.key, &self.app_id)
    }

    /// Pushes it as it once was pushed.
    async fn push(&self, bot: &Bot, account: &str) -> Response {
        let Self { timestamp, nonce, msg_signature, .. } = self;
        let signature = sign(&self.token, timestamp, nonce);
        let target = format!(
            "/{account}?signature={signature}&timestamp={timestamp}&nonce={nonce}&encrypt_type=aes\
             &msg_signature={msg_signature}"
        );
        let body = self.body.clone().unwrap_or_else(|| envelope::push("gh_1", &self.encrypt));
        post(&bot.origin, &target, &body).await
    }
}

#[tokio::test]
async fn every_ciphertext_of_others_is_opened_and_its_reply_is_sealed_for_them() {
    let bot = bundled(VECTORS.iter().map(|vector| (vector.id.as_str(), vector.account()))).start().await;
    let mut opened = 0;
    for vector in VECTORS.iter() {
        let response = vector.push(&bot, &vector.id).await;
        let message = match xml::parse(vector.plaintext.as_bytes()) {
            // Its ciphertext is for another app id than the one its authors configured.
            _ if vector.id == "powerwechat-recv" => {
                assert_eq!(response.told(), (403, ""), "{}", vector.id);
                continue;
            }
            // JSON, and the echostr of 企业微信.
            Err(_) => {
                assert_eq!(response.told(), (400, ""), "{}", vector.id);
                continue;
            }
            Ok(message) => message,
        };
        assert_eq!(response.status, 200, "{}", vector.id);
        let key = AesKey::parse(&vector.key).unwrap();
        let reply = envelope::open(&key, &vector.app_id, &vector.token, &response.body).unwrap();
        let said = [message.text_of("FromUserName").unwrap(), "text", message.text_of("Content").unwrap()];
        assert_eq!(read(&xml::parse(&reply).unwrap()), said, "{}", vector.id);
        opened += 1;
    }
    assert!(opened >= 8, "{opened} were opened");
}

#[tokio::test]
async fn every_ciphertext_known_to_be_wrong_is_refused_with_its_status_and_nothing_else() {
    let mut refused = Vec::new();
    for row in rows("crypto.json", "negative") {
        let mut vector = Vector { body: None, id: id(&row).into(), ..Vector::named(text(&row, "base")).clone() };
        let changed = |name: &str, old: &str| row["change"][name].as_str().unwrap_or(old).to_owned();
        vector.key = changed("encoding_aes_key", &vector.key);
        vector.timestamp = changed("timestamp", &vector.timestamp);
        vector.nonce = changed("nonce", &vector.nonce);
        vector.msg_signature = changed("msg_signature", &vector.msg_signature);
        // An app id with a blank is refused by the settings already.
        vector.app_id = changed("appid_configured", &vector.app_id).replace(' ', "");
        let status = match vector.id.as_str() {
            "neg-tamper-first-char" => {
                vector.encrypt.remove(0);
                403
            }
            "neg-sig" | "neg-foreign-signature" | "neg-appid" | "neg-appid-payload" => 403,
            "neg-oldkey" => 400,
            "neg-key-42" => {
                assert!(settings_error(&vector.account()).contains("43"));
                continue;
            }
            unknown => panic!("say here what `{unknown}` is answered"),
        };
        refused.push((vector, status));
    }
    for row in rows("crypto.json", "synthetic_bad") {
        let status = match id(&row) {
            "bad-pad-33" | "bad-len-too-large" | "bad-len-negative" | "pkcs7-16" => 400,
            unknown => panic!("say here what `{unknown}` is answered"),
        };
        let encrypt = text(&row, "encrypt").to_owned();
        let (timestamp, nonce) = (now_s().to_string(), new_nonce());
        let vector = Vector {
            id: id(&row).to_owned(),
            token: TOKEN.into(),
            key: text(&row, "encoding_aes_key").to_owned(),
            app_id: text(&row, "appid").to_owned(),
            msg_signature: sign_message(TOKEN, &timestamp, &nonce, &encrypt),
            timestamp,
            nonce,
            encrypt,
            body: None,
            plaintext: String::new(),
        };
        refused.push((vector, status));
    }

    let bot = bundled(refused.iter().map(|(vector, _)| (vector.id.as_str(), vector.account()))).start().await;
    for (vector, status) in &refused {
        let response = vector.push(&bot, &vector.id).await;
        assert_eq!(response.told(), (*status, ""), "{}", vector.id);
        let mut headers = response.headers.clone();
        headers.remove("date");
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(headers, ["connection: close", "content-length: 0"], "{} tells more than the others", vector.id);
        assert_serves(&bot, &vector.id).await;
    }
    assert_eq!(refused.len(), 10);
}

/// What is wrong with an account's settings.
fn settings_error(account: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aviary.toml");
    fs::write(&file, format!("[accounts.main]\n{account}\n")).unwrap();
    Config::load(&file).expect_err("such settings are refused").to_string()
}
