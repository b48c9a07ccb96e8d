//! WeChat's API as the host calls it, against one that behaves like the real one.

use std::time::{Duration, Instant};

use aviary_host::api::{Api, ApiError, Method, customer_service::Content};
use tokio::task::JoinSet;

use crate::{
    bot::{Bot, PATIENCE, Setup},
    fake_wechat::{ACCESS_TOKEN, APP_SECRET, FakeWechat, SEND, STABLE_TOKEN, TYPING},
};

const USER_INFO: &str = "/cgi-bin/user/info";

/// A bot whose account uses this API.
async fn bot(wechat: &FakeWechat, settings: &str) -> Bot {
    Setup::new().account(&wechat.account()).settings(settings).start().await
}

fn api(bot: &Bot) -> Api {
    bot.app.live().named("main").expect("it is there").api.clone().expect("it has AppID and AppSecret")
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

#[tokio::test]
async fn a_message_is_sent_and_typing_shown() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    api(&bot).typing("oAnn", true, soon()).await.unwrap();
    api(&bot).send("oAnn", &text("你好"), soon()).await.unwrap();
    let sent = wechat.until_sent(1).await;
    assert_eq!(sent[0].to_string(), r#"{"msgtype":"text","text":{"content":"你好"},"touser":"oAnn"}"#);
    assert_eq!((wechat.count(TYPING), wechat.count(SEND), wechat.count(STABLE_TOKEN)), (1, 1, 1));
    assert!(wechat.calls().iter().skip(1).all(|call| call.access_token.as_deref() == Some(ACCESS_TOKEN)));
}

#[tokio::test]
async fn a_token_is_fetched_once_however_many_ask() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    let release = wechat.holds(STABLE_TOKEN);
    let mut calls = JoinSet::new();
    for number in 0..40 {
        let api = api(&bot);
        calls.spawn(async move { api.send(&format!("o{number}"), &text("hi"), soon()).await });
    }
    wechat.until_called(STABLE_TOKEN, 1).await;
    release.send_replace(true);
    calls.join_all().await.into_iter().for_each(|sent| sent.unwrap());
    assert_eq!((wechat.sent().len(), wechat.count(STABLE_TOKEN)), (40, 1));
}

#[tokio::test]
async fn what_wechat_refuses_is_an_error_with_its_code_and_advice() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    for (code, message, advice) in [
        (45015, "response out of time limit or subscription is canceled", "48 hours"),
        (45047, "out of response count limit", "as many messages"),
        (48001, "api unauthorized", "verified"),
        (43019, "require remove blacklist", "blacklist"),
        (40164, "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist", "add 1.2.3.4 to the IP whitelist"),
    ] {
        wechat.refuses(SEND, code, message);
        let error = api(&bot).send("oAnn", &text("hi"), soon()).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.advised().contains(advice) && !error.may_pass(), "{}", error.advised());
    }
    assert_eq!((wechat.count(SEND), wechat.sent().len()), (5, 0), "none of them was tried again");
}

#[tokio::test]
async fn typing_that_cannot_be_shown_or_is_shown_already_is_no_failure() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    for (code, is_failure) in [(45080, false), (45081, false), (48001, true), (40003, true)] {
        wechat.refuses(TYPING, code, "why");
        assert_eq!(api(&bot).typing("oAnn", true, soon()).await.is_err(), is_failure, "{code}");
    }
}

/// Calls the API, and returns its JSON.
async fn info(api: &Api, deadline: Instant) -> Result<String, ApiError> {
    let query = [("openid".to_owned(), "oAnn".to_owned())];
    api.call(Method::Get, USER_INFO, &query, None, deadline).await
}

#[tokio::test]
async fn a_busy_wechat_is_asked_again_within_the_time() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    wechat.refuses_times(SEND, 2, -1, "system error");
    api(&bot).send("oAnn", &text("hi"), soon()).await.unwrap();
    assert_eq!((wechat.count(SEND), wechat.sent().len()), (3, 1));
    // No time for a pause: it is told at once.
    wechat.refuses(USER_INFO, -1, "system error");
    let error = info(&api(&bot), Instant::now() + Duration::from_millis(150)).await.unwrap_err();
    assert!(error.code() == Some(-1) || matches!(error, ApiError::Timeout { .. }), "{error}");
    assert!(error.may_pass() && wechat.count(USER_INFO) <= 1);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_fetched_again_and_the_call_repeated() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    info(&api(&bot), soon()).await.unwrap();
    wechat.forces_new_token();
    info(&api(&bot), soon()).await.unwrap();
    assert_eq!((wechat.count(STABLE_TOKEN), wechat.count(USER_INFO)), (2, 3));
    wechat.ends_tokens();
    info(&api(&bot), soon()).await.unwrap();
    assert_eq!((wechat.count(STABLE_TOKEN), wechat.count(USER_INFO)), (3, 5));
    assert!(!wechat.calls().iter().any(|call| call.json()["force_refresh"] == true), "none was forced");
}

#[tokio::test]
async fn many_calls_that_meet_a_dead_token_fetch_one_new_one() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    info(&api(&bot), soon()).await.unwrap();
    wechat.forces_new_token();
    let release = wechat.holds(USER_INFO);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let api = api(&bot);
        calls.spawn(async move { info(&api, soon()).await });
    }
    // All of them are on their way under the dead token.
    wechat.until_called(USER_INFO, 21).await;
    release.send_replace(true);
    calls.join_all().await.into_iter().for_each(|called| _ = called.unwrap());
    assert_eq!(wechat.count(STABLE_TOKEN), 2);
}

#[tokio::test]
async fn a_token_that_wechat_gives_and_does_not_take_is_forced_once() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    info(&api(&bot), soon()).await.unwrap();
    wechat.refuses(USER_INFO, 40001, "invalid credential");
    for _ in 0..3 {
        assert_eq!(info(&api(&bot), soon()).await.unwrap_err().code(), Some(40001));
    }
    let forced = wechat.calls().iter().filter(|call| call.json()["force_refresh"] == true).count();
    // A second one is not allowed before 30 s.
    assert_eq!((forced, wechat.count(USER_INFO)), (1, 7), "each call is repeated once");
}

#[tokio::test]
async fn no_error_and_no_answer_has_the_token_or_the_secret() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    let echo = format!("{{\"errcode\":40035,\"errmsg\":\"{ACCESS_TOKEN} {APP_SECRET}\",\"x\":\"{ACCESS_TOKEN}\"}}");
    let wechat = wechat.breaks(USER_INFO, 200, &echo).breaks("/cgi-bin/echo", 200, &echo.replace("40035", "0"));
    let error = info(&api(&bot), soon()).await.unwrap_err();
    assert_eq!(error.to_string(), "WeChat refused: 40035 [redacted] [redacted]");
    let answer = api(&bot).call(Method::Get, "/cgi-bin/echo", &[], None, soon()).await.unwrap();
    assert_eq!(answer, "{\"errcode\":0,\"errmsg\":\"[redacted] [redacted]\",\"x\":\"[redacted]\"}");
    drop(wechat);
    let error = info(&api(&bot), soon()).await.unwrap_err().to_string();
    assert!(!error.contains(ACCESS_TOKEN) && !error.contains("user/info") && !error.contains('?'), "{error}");
}
