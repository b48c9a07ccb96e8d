//! `[dev]`: how a plugin's project is built.

use std::path::Path;

use super::section::Section;

/// `[dev]`: what `aviary dev` does in the directory of a plugin's project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dev {
    build: String,
}

/// What builds a project that says nothing of it, by the file that it has.
const USUAL: [(&str, &str); 4] = [
    ("build.sh", "./build.sh"),
    ("package.json", "npm run --silent build"),
    (
        "Cargo.toml",
        "cargo build --release --target wasm32-wasip2 --target-dir target && cp target/wasm32-wasip2/release/*.wasm plugins/",
    ),
    ("go.mod", "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags=-checklinkname=0 -o plugins/bot.wasm ."),
];

impl Dev {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { build: section.text("build") }
    }

    /// Returns the command that builds the project in a directory: the one that is set, or the usual one for what lies there.
    pub fn build(&self, dir: &Path) -> Option<&str> {
        match self.build.as_str() {
            "" => USUAL.iter().find(|(file, _)| dir.join(file).is_file()).map(|(_, command)| *command),
            build => Some(build),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::fixture::load;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    #[test]
    fn a_project_is_built_as_it_says() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("package.json"), "{}").unwrap();
        let config = load(&format!("{ACCOUNT}[dev]\nbuild = \"make\"\n"));
        assert_eq!(config.dev.build(dir.path()), Some("make"));
    }

    #[test]
    fn a_project_that_does_not_say_is_built_as_is_usual_for_what_lies_there() {
        let dir = tempfile::tempdir().unwrap();
        let config = load(ACCOUNT);
        assert_eq!(config.dev.build(dir.path()), None);
        fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        assert!(config.dev.build(dir.path()).unwrap().starts_with("cargo build --release --target wasm32-wasip2 "));
        fs::write(dir.path().join("build.sh"), "").unwrap();
        assert_eq!(config.dev.build(dir.path()), Some("./build.sh"));
    }
}
