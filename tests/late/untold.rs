//! Who knows nothing of what is kept for them reads of it with the next answer.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{LOOK_AGAIN, SLOW, attempt, kept, metric, push, read, setup, until, with_api};
use crate::{
    bot::{Bot, PATIENCE},
    fake_wechat::{FakeWechat, SEND},
};

/// WeChat lets nobody write to this user before they write again: then they read of it, whatever they are answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_was_put_off_and_cannot_be_sent_to_reads_of_the_reply_with_the_next_answer() {
    for (words, told) in [("say hi", hi_and_more()), ("pass", KEPT_TEXT.to_owned())] {
        let fake = FakeWechat::start().await;
        fake.refuses(SEND, 48_001, "api unauthorized");
        let bot = with_api(&fake, "").start().await;
        assert_eq!(read(&bot, &push("o1", SLOW)).await, "", "it was to be sent");
        until(&bot, "kept", 1).await;
        assert_eq!(read(&bot, &push("o2", "say hi")).await, "hi", "another user has nothing");
        assert_eq!(read(&bot, &push("o1", words)).await, told);
        assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi", "it is told once");
        assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
    }
}

/// What closes an answer to somebody who knows nothing of a kept reply, or stands in the place of silence.
const KEPT_TEXT: &str = "（还有一条回复没看，回复“继续”查看）";

/// What a user reads who is answered `hi` and told of a kept reply.
fn hi_and_more() -> String {
    format!("hi\n    | \n    | {KEPT_TEXT}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_told_of_each_reply_that_they_know_nothing_of() {
    let fake = FakeWechat::start().await;
    fake.refuses(SEND, 45_047, "out of response count limit");
    let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
    for count in [1, 2] {
        assert_eq!(read(&bot, &push("o1", SLOW)).await, "", "it was to be sent");
        until(&bot, "kept", count).await;
    }
    for _ in 0..2 {
        assert_eq!(read(&bot, &push("o1", "say hi")).await, hi_and_more());
        assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
    }
    assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi");
}

/// The host that is started next has learnt it from the store when this returns.
async fn until_told(bot: &Bot) {
    let telling = async { while read(bot, &push("o1", "say hi")).await != hi_and_more() {} };
    timeout(PATIENCE, telling).await.expect("the user is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_knows_nothing_of_a_reply_is_told_after_a_restart_and_only_once() {
    let setup = setup("");
    kept(&setup, "waited", Duration::from_secs(60)).await;
    kept(&setup, "expired", Duration::ZERO).await;
    let bot = setup.start().await;
    until_told(&bot).await;
    assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi", "of what is there no more nobody is told");
    let expired = async {
        while bot.app.owes().await.expect("the store answers").dead == 0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, expired).await.expect("it is a dead letter");
    let bot = bot.restart().await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
    assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_fetches_what_the_user_was_just_told_of_also_while_they_read_a_long_text() {
    let setup = setup("");
    kept(&setup, "old", Duration::from_secs(60)).await;
    let bot = setup.start().await;
    attempt(&bot, &push("o1", "reply 5000")).await.expect("it is answered");
    assert!(read(&bot, &push("o1", "继续")).await.starts_with("xxx"), "of the other one they know nothing");
    until_told(&bot).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "old");
    assert!(read(&bot, &push("o1", "继续")).await.starts_with("xxx"), "the rest is there still");
}

/// A plugin has nothing to say, and says so when its message's tries are over: to tell of something kept is no reply of its
/// own.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_tells_of_a_kept_reply_is_told_by_a_try_or_with_the_next_answer() {
    let setup = setup("");
    kept(&setup, "old", Duration::from_secs(60)).await;
    let bot = setup.start().await;
    for words in ["wait 1500", "pass"] {
        assert_eq!(attempt(&bot, &push("o1", words)).await, None, "{words}");
    }
    let over = async {
        while !(bot.app.tasks.is_empty() && bot.app.ending.is_empty()) {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, over).await.expect("both are over");
    assert_eq!((metric(&bot, "kept"), bot.owed().await), (1, 0), "what waited, and nothing else");
    for _ in ["old", "waited"] {
        until_told(&bot).await;
    }
    assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_fetch_or_the_operator_says_so_nobody_is_told() {
    for late in ["fetch_words = []", "kept_text = \"\""] {
        let fake = FakeWechat::start().await;
        fake.refuses(SEND, 48_001, "api unauthorized");
        let bot = with_api(&fake, late).start().await;
        assert_eq!(read(&bot, &push("o1", SLOW)).await, "", "it was to be sent");
        until(&bot, "kept", 1).await;
        assert_eq!(read(&bot, &push("o1", "say hi")).await, "hi", "{late}");
    }
}
