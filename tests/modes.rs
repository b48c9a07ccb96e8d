//! Plain, compatible and safe mode: the binary against a WeChat that shares no code with it, and what the account's
//! secrets protect from.

use std::sync::LazyLock;

use aviary_host::conversation::{Encryption, Said, Simulator};
use aviary_wechat::{
    crypt::{self, AesKey},
    envelope,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    bot::{Bot, Setup, TOKEN, new_header},
    http::{new_nonce, now_s, post, sealed_query, signed},
    log::Log,
    plugins::{ECHO, MISBEHAVE, workspace},
    process::{Running, aviary, finish_with},
};

/// Its last character has bits that belong to no byte, as every second real key has.
const KEY: &str = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C";
const OTHER_KEY: &str = "kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR";
const APP_ID: &str = "wx5823bf96d3bd56c7";

/// The keys of an account in an encrypted mode.
fn account(mode: &str) -> String {
    format!("mode = \"{mode}\"\nencoding_aes_key = \"{KEY}\"\napp_id = \"{APP_ID}\"")
}

// The binary and an independent WeChat

/// `aviary serve`, as an operator runs it.
struct Served {
    running: Running,
    url: String,
    _dir: TempDir,
}

impl Served {
    async fn start(account: &str) -> Self {
        let dir = Setup::new()
            .plugin("10-misbehave.wasm", &MISBEHAVE)
            .plugin("20-echo.wasm", &ECHO)
            .settings("listen = \"127.0.0.1:0\"")
            .account(account)
            .written();
        let mut running = Running::start(aviary(dir.path(), &["serve"]));
        let line = running.line("listens on http://").await;
        let url =
            line.split_whitespace().find(|word| word.starts_with("http://")).expect("it is in the line").to_owned();
        running.line("Account `main` asks 2 plugins").await;
        Self { running, url, _dir: dir }
    }

    /// Lets the independent WeChat ask: in a mode, with secrets as it believes them to be.
    async fn asked(&self, mode: &str, wrong: Value, asks: Value) -> Vec<Value> {
        let mut script = json!({
            "url": self.url, "token": TOKEN, "mode": mode, "encoding_aes_key": KEY, "app_id": APP_ID, "asks": asks,
        });
        let wrong = wrong.as_object().expect("it is a table").clone();
        script.as_object_mut().expect("it is a table").extend(wrong);
        assert!(
            *HAS_NODE,
            "Node.js plays WeChat here, so that it shares no code with the host: install `node`, 18 or later"
        );
        let mut node = Command::new("node");
        node.arg(workspace().join("tests/peer/wechat.mjs")).kill_on_drop(true);
        let finished = finish_with(node, &script.to_string()).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout.lines().map(|line| serde_json::from_str(line).expect("it prints JSON")).collect()
    }
}

/// Whether the independent WeChat can be played.
static HAS_NODE: LazyLock<bool> =
    LazyLock::new(|| std::process::Command::new("node").arg("--version").output().is_ok());

/// What the users of these tests say.
fn texts() -> [String; 6] {
    let longest = "鸟".repeat(666) + "!!";
    assert_eq!(longest.len(), 2000);
    ["你好", "🦜👨‍👩‍👧", "<b>&amp;</b> \"'", " two\nlines ", "x", &longest].map(str::to_owned)
}

fn echoed(form: &str, content: &str) -> Value {
    let reply = json!({ "ToUserName": "oPeer", "FromUserName": "gh_peer", "MsgType": "text", "Content": content });
    json!({ "status": 200, "form": form, "reply": reply })
}

/// Asserts that a mode of the console works: URL check, texts of every kind, silence.
async fn assert_understood(served: &Served, mode: &str) {
    let form = if mode == "plain" { "plain" } else { "encrypted" };
    let mut asks = vec![json!({ "check": "5927782489442352469" }), json!({ "event": "unsubscribe" })];
    let mut expected = vec![json!({ "status": 200, "form": "echostr" }), json!({ "status": 200, "form": "success" })];
    for text in texts() {
        asks.push(json!({ "text": text }));
        expected.push(echoed(form, &text));
    }
    // Every length of padding there is.
    for length in 1..=32 {
        asks.push(json!({ "text": "p".repeat(length) }));
        expected.push(echoed(form, &"p".repeat(length)));
    }
    assert_eq!(served.asked(mode, json!({}), asks.into()).await, expected);
}

/// Asserts that a WeChat with other secrets gets a status and no word. The URL check needs the token alone.
async fn assert_refused(served: &Served, mode: &str, wrong: Value, status: u16) {
    let answers = served.asked(mode, wrong.clone(), json!([{ "text": "hi" }, { "check": "1" }])).await;
    let check = match wrong.get("token") {
        Some(_) => json!({ "status": 403, "form": "empty" }),
        None => json!({ "status": 200, "form": "echostr" }),
    };
    assert_eq!(answers, [json!({ "status": status, "form": "empty" }), check], "{mode} {wrong}");
}

#[tokio::test]
async fn plain_mode_is_understood_by_an_independent_wechat() {
    let served = Served::start("").await;
    assert_understood(&served, "plain").await;
    assert_refused(&served, "plain", json!({ "token": "othertoken" }), 403).await;
    assert_refused(&served, "safe", json!({}), 403).await;
    // The plaintext is there, and an account without a key cannot read more.
    let answers = served.asked("compatible", json!({}), json!([{ "text": "both" }])).await;
    assert_eq!(answers, [echoed("plain", "both")]);
    assert_understood(&served, "plain").await;
}

#[tokio::test]
async fn compatible_mode_answers_each_push_in_its_own_form() {
    let served = Served::start(&account("compatible")).await;
    assert_understood(&served, "compatible").await;
    assert_understood(&served, "safe").await;
    assert_understood(&served, "plain").await;
    assert_refused(&served, "compatible", json!({ "token": "othertoken" }), 403).await;
    assert_refused(&served, "compatible", json!({ "encoding_aes_key": OTHER_KEY }), 400).await;
    assert_refused(&served, "compatible", json!({ "app_id": "wx0000000000000000" }), 403).await;
}

#[tokio::test]
async fn safe_mode_is_understood_by_an_independent_wechat_and_takes_no_plaintext() {
    let served = Served::start(&account("safe")).await;
    assert_understood(&served, "safe").await;
    assert_understood(&served, "compatible").await;
    assert_refused(&served, "plain", json!({}), 403).await;
    assert_refused(&served, "safe", json!({ "token": "othertoken" }), 403).await;
    assert_refused(&served, "safe", json!({ "encoding_aes_key": OTHER_KEY }), 400).await;
    assert_refused(&served, "safe", json!({ "app_id": "wx0000000000000000" }), 403).await;
    assert_understood(&served, "safe").await;
}

#[tokio::test]
async fn a_retry_with_a_new_ciphertext_joins_the_first_try() {
    for mode in ["safe", "compatible"] {
        let mut served = Served::start(&account(mode)).await;
        let asks =
            json!([{ "text": "wait 300", "tries": 3 }, { "event": "unsubscribe", "tries": 3 }, { "text": "end" }]);
        let answers = served.asked(mode, json!({}), asks).await;
        let mut expected = vec![echoed("encrypted", "waited"); 3];
        expected.extend(vec![json!({ "status": 200, "form": "success" }); 3]);
        expected.push(echoed("encrypted", "end"));
        assert_eq!(answers, expected, "{mode}");
        served.running.line("Plugin `echo` answered user").await;
        assert_eq!(served.running.count("Plugin `misbehave` answered user"), 1, "{mode}");
        assert_eq!(served.running.count("No plugin answered user"), 1, "{mode}");
    }
}

// The account's secrets

async fn echo(account: &str) -> Bot {
    Setup::new().plugin("20-echo.wasm", &ECHO).account(account).start().await
}

fn key(text: &str) -> AesKey {
    AesKey::parse(text).expect("it is a key")
}

fn said(words: &str) -> String {
    Said::parse(words).unwrap().to_xml(&new_header())
}

/// WeChat in 安全模式, with secrets as it believes them to be.
fn safe(bot: &Bot, token: &str, encoding_aes_key: &str) -> Simulator {
    let mut wechat = bot.simulator.clone();
    wechat.token = token.into();
    wechat.encryption = Encryption::Safe { key: key(encoding_aes_key), app_id: APP_ID.into() };
    wechat
}

/// What a user reads who says "hi": nothing if it was refused.
async fn heard(wechat: &Simulator) -> Option<String> {
    let answer = wechat.push(&said("hi")).await.unwrap();
    let reply =
        (answer.status == 200).then(|| wechat.reply(&answer).expect("WeChat reads it").expect("it is no silence"));
    reply.map(|reply| reply.text_of("Content").unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_token_before_the_last_change_is_accepted_in_every_mode_and_told_of() {
    let log = Log::capture();
    let heard_hi = Some("hi".to_owned());
    let rotated = "previous_token = \"previoustoken\"";
    for account in [rotated.to_owned(), format!("{rotated}\n{}", account("compatible"))] {
        let bot = echo(&account).await;
        for (token, expected) in [(TOKEN, &heard_hi), ("previoustoken", &heard_hi), ("othertoken", &None)] {
            let mut wechat = bot.simulator.clone();
            wechat.token = token.into();
            assert_eq!(&heard(&wechat).await, expected, "{token}");
            assert_eq!(wechat.check_url().await.unwrap().passed(), expected.is_some(), "{token}");
            if account != rotated {
                assert_eq!(&heard(&safe(&bot, token, KEY)).await, expected, "{token}");
            }
        }
    }
    // Once for each of the two hosts, not for each push.
    assert_eq!(log.lines("WeChat still uses `accounts.main.previous_token`").len(), 2);
}

#[tokio::test]
async fn the_key_before_the_last_change_is_accepted_and_told_of() {
    let log = Log::capture();
    let bot = echo(&format!("{}\nprevious_encoding_aes_key = \"{OTHER_KEY}\"", account("safe"))).await;
    assert_eq!(heard(&safe(&bot, TOKEN, KEY)).await.as_deref(), Some("hi"));
    assert_eq!(log.lines("WeChat still uses").len(), 0);
    assert_eq!(heard(&safe(&bot, TOKEN, OTHER_KEY)).await.as_deref(), Some("hi"));
    assert_eq!(log.lines("WeChat still uses `accounts.main.previous_encoding_aes_key`").len(), 1);
    assert_eq!(heard(&safe(&bot, TOKEN, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")).await, None);
}

#[tokio::test]
async fn nobody_gets_around_encryption_in_safe_mode() {
    let bot = echo(&account("safe")).await;
    let encrypt = crypt::encrypt(&key(KEY), [7; 16], said("hi").as_bytes(), APP_ID);
    let sealed = || sealed_query(TOKEN, &now_s().to_string(), &new_nonce(), &encrypt);
    let refused = async |query: String, body: &str, why: &str| {
        assert_eq!(post(&bot.origin, &format!("/?{query}"), body).await.told(), (403, ""), "{why}");
    };
    refused(signed(), &said("hi"), "plaintext with a good signature").await;
    refused(sealed(), &said("hi"), "plaintext with somebody's msg_signature").await;
    refused(signed(), &envelope::push("gh", &encrypt), "a ciphertext without msg_signature").await;
    let repeated = format!("{}&msg_signature=0", sealed());
    refused(repeated, &envelope::push("gh", &encrypt), "two msg_signatures").await;
    let array = sealed().replace("msg_signature=", "msg_signature[]=");
    refused(array, &envelope::push("gh", &encrypt), "a list of msg_signatures").await;
    let other = crypt::encrypt(&key(KEY), [8; 16], said("forged").as_bytes(), APP_ID);
    refused(sealed(), &envelope::push("gh", &other), "a msg_signature of another ciphertext").await;
    let nested = format!("<xml><Encrypt><Encrypt>{encrypt}</Encrypt></Encrypt></xml>");
    refused(sealed(), &nested, "a ciphertext further down").await;

    let answer = post(&bot.origin, &format!("/?{}", sealed()), &envelope::push("gh", &encrypt)).await;
    assert_eq!(answer.status, 200);
    // `msg_signature` alone counts, so `signature` may be anything.
    let unsigned = sealed().replacen("signature=", "signature=0", 1);
    assert_eq!(post(&bot.origin, &format!("/?{unsigned}"), &envelope::push("gh", &encrypt)).await.status, 200);
}

#[tokio::test]
async fn where_there_is_a_ciphertext_only_it_counts() {
    for mode in ["compatible", "safe"] {
        let bot = echo(&account(mode)).await;
        let with = |plain: &str, encrypt: &str| {
            said(plain).replace("</xml>", &format!("<Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>"))
        };
        let encrypt = crypt::encrypt(&key(KEY), [7; 16], said("hidden").as_bytes(), APP_ID);
        let query = sealed_query(TOKEN, &now_s().to_string(), &new_nonce(), &encrypt);
        let answer = post(&bot.origin, &format!("/?{query}"), &with("shown", &encrypt)).await;
        let reply = envelope::open(&key(KEY), APP_ID, TOKEN, &answer.body).unwrap();
        assert!(String::from_utf8(reply).unwrap().contains("<![CDATA[hidden]]>"), "{mode}");

        let forged = post(&bot.origin, &format!("/?{}", signed()), &with("shown", &encrypt)).await;
        assert_eq!(forged.told(), (403, ""), "{mode}: the plaintext's signature is good");
        let empty = post(&bot.origin, &format!("/?{}", signed()), &with("shown", "")).await;
        assert_eq!(empty.told(), (403, ""), "{mode}: an empty ciphertext is one");
    }
}

#[tokio::test]
async fn an_encrypted_push_ages_like_any_other() {
    let bot = echo(&account("safe")).await;
    for (timestamp, status) in [(now_s() - 590, 200), (now_s() - 700, 403), (now_s() + 700, 403)] {
        let encrypt = crypt::encrypt(&key(KEY), [7; 16], said("hi").as_bytes(), APP_ID);
        let query = sealed_query(TOKEN, &timestamp.to_string(), &new_nonce(), &encrypt);
        let answer = post(&bot.origin, &format!("/?{query}"), &envelope::push("gh", &encrypt)).await;
        assert_eq!(answer.status, status, "{timestamp}");
    }
}

#[tokio::test]
async fn a_refusal_tells_the_operator_what_to_compare_and_the_caller_nothing() {
    let log = Log::capture();
    let (plain, encrypted) = (echo("").await, echo(&account("safe")).await);
    let encrypt = crypt::encrypt(&key(KEY), [7; 16], said("hi").as_bytes(), APP_ID);
    let foreign = crypt::encrypt(&key(KEY), [7; 16], said("hi").as_bytes(), "wx0000000000000000");
    let otherwise = crypt::encrypt(&key(OTHER_KEY), [7; 16], said("hi").as_bytes(), APP_ID);
    let sealed = |token: &str, at: u64, encrypt: &str| sealed_query(token, &at.to_string(), &new_nonce(), encrypt);
    let wrap = |encrypt: &str| envelope::push("gh", encrypt);
    for (bot, query, body, advice) in [
        (&plain, sealed(TOKEN, now_s(), &encrypt), wrap(&encrypt), "the console seems to be in 安全模式"),
        (&encrypted, signed(), said("hi"), "the console is set to 明文模式"),
        (&encrypted, sealed("othertoken", now_s(), &encrypt), wrap(&encrypt), "with `accounts.main.token`"),
        (
            &encrypted,
            sealed(TOKEN, now_s() - 3600, &encrypt),
            wrap(&encrypt),
            "`accounts.main.signature_max_age_s` is 600",
        ),
        (&encrypted, sealed(TOKEN, now_s(), &foreign), wrap(&foreign), "with `accounts.main.app_id`"),
        (&encrypted, sealed(TOKEN, now_s(), &otherwise), wrap(&otherwise), "with `accounts.main.encoding_aes_key`"),
    ] {
        for _ in 0..2 {
            let answer = post(&bot.origin, &format!("/?{query}"), &body).await;
            assert_eq!(answer.body, b"", "{advice}");
        }
        let lines = log.lines(advice);
        assert_eq!(lines.len(), 1, "{advice}: {:#?}", log.lines("Refused"));
        for secret in [TOKEN, KEY, OTHER_KEY, "oUser", "othertoken"] {
            assert!(!lines[0].contains(secret), "{}", lines[0]);
        }
    }
}
