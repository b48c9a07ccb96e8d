//! What no plugin answered goes to the webhook behind the account: bots of before, which know nothing of Aviary.

mod late;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use aviary_host::{
    control::{self, Socket},
    conversation::{Encryption, Said, TRIES_MAX},
};
use aviary_wechat::{
    crypt::{self, AesKey},
    envelope, signature, xml,
};
use tokio::{
    net::TcpSocket,
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    bot::{Bot, PATIENCE, Setup, TOKEN, new_header},
    http::get,
    log::Log,
    plugins::{MISBEHAVE, PARROT, workspace},
    process::{Running, aviary, finish},
    python::python,
    upstream::{Answer, Upstream, ok},
};

const KEY: &str = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C";
const APP_ID: &str = "wx5823bf96d3bd56c7";

fn key() -> AesKey {
    AesKey::parse(KEY).unwrap()
}

/// The keys of an account in an encrypted mode.
fn account(mode: &str) -> String {
    format!("mode = \"{mode}\"\nencoding_aes_key = \"{KEY}\"\napp_id = \"{APP_ID}\"")
}

// Bots of before, as processes of their own

/// A bot of `tests/webhooks`.
struct Webhook {
    running: Running,
    url: String,
}

impl Webhook {
    async fn start(file: &str) -> Self {
        let mut command = Command::new(python().await);
        command.arg(workspace().join("tests/webhooks").join(file)).kill_on_drop(true);
        command.env("WECHAT_TOKEN", TOKEN).env("WECHAT_ENCODING_AES_KEY", KEY).env("WECHAT_APP_ID", APP_ID);
        // Its greeting is no line to wait for while it is buffered, and the sources' directory stays as it is.
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        let mut running = Running::start(command);
        let line = running.line("Running on http://").await;
        let origin = line.split_whitespace().find(|word| word.starts_with("http://")).expect("it is in the line");
        let url = format!("{origin}/wx");
        Self { running, url }
    }

    /// How often it was asked about these words, once it was asked about later ones.
    async fn asked(&mut self, words: &str, later: &str) -> usize {
        self.running.line(&format!("asked about {later}")).await;
        self.running.count(&format!("asked about {words}"))
    }
}

/// Aviary in front of a webhook, with a plugin that answers `天气`.
async fn in_front_of(url: &str, account: &str) -> Bot {
    Setup::new()
        .plugin("10-parrot.wasm", &PARROT)
        .settings("[plugins.parrot]\nmatch = [{ starts_with = \"天气\" }]")
        .account(&format!("forward = \"{url}\"\n{account}"))
        .start()
        .await
}

#[tokio::test]
async fn a_flask_bot_of_a_tutorial_goes_on_behind_aviary_and_moves_over_plugin_by_plugin() {
    let mut flask = Webhook::start("flask_bot.py").await;
    let bot = in_front_of(&flask.url, "").await;
    assert_eq!(bot.says("[subscribe]").await, "欢迎关注！");
    assert_eq!(bot.says("你好 <3 & 微信").await, "你说：你好 <3 & 微信");
    assert_eq!(bot.says("[image]").await, "");
    assert_eq!(bot.says("[unsubscribe]").await, "");
    assert_eq!(bot.says("天气 北京").await, "鹦鹉：天气 北京");
    assert_eq!(bot.says("再见").await, "你说：再见");
    assert_eq!(flask.asked("天气", "再见").await, 0);
}

#[tokio::test]
async fn three_tries_of_wechat_reach_the_bot_once_and_all_get_its_reply() {
    let mut flask = Webhook::start("flask_bot.py").await;
    let bot = in_front_of(&flask.url, "").await;
    let push = bot.simulator.sign(&text_push("slow 0.5")).unwrap();
    let tries = tokio::join!(bot.simulator.send(&push), bot.simulator.send(&push), bot.simulator.send(&push));
    for answer in [tries.0, tries.1, tries.2] {
        assert_eq!(bot.shown(&answer.unwrap()), "你说：slow 0.5");
    }
    assert_eq!(bot.says("再见").await, "你说：再见");
    assert_eq!(flask.asked("slow", "再见").await, 1);
}

#[tokio::test]
async fn a_bot_that_takes_seven_seconds_is_heard_by_the_try_that_is_open_then() {
    let mut flask = Webhook::start("flask_bot.py").await;
    let mut bot = in_front_of(&flask.url, "").await;
    // A WeChat that is less patient than the real one: the third of its tries begins after 6 s.
    bot.simulator.timeout = Duration::from_secs(3);
    let push = bot.simulator.sign(&text_push("slow 7")).unwrap();
    let mut tries = Vec::new();
    let answer = bot.simulator.deliver(&push, TRIES_MAX, |_, result| tries.push(result.is_ok())).await.unwrap();
    assert_eq!((bot.shown(&answer).as_str(), tries), ("你说：slow 7", vec![false, false, true]));
    bot.simulator.timeout = PATIENCE;
    assert_eq!(bot.says("再见").await, "你说：再见");
    assert_eq!(flask.asked("slow", "再见").await, 1);
}

#[tokio::test]
async fn a_bot_with_another_sdk_in_safe_mode_goes_on_behind_aviary() {
    let mut wechatpy = Webhook::start("wechatpy_bot.py").await;
    let mut bot = in_front_of(&wechatpy.url, &account("safe")).await;
    bot.simulator.encryption = Encryption::Safe { key: key(), app_id: APP_ID.into() };
    assert_eq!(bot.says("[subscribe]").await, "欢迎关注！");
    assert_eq!(bot.says("[image]").await, "[news] 不懂 | https://example.com/");
    for length in 1..=32 {
        let words = "p".repeat(length);
        assert_eq!(bot.says(&words).await, format!("你说：{words}"));
    }
    assert_eq!(bot.says("天气 北京").await, "鹦鹉：天气 北京");
    assert_eq!(bot.says("再见").await, "你说：再见");
    assert_eq!(wechatpy.asked("天气", "再见").await, 0);
}

#[tokio::test]
async fn a_check_before_the_move_asks_the_bot_as_wechat_would() {
    let flask = Webhook::start("flask_bot.py").await;
    let check = async |account: &str| {
        let dir = Setup::new().account(account).written();
        let finished = finish(aviary(dir.path(), &["check", "--online"])).await;
        (finished.code, finished.stdout)
    };
    let (code, told) = check(&format!("forward = \"{}?secret=hidden7\"", flask.url)).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("forward         {}, what no plugin answered\n", flask.url)), "{told}");
    assert!(told.contains("forward         it passes WeChat's check of its URL\n"), "{told}");
    assert!(!told.contains("hidden7") && !told.contains("the user sees as silence"), "{told}");

    let (code, told) = check(&format!("token = \"othertoken\"\nforward = \"{}\"", flask.url)).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("wrong: `forward` does not pass WeChat's check of its URL (status 403 Forbidden)"), "{told}");
}

// What a webhook is sent

#[tokio::test]
async fn a_push_is_sent_on_as_wechat_sends_it_with_a_signature_of_our_own() {
    let webhook = Upstream::plain(|_| ok("", "success")).await;
    let bot = in_front_of(&format!("{}/wx?m=1", webhook.origin()), "").await;
    let push = "<xml><ToUserName><![CDATA[gh_test]]></ToUserName>\n<FromUserName><![CDATA[oUser]]></FromUserName>\
                <CreateTime>7</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[你好]]></Content>\
                <MsgId>8</MsgId><Unknown a=\"b\"/></xml>";
    assert_eq!(bot.shown(&bot.push(push).await), "");
    let requests = webhook.requests();
    let [request] = requests.as_slice() else { panic!("asked {} times", requests.len()) };
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, push, "to the byte");
    assert!(head.starts_with("POST /wx?m=1&signature="), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\ncontent-type: text/xml\r\n"), "{head}");
    let query = query_of(head);
    let [sign, timestamp, nonce, openid] = ["signature", "timestamp", "nonce", "openid"].map(&query);
    assert!(signature::verify(TOKEN, &timestamp, &nonce, &sign), "{head}");
    assert_eq!((openid.as_str(), query("encrypt_type").as_str()), ("oUser", ""));
}

#[tokio::test]
async fn an_encrypted_push_is_encrypted_anew_as_the_account_is_set_up() {
    for mode in ["safe", "compatible"] {
        let webhook = Upstream::plain(|_| ok("", "success")).await;
        let mut bot = in_front_of(&webhook.origin(), &account(mode)).await;
        bot.simulator.encryption = match mode {
            "safe" => Encryption::Safe { key: key(), app_id: APP_ID.into() },
            _ => Encryption::Compatible { key: key(), app_id: APP_ID.into() },
        };
        assert_eq!(bot.says("你好").await, "");
        let requests = webhook.requests();
        let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
        let query = query_of(head);
        let root = xml::parse(body.as_bytes()).unwrap();
        let encrypt = envelope::ciphertext(&root).unwrap();
        assert_eq!(query("encrypt_type"), "aes");
        let [timestamp, nonce, msg_signature] = ["timestamp", "nonce", "msg_signature"].map(&query);
        assert!(signature::verify_message(TOKEN, &timestamp, &nonce, encrypt, &msg_signature), "{head}");
        let opened = crypt::decrypt(&key(), encrypt, APP_ID).unwrap();
        assert_eq!(xml::parse(&opened).unwrap().text_of("Content"), Some("你好"));
        assert_eq!(root.text_of("Content"), (mode == "compatible").then_some("你好"), "{mode}");
    }
}

/// Reads the query of a request's first line; what is not there is empty.
fn query_of(head: &str) -> impl Fn(&str) -> String {
    let query = head.split([' ', '?']).nth(2).unwrap_or_default().to_owned();
    move |name: &str| {
        let value = form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
        value.map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

#[tokio::test]
async fn every_type_of_reply_comes_through_with_names_that_are_ours() {
    let reply = |elements: &str| {
        format!(
            "<xml><ToUserName>oVictim</ToUserName><FromUserName>gh_other</FromUserName><CreateTime>1</CreateTime>\
             {elements}</xml>"
        )
    };
    for (elements, shown) in [
        ("<MsgType>text</MsgType><Content>a &amp; b</Content><FuncFlag>0</FuncFlag>", "a & b"),
        ("<MsgType>image</MsgType><Image><MediaId>m</MediaId></Image>", "[image] m"),
        ("<MsgType>card</MsgType><Card><Id>7</Id></Card>", "[type card] Card/Id=7"),
        ("<MsgType>transfer_customer_service</MsgType>", "[transfer_customer_service]"),
    ] {
        let body = reply(elements);
        let webhook = Upstream::plain(move |_| ok("content-type: text/html\r\n", &body)).await;
        let bot = in_front_of(&webhook.origin(), "").await;
        let answer = bot.push(&text_push("hi")).await;
        let root = bot.simulator.reply(&answer).unwrap().unwrap();
        assert_eq!((root.text_of("ToUserName"), root.text_of("FromUserName")), (Some("oUser"), Some("gh_test")));
        assert_eq!(bot.shown(&answer), shown);
    }
}

fn text_push(words: &str) -> String {
    Said::text(words).to_xml(&new_header())
}

// Who is asked

#[tokio::test]
async fn the_webhook_is_the_last_one_asked_also_when_plugins_fail() {
    let webhook = Upstream::plain(|_| ok("", "<xml><MsgType>text</MsgType><Content>of before</Content></xml>")).await;
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .account(&format!("forward = \"{}\"\napology_text = \"抱歉\"", webhook.origin()))
        .start()
        .await;
    assert_eq!(bot.says("pass").await, "of before");
    assert_eq!(bot.says("trap").await, "of before");
    assert_eq!(webhook.requests().len(), 2);
    assert_eq!(bot.says("say mine").await, "mine");
    assert_eq!(bot.says("nothing").await, "");
    assert_eq!(webhook.requests().len(), 2, "a plugin answered, if only with nothing");
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_and_counted_and_the_user_reads_the_apology() {
    let log = Log::capture();
    let told = [
        ("<!DOCTYPE html><p>Debugger", "answered with HTML; WeChat takes XML or the word `success`"),
        ("{\"code\": 0}", "answered with JSON; WeChat takes XML or the word `success`"),
        ("<xml><MsgType>text", "answered what WeChat would not read: the reply is no XML: "),
        ("<xml><MsgType>text</MsgType><Content></Content></xml>", "replied with an empty text, for which WeChat shows"),
        (
            "<xml><Encrypt>a</Encrypt></xml>",
            "answered what WeChat would not read: the reply is encrypted, but the push was not",
        ),
    ];
    for (body, why) in told {
        assert_failure(&log, Upstream::plain(move |_| ok("", body)).await, why).await;
    }
    let status = |line: &'static str| {
        move |_: &str| Answer::Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    };
    let told = [
        ("500 Internal Server Error", "answered with status 500 Internal Server Error; its own log should say why"),
        ("302 Found\r\nlocation: /login", "answered with a redirect (302), which is not followed"),
        ("403 Forbidden", "answered with status 403 Forbidden; most likely its token is not this account's"),
    ];
    for (line, why) in told {
        let webhook = Upstream::plain(status(line)).await;
        assert_failure(&log, webhook, why).await;
    }
}

/// Asserts what a failing webhook comes to: asked once, one line, one count, the apology.
async fn assert_failure(log: &Log, webhook: Upstream, why: &str) {
    let bot = in_front_of(&format!("{}/wx?k=hidden7", webhook.origin()), "apology_text = \"抱歉\"").await;
    assert_eq!(bot.says("你好").await, "抱歉", "{why}");
    assert_eq!(webhook.requests().len(), 1, "{why}");
    let begin = format!("Webhook {}/wx of account `main` failed: it {why}", webhook.origin());
    assert_eq!(log.lines(&begin).len(), 1, "{begin}: {:?}", log.lines("Webhook"));
    assert_eq!(log.lines("hidden7").len(), 0);
    let metrics = get(&bot.admin().await, "/metrics").await;
    let failed = ["status", "unreadable", "refused"].map(|outcome| {
        let line = format!("aviary_forwards_total{{account=\"main\",outcome=\"{outcome}\"}} 1\n");
        usize::from(metrics.told().1.contains(&line))
    });
    assert_eq!(failed.iter().sum::<usize>(), 1, "{why}");
    assert!(metrics.told().1.contains("aviary_messages_total{account=\"main\",outcome=\"apologised\"} 1"), "{why}");
}

#[tokio::test]
async fn a_webhook_that_is_not_there_is_told_for_that_and_costs_an_apology() {
    let log = Log::capture();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    // No longer than one try is open.
    let bot = in_front_of(&format!("http://{address}"), "apology_text = \"抱歉\"\nlate.hold_ms = 5500").await;
    assert_eq!(bot.says("你好").await, "抱歉");
    assert_eq!(log.lines("failed: it cannot be reached: Connection refused").len(), 1);
    assert_eq!(log.lines("The webhook failed; user").len(), 1);
}

#[tokio::test]
async fn a_webhook_with_a_certificate_of_the_operators_own_is_trusted() {
    let reply = "<xml><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[在]]></Content></xml>";
    let webhook = Upstream::tls("localhost", move |_| ok("", reply)).await;
    let forward = format!("forward = \"https://localhost:{}\"", webhook.address.port());
    let setup = || Setup::new().account(&forward).file("ca.pem", &webhook.ca_pem);
    let bot = setup().settings("[http]\nca_file = \"ca.pem\"").start().await;
    assert_eq!(bot.says("你好").await, "在");
    let bot = setup().start().await;
    assert_eq!(bot.says("你好").await, "", "unless the operator says so");
}

/// A place where nobody listens yet: whoever connects is refused.
fn nobody() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let origin = format!("http://{}", socket.local_addr().unwrap());
    (socket, origin)
}

/// Waits until the webhook of the account was not there.
async fn until_missed(log: &Log) {
    let missing = async {
        while log.lines("is not there (Connection refused").is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, missing).await.unwrap();
}

#[tokio::test]
async fn a_webhook_that_is_being_restarted_loses_no_message_and_is_asked_once() {
    let (log, (socket, origin)) = (Log::capture(), nobody());
    let bot = in_front_of(&origin, "").await;
    let (simulator, push) = (bot.simulator.clone(), bot.simulator.sign(&text_push("你好")).unwrap());
    let asking = tokio::spawn(async move { simulator.send(&push).await });
    until_missed(&log).await;
    let failing = || bot.app.live().named("main").unwrap().chain.forward().unwrap().failing();
    assert_eq!(failing().expect("whoever asks for the status now is told").messages, 0);
    let reply = "<xml><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[在]]></Content></xml>";
    let webhook = Upstream::on(socket.listen(16).unwrap(), move |_| ok("", reply));
    assert_eq!(bot.shown(&asking.await.unwrap().unwrap()), "在");
    assert_eq!((webhook.requests().len(), failing()), (1, None));
}

/// Both are restarted: the message waits for the next host, and its user is told to ask instead of reading the apology.
#[tokio::test]
async fn a_host_that_stops_leaves_a_message_whose_webhook_is_not_there_to_the_next_one() {
    let (log, (socket, origin)) = (Log::capture(), nobody());
    // A message waits 10 s for it, and the stop longer.
    let late = "late.window_ms = 5000\nlate.hold_ms = 15000";
    let bot = Setup::new()
        .settings("[listener]\nshutdown_ms = 60000")
        .account(&format!("forward = \"{origin}\"\napology_text = \"抱歉\"\n{late}"))
        .start()
        .await;
    let (simulator, push) = (bot.simulator.clone(), bot.simulator.sign(&text_push("你好")).unwrap());
    let asking = tokio::spawn(async move { simulator.send(&push).await });
    until_missed(&log).await;
    let stopped = Instant::now();
    let mut bot = bot.restart().await;
    assert!(stopped.elapsed() < Duration::from_secs(8), "it waited for nobody: {:?}", stopped.elapsed());
    assert_eq!(bot.shown(&asking.await.unwrap().unwrap()), "还在想，稍后回复“继续”查看");
    let reply = "<xml><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[在]]></Content></xml>";
    let _webhook = Upstream::on(socket.listen(16).unwrap(), move |_| ok("", reply));
    bot.simulator.timeout = PATIENCE;
    assert_eq!(bot.says("继续").await, "在");
}

#[tokio::test]
async fn a_webhook_answers_no_more_messages_at_once_than_it_may() {
    let log = Log::capture();
    let webhook = Upstream::plain(|_| Answer::Stop(Vec::new())).await;
    let bot = in_front_of(&webhook.origin(), "forward_calls_max = 2").await;
    // The third has less time than those before it: their places are free too late for it.
    let ask = async |seconds| bot.asked_within("hi", Duration::from_secs(seconds)).await.reply;
    assert_eq!(tokio::join!(ask(3), ask(3), ask(1)), (None, None, None));
    assert_eq!(webhook.connections(), 2);
    assert_eq!(log.lines("failed: it has 2 messages to answer already (`forward_calls_max`)").len(), 1);
    assert_eq!(log.lines("failed: it gave no answer within").len(), 2);
}

#[tokio::test]
async fn status_tells_of_the_webhook_and_an_account_that_has_only_that_is_well() {
    let webhook = Upstream::plain(|_| ok("", "success")).await;
    let dir = Setup::new()
        .settings("listen = \"127.0.0.1:0\"")
        .account(&format!("forward = \"{}/wx?k=hidden7\"", webhook.origin()))
        .written();
    let mut running = Running::start(aviary(dir.path(), &["serve"]));
    running.line(&format!("Account `main` sends on to {}/wx what no plugin answers", webhook.origin())).await;
    let finished = finish(aviary(dir.path(), &["status"])).await;
    assert!(finished.stdout.contains(&format!("  forward         {}/wx\n", webhook.origin())), "{}", finished.stdout);
    assert_eq!((finished.code, finished.stdout.contains("hidden7")), (Some(0), false), "{}", finished.stdout);
    let finished = finish(aviary(dir.path(), &["status", "--json"])).await;
    let status: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(status["accounts"][0]["forward"], format!("{}/wx", webhook.origin()));
}

/// Nobody else notices: the host answers, and users read silence or an apology.
#[tokio::test]
async fn status_needs_a_person_while_the_webhook_fails_and_not_for_one_bad_reply() {
    let webhook = Upstream::plain(|request| match request {
        down if down.contains("down") => {
            Answer::Bytes(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_vec())
        }
        odd if odd.contains("odd") => ok("", "<xml><MsgType>text</MsgType><Content></Content></xml>"),
        _ => ok("", "success"),
    })
    .await;
    let bot = in_front_of(&format!("{}/wx", webhook.origin()), "").await;
    let socket = Socket::bind(&bot.dir().join("data")).unwrap();
    tokio::spawn(control::run(bot.app.clone(), socket));
    let status = async || finish(aviary(bot.dir(), &["status"])).await;
    assert_eq!(status().await.code, Some(0), "nothing is known of it yet");

    bot.says("down").await;
    bot.says("down again").await;
    // What it did does not depend on when the settings were saved.
    let file = bot.dir().join("aviary.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{settings}\n[plugins.parrot.env]\nA = \"b\"\n")).unwrap();
    bot.app.reload().await;
    let told = status().await;
    let (before, after) = told.stdout.split_once("wrong: `forward` has failed for ").expect("it is told");
    assert!(before.contains(&format!("  forward         {}/wx\n", webhook.origin())), "{}", told.stdout);
    let why = " s, at the last 2 messages: it answered with status 502 Bad Gateway; its own log should say why; the next one that \
               it answers ends this\n";
    assert!(after.contains(why) && told.code == Some(1), "{}", told.stdout);

    bot.says("odd").await;
    assert_eq!(status().await.code, Some(0), "it is there again");
}
