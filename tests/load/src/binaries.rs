//! What is measured, built from the source beside it: the host of our own profile, and plugins.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

#[path = "../../../host/build/nested_cargo.rs"]
mod nested_cargo;

/// What the bundled plugins are built for: no WASI at all.
pub const BARE: &str = "wasm32-unknown-unknown";

/// A libc with WASI: what the tests' plugins are built for, and an author's.
pub const WASIP2: &str = "wasm32-wasip2";

/// Builds the host, if it is not up to date, and returns its binary. Always asked: an old one would give figures of code
/// that is gone.
pub fn host() -> anyhow::Result<PathBuf> {
    let ours = env::current_exe()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--package", "aviary-host", "--bin", "aviary"]).current_dir(workspace_dir());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cargo does not run")?;
    ensure!(status.success(), "the host could not be built");
    let host = ours.with_file_name("aviary");
    ensure!(host.is_file(), "cargo succeeded, yet there is no {}; name one with --host", host.display());
    Ok(host)
}

/// Builds a plugin of this workspace for a target, with the profile of those that ship, and returns its bytes.
pub fn plugin(package: &str, target: &str) -> anyhow::Result<Vec<u8>> {
    let ours = env::current_exe()?;
    let target_dir = ours.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).context("no target directory")?;
    let modules = nested_cargo::build(&workspace_dir(), &[package], target, &target_dir.join("wasm"))
        .map_err(anyhow::Error::msg)?;
    let module = modules.first().context("no module was built")?;
    fs::read(module).with_context(|| format!("cannot read {}", module.display()))
}

/// Builds the echo of `examples/echo-rs`, as its author would, and returns its bytes.
pub fn echo_rs() -> anyhow::Result<Vec<u8>> {
    let name = "echo-rs";
    let built = Command::new(example_dir(name).join("build.sh")).status().context("build.sh does not run")?;
    ensure!(built.success(), "examples/{name} could not be built");
    Ok(example(name)?)
}

/// Reads an example's file. Where it was not built, the error says how to: its toolchain comes from far away, and takes
/// minutes.
pub fn example(name: &str) -> Result<Vec<u8>, NotBuilt> {
    fs::read(example_dir(name).join(name).with_extension("wasm")).map_err(|_| NotBuilt { name: name.into() })
}

/// An example without its file.
#[derive(Debug, thiserror::Error)]
#[error("run examples/{name}/build.sh first")]
pub struct NotBuilt {
    name: String,
}

fn example_dir(name: &str) -> PathBuf {
    workspace_dir().join("examples").join(name)
}

/// The repository.
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
