//! The examples: each is built by its own `build.sh`, as a reader would, and held to its conversation by `aviary chat`. And the
//! pages that say how to write a plugin.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use assistant::Model;
use libtest_mimic::{Arguments, Failed, Trial};
use toolchains::{cache, finish, finish_within, trial, turn};

#[path = "toolchains.rs"]
mod toolchains;

#[path = "examples/assistant.rs"]
mod assistant;

#[path = "examples/pages.rs"]
mod pages;

/// Languages by the end of an example's name, and by the name of a page.
const LANGUAGES: [(&str, &str, &str); 6] = [
    ("-rs", "rust", "rust"),
    ("-js", "javascript", "js"),
    ("-ts", "typescript", "ts"),
    ("-py", "python", "python"),
    ("-go", "go", "go"),
    ("-c", "c", "c"),
];

/// What the user of the assistant reads, whatever the model does; with the grant for its history, and without.
const STORIES: [(&str, Model, bool, &str); 5] = [
    ("a model that takes 8 s is heard by a later try", Model::After(Duration::from_secs(8)), true, "四十二。"),
    (
        "what a model says after 30 s is kept until the user asks",
        Model::After(Duration::from_secs(30)),
        true,
        "四十二。",
    ),
    ("a streamed answer is one reply", Model::Streams, true, "四十二。"),
    ("an answer is given that no history can keep", Model::Streams, false, "四十二。"),
    ("a model that fails gives a friendly text", Model::Fails, true, "我这会儿没能想出来，请稍后再问一次。"),
];

fn main() {
    let arguments = Arguments::from_args();
    let examples = examples().into_iter().map(|dir| {
        let name = name(&dir);
        let language = language(|end, _| name.ends_with(end));
        trial(name, language, move || build(&dir).and_then(|()| replay(&dir)))
    });
    let pages = pages::pages().into_iter().map(|page| {
        let stem = page.file_stem().unwrap_or_default().to_owned();
        let language = language(|_, name| stem == name);
        trial(format!("docs/plugins/{}", name(&page)), language, move || turn(|| pages::follow(&page, language)))
    });
    let stories = STORIES.iter().map(|(name, model, kv, expected)| {
        trial(format!("assistant-ts: {name}"), "ts", move || {
            build(&workspace().join("examples/assistant-ts"))?;
            assistant::ask(*model, *kv, expected)
        })
    });
    let hanging = Trial::test("a build that hangs is stopped, and says at which step", a_build_that_hangs_is_stopped);
    libtest_mimic::run(&arguments, examples.chain(pages).chain(stories).chain([hanging]).collect()).exit();
}

/// The repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host's package stands in the workspace")
}

fn language(is_it: impl Fn(&str, &str) -> bool) -> &'static str {
    LANGUAGES.iter().find(|(end, page, _)| is_it(end, page)).map_or("", |(.., language)| *language)
}

/// Returns the entries of a directory that a condition keeps, in the order of their names.
fn entries(dir: &Path, keep: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.retain(|path| keep(path));
    paths.sort();
    paths
}

/// The last part of a path.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every directory of `examples` that can be built, in the order of their names.
fn examples() -> Vec<PathBuf> {
    let dirs = entries(&workspace().join("examples"), |dir| dir.join("build.sh").is_file());
    assert!(!dirs.is_empty(), "there is no example");
    dirs
}

fn build(dir: &Path) -> Result<(), Failed> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_aviary")).parent().expect("it is in a directory");
    let path = format!("{}:{}", binaries.display(), env::var("PATH")?);
    turn(|| finish(Command::new("sh").arg("-x").arg(dir.join("build.sh")).env("PATH", path)).map(drop))
}

/// Holds an example to its conversation. Those named `echo-` have one in common.
fn replay(dir: &Path) -> Result<(), Failed> {
    let wasm = dir.join(name(dir)).with_extension("wasm");
    let conversations = match name(dir).starts_with("echo-") {
        true => vec![workspace().join("examples/echo.txt")],
        false => entries(dir, |file| file.extension().is_some_and(|extension| extension == "txt")),
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

fn a_build_that_hangs_is_stopped() -> Result<(), Failed> {
    let mut build = Command::new("sh");
    build.args(["-x", "-c", "echo fetching; tail -f /dev/null; echo done"]);
    match finish_within(&mut build, Duration::from_secs(2)) {
        Err(failed) if format!("{failed:?}").contains("+ tail -f /dev/null") => Ok(()),
        other => Err(format!("it was told {other:?}").into()),
    }
}
