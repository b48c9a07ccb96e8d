//! Gathers what `aviary new` writes: the templates, the contract, and the bindings that are generated from it.
//!
//! Authors then need no tool of ours but the binary, and bindings cannot fall behind the contract. They are made here and
//! not when `new` runs, so that the generators are no part of the binary.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use wit_bindgen_core::Files;
use wit_bindgen_core::WorldGenerator;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

use crate::typescript;

/// Where the contract lies in a project.
const WIT: &str = "wit";

/// A file of a template: its directory under `templates`, its path in a project, and where it is now.
struct Part {
    template: String,
    path: String,
    source: PathBuf,
}

/// Writes `OUT_DIR/templates.rs`, which embeds every file that a project may have.
pub(crate) fn gather(workspace_dir: &Path, out_dir: &Path) -> Result<(), String> {
    let contract = workspace_dir.join("wit");
    let generated = out_dir.join("templates");
    // What an earlier build generated, and this one does not.
    let _ = fs::remove_dir_all(&generated);
    generate(&contract, workspace_dir, &generated)?;
    let mut parts = files(&contract).map_err(|error| format!("{}: {error}", contract.display()))?;
    parts.retain(|part| part.template.is_empty());
    parts.iter_mut().for_each(|part| part.template = WIT.into());
    for root in [workspace_dir.join("host/templates"), generated] {
        parts.extend(files(&root).map_err(|error| format!("{}: {error}", root.display()))?);
    }
    fs::write(out_dir.join("templates.rs"), list(&parts)).map_err(|error| format!("templates.rs: {error}"))
}

/// Returns every file below a directory, in order. The first part of its path is its template.
fn files(root: &Path) -> io::Result<Vec<Part>> {
    let (mut found, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    let part = |source: PathBuf| {
        let path = source.strip_prefix(root).ok()?.to_str()?;
        let (template, path) = path.split_once('/').unwrap_or(("", path));
        Some(Part { template: template.into(), path: path.into(), source })
    };
    Ok(found.into_iter().filter_map(part).collect())
}

/// Returns the source of the list that the host includes.
fn list(parts: &[Part]) -> String {
    let entry =
        |Part { template, path, source }: &Part| format!("    ({template:?}, {path:?}, include_str!({source:?})),\n");
    format!(
        "/// Every file of every template: the template, the file's path in a project, and its text.\n\
         const PARTS: &[Part] = &[\n{}];\n",
        parts.iter().map(entry).collect::<String>()
    )
}

/// Generates the bindings of the languages whose tools do not do it themselves.
fn generate(contract: &Path, workspace_dir: &Path, into: &Path) -> Result<(), String> {
    let not =
        |what: &str, error: &dyn std::fmt::Display| format!("the bindings for {what} were not generated: {error}");
    let bindings = |generator: &mut dyn WorldGenerator| -> Result<Files, String> {
        // Generators change what they read.
        let (mut resolve, world) = world(contract)?;
        let mut files = Files::default();
        generator.generate(&mut resolve, world, &mut files).map_err(|error| format!("{error:#}"))?;
        Ok(files)
    };
    let c = wit_bindgen_c::Opts { no_object_file: true, ..wit_bindgen_c::Opts::default() };
    let c = bindings(&mut *c.build()).map_err(|error| not("C", &error))?;
    write(&c, &into.join("c/aviary")).map_err(|error| not("C", &error))?;

    let go = wit_bindgen_go::Opts {
        // Whatever gofmt the building machine has would decide what the binary holds.
        format: wit_bindgen_go::Format::False,
        pkg_name: Some("aviary/wit".into()),
        quiet: true,
        ..wit_bindgen_go::Opts::default()
    };
    let go = bindings(&mut *go.build()).map_err(|error| not("Go", &error))?;
    write(&go, &into.join("go/aviary/wit")).map_err(|error| not("Go", &error))?;
    copy_go_runtime(workspace_dir, &into.join("go/aviary/wit")).map_err(|error| not("Go", &error))?;
    own_go_runtime(&into.join("go/aviary/wit")).map_err(|error| not("Go", &error))?;

    let (resolve, id) = world(contract)?;
    let types = into.join("quickjs/aviary");
    let declarations = typescript::declarations(&resolve, id).map_err(|error| not("TypeScript", &error))?;
    fs::create_dir_all(&types)
        .and_then(|()| fs::write(types.join("wit.d.ts"), declarations))
        .map_err(|error| not("TypeScript", &error))
}

fn world(contract: &Path) -> Result<(Resolve, WorldId), String> {
    let mut resolve = Resolve::default();
    let read = resolve.push_dir(contract);
    let world = read.and_then(|(package, _)| resolve.select_world(&[package], Some("bot")));
    world.map(|world| (resolve, world)).map_err(|error| format!("the contract cannot be read: {error:#}"))
}

fn write(files: &Files, into: &Path) -> io::Result<()> {
    for (name, content) in files.iter() {
        let file = into.join(name);
        fs::create_dir_all(file.parent().unwrap_or(into))?;
        fs::write(file, content)?;
    }
    Ok(())
}

/// The module that Go's bindings import, and its packages that they need. It comes with the generator, in the version that
/// fits, so that no project has to fetch it.
const GO_RUNTIME: &str = "go.bytecodealliance.org/pkg/wit";
const GO_RUNTIME_FILES: [&str; 6] = [
    "wit/runtime/runtime.go",
    "wit/runtime/empty.s",
    "wit/types/option.go",
    "wit/types/result.go",
    "wit/types/tuple.go",
    "wit/types/unit.go",
];

fn copy_go_runtime(workspace_dir: &Path, into: &Path) -> Result<(), String> {
    let package = source_of(workspace_dir, "wit-bindgen-go")?.join("src/pkg");
    for file in GO_RUNTIME_FILES.iter().chain(&["LICENSE"]) {
        let target = into.join(file.strip_prefix("wit/").unwrap_or(file));
        fs::create_dir_all(target.parent().unwrap_or(into))
            .and_then(|()| fs::copy(package.join(file), &target))
            .map_err(|error| format!("{file} of Go's runtime: {error}"))?;
    }
    Ok(())
}

/// Returns where cargo keeps the source of a package that we depend on: whichever registry or vendored directory it is from.
fn source_of(workspace_dir: &Path, package: &str) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path"]);
    cargo.arg(workspace_dir.join("Cargo.toml"));
    // Packages for other platforms may not have been fetched.
    cargo.args(env::var_os("HOST").iter().flat_map(|host| [OsStr::new("--filter-platform"), host]));
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = packages.iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str()).map(Path::new);
    manifest.and_then(Path::parent).map(Path::to_owned).ok_or_else(|| format!("`cargo metadata` knows no {package}"))
}

/// Lets the bindings import the runtime from the project.
fn own_go_runtime(bindings: &Path) -> io::Result<()> {
    for Part { source, .. } in files(bindings)? {
        let text = fs::read_to_string(&source)?;
        fs::write(&source, text.replace(GO_RUNTIME, "aviary/wit"))?;
    }
    Ok(())
}
