//! A plugin's project, as `aviary new` writes it: a small bot in one language, with all that its tools do not bring.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// A template's file: the template, the path below it, and the text.
type Part = (&'static str, &'static str, &'static str);

/// How long a project's name may be: it becomes the name of files.
const NAME_CHARS_MAX: usize = 60;

/// A language that there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    #[value(alias = "javascript")]
    Js,
    #[value(alias = "typescript")]
    Ts,
    #[value(alias = "py")]
    Python,
    #[value(alias = "golang")]
    Go,
    C,
}

/// What a new project is to be.
#[derive(Clone, Debug)]
pub struct Project {
    name: String,
    language: Language,
    /// For the bot in which the author tries the plugin.
    token: String,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(
        "`{name}` is no name for a plugin: up to {NAME_CHARS_MAX} lower-case letters, digits and single `-` \
         between them, with a letter first"
    )]
    Name { name: String },
    #[error(
        "`{name}` is no name for a plugin in this language: its conversation would be {name}.txt, which its tools read; \
         choose another"
    )]
    Taken { name: String },
    #[error("{} is there already; choose another name, or remove it first", .dir.display())]
    InTheWay { dir: PathBuf },
    #[error("{}: {error}", .file.display())]
    Io { file: PathBuf, error: io::Error },
}

/// A file of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectFile {
    /// Below the project's directory.
    pub path: String,
    pub text: String,
}

impl Language {
    /// Where its files come from; what a later one has takes the place of an earlier one's.
    fn templates(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["every", "rust"],
            Self::Js => &["every", "quickjs", "js"],
            Self::Ts => &["every", "quickjs", "ts"],
            Self::Python => &["every", "python"],
            Self::Go => &["every", "go"],
            Self::C => &["every", "c"],
        }
    }

    /// Its files, as they are before they are filled in.
    fn parts(self) -> impl Iterator<Item = &'static Part> {
        self.templates().iter().flat_map(|wanted| PARTS.iter().filter(move |(template, ..)| template == wanted))
    }

    /// Where the contract lies. QuickJS's world is one of its own, which includes ours.
    fn contract(self) -> &'static str {
        match self {
            Self::Js | Self::Ts => "wit/deps/aviary-bot",
            Self::Rust | Self::Python | Self::Go | Self::C => "wit",
        }
    }

    /// The command that builds a project, for `sh`.
    fn build(self) -> &'static str {
        match self {
            Self::Rust => {
                "cargo build --release --target wasm32-wasip2 --target-dir target && cp target/wasm32-wasip2/release/{{crate}}.wasm plugins/{{name}}.wasm"
            }
            // npm takes a second to find that nothing is to be installed. The file in `node_modules` is the last that it writes,
            // often in the same tick of the clock as the one before.
            Self::Js | Self::Ts => {
                "[ -e node_modules/.package-lock.json ] && [ ! package.json -nt node_modules/.package-lock.json ] && [ ! package-lock.json -nt node_modules/.package-lock.json ] || npm install --no-audit --no-fund --loglevel=error && npm run --silent build"
            }
            Self::Python | Self::Go | Self::C => "./build.sh",
        }
    }
}

impl Project {
    /// Plans a project.
    ///
    /// # Errors
    /// A name that every language's tools, and the plugins directory, would not take; or whose conversation would be another
    /// of the project's files.
    pub fn new(name: &str, language: Language, token: String) -> Result<Self, ProjectError> {
        let is_plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
        let is_name = name.starts_with(|char: char| char.is_ascii_lowercase())
            && !name.ends_with('-')
            && !name.contains("--")
            && name.chars().all(is_plain)
            && name.len() <= NAME_CHARS_MAX;
        let (name, conversation) = (name.to_owned(), format!("{name}.txt"));
        let is_taken = language.parts().any(|(_, path, _)| *path == conversation);
        match (is_name, is_taken) {
            (false, _) => Err(ProjectError::Name { name }),
            (true, true) => Err(ProjectError::Taken { name }),
            (true, false) => Ok(Self { name, language, token }),
        }
    }

    /// Returns its files, in no particular order.
    pub fn files(&self) -> Vec<ProjectFile> {
        let contract = PARTS.iter().filter(|(template, ..)| *template == "wit").map(|(_, path, text)| ProjectFile {
            path: format!("{}/{path}", self.language.contract()),
            text: (*text).into(),
        });
        let parts = self
            .language
            .parts()
            .map(|(_, path, text)| ProjectFile { path: self.filled(path), text: self.filled(text) });
        let mut files: Vec<ProjectFile> = contract.collect();
        for file in parts {
            files.retain(|other| other.path != file.path);
            files.push(file);
        }
        files
    }

    /// Fills in what differs from project to project. `_gitignore` is a `.gitignore` that does not count where the templates
    /// lie.
    fn filled(&self, text: &str) -> String {
        text.replace("{{build}}", self.language.build())
            .replace("{{name}}", &self.name)
            .replace("{{crate}}", &self.name.replace('-', "_"))
            .replace("{{token}}", &self.token)
            .replace("_gitignore", ".gitignore")
    }

    /// Writes it into a directory that is not there yet, or is empty.
    pub fn write(&self, dir: &Path) -> Result<(), ProjectError> {
        let io = |file: &Path| {
            let file = file.to_owned();
            move |error| ProjectError::Io { file, error }
        };
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
            return Err(ProjectError::InTheWay { dir: dir.into() });
        }
        for ProjectFile { path, text } in self.files() {
            let file = dir.join(&path);
            let parent = file.parent().unwrap_or(dir);
            fs::create_dir_all(parent).map_err(io(parent))?;
            fs::write(&file, text).map_err(io(&file))?;
            if path.ends_with(".sh") {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(io(&file))?;
            }
        }
        // Where every template's build puts the plugin.
        let plugins_dir = dir.join("plugins");
        fs::create_dir_all(&plugins_dir).map_err(io(&plugins_dir))
    }
}
