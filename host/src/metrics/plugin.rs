//! What is counted about plugins: their turns, in each account.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    call_seconds,
    label::{OfPart, OfPlugin, PluginPart, PluginTurn, of_part, plugin_part, plugin_turn},
};
use crate::{
    dispatch::Said,
    plugin::{Failure, quarantine::Part},
};

/// What is not worth being called waiting: less is the time to ask whether there is a free instance.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// What came of a plugin's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Replied,
    Passed,
    Cpu,
    Timeout,
    Memory,
    Stack,
    Trap,
    Error,
    Refused,
    Busy,
    /// It was not asked: it is out of its chain.
    Quarantined,
    /// It was not asked: the user had used up `per_user`.
    PerUser,
    /// It made a page.
    Served,
}

impl Turn {
    /// In the order of the enum.
    const WORDS: [&str; 13] = [
        "replied",
        "passed",
        "cpu",
        "timeout",
        "memory",
        "stack",
        "trap",
        "error",
        "refused",
        "busy",
        "quarantined",
        "per_user",
        "served",
    ];

    /// Says what a call was.
    pub fn of(outcome: &Result<Said, Failure>) -> Self {
        match outcome {
            Ok(Said::Replied) => Self::Replied,
            Ok(Said::Passed) => Self::Passed,
            Ok(Said::Served) => Self::Served,
            Err(Failure::Cpu { .. }) => Self::Cpu,
            Err(Failure::Timeout { .. }) => Self::Timeout,
            Err(Failure::Memory { .. }) => Self::Memory,
            Err(Failure::Stack) => Self::Stack,
            Err(Failure::Trap(_)) => Self::Trap,
            Err(Failure::Guest(_)) => Self::Error,
            Err(Failure::Refused(_) | Failure::Page(_)) => Self::Refused,
            Err(Failure::Busy(_)) => Self::Busy,
        }
    }
}

/// How long the calls for messages and those for pages waited, of all plugins together.
type Waits = Family<OfPart, Histogram, fn() -> Histogram>;

/// What is counted about a plugin in an account.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    turns: [Counter; Turn::WORDS.len()],
    seconds: Histogram,
    /// Of messages, and of pages.
    waits: [Histogram; Part::ALL.len()],
}

impl PluginMetrics {
    /// Counts a call of a part that took so long, and before waited so long until it could begin.
    pub fn call(&self, part: Part, turn: Turn, duration: Duration, waited: Duration) {
        self.skip(turn);
        self.seconds.observe(duration.as_secs_f64());
        if waited >= WAIT_MIN {
            self.waits[part as usize].observe(waited.as_secs_f64());
        }
    }

    /// Counts a turn that was no call.
    pub fn skip(&self, turn: Turn) {
        self.turns[turn as usize].inc();
    }
}

/// The series of all plugins.
#[derive(Debug)]
pub(super) struct Plugins {
    turns: Family<PluginTurn, Counter>,
    seconds: Family<OfPlugin, Histogram, fn() -> Histogram>,
    waits: Waits,
    quarantined: Family<PluginPart, Gauge>,
}

impl Plugins {
    pub(super) fn new() -> Self {
        let waits = Waits::new_with_constructor(call_seconds);
        // There from the beginning: what never waited counts 0.
        Part::ALL.iter().for_each(|part| drop(waits.get_or_create(&of_part(*part))));
        Self {
            turns: Family::default(),
            seconds: Family::new_with_constructor(call_seconds),
            waits,
            quarantined: Family::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Turns of plugins by what came of them";
        registry.register("aviary_plugin_calls", help, self.turns.clone());
        let help = "How long a plugin's calls took, waiting included";
        registry.register_with_unit("aviary_plugin_call", help, Unit::Seconds, self.seconds.clone());
        let help = "How long calls for messages and for pages waited that found no free instance at once";
        registry.register_with_unit("aviary_wait", help, Unit::Seconds, self.waits.clone());
        let help = "1 while a plugin is left alone because it kept failing: as a bot, or for its pages";
        registry.register("aviary_plugin_quarantined", help, self.quarantined.clone());
    }

    pub(super) fn of(&self, plugin: &OfPlugin) -> PluginMetrics {
        let turn = |index| plugin_turn(plugin, Turn::WORDS[index]);
        PluginMetrics {
            turns: array::from_fn(|index| self.turns.get_or_create_owned(&turn(index))),
            seconds: self.seconds.get_or_create_owned(plugin),
            waits: Part::ALL.map(|part| self.waits.get_or_create_owned(&of_part(part))),
        }
    }

    /// Says whether a part of a plugin is left alone.
    pub(super) fn set_quarantined(&self, plugin: &OfPlugin, part: Part, is_out: bool) {
        self.quarantined.get_or_create(&plugin_part(plugin, part)).set(is_out.into());
    }

    pub(super) fn remove(&self, plugin: &OfPlugin) {
        for outcome in Turn::WORDS {
            self.turns.remove(&plugin_turn(plugin, outcome));
        }
        self.seconds.remove(plugin);
        for part in Part::ALL {
            self.quarantined.remove(&plugin_part(plugin, part));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_has_a_word_of_its_own() {
        assert_eq!(Turn::WORDS[Turn::PerUser as usize], "per_user");
        let word = |outcome| Turn::WORDS[Turn::of(&outcome) as usize];
        assert_eq!((word(Ok(Said::Replied)), word(Ok(Said::Passed))), ("replied", "passed"));
        assert_eq!(word(Err(Failure::Guest(String::new()))), "error");
        assert_eq!(word(Err(Failure::Stack)), "stack");
    }
}
