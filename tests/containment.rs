//! What happens around a plugin that fails, or is called too often: it is left alone, the user is told, and the operator
//! sees it.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use aviary_host::{
    conversation::{Header, Said},
    metrics::Outcome,
    plugin::{Failure, quarantine::Quarantined},
};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    bot::{Bot, PATIENCE, Setup, new_header},
    http::{Response, ask, get},
    log::Log,
    plugins::{ECHO, MISBEHAVE, PARROT, WELCOME, from_wat},
};

/// An openid as WeChat makes them.
const OPENID: &str = "oABCdefghijklmnopqrstuvwxy12";

/// A bot whose first plugin misbehaves on demand, with the echo behind it. It is out after two failures.
fn misbehaving(more: &str) -> Setup {
    Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-echo.wasm", &ECHO)
        .settings(&format!("{more}\n[quarantine]\nusers_min = 1\nfailures = 2\nback_off_s = 1\nback_off_max_s = 3600"))
}

/// A back-off that no test outlives.
const LONG: &str = "[plugins.misbehave.quarantine]\nback_off_s = 3600";

/// Which plugins are out of their chains.
fn out(bot: &Bot) -> Vec<Quarantined> {
    bot.app.records.quarantine.overview(Instant::now())
}

/// Which plugins are asked about a text.
async fn asked(bot: &Bot, words: &str) -> Vec<String> {
    bot.asked(words).await.steps.iter().map(|step| step.plugin.to_string()).collect()
}

/// Asks until the back-off is over and the misbehaving plugin is asked again.
async fn until_probed(bot: &Bot, words: &str) {
    let probed = async {
        while asked(bot, words).await != ["misbehave"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, probed).await.expect("the back-off ends");
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_left_alone_until_a_probe_goes_well() {
    let bot = misbehaving("").start().await;
    let log = Log::capture();
    assert_eq!(asked(&bot, "trap").await, ["misbehave", "echo"]);
    assert!(out(&bot).is_empty() && log.lines("is not asked for").is_empty());
    assert_eq!(asked(&bot, "fail on purpose").await, ["misbehave", "echo"]);
    let [out_now] = &out(&bot)[..] else { panic!("one plugin is out: {:?}", out(&bot)) };
    assert_eq!((&*out_now.account, &*out_now.plugin), ("main", "misbehave"));
    assert_eq!(out_now.why, "it failed 2 times in a row; the last time it said: on purpose");
    let told = log.lines("Plugin `misbehave` is not asked for 1 s: it failed 2 times in a row");
    assert_eq!(told.len(), 1, "it is told once, with what to do: {told:?}");
    assert!(told[0].contains("put another version in its place"), "{told:?}");

    // Until then the others answer in its place.
    until_probed(&bot, "say hi").await;
    assert!(out(&bot).is_empty());
    assert_eq!(log.lines("Plugin `misbehave` works again and is asked as before").len(), 1);
    assert_eq!(asked(&bot, "say hi").await, ["misbehave"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_account_where_it_fails_leaves_a_plugin_alone_and_the_others_stay() {
    let bot =
        misbehaving("[accounts.shop]\npath = \"/shop\"\ntoken = \"testtoken\"").account("path = \"/wx\"").start().await;
    for _ in 0..5 {
        assert_eq!(bot.says("trap").await, "trap", "the echo is innocent");
    }
    assert_eq!(out(&bot).len(), 1);
    assert_eq!(bot.says_to(&bot.account("/shop"), "say hi").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_same_code_keeps_it_out_and_new_code_starts_clean() {
    let bot = misbehaving(LONG).start().await;
    for _ in 0..2 {
        bot.says("trap").await;
    }
    fs::write(bot.plugin_file("05-welcome.wasm"), &*WELCOME).unwrap();
    assert!(bot.app.reload().await.changed);
    assert_eq!(asked(&bot, "say hi").await, ["welcome", "echo"]);

    fs::write(bot.plugin_file("10-misbehave.wasm"), &*PARROT).unwrap();
    assert!(bot.app.reload().await.changed);
    assert_eq!(bot.says("hi").await, "鹦鹉：hi");
    assert!(out(&bot).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_of_zero_leave_a_plugin_in_its_chain() {
    let off = "[plugins.misbehave.quarantine]\nfailures = 0\nshare_percent = 0";
    let bot = misbehaving(off).start().await;
    for _ in 0..30 {
        assert_eq!(asked(&bot, "trap").await, ["misbehave", "echo"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_others_used_up_is_not_the_plugins_fault() {
    let bot = misbehaving("[plugins.waits.limits]\ntimeout_ms = 1500\n[late]\nwindow_ms = 2000\nhold_ms = 0\nbackground_ms = 0\nwaiting_text = \"\"")
        .plugin("05-waits.wasm", &MISBEHAVE)
        .start()
        .await;
    // The first plugin takes three quarters of the window; the second has no chance to answer in what is left.
    for _ in 0..3 {
        let push = Said::parse("wait 60000").unwrap().to_xml(&new_header());
        assert_eq!(bot.shown(&bot.push(&push).await), "");
    }
    let names: Vec<String> = out(&bot).into_iter().map(|out| out.plugin).collect();
    assert_eq!(names, ["waits"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_full_is_not_the_fault_of_the_plugin_that_finds_no_room() {
    // Each of two others gets half at most: together they have what the third would need.
    for (engine, held, order, told) in [
        ("instances_max = 2", ["wait 3600000", "wait 3600001"], "say hi", "found no free instance within 50 ms; raise"),
        ("memory_mib = 16", ["hold 5", "hold 6"], "grow 6", "found no memory left on the host within 50 ms; raise"),
    ] {
        let rules = ["one", "other"].iter().zip(held);
        let rules: String =
            rules.map(|(name, text)| format!("[[plugins.{name}.match]]\nequals = \"{text}\"\n")).collect();
        let third = format!("[[plugins.third.match]]\nequals = \"{order}\"\n");
        let setup = ["10-one.wasm", "20-other.wasm", "30-third.wasm"]
            .into_iter()
            .fold(Setup::new(), |setup, file| setup.plugin(file, &MISBEHAVE));
        let settings = format!(
            "[engine]\n{engine}\n[limits]\nwait_ms = 50\n[quarantine]\nusers_min = 1\nfailures = 1\n{rules}{third}"
        );
        let bot = Arc::new(setup.settings(&settings).start().await);
        let holding = held.map(|text| {
            let bot = bot.clone();
            tokio::spawn(async move { bot.asked(text).await })
        });
        let full = async {
            loop {
                if let Err(failure) = &bot.asked(order).await.steps[0].outcome {
                    return failure.to_string();
                }
            }
        };
        let failure = timeout(PATIENCE, full).await.expect("the others take what there is");
        assert!(failure.starts_with(told), "{failure}");
        assert!(out(&bot).is_empty(), "{:?}", out(&bot));
        holding.iter().for_each(JoinHandle::abort);
        let answered = async { while bot.asked(order).await.answered_by() != Some("third") {} };
        timeout(PATIENCE, answered).await.expect("it is asked as before");
    }
}

#[tokio::test]
async fn a_user_who_calls_too_often_is_passed_on_and_the_others_are_not() {
    let bot = misbehaving("[plugins.misbehave]\nper_user = \"2/1d\"").start().await;
    let log = Log::capture();
    let says = async |openid: &str| bot.says_as(openid, "say hi").await;
    assert_eq!([says("oA").await, says("oA").await], ["hi", "hi"]);
    assert_eq!([says("oA").await, says("oA").await], ["say hi", "say hi"], "the echo answers");
    assert_eq!(says("oB").await, "hi");
    let told = log.lines("more than 2/1d (`per_user`)");
    assert_eq!(told.len(), 1, "{told:?}");

    // What a user called before a reload counts after it.
    fs::write(bot.plugin_file("05-welcome.wasm"), &*WELCOME).unwrap();
    assert!(bot.app.reload().await.changed);
    assert_eq!([says("oA").await, says("oB").await, says("oB").await], ["say hi", "hi", "say hi"]);
    assert!(out(&bot).is_empty(), "that is no failure");
}

#[tokio::test]
async fn one_follower_does_not_take_a_plugin_away_from_the_others() {
    let bot = misbehaving("[plugins.misbehave.quarantine]\nusers_min = 2").start().await;
    let says = async |openid: &str, words: &str| bot.says_as(openid, words).await;
    for _ in 0..10 {
        assert_eq!(says("oA", "trap").await, "trap", "the echo answers");
    }
    assert_eq!(says("oB", "say hi").await, "hi");
    assert_eq!([says("oA", "trap").await, says("oB", "trap").await], ["trap", "trap"]);
    assert_eq!(out(&bot).len(), 1);
}

#[tokio::test]
async fn one_follower_does_not_keep_a_plugin_out_for_the_others() {
    let bot = misbehaving("").start().await;
    let says = async |openid: &str, words: &str| bot.says_as(openid, words).await;
    let writes_until_tried = async {
        while out(&bot).first().is_none_or(|out| out.probes_failed == 0) {
            says("oEvil", "trap").await;
        }
    };
    timeout(PATIENCE, writes_until_tried).await.expect("its message is the first probe");
    // It goes on until the back-off, twice as long now, is over for sure, and writes first.
    let over = Instant::now() + Duration::from_secs(2);
    while Instant::now() < over {
        says("oEvil", "trap").await;
    }
    says("oEvil", "trap").await;
    assert_eq!(says("oA", "say hi").await, "hi");
}

#[tokio::test]
async fn when_every_plugin_asked_failed_the_user_reads_the_apology() {
    let bot = Setup::new()
        .plugin("10-misbehave.wasm", &MISBEHAVE)
        .plugin("20-welcome.wasm", &WELCOME)
        .settings("[plugins.welcome]\nmatch = [{ event = \"subscribe\" }]\n[quarantine]\nusers_min = 1\nfailures = 2\nback_off_s = 3600\nback_off_max_s = 3600")
        .account("apology_text = \"出了点问题，请稍后再试。\"")
        .start()
        .await;
    let log = Log::capture();
    assert_eq!(bot.says("pass").await, "", "nobody wanted it, and nobody failed");
    assert_eq!(bot.says("nothing").await, "");
    assert_eq!(bot.says("trap").await, "出了点问题，请稍后再试。");
    assert_eq!(log.lines("Every plugin asked failed; user").len(), 1);
    bot.says("trap").await;
    assert_eq!(out(&bot).len(), 1);
    assert_eq!(bot.says("say hi").await, "出了点问题，请稍后再试。", "the only plugin is out because it fails");
    assert_eq!(bot.says("[subscribe]").await, "感谢您的关注!");
    assert_eq!(bot.says("[LOCATION 23.1 113.3]").await, "", "the user said nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_takes_all_of_the_window_leaves_time_for_the_apology() {
    let setup = || Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE);
    let timeout = async |bot: &Bot| {
        let dispatch = bot.asked_within("wait 60000", Duration::from_millis(600)).await;
        match &dispatch.steps[0].outcome {
            Err(Failure::Timeout { limit_ms }) => (*limit_ms, dispatch.outcome),
            other => panic!("it should have timed out: {other:?}"),
        }
    };
    let (with, outcome) = timeout(&setup().account("apology_text = \"稍后\"").start().await).await;
    assert!(with <= 500 && outcome == Outcome::Apologised, "{with} ms, {outcome:?}");
    let (without, outcome) = timeout(&setup().start().await).await;
    assert!(without <= 600 && outcome == Outcome::Failed, "{without} ms, {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plugin_that_passes_is_no_reason_for_an_apology() {
    let bot = misbehaving("")
        .plugin("30-welcome.wasm", &WELCOME)
        .account("apology_text = \"稍后\"\nchain = [\"misbehave\", \"welcome\"]")
        .start()
        .await;
    let dispatch = bot.asked("trap").await;
    assert_eq!((dispatch.outcome, dispatch.reply), (Outcome::Passed, None));
}

#[tokio::test]
async fn a_failure_is_logged_with_the_guests_last_words_and_without_openids() {
    let bot = misbehaving("").start().await;
    let log = Log::capture();
    bot.asked("panic").await;
    let told = log.lines("Plugin `misbehave` failed: it trapped");
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("told to panic"), "{told:?}");
    bot.asked(&format!("fail for {OPENID} and oUser")).await;
    assert_eq!(log.lines("failed: it said: for [openid] and [openid]").len(), 1);
    assert!(log.lines(OPENID).is_empty() && log.lines("oUser").is_empty());
}

/// A plugin that writes so many lines, each with an openid in it, and then traps.
fn chatty(lines: u32) -> Vec<u8> {
    let line = format!("n for {OPENID}\\0a");
    from_wat(&format!(
        r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
           (data (i32.const 2048) "{line}")
           (func (export "aviary:bot/handler@0.1.0#handle") (param i32) (result i32)
               (local $n i32)
               (i32.store (i32.const 1024) (i32.const 2048))
               (i32.store (i32.const 1028) (i32.const {length}))
               (loop $next
                   (i32.store8 (i32.const 2048) (i32.add (i32.const 65) (local.get $n)))
                   (drop (call $write (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 1040)))
                   (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {lines}))))
               unreachable)"#,
        length = OPENID.len() + "n for \n".len(),
    ))
}

#[tokio::test]
async fn a_failure_comes_with_twenty_lines_at_most() {
    let bot = Setup::new().plugin("10-chatty.wasm", &chatty(26)).start().await;
    let log = Log::capture();
    bot.asked("hi").await;
    let [told] = &log.lines("Plugin `chatty` failed")[..] else { panic!("it is told once") };
    let expected: Vec<String> = ('G'..='Z').map(|letter| format!("{letter} for [openid]")).collect();
    assert!(told.contains(&format!("output=\"{}\"", expected.join(" | "))), "{told}");
    assert!(!told.contains(OPENID), "{told}");
}

#[tokio::test]
async fn a_plugins_own_lines_go_where_the_setting_says() {
    for (guest, expected) in [("trace", 0), ("log", 1), ("off", 0)] {
        let bot = misbehaving(&format!("[log]\nguest = \"{guest}\"")).start().await;
        let log = Log::capture();
        bot.asked(&format!("print for {OPENID}")).await;
        assert_eq!(log.lines("Plugin `misbehave` wrote: for [openid]").len(), expected, "{guest}");
        assert!(log.lines(OPENID).is_empty(), "{guest}");
    }
}

#[tokio::test]
async fn a_flood_of_short_lines_is_cut_in_the_log_and_its_message_is_answered() {
    let bot = misbehaving("[log]\nguest = \"log\"").start().await;
    let log = Log::capture();
    assert_eq!(bot.says(&format!("print {}", "short\n".repeat(1_500))).await, "printed");
    assert_eq!(log.lines("Plugin `misbehave` wrote: short").len(), 1_000);
    let notes = log.lines("Plugin `misbehave` wrote: (500 more lines were dropped: one call writes 1000 at most)");
    assert_eq!(notes.len(), 1, "{:?}", log.lines("more lines"));
}

#[tokio::test]
async fn a_long_error_that_is_cut_in_an_openid_shows_no_half_of_it() {
    let bot = misbehaving("").start().await;
    let log = Log::capture();
    bot.asked(&format!("fail {} {OPENID} is unknown", ".".repeat(485))).await;
    assert_eq!(log.lines("Plugin `misbehave` failed: it said: ...").len(), 1);
    assert!(log.lines(&OPENID[..8]).is_empty(), "{:?}", log.lines("failed"));
}

/// Everything that `/metrics` tells, by series.
async fn metrics(admin: &str) -> BTreeMap<String, f64> {
    let answer = get(admin, "/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let (status, text) = answer.told();
    assert!(status == 200 && text.ends_with("# EOF\n"), "{text}");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let parsed = series.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in `{line}`"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number in `{line}`")))
    });
    parsed.collect()
}

/// `aviary_plugin_calls_total` of a plugin of account `main`.
fn calls(metrics: &BTreeMap<String, f64>, plugin: &str, outcome: &str) -> Option<f64> {
    let name = format!("aviary_plugin_calls_total{{account=\"main\",plugin=\"{plugin}\",outcome=\"{outcome}\"}}");
    metrics.get(&name).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_came_of_messages_and_calls() {
    let bot = misbehaving(LONG).start().await;
    let admin = bot.admin().await;
    for words in ["say hi", "pass", "nothing", "trap", "fail on purpose"] {
        bot.says(words).await;
    }
    // Out now; and a try that WeChat sends again.
    let push = Said::parse("say hi").unwrap().to_xml(&new_header());
    for _ in 0..3 {
        bot.push(&push).await;
    }
    assert_eq!(get(&bot.origin, "/nowhere").await.status, 404);

    let found = metrics(&admin).await;
    for (outcome, count) in
        [("replied", 1.0), ("passed", 1.0), ("trap", 1.0), ("error", 1.0), ("quarantined", 1.0), ("cpu", 0.0)]
    {
        let count = if outcome == "replied" { count + 1.0 } else { count };
        assert_eq!(calls(&found, "misbehave", outcome), Some(count), "{outcome}");
    }
    assert_eq!(calls(&found, "echo", "replied"), Some(4.0));
    let account = |name: &str| found.get(name).copied().unwrap_or_else(|| panic!("no `{name}`"));
    assert_eq!(account("aviary_messages_total{account=\"main\",outcome=\"replied\"}"), 5.0);
    assert_eq!(account("aviary_messages_total{account=\"main\",outcome=\"silent\"}"), 1.0);
    assert_eq!(account("aviary_retries_total{account=\"main\"}"), 2.0);
    assert_eq!(account("aviary_message_seconds_count{account=\"main\"}"), 6.0);
    assert_eq!(account("aviary_plugin_quarantined{account=\"main\",plugin=\"misbehave\",part=\"bot\"}"), 1.0);
    assert_eq!(account("aviary_plugin_quarantined{account=\"main\",plugin=\"echo\",part=\"bot\"}"), 0.0);
    assert_eq!(account("aviary_refused_total{cause=\"path\"}"), 1.0);
    assert_eq!(account("aviary_dedupe_keys"), 6.0);
    assert_eq!(account("aviary_instances_max"), 20.0);
    assert_eq!(account("aviary_ready"), 1.0);
    assert!(found.keys().any(|name| name.starts_with("aviary_build_info{version=")));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_was_compiled_and_not_what_was_in_the_cache() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).settings("data_dir = \"data\"").start().await;
    let admin = bot.admin().await;
    fs::copy(bot.plugin_file("20-echo.wasm"), bot.plugin_file("30-again.wasm")).unwrap();
    bot.app.reload().await;
    assert_eq!(bot.chain(), ["echo", "again"]);
    let found = metrics(&admin).await;
    assert_eq!(found.get("aviary_compiles_total{result=\"compiled\"}"), Some(&1.0));
    assert_eq!(found.get("aviary_compile_seconds_count"), Some(&1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_label_comes_from_a_request_and_the_series_of_a_plugin_go_with_it() {
    let bot = misbehaving("").start().await;
    let admin = bot.admin().await;
    let before = metrics(&admin).await.len();
    for n in 0..50 {
        let header = Header { from_user: format!("{OPENID}{n}"), ..new_header() };
        bot.push(&Said::parse("say hi").unwrap().to_xml(&header)).await;
        get(&bot.origin, &format!("/path{n}")).await;
    }
    let after = metrics(&admin).await;
    assert!(after.len() <= before + 1, "only the first refusal makes a new series");
    assert!(after.keys().all(|name| !name.contains(OPENID) && !name.contains("path4")));
    assert_eq!(calls(&after, "misbehave", "replied"), Some(50.0));

    fs::remove_file(bot.plugin_file("10-misbehave.wasm")).unwrap();
    bot.app.reload().await;
    let gone = metrics(&admin).await;
    assert!(gone.keys().all(|name| !name.contains("misbehave")), "{gone:?}");
    assert_eq!(calls(&gone, "echo", "replied"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_beyond_the_bound_share_their_series() {
    let bot = misbehaving("[metrics]\nplugins_max = 1").start().await;
    let admin = bot.admin().await;
    bot.says("hi").await;
    let found = metrics(&admin).await;
    assert_eq!(calls(&found, "misbehave", "passed"), Some(1.0));
    assert_eq!((calls(&found, "echo", "replied"), calls(&found, "(others)", "replied")), (None, Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_ready_once_its_plugins_are_and_no_longer_when_it_stops() {
    let bot = misbehaving("").start_unloaded().await;
    let admin = bot.admin().await;
    let told = |answer: &Response| (answer.status, String::from_utf8(answer.body.clone()).unwrap());
    assert_eq!(get(&admin, "/healthz").await.told(), (200, "ok\n"));
    let (status, why) = told(&get(&admin, "/readyz").await);
    assert!(status == 503 && why.starts_with("loading: "), "{status} {why}");
    bot.app.reload().await;
    assert_eq!(get(&admin, "/readyz").await.told(), (200, "ready\n"));

    let app = bot.app.clone();
    bot.stop().await;
    assert!(app.unready().is_some_and(|why| why.starts_with("stopping: ")));
    let (status, why) = told(&get(&admin, "/readyz").await);
    assert!(status == 503 && why.starts_with("stopping: "), "{status} {why}");
    assert_eq!(get(&admin, "/healthz").await.status, 200, "there is nothing to restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_has_these_three_paths_and_they_are_read_only() {
    let bot = Setup::new().start().await;
    let admin = bot.admin().await;
    for path in ["/", "/metrics/", "/console", "/metricsx"] {
        assert_eq!(get(&admin, path).await.told(), (404, ""), "{path}");
    }
    assert_eq!(ask(&admin, "POST", "/metrics").await.status, 405);
    assert_eq!(ask(&admin, "HEAD", "/readyz").await.told(), (200, ""));
    assert_eq!(get(&bot.origin, "/metrics").await.status, 404, "WeChat's listener has none of them");
}
