//! Whoever may not be sent anything: the tries are left open, and the reply goes out on whichever is open then.

use super::{
    KV, WAITING_TEXT, attempt, attempt_until_answered, in_flight, metric, push, read, setup, three_tries, until,
};
use crate::{
    bot::Setup,
    plugins::MISBEHAVE,
    upstream::{Answer, Upstream},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_time_is_the_passive_reply() {
    let bot = setup("").start().await;
    assert_eq!(three_tries(&bot, &push("o1", "say hi")).await, Some((1, "hi".into())));
    assert_eq!(metric(&bot, "next_try"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_goes_out_on_a_later_try_and_the_plugin_is_asked_once() {
    let bot = setup("").start().await;
    let (number, reply) = three_tries(&bot, &push("o1", "wait 700")).await.expect("a try is answered");
    assert_eq!((number > 1, reply.as_str()), (true, "waited"));
    let calls = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"replied\"} 1\n";
    assert!(bot.app.metrics().contains(calls), "{}", bot.app.metrics());
    assert_eq!(metric(&bot, "next_try"), 1);
}

/// To what happens by itself no waiting text fits; what is made of it can be fetched all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_waits_for_is_put_off_without_a_word() {
    let webhook = Upstream::plain(|_| Answer::Stop(Vec::new())).await;
    let late = "[late]\nwindow_ms = 450\nhold_ms = 1350\nbackground_ms = 60000";
    let account = format!("forward = \"{}\"", webhook.origin());
    let bot = Setup::new().settings(late).account(&account).start().await;
    assert_eq!(attempt_until_answered(&bot, &push("o1", "[LOCATION 23.1 113.3 65]")).await, "");
    assert_eq!((metric(&bot, "put_off"), metric(&bot, "waiting"), bot.owed().await), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_a_ladder_of_its_own() {
    let late = "late.waiting_text = \"请稍候\"\nlate.window_ms = 300\nlate.hold_ms = 300";
    let bot = setup("waiting_text = \"\"").account(late).start().await;
    assert_eq!(attempt_until_answered(&bot, &push("o1", "wait 4000")).await, "请稍候");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_user_are_answered_in_order_while_others_go_ahead() {
    let bot = setup("").settings(KV).start().await;
    let mut open = Vec::new();
    for number in 0..=10 {
        let (xml, simulator) = (push("o1", if number == 0 { "wait 1500" } else { "my count" }), bot.simulator.clone());
        open.push(tokio::spawn(async move { simulator.push(&xml).await }));
        in_flight(&bot, number + 1).await;
    }
    assert_eq!(attempt(&bot, &push("o2", "my count")).await, Some("1".into()));
    let mut replies = Vec::new();
    for answer in open {
        let answer = answer.await.expect("it does not panic").expect("it is answered");
        replies.push(bot.shown(&answer));
    }
    assert_eq!(replies, ["waited", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
}

/// Two tries of one message run out in the same moment, as they do where WeChat's came twice: both are told to wait, and the
/// user who asks then waits for the reply, and asks the plugin nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_two_tries_put_off_together_can_still_ask() {
    let late = "[late]\nwindow_ms = 450\nhold_ms = 450\nbackground_ms = 30000";
    let bot = Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(late).start().await;
    let slow = push("o1", "wait 2500");
    let told = tokio::join!(attempt(&bot, &slow), attempt(&bot, &slow));
    let words = Some(WAITING_TEXT.to_owned());
    assert_eq!(told, (words.clone(), words));
    assert_eq!(attempt(&bot, &push("o1", "继续")).await.as_deref(), Some(WAITING_TEXT));
    until(&bot, "kept", 1).await;
    assert_eq!(attempt(&bot, &push("o1", "继续")).await, Some("waited".into()));
    // What was asked of the plugin before is over by now.
    assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi");
    let passed = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"passed\"} 0\n";
    assert!(bot.app.metrics().contains(passed), "{}", bot.app.metrics());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_told_where_nothing_late_can_reach_its_user() {
    let bot = setup("fetch_words = []").start().await;
    let info = read(&bot, &push("o1", "info")).await;
    assert!(info.ends_with(" false 1"), "{info}");
}
