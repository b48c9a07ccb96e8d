//! Message types and events that WeChat is not known to send: a rule that names one is most likely misspelt, and never fits.
//! WeChat may add some, so they are no mistake.

use super::super::{document::Value, section::Section};
use crate::{
    conversation::words::{self, Kind},
    plugin::settings_check,
};

/// Of which kind the conditions are that name something of WeChat's.
const NAMING: [(&str, Kind); 2] = [("type", Kind::Message), ("event", Kind::Event)];

/// Says of a rule what WeChat is not known to send, and what was probably meant. One line each.
pub(super) fn notes(rule: &Section<'_>) -> Vec<String> {
    let note = |(key, kind)| {
        let found = rule.given(key)?;
        let Value::Text { text: name, .. } = &found.node.value else { return None };
        let way_out = way_out(kind, name)?;
        let place = &found.node.place;
        Some(format!("{place}: `{}` is {name:?}, which WeChat is not known to send; {way_out}", found.key))
    };
    NAMING.into_iter().filter_map(note).collect()
}

/// What to do about a name that is not known; nothing about one that is.
fn way_out(kind: Kind, name: &str) -> Option<String> {
    // The one type that is no word of its own, and the one event that is ours.
    let more = match kind {
        Kind::Message => "event",
        Kind::Event => settings_check::EVENT,
    };
    let known = || words::names(kind).chain([more]);
    if known().any(|known| known.eq_ignore_ascii_case(name)) {
        return None;
    }
    Some(match (words::nearest_of(known(), name), kind) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Kind::Message) => format!("it sends `{}`", known().collect::<Vec<_>>().join("`, `")),
        (None, Kind::Event) => "`aviary push --help` lists its events".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::load;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    /// What is noted of this rule, which stands in line 4.
    fn noted(rule: &str) -> Vec<String> {
        load(&format!("{ACCOUNT}[plugins.weather]\nmatch = [{{ {rule} }}]\n")).notes
    }

    #[test]
    fn a_misspelt_type_or_event_is_noted_with_the_one_that_was_meant() {
        let near = |key: &str, name: &str, near: &str| {
            let told = format!("which WeChat is not known to send; did you mean `{near}`?");
            let told = format!("aviary.toml:4: `plugins.weather.match[0].{key}` is {name:?}, {told}");
            assert_eq!(noted(&format!("{key} = {name:?}")), [told]);
        };
        near("type", "txt", "text");
        near("type", "evnet", "event");
        near("event", "subscrbe", "subscribe");
        near("event", "aviary_chek", "aviary_check");
    }

    #[test]
    fn what_is_near_nothing_is_noted_with_what_there_is() {
        let told = noted("type = \"picture\"").pop().unwrap();
        assert!(told.contains("which WeChat is not known to send; it sends `text`, `image`, `voice`, "), "{told}");
        assert!(told.ends_with("`, `event`"), "{told}");
        let told = noted("event = \"weather\"").pop().unwrap();
        assert!(told.ends_with("which WeChat is not known to send; `aviary push --help` lists its events"), "{told}");
    }

    #[test]
    fn what_wechat_sends_is_known_in_any_case() {
        for rule in ["type = \"Text\"", "type = \"event\"", "event = \"click\"", "event = \"aviary_check\""] {
            assert!(noted(rule).is_empty(), "{rule}");
        }
    }

    #[test]
    fn an_accounts_own_rules_are_noted_too() {
        let config = load(&format!("{ACCOUNT}[accounts.main.plugins.weather]\nmatch = [{{ type = \"txt\" }}]\n"));
        assert!(
            config.notes[0].starts_with("aviary.toml:4: `accounts.main.plugins.weather.match[0].type` is \"txt\", ")
        );
    }
}
