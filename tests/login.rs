//! Signing in by WeChat's web authorisation, and the profile page: over real HTTP, with WeChat's side played.

use serde_json::{Value, json};
use tokio::{task::yield_now, time::timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup},
    fake_authorize::{Asked, FakeAuthorize, HIDDEN, OPENID},
    fake_wechat::{APP_ID, APP_SECRET},
    http::Response,
    visitor::{DOMAIN, Visitor},
};

const EXCHANGE: &str = "/sns/oauth2/access_token";
const REFRESH: &str = "/sns/oauth2/refresh_token";
const USERINFO: &str = "/sns/userinfo";
const CHECK: &str = "/sns/auth";

async fn start(wechat: &FakeAuthorize) -> Bot {
    start_with(wechat, "").await
}

async fn start_with(wechat: &FakeAuthorize, settings: &str) -> Bot {
    let account = format!(
        "app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{}\"\n\
         oauth = {{ domains = [\"{DOMAIN}\", \"m.example.com\"] }}",
        wechat.base_url
    );
    Setup::new().account(&account).settings(settings).start().await
}

/// Follows the link to a login, up to WeChat's page.
async fn asked(visitor: &mut Visitor, query: &str) -> Asked {
    let response = visitor.get(&format!("/oauth/main/login?{query}")).await;
    assert_eq!(response.status, 302, "{response:?}");
    Asked::read(response.header("location"))
}

/// Signs in for the whole profile with this code.
async fn signed_in(bot: &Bot, code: &str) -> Visitor {
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "scope=snsapi_userinfo").await;
    let response = visitor.get(&asked.agreed(code)).await;
    assert_eq!(
        (response.status, response.header("location")),
        (303, "https://shop.example.com/me/main"),
        "{response:?}"
    );
    visitor
}

fn html(response: &Response) -> &str {
    std::str::from_utf8(&response.body).expect("pages are UTF-8")
}

/// What a visitor reads who is not let in, and that nothing gets out by it.
fn assert_problem(response: &Response, status: u16, words: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert!(html(response).contains(words), "{}", html(response));
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.header("referrer-policy"), "no-referrer");
    assert!(response.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(!response.header("set-cookie").contains("session"), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_agrees_sees_their_profile_and_no_token_leaves_the_host() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = signed_in(&bot, "user-1").await;
    let page = visitor.get("/me/main").await;
    assert_eq!(page.status, 200);
    for words in
        ["小&lt;b&gt;明&lt;/b&gt;", "男", "中国", "广东", "广州", "chinaunicom", OPENID, "o6_union", "thirdwx.qlogo.cn"]
    {
        assert!(html(&page).contains(words), "{words}: {}", html(&page));
    }
    let json = visitor.get("/me/main.json").await;
    let told: Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(
        told,
        json!({
            "openid": OPENID, "unionid": "o6_union", "scope": "snsapi_userinfo", "nickname": "小<b>明</b>", "sex": 1,
            "province": "广东", "city": "广州", "country": "中国", "headimgurl": "https://thirdwx.qlogo.cn/mmopen/g3/46",
            "privilege": ["chinaunicom"],
        })
    );
    for hidden in HIDDEN.into_iter().chain(["user-1"]) {
        assert!(!visitor.seen.contains(hidden), "{hidden}: {}", visitor.seen);
    }
    assert_eq!(wechat.calls(), [EXCHANGE, USERINFO]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_whose_reply_has_less_is_shown_what_there_is() {
    let wechat = FakeAuthorize::start().await;
    wechat.says(USERINFO, json!({ "openid": OPENID, "nickname": "", "sex": 0, "headimgurl": "", "privilege": [] }));
    let bot = start(&wechat).await;
    let mut visitor = signed_in(&bot, "user-1").await;
    let english = visitor.send("GET", "/me/main", &[("Accept-Language", "en-GB,zh;q=0.5")], "").await;
    assert!(html(&english).contains("WeChat user") && !html(&english).contains("<img"), "{}", html(&english));
}

#[tokio::test(flavor = "multi_thread")]
async fn snsapi_base_asks_for_no_profile_and_is_the_default() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "to=/pages/main/x/?a=b%26c").await;
    assert_eq!(asked.scope, "snsapi_base");
    let response = visitor.get(&asked.agreed("base-1")).await;
    assert_eq!(response.header("location"), "https://shop.example.com/pages/main/x/?a=b&c");
    assert_eq!(wechat.calls(), [EXCHANGE]);
    assert!(html(&visitor.get("/me/main").await).contains("显示完整资料"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_does_not_agree_reads_so_and_can_try_again() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "scope=snsapi_userinfo&to=/me/main").await;
    let denied = visitor.get(&asked.denied()).await;
    assert_problem(&denied, 403, "您没有同意授权");
    assert!(html(&denied).contains("/oauth/main/login?scope=snsapi_userinfo"), "{}", html(&denied));
    assert_eq!(wechat.calls(), [""; 0]);
    // Who goes back to WeChat's page may still agree: it is the same browser, and there was no code yet.
    assert_eq!(visitor.get(&asked.agreed("user-1")).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_wechat_opens_twice_is_one_exchange_with_one_result() {
    let wechat = FakeAuthorize::start().await;
    wechat.hangs(EXCHANGE);
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "").await;
    let target = asked.agreed("base-1");
    let mut twin = Visitor::new(&bot.origin);
    twin.cookies = visitor.cookies.clone();
    let both = async { tokio::join!(visitor.get(&target), twin.get(&target)) };
    let released = async {
        while wechat.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        wechat.release();
    };
    let ((one, other), ()) =
        timeout(PATIENCE, async { tokio::join!(both, released) }).await.expect("both are answered");
    assert_eq!((one.status, other.status), (303, 303), "{one:?} {other:?}");
    assert_eq!(one.header("set-cookie"), other.header("set-cookie"));
    // And once more when all is over.
    assert_eq!(visitor.get(&target).await.header("set-cookie"), one.header("set-cookie"));
    assert_eq!(wechat.calls(), [EXCHANGE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_wechat_does_not_take_is_told_in_the_visitors_language() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    for (code, calls) in [("unknown", 1), ("base-1", 2), ("base-1", 3)] {
        let mut visitor = Visitor::new(&bot.origin);
        let asked = asked(&mut visitor, "").await;
        let response = visitor.send("GET", &asked.agreed(code), &[("Accept-Language", "en")], "").await;
        match (code, calls) {
            ("base-1", 2) => assert_eq!(response.status, 303),
            // Somebody else's code, or one that was used (40163).
            _ => assert_problem(&response, 400, "This sign-in link is over"),
        }
        assert_eq!(wechat.calls().len(), calls);
        assert!(!html(&response).contains(code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_ours_for_this_browser_and_address_exchanges_nothing() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "to=/me/main").await;
    let good = asked.agreed("base-1");
    let forged = format!("{}{}", "0".repeat(41), &asked.state[41..]);
    let elsewhere = good.replace("me%2Fmain", "me%2Fother");
    for target in [
        asked.back("&code=base-1"),
        asked.back("&code=base-1&state="),
        asked.back("&code=base-1&state=abc"),
        asked.back(&format!("&code=base-1&state={forged}")),
        asked.back(&format!("&code=base-1&state={0}&state={0}", asked.state)),
        elsewhere,
        format!("/oauth/main/callback?code=base-1&state={}", asked.state),
    ] {
        assert_problem(&visitor.get(&target).await, 400, "登录链接已失效");
    }
    // Another browser: without a cookie, and with its own.
    let mut other = Visitor::new(&bot.origin);
    assert_problem(&other.get(&good).await, 400, "无法确认您的浏览器");
    self::asked(&mut other, "").await;
    assert_problem(&other.get(&good).await, 400, "登录链接已失效");
    // Under another of the account's names.
    let response = visitor.send("GET", &good, &[("Host", "m.example.com")], "").await;
    assert_problem(&response, 400, "登录链接已失效");
    assert_eq!(wechat.calls(), [""; 0]);
    // The login itself is still good.
    assert_eq!(visitor.get(&good).await.status, 303);
    // And its state is not good for another code.
    assert_problem(&visitor.get(&asked.agreed("base-2")).await, 400, "登录链接已失效");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_leads_away_from_the_accounts_own_domains() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    for to in
        ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/oauth/main/login"]
    {
        let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
        let response = visitor.get(&format!("/oauth/main/login?to={to}")).await;
        assert_problem(&response, 400, "链接有误");
    }
    // Nor does the host name itself as somebody else.
    let response = visitor.send("GET", "/oauth/main/login", &[("Host", "evil.example")], "").await;
    assert_problem(&response, 421, "页面不存在");
    assert!(!response.headers.contains_key("location"));
    // Where another of its domains is named, the login is begun and ended there.
    let there = visitor.get("/oauth/main/login?to=https%3A%2F%2Fm.example.com%2Fx").await;
    let login = "/oauth/main/login?scope=snsapi_base&to=https%3A%2F%2Fm.example.com%2Fx";
    assert_eq!((there.status, there.header("location")), (302, format!("https://m.example.com{login}").as_str()));
    let begun = visitor.send("GET", login, &[("Host", "m.example.com")], "").await;
    let back = Asked::read(begun.header("location")).agreed("base-1");
    let ended = visitor.send("GET", &back, &[("Host", "m.example.com")], "").await;
    assert_eq!((ended.status, ended.header("location")), (303, "https://m.example.com/x"));
    assert_problem(&visitor.get("/oauth/main/login?scope=snsapi_login").await, 400, "链接有误");
    assert_problem(&visitor.get("/oauth/nobody/login").await, 404, "页面不存在");
    assert_problem(&visitor.get("/oauth/main/other").await, 404, "页面不存在");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_a_lesser_scope_sign_nobody_in() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    for (code, words) in [("snapshot-1", "使用完整服务"), ("base-1", "授权不完整")] {
        let mut visitor = Visitor::new(&bot.origin);
        let asked = asked(&mut visitor, "scope=snsapi_userinfo").await;
        assert_problem(&visitor.get(&asked.agreed(code)).await, 403, words);
    }
    wechat.says(USERINFO, json!({ "errcode": 48001, "errmsg": "api unauthorized" }));
    let mut visitor = Visitor::new(&bot.origin);
    let asked = asked(&mut visitor, "scope=snsapi_userinfo").await;
    assert_problem(&visitor.get(&asked.agreed("user-1")).await, 403, "授权不完整");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wechat_that_is_slow_or_refuses_is_told_to_the_visitor_within_its_time() {
    let wechat = FakeAuthorize::start().await;
    let bot = start_with(&wechat, "[oauth]\ntimeout_ms = 100").await;
    wechat.hangs(EXCHANGE);
    let mut visitor = Visitor::new(&bot.origin);
    let slow = asked(&mut visitor, "").await;
    assert_problem(&visitor.get(&slow.agreed("base-1")).await, 504, "微信暂时没有响应");
    wechat.release();
    wechat.says(EXCHANGE, json!({ "errcode": 40125, "errmsg": "invalid appsecret" }));
    let refused = asked(&mut visitor, "").await;
    assert_problem(&visitor.get(&refused.agreed("base-2")).await, 502, "微信暂时没有响应");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_hang_leave_the_accounts_own_calls_of_wechat_a_turn() {
    let wechat = FakeAuthorize::start().await;
    wechat.says("/cgi-bin/stable_token", json!({ "access_token": "token7", "expires_in": 7200 }));
    wechat.says("/cgi-bin/ticket/getticket", json!({ "errcode": 0, "ticket": "ticket-7", "expires_in": 7200 }));
    let bot =
        start_with(&wechat, "[oauth]\ntimeout_ms = 30000\n[wechat_api]\ncalls_max = 2\ncalls_per_account_max = 2")
            .await;
    wechat.hangs(EXCHANGE);
    let (mut first, mut second) = (Visitor::new(&bot.origin), Visitor::new(&bot.origin));
    let (asked_first, asked_second) = (asked(&mut first, "").await, asked(&mut second, "").await);
    let (base_1, base_2) = (asked_first.agreed("base-1"), asked_second.agreed("base-2"));
    let logins = async { tokio::join!(first.get(&base_1), second.get(&base_2)) };
    let sign = async {
        while bot.app.tasks.len() < 2 {
            yield_now().await;
        }
        let signed = Visitor::new(&bot.origin).get("/jssdk/main?url=https%3A%2F%2Fshop.example.com%2F").await;
        wechat.release();
        signed
    };
    let ((first, second), signed) =
        timeout(PATIENCE, async { tokio::join!(logins, sign) }).await.expect("nobody waits");
    assert_eq!((signed.status, first.status, second.status), (200, 303, 303), "{signed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_remembers_a_login_for_longer_than_it_may_take() {
    let wechat = FakeAuthorize::start().await;
    let bot = start_with(&wechat, "[oauth]\nlogins_max = 1000\nlogin_s = 3600").await;
    let mut visitor = Visitor::new(&bot.origin);
    let response = visitor.get("/oauth/main/login").await;
    assert!(response.header("set-cookie").contains("Max-Age=86400;"), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_signed_in_is_sent_to_sign_in_and_a_program_is_told() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = Visitor::new(&bot.origin);
    let page = visitor.get("/me/main").await;
    let login = "/oauth/main/login?scope=snsapi_userinfo&to=%2Fme%2Fmain";
    assert_eq!((page.status, page.header("location")), (302, login));
    let json = visitor.get("/me/main.json").await;
    assert_eq!(json.told(), (401, format!("{{\"error\":\"signed_out\",\"login\":\"{login}\"}}").as_str()));
    // A cookie that somebody made up is as good as none.
    visitor.cookies.insert("__Host-session-main".into(), format!("{}.{}", "0".repeat(32), "0".repeat(64)));
    assert_eq!(visitor.get("/me/main.json").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session_everywhere_and_no_other_site_can_do_it() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = signed_in(&bot, "user-1").await;
    let kept = visitor.cookies.clone();
    for origin in ["https://evil.example", "https://evil.shop.example.com", "http://shop.example.com", "null"] {
        let response = visitor.send("POST", "/me/main/sign-out", &[("Origin", origin)], "").await;
        assert_eq!(response.status, 403, "{origin}");
    }
    assert_eq!(visitor.send("POST", "/me/main/sign-out", &[], "").await.status, 403);
    assert_eq!(visitor.get("/me/main/sign-out").await.status, 405);
    assert_eq!(visitor.get("/me/main.json").await.status, 200);
    let out = visitor.post("/me/main/sign-out", "").await;
    assert_eq!(out.status, 200);
    assert!(html(&out).contains("您已退出登录"));
    assert!(!visitor.cookies.contains_key("__Host-session-main"));
    // The cookie is worth nothing any more, whoever kept it.
    visitor.cookies = kept;
    assert_eq!(visitor.get("/me/main.json").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_again_leaves_no_session_behind() {
    let wechat = FakeAuthorize::start().await;
    let bot = start(&wechat).await;
    let mut visitor = signed_in(&bot, "user-1").await;
    let before = visitor.cookies.clone();
    let again = asked(&mut visitor, "scope=snsapi_userinfo").await;
    assert_eq!(visitor.get(&again.agreed("user-2")).await.status, 303);
    // The callback once more, now with the new session's cookie: that is not the one before.
    assert_eq!(visitor.get(&again.agreed("user-2")).await.status, 303);
    assert_eq!(visitor.get("/me/main.json").await.status, 200);
    visitor.cookies = before;
    assert_eq!(visitor.get("/me/main.json").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_access_token_and_ends_with_the_authorisation() {
    let wechat = FakeAuthorize::start().await;
    let bot = start_with(&wechat, "[oauth]\nprofile_s = 0").await;
    let mut visitor = signed_in(&bot, "user-1").await;
    // The token is good, as WeChat says.
    assert_eq!(visitor.get("/me/main.json").await.status, 200);
    assert_eq!(wechat.calls(), [EXCHANGE, USERINFO, CHECK, USERINFO]);
    // It is not any more: another is fetched.
    wechat.says(CHECK, json!({ "errcode": 42001, "errmsg": "access_token expired web-access-7" }));
    wechat.says(USERINFO, json!({ "openid": OPENID, "nickname": "新名字" }));
    let told = visitor.get("/me/main.json").await;
    assert!(html(&told).contains("新名字"), "{told:?}");
    assert_eq!(wechat.calls()[4..], [CHECK, REFRESH, USERINFO]);
    // WeChat is out of order: what is there stays.
    wechat.says(USERINFO, json!({ "errcode": -1, "errmsg": "system error" }));
    assert!(html(&visitor.get("/me/main.json").await).contains("新名字"));
    // The visitor took it back: the session is over.
    wechat.says(REFRESH, json!({ "errcode": 42002, "errmsg": "refresh_token expired" }));
    assert_eq!(visitor.get("/me/main.json").await.status, 401);
    wechat.says_as_usual(CHECK);
    wechat.says_as_usual(USERINFO);
    assert_eq!(visitor.get("/me/main.json").await.status, 401);
    for hidden in HIDDEN {
        assert!(!visitor.seen.contains(hidden), "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wechat_wants_at_the_root_is_there_under_every_name() {
    let setup = Setup::new().file("MP_verify_x1.txt", "x1").account("oauth.verify_files = [\"MP_verify_x1.txt\"]");
    let bot = setup.start().await;
    let mut visitor = Visitor::new(&bot.origin);
    let file = visitor.send("GET", "/MP_verify_x1.txt", &[("Host", "new.example.com")], "").await;
    assert_eq!(file.told(), (200, "x1"));
    assert_eq!(file.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(visitor.get("/MP_verify_x2.txt").await.status, 404);
    // Without domains there are no pages.
    assert_eq!(visitor.get("/me/main").await.status, 404);
}
