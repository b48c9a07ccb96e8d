//! Which messages a plugin is asked about: the rules of `match`.
//!
//! A rule is read and checked here; whether it fits a message is decided where messages are known.

use regex::{Regex, RegexBuilder};

use super::defaults;
use super::section::Section;

/// How much memory one compiled expression may take; so much again for the states it keeps while it searches.
const REGEX_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How many rules one plugin may have: all of them may be tried for each message.
const RULES_MAX: usize = 1_000;

/// Which message type a condition is about.
const CONDITIONS: [(&str, &str); 8] = [
    ("equals", "text"),
    ("starts_with", "text"),
    ("contains", "text"),
    ("regex", "text"),
    ("recognition", "voice"),
    ("event", "event"),
    ("key", "event"),
    ("key_starts_with", "event"),
];

/// One rule: it fits a message when each of its conditions does. No text in it is empty.
#[derive(Clone, Debug)]
pub struct MatchRule {
    /// `type`: WeChat's `MsgType`, compared without regard to case.
    pub msg_type: Option<String>,
    /// The whole content of a text message.
    pub equals: Option<String>,
    /// How the content of a text message begins.
    pub starts_with: Option<String>,
    /// What the content of a text message contains.
    pub contains: Option<String>,
    /// What is found in the content of a text message.
    pub regex: Option<Regex>,
    /// What the transcript of a voice message contains.
    pub recognition: Option<String>,
    /// WeChat's name of an event, compared without regard to case.
    pub event: Option<String>,
    /// The whole key of an event.
    pub key: Option<String>,
    /// How the key of an event begins.
    pub key_starts_with: Option<String>,
}

impl MatchRule {
    /// Reads a plugin's `match`; `None` if its table has none.
    pub(super) fn read_all(plugin: &Section<'_>) -> Option<Vec<Self>> {
        let sections = plugin.listed("match", defaults::rule())?;
        if sections.len() > RULES_MAX {
            plugin.problem(format!("`{}` has {} rules; it may have {RULES_MAX}", plugin.name("match"), sections.len()));
            return None;
        }
        Some(sections.iter().filter_map(Self::read).collect())
    }

    fn read(section: &Section<'_>) -> Option<Self> {
        let condition = |key| section.given(key).and_then(|_| section.parsed(key, not_empty));
        check_types(section)?;
        let rule = Self {
            msg_type: condition("type"),
            equals: condition("equals"),
            starts_with: condition("starts_with"),
            contains: condition("contains"),
            regex: section.given("regex").and_then(|_| section.parsed("regex", regex)),
            recognition: condition("recognition"),
            event: condition("event"),
            key: condition("key"),
            key_starts_with: condition("key_starts_with"),
        };
        if let Some(other) = rule.contradiction() {
            let (key, other) = other;
            section.problem(format!("`{}` can never match: its `{key}` does not fit its `{other}`", section.path()));
        }
        Some(rule)
    }

    /// Finds two conditions that no text meets together.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let pair = |whole: &Option<String>, part: &Option<String>, fits: fn(&str, &str) -> bool| {
            whole.as_deref().zip(part.as_deref()).is_some_and(|(whole, part)| !fits(whole, part))
        };
        let pairs = [
            (pair(&self.equals, &self.starts_with, |whole, part| whole.starts_with(part)), ("equals", "starts_with")),
            (pair(&self.equals, &self.contains, |whole, part| whole.contains(part)), ("equals", "contains")),
            (pair(&self.key, &self.key_starts_with, |whole, part| whole.starts_with(part)), ("key", "key_starts_with")),
            (
                self.equals.as_deref().zip(self.regex.as_ref()).is_some_and(|(whole, regex)| !regex.is_match(whole)),
                ("equals", "regex"),
            ),
        ];
        pairs.into_iter().find(|(contradicts, _)| *contradicts).map(|(_, keys)| keys)
    }
}

/// Reports a rule whose conditions are about no message, or about messages of two types.
fn check_types(section: &Section<'_>) -> Option<()> {
    let asked = match section.given("type") {
        Some(_) => Some(("type", section.parsed("type", not_empty)?.to_lowercase())),
        None => None,
    };
    let conditions = CONDITIONS.iter().filter(|(key, _)| section.given(key).is_some());
    let mut about = asked.into_iter().chain(conditions.map(|(key, kind)| (*key, (*kind).to_owned())));
    let Some((first, kind)) = about.next() else {
        let text = "has no condition; to be asked about every message, leave `match` out";
        section.problem(format!("`{}` {text}", section.path()));
        return None;
    };
    match about.find(|(_, other)| *other != kind) {
        None => Some(()),
        Some((key, other)) => {
            let text = format!("`{first}` asks for {kind} messages, `{key}` for {other} messages; make two rules of it");
            section.problem(format!("`{}` can never match: {text}", section.path()));
            None
        }
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must not be empty; leave it out".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(&not_empty(text)?).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    regex.map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => format!("needs more than {bytes} bytes when compiled; use smaller repetitions"),
        // The last of several lines is the reason; those above it draw the expression.
        error => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            format!("is not an expression: {}", reason.trim_start_matches("error: "))
        }
    })
}
