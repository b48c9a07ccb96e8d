//! Which messages a plugin is asked about: the rules of `match`.
//!
//! A rule is read and checked here; whether it fits a message is decided where messages are known.

mod unknown;

use regex::{Regex, RegexBuilder};

use super::{defaults, section::Section};

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

    /// Says what in a plugin's `match` is allowed but hardly meant. One line each.
    pub(super) fn notes(plugin: &Section<'_>) -> Vec<String> {
        let rules = plugin.given("match").and_then(|_| plugin.listed("match", defaults::rule()));
        rules.iter().flatten().flat_map(unknown::notes).collect()
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
            let text =
                format!("`{first}` asks for {kind} messages, `{key}` for {other} messages; make two rules of it");
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
    let regex =
        RegexBuilder::new(&not_empty(text)?).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    regex.map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => {
            format!("needs more than {bytes} bytes when compiled; use smaller repetitions")
        }
        // The last of several lines is the reason; those above it draw the expression.
        error => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            format!("is not an expression: {}", reason.trim_start_matches("error: "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};
    use super::*;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n[plugins.weather]\n";

    fn rules(rules: &str) -> Vec<MatchRule> {
        let config = load(&format!("{ACCOUNT}match = {rules}\n"));
        config.plugin(&config.accounts[0], "weather", false).matches
    }

    /// The rules stand in line 4.
    fn refused(rules: &str) -> String {
        error(&format!("{ACCOUNT}match = {rules}\n"))
    }

    #[test]
    fn every_condition_is_read() {
        let [text, voice, event] = &rules(
            "[{ type = \"text\", equals = \"天气 北京\", starts_with = \"天气\", contains = \"北京\", regex = '^天气' },
              { recognition = \"天气\" }, { event = \"click\", key = \"a-b\", key_starts_with = \"a-\" }]",
        )[..] else {
            panic!("three rules")
        };
        assert_eq!(text.msg_type.as_deref(), Some("text"));
        assert_eq!(text.equals.as_deref(), Some("天气 北京"));
        assert_eq!(text.starts_with.as_deref(), Some("天气"));
        assert_eq!(text.contains.as_deref(), Some("北京"));
        assert_eq!(text.regex.as_ref().map(Regex::as_str), Some("^天气"));
        assert_eq!(voice.recognition.as_deref(), Some("天气"));
        assert_eq!(voice.msg_type, None);
        assert_eq!(event.event.as_deref(), Some("click"));
        assert_eq!(event.key.as_deref(), Some("a-b"));
        assert_eq!(event.key_starts_with.as_deref(), Some("a-"));
    }

    #[test]
    fn a_plugin_without_rules_is_asked_about_everything() {
        assert!(rules("[]").is_empty());
        let config = load("[accounts.main]\ntoken = \"abc\"\n");
        assert!(config.plugin(&config.accounts[0], "weather", false).matches.is_empty());
    }

    #[test]
    fn a_rule_asks_something() {
        assert_eq!(
            refused("[{}]"),
            "aviary.toml:4: `plugins.weather.match[0]` has no condition; to be asked about every \
             message, leave `match` out"
        );
        assert_eq!(
            refused("[{ type = \"text\", equals = \"\" }]"),
            "aviary.toml:4: `plugins.weather.match[0].equals` is \"\"; it must not be empty; leave it out"
        );
    }

    #[test]
    fn a_rule_is_about_messages_of_one_type() {
        assert_eq!(
            refused("[{ type = \"image\", equals = \"a\" }]"),
            "aviary.toml:4: `plugins.weather.match[0]` can never match: \
             `type` asks for image messages, `equals` for text messages; make two rules of it"
        );
        assert_eq!(
            refused("[{ type = \"text\" }, { recognition = \"a\", key = \"a\" }]"),
            "aviary.toml:4: `plugins.weather.match[1]` can never match: \
             `recognition` asks for voice messages, `key` for event messages; make two rules of it"
        );
        assert_eq!(rules("[{ type = \"Text\", equals = \"a\" }]").len(), 1);
    }

    #[test]
    fn conditions_that_no_text_meets_together_are_refused() {
        let refused = |one: &str, other: &str, rule: &str| {
            let text = format!("`plugins.weather.match[0]` can never match: its `{one}` does not fit its `{other}`");
            assert_eq!(refused(&format!("[{rule}]")), format!("aviary.toml:4: {text}"));
        };
        refused("equals", "starts_with", "{ equals = \"ab\", starts_with = \"b\" }");
        refused("equals", "contains", "{ equals = \"ab\", contains = \"c\" }");
        refused("equals", "regex", "{ equals = \"ab\", regex = '^b' }");
        refused("key", "key_starts_with", "{ key = \"ab\", key_starts_with = \"b\" }");
    }

    #[test]
    fn an_expression_is_one_and_stays_small() {
        assert_eq!(
            refused("[{ regex = '(' }]"),
            "aviary.toml:4: `plugins.weather.match[0].regex` is \"(\"; it is not an expression: unclosed group"
        );
        assert_eq!(
            refused("[{ regex = '\\w{2000}' }]"),
            "aviary.toml:4: `plugins.weather.match[0].regex` is \"\\\\w{2000}\"; \
             it needs more than 2097152 bytes when compiled; use smaller repetitions"
        );
        assert!(rules("[{ regex = '^\\w{1,20}$' }]")[0].regex.is_some());
    }

    #[test]
    fn rules_are_a_list_of_tables() {
        let list = "it must be a list of tables: [{ … }]";
        assert_eq!(refused("\"天气\""), format!("aviary.toml:4: `plugins.weather.match` is \"天气\"; {list}"));
        assert_eq!(
            refused("{ type = \"text\" }"),
            format!("aviary.toml:4: `plugins.weather.match` is a table; {list}")
        );
        assert_eq!(refused("[\"a\"]"), "aviary.toml:4: `plugins.weather.match[0]` is a text; it must be a table");
        assert_eq!(
            refused("[{ start_with = \"a\", type = 5 }]"),
            "aviary.toml:4: `plugins.weather.match[0].type` is 5; it must be a text in quotes\n\
             aviary.toml:4: unknown key `plugins.weather.match[0].start_with`; did you mean `starts_with`?"
        );
    }

    #[test]
    fn a_plugin_has_a_bounded_number_of_rules() {
        let many = |count: usize| format!("[{}]", "{ type = \"text\" },".repeat(count));
        assert_eq!(rules(&many(RULES_MAX)).len(), 1_000);
        assert_eq!(
            refused(&many(RULES_MAX + 1)),
            "aviary.toml:3: `plugins.weather.match` has 1001 rules; it may have 1000"
        );
    }
}
