//! What a host that was killed owed is answered by the next one.

use std::time::{Duration, Instant};

use aviary_host::{
    plugin::bindings::Reply,
    store::{
        Store,
        late::{Owed, new_id},
    },
};

use super::{clocked, now_ms, push, read, replied, setup, text_of, until, until_nothing_is_owed, with_api};
use crate::{
    bot::{PATIENCE, Setup},
    fake_wechat::{FakeWechat, TYPING},
};

/// How many messages of one user are under way at most.
const MESSAGES_OF_ONE_USER_MAX: u64 = 16;

/// Lays a message into the store, as a host that was killed leaves it.
async fn owed(setup: &Setup, words: &str, is_asked_for: bool, reply: Option<&str>) {
    let reply = reply.map(|text| vec![Reply::Text(text.to_owned())]);
    lay(setup, Owed { is_asked_for, reply, ..message(words) }).await;
}

/// Lays a message into the store of which one try came, and was told nothing.
async fn left(setup: &Setup, words: &str, reply: Option<&str>) {
    let reply = reply.map(|text| vec![Reply::Text(text.to_owned())]);
    lay(setup, Owed { tries: 1, is_for_next_try: true, reply, ..message(words) }).await;
}

fn message(words: &str) -> Owed {
    Owed {
        account: "main".into(),
        openid: "o1".into(),
        xml: push("o1", words),
        is_sealed: false,
        arrived_ms: now_ms(),
        attempt: 1,
        tries: 3,
        is_asked_for: false,
        is_for_next_try: false,
        reply: None,
    }
}

async fn lay(setup: &Setup, owed: Owed) {
    let store = Store::open(&setup.path("data")).expect("nobody has it yet");
    store.owe(new_id(), owed, Instant::now() + PATIENCE).await.expect("it is written");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_asked_again_after_a_crash_is_told_so() {
    let fake = FakeWechat::start().await;
    let setup = with_api(&fake, "deliver = \"customer-service\"");
    owed(&setup, "info", false, None).await;
    let bot = setup.start().await;
    let sent = fake.until_sent(1).await;
    let info: Vec<_> = text_of(&sent[0]).split(' ').collect();
    assert_eq!(info[1..], ["true", "2"], "whether it may be late, and the attempt");
    until_nothing_is_owed(&bot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_owed_is_sent_though_wechat_does_not_say_yet_what_the_account_may() {
    let fake = FakeWechat::start().await;
    fake.refuses(TYPING, -1, "system error");
    let setup = with_api(&fake, "");
    owed(&setup, "hi", false, Some("late")).await;
    let bot = setup.start().await;
    assert_eq!(read(&bot, &push("o2", "say hi")).await, "hi", "and nobody waits for that");
    assert_eq!(text_of(&fake.until_sent(1).await[0]), "late");
}

/// It was left to WeChat's next try, and no host was there for any of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_whose_tries_are_over_when_the_next_host_is_up_is_sent() {
    let fake = FakeWechat::start().await;
    let setup = with_api(&fake, "deliver = \"customer-service\"");
    let reply = Some(vec![Reply::Text("late".to_owned())]);
    let arrived_ms = now_ms() - 20_000;
    lay(&setup, Owed { tries: 1, is_for_next_try: true, arrived_ms, reply, ..message("hi") }).await;
    let bot = setup.start().await;
    assert_eq!(text_of(&fake.until_sent(1).await[0]), "late");
    until_nothing_is_owed(&bot).await;
    assert_eq!(fake.sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_word_that_was_owed_waits_for_nobody_and_is_asked_about_like_a_text() {
    let setup = setup("");
    owed(&setup, "继续", true, None).await;
    let bot = setup.start().await;
    until_nothing_is_owed(&bot).await;
    assert_eq!(read(&bot, &push("o1", "say next")).await, "next");
}

/// With WeChat's own times: what waited for a next try of the message would come after the word's try is over.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_the_message_is_asked_about_again_gets_the_reply_on_the_words_open_try() {
    let setup = clocked(4_500, "");
    owed(&setup, "wait 300", true, None).await;
    let bot = setup.start().await;
    let mut wechat = bot.simulator.clone();
    wechat.timeout = Duration::from_secs(5);
    let answer = wechat.push(&push("o1", "继续")).await.expect("it is answered before WeChat hangs up");
    assert_eq!(bot.shown(&answer), "waited");
}

/// The same where nobody was told anything before the host stopped: the user asks of their own accord, and no plugin is.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_a_reply_waits_for_wechats_next_try_gets_it() {
    for reply in [Some("late"), None] {
        let setup = clocked(4_500, "");
        left(&setup, "say late", reply).await;
        let bot = setup.start().await;
        let mut wechat = bot.simulator.clone();
        wechat.timeout = Duration::from_secs(5);
        let answer = wechat.push(&push("o1", "继续")).await.expect("it is answered before WeChat hangs up");
        assert_eq!(bot.shown(&answer), "late");
        assert_eq!(replied(&bot), u64::from(reply.is_none()));
    }
}

/// A reply that was to be fetched is kept anew by the next host, and whoever asks before that is done waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_before_a_reply_is_kept_again_gets_it() {
    let setup = setup("");
    owed(&setup, "say late", true, Some("late")).await;
    let bot = setup.start_unloaded().await;
    let (fetch, simulator) = (push("o1", "继续"), bot.simulator.clone());
    let answer = simulator.push(&fetch).await.expect("it is answered");
    assert_eq!(bot.shown(&answer), "late");
}

/// More than a user's queue takes: what is not answered is a dead letter, and not gone without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_place_in_its_users_queue_after_a_restart_is_a_dead_letter() {
    let setup = setup("");
    let store = Store::open(&setup.path("data")).expect("nobody has it yet");
    for _ in 0..=MESSAGES_OF_ONE_USER_MAX {
        let owed = Owed { is_asked_for: true, ..message("say hi") };
        store.owe(new_id(), owed, Instant::now() + PATIENCE).await.expect("it is written");
    }
    store.close().await;
    drop(store);
    let bot = setup.start().await;
    until(&bot, "dead", 1).await;
    until(&bot, "kept", MESSAGES_OF_ONE_USER_MAX).await;
    until_nothing_is_owed(&bot).await;
}
