//! The ladder of late replies, as stories: WeChat's clock is shortened by settings, its API is played over real HTTP.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aviary_host::{
    conversation::{Header, NoAnswer, Said},
    plugin::bindings::Reply,
    store::{
        Store,
        late::{Kept, Owed, new_id},
    },
};
use tokio::time::{sleep, timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, new_header},
    fake_wechat::{FakeWechat, SEND, TYPING},
    log::Log,
    plugins::MISBEHAVE,
    upstream::{Answer, Upstream},
};

/// How long a try is open here: WeChat's 5 s, shortened.
const TRY: Duration = Duration::from_millis(600);

/// What misses its try, also where a busy disk takes long to write down that it is owed: until then the try is left open.
const SLOW: &str = "wait 3000";

/// How many messages of one user are under way at most.
const MESSAGES_OF_ONE_USER_MAX: u64 = 16;

/// How soon to look again at numbers that nobody is told of.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Lets the plugin count.
const KV: &str = "[plugins.misbehave.grants]\nkv = true";

/// A bot that does what it is told, on WeChat's clock ten times as fast.
fn setup(late: &str) -> Setup {
    clocked(450, late)
}

/// The same with another window, and tries that have three of it.
fn clocked(window_ms: u32, late: &str) -> Setup {
    let clock = format!("window_ms = {window_ms}\nhold_ms = {}\nbackground_ms = 30000", window_ms * 3);
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(&format!("[late]\n{clock}\n{late}"))
}

/// The same with an account whose API is there.
fn with_api(fake: &FakeWechat, late: &str) -> Setup {
    setup(late).account(&fake.account())
}

/// A message of a user, in the notation of conversation files.
pub fn push(openid: &str, words: &str) -> String {
    let header = Header { from_user: openid.to_owned(), ..new_header() };
    Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}")).to_xml(&header)
}

/// One try: what came back while it was open.
async fn attempt(bot: &Bot, xml: &str) -> Option<String> {
    let mut wechat = bot.simulator.clone();
    wechat.timeout = TRY;
    match wechat.push(xml).await {
        Ok(answer) => Some(bot.shown(&answer)),
        Err(error) if error.is::<NoAnswer>() => None,
        Err(error) => panic!("{error:#}"),
    }
}

/// WeChat's three tries, each as the one before is over. Returns which was answered, and what the user reads.
async fn three_tries(bot: &Bot, xml: &str) -> Option<(usize, String)> {
    for number in 1..=3 {
        if let Some(reply) = attempt(bot, xml).await {
            return Some((number, reply));
        }
    }
    None
}

/// What a user reads who is put off and has to ask.
const WAITING_TEXT: &str = "还在想，稍后回复“继续”查看";

/// WeChat's tries of a message whose reply is not there in time, and more of them where a busy disk takes longer to write down that it
/// is owed: at last the user is told to ask.
async fn put_off(bot: &Bot, xml: &str) {
    assert_eq!(attempt_until_answered(bot, xml).await, WAITING_TEXT);
}

/// As many tries as it takes until one is answered.
async fn attempt_until_answered(bot: &Bot, xml: &str) -> String {
    let tries = async {
        loop {
            if let Some(told) = attempt(bot, xml).await {
                return told;
            }
        }
    };
    timeout(PATIENCE, tries).await.expect("a try is answered")
}

/// What the user reads, on whichever try: a busy disk may take longer than the first to write down what is owed.
pub async fn read(bot: &Bot, xml: &str) -> String {
    three_tries(bot, xml).await.expect("a try is answered").1
}

/// A number of `/metrics`.
fn metric(bot: &Bot, step: &str) -> u64 {
    let name = format!("aviary_late_total{{account=\"main\",step=\"{step}\"}} ");
    let text = bot.app.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name.as_str())).unwrap_or_else(|| panic!("{text}"));
    line.parse().expect("it is a number")
}

/// Waits until a step of the ladder was taken so often.
pub async fn until(bot: &Bot, step: &str, count: u64) {
    let waiting = async {
        while metric(bot, step) < count {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("`{step}` did not happen"));
}

pub fn text_of(message: &serde_json::Value) -> &str {
    message["text"]["content"].as_str().unwrap_or_else(|| panic!("{message} is no text"))
}

// The next try

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

/// The first word's connection is gone when the reply is there; until it is clear that none of its tries comes, nobody knows whether
/// the user has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_finds_another_word_with_the_reply_waits_for_what_comes_of_it() {
    let late = "[late]\nwindow_ms = 450\nhold_ms = 450\nbackground_ms = 30000";
    let bot = Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(late).start().await;
    put_off(&bot, &push("o1", "wait 3000")).await;
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

/// Waits until so many messages are under way.
async fn in_flight(bot: &Bot, count: usize) {
    let waiting = async {
        while bot.app.tasks.len() != count {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("they get there");
}

// Customer service

#[tokio::test(flavor = "multi_thread")]
async fn where_the_account_may_a_late_reply_is_sent_once_and_the_user_sees_typing() {
    let fake = FakeWechat::start().await;
    let bot = with_api(&fake, "").start().await;
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    let sent = fake.until_sent(1).await;
    assert_eq!((sent[0]["touser"].as_str(), text_of(&sent[0])), (Some("o1"), "waited"));
    assert!(fake.count(TYPING) >= 1);
    until_nothing_is_owed(&bot).await;
    assert_eq!(fake.sent().len(), 1);
}

/// Waits until nothing is written down as owed.
pub async fn until_nothing_is_owed(bot: &Bot) {
    let waiting = async {
        while bot.owed().await > 0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_the_right_is_asked_once_and_goes_by_the_next_try() {
    let fake = FakeWechat::start().await;
    fake.refuses(TYPING, 48_001, "api unauthorized");
    let bot = with_api(&fake, "").start().await;
    for openid in ["o1", "o2"] {
        let (number, reply) = three_tries(&bot, &push(openid, "wait 700")).await.expect("it is answered");
        assert_eq!((number > 1, reply.as_str()), (true, "waited"));
    }
    assert_eq!(fake.count(TYPING), 1);
    assert_eq!(fake.sent().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_about_one_user_says_nothing_against_the_account() {
    let fake = FakeWechat::start().await;
    fake.refuses_times(TYPING, 1, 45_015, "response out of time limit");
    let bot = with_api(&fake, "").start().await;
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    assert_eq!(text_of(&fake.until_sent(1).await[0]), "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_the_user_cannot_get_now_becomes_a_kept_reply() {
    for code in [45_015, 45_047, 48_001] {
        let fake = FakeWechat::start().await;
        fake.refuses(SEND, code, "refused");
        let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
        assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
        until(&bot, "kept", 1).await;
        assert_eq!(attempt(&bot, &push("o1", "继续")).await, Some("waited".into()), "{code}");
    }
}

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

/// A plugin has nothing to say, and says so when its message's tries are over: to tell of something kept is no reply of its own.
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

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since_1970.as_millis()).expect("it is not the far future")
}

/// Lays a reply into the store of which its user knows nothing.
async fn kept(setup: &Setup, text: &str, for_so_long: Duration) {
    let store = Store::open(&setup.path("data")).expect("nobody has it yet");
    let until_ms = now_ms() + u64::try_from(for_so_long.as_millis()).expect("it is not the far future");
    let (account, openid, reply) = ("main".into(), "o1".into(), Reply::Text(text.to_owned()));
    let kept = Kept { account, openid, reply, has_more: false, shown_ms: 0, until_ms, is_untold: true };
    store.keep(None, vec![kept], Instant::now() + PATIENCE).await.expect("it is written");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_wechat_is_tried_again_until_it_takes_the_message() {
    let fake = FakeWechat::start().await;
    fake.refuses_times(SEND, 6, -1, "system error");
    let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    assert_eq!(text_of(&fake.until_sent(1).await[0]), "waited");
}

/// Whether WeChat took it nobody can know: better twice than not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_whose_acceptance_is_lost_on_its_way_is_sent_once_more() {
    let fake = FakeWechat::start().await;
    fake.drops_next(SEND);
    let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    assert_eq!(fake.until_sent(2).await.iter().map(text_of).collect::<Vec<_>>(), ["waited", "waited"]);
    until_nothing_is_owed(&bot).await;
    assert_eq!(fake.sent().len(), 2);
}

#[tokio::test]
async fn a_user_who_left_makes_a_dead_letter_with_wechats_words_and_what_they_mean() {
    let log = Log::capture();
    let fake = FakeWechat::start().await;
    fake.refuses(SEND, 43_004, "require subscribe");
    let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    until(&bot, "dead", 1).await;
    until_nothing_is_owed(&bot).await;
    let told = log.lines("A late reply of account `main` was not delivered: WeChat refused: 43004 require subscribe; ");
    assert!(told.len() == 1 && told[0].contains("the user does not follow the account; see `aviary late`"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_long_text_is_sent_where_the_account_may() {
    let fake = FakeWechat::start().await;
    let bot = with_api(&fake, "").start().await;
    let first = attempt(&bot, &push("o1", "reply 5000")).await.expect("it is answered");
    let sent = fake.until_sent(2).await;
    let whole = first.len() + sent.iter().map(|message| text_of(message).len()).sum::<usize>();
    assert_eq!((whole, first.contains("未完")), (5_000, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_is_not_overtaken_by_the_answer_to_what_its_user_said_after() {
    let fake = FakeWechat::start().await;
    let bot = with_api(&fake, "deliver = \"customer-service\"").start().await;
    let send = fake.holds(SEND);
    assert_eq!(read(&bot, &push("o1", SLOW)).await, "");
    fake.until_called(SEND, 1).await;
    // WeChat has not taken the first reply yet, and the second would be there at once.
    assert_eq!(read(&bot, &push("o1", "say second")).await, "", "it is put off, too");
    send.send_replace(true);
    assert_eq!(fake.until_sent(2).await.iter().map(text_of).collect::<Vec<_>>(), ["waited", "second"]);
}

#[tokio::test]
async fn what_cannot_be_sent_holds_up_nothing_and_the_operator_is_told_once_with_advice() {
    let log = Log::capture();
    let fake = FakeWechat::start().await;
    fake.refuses(SEND, 40_164, "invalid ip 1.2.3.4, not in whitelist");
    let bot = with_api(&fake, "").start().await;
    for openid in ["o1", "o2"] {
        assert_eq!(read(&bot, &push(openid, SLOW)).await, "");
    }
    until(&bot, "sent_again", 2).await;
    let told = log.lines("Late replies of account `main` cannot be sent now, and are tried again: ");
    assert!(told.len() == 1 && told[0].contains("add 1.2.3.4 to the IP whitelist"), "{told:?}");
    // From now on it goes by the next try, and what was put off before is sent once the operator has seen to it.
    assert_eq!(three_tries(&bot, &push("o1", "wait 700")).await.map(|(_, reply)| reply), Some("waited".into()));
    fake.allows(SEND);
    assert_eq!(fake.until_sent(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_longer_than_wechat_takes_messages_is_kept_from_there_on_and_says_so() {
    let fake = FakeWechat::start().await;
    let bot = with_api(&fake, "").start().await;
    let first = attempt(&bot, &push("o1", "reply 12000")).await.expect("it is answered");
    let sent = fake.until_sent(3).await;
    let more = "（未完，回复“继续”看下文）";
    assert_eq!(sent.iter().map(|part| text_of(part).ends_with(more)).collect::<Vec<_>>(), [false, false, true]);
    let fifth = read(&bot, &push("o1", "继续")).await;
    let sixth = read(&bot, &push("o1", "继续")).await;
    let parts = sent.iter().map(text_of).chain([first.as_str(), &fifth, &sixth]);
    assert_eq!(parts.map(|part| part.trim_end_matches(more).len()).sum::<usize>(), 12_000);
    assert_eq!(fake.sent().len(), 3);
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

// A restart

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

/// How often the plugin replied to this host.
fn replied(bot: &Bot) -> u64 {
    let name = "aviary_plugin_calls_total{account=\"main\",plugin=\"misbehave\",outcome=\"replied\"} ";
    let text = bot.app.metrics();
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

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
async fn a_plugin_is_told_where_nothing_late_can_reach_its_user() {
    let bot = setup("fetch_words = []").start().await;
    let info = read(&bot, &push("o1", "info")).await;
    assert!(info.ends_with(" false 1"), "{info}");
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

// The race

/// The reply comes as the window closes: told by the try or sent, and never both or neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_comes_as_the_window_closes_reaches_its_user_once() {
    const MESSAGES: usize = 300;
    let fake = FakeWechat::start().await;
    let bot = clocked(100, "deliver = \"customer-service\"").account(&fake.account()).start().await;
    let mut told = 0;
    for round in 0..MESSAGES {
        let openid = format!("o{round}");
        // On a busy disk WeChat hangs up while it is written down, and a later try is told.
        told += usize::from(read(&bot, &push(&openid, &format!("wait {}", 90 + round % 20))).await == "waited");
    }
    until_nothing_is_owed(&bot).await;
    let sent = fake.until_sent(MESSAGES - told).await;
    assert_eq!(told + sent.len(), MESSAGES);
    assert!(!sent.is_empty(), "the window never closed first");
}
