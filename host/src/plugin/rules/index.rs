//! Which plugins of a chain a message may concern at all, found without a look at the others.
//!
//! A house may have a thousand plugins of which a message concerns two. Each rule is filed here under the one of its conditions
//! that the fewest messages meet, and a message looks under what it is: what it finds may fit, what it does not find cannot.

use std::{borrow::Cow, collections::HashMap};

use super::Facts;
use crate::config::MatchRule;

/// The rules of a chain's plugins, by what a message must be to meet them. A plugin is a place in the chain.
#[derive(Debug, Default)]
pub struct Index {
    /// Those that are asked about every message, or whose rules say nothing that can be looked up.
    any: Vec<usize>,
    /// By `MsgType` in lower case.
    types: Whole,
    /// By the name of an event in lower case.
    events: Whole,
    keys: Whole,
    key_starts: Starts,
    texts: Whole,
    text_starts: Starts,
}

/// Plugins by a whole text.
#[derive(Debug, Default)]
struct Whole(HashMap<Box<str>, Vec<usize>>);

/// Plugins by how a text begins.
#[derive(Debug, Default)]
struct Starts {
    by_start: Whole,
    /// How many bytes the starts have that there are, each length once: so many looks find all that a text begins with.
    lengths: Vec<usize>,
}

impl Index {
    /// Files the rules of each plugin, given in the order of the chain.
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a [MatchRule]>) -> Self {
        let mut index = Self::default();
        for (place, rules) in rules.into_iter().enumerate() {
            match rules {
                [] => index.any.push(place),
                rules => rules.iter().for_each(|rule| index.file(rule, place)),
            }
        }
        index
    }

    fn file(&mut self, rule: &MatchRule, place: usize) {
        if let Some(text) = &rule.equals {
            self.texts.file(text, place);
        } else if let Some(start) = &rule.starts_with {
            self.text_starts.file(start, place);
        } else if let Some(key) = &rule.key {
            self.keys.file(key, place);
        } else if let Some(start) = &rule.key_starts_with {
            self.key_starts.file(start, place);
        } else if rule.contains.is_some() || rule.regex.is_some() {
            self.types.file("text", place);
        } else if rule.recognition.is_some() {
            self.types.file("voice", place);
        } else if let Some(event) = &rule.event {
            self.events.file(&lower(event), place);
        } else if let Some(msg_type) = &rule.msg_type {
            self.types.file(&lower(msg_type), place);
        } else {
            file(&mut self.any, place);
        }
    }

    /// Returns the plugins with a rule that may fit, in the order of the chain, each once.
    pub fn candidates(&self, facts: &Facts<'_>) -> Vec<usize> {
        let mut found = self.any.clone();
        self.types.find(&lower(facts.msg_type), &mut found);
        if let Some(event) = facts.event {
            self.events.find(&lower(event), &mut found);
        }
        if let Some(key) = facts.key {
            self.keys.find(key, &mut found);
            self.key_starts.find(key, &mut found);
        }
        if let Some(text) = facts.text {
            self.texts.find(text, &mut found);
            self.text_starts.find(text, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Whole {
    fn file(&mut self, text: &str, place: usize) {
        match self.0.get_mut(text) {
            Some(places) => file(places, place),
            None => _ = self.0.insert(text.into(), vec![place]),
        }
    }

    fn find(&self, text: &str, found: &mut Vec<usize>) {
        found.extend(self.0.get(text).into_iter().flatten());
    }
}

impl Starts {
    fn file(&mut self, start: &str, place: usize) {
        self.by_start.file(start, place);
        if !self.lengths.contains(&start.len()) {
            self.lengths.push(start.len());
        }
    }

    fn find(&self, text: &str, found: &mut Vec<usize>) {
        let starts = self.lengths.iter().filter_map(|length| text.get(..*length));
        starts.for_each(|start| self.by_start.find(start, found));
    }
}

/// Adds a plugin, once: its rules come one after another.
fn file(places: &mut Vec<usize>, place: usize) {
    if places.last() != Some(&place) {
        places.push(place);
    }
}

/// `MsgType` and `Event` are compared without regard to case; nearly all are in lower case as they come.
fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}
