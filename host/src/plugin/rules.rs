//! Whether a plugin is asked at all: its `match` rules against a message, without starting a guest.

mod index;

use super::bindings::{Body, Event, Message};
use crate::config::MatchRule;

pub use index::Index;

/// What rules look at, taken from a message once for all plugins.
#[derive(Debug)]
pub struct Facts<'a> {
    /// `MsgType` as WeChat writes it.
    msg_type: &'a str,
    text: Option<&'a str>,
    recognition: Option<&'a str>,
    /// `Event` as WeChat writes it.
    event: Option<&'a str>,
    /// The event's key: of a menu item, or of a scanned code without `qrscene_`.
    key: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// Reads a message.
    pub fn of(message: &'a Message) -> Self {
        let mut facts = Self { msg_type: "", text: None, recognition: None, event: None, key: None };
        match &message.body {
            Body::Text(text) => (facts.msg_type, facts.text) = ("text", Some(text.content.as_str())),
            Body::Image(_) => facts.msg_type = "image",
            Body::Voice(voice) => (facts.msg_type, facts.recognition) = ("voice", voice.recognition.as_deref()),
            Body::Video(_) => facts.msg_type = "video",
            Body::ShortVideo(_) => facts.msg_type = "shortvideo",
            Body::Location(_) => facts.msg_type = "location",
            Body::Link(_) => facts.msg_type = "link",
            Body::Other(name) => facts.msg_type = name,
            Body::Event(event) => {
                facts.msg_type = "event";
                let (name, key) = name_and_key(event);
                facts.event = Some(name);
                facts.key = key.or_else(|| extra(message, "EventKey"));
            }
        }
        facts
    }
}

fn name_and_key(event: &Event) -> (&str, Option<&str>) {
    match event {
        Event::Subscribe(subscribe) => ("subscribe", subscribe.scene.as_deref()),
        Event::Unsubscribe => ("unsubscribe", None),
        Event::Scan(scan) => ("SCAN", Some(&scan.scene)),
        Event::Location(_) => ("LOCATION", None),
        Event::Click(click) => ("CLICK", Some(&click.key)),
        Event::View(view) => ("VIEW", Some(&view.url)),
        Event::ViewMiniprogram(view) => ("view_miniprogram", Some(&view.page_path)),
        Event::ScancodePush(code) => ("scancode_push", Some(&code.key)),
        Event::ScancodeWaitmsg(code) => ("scancode_waitmsg", Some(&code.key)),
        Event::PicSysphoto(pictures) => ("pic_sysphoto", Some(&pictures.key)),
        Event::PicPhotoOrAlbum(pictures) => ("pic_photo_or_album", Some(&pictures.key)),
        Event::PicWeixin(pictures) => ("pic_weixin", Some(&pictures.key)),
        Event::LocationSelect(place) => ("location_select", Some(&place.key)),
        Event::TemplateSendFinished(_) => ("TEMPLATESENDJOBFINISH", None),
        Event::MassSendFinished(_) => ("MASSSENDJOBFINISH", None),
        Event::KfCreateSession(_) => ("kf_create_session", None),
        Event::KfCloseSession(_) => ("kf_close_session", None),
        Event::KfSwitchSession(_) => ("kf_switch_session", None),
        Event::SubscribeMsgPopup(_) => ("subscribe_msg_popup_event", None),
        Event::SubscribeMsgChange(_) => ("subscribe_msg_change_event", None),
        Event::SubscribeMsgSent(_) => ("subscribe_msg_sent_event", None),
        Event::UserInfoModified(_) => ("user_info_modified", None),
        Event::UserAuthorizationRevoke(_) => ("user_authorization_revoke", None),
        Event::UserAuthorizationCancellation(_) => ("user_authorization_cancellation", None),
        Event::Other(name) => (name, None),
    }
}

fn extra<'a>(message: &'a Message, path: &str) -> Option<&'a str> {
    message.extra.iter().find(|field| field.path == path).map(|field| field.value.as_str())
}

/// Whether a plugin with these rules is asked: one that fits is enough, and so are none at all.
pub fn fit(rules: &[MatchRule], facts: &Facts<'_>) -> bool {
    rules.is_empty() || rules.iter().any(|rule| fits(rule, facts))
}

/// Whether all of a rule's conditions hold.
fn fits(rule: &MatchRule, facts: &Facts<'_>) -> bool {
    let holds = |condition: &Option<String>, fact: Option<&str>, test: fn(&str, &str) -> bool| {
        condition.as_deref().is_none_or(|wanted| fact.is_some_and(|fact| test(fact, wanted)))
    };
    holds(&rule.msg_type, Some(facts.msg_type), str::eq_ignore_ascii_case)
        && holds(&rule.event, facts.event, str::eq_ignore_ascii_case)
        && holds(&rule.key, facts.key, |fact, wanted| fact == wanted)
        && holds(&rule.key_starts_with, facts.key, |fact, wanted| fact.starts_with(wanted))
        && holds(&rule.equals, facts.text, |fact, wanted| fact == wanted)
        && holds(&rule.starts_with, facts.text, |fact, wanted| fact.starts_with(wanted))
        && holds(&rule.contains, facts.text, |fact, wanted| fact.contains(wanted))
        && holds(&rule.recognition, facts.recognition, |fact, wanted| fact.contains(wanted))
        && rule.regex.as_ref().is_none_or(|regex| facts.text.is_some_and(|text| regex.is_match(text)))
}

#[cfg(test)]
mod tests {
    use std::slice;

    use aviary_wechat::xml;
    use regex::Regex;

    use super::*;
    use crate::{
        conversation::{Playback, Said},
        message::{self, Push},
    };

    /// A rule to put conditions into.
    fn bare() -> MatchRule {
        MatchRule {
            msg_type: None,
            equals: None,
            starts_with: None,
            contains: None,
            regex: None,
            recognition: None,
            event: None,
            key: None,
            key_starts_with: None,
        }
    }

    /// What a user says, in the notation of conversation files.
    fn said(words: &str) -> Message {
        let push = Playback::default().push("o1", &Said::parse(words).unwrap());
        match message::parse("main", &xml::parse(push.as_bytes()).unwrap()) {
            Ok(Push::Message(message)) => *message,
            other => panic!("{words} is no message: {other:?}"),
        }
    }

    fn is_asked(rules: &[MatchRule], words: &str) -> bool {
        fit(rules, &Facts::of(&said(words)))
    }

    #[test]
    fn each_condition_is_met_by_what_it_is_about_and_by_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        for (rule, met_by, not_by) in [
            (MatchRule { msg_type: some("ShortVideo"), ..bare() }, "[shortvideo]", "[video]"),
            (MatchRule { msg_type: some("file"), ..bare() }, "[file]", "file"),
            (MatchRule { msg_type: some("event"), ..bare() }, "[subscribe]", "subscribe"),
            (MatchRule { equals: some("天气"), ..bare() }, "天气", "天气 北京"),
            (MatchRule { starts_with: some("天气"), ..bare() }, "天气 北京", "北京天气"),
            (MatchRule { contains: some("北京"), ..bare() }, "天气 北京", "天气 上海"),
            (MatchRule { regex: Regex::new(r"^\d+$").ok(), ..bare() }, "42", "42 度"),
            (MatchRule { recognition: some("天气"), ..bare() }, "[voice 今天天气]", "今天天气"),
            (MatchRule { event: some("click"), ..bare() }, "[CLICK a]", "[VIEW https://a/]"),
            (MatchRule { key: some("a"), ..bare() }, "[CLICK a]", "[CLICK ab]"),
            (MatchRule { key: some("42"), ..bare() }, "[subscribe qrscene_42]", "[subscribe]"),
            (MatchRule { key: some("k"), ..bare() }, "[event a_new_one k]", "[event a_new_one]"),
            (MatchRule { key_starts_with: some("a"), ..bare() }, "[CLICK ab]", "[CLICK ba]"),
        ] {
            assert!(is_asked(slice::from_ref(&rule), met_by), "{met_by}: {rule:?}");
            assert!(!is_asked(slice::from_ref(&rule), not_by), "{not_by}: {rule:?}");
        }
    }

    #[test]
    fn all_conditions_of_one_rule_hold_and_no_rules_are_every_message() {
        let click = MatchRule { event: Some("CLICK".into()), key: Some("a".into()), ..bare() };
        let text = MatchRule { msg_type: Some("text".into()), ..bare() };
        let rules = [click, text];
        assert!(is_asked(&rules, "[CLICK a]") && is_asked(&rules, "你好"));
        assert!(!is_asked(&rules, "[CLICK b]") && !is_asked(&rules, "[SCAN a]"));
        assert!(is_asked(&[], "[SCAN a]"));
    }

    /// The places of the plugins that are asked about some words, in a chain of plugins with these rules.
    fn asked(chain: &[Vec<MatchRule>], words: &str) -> Vec<usize> {
        let message = said(words);
        let facts = Facts::of(&message);
        let index = Index::of(chain.iter().map(Vec::as_slice));
        index.candidates(&facts).into_iter().filter(|place| fit(&chain[*place], &facts)).collect()
    }

    #[test]
    fn the_index_finds_whom_a_walk_over_the_chain_would_find() {
        let some = |text: &str| Some(text.to_owned());
        let event = |name: &str| MatchRule { event: some(name), ..bare() };
        let chain = [
            vec![],
            vec![MatchRule { starts_with: some("天气"), ..bare() }, MatchRule { starts_with: some("天"), ..bare() }],
            vec![MatchRule { equals: some("天气"), ..bare() }],
            vec![MatchRule { contains: some("气"), ..bare() }, MatchRule { msg_type: some("IMAGE"), ..bare() }],
            vec![MatchRule { regex: Regex::new("^..$").ok(), ..bare() }],
            vec![MatchRule { recognition: some("天气"), ..bare() }],
            vec![event("click"), MatchRule { key: some("天气"), ..event("CLICK") }],
            vec![MatchRule { key_starts_with: some("天"), ..bare() }],
            vec![bare()],
            vec![MatchRule { starts_with: some("a longer start than the text has"), ..bare() }],
        ];
        for (words, expected) in [
            ("天气", vec![0, 1, 2, 3, 4, 8]),
            ("天气 北京", vec![0, 1, 3, 8]),
            ("天", vec![0, 1, 8]),
            ("é", vec![0, 8]),
            ("[image]", vec![0, 3, 8]),
            ("[voice 今天天气]", vec![0, 5, 8]),
            ("[voice]", vec![0, 8]),
            ("[CLICK 天气]", vec![0, 6, 7, 8]),
            ("[CLICK b]", vec![0, 6, 8]),
            ("[SCAN 天]", vec![0, 7, 8]),
        ] {
            let message = said(words);
            let facts = Facts::of(&message);
            let walked: Vec<usize> = (0..chain.len()).filter(|place| fit(&chain[*place], &facts)).collect();
            assert_eq!(walked, expected, "{words}");
            assert_eq!(asked(&chain, words), expected, "{words}");
        }
    }

    #[test]
    fn a_thousand_plugins_that_cannot_fit_are_not_looked_at() {
        let city = |number: usize| MatchRule { starts_with: Some(format!("天气 {number}")), ..bare() };
        let chain: Vec<Vec<MatchRule>> = (1_000..2_000).map(|number| vec![city(number)]).collect();
        let message = said("天气 1500 明天");
        let index = Index::of(chain.iter().map(Vec::as_slice));
        assert_eq!(index.candidates(&Facts::of(&message)), [500]);
    }

    #[test]
    fn every_message_and_event_is_known_by_wechats_name_for_it() {
        for usage in Said::words().lines().filter(|line| line.starts_with("  [") && line.ends_with(']')) {
            let parts = usage.trim().trim_matches(['[', ']']).split(' ');
            let words: Vec<&str> = parts.filter(|part| !part.ends_with('?')).collect();
            let message = said(&format!("[{}]", words.join(" ")));
            let facts = Facts::of(&message);
            assert_eq!(facts.event.unwrap_or(facts.msg_type), words[0]);
        }
    }
}
