//! The same where no account may send: whoever was told to ask reads the reply, however often the host is killed meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Users, kill_after_a_while, push_of, start};
use crate::{
    bot::{PATIENCE, Setup},
    plugins::MISBEHAVE,
};

/// How often the host is killed.
const KILLS: u32 = 20;

/// How many users write at once.
const WRITERS: usize = 4;

/// What came of the messages, each from a user of its own.
#[derive(Default)]
struct Seen {
    /// Told to ask, and of those who have read what they asked for.
    put_off: AtomicU64,
    read: AtomicU64,
    /// Read twice what they asked for once.
    again: AtomicU64,
}

impl Seen {
    /// Waits until all who were told to ask by now have read what they asked for.
    async fn until_read(&self) {
        let (put_off, since) = (self.put_off.load(Ordering::SeqCst), Instant::now());
        while self.read.load(Ordering::SeqCst) < put_off {
            assert!(since.elapsed() < PATIENCE, "somebody never reads the reply");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Writes one message after the other that takes longer than the window, and asks for each reply until it is there.
async fn write(users: Arc<Users>, seen: Arc<Seen>) {
    while !users.is_over.load(Ordering::SeqCst) {
        let number = users.next.fetch_add(1, Ordering::SeqCst);
        let user = format!("oCrash{number}");
        let told = users.tries(&push_of(&user, number, "wait 150")).await;
        if !told.is_some_and(|told| told.starts_with("还在想")) {
            continue;
        }
        seen.put_off.fetch_add(1, Ordering::SeqCst);
        let asked = Instant::now();
        while !ask(&users, &user).await {
            assert!(asked.elapsed() < PATIENCE, "{user} never reads the reply that they were told of");
            sleep(Duration::from_millis(20)).await;
        }
        seen.read.fetch_add(1, Ordering::SeqCst);
        seen.again.fetch_add(u64::from(ask(&users, &user).await), Ordering::SeqCst);
    }
}

/// Sends the fetch word. Returns whether the reply is there.
async fn ask(users: &Users, user: &str) -> bool {
    let number = users.next.fetch_add(1, Ordering::SeqCst);
    users.tries(&push_of(user, number, "继续")).await.is_some_and(|told| told == "waited")
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_told_to_ask_reads_the_reply_however_often_the_host_is_killed() {
    let dir = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .settings(
            "listen = \"127.0.0.1:0\"\n[engine]\ninstances_max = 100\n[plugins.misbehave.quarantine]\nfailures = 0\n\
             share_percent = 0\n[late]\nwindow_ms = 100\nhold_ms = 100",
        )
        .written();
    let (users, seen) = (Arc::new(Users::new()), Arc::new(Seen::default()));
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(users.clone(), seen.clone()))).collect();
    for kill in 0..KILLS {
        let (running, host) = start(dir.path()).await;
        users.host.send_replace(Some(host));
        // As in the test beside this one: no message is hit ten times.
        if kill % 2 == 1 {
            seen.until_read().await;
        }
        kill_after_a_while(&users, running).await;
    }
    let (running, host) = start(dir.path()).await;
    users.host.send_replace(Some(host));
    users.is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("it does not panic");
    }
    assert_eq!(running.terminate().await, Some(0));
    let [put_off, again] = [&seen.put_off, &seen.again].map(|count| count.load(Ordering::SeqCst));
    println!("{KILLS} kills: {put_off} users were told to ask, and read the reply; {again} of them twice");
    assert!(put_off > 20, "only {put_off} were put off: the host was not under load");
    // What a user has stays in the store for a little; a host that is killed then does not know.
    assert!(again * 2 < put_off, "{again} of {put_off} read it twice");
}
