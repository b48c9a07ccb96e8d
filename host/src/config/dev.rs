//! `[dev]`: how a plugin's project is built.

use std::{fs, path::Path};

use super::section::Section;
use crate::shell::word;

/// `[dev]`: what `aviary dev` does in the directory of a plugin's project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dev {
    build: String,
}

/// Writes the command that builds the project in the first directory, and puts the plugin into the second.
type Usual = fn(&Path, &Path) -> String;

/// What builds a project that says nothing of it, by the file that it has.
const USUAL: [(&str, Usual); 4] = [
    ("build.sh", |_, _| "./build.sh".to_owned()),
    ("package.json", |_, _| "npm run --silent build".to_owned()),
    ("Cargo.toml", cargo),
    ("go.mod", go),
];

impl Dev {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { build: section.text("build") }
    }

    /// Returns the command that builds the project in a directory, for `sh`: the one that is set, or the usual one for what lies
    /// there.
    pub fn build(&self, dir: &Path, plugins_dir: &Path) -> Option<String> {
        if !self.build.is_empty() {
            return Some(self.build.clone());
        }
        let (_, usual) = USUAL.iter().find(|(file, _)| dir.join(file).is_file())?;
        Some(usual(dir, plugins_dir.strip_prefix(dir).unwrap_or(plugins_dir)))
    }
}

/// The package's own plugin alone: what it was called before may still lie beside it. Where no package is named, Cargo says why.
fn cargo(dir: &Path, plugins_dir: &Path) -> String {
    let build = "cargo build --release --target wasm32-wasip2 --target-dir target";
    match package(&dir.join("Cargo.toml")) {
        None => build.to_owned(),
        Some(Package { name, lib }) => {
            let built = format!("target/wasm32-wasip2/release/{lib}.wasm");
            let plugin = plugins_dir.join(format!("{name}.wasm"));
            format!("{build} && cp {} {}", word(Path::new(&built)), word(&plugin))
        }
    }
}

fn go(_: &Path, plugins_dir: &Path) -> String {
    let plugin = plugins_dir.join("bot.wasm");
    let plugin = word(&plugin);
    format!("GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags=-checklinkname=0 -o {plugin} .")
}

/// How Cargo calls a package, and what it makes of it.
struct Package {
    name: String,
    lib: String,
}

fn package(manifest: &Path) -> Option<Package> {
    let manifest: toml::Table = fs::read_to_string(manifest).ok()?.parse().ok()?;
    let name = |table: &str| Some(manifest.get(table)?.get("name")?.as_str()?.to_owned());
    let package = name("package")?;
    Some(Package { lib: name("lib").unwrap_or_else(|| package.replace('-', "_")), name: package })
}

#[cfg(test)]
mod tests {
    use crate::config::fixture::Directory;

    const MAIN: &str = "[accounts.main]\ntoken = \"abc\"\n";

    /// The command for a project with this main file and another file.
    fn build(main: &str, file: &str, text: &str) -> Option<String> {
        let directory = Directory::with(main).and(file, text);
        let config = directory.load();
        config.dev.build(&directory.path(""), &config.plugins_dir)
    }

    #[test]
    fn a_project_is_built_as_it_says() {
        let main = format!("{MAIN}[dev]\nbuild = \"make\"\n");
        assert_eq!(build(&main, "package.json", "{}").as_deref(), Some("make"));
    }

    #[test]
    fn a_project_that_does_not_say_is_built_as_is_usual_for_what_lies_there() {
        assert_eq!(build(MAIN, "bot.c", ""), None);
        assert_eq!(build(MAIN, "build.sh", "").as_deref(), Some("./build.sh"));
        assert_eq!(build(MAIN, "package.json", "{}").as_deref(), Some("npm run --silent build"));
        let go = build(MAIN, "go.mod", "").unwrap();
        assert!(go.starts_with("GOOS=wasip1 GOARCH=wasm go build ") && go.ends_with(" -o plugins/bot.wasm ."), "{go}");
    }

    #[test]
    fn of_a_crate_its_own_plugin_is_taken_under_its_own_name() {
        let cargo = "cargo build --release --target wasm32-wasip2 --target-dir target";
        let built = |main: &str, manifest: &str| build(main, "Cargo.toml", manifest).unwrap();
        assert_eq!(
            built(MAIN, "[package]\nname = \"hello-bot\"\n"),
            format!("{cargo} && cp target/wasm32-wasip2/release/hello_bot.wasm plugins/hello-bot.wasm")
        );
        assert_eq!(
            built(
                &format!("plugins_dir = \"它's bots\"\n{MAIN}"),
                "[package]\nname = \"hello\"\n[lib]\nname = \"bot\"\n"
            ),
            format!(r"{cargo} && cp target/wasm32-wasip2/release/bot.wasm '它'\''s bots/hello.wasm'")
        );
        // Cargo says what is wrong.
        assert_eq!(built(MAIN, "[package"), cargo);
    }
}
