//! Customer-service messages and WeChat's API for plugins: what is granted, what is not, and what no grant gives.

use aviary_host::plugin::bindings::Reply;

use crate::{
    bot::{Bot, Setup},
    fake_wechat::{ACCESS_TOKEN, APP_SECRET, FakeWechat, SEND, STABLE_TOKEN, TYPING},
    log::Log,
    plugins::CALLER,
    process::{aviary, finish},
};

/// A bot with the plugin `caller`, these grants, and this API.
async fn bot(wechat: &FakeWechat, grants: &str) -> Bot {
    let setup = Setup::new().plugin("10-caller.wasm", &CALLER).account(&wechat.account());
    setup.settings(&format!("[plugins.caller.grants]\n{grants}")).start().await
}

/// Gives the plugin an order, and returns what it says. The user is `oUser`.
async fn order(bot: &Bot, order: &str) -> String {
    let dispatch = bot.asked(order).await;
    match dispatch.reply {
        Some(Reply::Text(said)) => said,
        _ => panic!("{:?} of {order}", dispatch.steps),
    }
}

#[tokio::test]
async fn without_a_grant_nobody_is_reached_and_the_plugin_learns_which_is_missing() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "").await;
    let denied = "Error::Denied(\"plugin `caller` has no `customer_service` grant; if it is to have it: customer_service = \\\"sender\\\"\")";
    for call in ["send me hi", "typing me", "menu oBob"] {
        assert_eq!(order(&bot, call).await, denied, "{call}");
    }
    assert_eq!(
        order(&bot, "call GET /cgi-bin/user/info?openid=secret7").await,
        "Error::Denied(\"plugin `caller` has no `wechat_api` grant for GET /cgi-bin/user/info; if it is to have it: \
         wechat_api = [\\\"GET /cgi-bin/user/info\\\"]\")"
    );
    assert!(order(&bot, "upload /cgi-bin/media/upload?type=image x").await.contains("POST /cgi-bin/media/upload"));
    assert!(order(&bot, "download /cgi-bin/media/get?media_id=x").await.contains("GET /cgi-bin/media/get"));
    assert!(wechat.calls().is_empty());
}

#[tokio::test]
async fn a_plugin_that_may_send_to_the_sender_reaches_nobody_else() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "customer_service = \"sender\"").await;
    assert_eq!(order(&bot, "typing me\nsend me 你好").await, "shown\nsent");
    let denied = order(&bot, "send oBob hi").await;
    assert!(denied.contains("Denied(") && denied.contains("`customer_service = \\\"anyone\\\"`"), "{denied}");
    assert!(order(&bot, "typing oBob").await.contains("Denied("));
    assert!(order(&bot, "send ousER hi").await.contains("Denied("), "openids are compared as they are");
    let sent = wechat.until_sent(1).await;
    assert_eq!((sent.len(), sent[0]["touser"].as_str(), wechat.count(TYPING)), (1, Some("oUser"), 1));
}

#[tokio::test]
async fn a_plugin_that_may_send_to_anyone_does_and_hears_what_wechat_says() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "customer_service = \"anyone\"").await;
    assert_eq!(order(&bot, "menu oBob").await, "sent");
    assert_eq!(
        wechat.sent()[0].to_string(),
        r#"{"aimsgcontext":{"is_ai_msg":1},"customservice":{"kf_account":"test1@kftest"},"msgmenu":{"head_content":"满意吗？","list":[{"content":"好","id":"1"},{"content":"不好","id":"2"}],"tail_content":"谢谢"},"msgtype":"msgmenu","touser":"oBob"}"#
    );
    wechat.refuses(SEND, 45047, "out of response count limit");
    assert_eq!(order(&bot, "send oBob hi").await, "Error::Refused((45047, \"out of response count limit\"))");
    let long = "长".repeat(683);
    assert!(order(&bot, &format!("send oBob {long}")).await.starts_with("Error::Invalid(\"the text has 2049 bytes"));
    assert_eq!(wechat.count(SEND), 2);
}

#[tokio::test]
async fn granted_calls_go_out_under_a_token_that_the_plugin_never_sees() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "wechat_api = [\"GET /cgi-bin/user/info\", \"POST /cgi-bin/tags/*\"]").await;
    assert_eq!(
        order(&bot, "call GET /cgi-bin/user/info?openid=oBob&lang=zh CN&x").await,
        "Error::Invalid(\"a GET has no body\")"
    );
    assert_eq!(
        order(&bot, "call GET /cgi-bin/user/info?openid=oBob&lang=zh_CN").await,
        "{\"language\":\"zh_CN\",\"openid\":\"oBob\",\"subscribe\":1}"
    );
    let wechat = wechat.breaks("/cgi-bin/tags/create", 200, &format!("{{\"echo\":\"{ACCESS_TOKEN} {APP_SECRET}\"}}"));
    let said = order(&bot, "call POST /cgi-bin/tags/create {\"tag\":{\"name\":\"广东\"}}").await;
    assert_eq!(said, "{\"echo\":\"[redacted] [redacted]\"}");
    let call = wechat.calls().pop().unwrap();
    assert_eq!(call.access_token.as_deref(), Some(ACCESS_TOKEN));
    assert_eq!(String::from_utf8(call.body).unwrap(), "{\"tag\":{\"name\":\"广东\"}}");
    order(&bot, "call POST /cgi-bin/tags/create {\"tag\":{\"name\":\"\\u5e7f\\u4e1c\"}}").await;
    let call = wechat.calls().pop().unwrap();
    assert_eq!(call.body, "{\"tag\":{\"name\":\"广东\"}}".as_bytes(), "as Python's `json` writes it");
    assert!(order(&bot, "call POST /cgi-bin/tags/create {no json").await.contains("Invalid(\"the body is no JSON"));
    assert!(order(&bot, "call DELETE /cgi-bin/tags/create").await.contains("neither GET nor POST"));
    wechat.refuses("/cgi-bin/user/info", 40003, "invalid openid");
    assert_eq!(
        order(&bot, "call GET /cgi-bin/user/info?openid=x").await,
        "Error::Refused((40003, \"invalid openid\"))"
    );
}

#[tokio::test]
async fn tokens_and_tickets_are_given_to_no_plugin_and_no_path_can_be_disguised() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "wechat_api = [\"GET /cgi-bin/*\", \"POST /cgi-bin/*\"]").await;
    for call in [
        "call POST /cgi-bin/stable_token {}",
        "call GET /cgi-bin/token?grant_type=client_credential",
        "call GET /cgi-bin/ticket/getticket?type=jsapi",
        "call POST /cgi-bin/component/api_query_auth {}",
        "call GET /sns/userinfo",
        "upload /cgi-bin/stable_token x",
        "download /cgi-bin/token",
        "call GET /datacube/getusersummary",
    ] {
        assert!(order(&bot, call).await.starts_with("Error::Denied("), "{call}");
    }
    for path in [
        "/cgi-bin/user/../token",
        "/cgi-bin/%74oken",
        "/cgi-bin//token",
        "/cgi-bin/user/info#x",
        "cgi-bin/user/info",
        "/cgi-bin/user/info;/token",
        "/cgi-bin\\token",
        "//evil.example.com/cgi-bin/user/info",
        "@evil.example.com/cgi-bin/x",
        "https://evil.example.com/cgi-bin/x",
        "/cgi-bin/user/info?access_token=stolen",
        "/cgi-bin/user/info?ACCESS_TOKEN=stolen",
    ] {
        let said = order(&bot, &format!("call GET {path}")).await;
        assert!(said.starts_with("Error::Invalid("), "{path}: {said}");
    }
    assert!(wechat.calls().is_empty());
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down_again() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "wechat_api = [\"POST /cgi-bin/media/upload\", \"GET /cgi-bin/media/get\"]").await;
    let said = order(&bot, "upload /cgi-bin/media/upload?type=image PNG 图").await;
    assert_eq!(said, "{\"created_at\":1700000000,\"media_id\":\"MEDIA_1\",\"type\":\"image\"}");
    assert_eq!(order(&bot, "download /cgi-bin/media/get?media_id=MEDIA_1").await, "image/png picture.png PNG 图");
    assert_eq!(
        order(&bot, "download /cgi-bin/media/get?media_id=MEDIA_9").await,
        "Error::Refused((40007, \"invalid media_id\"))"
    );
}

#[tokio::test]
async fn one_message_makes_so_many_calls_and_no_more() {
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "customer_service = \"anyone\"\n[plugins.caller.limits]\nwechat_calls_max = 2").await;
    let said = order(&bot, "send oAnn 1\ntyping oAnn\nsend oAnn 2").await;
    assert_eq!(
        said,
        "sent\nshown\nError::Denied(\"plugin `caller` may call WeChat 2 times for one message or page (`limits.wechat_calls_max`)\")"
    );
    assert_eq!(order(&bot, "send oAnn 3").await, "sent", "the next message has its own");
}

#[tokio::test]
async fn what_only_the_operator_can_mend_is_told_once_with_the_way_out() {
    let log = Log::capture();
    let wechat = FakeWechat::start().await;
    let bot = bot(&wechat, "customer_service = \"sender\"").await;
    wechat.refuses(SEND, 48001, "api unauthorized");
    order(&bot, "send me hi\nsend me hi").await;
    wechat.refuses(SEND, 45015, "response out of time limit");
    order(&bot, "send me hi").await;
    let lines = log.lines("A call of plugin `caller`");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WeChat refused: 48001 api unauthorized; this account has no right"), "{lines:?}");
    wechat.forces_new_token();
    order(&bot, "typing me").await;
    assert_eq!(log.lines("The access_token of account `main` was good no more (40001)").len(), 1);
    assert!(log.lines(ACCESS_TOKEN).is_empty() && log.lines("oUser").is_empty());
}

#[tokio::test]
async fn an_account_without_a_secret_says_so() {
    let setup = Setup::new().plugin("10-caller.wasm", &CALLER);
    let bot = setup.settings("[plugins.caller.grants]\ncustomer_service = \"sender\"").start().await;
    assert_eq!(
        order(&bot, "send me hi").await,
        "Error::Unreachable(\"account `main` has no `app_id` or no `app_secret`, so that WeChat's API is not used\")"
    );
}

#[tokio::test]
async fn a_slow_wechat_leaves_the_plugin_time_to_answer() {
    let wechat = FakeWechat::start().await.hangs(SEND);
    let setup = Setup::new().plugin("10-caller.wasm", &CALLER).account(&wechat.account());
    let bot = setup
        .settings("[plugins.caller]\nlimits.timeout_ms = 2000\ngrants.customer_service = \"sender\"")
        .start()
        .await;
    let said = order(&bot, "send me hi").await;
    assert!(said.starts_with("Error::Unreachable(\"no answer within "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_conversation_file_wechat_is_what_is_written_down() {
    let wechat = FakeWechat::start().await;
    let setup = Setup::new().plugin("10-caller.wasm", &CALLER).account(&wechat.account());
    let setup = setup.settings("[plugins.caller.grants]\ncustomer_service = \"anyone\"");
    let url = "https://api.weixin.qq.com";
    let conversation = format!(
        "! POST {url}{SEND} -> 200 {{\"errcode\":0,\"errmsg\":\"ok\"}}\n\
         ! POST {url}{SEND} -> 200 {{\"errcode\":45015,\"errmsg\":\"out of time\"}}\n\
         ! GET {url}/cgi-bin/user/info?openid=oBob -> 200 {{\"subscribe\":1}}\n\
         > send oBob hi\n< sent\n\
         > send oBob hi\n< Error::Refused((45015, \"out of time\"))\n\
         > call GET /cgi-bin/user/info?openid=oBob\n< {{\"subscribe\":1}}\n\
         > typing oBob\n< *`! POST {url}{TYPING} -> 200 …`*\n\
         > call POST /cgi-bin/stable_token {{}}\n< Error::Denied(*\n"
    );
    let dir = setup.file("plugins/10-caller.txt", &conversation).written();
    let replayed = finish(aviary(dir.path(), &["chat", "--replay", "plugins/10-caller.txt"])).await;
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    // As a canary, it holds in the host, too.
    let checked = finish(aviary(dir.path(), &["check"])).await;
    assert!(checked.stdout.contains("10-caller.txt (5 replies as expected)"), "{}", checked.stdout);
    assert!(wechat.calls().is_empty() && wechat.count(STABLE_TOKEN) == 0);
}
