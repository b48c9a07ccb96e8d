//! What became of late replies, as the operator sees and steers it: `aviary late`, run as people run it.

use std::time::{Duration, Instant};

use aviary_host::{
    control::{self, Socket},
    conversation::{Header, Said},
    plugin::bindings::Reply,
    store::{Store, late::Dead},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, new_header},
    fake_wechat::{FakeWechat, SEND},
    plugins::MISBEHAVE,
    process::{Finished, aviary, finish},
};

/// A user whose name must not be shown.
const OPENID: &str = "oWhoLeft0123456789";

/// A bot that misses the window, and whose account may send customer-service messages.
fn setup(fake: &FakeWechat) -> Setup {
    let late = "[late]\ndeliver = \"customer-service\"\nwindow_ms = 300\nbackground_ms = 60000";
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(late).account(&fake.account())
}

/// Starts it, with its control socket.
async fn start(setup: Setup) -> Bot {
    let bot = setup.start().await;
    let socket = Socket::bind(&bot.dir().join("data")).unwrap();
    tokio::spawn(control::run(bot.app.clone(), socket));
    bot
}

/// A bot one of whose users unfollowed the account before the reply was there, and the number of their dead letter.
async fn with_dead_letter(fake: &FakeWechat) -> (Bot, u64) {
    fake.refuses(SEND, 43_004, "require subscribe");
    let bot = start(setup(fake)).await;
    // Longer than a busy disk takes to write down what is owed.
    ask(&bot, "wait 3000").await;
    let listed = until(&bot, |late| late["counts"]["dead"] == 1).await;
    let id = listed["dead"][0]["id"].as_u64().expect("it has a number");
    (bot, id)
}

/// The user asks, and is put off.
async fn ask(bot: &Bot, words: &str) {
    let said = Said::parse(words).expect("it is a text");
    let answer = bot.push(&said.to_xml(&Header { from_user: OPENID.to_owned(), ..new_header() })).await;
    assert_eq!(bot.shown(&answer), "", "it is put off");
}

async fn run(bot: &Bot, args: &[&str]) -> Finished {
    finish(aviary(bot.dir(), args)).await
}

/// Runs a command that goes well, and returns what it prints.
async fn done(bot: &Bot, args: &[&str]) -> String {
    let Finished { code, stdout, stderr } = run(bot, args).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    stdout
}

/// Runs a command that fails, and returns why.
async fn refused(bot: &Bot, args: &[&str]) -> String {
    let Finished { code, stdout, stderr } = run(bot, args).await;
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    stderr
}

/// Waits until `aviary late --json` shows what is wanted.
async fn until(bot: &Bot, wanted: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let late: Value = serde_json::from_str(&done(bot, &["late", "list", "--json"]).await).unwrap();
            if wanted(&late) {
                return late;
            }
            // A process of its own each time: the plugin needs the machine, too.
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("`aviary late` does not show it")
}

async fn until_nothing_is_owed(bot: &Bot) {
    let waiting = async {
        while bot.owed().await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it stays owed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_listed_without_the_users_openid() {
    let fake = FakeWechat::start().await;
    let bot = start(setup(&fake)).await;
    // Longer than this test looks: it ends with the bot.
    ask(&bot, "wait 50000").await;
    let printed = done(&bot, &["late"]).await;
    for part in ["Owed  1", "account `main`, user ", "attempt 1, waits for its plugin", "Dead letters  0"] {
        assert!(printed.contains(part), "no `{part}` in:\n{printed}");
    }
    let json = done(&bot, &["late", "--json"]).await;
    assert!(!printed.contains(OPENID) && !json.contains(OPENID), "{printed}\n{json}");
    let status = done(&bot, &["status"]).await;
    assert!(status.contains("1 owed, 0 kept, 0 dead letters; see `aviary late`"), "{status}");
}

/// Until WeChat's tries of a message are over, its reply is in memory alone: it is told of all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_message_is_in_one_of_the_numbers_from_the_end_of_its_first_try_until_its_user_has_the_reply() {
    let late = "[late]\ndeliver = \"next-try\"\nwindow_ms = 1000\nhold_ms = 3000\nbackground_ms = 60000";
    let bot = start(Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(late)).await;
    let mut wechat = bot.simulator.clone();
    wechat.timeout = Duration::from_millis(1_100);
    let xml = Said::parse("wait 1500").unwrap().to_xml(&Header { from_user: OPENID.to_owned(), ..new_header() });
    assert!(wechat.push(&xml).await.is_err(), "the try ends without an answer");

    let total = |late: &Value| {
        let counts = &late["counts"];
        let all = [&late["under_way"], &counts["owed"], &counts["kept"]];
        all.into_iter().map(|count| count.as_u64().expect("it is a number")).sum::<u64>()
    };
    // No other try comes: the reply is made, is waited with for one, and is kept then.
    let kept = until(&bot, |late| {
        assert!(total(late) >= 1, "it is nowhere: {late}");
        late["counts"]["kept"] == 1
    });
    kept.await;
    until(&bot, |late| late["under_way"] == 0).await;
    assert!(done(&bot, &["status"]).await.contains("0 under way, 0 owed, 1 kept, 0 dead letters"));
    assert_eq!(bot.says_as(OPENID, "继续").await, "waited");
    until(&bot, |late| total(late) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_shows_why_and_is_delivered_once_when_it_is_retried() {
    let fake = FakeWechat::start().await;
    let (bot, id) = with_dead_letter(&fake).await;
    let printed = done(&bot, &["late"]).await;
    for part in [&format!("{id}  account `main`, user "), ", text, given up ", "43004", "aviary late retry ID"] {
        assert!(printed.contains(part), "no `{part}` in:\n{printed}");
    }
    assert!(!printed.contains(OPENID), "{printed}");
    let Finished { code, stdout: status, .. } = run(&bot, &["status"]).await;
    assert!(status.contains("1 dead letter; see") && status.contains("wrong: 1 late reply could not be "), "{status}");
    assert_eq!(code, Some(1), "{status}");

    fake.allows(SEND);
    let before = fake.count(SEND);
    let retried = done(&bot, &["late", "retry", &id.to_string()]).await;
    let again = "Dead letters that are being delivered again: 1; `aviary late` shows what comes of it\n";
    assert_eq!(retried, again);
    let sent = fake.until_sent(1).await;
    assert_eq!((&sent[0]["touser"], &sent[0]["text"]["content"]), (&OPENID.into(), &"waited".into()));
    until_nothing_is_owed(&bot).await;
    let gone = refused(&bot, &["late", "retry", &id.to_string()]).await;
    assert_eq!(gone, format!("error: there is no dead letter {id}; `aviary late` lists what there is\n"));
    assert_eq!(fake.count(SEND) - before, 1);
    done(&bot, &["status"]).await;
    assert_eq!(done(&bot, &["late", "retry", "all"]).await, "There are no dead letters\n");
}

/// A backlog leaves WeChat's API to what is late now, and to what plugins ask of it.
#[tokio::test(flavor = "multi_thread")]
async fn all_letters_are_retried_a_few_at_once() {
    const LETTERS: usize = 7;
    let fake = FakeWechat::start().await;
    let setup = setup(&fake);
    let store = Store::open(&setup.path("data")).unwrap();
    for number in 0..LETTERS {
        let (account, openid, why) = ("main".into(), format!("o{number}"), "require subscribe".into());
        let dead = Dead { account, openid, reply: vec![Reply::Text("late".into())], why, died_ms: 1 };
        store.bury(None, dead, Instant::now() + PATIENCE).await.unwrap();
    }
    store.close().await;
    drop(store);
    let bot = start(setup).await;
    let send = fake.holds(SEND);
    assert!(done(&bot, &["late", "retry", "all"]).await.contains("again: 7; "));
    fake.until_called(SEND, 4).await;
    // A process of its own takes longer than a fifth call would.
    assert!(done(&bot, &["late"]).await.contains("Owed  7\n"));
    assert_eq!(fake.count(SEND), 4);
    send.send_replace(true);
    assert_eq!(fake.until_sent(LETTERS).await.len(), LETTERS);
    until_nothing_is_owed(&bot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_still_cannot_be_delivered_is_a_dead_letter_again() {
    let fake = FakeWechat::start().await;
    let (bot, id) = with_dead_letter(&fake).await;
    done(&bot, &["late", "retry", "all"]).await;
    let listed = until(&bot, |late| late["dead"][0]["id"].as_u64().is_some_and(|now| now != id)).await;
    assert_eq!((&listed["counts"]["dead"], &listed["counts"]["owed"]), (&1.into(), &0.into()), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_letter_is_gone() {
    let fake = FakeWechat::start().await;
    let (bot, id) = with_dead_letter(&fake).await;
    assert_eq!(done(&bot, &["late", "drop", &id.to_string()]).await, "Dead letters dropped: 1\n");
    fake.allows(SEND);
    assert!(done(&bot, &["late"]).await.contains("Dead letters  0"));
    assert!(refused(&bot, &["late", "drop", &id.to_string()]).await.contains("there is no dead letter"));
    assert!(fake.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_without_a_reply_cannot_be_retried_and_stays() {
    let fake = FakeWechat::start().await;
    let setup = setup(&fake);
    let store = Store::open(&setup.path("data")).unwrap();
    let (account, openid, why) = ("main".into(), OPENID.into(), "the host ended 3 times".into());
    let dead = Dead { account, openid, reply: Vec::new(), why, died_ms: 1 };
    store.bury(None, dead, Instant::now() + PATIENCE).await.unwrap();
    store.close().await;
    drop(store);
    let bot = start(setup).await;
    let why = refused(&bot, &["late", "retry", "all"]).await;
    assert!(why.contains("it never came to a reply, so there is nothing to send"), "{why}");
    assert!(done(&bot, &["late"]).await.contains("no reply, given up"));
    done(&bot, &["late", "drop", "all"]).await;
    assert!(done(&bot, &["late"]).await.contains("Dead letters  0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_it_says_so_and_nonsense_is_wrong_usage() {
    let dir: TempDir = Setup::new().written();
    for args in [&["late"][..], &["late", "retry", "all"], &["late", "drop", "1"]] {
        let Finished { code, stdout, .. } = finish(aviary(dir.path(), args)).await;
        assert_eq!((code, stdout.contains("no host runs")), (Some(1), true), "{args:?}: {stdout}");
    }
    let Finished { code, stderr, .. } = finish(aviary(dir.path(), &["late", "retry", "some"])).await;
    assert_eq!((code, stderr.contains("neither a number nor `all`")), (Some(2), true), "{stderr}");
}
