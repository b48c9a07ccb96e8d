//! How a mistake in the settings is told: where it stands, what is wrong, and the way out.

use std::{cell::RefCell, collections::BTreeSet, fmt, sync::Arc};

use crate::stamp::Stamps;

/// Everything that is wrong with the settings, one line each.
///
/// A line names the file, the line, the key, its value and what is allowed. Values of secrets are left out.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<String>,
    watched: Stamps,
}

impl ConfigError {
    /// Returns the lines, in the order of the file.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns the state of what was read or looked for until then, each from before it was read; a file that is missing, too.
    pub fn stamps(&self) -> &Stamps {
        &self.watched
    }

    pub(super) fn watching(self, watched: Stamps) -> Self {
        Self { watched, ..self }
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }
}

impl From<Vec<String>> for ConfigError {
    fn from(problems: Vec<String>) -> Self {
        Self { problems, watched: Stamps::default() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problems.join("\n"))
    }
}

/// A line of a file, or with line 0 the whole file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file as people are shown it: relative to the directory of the main file.
    pub(super) file: Arc<str>,
    pub(super) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.file),
            line => write!(formatter, "{}:{line}", self.file),
        }
    }
}

/// Collects what is wrong, so that one look shows all of it. The same mistake found twice counts once.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<BTreeSet<(Place, String)>>);

impl Problems {
    pub(super) fn add(&self, place: &Place, text: impl Into<String>) {
        self.0.borrow_mut().insert((place.clone(), text.into()));
    }

    /// Returns the lines, in the order of the files.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.0.into_inner().iter().map(|(place, text)| format!("{place}: {text}")).collect()
    }

    /// Returns the value if nothing was wrong, else what was.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.0.borrow().is_empty() => Ok(value),
            _ => Err(self.into_lines().into()),
        }
    }
}
