//! The pages `docs/plugins/*.md`, followed word for word in an empty directory: files are written, commands run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::Failed;

use crate::{
    entries,
    toolchains::{cache, finish},
    workspace,
};

/// Ends a file inside of a script.
const END: &str = "END_OF_THE_FILE";

/// The pages, by their names; each has a translation beside it.
pub fn pages() -> Vec<PathBuf> {
    let pages = entries(&workspace().join("docs/plugins"), |page| !page.to_string_lossy().ends_with(".zh-CN.md"));
    assert!(!pages.is_empty(), "there is no page");
    pages
}

/// Does what a page says, with the tools that it asks for, and compares it with its translation.
pub fn follow(page: &Path, language: &str) -> Result<(), Failed> {
    let blocks = blocks(&fs::read_to_string(page)?);
    let translation = page.with_extension("zh-CN.md");
    if blocks != self::blocks(&fs::read_to_string(&translation)?) {
        return Err(format!("{} has other code than {}", translation.display(), page.display()).into());
    }
    let dir = tempfile::tempdir()?;
    let script = blocks.iter().map(Block::script).collect::<String>();
    finish(with_tools(language, dir.path(), "sh").args(["-eux", "-c", &script])).map(drop)
}

/// A program in a directory, with a language's tools on the path, and our `aviary` before them all.
fn with_tools(language: &str, dir: &Path, program: &str) -> Command {
    let script = r#". ../toolchain/install.sh; tools "$1"; cd "$2"; PATH=$3:$PATH; shift 3; exec "$@""#;
    let binaries = Path::new(env!("CARGO_BIN_EXE_aviary")).parent().expect("it is in a directory");
    let mut command = Command::new("sh");
    command.current_dir(workspace().join("examples/toolchain")).args(["-eu", "-c", script, "sh", language]);
    command.arg(dir).arg(binaries).arg(program).env("XDG_CACHE_HOME", cache());
    command
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
