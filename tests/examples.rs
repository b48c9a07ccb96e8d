//! The examples: each is built by its own `build.sh`, as a reader would, and held to its conversation by `aviary chat`. And the
//! pages that say how to write a plugin.
//!
//! libtest cannot skip a test for what a machine lacks. Here what cannot be built without a tool is ignored, by name and with the
//! tool, and `.ci/run` fails if anything is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use assistant::Model;
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "examples/assistant.rs"]
mod assistant;

#[path = "examples/pages.rs"]
mod pages;

/// What has to be on the machine, by the end of an example's name and by the name of a page. Everything else is installed.
const BASE_TOOLS: [(&str, &str, &[&str]); 6] = [
    ("-rs", "rust", &["cargo"]),
    ("-js", "javascript", &["node", "npm"]),
    ("-ts", "typescript", &["node", "npm"]),
    ("-py", "python", &["python3"]),
    ("-go", "go", &["python3", "cargo"]),
    ("-c", "c", &["python3", "cargo"]),
];

/// What the user of the assistant reads, whatever the model does.
const STORIES: [(&str, Model, &str); 4] = [
    ("a model that takes 8 s is heard by a later try", Model::After(Duration::from_secs(8)), "四十二。"),
    ("what a model says after 30 s is kept until the user asks", Model::After(Duration::from_secs(30)), "四十二。"),
    ("a streamed answer is one reply", Model::Streams, "四十二。"),
    ("a model that fails gives a friendly text", Model::Fails, "我这会儿没能想出来，请稍后再问一次。"),
];

/// Builds take turns: they install what they share.
static BUILDING: Mutex<()> = Mutex::new(());

fn main() {
    let arguments = Arguments::from_args();
    let examples = examples().into_iter().map(|dir| {
        let name = name(&dir);
        let tools = BASE_TOOLS.iter().find(|(end, ..)| name.ends_with(end));
        trial(name, tools, move || build(&dir).and_then(|()| replay(&dir)))
    });
    let pages = pages::pages().into_iter().map(|page| {
        let stem = page.file_stem().unwrap_or_default().to_owned();
        let tools = BASE_TOOLS.iter().find(|(_, name, _)| stem == *name);
        trial(format!("docs/plugins/{}", name(&page)), tools, move || turn(|| pages::follow(&page)))
    });
    let stories = STORIES.iter().map(|(name, model, expected)| {
        let tools = BASE_TOOLS.iter().find(|(end, ..)| *end == "-ts");
        trial(format!("assistant-ts: {name}"), tools, move || {
            build(&workspace().join("examples/assistant-ts"))?;
            assistant::ask(*model, expected)
        })
    });
    libtest_mimic::run(&arguments, examples.chain(pages).chain(stories).collect()).exit();
}

/// Every directory of `examples` that can be built, in the order of their names.
fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("examples")).expect("the examples are there");
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    dirs.retain(|dir| dir.join("build.sh").is_file());
    dirs.sort();
    assert!(!dirs.is_empty(), "there is no example");
    dirs
}

/// A test, unless the machine lacks a tool for it.
fn trial(
    name: String,
    tools: Option<&(&str, &str, &[&str])>,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let (_, _, tools) = tools.unwrap_or_else(|| panic!("{name} is in no language that is known here"));
    match tools.iter().find(|tool| !is_there(tool)) {
        None => Trial::test(name, test),
        Some(missing) => {
            let name = format!("{name} (skipped: `{missing}` is not on this machine)");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    }
}

fn build(dir: &Path) -> Result<(), Failed> {
    turn(|| finish(Command::new("sh").arg(dir.join("build.sh"))))
}

fn turn(build: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    build()
}

/// Holds an example to its conversation. Those named `echo-` have one in common.
fn replay(dir: &Path) -> Result<(), Failed> {
    let wasm = dir.join(name(dir)).with_extension("wasm");
    let conversations = match name(dir).starts_with("echo-") {
        true => vec![workspace().join("examples/echo.txt")],
        false => conversations(dir),
    };
    if conversations.is_empty() {
        return Err(format!("{} has no conversation", dir.display()).into());
    }
    for conversation in conversations {
        let mut chat = Command::new(env!("CARGO_BIN_EXE_aviary"));
        chat.env("XDG_CACHE_HOME", cache());
        finish(chat.arg("chat").arg(&wasm).arg("--replay").arg(conversation))?;
    }
    Ok(())
}

fn conversations(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it was found").map(|entry| entry.expect("it can be read").path());
    entries.filter(|file| file.extension().is_some_and(|extension| extension == "txt")).collect()
}

/// Runs a command to its end; what it wrote is shown if it fails.
fn finish(command: &mut Command) -> Result<(), Failed> {
    let Output { status, stdout, stderr } = command.output()?;
    match status.success() {
        true => Ok(()),
        false => {
            let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            Err(format!("{command:?} ended with {status}:\n{stdout}{stderr}").into())
        }
    }
}

/// What was compiled is shared with the other tests, and the user's own cache is left alone.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host's package stands in the workspace")
}
