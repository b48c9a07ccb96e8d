//! What `${NAME}` and `${file:PATH}` stand for.
//!
//! The process's environment comes before `.env`, and is never changed.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use super::sources;
use crate::stamp::Stamps;

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
    pub(super) files: Stamps,
}

impl Variables {
    /// Reads `.env` in the directory, if there is one.
    pub(super) fn read(directory: &Path, main: &str) -> Self {
        let mut variables = Self {
            directory: directory.to_owned(),
            main: main.to_owned(),
            dotenv: BTreeMap::new(),
            dotenv_problem: None,
            files: Stamps::default(),
        };
        let file = directory.join(".env");
        variables.files.look(&file);
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
            None => {
                Err("has a `${…}` that is neither `${NAME}` nor `${file:PATH}`; a plain `${` is written `$${`"
                    .to_owned())
            }
        }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match env::var(name) {
            Ok(value) => Ok(value),
            Err(env::VarError::NotUnicode(_)) => {
                Err(format!("needs the environment variable `{name}`, which is not UTF-8"))
            }
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
        self.files.look(&file);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Expands a text in a directory with these files.
    fn expand(files: &[(&str, &str)], text: &str) -> Result<String, String> {
        let directory = TempDir::new().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        Variables::read(directory.path(), "aviary.toml").expand(text)
    }

    #[test]
    fn a_variable_comes_from_dotenv_anywhere_in_a_text() {
        let dotenv = [(".env", "# a comment\nONE=1\nexport TWO=\"two words\"\n")];
        assert_eq!(expand(&dotenv, "<${ONE}${TWO}>").unwrap(), "<1two words>");
        assert_eq!(expand(&dotenv, "no variable, $ONE, {ONE}, $").unwrap(), "no variable, $ONE, {ONE}, $");
    }

    #[test]
    fn the_process_environment_comes_before_dotenv() {
        let path = env::var("PATH").unwrap();
        assert_eq!(expand(&[(".env", "PATH=elsewhere\n")], "${PATH}").unwrap(), path);
    }

    #[test]
    fn a_file_comes_without_its_last_line_end() {
        let files = [("a", "secret\n"), ("b", "secret\r\n"), ("c", "two\nlines\n\n")];
        assert_eq!(expand(&files, "${file:a}, ${file:b}, ${file:c}").unwrap(), "secret, secret, two\nlines\n");
    }

    #[test]
    fn two_dollars_write_a_plain_one() {
        assert_eq!(expand(&[], "$${NAME} costs 5$").unwrap(), "${NAME} costs 5$");
        assert_eq!(expand(&[(".env", "ONE=1")], "$$${ONE}$${${ONE}").unwrap(), "$${ONE}${1");
    }

    #[test]
    fn what_comes_in_is_not_looked_through_again() {
        let files = [("a", "${HOME}")];
        assert_eq!(expand(&files, "${file:a}").unwrap(), "${HOME}");
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        assert_eq!(
            expand(&[], "${AVIARY_NOWHERE}").unwrap_err(),
            "needs the environment variable `AVIARY_NOWHERE`, which is not set; set it, or give it a \
             line in `.env` beside `aviary.toml`"
        );
        assert_eq!(
            expand(&[], "${file:nowhere}").unwrap_err(),
            "needs the file `nowhere`, which cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_broken_dotenv_is_told_when_it_is_missed_and_not_quoted() {
        let dotenv = [(".env", "ONE=1\nTWO=secret words\nTHREE=3\n")];
        assert_eq!(expand(&dotenv, "${ONE}${THREE}").unwrap(), "13");
        assert_eq!(
            expand(&dotenv, "${TWO}").unwrap_err(),
            "needs the environment variable `TWO`, which is not set; `.env` could not be read whole: \
             entry 2 is not NAME=\"value\""
        );
    }

    #[test]
    fn braces_that_name_nothing_are_refused_and_not_quoted() {
        assert_eq!(expand(&[], "a${secret").unwrap_err(), "has a `${` without `}`; a plain `${` is written `$${`");
        for text in ["${}", "${a b}", "${1A}", "${口令}"] {
            assert_eq!(
                expand(&[], text).unwrap_err(),
                "has a `${…}` that is neither `${NAME}` nor `${file:PATH}`; a plain `${` is written `$${`"
            );
        }
    }

    #[test]
    fn a_file_has_a_bound() {
        let most = usize::try_from(FILE_BYTES_MAX).unwrap();
        let (fits, too_large) = ("a".repeat(most), "a".repeat(most + 1));
        assert_eq!(expand(&[("a", &fits)], "${file:a}").unwrap().len(), most);
        assert_eq!(
            expand(&[("a", &too_large)], "${file:a}").unwrap_err(),
            "needs the file `a`, which cannot be read: it is larger than 1048576 bytes"
        );
    }
}
