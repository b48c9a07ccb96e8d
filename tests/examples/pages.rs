//! The pages `docs/plugins/*.md`, followed word for word in an empty directory: files are written, commands run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::Failed;

use crate::{cache, finish, workspace};

/// What a page takes as given, by a function of `examples/toolchain/install.sh`, and what it installs that others have, too.
const GIVEN: [(&str, &str); 2] = [("go", "go_and_bindings"), ("c", "wit_bindgen")];

/// Ends a file inside of a script.
const END: &str = "END_OF_THE_FILE";

/// The pages, by their names; each has a translation beside it.
pub fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("docs/plugins")).expect("the pages are there");
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    pages.retain(|page| !page.to_string_lossy().ends_with(".zh-CN.md"));
    pages.sort();
    assert!(!pages.is_empty(), "there is no page");
    pages
}

/// Does what a page says, and compares it with its translation.
pub fn follow(page: &Path) -> Result<(), Failed> {
    let blocks = blocks(&fs::read_to_string(page)?);
    let translation = page.with_extension("zh-CN.md");
    if blocks != self::blocks(&fs::read_to_string(&translation)?) {
        return Err(format!("{} has other code than {}", translation.display(), page.display()).into());
    }
    let dir = tempfile::tempdir()?;
    // Where the reader has the source.
    std::os::unix::fs::symlink(workspace(), dir.path().join("aviary"))?;
    let script = given(page) + &blocks.iter().map(Block::script).collect::<String>();
    let binaries = Path::new(env!("CARGO_BIN_EXE_aviary")).parent().expect("it is in a directory");
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &script]).current_dir(dir.path()).stdin(std::process::Stdio::null());
    shell.env("PATH", format!("{}:{}", binaries.display(), env::var("PATH")?)).env("XDG_CACHE_HOME", cache());
    finish(&mut shell)
}

/// Sets up what the reader has before the page begins.
fn given(page: &Path) -> String {
    let name = page.file_stem().unwrap_or_default();
    let Some((_, function)) = GIVEN.iter().find(|(known, _)| name == *known) else { return String::new() };
    let examples = workspace().join("examples/echo-go");
    // In a shell of its own: what it sets for a build is not for the reader.
    format!(
        "PATH=$(cd '{}' && . ../toolchain/install.sh && {function} >&2 && echo \"$generator/bin:$PATH\")\n\
         export CARGO_INSTALL_ROOT=$(dirname \"${{PATH%%:*}}\")\n",
        examples.display()
    )
}

/// A block of code that is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Commands(String),
    File {
        name: String,
        content: String,
    },
    /// Shown only.
    Other(String),
}

impl Block {
    fn script(&self) -> String {
        match self {
            Self::Commands(commands) => commands.clone(),
            Self::File { name, content } => {
                format!("mkdir -p \"$(dirname {name})\"\ncat > {name} <<'{END}'\n{content}{END}\n")
            }
            Self::Other(_) => String::new(),
        }
    }
}

/// Reads the blocks of a page. A line such as `` `app.py`: `` before one says which file it is.
fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut before) = (Vec::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(match (language, file_name(before)) {
                ("sh", _) => Block::Commands(content),
                (_, Some(name)) => Block::File { name: name.to_owned(), content },
                (_, None) => Block::Other(content),
            });
        }
        if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

fn file_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix('`')?;
    name.strip_suffix("`:").or_else(|| name.strip_suffix("`："))
}
