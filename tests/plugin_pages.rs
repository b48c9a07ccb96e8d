//! Pages of plugins that are good and bad at it, and visitors who want more than they may.

use std::time::Duration;

use serde_json::json;
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{
    bot::{Bot, PATIENCE, Setup},
    fake_authorize::{Asked, FakeAuthorize, OPENID},
    fake_wechat::{APP_ID, APP_SECRET},
    http::{Connection, Response, encoded},
    plugins::PAGER,
    visitor::{DOMAIN, Visitor},
};

const GRANTED: &str = "[plugins.pager.grants]\nkv = true\npages = true";

async fn start(wechat: &FakeAuthorize, settings: &str) -> Bot {
    let account = format!(
        "app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{}\"\noauth.domains = [\"{DOMAIN}\"]",
        wechat.base_url
    );
    Setup::new().plugin("10-pager.wasm", &PAGER).account(&account).settings(settings).start().await
}

/// Where the plugin obeys an order.
fn page(order: &str) -> String {
    format!("/pages/main/pager/{order}")
}

async fn signed_in(bot: &Bot) -> Visitor {
    let mut visitor = Visitor::new(&bot.origin);
    let wechat = visitor.get("/oauth/main/login").await;
    let back = visitor.get(&Asked::read(wechat.header("location")).agreed("base-1")).await;
    assert_eq!(back.status, 303);
    visitor
}

fn body(response: &Response) -> &str {
    std::str::from_utf8(&response.body).expect("it is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_told_who_the_visitor_is_and_no_cookie_or_header_of_theirs() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = signed_in(&bot).await;
    let forged =
        [("Aviary-Unionid", "u"), ("X-Forwarded-For", "10.0.0.1"), ("Authorization", "x"), ("Accept", "text/x")];
    let told = visitor.send("GET", &page("told?code=7"), &forged, "").await;
    let mut lines: Vec<&str> = body(&told).lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "accept: text/x",
            &format!("authority: {DOMAIN}"),
            "aviary-account: main",
            "aviary-base: /pages/main/pager/",
            &format!("aviary-openid: {OPENID}"),
            "aviary-scope: snsapi_base",
            "method: Method::Get",
        ]
    );
    // An address with a name in it: the plugin hears the one of the header, which was checked.
    let absolute = format!("https://evil.example{}", page("told"));
    let told = visitor.send("GET", &absolute, &[], "").await;
    assert!(!body(&told).contains("evil.example"), "{}", body(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_leads_a_visitors_form_to_another_plugin_makes_no_page() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = signed_in(&bot).await;
    let to = |status: u16, location: &str| page(&format!("say?status={status}&location={}", encoded(location)));
    let own = visitor.post(&to(307, "told"), "a=b").await;
    assert_eq!((own.status, own.header("location")), (307, "https://shop.example.com/pages/main/pager/told"));
    for location in ["/me/main/sign-out", "/pages/main/bank/transfer", "https://evil.example/"] {
        assert_eq!(visitor.post(&to(307, location), "a=b").await.status, 502, "{location}");
    }
    // As a link it is one.
    assert_eq!(visitor.post(&to(303, "/me/main"), "a=b").await.status, 303);
    let cookie = visitor.get(&page("say?status=200&set-cookie=__Host-session-main%3Dx&body=hi")).await;
    assert_eq!((cookie.status, cookie.header("set-cookie"), body(&cookie)), (200, "", "hi"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_is_told_to_the_visitor_in_their_language_and_counted() {
    let wechat = FakeAuthorize::start().await;
    let bot =
        start(&wechat, &format!("[pages]\nanswer_bytes_max = 2000\n{GRANTED}\n[plugins.pager.limits]\ncpu_ms = 50\n[quarantine]\nfailures = 0"))
            .await;
    let mut visitor = Visitor::new(&bot.origin);
    let long = "secret".repeat(10_000);
    let refuse = format!("refuse?text={}", &long[..4_000]);
    for (order, outcome) in [
        ("trap", "trap"),
        ("loop", "cpu"),
        ("silent", "refused"),
        ("half", "trap"),
        ("large?bytes=2001", "refused"),
        (&refuse, "refused"),
        ("say?status=101", "refused"),
    ] {
        let response = visitor.send("GET", &page(order), &[("Accept-Language", "en")], "").await;
        assert_eq!(response.status, 502, "{order}: {response:?}");
        assert!(body(&response).contains("The page cannot be shown"), "{order}: {}", body(&response));
        assert!(!body(&response).contains("secret"), "{order}");
        assert!(
            bot.app.metrics().contains(&format!("plugin=\"pager\",outcome=\"{outcome}\"")),
            "{order}: {}",
            bot.app.metrics()
        );
    }
    assert_eq!(visitor.get(&page("large?bytes=2000")).await.body.len(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_keeps_failing_is_left_alone_and_the_bot_goes_on() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, &format!("[quarantine]\nusers_min = 1\nfailures = 2\nback_off_s = 600\n{GRANTED}")).await;
    let mut visitor = Visitor::new(&bot.origin);
    for _ in 0..2 {
        assert_eq!(visitor.get(&page("trap")).await.status, 502);
    }
    let alone = visitor.get(&page("told")).await;
    assert_eq!(alone.status, 503);
    assert!(body(&alone).contains("页面暂时无法显示"), "{}", body(&alone));
    let out = |part: &str| format!("aviary_plugin_quarantined{{account=\"main\",plugin=\"pager\",part=\"{part}\"}}");
    let metrics = bot.app.metrics();
    assert!(metrics.contains(&(out("pages") + " 1\n")) && metrics.contains(&(out("bot") + " 0\n")), "{metrics}");
    assert_eq!(bot.says("你好").await, "你好");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_hang_in_all_their_places_make_no_message_wait() {
    let wechat = FakeAuthorize::start().await;
    let hanging = "[plugins.pager.limits]\ncalls_max = 1\ncpu_ms = 60000\nwait_ms = 0";
    let bot = start(&wechat, &format!("[pages]\ntimeout_ms = 60000\n{GRANTED}\n{hanging}")).await;
    let mut first = Connection::open(&bot.origin).await;
    first.send(format!("GET {} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n", page("loop"))).await;
    let runs = async {
        while !bot.app.metrics().contains("\naviary_guests_running 1\n") {
            yield_now().await;
        }
    };
    timeout(PATIENCE, runs).await.expect("the page is being made");
    assert_eq!(Visitor::new(&bot.origin).get(&page("told")).await.status, 502, "its pages have no place left");
    assert_eq!(bot.says("你好").await, "你好");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_sends_slowly_does_not_make_the_plugin_guilty() {
    let wechat = FakeAuthorize::start().await;
    let bot =
        start(&wechat, &format!("[pages]\ntimeout_ms = 2000\n[quarantine]\nusers_min = 1\nfailures = 1\n{GRANTED}"))
            .await;
    let mut connection = Connection::open(&bot.origin).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {DOMAIN}\r\nOrigin: https://{DOMAIN}\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
        page("count?ms=900")
    );
    connection.send(head).await;
    // What a stranger does: the last byte comes when little time is left.
    sleep(Duration::from_millis(1_500)).await;
    connection.send("x").await;
    let late = connection.answer().await;
    assert_ne!(late.status, 200, "{late:?}");
    assert_eq!(Visitor::new(&bot.origin).get(&page("told")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn per_user_is_about_who_is_signed_in() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, &format!("[plugins.pager]\nper_user = \"1/1h\"\n{GRANTED}")).await;
    let mut visitor = signed_in(&bot).await;
    assert_eq!(visitor.get(&page("told")).await.status, 200);
    let often = visitor.get(&page("told")).await;
    assert_eq!(often.status, 429);
    assert!(body(&often).contains("操作太频繁"), "{}", body(&often));
    // Strangers are not one user together.
    for _ in 0..2 {
        assert_eq!(Visitor::new(&bot.origin).get(&page("told")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_also_if_its_length_was_not_said() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, &format!("[pages]\nbody_bytes_max = 10\n{GRANTED}")).await;
    let mut visitor = Visitor::new(&bot.origin);
    assert_eq!(body(&visitor.post(&page("length"), "1234567890").await), "10");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {DOMAIN}\r\nOrigin: https://{DOMAIN}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        page("length")
    );
    for (chunks, status) in [("6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n", 413), ("6\r\n123456\r\n0\r\n\r\n", 200)] {
        let mut connection = Connection::open(&bot.origin).await;
        connection.send(format!("{head}{chunks}")).await;
        assert_eq!(connection.answer().await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_without_a_meaning_is_told_which_have_one() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = Visitor::new(&bot.origin);
    for (method, path, allowed) in [
        ("OPTIONS", page("told"), "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("GET", "/me/main/sign-out".to_owned(), "POST"),
        ("POST", "/me/main.json".to_owned(), "GET"),
    ] {
        let response = visitor.send(method, &path, &[], "").await;
        assert_eq!((response.status, response.header("allow")), (405, allowed), "{method} {path}");
    }
    let head = visitor.send("HEAD", &page("told"), &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("content-length"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_nobody_waits_for_any_more_is_made_to_its_end_and_counted() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let visitor = signed_in(&bot).await;
    let session = &visitor.cookies["__Host-session-main"];
    let mut connection = Connection::open(&bot.origin).await;
    let target = page("count?ms=300");
    connection
        .send(format!("GET {target} HTTP/1.1\r\nHost: {DOMAIN}\r\nCookie: __Host-session-main={session}\r\n\r\n"))
        .await;
    // The call began once the plugin has a place in the pool; then the visitor goes away.
    let running = async {
        while bot.app.tasks.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        drop(connection);
        while !bot.app.metrics().contains("outcome=\"served\"} 1") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, running).await.expect("it is counted");
    assert_eq!(bot.says_as(OPENID, "计数").await, "计数 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_the_grants_of_its_bot_for_the_visitor_who_is_signed_in() {
    let wechat = FakeAuthorize::start().await;
    wechat.says("/cgi-bin/stable_token", json!({ "access_token": "token7", "expires_in": 7200 }));
    wechat.says("/cgi-bin/message/custom/send", json!({ "errcode": 0, "errmsg": "ok" }));
    wechat.says("/cgi-bin/user/info", json!({ "subscribe": 1 }));
    let grants = "customer_service = \"sender\"\nwechat_api = [\"GET /cgi-bin/user/info\"]";
    let bot = start(&wechat, &format!("{GRANTED}\n{grants}")).await;
    let mut visitor = signed_in(&bot).await;
    assert_eq!(body(&visitor.get(&page("send")).await), "Ok(())");
    assert_eq!(body(&visitor.get(&page("call")).await), "Ok(\"{\\\"subscribe\\\":1}\")");
    let stranger = Visitor::new(&bot.origin).get(&page("send")).await;
    assert!(body(&stranger).contains("Denied"), "{}", body(&stranger));
}
