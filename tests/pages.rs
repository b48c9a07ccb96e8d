//! Pages that a plugin serves, beside the bot that it is: over real HTTP, with the visitor's browser played.

use std::sync::LazyLock;

use aviary_wechat::signature::sign_jssdk;
use serde_json::{Value, json};

use crate::{
    bot::{Bot, Setup, binary},
    fake_authorize::{Asked, FakeAuthorize, OPENID},
    fake_wechat::{APP_ID, APP_SECRET},
    http::Response,
    nested_cargo,
    plugins::{ECHO, workspace},
    visitor::{DOMAIN, Visitor},
};

/// The example: a page with a button, and a bot that says how often it was pressed.
pub static CHECK_IN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = workspace().join("examples/check-in-rs");
    let target_dir =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below target").join("wasm");
    let built = nested_cargo::build(&dir, &["check-in-rs"], "wasm32-wasip2", &target_dir);
    let file = built.unwrap_or_else(|error| panic!("the example was not built: {error}")).remove(0);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{} was not read: {error}", file.display()))
});

const PAGE: &str = "/pages/main/check-in/";

async fn start(wechat: &FakeAuthorize, settings: &str) -> Bot {
    let account = format!(
        "app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{}\"\noauth.domains = [\"{DOMAIN}\"]",
        wechat.base_url
    );
    let setup = Setup::new().compiler(binary()).plugin("10-check-in.wasm", &CHECK_IN).plugin("20-echo.wasm", &ECHO);
    setup.account(&account).settings(settings).start().await
}

const GRANTED: &str = "[plugins.check-in.grants]\nkv = true\npages = true";

fn html(response: &Response) -> &str {
    std::str::from_utf8(&response.body).expect("pages are UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_leads_back_from_the_login_to_what_was_asked_for() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = Visitor::new(&bot.origin);
    let login = visitor.get(&format!("{PAGE}?from=menu&to=/%E5%BA%97")).await;
    let login = login.header("location").trim_start_matches("https://shop.example.com");
    assert_eq!(login, "/oauth/main/login?to=/pages/main/check-in/%3Ffrom%3Dmenu%26to%3D/%25E5%25BA%2597");
    let wechat = visitor.get(login).await;
    let back = visitor.get(&Asked::read(wechat.header("location")).agreed("base-1")).await;
    assert_eq!(back.header("location"), "https://shop.example.com/pages/main/check-in/?from=menu&to=/%E5%BA%97");
}

/// A visitor who followed the page's own way to the login and back.
async fn signed_in(bot: &Bot, code: &str) -> Visitor {
    let mut visitor = Visitor::new(&bot.origin);
    let login = visitor.get(PAGE).await;
    assert_eq!(
        (login.status, login.header("location")),
        (302, "https://shop.example.com/oauth/main/login?to=/pages/main/check-in/"),
        "{login:?}"
    );
    let wechat = visitor.get(login.header("location").trim_start_matches("https://shop.example.com")).await;
    let back = visitor.get(&Asked::read(wechat.header("location")).agreed(code)).await;
    assert_eq!(back.header("location"), "https://shop.example.com/pages/main/check-in/");
    visitor
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_its_bot_share_what_they_count() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = signed_in(&bot, "base-1").await;
    assert!(html(&visitor.get(PAGE).await).contains("您签到 0 次"));
    for _ in 0..2 {
        let pressed = visitor.post(PAGE, "").await;
        assert_eq!(
            (pressed.status, pressed.header("location")),
            (303, "https://shop.example.com/pages/main/check-in/"),
            "{pressed:?}"
        );
    }
    assert!(html(&visitor.get(PAGE).await).contains("您签到 2 次"));
    // The bot is asked by another user, who did not press.
    assert_eq!(bot.says("签到").await, "您签到 0 次，大家一共 2 次。");
    // What is not its own goes to the next plugin.
    assert_eq!(bot.says("你好").await, "你好");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_is_who_the_host_says_and_nobody_can_say_otherwise() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut stranger = Visitor::new(&bot.origin);
    for name in ["Aviary-Openid", "aviary-openid", "AVIARY-OPENID", "Aviary_Openid"] {
        let response = stranger.send("GET", PAGE, &[(name, OPENID)], "").await;
        assert_eq!(response.status, 302, "{name}: {response:?}");
    }
    let mut visitor = signed_in(&bot, "base-1").await;
    visitor.post(PAGE, "").await;
    let mine = visitor.send("GET", PAGE, &[("Aviary-Openid", "oSomebodyElse"), ("aviary-openid", "o2")], "").await;
    assert!(html(&mine).contains("您签到 1 次"), "{}", html(&mine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_no_scripts_and_stands_in_no_frame() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let page = signed_in(&bot, "base-1").await.get(PAGE).await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert!(policy.contains("form-action https://shop.example.com/pages/main/check-in/;"), "{policy}");
    assert_eq!((page.header("x-frame-options"), page.header("cache-control")), ("DENY", "no-store"));
    assert_eq!((page.header("x-content-type-options"), page.header("x-dns-prefetch-control")), ("nosniff", "off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_acts_in_a_visitors_name() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = signed_in(&bot, "base-1").await;
    for origin in ["https://evil.example", "https://a.shop.example.com", "null"] {
        assert_eq!(visitor.send("POST", PAGE, &[("Origin", origin)], "").await.status, 403, "{origin}");
    }
    assert_eq!(visitor.send("POST", PAGE, &[], "").await.status, 403);
    assert!(html(&visitor.get(PAGE).await).contains("您签到 0 次"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_by_plugins_that_have_some_and_may() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, "[plugins.check-in.grants]\nkv = true\n[plugins.echo.grants]\npages = true").await;
    let mut visitor = Visitor::new(&bot.origin);
    for path in [PAGE, "/pages/main/echo/", "/pages/main/nobody/", "/pages/other/check-in/", "/pages/main/", "/pages/"]
    {
        assert_eq!(visitor.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_one_address_and_requests_to_it_have_bounds() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, &format!("{GRANTED}\n[pages]\nbody_bytes_max = 10")).await;
    let mut visitor = Visitor::new(&bot.origin);
    let slash = visitor.get("/pages/main/check-in").await;
    assert_eq!((slash.status, slash.header("location")), (308, PAGE));
    assert_eq!(visitor.post(PAGE, "12345678901").await.status, 413);
    assert_eq!(visitor.send("OPTIONS", PAGE, &[], "").await.status, 405);
    assert_eq!(visitor.send("GET", PAGE, &[("Host", "evil.example")], "").await.status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_served_is_counted() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat, GRANTED).await;
    let mut visitor = signed_in(&bot, "base-1").await;
    assert_eq!(visitor.get(PAGE).await.status, 200);
    let metrics = bot.app.metrics();
    assert!(metrics.contains("outcome=\"served\"} 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_ours_is_signed_for_the_js_sdk_with_a_ticket_that_is_fetched_once() {
    let wechat = FakeAuthorize::start().await;
    wechat.says("/cgi-bin/stable_token", json!({ "access_token": "token7", "expires_in": 7200 }));
    wechat.says("/cgi-bin/ticket/getticket", json!({ "errcode": 0, "ticket": "ticket-7", "expires_in": 7200 }));
    let bot = start(&wechat, "").await;
    let mut visitor = Visitor::new(&bot.origin);
    let url = "https://shop.example.com/pages/main/check-in/?a=b";
    let target = "/jssdk/main?url=https%3A%2F%2Fshop.example.com%2Fpages%2Fmain%2Fcheck-in%2F%3Fa%3Db";
    for _ in 0..2 {
        let signed = visitor.get(target).await;
        let json: Value = serde_json::from_slice(&signed.body).unwrap();
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
        assert_eq!(text("appId"), APP_ID);
        assert_eq!(text("signature"), sign_jssdk("ticket-7", &text("nonceStr"), &text("timestamp"), url));
    }
    for (url, status) in [("https%3A%2F%2Fevil.example%2F", 400), ("%2Fa", 400), ("", 400)] {
        assert_eq!(visitor.get(&format!("/jssdk/main?url={url}")).await.status, status, "{url}");
    }
    assert_eq!(visitor.send("GET", target, &[("Sec-Fetch-Site", "cross-site")], "").await.status, 403);
    assert!(!visitor.seen.contains("ticket-7") && !visitor.seen.contains("token7"));
    assert_eq!(wechat.calls(), ["/cgi-bin/stable_token", "/cgi-bin/ticket/getticket"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_wechat_refuses_is_not_asked_for_again_by_each_visitor() {
    let wechat = FakeAuthorize::start().await;
    wechat.says("/cgi-bin/stable_token", json!({ "access_token": "token7", "expires_in": 7200 }));
    wechat.says("/cgi-bin/ticket/getticket", json!({ "errcode": 48001, "errmsg": "api unauthorized" }));
    let bot = start(&wechat, "").await;
    let mut visitor = Visitor::new(&bot.origin);
    for _ in 0..3 {
        assert_eq!(visitor.get("/jssdk/main?url=https%3A%2F%2Fshop.example.com%2F").await.status, 502);
    }
    assert_eq!(wechat.calls(), ["/cgi-bin/stable_token", "/cgi-bin/ticket/getticket"]);
}
