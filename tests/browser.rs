//! Visitors in a real browser: from a link to a login, to WeChat's page and back, as it is in WeChat but for WeChat itself.
//! The host stands behind a server that speaks https, under the account's own name.

mod chromium;
mod front;

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use self::{
    chromium::{Browser, Tab},
    front::Front,
};
use crate::{
    bot::{Bot, Setup},
    fake_authorize::{FakeAuthorize, HIDDEN, OPENID},
    fake_wechat::{APP_ID, APP_SECRET},
    http::{encoded, now_s},
    pages::CHECK_IN,
    plugins::PAGER,
    visitor::DOMAIN,
};

const EXCHANGE: &str = "/sns/oauth2/access_token";
const USERINFO: &str = "/sns/userinfo";

const GRANTS: &str =
    "[plugins.check-in.grants]\nkv = true\npages = true\n[plugins.pager.grants]\nkv = true\npages = true";

/// A bot, its visitors' browser, and all that is between them.
struct House {
    wechat: FakeAuthorize,
    bot: Bot,
    front: Front,
    browser: Browser,
}

impl House {
    async fn open(settings: &str) -> Self {
        let wechat = FakeAuthorize::start().await;
        let account = format!(
            "app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{}\"\noauth.domains = [\"{DOMAIN}\"]",
            wechat.base_url
        );
        let setup = Setup::new().plugin("10-check-in.wasm", &CHECK_IN).plugin("20-pager.wasm", &PAGER);
        let bot = setup.account(&account).settings(settings).start().await;
        let front = Front::start(&bot.origin).await;
        front.gives(&["user-1", "user-2", "user-3"]);
        let browser = Browser::start(front.port).await;
        Self { wechat, bot, front, browser }
    }

    /// A visitor who agreed, and sees their profile.
    async fn signed_in(&self) -> Tab {
        let tab = self.browser.visitor().await;
        tab.opens(&at("/me/main")).await;
        tab.taps("#agree").await;
        assert_eq!(tab.url().await, at("/me/main"));
        tab
    }
}

fn at(path: &str) -> String {
    format!("https://{DOMAIN}{path}")
}

async fn assert_reads(tab: &Tab, words: &str) {
    let text = tab.text().await;
    assert!(text.contains(words), "{words}: {text} at {}", tab.url().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_agrees_sees_their_profile_and_signs_out() {
    let house = House::open("").await;
    let tab = house.browser.visitor().await;
    tab.opens(&at("/me/main")).await;
    assert!(tab.url().await.starts_with("https://open.weixin.qq.com/connect/oauth2/authorize?"), "{}", tab.url().await);
    tab.taps("#agree").await;
    assert_eq!(tab.url().await, at("/me/main"));
    for words in ["小<b>明</b>", "广东", OPENID] {
        assert_reads(&tab, words).await;
    }
    // No script could read the session, and nothing of WeChat's came along.
    assert_eq!(tab.runs("document.cookie + JSON.stringify(localStorage)").await, json!("{}"));
    let html = tab.html().await;
    assert!(HIDDEN.iter().chain(&["user-1"]).all(|hidden| !html.contains(hidden)), "{html}");
    tab.taps("button").await;
    assert_reads(&tab, "您已退出登录").await;
    // Who takes the phone then, and goes back, sees nothing of it.
    tab.goes_back_and_on_to("https://open.weixin.qq.com/").await;
    assert_reads(&tab, "申请获取你的昵称、头像").await;
    assert_eq!(house.wechat.calls(), [EXCHANGE, USERINFO]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_does_not_agree_reads_so_and_may_think_again() {
    let house = House::open("").await;
    let tab = house.browser.visitor().await;
    tab.opens(&at("/me/main")).await;
    tab.taps("#deny").await;
    assert_reads(&tab, "您没有同意授权").await;
    tab.taps("a.button").await;
    tab.taps("#agree").await;
    assert_reads(&tab, "小<b>明</b>").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_opened_twice_is_one_login_and_its_code_is_nobody_elses() {
    let house = House::open("").await;
    house.front.gives(&["user-1"]);
    let tab = house.browser.visitor().await;
    tab.opens(&at("/me/main")).await;
    let callback = tab.runs("document.querySelector('#agree').href").await;
    tab.taps("#agree").await;
    tab.opens(callback.as_str().expect("it is an address")).await;
    assert_reads(&tab, "小<b>明</b>").await;
    assert_eq!(house.wechat.calls(), [EXCHANGE, USERINFO]);
    // Another visitor: with the address as it is, and with the code in a login of their own.
    let other = house.browser.visitor().await;
    other.opens(callback.as_str().expect("it is an address")).await;
    assert_reads(&other, "无法确认您的浏览器").await;
    other.taps("a.button").await;
    other.taps("#agree").await;
    assert_reads(&other, "登录链接已失效").await;
    other.opens(&at("/me/main.json")).await;
    assert_reads(&other, "signed_out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_forged_late_or_used_signs_nobody_in() {
    let house = House::open("[oauth]\nlogin_s = 2").await;
    let tab = house.browser.visitor().await;
    tab.opens(&at("/me/main")).await;
    let callback = tab.runs("document.querySelector('#agree').href").await;
    let callback = callback.as_str().expect("it is an address").to_owned();
    let (before, state) = callback.split_once("&state=").expect("it has one");
    for forged in
        [format!("{before}&state={}{}", "0".repeat(41), &state[41..]), format!("{before}&state="), before.to_owned()]
    {
        tab.opens(&forged).await;
        assert_reads(&tab, "登录链接已失效").await;
    }
    tab.opens(&callback.replace("%2Fme%2Fmain", "%2Fme%2Fother")).await;
    assert_reads(&tab, "登录链接已失效").await;
    assert_eq!(house.wechat.calls(), [""; 0]);
    // The visitor takes their time. The end is in the state itself.
    let expires_s = u64::from_str_radix(&state[32..40], 16).expect("it is a number");
    while now_s() < expires_s {
        sleep(Duration::from_millis(20)).await;
    }
    tab.opens(&callback).await;
    assert_reads(&tab, "登录链接已失效").await;
    assert_eq!(house.wechat.calls(), [""; 0]);
    // The way on is there; and what was used is used up.
    tab.taps("a.button").await;
    let callback = tab.runs("document.querySelector('#agree').href").await;
    tab.taps("#agree").await;
    assert_reads(&tab, "小<b>明</b>").await;
    tab.opens(&callback.as_str().expect("it is an address").replace("code=user-2", "code=user-9")).await;
    assert_reads(&tab, "登录链接已失效").await;
    assert_eq!(house.wechat.calls(), [EXCHANGE, USERINFO]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_link_of_ours_leads_to_a_strangers_site() {
    let house = House::open(GRANTS).await;
    let tab = house.signed_in().await;
    for to in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "https:evil.example",
        "https://shop.example.com@evil.example/",
        "https://evil.example\\.shop.example.com/",
        "%2F%2Fevil.example",
    ] {
        tab.opens(&at(&format!("/oauth/main/login?scope=snsapi_userinfo&to={}", encoded(to)))).await;
        if !tab.text().await.contains("链接有误") {
            // Read as a browser does, it is a path of ours.
            tab.taps("#agree").await;
        }
        tab.opens(&at(&format!("/pages/main/pager/say?status=302&location={}", encoded(to)))).await;
    }
    // The browser has business of its own.
    let strangers = house.front.strangers();
    assert!(!strangers.iter().any(|asked| asked.contains("evil")), "{strangers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_signs_nobody_in_and_says_what_to_tap() {
    let house = House::open("").await;
    house.front.gives(&["snapshot-1", "user-1"]);
    let tab = house.browser.visitor().await;
    tab.speaks("en").await;
    tab.opens(&at("/me/main")).await;
    tab.taps("#agree").await;
    assert_reads(&tab, "This is a snapshot").await;
    tab.opens(&at("/me/main.json")).await;
    assert_reads(&tab, "signed_out").await;
    tab.opens(&at("/me/main")).await;
    tab.taps("#agree").await;
    assert_reads(&tab, "Privileges").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wechat_that_is_slow_or_fails_is_a_page_with_a_way_to_try_again() {
    let house = House::open("[oauth]\ntimeout_ms = 200").await;
    let tab = house.browser.visitor().await;
    for path in [EXCHANGE, USERINFO] {
        house.wechat.hangs(path);
        tab.opens(&at("/me/main")).await;
        tab.taps("#agree").await;
        assert_reads(&tab, "微信暂时没有响应").await;
        house.wechat.release();
    }
    house.front.gives(&["user-5", "user-6"]);
    house.wechat.says(EXCHANGE, json!({ "errcode": -1, "errmsg": "system error" }));
    tab.taps("a.button").await;
    tab.taps("#agree").await;
    assert_reads(&tab, "微信暂时没有响应").await;
    house.wechat.says_as_usual(EXCHANGE);
    tab.taps("a.button").await;
    tab.taps("#agree").await;
    assert_reads(&tab, "小<b>明</b>").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_in_page_and_its_bot_count_together_and_nobody_counts_as_somebody_else() {
    let house = House::open(GRANTS).await;
    house.front.gives(&["base-1"]);
    let tab = house.browser.visitor().await;
    // A header of the host's is nobody else's to send: who is not signed in is sent to sign in.
    tab.sends(&[("Aviary-Openid", "oSomebodyElse"), ("aviary_openid", "oSomebodyElse")]).await;
    tab.opens(&at("/pages/main/check-in/")).await;
    // The fragment of WeChat's own address stays with a browser that is led on without one.
    assert_eq!(tab.url().await.trim_end_matches("#wechat_redirect"), at("/pages/main/check-in/"));
    assert_eq!(house.wechat.calls(), [EXCHANGE]);
    assert_reads(&tab, "您签到 0 次").await;
    for times in 1..=2 {
        tab.taps("button").await;
        assert_reads(&tab, &format!("您签到 {times} 次")).await;
    }
    assert_eq!(house.bot.says_as(OPENID, "签到").await, "您签到 2 次，大家一共 2 次。");
    assert_eq!(house.bot.says_as("oSomebodyElse", "签到").await, "您签到 0 次，大家一共 2 次。");
    tab.opens(&at("/pages/main/pager/told")).await;
    let told = tab.text().await;
    assert!(told.contains(OPENID) && !told.contains("oSomebodyElse") && !told.contains("cookie"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_page_runs_no_script_and_acts_on_no_other_page() {
    let house = House::open(GRANTS).await;
    let tab = house.signed_in().await;
    let page = |html: &str| {
        at(&format!(
            "/pages/main/pager/say?status=200&content-type=text%2Fhtml&body={}",
            encoded(html).replace('+', "%20")
        ))
    };
    tab.opens(&page("<title>quiet</title><body>page<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">")).await;
    assert_reads(&tab, "page").await;
    assert_eq!(tab.runs("document.title").await, json!("quiet"));
    // A form for another page is not sent,
    let form = |action: &str| page(&format!("<form method=post action=\"{action}\"><button>go</button></form>"));
    tab.opens(&form("/me/main/sign-out")).await;
    tab.taps_in_vain("button").await;
    // nor by way of the plugin's own,
    tab.opens(&form("say?status=307&amp;location=%2Fme%2Fmain%2Fsign-out")).await;
    tab.taps("button").await;
    assert_reads(&tab, "页面暂时无法显示").await;
    // and so the visitor is still signed in.
    tab.opens(&at("/me/main")).await;
    assert_reads(&tab, "小<b>明</b>").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_page_runs_its_scripts_if_that_is_granted() {
    let grants = "[plugins.pager.grants]\npages = { scripts = true }";
    let house = House::open(grants).await;
    let tab = house.browser.visitor().await;
    let html = encoded("<title>quiet</title><script>document.title='ran'</script>").replace('+', "%20");
    tab.opens(&at(&format!("/pages/main/pager/say?status=200&content-type=text%2Fhtml&body={html}"))).await;
    assert_eq!(tab.runs("document.title").await, json!("ran"));
}
