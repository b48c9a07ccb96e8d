//! The plugins directories, which are the truth about what is asked: what lies in them, what only looks like a plugin, and
//! how a plugin is switched off and on.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Hash,
    file_name::{file_name_order, name_of},
};
use crate::{
    config::{Account, Config},
    foreign,
};

/// What a plugin's file is called while it is switched off: `30-weather.wasm.off`.
const OFF: &str = "off";

/// How a file is named that is still being written, or that an editor or a system keeps for itself.
const PASSING: [&str; 7] = ["part", "partial", "tmp", "temp", "crdownload", "download", "swp"];

/// What lies in one directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// The plugins' files, in the order they are asked.
    pub plugins: Vec<PathBuf>,
    /// What was meant to be a plugin or a canary but is none: one sentence each.
    pub refused: Vec<String>,
    /// The names of the plugins, also of those that are switched off or beyond the bound.
    pub names: BTreeSet<String>,
}

/// Why an order about a plugin is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("there is no account `{account}`")]
    NoAccount { account: String },
    #[error("there is no plugin `{name}`{}", looked_in(.dirs))]
    Unknown { name: String, dirs: Vec<PathBuf> },
    #[error("`{name}` may be {}; say which account, or the file's whole name", listed(.files))]
    Ambiguous { name: String, files: Vec<PathBuf> },
    #[error("plugin `{name}` is {already}: {}", .file.display())]
    Already { name: String, already: &'static str, file: PathBuf },
    #[error("{} is in the way; move it away first", .file.display())]
    InTheWay { file: PathBuf },
    #[error("no earlier version of plugin `{name}` is kept")]
    NoVersion { name: String },
    #[error(
        "every earlier version of plugin `{name}` was gone back from; name one with `--to` and the beginning of its SHA-256, as \
         `aviary plugins` lists them"
    )]
    AllLeft { name: String },
    #[error(
        "no version of plugin `{name}` is kept whose SHA-256 begins with `{to}`; `aviary plugins` lists those that are"
    )]
    NoSuchVersion { name: String, to: String },
    #[error(
        "plugin `{name}` would not be loaded in the version {hash}, for its table says `sha256 = \"{pinned}\"`; change that \
         first, or name a version by `--to`"
    )]
    Pinned { name: String, hash: Hash, pinned: Hash },
    #[error("the kept version {} is damaged; it was removed", .file.display())]
    Damaged { file: PathBuf },
    #[error("{}: {error}", .file.display())]
    Io { file: PathBuf, error: io::Error },
}

/// A plugin's file as it was found by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whether it is switched on.
    pub is_on: bool,
    pub file: PathBuf,
}

/// The shared directory, and each account's own.
pub fn directories(config: &Config) -> BTreeSet<&Path> {
    let own = config.accounts.iter().filter_map(|account| account.plugins_dir.as_deref());
    own.chain([config.plugins_dir.as_path()]).collect()
}

/// The directories whose plugins an account asks; without an account, all of them.
pub fn directories_of<'a>(config: &'a Config, account: Option<&str>) -> Result<Vec<&'a Path>, OrderError> {
    let Some(name) = account else { return Ok(directories(config).into_iter().collect()) };
    let account = config.accounts.iter().find(|account| account.name == name);
    let account: &Account = account.ok_or_else(|| OrderError::NoAccount { account: name.to_owned() })?;
    let own = account.plugins_dir.as_deref();
    let shared = Some(config.plugins_dir.as_path()).filter(|shared| own != Some(shared));
    Ok(own.into_iter().chain(shared).collect())
}

/// Looks at what lies in a directory; at most `files_max` plugins are taken.
pub fn list(dir: &Path, files_max: usize) -> io::Result<Listing> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_by(|a, b| file_name_order(a, b));
    let names: BTreeSet<String> = paths.iter().filter_map(|path| name_of(&switched_on(path))).collect();
    let mut listing = Listing::default();
    for path in paths {
        match judge(&path, &names) {
            Judgement::Plugin => listing.plugins.push(path),
            Judgement::Refused(why) => {
                listing.refused.push(foreign::on_one_line(&format!("{} {why}", path.display())));
            }
            Judgement::Other => {}
        }
    }
    let count = listing.plugins.len();
    if count > files_max {
        listing.plugins.truncate(files_max);
        let last = listing.plugins.last().map(|path| path.display().to_string()).unwrap_or_default();
        listing.refused.push(format!(
            "{} holds {count} plugins; those after {last} are not loaded, because `plugin_files_max` is {files_max}",
            dir.display()
        ));
    }
    listing.names = names;
    Ok(listing)
}

/// Switches a plugin off: its file is renamed to `….wasm.off`, and no account asks it any more. Returns the new name.
pub fn disable(config: &Config, account: Option<&str>, name: &str) -> Result<PathBuf, OrderError> {
    let found = find_one(config, account, name, true)?;
    rename(&found, &switched_off(&found))
}

/// Switches a plugin on again. Returns the name of its file.
pub fn enable(config: &Config, account: Option<&str>, name: &str) -> Result<PathBuf, OrderError> {
    let found = find_one(config, account, name, false)?;
    rename(&found, &switched_on(&found))
}

/// Finds the files of a plugin, by its name or by the name of its file, on or off, in the order they are asked.
pub fn find(config: &Config, account: Option<&str>, name: &str) -> Result<Vec<Found>, OrderError> {
    let mut found = Vec::new();
    for dir in directories_of(config, account)? {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for file in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let on = switched_on(&file);
            let is_named = name_of(&on).as_deref() == Some(name)
                || file.file_name().is_some_and(|whole| whole == name)
                || on.file_name().is_some_and(|whole| whole == name);
            if is_named && name_of(&on).is_some() && file.is_file() {
                found.push(Found { is_on: on == file, file });
            }
        }
    }
    found.sort_by(|a, b| file_name_order(&a.file, &b.file));
    match found.is_empty() {
        true => Err(unknown(config, account, name)),
        false => Ok(found),
    }
}

/// The error about a plugin that is nowhere.
pub(super) fn unknown(config: &Config, account: Option<&str>, name: &str) -> OrderError {
    let dirs = directories_of(config, account).unwrap_or_default();
    OrderError::Unknown { name: name.to_owned(), dirs: dirs.into_iter().map(Path::to_owned).collect() }
}

/// The name of a plugin by its file, on or off.
pub(super) fn plugin_name(file: &Path) -> Option<String> {
    name_of(&switched_on(file))
}

/// The name of a file while it is switched on.
pub fn switched_on(file: &Path) -> PathBuf {
    if file.extension().is_some_and(|extension| extension == OFF) { file.with_extension("") } else { file.to_owned() }
}

/// The name of a file while it is switched off.
pub(super) fn switched_off(file: &Path) -> PathBuf {
    file.with_added_extension(OFF)
}

/// The conversation file of a plugin's file.
pub fn canary_of(file: &Path) -> PathBuf {
    file.with_extension("txt")
}

fn find_one(config: &Config, account: Option<&str>, name: &str, is_on: bool) -> Result<PathBuf, OrderError> {
    let all = find(config, account, name)?;
    let mut fitting: Vec<PathBuf> =
        all.iter().filter(|found| found.is_on == is_on).map(|found| found.file.clone()).collect();
    match (fitting.pop(), fitting.is_empty(), all.into_iter().next()) {
        (Some(file), true, _) => Ok(file),
        (Some(file), false, _) => {
            fitting.push(file);
            Err(OrderError::Ambiguous { name: name.to_owned(), files: fitting })
        }
        (None, _, Some(Found { file, .. })) => {
            let already = if is_on { "switched off already" } else { "switched on already" };
            Err(OrderError::Already { name: name.to_owned(), already, file })
        }
        (None, _, None) => Err(unknown(config, account, name)),
    }
}

/// Whether there is anything of that name, be it a link that leads nowhere.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn rename(from: &Path, to: &Path) -> Result<PathBuf, OrderError> {
    if exists(to) {
        return Err(OrderError::InTheWay { file: to.to_owned() });
    }
    match fs::rename(from, to) {
        Ok(()) => Ok(to.to_owned()),
        Err(error) => Err(OrderError::Io { file: from.to_owned(), error }),
    }
}

fn looked_in(dirs: &[PathBuf]) -> String {
    if dirs.is_empty() { String::new() } else { format!(" in {}", listed(dirs)) }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What a file in a plugins directory is.
#[derive(Debug, PartialEq)]
enum Judgement {
    Plugin,
    /// Meant to be a plugin or a canary, and none. The sentence goes on after the path.
    Refused(String),
    Other,
}

/// Judges a path; `names` are those of the plugins beside it.
fn judge(path: &Path, names: &BTreeSet<String>) -> Judgement {
    let refused = |why: &str| Judgement::Refused(why.to_owned());
    let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
        let is_wasm = path.extension().is_some_and(|extension| extension == "wasm");
        return if is_wasm { refused("is not named in UTF-8, so it is no plugin") } else { Judgement::Other };
    };
    if is_passing(file_name) {
        return Judgement::Other;
    }
    let lower = file_name.to_ascii_lowercase();
    if file_name.starts_with('.') {
        let why = "is hidden by the dot before its name, so it is no plugin; rename or remove it";
        return if lower.ends_with(".wasm") { refused(why) } else { Judgement::Other };
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        // A directory or a pipe of that name is not to be read: it might never end.
        Some("wasm") if is_no_file(path) => refused("is not a file that can be read, so it is no plugin"),
        Some("wasm") if file_name.contains(char::is_control) => {
            refused("has control characters in its name, so it is no plugin; rename it")
        }
        Some("wasm") => Judgement::Plugin,
        Some("cwasm") => refused("is refused: compiled code cannot be checked; put the `.wasm` file there"),
        Some(OFF) if file_name.ends_with(".wasm.off") => Judgement::Other,
        _ if lower.ends_with(".wasm") || lower.ends_with(".wasm.off") || lower.ends_with(".cwasm") => {
            refused("is no plugin: its name must end with `.wasm` in small letters; rename it")
        }
        _ if lower.contains(".wasm") => refused("is no plugin: its name must end with `.wasm`; rename or unpack it"),
        Some("wat") => refused("is no plugin: it is WebAssembly's text form; turn it into a `.wasm` file first"),
        Some(extension) if extension.eq_ignore_ascii_case("txt") => judge_canary(path, names),
        _ => Judgement::Other,
    }
}

/// Whether a file is only there for a while, by its name: it is still being written, or is what an editor keeps for itself.
pub fn is_passing(file_name: &str) -> bool {
    let lower = file_name.to_ascii_lowercase();
    file_name.ends_with('~') || PASSING.iter().any(|end| lower.ends_with(&format!(".{end}")))
}

/// Whether a path is known to be no file; one that cannot be looked at now may be one.
fn is_no_file(path: &Path) -> bool {
    match path.metadata() {
        Ok(metadata) => !metadata.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A text whose name is nearly that of a plugin was meant to be its conversation.
fn judge_canary(path: &Path, names: &BTreeSet<String>) -> Judgement {
    let plugin = path.with_extension("wasm");
    let has_plugin = plugin.exists() || switched_off(&plugin).exists();
    let is_spelt = path.extension().is_some_and(|extension| extension == "txt");
    if has_plugin && is_spelt {
        return Judgement::Other;
    }
    match name_of(&plugin).filter(|name| names.contains(name)) {
        Some(name) => Judgement::Refused(format!(
            "is no conversation of plugin `{name}`: but for `.txt` in small letters it must be named like the plugin's file"
        )),
        None => Judgement::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|file| fs::write(dir.path().join(file), "").unwrap());
        dir
    }

    #[test]
    fn what_only_looks_like_a_plugin_is_told() {
        let near_misses = [
            "10-a.WASM",
            "10-b.Wasm",
            "10-c.wasm.OFF",
            "10-d.cwasm",
            "10-e.wasm.gz",
            "10-f.wasm.txt",
            "10-g.wat",
            "._10-h.wasm",
            "echo.txt",
            "20-echo.TXT",
        ];
        let fine = [
            "20-echo.wasm",
            "20-echo.txt",
            "30-off.wasm.off",
            "30-off.txt",
            "40-x.wasm.part",
            "40-x.wasm~",
            ".40-x.wasm.swp",
            ".hidden",
            "README.txt",
            "README.md",
        ];
        let dir = directory(&[&near_misses[..], &fine[..]].concat());
        let listing = list(dir.path(), 10).unwrap();
        assert_eq!(listing.plugins, [dir.path().join("20-echo.wasm")]);
        let told = |file: &str| {
            listing.refused.iter().any(|text| text.starts_with(&format!("{}/{file} ", dir.path().display())))
        };
        for file in near_misses {
            assert!(told(file), "{file}: {:?}", listing.refused);
        }
        assert_eq!(listing.refused.len(), near_misses.len(), "{:?}", listing.refused);
    }

    #[test]
    fn more_plugins_than_the_bound_are_refused_in_the_order_of_their_names() {
        let dir = directory(&["10-c.wasm", "9-b.wasm", "8-a.wasm"]);
        let listing = list(dir.path(), 2).unwrap();
        assert_eq!(listing.plugins, ["8-a.wasm", "9-b.wasm"].map(|file| dir.path().join(file)));
        assert!(
            listing.refused[0].contains("holds 3 plugins") && listing.refused[0].contains("`plugin_files_max` is 2")
        );
    }
}
