//! A stack of 64 KiB, not of 1 MiB: what a message touches then lies so close together that Aviary resets it in place, and
//! a call takes less than half of the time. For deep recursion or large arrays, raise it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
    }
}
