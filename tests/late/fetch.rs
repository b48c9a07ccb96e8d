//! What came too late for its tries is kept, and its user fetches it.

use std::time::Duration;

use tokio::time::timeout;

use super::{WAITING_TEXT, attempt, in_flight, kept, metric, push, put_off, read, replied, setup, three_tries, until};
use crate::{bot::PATIENCE, log::Log};

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_three_tries_is_kept_until_its_user_asks() {
    let bot = setup("").start().await;
    let slow = push("o1", "wait 4000");
    put_off(&bot, &slow).await;
    // A try that comes after all is told the same.
    assert_eq!(attempt(&bot, &slow).await, Some(WAITING_TEXT.into()));
    until(&bot, "kept", 1).await;
    let fetch = push("o1", "继续");
    assert_eq!(attempt(&bot, &fetch).await, Some("waited".into()));
    assert_eq!(attempt(&bot, &fetch).await, Some("waited".into()), "WeChat's next try of the same word");
    assert_eq!(read(&bot, &push("o2", "继续")).await, "", "another user has nothing");
    assert_eq!(
        three_tries(&bot, &push("o1", "继续")).await,
        Some((1, String::new())),
        "with nothing kept it is a text"
    );
    assert_eq!(metric(&bot, "fetched"), 1);
}

#[tokio::test]
async fn the_log_says_who_was_told_to_wait_and_who_fetched_what_was_kept() {
    let log = Log::capture();
    let bot = setup("").start().await;
    put_off(&bot, &push("o1", "wait 4000")).await;
    until(&bot, "kept", 1).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
    for told in ["was told to wait", "fetched a reply that was kept"] {
        let lines = log.lines(told);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(": User ") && !lines[0].contains("o1"), "{}", lines[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_before_it_is_there_waits_for_it() {
    let bot = setup("").start().await;
    put_off(&bot, &push("o1", "wait 4000")).await;
    // It comes within the word's tries, or the user is told to wait once more.
    let asking =
        async { while three_tries(&bot, &push("o1", "继续")).await.is_none_or(|(_, told)| told != "waited") {} };
    timeout(PATIENCE, asking).await.expect("it is there at last");
    assert_eq!(replied(&bot), 1, "the plugin was asked once, and never about the word");
    let passed = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"passed\"} 0\n";
    assert!(bot.app.metrics().contains(passed), "{}", bot.app.metrics());
}

/// The fetch word does not wait for what its user asked before it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_what_is_kept_overtakes_what_they_sent_before() {
    let setup = setup("");
    kept(&setup, "old", Duration::from_secs(60)).await;
    let bot = setup.start().await;
    let (slow, simulator) = (push("o1", "sleep 1"), bot.simulator.clone());
    let before = tokio::spawn(async move { simulator.push(&slow).await });
    in_flight(&bot, 1).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "old");
    assert_eq!(bot.app.tasks.len(), 1, "the one before it is still under way");
    before.abort();
}

/// The first word's connection is gone when the reply is there; until it is clear that none of its tries comes, nobody knows
/// whether the user has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_finds_another_word_with_the_reply_waits_for_what_comes_of_it() {
    let bot = setup("").start().await;
    put_off(&bot, &push("o1", "wait 5000")).await;
    let (word, mut wechat) = (push("o1", "继续"), bot.simulator.clone());
    wechat.timeout = Duration::from_millis(100);
    assert!(wechat.push(&word).await.is_err(), "WeChat hung up");
    until(&bot, "kept", 1).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_read_in_parts_with_the_same_word() {
    let bot = setup("").start().await;
    let first = attempt(&bot, &push("o1", "reply 5000")).await.expect("it is answered");
    let more = "（未完，回复“继续”看下文）";
    assert!(first.len() <= 2_048 && first.ends_with(more), "{first}");
    let second = attempt(&bot, &push("o1", "继续")).await.expect("it is answered");
    assert!(second.ends_with(more), "{second}");
    let third = attempt(&bot, &push("o1", "继续")).await.expect("it is answered");
    let whole: usize = [&first, &second, &third].iter().map(|part| part.trim_end_matches(more).len()).sum();
    assert_eq!(whole, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_fetches_what_the_user_was_told_of_last_and_not_the_rest_of_an_older_text() {
    let bot = setup("").start().await;
    attempt(&bot, &push("o1", "reply 5000")).await.expect("it is answered");
    put_off(&bot, &push("o1", "wait 4000")).await;
    until(&bot, "kept", 2).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
    assert!(read(&bot, &push("o1", "继续")).await.starts_with("xxx"), "the rest is there still");
}
