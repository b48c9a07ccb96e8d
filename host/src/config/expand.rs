//! What `${NAME}` and `${file:PATH}` stand for.
//!
//! The process's environment comes before `.env`, and is never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};

use super::sources;

/// The largest file that `${file:…}` takes in: a prompt or a certificate, not a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The largest `.env`.
const DOTENV_BYTES_MAX: u64 = 1024 * 1024;

/// Where the values come from.
#[derive(Debug)]
pub(super) struct Variables {
    directory: PathBuf,
    /// The main file's name, to say what `.env` stands beside.
    main: String,
    dotenv: BTreeMap<String, String>,
    /// What is wrong with `.env`: told when a variable is missed, for it may belong to another program.
    dotenv_problem: Option<String>,
    /// The files that were read, or should have been.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Variables {
    /// Reads `.env` in the directory, if there is one.
    pub(super) fn read(directory: &Path, main: &str) -> Self {
        let mut variables = Self {
            directory: directory.to_owned(),
            main: main.to_owned(),
            dotenv: BTreeMap::new(),
            dotenv_problem: None,
            files: BTreeSet::new(),
        };
        let file = directory.join(".env");
        variables.files.insert(file.clone());
        if file.exists() {
            match sources::read_text(&file, DOTENV_BYTES_MAX) {
                Ok(text) => variables.take_dotenv(&text),
                Err(reason) => variables.dotenv_problem = Some(reason),
            }
        }
        variables
    }

    fn take_dotenv(&mut self, text: &str) {
        for (index, entry) in dotenvy::from_read_iter(text.as_bytes()).enumerate() {
            match entry {
                Ok((name, value)) => drop(self.dotenv.insert(name, value)),
                // dotenvy's own words quote the line, which may be a secret.
                Err(_) => self.dotenv_problem = Some(format!("entry {} is not NAME=\"value\"", index + 1)),
            }
        }
    }

    /// Returns the text with everything filled in. What comes in is not looked through again.
    ///
    /// # Errors
    ///
    /// Says what the text asks for in vain, to follow the key's name.
    pub(super) fn expand(&mut self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, after) = (&rest[..start], &rest[start + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                expanded.extend([before, "${"]);
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once('}') else {
                return Err("has a `${` without `}`; a plain `${` is written `$${`".to_owned());
            };
            expanded.extend([before, &self.value(name)?]);
            rest = after;
        }
        Ok(expanded + rest)
    }

    fn value(&mut self, name: &str) -> Result<String, String> {
        match name.strip_prefix("file:") {
            Some(path) => self.file(path),
            None if is_variable_name(name) => self.variable(name),
            // The text between the braces is not shown: it may be a part of a secret.
            None => Err("has a `${…}` that is neither `${NAME}` nor `${file:PATH}`; a plain `${` is written `$${`".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match env::var(name) {
            Ok(value) => Ok(value),
            Err(env::VarError::NotUnicode(_)) => Err(format!("needs the environment variable `{name}`, which is not UTF-8")),
            Err(env::VarError::NotPresent) => self.dotenv.get(name).cloned().ok_or_else(|| self.missing(name)),
        }
    }

    fn missing(&self, name: &str) -> String {
        let missing = format!("needs the environment variable `{name}`, which is not set");
        match &self.dotenv_problem {
            Some(problem) => format!("{missing}; `.env` could not be read whole: {problem}"),
            None => format!("{missing}; set it, or give it a line in `.env` beside `{}`", self.main),
        }
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        let file = sources::absolute(&self.directory, path);
        self.files.insert(file.clone());
        let text = sources::read_text(&file, FILE_BYTES_MAX)
            .map_err(|reason| format!("needs the file `{path}`, which cannot be read: {reason}"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
