//! Builds the bundled plugins for WebAssembly and hands them to the host as `OUT_DIR/bundled.rs`, and what `aviary new`
//! writes as `OUT_DIR/templates.rs`.
//!
//! A clone then needs one command, `cargo build`, and what ships is always built from the source beside it.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "build/nested_cargo.rs"]
mod nested_cargo;
#[path = "build/projects.rs"]
mod projects;
#[path = "build/typescript.rs"]
mod typescript;

/// No WASI at all unless a plugin asks for it: the smallest module, and the quickest to instantiate.
const TARGET: &str = "wasm32-unknown-unknown";

fn main() {
    if let Err(error) = bundle() {
        eprintln!("What the binary brings along could not be built: {error}");
        std::process::exit(1);
    }
}

fn bundle() -> Result<(), String> {
    let out_dir = directory("OUT_DIR")?;
    let workspace_dir = directory("CARGO_MANIFEST_DIR")?
        .parent()
        .ok_or("the package `aviary-host` stands outside its workspace")?
        .to_owned();
    for input in [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "wit",
        "plugins",
        "host/build.rs",
        "host/build",
        "host/templates",
    ] {
        println!("cargo::rerun-if-changed={}", workspace_dir.join(input).display());
    }

    let plugins = plugins(&workspace_dir.join("plugins"))?;
    let packages: Vec<String> = plugins.iter().map(|plugin| format!("aviary-plugin-{plugin}")).collect();
    let modules = nested_cargo::build(
        &workspace_dir,
        &packages.iter().map(String::as_str).collect::<Vec<_>>(),
        TARGET,
        &target_dir(&out_dir).join("wasm"),
    )?;
    for (plugin, module) in plugins.iter().zip(modules) {
        // A copy, since another checkout may share the target directory.
        let copy = out_dir.join(plugin).with_extension("wasm");
        fs::copy(&module, &copy).map_err(|error| format!("{} was not copied: {error}", module.display()))?;
    }
    fs::write(out_dir.join("bundled.rs"), list(&plugins))
        .map_err(|error| format!("bundled.rs was not written: {error}"))?;
    projects::gather(&workspace_dir, &out_dir)
}

/// Returns the names of the bundled plugins, which are those of their directories, in alphabetical order.
fn plugins(dir: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{} was not read: {error}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Returns the source of the list that the host includes.
fn list(plugins: &[String]) -> String {
    let entries: String = plugins
        .iter()
        .map(|plugin| format!("    (\"{plugin}\", include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{plugin}.wasm\"))),\n"))
        .collect();
    format!(
        "/// The bundled plugins by name, in alphabetical order: core modules with their component type inside.\n\
         pub(crate) const BUNDLED: &[(&str, &[u8])] = &[\n{entries}];\n"
    )
}

/// Returns the workspace's target directory, which cargo marks, so that every profile shares one build of the plugins.
/// Where nothing is marked (`cargo install`), `out_dir` serves.
fn target_dir(out_dir: &Path) -> &Path {
    out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).unwrap_or(out_dir)
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {variable}"))
}
