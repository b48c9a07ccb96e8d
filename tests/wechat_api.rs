//! WeChat's API as the host calls it, against one that behaves like the real one.

use std::time::{Duration, Instant};

use aviary_host::{
    api::{
        Api, ApiError, Field, Form, Method,
        customer_service::{Content, Menu, MiniprogramPage, Options},
    },
    plugin::bindings::{Article, Music, VideoReply},
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    bot::{Bot, PATIENCE, Setup},
    fake_wechat::{ACCESS_TOKEN, APP_ID, APP_SECRET, FakeWechat, SEND, STABLE_TOKEN, TYPING},
    plugins::workspace,
    upstream::{Answer, Upstream, ok},
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
    wechat.allows(SEND);
    api(&bot).send("oAnn", &text("hi"), soon()).await.unwrap();
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
    assert!(error.may_pass() && wechat.count(USER_INFO) <= 1, "{error}");
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

#[tokio::test]
async fn a_classic_token_that_somebody_else_fetched_is_fetched_again_and_the_stable_one_left_alone() {
    let wechat = FakeWechat::start().await;
    let account = format!("{}access_token_from = \"token\"", wechat.account());
    let bot = Setup::new().account(&account).start().await;
    info(&api(&bot), soon()).await.unwrap();
    wechat.fetches_classic_token();
    info(&api(&bot), soon()).await.unwrap();
    info(&api(&bot), soon()).await.unwrap();
    assert_eq!((wechat.count("/cgi-bin/token"), wechat.count(USER_INFO), wechat.count(STABLE_TOKEN)), (2, 4, 0));
}

#[tokio::test]
async fn a_token_is_renewed_in_time() {
    let wechat = FakeWechat::start().await;
    wechat.gives_tokens_of(2);
    let bot = bot(&wechat, "").await;
    let (until, mut calls) = (soon(), 0);
    while wechat.count(STABLE_TOKEN) < 3 {
        assert!(Instant::now() < until, "it is renewed in time");
        info(&api(&bot), soon()).await.unwrap();
        calls += 1;
    }
    // Renewed only at its end, each of the two tokens before the third would have been refused once.
    let refused = wechat.count(USER_INFO) - calls;
    assert!(refused < 2, "{refused} calls met a token that had come to its end");
}

#[tokio::test]
async fn a_fetch_that_failed_is_not_repeated_at_once_and_goes_on_when_whoever_began_it_gives_up() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    wechat.refuses(STABLE_TOKEN, 40164, "invalid ip 1.2.3.4, not in whitelist");
    for _ in 0..20 {
        assert_eq!(info(&api(&bot), soon()).await.unwrap_err().code(), Some(40164));
    }
    assert!(wechat.count(STABLE_TOKEN) < 10, "{} fetches", wechat.count(STABLE_TOKEN));

    let wechat = FakeWechat::start().await;
    let bot = self::bot(&wechat, "").await;
    let release = wechat.holds(STABLE_TOKEN);
    let error = info(&api(&bot), Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, ApiError::Unreachable(_)) && !error.may_be_done(), "{error}");
    wechat.until_called(STABLE_TOKEN, 1).await;
    release.send_replace(true);
    info(&api(&bot), soon()).await.unwrap();
    assert_eq!(wechat.count(STABLE_TOKEN), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_with_the_time_and_may_have_been_done() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "[wechat_api]\ntimeout_ms = 2000").await;
    wechat.drops_next(SEND);
    let error = api(&bot).send("oAnn", &text("hi"), soon()).await.unwrap_err();
    assert!(matches!(error, ApiError::Lost(_)) && error.may_be_done() && error.may_pass(), "{error}");
    assert_eq!(wechat.until_sent(1).await.len(), 1, "it was sent, and is not sent again");
    let _wechat = wechat.hangs(SEND);
    let error = api(&bot).send("oAnn", &text("hi"), soon()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.may_be_done()), ("no answer within 2000 ms", true));
}

#[tokio::test]
async fn an_answer_or_a_file_over_its_bound_is_cut_off() {
    let wechat = FakeWechat::start().await.breaks(USER_INFO, 200, &format!("\"{}\"", "x".repeat(1 << 20)));
    let bot = bot(&wechat, "[wechat_api]\nbody_mib_max = 1").await;
    let told = "the body has more than 1048576 bytes (`wechat_api.body_mib_max`)";
    assert_eq!(info(&api(&bot), soon()).await.unwrap_err().to_string(), told);
    let file = Field { name: "media".into(), file: Some(("a.png".into(), "image/png".into())), data: vec![0; 1 << 20] };
    let upload = api(&bot).upload("/cgi-bin/media/upload", &[], Form::new(vec![file]).unwrap(), soon()).await;
    assert_eq!(upload.unwrap_err().to_string(), told);
    assert_eq!(wechat.count("/cgi-bin/media/upload"), 0);
}

#[tokio::test]
async fn one_account_has_so_many_calls_on_their_way_and_the_next_one_waits() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "[wechat_api]\ncalls_per_account_max = 2").await;
    let release = wechat.holds(USER_INFO);
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let api = api(&bot);
        calls.spawn(async move { info(&api, soon()).await });
    }
    wechat.until_called(USER_INFO, 2).await;
    let error = info(&api(&bot), Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("raise `wechat_api.calls_max`"), "{error}");
    assert_eq!(wechat.count(USER_INFO), 2);
    release.send_replace(true);
    calls.join_all().await.into_iter().for_each(|called| _ = called.unwrap());
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let elsewhere = Upstream::plain(|_| ok("", "{}")).await;
    let goal = elsewhere.origin();
    let moved = Upstream::plain(move |_| {
        Answer::Bytes(format!("HTTP/1.1 302 Found\r\nlocation: {goal}/\r\ncontent-length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let account =
        format!("app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{}\"", moved.origin());
    let bot = Setup::new().account(&account).start().await;
    let error = info(&api(&bot), soon()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), elsewhere.connections()),
        ("WeChat's API answered with status 302 Found", 0)
    );
}

#[tokio::test]
async fn the_way_to_wechat_is_that_of_all_http_with_resolve_and_ca_file() {
    let tls = Upstream::tls("api.weixin.qq.com", |request| match request.contains(STABLE_TOKEN) {
        true => ok("", "{\"access_token\":\"T1\",\"expires_in\":7200}"),
        false => ok("", "{\"openid\":\"oAnn\"}"),
    })
    .await;
    let account = format!("app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"");
    let resolve = format!("resolve = {{ \"api.weixin.qq.com\" = \"{}\" }}", tls.address);
    let http = format!("[http]\nca_file = \"ca.pem\"\n{resolve}");
    let bot = Setup::new().account(&account).settings(&http).file("ca.pem", &tls.ca_pem).start().await;
    assert_eq!(info(&api(&bot), soon()).await.unwrap(), "{\"openid\":\"oAnn\"}");
    let requests = tls.requests();
    assert!(requests[1].starts_with("GET /cgi-bin/user/info?access_token=T1&openid=oAnn HTTP/1.1\r\n"), "{requests:?}");
    assert_eq!(tls.connections(), 1, "the connection is kept");
    // Without the file, nobody vouches for it.
    let bot = Setup::new().account(&account).settings(&format!("[http]\n{resolve}")).start().await;
    let error = info(&api(&bot), soon()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot reach https://api.weixin.qq.com: invalid peer cert"), "{error}");
}

#[tokio::test]
async fn wechat_is_reached_through_the_proxy() {
    let proxy = Upstream::plain(|request| match request.contains(STABLE_TOKEN) {
        true => ok("", "{\"access_token\":\"T1\",\"expires_in\":7200}"),
        false => ok("", "{\"openid\":\"oAnn\"}"),
    })
    .await;
    // Without TLS the proxy is told the whole address, and can be seen to be asked.
    let account = format!(
        "app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"http://api.example.com/wechat\""
    );
    let bot = Setup::new().account(&account).settings(&format!("[http]\nproxy = \"{}\"", proxy.origin())).start().await;
    info(&api(&bot), soon()).await.unwrap();
    let first = proxy.requests().swap_remove(0);
    assert!(first.starts_with("POST http://api.example.com/wechat/cgi-bin/stable_token HTTP/1.1\r\n"), "{first}");
}

#[tokio::test]
async fn a_token_outlives_a_reload_and_the_new_settings_count() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    info(&api(&bot), soon()).await.unwrap();
    let file = bot.dir().join("aviary.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{settings}\n[wechat_api]\ntimeout_ms = 2000\n")).unwrap();
    bot.app.reload().await;
    info(&api(&bot), soon()).await.unwrap();
    assert_eq!(wechat.count(STABLE_TOKEN), 1);
    let wechat = wechat.hangs(USER_INFO);
    assert_eq!(info(&api(&bot), soon()).await.unwrap_err().to_string(), "no answer within 2000 ms");
    drop(wechat);
}

/// A message of the vectors, as the contract has it. `thumb_media_id` of a video is left to WeChat.
fn content(msgtype: &str, json: &Value) -> Content {
    let of = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{json} has no `{key}`")).to_owned();
    let some = |key: &str| Some(of(key));
    match msgtype {
        "text" => Content::Text(of("content")),
        "image" => Content::Image(of("media_id")),
        "voice" => Content::Voice(of("media_id")),
        "video" => Content::Video(VideoReply {
            media_id: of("media_id"),
            title: some("title"),
            description: some("description"),
        }),
        "music" => Content::Music(Music {
            title: some("title"),
            description: some("description"),
            music_url: some("musicurl"),
            hq_music_url: some("hqmusicurl"),
            thumb_media_id: of("thumb_media_id"),
        }),
        "news" => {
            let article = &json["articles"][0];
            let of = |key: &str| article[key].as_str().expect("it is there").to_owned();
            let (description, pic_url) = (Some(of("description")), Some(of("picurl")));
            Content::News(Article { title: of("title"), description, pic_url, url: of("url") })
        }
        "mpnews" => Content::Mpnews(of("media_id")),
        "mpnewsarticle" => Content::MpnewsArticle(of("article_id")),
        "msgmenu" => {
            let item = |item: &Value| (item["id"].as_str().unwrap().into(), item["content"].as_str().unwrap().into());
            let items = json["list"].as_array().expect("it has items").iter().map(item).collect();
            Content::Menu(Menu { head: of("head_content"), items, tail: of("tail_content") })
        }
        "wxcard" => Content::Card(of("card_id")),
        "miniprogrampage" => Content::MiniprogramPage(MiniprogramPage {
            title: of("title"),
            app_id: of("appid"),
            page_path: of("pagepath"),
            thumb_media_id: of("thumb_media_id"),
        }),
        other => panic!("{other} is a type that the vectors did not have"),
    }
}

/// JSON without the blanks between its parts, and otherwise byte for byte.
fn compact(json: &str) -> String {
    let (mut compact, mut in_text, mut is_escaped) = (String::new(), false, false);
    for char in json.chars().filter(|char| !matches!(char, '\n' | '\r')) {
        if in_text || char != ' ' {
            compact.push(char);
        }
        in_text ^= char == '"' && !is_escaped;
        is_escaped = char == '\\' && !is_escaped;
    }
    compact
}

/// The text of each `"json": {…}` of a file, as it stands there.
fn bodies(file: &str) -> Vec<String> {
    let after = |at: usize| {
        let mut values = serde_json::Deserializer::from_str(&file[at..]).into_iter::<serde::de::IgnoredAny>();
        values.next().expect("there is a value").expect("it is JSON");
        compact(&file[at..at + values.byte_offset()])
    };
    file.match_indices("\"json\": ").map(|(at, key)| after(at + key.len())).collect()
}

#[tokio::test]
async fn every_type_of_message_goes_out_byte_for_byte_as_wechat_describes_it() {
    let file = std::fs::read_to_string(workspace().join("tests/wire/kf_messages.json")).unwrap();
    let rows: Value = serde_json::from_str(&file).unwrap();
    let messages = rows["messages"].as_array().unwrap();
    let expected = bodies(&file);
    assert_eq!(messages.len(), 13);
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    for (row, expected) in messages.iter().zip(&expected) {
        let (id, json) = (row["id"].as_str().unwrap(), &row["json"]);
        let msgtype = json["msgtype"].as_str().unwrap();
        let kf_account = json["customservice"]["kf_account"].as_str().map(str::to_owned);
        let options = Options { kf_account, is_ai: json["aimsgcontext"]["is_ai_msg"] == 1 };
        let content = content(msgtype, &json[msgtype]);
        wechat.hears("OPENID");
        api(&bot).send_with("OPENID", &content, &options, soon()).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        let call = wechat.calls().pop().unwrap();
        let expected = match id {
            "video" => expected.replace("\"thumb_media_id\":\"MEDIA_ID\",", ""),
            _ => expected.clone(),
        };
        assert_eq!(String::from_utf8(call.body).unwrap(), expected, "{id}");
        assert_eq!(call.content_type, "application/json");
    }
    for (row, expected) in rows["typing"].as_array().unwrap().iter().zip(&expected[13..]) {
        api(&bot).typing("OPENID", row["json"]["command"] == "Typing", soon()).await.unwrap();
        assert_eq!(String::from_utf8(wechat.calls().pop().unwrap().body).unwrap(), *expected);
    }
}
