//! A bot of before that is slow: its replies arrive late as a plugin's do, though it knows nothing of that.

use super::Webhook;
use crate::{
    bot::{Bot, Setup},
    crash,
    fake_wechat::FakeWechat,
    late::{push, read, text_of, until, until_nothing_is_owed},
};

/// WeChat's clock, made faster than the bot.
fn setup(flask: &Webhook, late: &str) -> Setup {
    let clock = "[late]\nwindow_ms = 450\nhold_ms = 450\nbackground_ms = 60000";
    Setup::new().settings(&format!("{clock}\n{late}")).account(&format!("forward = \"{}\"", flask.url))
}

async fn start(flask: &Webhook, wechat: &FakeWechat) -> Bot {
    setup(flask, "deliver = \"customer-service\"").account(&wechat.account()).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn its_late_reply_is_sent_by_customer_service_once() {
    let (mut flask, wechat) = (Webhook::start("flask_bot.py").await, FakeWechat::start().await);
    let bot = start(&flask, &wechat).await;
    assert_eq!(read(&bot, &push("o1", "slow 2")).await, "");
    let sent = wechat.until_sent(1).await;
    assert_eq!((sent[0]["touser"].as_str(), text_of(&sent[0])), (Some("o1"), "你说：slow 2"));
    until_nothing_is_owed(&bot).await;
    read(&bot, &push("o2", "再见")).await;
    assert_eq!((wechat.sent().len(), flask.asked("slow", "再见").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_late_reply_is_kept_and_fetched_where_the_account_may_not_send() {
    let mut flask = Webhook::start("flask_bot.py").await;
    let bot = setup(&flask, "").start().await;
    assert_eq!(read(&bot, &push("o1", "slow 2")).await, "还在想，稍后回复“继续”查看");
    until(&bot, "kept", 1).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "你说：slow 2");
    read(&bot, &push("o1", "再见")).await;
    assert_eq!((flask.asked("slow", "再见").await, flask.asked("继续", "再见").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_was_asked_when_the_host_was_killed_it_is_asked_again_and_the_user_gets_the_reply() {
    let (mut flask, wechat) = (Webhook::start("flask_bot.py").await, FakeWechat::start().await);
    let settings = "listen = \"127.0.0.1:0\"\n[late]\ndeliver = \"customer-service\"\nwindow_ms = 450";
    let setup = Setup::new().settings(settings).account(&wechat.account());
    let dir = setup.account(&format!("forward = \"{}\"", flask.url)).written();
    let (running, host) = crash::start(dir.path()).await;
    let answer = host.push(&push("o1", "slow 2")).await.expect("it is put off");
    assert_eq!(host.reply(&answer).expect("WeChat reads it"), None);
    running.kill().await;
    assert_eq!(wechat.sent().len(), 0);
    let (running, host) = crash::start(dir.path()).await;
    let sent = wechat.until_sent(1).await;
    assert_eq!((sent[0]["touser"].as_str(), text_of(&sent[0])), (Some("o1"), "你说：slow 2"));
    host.push(&push("o2", "再见")).await.expect("it is answered");
    assert_eq!(flask.asked("slow", "再见").await, 2);
    assert_eq!(running.terminate().await, Some(0));
}
