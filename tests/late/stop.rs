//! A host that stops leaves to the next one what it has not answered.

use super::{
    KV, SLOW, TRY, attempt, clocked, in_flight, push, put_off, read, replied, setup, text_of, three_tries, until,
    until_nothing_is_owed, with_api,
};
use crate::fake_wechat::{FakeWechat, SEND};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_sends_nothing_twice_and_asks_nobody_twice() {
    let fake = FakeWechat::start().await;
    let bot = with_api(&fake, "deliver = \"customer-service\"").settings(KV).start().await;
    assert_eq!(read(&bot, &push("o1", "my count")).await, "1");
    let send = fake.holds(SEND);
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    fake.until_called(SEND, 1).await;
    // What WeChat is just being sent is waited for; what it is not asked yet is left to the next host.
    assert_eq!(read(&bot, &push("o2", SLOW)).await, "");
    let stopping = bot.app.stopping.clone();
    let (bot, _) = tokio::join!(bot.restart(), async {
        stopping.cancelled().await;
        send.send_replace(true)
    });
    fake.until_sent(2).await;
    until_nothing_is_owed(&bot).await;
    let sent = fake.sent();
    let users: Vec<_> = sent.iter().map(|message| message["touser"].as_str().unwrap_or_default()).collect();
    assert_eq!(users, ["o1", "o2"]);
    let calls = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"replied\"} 0\n";
    assert!(bot.app.metrics().contains(calls), "nobody is asked again: {}", bot.app.metrics());
}

/// WeChat's first try is over and the next one not there yet: the bot's work is not done twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_that_stops_had_no_try_for_is_given_to_the_next_hosts() {
    let bot = clocked(4_500, "").start().await;
    let slow = push("o1", "wait 1500");
    assert_eq!(attempt(&bot, &slow).await, None);
    let bot = bot.restart().await;
    assert_eq!(three_tries(&bot, &slow).await, Some((1, "waited".into())));
    until_nothing_is_owed(&bot).await;
    assert_eq!(replied(&bot), 0, "nobody is asked again");
}

/// The same where the reply was there before the stop.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_next_try_when_the_host_stops_is_given_by_the_next_one() {
    let bot = clocked(4_500, "").start().await;
    let slow = push("o1", "wait 300");
    let (xml, simulator) = (slow.clone(), bot.simulator.clone());
    let open = tokio::spawn(async move { simulator.push(&xml).await });
    in_flight(&bot, 1).await;
    open.abort();
    in_flight(&bot, 0).await;
    let bot = bot.restart().await;
    assert_eq!(bot.shown(&bot.push(&slow).await), "waited");
    assert_eq!(replied(&bot), 0, "nobody is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_is_open_when_the_host_stops_is_answered() {
    let bot = setup("").start().await;
    let (xml, simulator) = (push("o1", "wait 1500"), bot.simulator.clone());
    let open = tokio::spawn(async move { simulator.push(&xml).await });
    in_flight(&bot, 1).await;
    let bot = bot.restart().await;
    let answer = open.await.expect("it does not panic").expect("it is answered");
    assert_eq!(bot.shown(&answer), "waited");
    assert_eq!(bot.owed().await, 0);
}

/// What no try comes for is not lost, whether the host that stopped had it made or was ended before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_that_stops_leaves_is_kept_where_no_try_comes() {
    // Whether WeChat hung up when the reply was late, or broke off before.
    for (shutdown_ms, hung_up_after) in [(60_000, TRY), (0, TRY), (0, TRY / 6)] {
        let bot = setup("").settings(&format!("[listener]\nshutdown_ms = {shutdown_ms}")).start().await;
        let mut wechat = bot.simulator.clone();
        wechat.timeout = hung_up_after;
        assert!(wechat.push(&push("o1", "wait 4000")).await.is_err(), "WeChat hung up");
        let bot = bot.restart().await;
        until(&bot, "kept", 1).await;
        until_nothing_is_owed(&bot).await;
        assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
        assert_eq!(replied(&bot), u64::from(shutdown_ms == 0));
    }
}

/// WeChat's first try is still open when the host is ended, and its last may be over when the next host is up.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_try_is_open_when_the_host_is_ended_is_left_to_the_next_one() {
    let bot = setup("").settings("[listener]\nshutdown_ms = 0").start().await;
    let (slow, simulator) = (push("o1", "wait 5000"), bot.simulator.clone());
    let open = tokio::spawn(async move { simulator.push(&slow).await });
    in_flight(&bot, 1).await;
    let bot = bot.restart().await;
    open.abort();
    until(&bot, "kept", 1).await;
    assert_eq!(read(&bot, &push("o1", "继续")).await, "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_the_host_stops_gets_the_reply_that_is_made_meanwhile() {
    let bot = setup("").settings("[listener]\nshutdown_ms = 60000").start().await;
    put_off(&bot, &push("o1", "wait 6000")).await;
    let (word, simulator) = (push("o1", "继续"), bot.simulator.clone());
    let open = tokio::spawn(async move { simulator.push(&word).await });
    in_flight(&bot, 2).await;
    let bot = bot.restart().await;
    let answer = open.await.expect("it does not panic").expect("it is answered");
    assert_eq!(bot.shown(&answer), "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_when_the_host_stopped_is_answered_by_the_next_one() {
    let fake = FakeWechat::start().await;
    let late = "deliver = \"customer-service\"";
    let bot = with_api(&fake, late).settings("[listener]\nshutdown_ms = 0").start().await;
    assert_eq!(read(&bot, &push("o1", "wait 3000")).await, "");
    let bot = bot.restart().await;
    assert_eq!(text_of(&fake.until_sent(1).await[0]), "waited");
    until_nothing_is_owed(&bot).await;
    assert_eq!(fake.sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_outlives_a_restart() {
    let bot = setup("").start().await;
    put_off(&bot, &push("o1", "wait 4000")).await;
    until(&bot, "kept", 1).await;
    let bot = bot.restart().await;
    assert_eq!(attempt(&bot, &push("o1", "继续")).await, Some("waited".into()));
}
