//! `aviary api`: what an operator asks WeChat, beside a host that runs.

use std::{fs, time::Instant};

use aviary_host::api::Method;
use tempfile::TempDir;

use crate::{
    bot::{PATIENCE, Setup, TOKEN},
    fake_wechat::{ACCESS_TOKEN, APP_ID, APP_SECRET, FakeWechat, STABLE_TOKEN},
    process::{Finished, aviary, finish, finish_with},
};

/// A bot directory whose account uses this API.
fn bot(wechat: &FakeWechat) -> TempDir {
    Setup::new().account(&wechat.account()).written()
}

async fn api(dir: &TempDir, args: &[&str]) -> Finished {
    let finished = finish(aviary(dir.path(), &[&["api"], args].concat())).await;
    for hidden in [ACCESS_TOKEN, APP_SECRET] {
        assert!(!finished.stdout.contains(hidden) && !finished.stderr.contains(hidden), "{finished:?}");
    }
    finished
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_prints_what_wechat_answers() {
    let wechat = FakeWechat::start().await;
    let got = api(&bot(&wechat), &["get", "/cgi-bin/user/info?openid=oAnn&lang=zh_CN"]).await;
    assert_eq!(got.code, Some(0), "{}", got.stderr);
    assert_eq!(got.stdout, "{\"language\":\"zh_CN\",\"openid\":\"oAnn\",\"subscribe\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_posted_from_a_file_standard_input_or_the_line_itself() {
    let wechat = FakeWechat::start().await;
    let dir = bot(&wechat);
    let message = "{\"touser\":\"oAnn\",\"msgtype\":\"text\",\"text\":{\"content\":\"你好\"}}";
    fs::write(dir.path().join("message.json"), message).unwrap();
    fs::write(dir.path().join("notepad.json"), format!("\u{feff}{message}")).unwrap();
    let path = "/cgi-bin/message/custom/send";
    for data in ["message.json", "notepad.json", message, &message.replace("你", "\\u4f60")] {
        let posted = api(&dir, &["POST", path, "--data", data]).await;
        assert_eq!(
            (posted.code, posted.stdout.as_str()),
            (Some(0), "{\"errcode\":0,\"errmsg\":\"ok\"}"),
            "{}",
            posted.stderr
        );
    }
    let piped = finish_with(aviary(dir.path(), &["api", "POST", path, "--data", "-"]), message).await;
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    let sent = wechat.sent();
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|sent| sent["text"]["content"] == "你好"), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_up_and_come_down() {
    let wechat = FakeWechat::start().await;
    let dir = bot(&wechat);
    let picture = [0xff, 0xd8, 0xff, 0, b'\r', b'\n', b'-', b'-'];
    fs::write(dir.path().join("picture.jpg"), picture).unwrap();
    let up = api(&dir, &["POST", "/cgi-bin/media/upload?type=image", "--form", "media=@picture.jpg"]).await;
    assert!(up.code == Some(0) && up.stdout.contains("\"media_id\":\"MEDIA_1\""), "{up:?}");
    let down = api(&dir, &["GET", "/cgi-bin/media/get?media_id=MEDIA_1", "-o", "copy.jpg"]).await;
    assert_eq!(down.code, Some(0), "{}", down.stderr);
    assert_eq!(down.stderr, "copy.jpg: 8 bytes image/jpeg\n");
    assert_eq!(fs::read(dir.path().join("copy.jpg")).unwrap(), picture);
    let gone = api(&dir, &["GET", "/cgi-bin/media/get?media_id=MEDIA_2", "-o", "none.jpg"]).await;
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stderr.starts_with("error: WeChat refused: 40007 invalid media_id; there is no such media"),
        "{gone:?}"
    );
    assert!(!dir.path().join("none.jpg").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wechat_refuses_comes_with_advice_and_exit_status_1() {
    let wechat = FakeWechat::start().await;
    wechat.refuses(STABLE_TOKEN, 40164, "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist");
    let refused = api(&bot(&wechat), &["GET", "/cgi-bin/user/info?openid=oAnn"]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("; add 1.2.3.4 to the IP whitelist"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_before_anything_is_called() {
    let wechat = FakeWechat::start().await;
    let dir = bot(&wechat);
    fs::write(dir.path().join("gbk.json"), b"{\"name\":\"\xc4\xe3\"}").unwrap();
    for (args, told) in [
        (&["DELETE", "/cgi-bin/x"][..], "it is GET or POST"),
        (&["GET", "cgi-bin/x"], "the path must begin with `/`"),
        (&["GET", "/cgi-bin/../x"], "between single slashes"),
        (&["GET", "/cgi-bin/x?access_token=T"], "is added by this command"),
        (&["GET", "/cgi-bin/x", "--data", "{}"], "a GET has no body"),
        (&["POST", "/cgi-bin/x", "--data", "{no"], "is no JSON"),
        (&["POST", "/cgi-bin/x", "--data", ""], "`--data` is empty; name a file"),
        (&["GET", "/cgi-bin/x", "-o", "."], ". is a directory; name a file in it for the answer"),
        (&["GET", "/cgi-bin/x", "-o", "nowhere/answer.jpg"], "the directory of nowhere/answer.jpg is not there"),
        (&["POST", "/cgi-bin/x", "--data", "nowhere.json"], "nowhere.json cannot be read"),
        (&["POST", "/cgi-bin/x", "--form", "media=@nowhere.jpg"], "nowhere.jpg cannot be read"),
        (&["POST", "/cgi-bin/x", "--data", "gbk.json"], "gbk.json is not UTF-8 text"),
        (&["POST", "/cgi-bin/x", "--data", "/dev/zero"], "/dev/zero cannot be read: it is larger than 32 MiB"),
        (&["POST", "/cgi-bin/x", "--form", "media=@/dev/zero"], "/dev/zero cannot be read: it is larger than 32 MiB"),
        (&["POST", "/cgi-bin/x", "--form", "media"], "has no `=`"),
        (&["GET", "/cgi-bin/x", "--account", "shop"], "there is no account `shop`; there are main"),
        (&["GET", "/cgi-bin/x", "--config", "nowhere.toml"], "nowhere.toml"),
    ] {
        let refused = api(&dir, args).await;
        assert_eq!(refused.code, Some(2), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(told), "{args:?}: {}", refused.stderr);
    }
    assert!(wechat.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_accounts_one_is_chosen() {
    let wechat = FakeWechat::start().await;
    let shop = format!("[accounts.shop]\npath = \"/shop\"\ntoken = \"{TOKEN}\"\n{}", wechat.account());
    let dir = Setup::new().account(&format!("app_id = \"{APP_ID}\"")).settings(&shop).written();
    let info = "/cgi-bin/user/info?openid=oAnn";
    assert!(api(&dir, &["GET", info]).await.stderr.contains("choose one with `--account`: main, shop"));
    let none = api(&dir, &["GET", info, "--account", "main"]).await;
    assert_eq!(none.stderr, "error: `accounts.main.app_secret` is missing\n");
    let dir = Setup::new().settings(&shop).written();
    let none = api(&dir, &["GET", info, "--account", "main"]).await;
    assert_eq!(none.stderr, "error: `accounts.main.app_id` and `accounts.main.app_secret` are missing\n");
    assert_eq!(api(&dir, &["GET", info, "--account", "shop"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_runs_keeps_its_token_whichever_kind_it_has() {
    for kind in ["stable_token", "token"] {
        let wechat = FakeWechat::start().await;
        let account = format!("{}access_token_from = \"{kind}\"", wechat.account());
        let bot = Setup::new().account(&account).start().await;
        let host = bot.app.live().named("main").unwrap().api.clone().unwrap();
        let query = [("openid".to_owned(), "oAnn".to_owned())];
        let deadline = || Instant::now() + PATIENCE;
        host.call(Method::Get, "/cgi-bin/user/info", &query, None, deadline()).await.unwrap();
        let beside = finish(aviary(bot.dir(), &["api", "GET", "/cgi-bin/user/info?openid=oBob"])).await;
        assert_eq!(beside.code, Some(0), "{}", beside.stderr);
        host.call(Method::Get, "/cgi-bin/user/info", &query, None, deadline()).await.unwrap();
        assert_eq!(wechat.count("/cgi-bin/user/info"), 3, "{kind}: nobody was refused");
    }
}
