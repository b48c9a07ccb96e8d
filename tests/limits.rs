//! What a plugin may take, and what is left to the others when it takes all of it.

use std::{sync::Arc, time::Duration};

use aviary_host::{
    conversation::{self, Header, Simulator},
    dispatch::{Dispatch, Said},
    plugin::Failure,
};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, TOKEN, binary, new_header},
    plugins::{ECHO, MISBEHAVE, from_wat},
    process::{self, aviary, finish, shell},
};

/// A plugin that waits or holds memory when it is told to, and the echo behind it.
async fn bot(settings: &str) -> Arc<Bot> {
    Arc::new(setup().settings(settings).start().await)
}

fn setup() -> Setup {
    let orders = "[[plugins.misbehave.match]]\nregex = '^[a-z]'";
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).plugin("20-echo.wasm", &ECHO).settings(orders)
}

/// A call that goes on until it is dropped.
struct Running(JoinHandle<Dispatch>);

impl Running {
    fn start(bot: &Arc<Bot>, order: &'static str) -> Self {
        let bot = bot.clone();
        Self(tokio::spawn(async move { bot.asked(order).await }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the first plugin failed; none if it did not.
fn failure(dispatch: &Dispatch) -> Option<&Failure> {
    dispatch.steps.first()?.outcome.as_ref().err()
}

/// How long a call waits that is to find everything taken. Those that take it wait as long as they may.
const SOON: Duration = Duration::from_millis(100);

/// Gives an order until it fails as busy, and returns what is told then.
async fn until_busy(bot: &Bot, order: &str) -> String {
    let busy = async {
        loop {
            let dispatch = bot.asked_within(order, SOON).await;
            match failure(&dispatch) {
                Some(Failure::Busy(busy)) => return busy.to_string(),
                // The machine is.
                None | Some(Failure::Timeout { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                Some(other) => panic!("`{order}` {other}"),
            }
        }
    };
    timeout(PATIENCE, busy).await.expect("the calls before it begin some time")
}

/// Gives an order until the plugin replies.
async fn until_replied(bot: &Bot, order: &str) {
    let replied = async {
        while bot.asked_within(order, SOON).await.answered_by() != Some("misbehave") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, replied).await.expect("what was held comes free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_slow_gets_half_of_the_host_and_the_others_answer() {
    let bot = bot("[engine]\ninstances_max = 4\n[limits]\nwait_ms = 120000").await;
    let slow = [(); 20].map(|()| Running::start(&bot, "wait 3600000"));
    assert!(until_busy(&bot, "say hi").await.contains("half of the host's"));
    for _ in 0..20 {
        assert_eq!(bot.says("你好").await, "你好");
    }
    drop(slow);
    until_replied(&bot, "say hi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_bound_wait_for_their_turn() {
    let bot = bot("[plugins.misbehave.limits]\ncalls_max = 1\nwait_ms = 120000").await;
    let order = "wait 1";
    let calls: Vec<_> = (0..10).map(|_| Running::start(&bot, order)).collect();
    for mut call in calls {
        let dispatch = timeout(PATIENCE, &mut call.0).await.expect("its turn comes").expect("it does not panic");
        assert_eq!(dispatch.answered_by(), Some("misbehave"), "{:?}", dispatch.steps[0].outcome);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_own_bound_counts_for_it_alone_and_can_be_changed_while_it_serves() {
    let settings =
        |calls_max: usize| format!("[plugins.misbehave.limits]\ncalls_max = {calls_max}\nwait_ms = 120000\n");
    let bot = bot(&settings(1)).await;
    let _slow = Running::start(&bot, "wait 3600000");
    assert!(until_busy(&bot, "say hi").await.contains("raise its `limits.calls_max`"));
    assert_eq!(bot.says("你好").await, "你好");
    let file = bot.dir().join("aviary.toml");
    let toml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, toml.replace(&settings(1), &settings(2))).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.asked("say hi").await.answered_by(), Some("misbehave"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_a_bound_of_its_own() {
    let shop = "[accounts.shop]\npath = \"/shop\"\ntoken = \"testtoken\"\n";
    let bot =
        setup().settings(&format!("[limits]\nwait_ms = 120000\n{shop}")).account("path = \"/main\"\ncalls_max = 1");
    let bot = Arc::new(bot.start().await);
    let _slow = Running::start(&bot, "wait 3600000");
    assert!(until_busy(&bot, "say hi").await.contains("raise `calls_max` in `[accounts.main]`"));
    // Its other plugins have none left, either; the other account has.
    assert_eq!(bot.asked_within("say hi", SOON).await.answered_by(), None);
    assert_eq!(bot.says_to(&bot.account("/shop"), "say hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guests_of_the_host_share_one_bound_of_memory() {
    let bot = bot("[engine]\nmemory_mib = 16\n[plugins.misbehave.limits]\nmemory_mib = 14\nwait_ms = 120000").await;
    let holding = Running::start(&bot, "hold 8");
    let told = until_busy(&bot, "grow 8").await;
    assert!(told.starts_with("found no memory left on the host") && told.contains("`engine.memory_mib`"), "{told}");
    // A small guest still fits.
    assert_eq!(bot.says("你好").await, "你好");
    drop(holding);
    until_replied(&bot, "grow 8").await;
    // Its own limit is another matter.
    let dispatch = bot.asked("grow 15").await;
    assert!(matches!(failure(&dispatch), Some(Failure::Memory { .. })), "{:?}", dispatch.steps[0].outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_waits_until_memory_comes_free() {
    let bot = bot("[engine]\nmemory_mib = 16\n[plugins.misbehave.limits]\nwait_ms = 120000").await;
    let holding = Running::start(&bot, "hold 10");
    let held = async {
        while bot.asked_within("grow 10", Duration::from_millis(50)).await.answered_by() == Some("misbehave") {}
    };
    timeout(PATIENCE, held).await.expect("it begins some time");
    let mut waiting = Running::start(&bot, "grow 10");
    drop(holding);
    let dispatch = timeout(PATIENCE, &mut waiting.0).await.expect("it gets what was held").unwrap();
    assert_eq!(dispatch.answered_by(), Some("misbehave"), "{:?}", dispatch.steps[0].outcome);
}

/// Loads a plugin as `check` does, under limits, and returns what is wrong with it.
async fn refused(wasm: &[u8], limits: &str) -> String {
    let dir = Setup::new().plugin("10-it.wasm", wasm).settings(&format!("[limits]\n{limits}")).written();
    let checked = finish(aviary(dir.path(), &["check"])).await;
    let wrong = checked.stdout.lines().find_map(|line| line.trim().strip_prefix("wrong: not loaded: "));
    wrong.unwrap_or_else(|| panic!("it is loaded:\n{}", checked.stdout)).to_owned()
}

/// A module that does nothing but have these.
fn having(fields: &str) -> Vec<u8> {
    let handle = r#"(func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32) (i32.const 1024))"#;
    from_wat(&format!("{fields} {handle}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_can_never_fit_is_refused_with_the_settings_to_raise() {
    let tables = having(&"(table 1 funcref)".repeat(17));
    assert_eq!(refused(&tables, "").await, "it needs 17 tables; raise its `limits.tables_max`, which is 16");
    let memories = having("(memory 1) (memory 1)");
    let told = refused(&memories, "memories_max = 2").await;
    assert_eq!(told, "it needs 3 memories; raise its `limits.memories_max`, which is 2");
    let told = refused(&having("(memory 100)"), "memory_mib = 2").await;
    assert!(told.ends_with("it needs more than 2 MiB of memory; raise its `limits.memory_mib`"), "{told}");
    let told = refused(&MISBEHAVE, "instances_max = 2").await;
    assert_eq!(told, "it needs 3 core instances or more; raise its `limits.instances_max`");
    // More than any plugin may have.
    let told = refused(&having(&"(memory 0)".repeat(20)), "").await;
    assert!(told.starts_with("it asks for more than a plugin can have: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn computing_is_counted_while_a_plugin_starts() {
    let looping = having("(func $forever (loop $again (br $again))) (start $forever)");
    assert_eq!(
        refused(&looping, "cpu_ms = 50").await,
        "it does not start: it computed longer than 50 ms (`limits.cpu_ms`)"
    );
}

/// Only Linux bounds the address space of a process.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn where_the_system_has_no_memory_for_an_instance_that_is_not_the_plugins_fault() {
    let settings = "listen = \"127.0.0.1:0\"\n[quarantine]\nusers_min = 1\nfailures = 1\n[late]\nbackground_ms = 0";
    let dir = Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(settings).written();
    // No room for a pool; each instance reserves a GiB, and the host itself less than two.
    let line = format!("ulimit -v 5000000 && exec {} serve", binary().display());
    let mut host = process::Running::start(shell(dir.path(), &line));
    host.line("for an instance pool of 20 places").await;
    let line = host.line("Account `main` listens on http://").await;
    let url = line.split(' ').find(|word| word.starts_with("http://")).expect("it is told");
    host.line("asks 1 plugin").await;
    let wechat = Simulator::new(url, TOKEN).unwrap();
    let said = conversation::Said::parse("wait 60000").unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|user| {
            let (wechat, header) = (wechat.clone(), Header { from_user: format!("o{user}"), ..new_header() });
            let xml = said.to_xml(&header);
            tokio::spawn(async move { wechat.push(&xml).await })
        })
        .collect();
    let told = host.line("Plugin `misbehave` failed").await;
    assert!(
        told.contains("found no memory for an instance") && told.contains("lower `engine.instances_max`"),
        "{told}"
    );
    let status = finish(aviary(dir.path(), &["status"])).await;
    assert!(!status.stdout.contains("left alone"), "{}", status.stdout);
    waiting.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_hands_to_the_host_is_bounded() {
    let bot = bot("[plugins.misbehave.limits]\nhost_data_mib = 1\nreply_bytes_max = 1048576").await;
    assert_eq!(bot.asked("reply 900000").await.answered_by(), Some("misbehave"));
    let told = failure(&bot.asked("reply 2000000").await).unwrap().to_string();
    assert_eq!(told, "trapped: handed more data to the host than it may (`limits.host_data_mib`)");
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_recursion_meets_the_stack_of_the_settings() {
    let bot = bot("[engine]\nstack_kib = 64").await;
    assert!(matches!(failure(&bot.asked("recurse").await), Some(Failure::Stack)));
    assert_eq!(bot.says("say still there").await, "still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_no_input_no_files_and_no_network_and_coarse_clocks() {
    let bot = bot("").await;
    assert_eq!(bot.says("input").await, "0");
    assert_eq!(bot.says("clock").await, "0");
    for (order, refusal) in [
        ("open /etc/passwd", "NotFound"),
        ("open aviary.toml", "NotFound"),
        ("connect 127.0.0.1:80", "PermissionDenied"),
        ("connect localhost:80", "failed to lookup address"),
    ] {
        let said = bot.says(order).await;
        assert!(said.contains(refusal), "`{order}`: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_come_in_small_pieces_only() {
    let asking = |bytes: u32| {
        from_wat(&format!(
            r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
               (memory $more 1)
               (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32)
                   (drop (call $random (i32.const 65536) (i32.const {bytes})))
                   (i32.const 1024))"#
        ))
    };
    let setup = Setup::new().plugin("10-many.wasm", &asking(300_000)).plugin("20-some.wasm", &asking(200_000));
    let dispatch = setup.start().await.asked("hi").await;
    let told = failure(&dispatch).unwrap().to_string();
    assert_eq!(told, "trapped: requested len 300000 exceeds limit 262144");
    assert!(matches!(dispatch.steps[1].outcome, Ok(Said::Passed)), "{:?}", dispatch.steps[1].outcome);
}

#[tokio::test]
async fn computing_that_nothing_interrupts_is_counted_when_it_is_over() {
    let settings = "[plugins.misbehave.limits]\nmemory_mib = 512\ncpu_ms = 10";
    let bot = Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).settings(settings).start().await;
    let dispatch = bot.asked("grow 300").await;
    assert!(matches!(dispatch.steps[0].outcome, Err(Failure::Cpu { limit_ms: 10 })), "{:?}", dispatch.steps[0].outcome);
}
