//! Builds crates of this workspace for WebAssembly, with a cargo of its own.
//!
//! The build script uses it for the bundled plugins, the tests for the plugin they command. It prints nothing and reads
//! no file of the host's; what goes wrong comes back as a text that says what to do.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The profile of the root `Cargo.toml` that plugins are built with.
const PROFILE: &str = "plugin";

/// A plugin's stack. Rust's default is 1 MiB, which the host would have to reset after every message. With this one, stack,
/// data and heap of every bundled plugin are one page of 64 KiB. A stack that is used up is a trap.
const STACK_BYTES: u32 = 16 * 1024;

/// What the calling cargo tells its children about its own build. Inherited, it would change ours: other flags, another
/// profile, clippy in the compiler's place.
const NOT_INHERITED: [&str; 4] = ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"];
const PREFIXES_NOT_INHERITED: [&str; 4] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];

/// Builds `packages` of the workspace for `target` and returns their `.wasm` files, in the order of `packages`.
///
/// `target_dir` must not be the one of a cargo that is waiting for us, or both would wait for ever. The target is
/// added to the toolchain when it is missing. The packages keep cargo's default library name.
pub(crate) fn build(
    workspace_dir: &Path,
    packages: &[&str],
    target: &str,
    target_dir: &Path,
) -> Result<Vec<PathBuf>, String> {
    add_target_if_missing(target)?;

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--lib", "--profile", PROFILE, "--target", target, "--target-dir"]).arg(target_dir);
    // Whoever called us has resolved the same workspace and brought the lock file up to date, so it cannot be behind.
    cargo.arg("--locked").arg("--manifest-path").arg(workspace_dir.join("Cargo.toml"));
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    // Cargo looks for its configuration upwards from here.
    cargo.current_dir(workspace_dir);
    for (name, _) in env::vars_os() {
        if not_inherited(&name) {
            cargo.env_remove(&name);
        }
    }
    // Set even where it would be empty: it overrides every other source of flags.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace_dir)?);
    run(&mut cargo)?;

    let dir = target_dir.join(target).join(PROFILE);
    packages.iter().map(|package| existing(dir.join(package.replace('-', "_")).with_extension("wasm"))).collect()
}

/// Adds the standard library for `target` to the toolchain in use, unless it is there.
fn add_target_if_missing(target: &str) -> Result<(), String> {
    let libdir = run(rustc().args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    // rustup is told by RUSTUP_TOOLCHAIN, or by rust-toolchain.toml, which toolchain that is.
    run(Command::new("rustup").args(["target", "add", target])).map(drop).map_err(|error| {
        format!(
            "the plugins are built for {target}, and this Rust toolchain lacks its standard library. \
             With rustup: `rustup target add {target}` (its toolchain must be the one that builds Aviary). \
             Without: install the distribution's package, such as libstd-rust-dev-wasm32 (Debian) or \
             rust-std-static-{target} (Fedora). Adding it now failed: {error}"
        )
    })
}

/// Returns the compiler's flags, joined as cargo wants them.
///
/// Paths of the builder's machine are replaced by names: they would tell about the machine, and make the same source
/// give other bytes elsewhere. The last prefix that fits wins, so the narrower ones come later.
fn rustflags(workspace_dir: &Path) -> Result<OsString, String> {
    let sysroot = PathBuf::from(run(rustc().args(["--print", "sysroot"]))?.trim());
    let home = env::home_dir().unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);

    let mut flags = OsString::from(format!("-Clink-arg=-zstack-size={STACK_BYTES}"));
    for (path, name) in [(&*home, "~"), (&*cargo_home, "cargo"), (&*sysroot, "rust"), (workspace_dir, "aviary")] {
        // An empty prefix would fit everything.
        if path.parent().is_some() {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(path);
            flags.push(format!("={name}"));
        }
    }
    Ok(flags)
}

/// Returns the compiler that cargo uses: a build script is told, anyone else takes the one on the path.
fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn not_inherited(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| {
        NOT_INHERITED.contains(&name) || PREFIXES_NOT_INHERITED.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// Runs a command to its end and returns what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let named = format!("`{}`", command.get_program().display());
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{named} does not run: {error}"))?;
    if !status.success() {
        return Err(format!("{named} ended with {status}:\n{}", String::from_utf8_lossy(&stderr)));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn existing(path: PathBuf) -> Result<PathBuf, String> {
    if path.is_file() { Ok(path) } else { Err(format!("cargo succeeded, yet there is no {}", path.display())) }
}
