//! Where the account may, a late reply is sent as a customer-service message.

use super::{SLOW, attempt, clocked, push, read, text_of, three_tries, until, until_nothing_is_owed, with_api};
use crate::{
    fake_wechat::{FakeWechat, SEND, TYPING},
    log::Log,
};

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
