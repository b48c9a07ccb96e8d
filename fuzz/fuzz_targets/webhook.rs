//! The whole webhook: query and body, to a host without plugins.

#![no_main]

use std::sync::LazyLock;

#[path = "../checks"]
mod checks {
    mod decrypt;
    pub mod webhook;
}

static HARNESS: LazyLock<checks::webhook::Harness> = LazyLock::new(checks::webhook::Harness::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| HARNESS.check(bytes));
