//! Hostile plugins, one test for each thing they try. In each the next message is answered in time, and the host is as it
//! was before: every slot of the pool is free again, and memory is back.
//!
//! SECURITY.md lists the attacks with what stops each.

mod core_module;
mod host;

use self::{
    core_module::{ANSWER, CoreModule, NEWS, TEXT, answering, error, reply},
    host::Host,
};
use crate::plugins::MISBEHAVE;

/// The plugin that does what it is told, with limits that make it quick to stop.
async fn misbehaving() -> Host {
    let settings = "[plugins.misbehave.limits]\ncpu_ms = 50\ntimeout_ms = 200\nmemory_mib = 16\n";
    Host::with_plugins(&[("misbehave", &MISBEHAVE)], settings).await
}

/// Tells the plugin to misbehave; it must fail for this reason.
async fn attempt(order: &str, why: &str) {
    let mut host = misbehaving().await;
    host.endures(order).await;
    host.failed("misbehave", why).await;
}

/// Asks plugins made by hand, each of which must fail for its reason.
async fn attempts(cases: &[(&str, CoreModule, &str)]) {
    let plugins: Vec<(&str, Vec<u8>)> = cases.iter().map(|(name, module, _)| (*name, module.wasm())).collect();
    let plugins: Vec<(&str, &[u8])> = plugins.iter().map(|(name, wasm)| (*name, &wasm[..])).collect();
    let mut host = Host::with_plugins(&plugins, "[limits]\ncpu_ms = 50\n").await;
    host.endures("你好").await;
    for (name, _, why) in cases {
        host.failed(name, why).await;
    }
}

#[tokio::test]
async fn an_endless_loop_ends() {
    attempt("loop forever", "computed longer than 50 ms (`limits.cpu_ms`)").await;
}

#[tokio::test]
async fn unbounded_recursion_ends() {
    attempt("recurse", "recursed too deep").await;
}

#[tokio::test]
async fn unreachable_costs_one_call() {
    attempt("trap", "trapped: wasm trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn bad_pointers_from_cabi_realloc_are_refused() {
    let realloc = |pointer: &str| CoreModule::passing().realloc(pointer);
    attempts(&[
        ("misaligned", realloc("(i32.const 4097)"), "trapped: "),
        ("at-the-end", realloc("(i32.const 524280)"), "trapped: "),
        ("past-the-end", realloc("(i32.const 524288)"), "trapped: "),
        ("negative", realloc("(i32.const -8)"), "trapped: "),
    ])
    .await;
}

#[tokio::test]
async fn pointers_outside_memory_are_refused() {
    let end = 8 << 16;
    let answers = |words: &[i32]| CoreModule::passing().handle(&answering(words));
    attempts(&[
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
    ])
    .await;
}
