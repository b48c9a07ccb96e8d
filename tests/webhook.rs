//! What WeChat, and whoever else finds the URL, is answered in plain mode: the rows of the answer table.

use std::time::{Duration, Instant};

use aviary_host::{
    conversation::{Answer, Said, Signed},
    webhook::SUCCESS,
};
use tokio::{task::yield_now, time::timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, TOKEN, new_header},
    http::{self, Connection, Response, ask, encoded, get, new_nonce, now_s, post, signed, signed_at, signed_with},
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT},
};

/// A bot that echoes, on the path `/`.
async fn echo() -> Bot {
    Setup::new().plugin("20-echo.wasm", &ECHO).start().await
}

/// A bot that does what a text tells it.
fn obedient() -> Setup {
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE)
}

/// A push that nobody sent before: a user says `words`, in the notation of conversation files.
fn said(words: &str) -> String {
    Said::parse(words).unwrap().to_xml(&new_header())
}

/// Pushes `body` to the path `/`, and lets WeChat read the answer.
async fn push_with(bot: &Bot, query: &str, body: &str) -> Response {
    post(&bot.origin, &format!("/?{query}"), body).await
}

/// Asserts that the caller learns nothing but the status.
fn assert_refused(response: &Response, status: u16, why: &str) {
    assert_eq!(response.told(), (status, ""), "{why}");
}

/// Asserts that the host still answers its users.
async fn assert_serves(bot: &Bot) {
    assert_eq!(bot.says("say still here").await.trim_start_matches("say "), "still here");
}

/// Waits until so many messages are with the plugins.
async fn in_flight(bot: &Bot, count: usize) {
    let waiting = async {
        while bot.app.tasks.len() != count {
            yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("they get there in time");
}

// GET

#[tokio::test]
async fn the_url_check_gets_its_echostr_back_byte_for_byte_and_as_plain_text() {
    let bot = echo().await;
    for echostr in ["5833258582299191661", "<script>alert(1)</script>", " a+b%20c&d=e ", "鸟🦜\r\n"] {
        let response = get(&bot.origin, &format!("/?{}&echostr={}", signed(), encoded(echostr))).await;
        assert_eq!((response.status, response.body.as_slice()), (200, echostr.as_bytes()));
        assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(response.header("content-length"), echostr.len().to_string());
    }
}

#[tokio::test]
async fn a_person_who_opens_the_url_reads_two_lines_that_explain_it() {
    let bot = echo().await;
    for target in ["/", "/?", "/?from=singlemessage"] {
        let response = get(&bot.origin, target).await;
        let lines = "这是公众号接口地址，只有微信服务器能使用；能看到这行字，说明网络已经通了。\n\
                     This URL is for WeChat's servers only; that you can read this line shows that the network works.\n";
        assert_eq!(response.told(), (403, lines), "{target}");
        assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn a_signed_get_without_an_echostr_is_no_url_check() {
    let bot = echo().await;
    assert_refused(&get(&bot.origin, &format!("/?{}", signed())).await, 400, "no echostr");
    assert_refused(&get(&bot.origin, &format!("/?{}&echostr[]=1", signed())).await, 400, "a list of them");
}

// Signature

#[tokio::test]
async fn a_wrong_signature_is_refused_without_a_word() {
    let bot = echo().await;
    let (timestamp, nonce) = (now_s().to_string(), new_nonce());
    let good = aviary_wechat::signature::sign(TOKEN, &timestamp, &nonce);
    let foreign = aviary_wechat::signature::sign("othertoken", &timestamp, &nonce);
    let wrong =
        [foreign, good.to_uppercase(), good[..39].to_owned(), format!("{good}0"), format!(" {good}"), String::new()];
    for signature in &wrong {
        let query = format!("signature={}&timestamp={timestamp}&nonce={nonce}", encoded(signature));
        let check = get(&bot.origin, &format!("/?{query}&echostr=1")).await;
        assert_refused(&check, 403, signature);
        assert_refused(&push_with(&bot, &query, &said("hi")).await, 403, signature);
    }
    let query = format!("signature={good}&timestamp={timestamp}&nonce={nonce}");
    assert_eq!(get(&bot.origin, &format!("/?{query}&echostr=1")).await.told(), (200, "1"));
    assert_eq!(push_with(&bot, &query, &said("hi")).await.status, 200);
}

#[tokio::test]
async fn each_parameter_has_to_be_there_exactly_once() {
    let bot = echo().await;
    let good = |name: &str| -> (String, Vec<String>) {
        let (named, others): (Vec<_>, Vec<_>) =
            signed().split('&').map(str::to_owned).partition(|pair| pair.starts_with(&format!("{name}=")));
        (named.concat(), others)
    };
    for name in ["signature", "timestamp", "nonce"] {
        let (pair, others) = good(name);
        let value = pair.split_once('=').expect("it is a pair").1.to_owned();
        let others = others.join("&");
        for query in [
            others.clone(),
            format!("{others}&{name}"),
            format!("{others}&{name}="),
            format!("{others}&{pair}&{pair}"),
            format!("{pair}&{others}&{name}=1"),
            format!("{others}&{name}[]={value}"),
            format!("{others}&{name}[0]={value}"),
            format!("{others}&{}={value}", name.to_uppercase()),
        ] {
            assert_refused(&get(&bot.origin, &format!("/?{query}&echostr=1")).await, 403, &query);
            assert_refused(&push_with(&bot, &query, &said("hi")).await, 403, &query);
        }
    }
    assert_refused(&push_with(&bot, "", &said("hi")).await, 403, "no query");
    assert_refused(&push_with(&bot, "signature[]=a&timestamp=1&nonce=2", &said("hi")).await, 403, "lists");
    assert_serves(&bot).await;
}

#[tokio::test]
async fn a_timestamp_is_a_number_and_nothing_else() {
    let bot = echo().await;
    let now = now_s();
    for timestamp in
        [format!("+{now}"), format!(" {now}"), format!("{now}.0"), format!("-{now}"), "now".into(), "9".repeat(40)]
    {
        let nonce = new_nonce();
        let signature = aviary_wechat::signature::sign(TOKEN, &timestamp, &nonce);
        let query = format!("signature={signature}&timestamp={}&nonce={nonce}", encoded(&timestamp));
        assert_refused(&push_with(&bot, &query, &said("hi")).await, 403, &timestamp);
    }
}

#[tokio::test]
async fn what_was_signed_too_long_ago_or_too_far_ahead_is_refused() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).account("signature_max_age_s = 300").start().await;
    for (timestamp, status) in
        [(now_s() - 290, 200), (now_s() + 290, 200), (now_s() - 310, 403), (now_s() + 600, 403), (0, 403)]
    {
        let check = get(&bot.origin, &format!("/?{}&echostr=1", signed_at(timestamp))).await;
        assert_eq!(check.status, status, "{timestamp}");
        assert_eq!(push_with(&bot, &signed_at(timestamp), &said("hi")).await.status, status, "{timestamp}");
    }
}

#[tokio::test]
async fn an_account_may_accept_signatures_of_any_age() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).account("signature_max_age_s = 0").start().await;
    for timestamp in [1, now_s() - 86_400, now_s() + 86_400] {
        assert_eq!(get(&bot.origin, &format!("/?{}&echostr=1", signed_at(timestamp))).await.told(), (200, "1"));
        assert_eq!(push_with(&bot, &signed_at(timestamp), &said("hi")).await.status, 200);
    }
}

#[tokio::test]
async fn one_signature_is_good_for_one_message_and_its_retries() {
    let bot = echo().await;
    let (query, message) = (signed(), said("mine"));
    let first = push_with(&bot, &query, &message).await;
    assert_eq!(first.status, 200);
    for forged in [said("forged"), said("[CLICK forged]"), message.replace("[oUser]", "[oVictim]")] {
        assert_refused(&push_with(&bot, &query, &forged).await, 403, &forged);
    }
    let retry = push_with(&bot, &query, &message).await;
    assert_eq!((retry.status, content(&retry)), (200, "mine"));
    // WeChat may as well sign a retry anew.
    assert_eq!(content(&push_with(&bot, &signed(), &message).await), "mine");
}

/// The text of a reply.
fn content(response: &Response) -> &str {
    let (_, body) = response.told();
    let (_, rest) = body.split_once("<Content><![CDATA[").unwrap_or_else(|| panic!("{body} is no text"));
    rest.split_once("]]></Content>").expect("it ends").0
}

// Request

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_is_sent() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).settings("[listener]\nbody_bytes_max = 1024").start().await;
    let filled = |bytes: usize| {
        let message = said("FILL");
        let fill = "x".repeat(bytes + "FILL".len() - message.len());
        (message.replace("FILL", &fill), fill)
    };
    let (most, fill) = filled(1024);
    assert_eq!(content(&push_with(&bot, &signed(), &most).await), fill);
    let (larger, _) = filled(1025);
    assert_refused(&push_with(&bot, &signed(), &larger).await, 413, "one byte more");

    let head = |query: &str| {
        format!("POST /?{query} HTTP/1.1\r\nHost: bot\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    };
    for (body, status) in [(filled(1024).0, 200), (filled(1025).0, 413)] {
        let mut connection = Connection::open(&bot.origin).await;
        let (early, late) = body.split_at(600);
        let (early_length, late_length) = (early.len(), late.len());
        connection.send(head(&signed())).await;
        connection.send(format!("{early_length:x}\r\n{early}\r\n{late_length:x}\r\n{late}\r\n0\r\n\r\n")).await;
        assert_eq!(connection.answer().await.status, status, "chunked");
    }
    assert_refused(&push_with(&bot, "signature=x&timestamp=1&nonce=2", &larger).await, 403, "not even signed");
}

#[tokio::test]
async fn other_methods_are_told_which_ones_there_are() {
    let bot = echo().await;
    for method in ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
        let response = ask(&bot.origin, method, &format!("/?{}&echostr=1", signed())).await;
        assert_refused(&response, 405, method);
        assert_eq!(response.header("allow"), "GET, POST", "{method}");
    }
}

#[tokio::test]
async fn a_path_is_an_accounts_with_and_without_a_slash_at_its_end_and_no_other_is() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).account("path = \"/wx/\"").start().await;
    for path in ["/wx", "/wx/"] {
        assert_eq!(get(&bot.origin, &format!("{path}?{}&echostr=1", signed())).await.told(), (200, "1"), "{path}");
        assert_eq!(content(&post(&bot.origin, &format!("{path}?{}", signed()), &said("hi")).await), "hi", "{path}");
    }
    for path in ["/", "/wx/other", "/wxx", "/w", "/WX", "/%77x"] {
        assert_refused(&get(&bot.origin, &format!("{path}?{}&echostr=1", signed())).await, 404, path);
        assert_refused(&post(&bot.origin, &format!("{path}?{}", signed()), &said("hi")).await, 404, path);
    }
}

#[tokio::test]
async fn a_path_or_a_method_of_a_strangers_is_one_short_line_in_the_log() {
    let log = Log::capture();
    let bot = Setup::new().account("path = \"/wx\"").start().await;
    let long = "x".repeat(4_000);
    assert_eq!(get(&bot.origin, &format!("/\u{202e}\u{2028}{long}")).await.status, 404);
    assert_eq!(ask(&bot.origin, &long, "/wx").await.status, 405);
    for (words, length) in [("has the path", 197), ("the method", 200)] {
        let lines = log.lines(words);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(
            line.matches('x').count(),
            length + line.replace(&long[..length], "").matches('x').count(),
            "{line}"
        );
        assert!(!line.contains(&long[..201]) && !line.contains('\u{202e}') && !line.contains('\u{2028}'), "{line}");
    }
}

#[tokio::test]
async fn accounts_have_their_own_paths_tokens_and_plugins() {
    let bot = Setup::new()
        .plugin("20-echo.wasm", &ECHO)
        .file("birds/10-parrot.wasm", &*PARROT)
        .settings("[accounts.other]\npath = \"/other\"\ntoken = \"othertoken\"\nplugins_dir = \"birds\"\nchain = [\"parrot\"]")
        .start()
        .await;
    let to = async |path: &str, token: &str| {
        post(&bot.origin, &format!("{path}?{}", signed_with(token, now_s())), &said("hi")).await
    };
    assert_eq!(content(&to("/", TOKEN).await), "hi");
    assert_eq!(content(&to("/other", "othertoken").await), "鹦鹉：hi");
    assert_refused(&to("/other", TOKEN).await, 403, "another account's token");
    assert_refused(&to("/", "othertoken").await, 403, "another account's token");

    let message = said("to both");
    let twice = async |path: &str, token: &str| {
        post(&bot.origin, &format!("{path}?{}", signed_with(token, now_s())), &message).await
    };
    assert_eq!(content(&twice("/", TOKEN).await), "to both");
    assert_eq!(content(&twice("/other", "othertoken").await), "鹦鹉：to both", "an account has its own retries");
}

#[tokio::test]
async fn a_push_for_nobody_is_received_and_reaches_no_plugin() {
    let log = Log::capture();
    let bot = echo().await;
    let pushes = [
        "<xml><AppId>wx1</AppId><CreateTime>1</CreateTime><InfoType>component_verify_ticket</InfoType></xml>",
        "<xml><action>CheckContainerPath</action></xml>",
        "<xml><ToUserName>gh</ToUserName><CreateTime>1</CreateTime><MsgType>text</MsgType><Content>x</Content></xml>",
        "<xml><FromUserName>o</FromUserName><CreateTime>1</CreateTime><MsgType>text</MsgType><Content>x</Content></xml>",
    ];
    for push in pushes {
        let response = push_with(&bot, &signed(), push).await;
        assert_eq!(response.told(), (200, SUCCESS), "{push}");
        assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(log.lines("to a push for nobody").len(), pushes.len());
    assert_eq!(log.dispatched(), 0);
}

// Answer

#[tokio::test]
async fn a_reply_is_exactly_the_xml_that_wechat_reads() {
    let bot = echo().await;
    let push = "<xml><ToUserName><![CDATA[gh_bird]]></ToUserName><FromUserName><![CDATA[oBird]]></FromUserName>\
                <CreateTime>1348831860</CreateTime><MsgType><![CDATA[text]]></MsgType>\
                <Content><![CDATA[你好 <b>&amp;]]></Content><MsgId>1234567890123456</MsgId></xml>";
    let earliest = now_s();
    let response = push_with(&bot, &signed(), push).await;
    let expected = |create_time: u64| {
        format!(
            "<xml><ToUserName><![CDATA[oBird]]></ToUserName><FromUserName><![CDATA[gh_bird]]></FromUserName>\
             <CreateTime>{create_time}</CreateTime><MsgType><![CDATA[text]]></MsgType>\
             <Content><![CDATA[你好 <b>&amp;]]></Content></xml>"
        )
    };
    let (status, body) = response.told();
    assert_eq!(status, 200);
    assert!((earliest..=now_s()).any(|create_time| body == expected(create_time)), "{body}");
    assert_eq!(response.header("content-type"), "text/xml; charset=utf-8");
    assert_eq!(response.header("content-length"), body.len().to_string());
}

#[tokio::test]
async fn silence_is_the_word_success() {
    let bot = obedient().start().await;
    for words in ["nothing", "pass", "fail on purpose", "[unsubscribe]"] {
        let response = push_with(&bot, &signed(), &said(words)).await;
        assert_eq!(response.told(), (200, "success"), "{words}");
        assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(response.header("content-length"), "7");
    }
}

// Time

#[tokio::test]
async fn a_retry_joins_the_first_try() {
    let log = Log::capture();
    let bot = obedient().start().await;
    let push = bot.simulator.sign(&said("wait 300")).unwrap();
    let first = spawn_send(&bot, &push);
    in_flight(&bot, 1).await;
    let again = bot.simulator.send(&push).await.unwrap();
    assert_eq!(bot.shown(&first.await.unwrap()), "waited");
    assert_eq!(bot.shown(&again), "waited");
    assert_eq!(log.dispatched(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_nothing_and_the_retry_gets_the_reply() {
    let log = Log::capture();
    let bot = obedient().start().await;
    let request = http::posted(&format!("/?{}", signed()), &said("wait 300"));
    let mut connection = Connection::open(&bot.origin).await;
    connection.send(&request).await;
    in_flight(&bot, 1).await;
    drop(connection);
    in_flight(&bot, 0).await;
    assert_eq!(log.lines("Plugin `misbehave` answered").len(), 1, "{:#?}", log.lines(""));

    let mut connection = Connection::open(&bot.origin).await;
    connection.send(&request).await;
    assert_eq!(content(&connection.answer().await), "waited");
    assert_eq!(log.dispatched(), 1);
}

#[tokio::test]
async fn the_window_closes_with_success_and_the_next_message_is_answered() {
    let log = Log::capture();
    let bot = obedient()
        .settings("[late]\nwindow_ms = 500\nhold_ms = 0\nbackground_ms = 0\nwaiting_text = \"\"")
        .start()
        .await;
    let answer = bot.push(&said("wait 10000")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"success"[..]));
    assert!(answer.elapsed >= Duration::from_millis(500), "{:?}", answer.elapsed);
    assert!(answer.elapsed < Duration::from_millis(4500), "the default window: {:?}", answer.elapsed);
    in_flight(&bot, 0).await;
    let failures = log.lines("Plugin `misbehave` failed: it gave no answer within");
    assert_eq!(failures.len(), 1, "{:#?}", log.lines(""));
    assert_eq!(bot.says("say next").await, "next");
}

#[tokio::test]
async fn before_the_plugins_are_loaded_the_url_check_is_answered_and_a_push_is_held() {
    // It is compiled here, so that it is loaded in no time below.
    echo().await.stop().await;

    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start_unloaded().await;
    let held = spawn_send(&bot, &bot.simulator.sign(&said("held")).unwrap());
    in_flight(&bot, 1).await;
    assert!(bot.simulator.check_url().await.unwrap().passed());
    assert!(!held.is_finished());
    bot.app.reload().await;
    assert_eq!(bot.shown(&held.await.unwrap()), "held");
}

#[tokio::test]
async fn a_push_is_held_no_longer_than_its_window() {
    let bot = Setup::new()
        .plugin("20-echo.wasm", &ECHO)
        .settings("[late]\nwindow_ms = 300\nhold_ms = 0\nbackground_ms = 0\nwaiting_text = \"\"")
        .start_unloaded()
        .await;
    assert_eq!(bot.says("never loaded").await, "");
    in_flight(&bot, 0).await;
}

#[tokio::test]
async fn a_host_that_stops_answers_what_is_in_flight_and_nothing_new() {
    let bot = obedient().start().await;
    let (simulator, mut connection) = (bot.simulator.clone(), Connection::open(&bot.origin).await);
    connection.send(http::posted(&format!("/?{}", signed()), &said("wait 500"))).await;
    in_flight(&bot, 1).await;
    bot.stop().await;
    assert_eq!(content(&connection.answer_at_once()), "waited");
    assert!(simulator.push(&said("say too late")).await.is_err());
}

#[tokio::test]
async fn a_host_that_stops_finishes_the_call_of_a_caller_who_is_gone() {
    let log = Log::capture();
    let bot = obedient().start().await;
    let mut connection = Connection::open(&bot.origin).await;
    connection.send(http::posted(&format!("/?{}", signed()), &said("wait 300"))).await;
    in_flight(&bot, 1).await;
    drop(connection);
    bot.stop().await;
    assert_eq!(log.dispatched(), 1);
}

#[tokio::test]
async fn a_caller_who_takes_too_long_over_the_header_is_hung_up_on() {
    let bot = Setup::new().settings("[listener]\nheader_timeout_ms = 200").start().await;
    for begun in ["", "POST /?signature=1 HTTP/1.1\r\nHost: bot\r\nX-Slow:"] {
        let start = Instant::now();
        let mut connection = Connection::open(&bot.origin).await;
        connection.send(begun).await;
        let said = connection.rest().await;
        assert_eq!(String::from_utf8_lossy(&said), "", "{begun:?}");
        assert!(start.elapsed() >= Duration::from_millis(200), "{begun:?}: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "the default: {:?}", start.elapsed());
    }
}

/// A request of WeChat's, after which the connection stays open.
fn kept() -> String {
    format!("GET /?{}&echostr=1 HTTP/1.1\r\nHost: bot\r\n\r\n", signed())
}

#[tokio::test]
async fn who_is_refused_does_not_keep_the_connection() {
    let bot = Setup::new().settings("[listener]\nidle_timeout_ms = 3600000").start().await;
    for request in ["GET / HTTP/1.1\r\nHost: bot\r\n\r\n", "PUT / HTTP/1.1\r\nHost: bot\r\n\r\n"] {
        let mut connection = Connection::open(&bot.origin).await;
        connection.send(request).await;
        assert_eq!(connection.answer().await.header("connection"), "close", "{request}");
    }
}

#[tokio::test]
async fn a_proxy_can_keep_a_connection_for_longer_than_a_header_may_take() {
    let bot = Setup::new().settings("[listener]\nheader_timeout_ms = 200").start().await;
    let mut kept = Connection::open(&bot.origin).await;
    kept.send(self::kept()).await;
    kept.listen().await;
    // Begun later and hung up on: so long has the other one been idle.
    Connection::open(&bot.origin).await.rest().await;
    kept.send(self::kept().replace("bot", "bot\r\nConnection: close")).await;
    let said = kept.rest().await;
    assert_eq!(String::from_utf8_lossy(&said).matches("HTTP/1.1 200").count(), 2);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_in_the_end() {
    let bot = Setup::new().settings("[listener]\nheader_timeout_ms = 60000\nidle_timeout_ms = 200").start().await;
    let mut kept = Connection::open(&bot.origin).await;
    let start = Instant::now();
    kept.send(self::kept()).await;
    assert_eq!(kept.answer().await.status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(60), "as if it had been a header: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_header_that_begins_on_a_kept_connection_may_take_no_longer_than_the_first() {
    let bot = Setup::new().settings("[listener]\nheader_timeout_ms = 200\nidle_timeout_ms = 3600000").start().await;
    let mut kept = Connection::open(&bot.origin).await;
    kept.send(self::kept()).await;
    kept.listen().await;
    kept.send(&self::kept()[..10]).await;
    assert_eq!(kept.answer().await.status, 200);
}

#[tokio::test]
async fn a_header_that_is_larger_than_any_of_wechats_is_refused() {
    let bot = Setup::new().settings("[listener]\nheader_bytes_max = 8192").start().await;
    for (filler, status) in [(4_000, 403), (10_000, 431)] {
        let mut connection = Connection::open(&bot.origin).await;
        let filler = "x".repeat(filler);
        connection
            .send(format!("GET / HTTP/1.1\r\nHost: bot\r\nConnection: close\r\nX-Filler: {filler}\r\n\r\n"))
            .await;
        assert_eq!(connection.answer().await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_reads_no_answer_does_not_hold_a_connection() {
    let bot = Setup::new().settings("[listener]\nconnections_max = 1").start().await;
    let mut hog = Connection::open(&bot.origin).await;
    let requests = kept().repeat(1_000);
    // Until its answers fill every buffer, or the host has hung up.
    while let Ok(()) = timeout(Duration::from_secs(1), hog.try_send(&requests)).await.unwrap_or(Err(())) {}
    assert_eq!(timeout(PATIENCE, http::get(&bot.origin, "/")).await.expect("the hog is gone").status, 403);
}

#[tokio::test]
async fn a_caller_who_takes_too_long_over_the_body_is_refused() {
    let bot = Setup::new().settings("[late]\nwindow_ms = 300").start().await;
    let mut connection = Connection::open(&bot.origin).await;
    let request = http::posted(&format!("/?{}", signed()), &said("hi"));
    connection.send(&request[..request.len() - 1]).await;
    assert_refused(&connection.answer().await, 400, "the last byte never comes");
}

/// Sends a push from a task of its own.
fn spawn_send(bot: &Bot, push: &Signed) -> tokio::task::JoinHandle<Answer> {
    let (simulator, push) = (bot.simulator.clone(), push.clone());
    tokio::spawn(async move { simulator.send(&push).await.unwrap_or_else(|error| panic!("{error}")) })
}
