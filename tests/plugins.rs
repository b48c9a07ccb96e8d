//! The plugins that tests drop into a bot's directory. Those that are not bundled are built at their first use.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use wasm_encoder::{Module, RawSection};
use wasmparser::{Parser, Payload};

use crate::nested_cargo;

/// Does what a text tells it, above all what no plugin should; see its source for the orders.
pub static MISBEHAVE: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-misbehave", "wasm32-wasip2"));

/// Keeps keys and values as a text tells it; see its source for the orders.
pub static KEEPER: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-keeper", "wasm32-wasip2"));

/// Sends HTTP as a text tells it; see its source for the orders.
pub static FETCHER: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-test-fetcher", "wasm32-unknown-unknown"));

/// Sends customer-service messages and calls WeChat's API as a text tells it; see its source for the orders.
pub static CALLER: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-test-caller", "wasm32-unknown-unknown"));

/// Makes pages as their addresses tell it; see its source for the orders.
pub static PAGER: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-test-pager", "wasm32-wasip2"));

/// Says every text back as `鹦鹉：…`.
pub static PARROT: LazyLock<Vec<u8>> = LazyLock::new(|| build("aviary-test-parrot", "wasm32-unknown-unknown"));

/// The bundled echo.
pub static ECHO: LazyLock<Vec<u8>> = LazyLock::new(|| bundled("20-echo.wasm"));

/// Answers what an operator's table has.
pub static KEYWORDS: LazyLock<Vec<u8>> = LazyLock::new(|| bundled("15-keywords.wasm"));

/// Greets whoever subscribes.
pub static WELCOME: LazyLock<Vec<u8>> = LazyLock::new(|| bundled("10-welcome.wasm"));

/// Answers every message that is not an event.
pub static FALLBACK: LazyLock<Vec<u8>> = LazyLock::new(|| bundled("90-fallback.wasm"));

/// The bundled echo without the section that says which world it is made for.
pub fn untyped(module: &[u8]) -> Vec<u8> {
    let mut untyped = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload.expect("it is a module") {
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {}
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    untyped.section(&RawSection { id, data: &module[range] });
                }
            }
        }
    }
    untyped.finish()
}

/// Makes a plugin from the text form of a core module that exports `handle`, without an allocator that frees.
pub fn from_wat(body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            {body}
            (memory (export "memory") 8)
            (global $next (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
                (result i32)
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (local.get $size)))))"#
    );
    wat::parse_str(module).unwrap_or_else(|error| panic!("{error}"))
}

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host's package stands in the workspace")
}

fn bundled(file: &str) -> Vec<u8> {
    let found = aviary_host::bundled::files().find(|(name, _)| name == file);
    found.unwrap_or_else(|| panic!("{file} is not bundled")).1.to_vec()
}

fn build(package: &str, target: &str) -> Vec<u8> {
    // The same directory as the bundled plugins are built in, so that they share what they depend on.
    let target_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below target").join("wasm");
    let built = nested_cargo::build(workspace(), &[package], target, &target_dir);
    let file = built.unwrap_or_else(|error| panic!("{package} was not built: {error}")).remove(0);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{} was not read: {error}", file.display()))
}
