//! What plugins keep: across messages, restarts and crashes, exactly, and apart from each other.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use aviary_host::conversation::{Header, Said, Simulator, shown};
use tokio::task::JoinSet;

use crate::{
    bot::{Bot, PATIENCE, Setup, TOKEN, new_header},
    plugins::KEEPER,
    process::{Running, aviary, finish},
};

const GRANTED: &str = "[plugins.keeper.grants]\nkv = true\n";

/// A bot with a plugin that keeps what it is told to.
async fn keeper(settings: &str) -> Bot {
    Setup::new().plugin("10-keeper.wasm", &KEEPER).settings(settings).start().await
}

/// Pushes what a certain user says.
async fn says_as(bot: &Bot, from_user: &str, words: &str) -> String {
    let header = Header { from_user: from_user.into(), ..new_header() };
    bot.shown(&bot.push(&Said::text(words).to_xml(&header)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_message_keeps_the_next_one_finds() {
    let bot = keeper(GRANTED).await;
    for (order, answer) in [
        ("get a", "nothing"),
        ("set a x", "set"),
        ("get a", "x"),
        ("delete a", "deleted"),
        ("delete a", "deleted"),
        ("get a", "nothing"),
        ("add 5 n", "5"),
        ("add -7 n", "-2"),
        ("get n", "-2"),
        ("swap lock - me", "true"),
        ("swap lock - you", "false"),
        ("swap lock me -", "true"),
        ("get lock", "nothing"),
        ("set k/2 x\nset k/1 x\nset k/10 x", "set; set; set"),
        ("keys k/ - 2", "k/1 k/10"),
        ("keys k/ k/10 2", "k/2"),
        ("keys - - 1000", "k/1 k/10 k/2 n"),
    ] {
        assert_eq!(bot.says(order).await, answer, "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_plugins_and_users_do_not_see_each_other() {
    let rule = "match = [{ contains = \"# diary\" }]";
    let bot = Setup::new()
        .plugin("10-diary.wasm", &KEEPER)
        .plugin("20-keeper.wasm", &KEEPER)
        .settings(&format!(
            "{GRANTED}[plugins.diary]\n{rule}\ngrants.kv = true\n[accounts.shop]\npath = \"/shop\"\ntoken = \"{TOKEN}\"\n"
        ))
        .start()
        .await;
    let shop = bot.account("/shop");
    for (owner, answer) in [("", "1"), ("\n# diary", "1")] {
        assert_eq!(bot.says(&format!("add 1 n{owner}")).await, answer);
        assert_eq!(bot.says_to(&shop, &format!("add 1 n{owner}")).await, answer);
        assert_eq!(says_as(&bot, "oAnn", &format!("my add 1 n{owner}")).await, answer);
        assert_eq!(says_as(&bot, "oBob", &format!("my add 1 n{owner}")).await, answer);
    }
    // The plugin's own keys are every user's.
    assert_eq!(says_as(&bot, "oAnn", "add 1 n").await, "2");
    assert_eq!(says_as(&bot, "oBob", "my keys - - 9\nkeys - - 9\nget n\nmy get n").await, "n; n; 2; 1");
    assert_eq!(says_as(&bot, "oEve", "my keys - - 9\nmy get n").await, "; nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_granted_anything_is_denied_with_the_name_of_the_grant() {
    let bot = keeper("").await;
    let denied = "Error::Denied(\"plugin `keeper` has no `kv` grant; if it is to have it: kv = true\")";
    assert_eq!(bot.says("get a\nmy get a").await, format!("{denied}; {denied}"));
    // An account may grant what the shared table does not, and a change counts at once.
    let file = bot.dir().join("aviary.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{settings}[accounts.main.plugins.keeper.grants]\nkv = true\n")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("set a x").await, "set");
    fs::write(&file, &settings).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.says("get a").await, denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_for_all_users_together_and_names_what_to_raise() {
    let bot = keeper("[plugins.keeper.grants]\nkv = { mib = 1, keys = 3 }\n").await;
    assert_eq!(says_as(&bot, "oAnn", "my set a x").await, "set");
    assert_eq!(says_as(&bot, "oBob", "my set a x\nset a x").await, "set; set");
    let full = says_as(&bot, "oEve", "my set a x").await;
    assert!(full.starts_with("Error::Full(") && full.contains("3 keys") && full.contains("`keys` of its `kv` grant"));
    // What is there may change, and whatever goes makes room.
    assert_eq!(bot.says("set a y\ndelete a\nset b z").await, "set; deleted; set");
    assert_eq!(bot.says("fill b 1048000").await, "set");
    assert_eq!(says_as(&bot, "oAnn", "my delete a").await, "deleted");
    let full = bot.says("delete b\nfill c 1048000\nmy fill d 1000").await;
    assert!(
        full.contains("Error::Full(") && full.contains("1 MiB") && full.contains("`mib` of its `kv` grant"),
        "{full}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_bounds_is_invalid_and_the_plugin_goes_on() {
    let bot = keeper(GRANTED).await;
    let long = "k".repeat(513);
    let orders = [
        format!("set {long} x"),
        format!("get {long}"),
        "set  x".into(),
        "fill a 1048577".into(),
        "set a x for 0".into(),
        "keys - - 0".into(),
        "keys - - 1001".into(),
        "set n x\nadd 1 n".into(),
    ];
    for order in orders {
        let answer = bot.says(&order).await;
        assert!(answer.trim_start_matches("set; ").starts_with("Error::Invalid("), "{order}: {answer}");
    }
    assert_eq!(bot.says("keys - - 1000").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_time_to_live_is_gone_when_it_is_over() {
    let bot = keeper(GRANTED).await;
    assert_eq!(bot.says("set a x for 1\nset b x for 3600").await, "set; set");
    let deadline = Instant::now() + PATIENCE;
    while bot.says("get a").await != "nothing" {
        assert!(Instant::now() < deadline, "it is still there");
    }
    assert_eq!(bot.says("get b\nkeys - - 9").await, "x; b");
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_at_once_from_many_calls_loses_nothing() {
    let bot = Arc::new(keeper(GRANTED).await);
    let mut calls = JoinSet::new();
    for user in 0..40 {
        let bot = bot.clone();
        // Messages of one user would be answered one after the other.
        calls.spawn(async move { bot.says_as(&format!("o{user}"), &["add 1 n"; 5].join("\n")).await });
    }
    let mut sums: Vec<u32> = Vec::new();
    while let Some(answer) = calls.join_next().await {
        sums.extend(answer.unwrap().split("; ").map(|sum| sum.parse::<u32>().unwrap()));
    }
    // Every sum was told once: no two calls saw the same number before them.
    sums.sort_unstable();
    assert_eq!(sums, (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_handle_that_is_freed_when_it_is_dropped() {
    let bot = keeper(&format!("{GRANTED}[plugins.keeper.limits]\nhandles_max = 16\n")).await;
    assert_eq!(bot.says("open 1000").await, "opened");
    // One that holds too many ends, and harms no other.
    assert_eq!(bot.says("hold 17").await, "");
    assert_eq!(bot.says("hold 10").await, "opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = \"{}\"\n{GRANTED}", data.path().display());
    let bot = keeper(&settings).await;
    assert_eq!(bot.says("set a x\nadd 1 n\nset b x for 3600").await, "set; 1; set");
    bot.stop().await;
    let bot = keeper(&settings).await;
    assert_eq!(bot.says("get a\nadd 1 n\nget b").await, "x; 2; x");
}

/// The real binary, serving a directory.
struct Served {
    process: Running,
    simulator: Arc<Simulator>,
}

impl Served {
    async fn start(dir: &Path) -> Self {
        let mut process = Running::start(aviary(dir, &["serve"]));
        let line = process.line("Account `main` listens on http://127.0.0.1:").await;
        let url = line.split_once("listens on ").unwrap().1.split(' ').next().unwrap();
        process.line("Account `main` asks 1 plugin: keeper").await;
        Self { process, simulator: Arc::new(Simulator::new(url, TOKEN).unwrap()) }
    }

    async fn says(&self, words: &str) -> String {
        answered(&self.simulator, words).await.expect("it serves")
    }
}

/// What the plugin said; nothing if there was no whole answer.
async fn answered(simulator: &Simulator, words: &str) -> Option<String> {
    let answer = simulator.push(&Said::text(words).to_xml(&new_header())).await.ok()?;
    Some(shown(simulator.reply(&answer).ok()?.as_ref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_writes_loses_none_that_was_answered() {
    let dir = Setup::new()
        .plugin("10-keeper.wasm", &KEEPER)
        .settings(&format!("listen = \"127.0.0.1:0\"\n{GRANTED}"))
        .written();
    let next = Arc::new(AtomicU64::new(0));
    let mut known = Vec::new();
    for _ in 0..3 {
        let served = Served::start(dir.path()).await;
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut writers = JoinSet::new();
        for _ in 0..8 {
            let (simulator, next, said) = (served.simulator.clone(), next.clone(), said.clone());
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match answered(&simulator, &format!("set key{number} {number}")).await.as_deref() {
                        Some("set") => said.lock().unwrap().push(number),
                        _ => return,
                    }
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while said.lock().unwrap().len() < 100 {
            assert!(Instant::now() < deadline, "only {} writes were answered", said.lock().unwrap().len());
            tokio::task::yield_now().await;
        }
        served.process.kill().await;
        while writers.join_next().await.is_some() {}
        known.append(&mut said.lock().unwrap());

        let served = Served::start(dir.path()).await;
        for numbers in known.chunks(50) {
            let orders: Vec<_> = numbers.iter().map(|number| format!("get key{number}")).collect();
            let kept: Vec<_> = numbers.iter().map(u64::to_string).collect();
            assert_eq!(served.says(&orders.join("\n")).await, kept.join("; "));
        }
        assert_eq!(served.process.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_one_data_dir_is_told_what_to_do() {
    let dir = Setup::new()
        .plugin("10-keeper.wasm", &KEEPER)
        .settings(&format!("listen = \"127.0.0.1:0\"\n{GRANTED}"))
        .written();
    let served = Served::start(dir.path()).await;
    let second = finish(aviary(dir.path(), &["serve"])).await;
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("store.redb is in use by another host; stop that one"), "{}", second.stderr);
    // Looking at a bot that runs is no second host.
    let checked = finish(aviary(dir.path(), &["check"])).await;
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    assert_eq!(served.says("set a x").await, "set");
}
