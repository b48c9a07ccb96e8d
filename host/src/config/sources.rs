//! Which files the settings come from: the main file, what it includes, `.env`, and what `${file:…}` names.

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use glob::{MatchOptions, Pattern};

use super::{
    document::{self, Node, Table, Value, dotted},
    error::{ConfigError, Place, Problems},
    expand::Variables,
    gbk,
};
use crate::stamp::{Stamps, open_file};

/// The largest file of settings: room for thousands of accounts, and small enough to read at once.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many files may be included: one for each account of a large host.
const INCLUDES_MAX: usize = 10_000;

/// A bot directory's files.
#[derive(Debug)]
pub(super) struct Sources {
    /// The main file, absolute.
    pub(super) main: PathBuf,
    /// Where relative paths start: the main file's directory.
    pub(super) directory: PathBuf,
    variables: Variables,
    /// What was read or looked for so far, beside the files of `${file:…}`.
    seen: Stamps,
}

impl Sources {
    /// Finds the files' directory and reads its `.env`.
    pub(super) fn of(main: &Path) -> Self {
        let main = std::path::absolute(main).unwrap_or_else(|_| main.to_owned());
        let directory = main.parent().unwrap_or(&main).to_owned();
        let variables = Variables::read(&directory, &shown(&main, &directory));
        Self { main, directory, variables, seen: Stamps::default() }
    }

    /// Returns the place that stands for a whole file.
    pub(super) fn place(&self, file: &Path) -> Place {
        Place { file: shown(file, &self.directory), line: 0 }
    }

    /// Reads one file.
    pub(super) fn read(&mut self, file: &Path) -> Result<Table, ConfigError> {
        self.seen.look(file);
        let problems = Problems::default();
        let place = self.place(file);
        let table = match read_text(file, FILE_BYTES_MAX) {
            Ok(text) => document::parse(&place.file, &text, &mut |text| self.variables.expand(text), &problems),
            Err(reason) => {
                problems.add(&place, format!("cannot be read: {reason}"));
                None
            }
        };
        problems.or(table)
    }

    /// Returns the files that the patterns of `include` match, in the order of their paths, each once.
    pub(super) fn includes(&mut self, patterns: &[(&str, &Place)], problems: &Problems) -> Vec<PathBuf> {
        let mut files = BTreeSet::new();
        for (pattern, place) in patterns {
            self.seen.look(&literal_directory(&absolute(&self.directory, pattern)));
            match matches(&self.directory, pattern) {
                Ok(found) if found.is_empty() && Pattern::escape(pattern) == *pattern => {
                    problems.add(place, format!("`include` names `{pattern}`, and there is no such file"));
                }
                Ok(found) => files.extend(found.into_iter().filter(|file| *file != self.main)),
                Err(reason) => problems.add(place, format!("`include` has `{pattern}`: {reason}")),
            }
        }
        if files.len() > INCLUDES_MAX {
            let text = format!("`include` matches {} files; the first {INCLUDES_MAX} are read", files.len());
            problems.add(&self.place(&self.main), text);
        }
        files.into_iter().take(INCLUDES_MAX).collect()
    }

    /// Follows a file that a setting names, from before it is read for the last time.
    pub(super) fn watch(&mut self, file: &Path) {
        self.seen.look(file);
    }

    /// Returns every file and directory whose change may change the settings, as it was before it was read.
    pub(super) fn into_watched(mut self) -> Stamps {
        self.seen.extend(self.variables.files);
        self.seen
    }
}

/// Adds an included file's tables. Accounts and plugins come whole; of any other table each key comes once.
pub(super) fn join(all: &mut Table, added: Table) {
    for (key, node) in added {
        match (all.get_mut(&key).map(|earlier| &mut earlier.value), node.value) {
            (Some(Value::Table(table)), Value::Table(more)) => table.extend(more),
            (_, value) => drop(all.insert(key, Node { value, ..node })),
        }
    }
}

/// Says why a file cannot join: every account, plugin or key that is already there, with both places.
pub(super) fn check_join(all: &Table, added: &Table) -> Result<(), ConfigError> {
    let problems = Problems::default();
    if let Some(node) = added.get("include") {
        problems.add(&node.place, "`include` counts in the main file only");
    }
    for (key, node) in added.iter().filter(|(key, _)| *key != "include") {
        match (all.get(key).map(|earlier| &earlier.value), &node.value) {
            (Some(Value::Table(table)), Value::Table(more)) => refuse_twice(key, table, more, &problems),
            _ => refuse_twice("", all, &Table::from([(key.clone(), node.clone())]), &problems),
        }
    }
    problems.or(Some(()))
}

fn refuse_twice(path: &str, table: &Table, more: &Table, problems: &Problems) {
    for (key, node) in more {
        if let Some(earlier) = table.get(key) {
            let text = format!("`{}` is already given in {}; keep one of them", dotted(path, key), earlier.place);
            problems.add(&node.place, text);
        }
    }
}

/// Returns the path from the directory, without `.` in it.
pub(super) fn absolute(directory: &Path, path: &str) -> PathBuf {
    directory.join(path).components().collect()
}

/// Reads a text whose size is not to be trusted. The reason of a failure is for people, and names no content.
pub(super) fn read_text(file: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = open_file(file).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    let text = String::from_utf8(bytes).or_else(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        if !file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            return Err(format!("it is not UTF-8 text, from line {line} on"));
        }
        gbk::decode(error.as_bytes()).ok_or_else(|| {
            format!(
                "it is neither UTF-8 (from line {line} on) nor certainly GBK text; save it as “CSV UTF-8”, Excel's other kind of CSV"
            )
        })
    })?;
    // Of two bytes of GBK there are three in UTF-8.
    match text.len() as u64 {
        bytes if bytes > bytes_max => Err(format!("it has {bytes} bytes in UTF-8, more than {bytes_max}")),
        _ => Ok(text),
    }
}

fn shown(file: &Path, directory: &Path) -> Arc<str> {
    file.strip_prefix(directory).unwrap_or(file).to_string_lossy().into()
}

/// Finds the files that a pattern matches. Hidden files (an editor's) are matched only by a pattern that names the dot.
fn matches(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let directory = directory.to_str().ok_or("the directory's name is not UTF-8")?;
    let pattern = absolute(Path::new(&Pattern::escape(directory)), pattern);
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(|error| error.msg.to_owned())?;
    Ok(found.filter_map(Result::ok).filter(|path| path.is_file()).collect())
}

/// Returns the directory below which a pattern looks: all of it up to the first part with a wildcard.
fn literal_directory(pattern: &Path) -> PathBuf {
    let is_literal = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let directory: PathBuf = pattern.components().take_while(is_literal).collect();
    match directory == pattern {
        true => directory.parent().unwrap_or(&directory).to_owned(),
        false => directory,
    }
}
