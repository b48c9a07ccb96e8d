//! Hostile plugins, one test for each thing they try. In each the next message is answered in time, and the host is as it
//! was before: every slot of the pool is free again, and memory is back.
//!
//! SECURITY.md lists the attacks with what stops each.

mod bombs;
mod core_module;
mod host;

use std::{fs, os::unix::fs::symlink};

use self::{
    core_module::{ANSWER, CoreModule, NEWS, TEXT, answering, error, reply},
    host::Host,
};
use crate::{
    plugins::{ECHO, FETCHER, MISBEHAVE, PARROT},
    upstream::{Answer, Upstream, ok},
};

/// The plugin that does what it is told, with limits of its own.
async fn misbehaving(limits: &str) -> Host {
    Host::with_plugins(&[("misbehave", &MISBEHAVE)], &format!("[plugins.misbehave.limits]\n{limits}\n")).await
}

/// Tells the plugin to misbehave; it must fail for this reason, and the echo answers.
async fn attempt(limits: &str, order: &str, why: &str) {
    let mut host = misbehaving(limits).await;
    host.endures(order, order).await;
    host.failed("misbehave", why).await;
}

/// Asks plugins made by hand, each of which must fail for its reason, and then the echo.
async fn attempts(settings: &str, cases: &[(&str, CoreModule, &str)]) {
    let plugins: Vec<(&str, Vec<u8>)> = cases.iter().map(|(name, module, _)| (*name, module.wasm())).collect();
    let plugins: Vec<(&str, &[u8])> = plugins.iter().map(|(name, wasm)| (*name, &wasm[..])).collect();
    let mut host = Host::with_plugins(&plugins, &format!("[limits]\ncpu_ms = 50\n{settings}")).await;
    host.endures("你好", "你好").await;
    for (name, _, why) in cases {
        host.failed(name, why).await;
    }
}

/// Drops modules that must be refused for their reasons.
async fn refusals(settings: &str, cases: &[(&str, CoreModule, &str)]) {
    let mut host = Host::start(settings).await;
    for (name, module, why) in cases {
        host.refuses(&format!("10-{name}.wasm"), &module.wasm(), why).await;
    }
}

// Computing.

#[tokio::test]
async fn an_endless_loop_ends() {
    attempt("cpu_ms = 50", "loop forever", "computed longer than 50 ms (`limits.cpu_ms`)").await;
}

#[tokio::test]
async fn endless_loops_leave_the_others_their_turns() {
    let host = misbehaving("cpu_ms = 300").await;
    let (first, second, ..) = tokio::join!(host.says("loop forever"), host.says("loop forever"), async {
        for _ in 0..10 {
            assert_eq!(host.says("say hi").await, "hi");
        }
    });
    assert_eq!((&*first, &*second), ("loop forever", "loop forever"));
    host.is_as_before().await;
}

#[tokio::test]
async fn a_loop_in_every_corner_of_a_call_ends() {
    let forever = "(loop $again (br $again)) unreachable";
    let too_long = "computed longer than 50 ms";
    // One bulk operation is not interrupted; that is why memory is bounded.
    let fill = "(loop $again (memory.fill (i32.const 8192) (i32.const 1) (i32.const 516096)) (br $again)) unreachable";
    let post = r#"(func (export "cabi_post_aviary:bot/handler@0.1.0#handle") (param i32) (loop $again (br $again)))"#;
    attempts(
        "",
        &[
            ("handle", CoreModule::passing().handle(forever), too_long),
            ("realloc", CoreModule::passing().realloc(forever), too_long),
            ("fill", CoreModule::passing().handle(fill), too_long),
            ("post-return", CoreModule::passing().with(post), too_long),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_does_not_start_is_refused() {
    let starting = |body: &str| CoreModule::passing().with(&format!("(func $start {body}) (start $start)"));
    refusals(
        "[limits]\ncpu_ms = 50\n",
        &[
            ("loop", starting("(loop $again (br $again))"), "it computed longer than 50 ms (`limits.cpu_ms`)"),
            ("recursion", starting("(call $start)"), "it does not start: wasm trap: call stack exhausted"),
            ("trap", starting("unreachable"), "it does not start: wasm trap: wasm `unreachable` instruction executed"),
            ("growth", starting("(loop $again (drop (memory.grow (i32.const 1))) (br $again))"), "it computed longer"),
        ],
    )
    .await;
}

#[tokio::test]
async fn unbounded_recursion_ends() {
    attempt("", "recurse", "recursed too deep").await;
}

#[tokio::test]
async fn a_trap_costs_one_call() {
    attempt("", "trap", "trapped: wasm trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn a_trap_names_the_functions_that_it_interrupted_within_bounds() {
    let long = "x".repeat(100);
    let deep = format!("(func $deep (result i32) (call ${long})) (func ${long} (result i32) unreachable)");
    let deep = CoreModule::passing().with(&deep).handle("(call $deep)");
    let told =
        format!("trapped: wasm trap: wasm `unreachable` instruction executed, in {}, called by deep", &long[..60]);
    attempts("", &[("deep", deep, &told)]).await;
}

#[tokio::test]
async fn an_exception_nobody_catches_costs_one_call() {
    let throwing = CoreModule::passing().with("(tag $e)").handle("(throw $e)");
    attempts("", &[("throwing", throwing, "trapped: ")]).await;
}

#[tokio::test]
async fn exit_ends_the_guest_and_not_the_host() {
    attempt("", "exit 0", "trapped: Exited with i32 exit status 0").await;
}

#[tokio::test]
async fn waiting_for_a_year_ends() {
    attempt("timeout_ms = 100", "sleep 365", "gave no answer within 100 ms").await;
}

#[tokio::test]
async fn waiting_for_many_timers_of_a_year_ends() {
    attempt("timeout_ms = 100", "poll 500", "gave no answer within 100 ms").await;
}

// Memory.

#[tokio::test]
async fn growth_stops_at_the_limit() {
    attempt("memory_mib = 16", "grow 64", "asked for more than 16 MiB of memory (`limits.memory_mib`)").await;
}

#[tokio::test]
async fn memory_that_was_filled_to_the_limit_is_given_back() {
    // Page by page until no more is given, and a byte into every 4 KiB.
    let greedy = CoreModule::passing().handle(&format!(
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
         (local.set $j (i32.mul (memory.size) (i32.const 65536)))
         (local.set $i (i32.const 8192))
         (loop $again
             (i32.store8 (local.get $i) (i32.const 1))
             (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096))) (local.get $j))))
         {}",
        answering(&[])
    ));
    let host = Host::with_plugins(&[("greedy", &greedy.wasm())], "[limits]\nmemory_mib = 64\n").await;
    host.endures("你好", "你好").await;
}

#[tokio::test]
async fn several_memories_have_one_limit_together() {
    let two = CoreModule::passing().with("(memory $second 8)").handle(
        "(if (i32.eq (memory.grow (i32.const 120)) (i32.const -1)) (then unreachable))
         (if (i32.ne (memory.grow $second (i32.const 121)) (i32.const -1)) (then (loop $again (br $again))))
         unreachable",
    );
    attempts("memory_mib = 16\n", &[("two", two, "asked for more than 16 MiB of memory")]).await;
}

#[tokio::test]
async fn what_needs_too_much_to_begin_with_is_refused() {
    // For good: a file that was tried again would be compiled again, each time.
    let too_much = "it asks for more than a plugin can have: ";
    let many = |field: &str, count| CoreModule::passing().with(&field.repeat(count));
    refusals(
        "",
        &[
            ("memory", CoreModule::passing().memory("65536"), too_much),
            ("memories", many("(memory 1)", 90), too_much),
            ("table", many("(table 100000000 funcref)", 1), too_much),
            ("tables", many("(table 1 funcref)", 90), too_much),
            ("elements", many("(table 60000 funcref)", 2), "it does not start: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_table_grows_to_its_limit_only() {
    let growing = CoreModule::passing().with("(table $t 0 funcref)").handle(&format!(
        "(if (i32.eq (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)) (then unreachable))
         (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable))
         {}",
        answering(&reply(TEXT, &[2048, 2]))
    ));
    let growing = growing.with(r#"(data (i32.const 2048) "ok")"#);
    let host = Host::with_plugins(&[("growing", &growing.wasm())], "").await;
    host.endures("你好", "ok").await;
}

#[tokio::test]
async fn garbage_collected_memory_is_memory() {
    // A list that holds on to 8 MB in each of its links.
    let hoarding = CoreModule::passing()
        .with(
            "(type $array (array (mut i64)))
             (type $link (struct (field (ref null $link)) (field (ref $array))))
             (global $list (mut (ref null $link)) (ref.null $link))",
        )
        .handle(
            "(loop $again
                 (global.set $list (struct.new $link (global.get $list) (array.new_default $array (i32.const 1000000))))
                 (br $again))
             unreachable",
        );
    attempts("memory_mib = 16\n", &[("hoarding", hoarding, "asked for more than 16 MiB of memory")]).await;
}

#[tokio::test]
async fn nothing_is_left_for_the_next_guest() {
    // Each looks through all the memory it can get, says `dirty` if there is anything, and leaves it dirty.
    let looking = |number: usize| {
        CoreModule::passing()
            .with(&format!(r#"(data (i32.const 2048) "dirty") (data (i32.const 2064) "{number}")"#))
            .handle(&format!(
                "(drop (memory.grow (i32.const 248)))
                 (local.set $i (i32.const 65536))
                 (loop $again
                     (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then {} return))
                     (i64.store (local.get $i) (i64.const -1))
                     (br_if $again
                         (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 16777216))))
                 {}",
                answering(&reply(TEXT, &[2048, 5])),
                answering(&[])
            ))
            .wasm()
    };
    // More kinds than the pool has memories, so that they get each other's.
    let looking: Vec<Vec<u8>> = (0..10).map(looking).collect();
    let names: Vec<String> = (0..10).map(|number| format!("looking-{number}x")).collect();
    let plugins: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(looking.iter().map(Vec::as_slice)).collect();
    let host = Host::with_plugins(&plugins, "").await;
    host.endures("你好", "你好").await;
}

#[tokio::test]
async fn state_kept_in_a_global_a_table_or_memory_is_gone() {
    let keeping = CoreModule::passing()
        .with(
            r#"(global $kept (mut i32) (i32.const 0))
               (table $table 1 funcref)
               (elem declare func $f)
               (func $f)
               (data (i32.const 2048) "fresh")"#,
        )
        .handle(&format!(
            "(if (global.get $kept) (then unreachable))
             (if (i32.load (i32.const 3072)) (then unreachable))
             (if (i32.eqz (ref.is_null (table.get $table (i32.const 0)))) (then unreachable))
             (global.set $kept (i32.const 1))
             (i32.store (i32.const 3072) (i32.const 1))
             (table.set $table (i32.const 0) (ref.func $f))
             {}",
            answering(&reply(TEXT, &[2048, 5]))
        ));
    let host = Host::with_plugins(&[("keeping", &keeping.wasm())], "").await;
    host.endures("你好", "fresh").await;
}

#[tokio::test]
async fn what_was_written_all_over_a_memory_is_gone_however_it_is_reset() {
    // In more places than are asked for at once, and one that only the last of a call's pages would show.
    let writing = CoreModule::passing().with(r#"(data (i32.const 2048) "fresh")"#).handle(&format!(
        "(local.set $i (i32.const 32768))
         (loop $next
            (if (i32.load (local.get $i)) (then unreachable))
            (i32.store (local.get $i) (i32.const 1))
            (local.set $i (i32.add (local.get $i) (i32.const 8192)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 524288))))
         (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 102)) (then unreachable))
         (i32.store (i32.const 3072) (i32.load (i32.const 2048)))
         {}
         (i32.store8 (i32.const 2049) (i32.add (i32.load8_u (i32.const 2049)) (i32.const 1)))",
        answering(&reply(TEXT, &[2048, 5]))
    ));
    let small = writing.wasm();
    // A custom section without a name, of a mebibyte: so large a file runs in the other engine.
    let large = [&small[..], &[0, 0x81, 0x80, 0x40, 0], &[0; 1 << 20]].concat();
    for engine in ["", "pagemap_scan = true"] {
        for wasm in [&small, &large] {
            let host = Host::with_engine(engine, &[("writing", wasm)], "").await;
            host.endures("你好", "fsesh").await;
        }
    }
}

// What passes between guest and host.

#[tokio::test]
async fn bad_pointers_from_cabi_realloc_are_refused() {
    let realloc = |pointer: &str| CoreModule::passing().realloc(pointer);
    attempts(
        "",
        &[
            ("misaligned", realloc("(i32.const 4097)"), "trapped: "),
            ("at-the-end", realloc("(i32.const 524280)"), "trapped: "),
            ("past-the-end", realloc("(i32.const 524288)"), "trapped: "),
            ("negative", realloc("(i32.const -8)"), "trapped: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn null_from_cabi_realloc_harms_only_the_guest() {
    // 0 is an address like any other: the message is written over whatever the guest has there.
    let null = CoreModule::passing().realloc("(i32.const 0)").with(r#"(data (i32.const 2048) "ok")"#);
    let null = null.handle(&answering(&reply(TEXT, &[2048, 2])));
    let host = Host::with_plugins(&[("null", &null.wasm())], "").await;
    host.endures("你好", "ok").await;
}

#[tokio::test]
async fn a_guest_cannot_call_the_host_while_the_host_calls_it() {
    let calling = CoreModule::passing()
        .imports(r#"(import "aviary:bot/call-info@0.1.0" "current" (func $current (param i32)))"#)
        .realloc("(call $current (i32.const 2048)) (i32.const 4096)");
    attempts("", &[("calling", calling, "trapped: ")]).await;
}

#[tokio::test]
async fn pointers_outside_memory_are_refused() {
    let end = 8 << 16;
    let answers = |words: &[i32]| CoreModule::passing().handle(&answering(words));
    attempts(
        "",
        &[
            ("text-after", answers(&reply(TEXT, &[end, 1])), "trapped: "),
            ("text-across", answers(&reply(TEXT, &[end - 1, 2])), "trapped: "),
            ("text-wraps", answers(&reply(TEXT, &[-1, -1])), "trapped: "),
            ("text-long", answers(&reply(TEXT, &[ANSWER, -1])), "trapped: "),
            ("error-after", answers(&error(end, 1)), "trapped: "),
            ("list-across", answers(&reply(NEWS, &[end - 40, 2])), "trapped: "),
            ("list-long", answers(&reply(NEWS, &[ANSWER, i32::MAX])), "trapped: "),
            ("list-askew", answers(&reply(NEWS, &[ANSWER + 1, 1])), "trapped: "),
            ("answer-after", CoreModule::passing().handle("(i32.const 524288)"), "trapped: "),
            ("answer-askew", CoreModule::passing().handle("(i32.const 1025)"), "trapped: "),
            ("no-such-case", answers(&reply(99, &[])), "trapped: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn text_that_is_no_utf8_is_refused() {
    let says = |bytes: &str, words: &dyn Fn(i32) -> Vec<i32>| {
        let length = i32::try_from(bytes.len() / 3).expect("it is short");
        CoreModule::passing().with(&format!(r#"(data (i32.const 2048) "{bytes}")"#)).handle(&answering(&words(length)))
    };
    let text = |length| reply(TEXT, &[2048, length]);
    attempts(
        "",
        &[
            ("never-a-byte", says(r"\ff\fe", &text), "trapped: "),
            ("cut-short", says(r"\e4\bd", &text), "trapped: "),
            ("surrogate", says(r"\ed\a0\80", &text), "trapped: "),
            ("overlong", says(r"\c0\af", &text), "trapped: "),
            ("error", says(r"\ff", &|length| error(2048, length)), "trapped: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_reply_of_100_mb_is_refused() {
    const BYTES: i32 = 100 << 20;
    let large = CoreModule::passing().memory("1700");
    // A thousand articles whose titles are one and the same megabyte.
    let articles = format!(
        "(loop $again
             (i32.store offset=131072 (local.get $i) (i32.const 1048576))
             (i32.store offset=131076 (local.get $i) (i32.const 1048576))
             (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 40))) (i32.const 40000))))
         {}",
        answering(&reply(NEWS, &[131_072, 1_000]))
    );
    attempts(
        "memory_mib = 128\n",
        &[
            ("text", large.clone().handle(&answering(&reply(TEXT, &[4096, BYTES]))), "trapped: "),
            ("error", large.clone().handle(&answering(&error(4096, BYTES))), "trapped: "),
            ("articles", large.handle(&articles), "trapped: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn leaked_handles_end_with_the_call() {
    let host = misbehaving("").await;
    host.endures("leak 400", "leaked").await;
    attempt("", "leak 100000", "trapped: resource table has no free keys").await;
}

#[tokio::test]
async fn a_thousand_requests_with_long_methods_hosts_paths_and_headers_hold_nothing() {
    // No grant is needed to make requests, as long as none is sent.
    let settings = "[plugins.fetcher.limits]\ncpu_ms = 30000\ntimeout_ms = 60000\nmemory_mib = 64\n";
    let mut host = Host::with_plugins(&[("fetcher", &FETCHER)], settings).await;
    assert_eq!(host.says("hoard 900").await, "900 requests took 0");
    host.is_as_before().await;
    assert_eq!(host.says("hoard headers").await, "hoard headers");
    host.failed("fetcher", "total size of fields exceeds limit").await;
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_costs_computing_time() {
    let host = misbehaving("cpu_ms = 4000").await;
    host.endures("flood 16", "flooded").await;
    attempt("cpu_ms = 50", "flood 100000", "computed longer than 50 ms").await;
}

#[tokio::test]
async fn random_numbers_by_the_gigabyte_are_refused() {
    attempt("", "random 4000", "trapped: requested len 4194304000 exceeds limit 262144").await;
}

// The network. What else a URL can try is in `egress.rs`.

/// The plugin that does what it is told, with this grant.
async fn reaching(grant: &str, limits: &str) -> Host {
    let grants = format!("[plugins.misbehave.grants]\nhttp = [\"{grant}\"]");
    misbehaving(&format!("{limits}\n{grants}")).await
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_call() {
    let drip = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx";
    let upstream = Upstream::plain(move |_| Answer::Drip(drip.to_vec())).await;
    let host = reaching(&upstream.origin(), "timeout_ms = 100").await;
    let order = format!("http {}/", upstream.origin());
    // It is told just before its own time is over, if it is quick enough.
    host.endures_any(&order, |reply| [&*order, "Error::Timeout"].contains(&reply)).await;
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_redirect_to_a_metadata_address_leads_nowhere() {
    let goal = "http://169.254.169.254/latest/meta-data/";
    let upstream = Upstream::plain(move |_| {
        Answer::Bytes(format!("HTTP/1.1 302 Found\r\nlocation: {goal}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let host = reaching(&upstream.origin(), "").await;
    host.endures_any(&format!("http {}/", upstream.origin()), |reply| reply.trim_end() == "302").await;
    host.endures_any(&format!("http {goal}"), |reply| reply.starts_with("Error::Denied(")).await;
}

#[tokio::test]
async fn a_name_that_turns_to_an_address_within_is_refused() {
    // The name is granted; what it leads to is looked at each time, and only that is connected to.
    let upstream = Upstream::plain(|_| ok("", "within")).await;
    let url = format!("http://localhost:{}", upstream.address.port());
    let host = reaching(&url, "").await;
    host.endures_any(&format!("http {url}/"), |reply| reply.contains("the name leads to a private address")).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_granted_name_before_an_at_leads_nowhere() {
    let evil = Upstream::plain(|_| ok("", "evil")).await;
    let host = reaching("https://api.example.com", "").await;
    let order = format!("http https://api.example.com@{}/", evil.address);
    host.endures_any(&order, |reply| reply.starts_with("Error::")).await;
    assert_eq!(evil.connections(), 0);
}

// Files.

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_in_mid_call_does_not_disturb_the_call() {
    // Built here, not while the call runs.
    let parrot = &*PARROT;
    let host = Host::with_plugins(&[("bot", &MISBEHAVE)], "").await;
    let user = host.user();
    let call = tokio::spawn(async move { user.says("wait 2000").await });
    // In place, as a careless copy does it: were the file itself mapped, the guest would run into it.
    fs::write(host.plugin_file("10-bot.wasm"), b"").unwrap();
    fs::write(host.plugin_file("10-bot.wasm"), parrot).unwrap();
    host.user().is_answered("hi", "鹦鹉：hi").await;
    assert_eq!(call.await.unwrap(), "waited");
    host.is_as_before().await;
}

#[tokio::test]
async fn a_half_written_file_waits_for_its_other_half() {
    let mut host = Host::with_plugins(&[("bot", &PARROT)], "").await;
    let file = host.plugin_file("10-bot.wasm");
    fs::write(&file, &MISBEHAVE[..MISBEHAVE.len() / 2]).unwrap();
    host.line("the version before it stays").await;
    host.endures("hi", "鹦鹉：hi").await;
    fs::write(&file, &*MISBEHAVE).unwrap();
    host.user().is_answered("say new", "new").await;
}

/// What somebody else's compiler made.
fn compiled(wasm: &[u8]) -> Vec<u8> {
    let engine = wasmtime::Engine::default();
    engine.precompile_component(&wat::parse_bytes(wasm).unwrap()).unwrap()
}

#[tokio::test]
async fn machine_code_is_refused_whatever_its_name() {
    let mut host = Host::start("").await;
    let code = compiled(b"(component)");
    host.refuses("10-code.cwasm", &code, "compiled code cannot be checked").await;
    host.refuses("10-code.wasm", &code, "this is no WebAssembly").await;
}

#[tokio::test]
async fn a_link_is_read_as_the_file_it_names_and_nothing_of_that_file_is_told() {
    let mut host = Host::start("").await;
    // An operator links to a build, and some systems mount every file as a link. Who can place a link can place a file.
    let outside = tempfile::tempdir().unwrap();
    let link = |target: &str, file: &str| symlink(outside.path().join(target), host.plugin_file(file)).unwrap();
    fs::write(outside.path().join("secret"), "hunter2 is the password").unwrap();
    fs::write(outside.path().join("parrot.wasm"), &*PARROT).unwrap();
    fs::create_dir(outside.path().join("more")).unwrap();
    fs::write(outside.path().join("more/10-more.wasm"), &*PARROT).unwrap();
    link("secret", "10-secret.wasm");
    link("more", "11-more.wasm");
    symlink("/dev/zero", host.plugin_file("12-zero.wasm")).unwrap();
    symlink("14-circle.wasm", host.plugin_file("13-circle.wasm")).unwrap();
    symlink("13-circle.wasm", host.plugin_file("14-circle.wasm")).unwrap();
    host.refused("11-more.wasm", "not a file").await;
    host.refused("12-zero.wasm", "not a file").await;
    host.line("13-circle.wasm cannot be looked at").await;
    let line = host.line("10-secret.wasm is not loaded").await;
    for told in ["hunter2", "68 75 6e", "68, 75"] {
        assert!(!line.contains(told), "{line}");
    }
    symlink(outside.path().join("parrot.wasm"), host.plugin_file("15-parrot.wasm")).unwrap();
    host.user().is_answered("hi", "鹦鹉：hi").await;
    host.is_as_before().await;
}

/// A component with these imports, whose handler takes nothing and returns nothing.
fn exporting(handler: &str, imports: &str) -> Vec<u8> {
    let component = format!(
        r#"(component
            {imports}
            (core module $module (func (export "handle")))
            (core instance $module (instantiate $module))
            (func $handle (canon lift (core func $module "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "{handler}" (instance $handler)))"#
    );
    wat::parse_str(component).unwrap()
}

#[tokio::test]
async fn a_component_of_another_contract_is_refused() {
    let mut host = Host::start("").await;
    let newer = exporting("aviary:bot/handler@0.2.0", "");
    host.refuses("10-newer.wasm", &newer, "it was built against `aviary:bot/handler@0.2.0`").await;
    let unlike = exporting("aviary:bot/handler@0.1.0", "");
    host.refuses("10-unlike.wasm", &unlike, "it does not start: failed to convert function to given type").await;
    let other = exporting("aviary:cat/handler@0.1.0", "");
    host.refuses("10-other.wasm", &other, "it exports no `aviary:bot/handler@0.1.0`").await;
}

#[tokio::test]
async fn what_the_host_does_not_have_is_refused_by_name() {
    let mut host = Host::start("").await;
    let root = r#"(import "evil:host/root@1.0.0" (instance (export "become" (func))))"#;
    host.refuses("10-root.wasm", &exporting("aviary:bot/handler@0.1.0", root), "evil:host/root@1.0.0").await;
    let importing = CoreModule::passing().imports(r#"(import "env" "abort" (func))"#);
    host.refuses("10-abort.wasm", &importing.wasm(), "`env::abort`").await;
}

#[tokio::test]
async fn a_section_that_claims_2_gb_is_refused() {
    let mut host = Host::start("").await;
    // A custom section, its length in LEB128, and a first byte.
    let claiming = [&ECHO[..], &[0, 0xff, 0xff, 0xff, 0xff, 0x07, 1]].concat();
    host.refuses("10-claiming.wasm", &claiming, "is not loaded").await;

    // A file that does have 2 GB, all of them holes.
    let partial = host.dir().join("partial");
    fs::write(&partial, &*ECHO).unwrap();
    fs::OpenOptions::new().append(true).open(&partial).unwrap().set_len(2 << 30).unwrap();
    fs::rename(partial, host.plugin_file("10-large.wasm")).unwrap();
    host.refused("10-large.wasm", "it has 2147483648 bytes; `compile.file_mib_max` allows").await;
}

#[tokio::test]
async fn a_module_of_50_000_functions_keeps_nobody_waiting() {
    let function = "(func (param i32) (result i32) (i32.mul (i32.add (local.get 0) (i32.const 7)) (local.get 0)))";
    let many = CoreModule::passing().with(&function.repeat(50_000)).wasm();
    let mut host = Host::start("[compile]\ncpu_s = 1\n").await;
    host.refuses("10-many.wasm", &many, "compiling computed longer than 1 s").await;
}

#[tokio::test]
async fn data_that_unpacks_to_far_more_is_bounded() {
    // A byte here and there, all over 64 MiB: kept as an image, this would be 64 MiB, too.
    let sparse = |count: usize| {
        let step = (64 << 20) / (count + 1);
        let data: String = (1..=count).map(|number| format!(r#"(data (i32.const {}) "x")"#, number * step)).collect();
        CoreModule::passing().memory("1024").with(&data).wasm()
    };
    let mut host = Host::start("[compile]\ncpu_s = 2\n").await;
    host.drops("10-sparse.wasm", &sparse(1_000));
    host.line("asks 2 plugins").await;
    host.endures("hi", "hi").await;
    // What the compiler does with so many takes it far longer.
    host.refuses("20-sparser.wasm", &sparse(100_000), "compiling computed longer than 2 s").await;
}

#[tokio::test]
async fn nesting_that_breaks_the_compiler_does_not_break_the_host() {
    let mut host = Host::start("[compile]\nmemory_mib = 512\ncpu_s = 2\n").await;
    let nested = bombs::nested_components(20_000);
    host.refuses("10-components.wasm", &nested, "the compiler crashed (signal: 6").await;
    let typed = bombs::with_component_type(&ECHO, &bombs::nested_components(3_000));
    host.refuses("10-type.wasm", &typed, "expected one export in component").await;
    let lists = bombs::nested_lists(50_000);
    host.refuses("10-lists.wasm", &lists, "type nesting is too deep").await;
    let blocks = format!("(func {} {})", "block ".repeat(100_000), "end ".repeat(100_000));
    host.refuses("10-blocks.wasm", &CoreModule::passing().with(&blocks).wasm(), "compiling computed longer than 2 s")
        .await;
}

#[tokio::test]
async fn a_component_of_a_thousand_instances_is_refused() {
    let many = format!(
        r#"(component (core module $module (memory 1)) {})"#,
        "(core instance (instantiate $module))".repeat(1_000)
    );
    let mut host = Host::start("").await;
    let too_much = "it asks for more than a plugin can have: ";
    host.refuses("10-many.wasm", &wat::parse_str(many).unwrap(), too_much).await;
}

#[tokio::test]
async fn of_two_plugins_with_one_name_the_second_is_not_asked() {
    let mut host = Host::start("").await;
    host.drops("95-echo-2.0.wasm", &PARROT);
    let line = host.line("95-echo-2.0.wasm is not asked").await;
    assert!(line.contains("90-echo.wasm is a plugin of the same name `echo`"), "{line}");
    host.endures("hi", "hi").await;
}

#[tokio::test]
async fn proposals_that_no_bot_needs_are_off() {
    let memory = |memory: &str| CoreModule::passing().memory(memory);
    refusals(
        "",
        &[
            ("memory64", CoreModule::passing().with("(memory i64 1)"), "memory"),
            ("shared", memory("1 1 shared"), "shared"),
            ("pages", CoreModule::passing().with("(memory 1 (pagesize 1))"), "page"),
        ],
    )
    .await;
}
