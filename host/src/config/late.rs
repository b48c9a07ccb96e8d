//! `[late]`: how a reply reaches the user that misses WeChat's window. An account may have its own.

use std::{collections::BTreeSet, time::Duration};

use super::{account::words_for_a_user, section::Section};

/// The longest `more_text` and `kept_text`: with what goes before it, it must fit into one message.
const CLOSING_BYTES_MAX: usize = 512;

/// How many fetch words there may be, and how long each.
const FETCH_WORDS_MAX: usize = 20;
const FETCH_WORD_BYTES_MAX: usize = 64;

/// `[late]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// By which way a late reply goes. Default: whichever WeChat allows.
    pub deliver: Deliver,
    /// `window_ms`: when a try that is to be answered is answered at the latest, from its arrival. Default 4.5 s.
    pub window: Duration,
    /// `hold_ms`: under next-try, how long all of a message's tries together wait for its reply. Default 14 s.
    pub hold: Duration,
    /// `background_ms`: how long a call may go on after the user was put off. Default 120 s.
    pub background: Duration,
    /// What the user reads when the last try runs out; a text that WeChat takes. None: nothing.
    pub waiting_text: Option<String>,
    /// What closes a part of a text when more of it is kept. May be empty.
    pub more_text: String,
    /// What a user reads with an answer when something is kept of which they do not know. May be empty: nothing.
    pub kept_text: String,
    /// The words that fetch what is kept. May be none.
    pub fetch_words: BTreeSet<String>,
    /// `keep_s`: how long a reply is kept, and how long sending it is tried. Default a day.
    pub keep: Duration,
}

/// By which way a reply goes that missed its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// By customer service where WeChat says that the account may, else by the next try.
    Auto,
    /// As a customer-service message.
    CustomerService,
    /// By WeChat's next try of the same message; after the last, it is kept until the user asks for it.
    NextTry,
}

impl Late {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let ways =
            [("auto", Deliver::Auto), ("customer-service", Deliver::CustomerService), ("next-try", Deliver::NextTry)];
        Self {
            // What could not be read was reported; nothing is served with it.
            deliver: section.choice("deliver", &ways).unwrap_or(Deliver::Auto),
            window: section.millis("window_ms", 100..=5_000),
            hold: section.millis("hold_ms", 0..=15_000),
            background: section.millis("background_ms", 0..=600_000),
            waiting_text: section.parsed("waiting_text", words_for_a_user).flatten(),
            more_text: section.parsed("more_text", closing).unwrap_or_default(),
            kept_text: section.parsed("kept_text", closing).unwrap_or_default(),
            fetch_words: fetch_words(section),
            keep: Duration::from_secs(section.number("keep_s", 60..=604_800)),
        }
    }

    /// Words that name no fetch word, so that whoever does as they say gets the bot's answer to that. Each reads on after
    /// "`accounts.main.".
    pub(super) fn notes(&self) -> impl Iterator<Item = &'static str> {
        let names_none = |text: &str| !text.is_empty() && !self.fetch_words.iter().any(|word| text.contains(word));
        let waits = self.deliver != Deliver::CustomerService;
        let waiting = names_none(self.waiting_text.as_deref().unwrap_or_default()) && waits;
        let waiting =
            waiting.then_some("late.waiting_text` names none of `late.fetch_words`, so nobody learns how to ask");
        let more = names_none(&self.more_text);
        let more = more.then_some("late.more_text` names none of `late.fetch_words`, so nobody learns how to read on");
        let kept = names_none(&self.kept_text);
        let kept = kept.then_some("late.kept_text` names none of `late.fetch_words`, so nobody learns how to get it");
        waiting.into_iter().chain(more).chain(kept)
    }

    /// Whether a user reads of what is kept without their knowing.
    pub fn tells_of_kept(&self) -> bool {
        !self.kept_text.is_empty() && !self.fetch_words.is_empty()
    }

    /// Whether a text, as a user typed it, asks for what is kept.
    pub fn is_fetch_word(&self, text: &str) -> bool {
        self.fetch_words.contains(text.trim())
    }
}

/// Words that stand behind others in one message.
fn closing(text: &str) -> Result<String, String> {
    match text.len() {
        0..=CLOSING_BYTES_MAX => Ok(words_for_a_user(text)?.unwrap_or_default()),
        bytes => Err(format!("must have {CLOSING_BYTES_MAX} bytes at most, and has {bytes}")),
    }
}

fn fetch_words(section: &Section<'_>) -> BTreeSet<String> {
    let given = section.texts("fetch_words");
    if given.len() > FETCH_WORDS_MAX {
        section.problem(format!(
            "`{}` has {} words; {FETCH_WORDS_MAX} are enough",
            section.name("fetch_words"),
            given.len()
        ));
    }
    let mut words = BTreeSet::new();
    for (word, node) in given {
        match word.trim() {
            word @ "" => {
                section.problems.add(&node.place, format!("`fetch_words` has {word:?}; a word says something"))
            }
            word if word.len() > FETCH_WORD_BYTES_MAX => section.problems.add(
                &node.place,
                format!("`fetch_words` has a word of {} bytes; it may have {FETCH_WORD_BYTES_MAX}", word.len()),
            ),
            word => _ = words.insert(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};
    use super::*;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    #[test]
    fn the_commonest_account_needs_no_setting() {
        let late = load(ACCOUNT).accounts[0].late.clone();
        let ms = |duration: Duration| duration.as_millis();
        assert_eq!(
            (late.deliver, ms(late.window), ms(late.hold), ms(late.background), ms(late.keep)),
            (Deliver::Auto, 4_500, 14_000, 120_000, 86_400_000)
        );
        assert_eq!(late.waiting_text.as_deref(), Some("还在想，稍后回复“继续”查看"));
        assert_eq!(late.more_text, "（未完，回复“继续”看下文）");
        assert!(late.is_fetch_word(" 继续\n") && !late.is_fetch_word("继续吧"));
    }

    #[test]
    fn words_can_be_left_out() {
        let late = load(&format!(
            "{ACCOUNT}[late]\nwaiting_text = \"\"\nmore_text = \"\"\nkept_text = \"\"\nfetch_words = []\n"
        ))
        .late;
        assert_eq!((late.waiting_text, late.more_text.as_str(), late.fetch_words.len()), (None, "", 0));
    }

    #[test]
    fn words_that_name_no_fetch_word_are_noted() {
        let notes = load(&format!(
            "{ACCOUNT}late.fetch_words = [\"more\"]\nlate.more_text = \"(say more)\"\n\
             late.kept_text = \"(more is kept)\"\n"
        ))
        .notes;
        let waiting = "aviary.toml:1: `accounts.main.late.waiting_text` names none of `late.fetch_words`, so nobody learns how \
                       to ask";
        assert_eq!(notes, [waiting]);
        assert_eq!(
            load(&format!(
                "{ACCOUNT}[late]\nwaiting_text = \"\"\nmore_text = \"\"\nkept_text = \"\"\nfetch_words = []\n"
            ))
            .notes,
            [""; 0]
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        assert_eq!(
            error(&format!("{ACCOUNT}[late]\ndeliver = \"mail\"\nhold_ms = 20000\nfetch_words = [\"go\", \" \"]\n")),
            "aviary.toml:4: `late.deliver` is \"mail\"; it may be \"auto\", \"customer-service\" or \"next-try\"\n\
             aviary.toml:5: `late.hold_ms` is 20000; it must be a whole number, 0 to 15000\n\
             aviary.toml:6: `fetch_words` has \"\"; a word says something"
        );
        let long = "继".repeat(200);
        let refused = error(&format!("{ACCOUNT}[late]\nmore_text = \"{long}\"\n"));
        assert!(refused.ends_with("it must have 512 bytes at most, and has 600"), "{refused}");
    }

    #[test]
    fn customer_service_needs_the_secret_that_the_api_needs() {
        assert_eq!(
            error(&format!("{ACCOUNT}late.deliver = \"customer-service\"\napp_id = \"wx1\"\n")),
            "aviary.toml:1: `accounts.main.app_secret` is missing, and `late.deliver` \"customer-service\" needs it and \
             `app_id`, for WeChat's API"
        );
    }
}
