//! What tells one series from another: names, as labels.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::plugin::quarantine::Part;

/// A name as a label's value, with what the format would take for its own written out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Label(pub(super) Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAccount {
    pub(super) account: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AccountOutcome {
    pub(super) account: Label,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AccountStep {
    pub(super) account: Label,
    pub(super) step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct OfPlugin {
    pub(super) account: Label,
    pub(super) plugin: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfPart {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PluginPart {
    account: Label,
    plugin: Label,
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PluginTurn {
    pub(super) account: Label,
    pub(super) plugin: Label,
    pub(super) outcome: &'static str,
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => encoder.write_str(r"\\"),
            '"' => encoder.write_str(r#"\""#),
            '\n' => encoder.write_str(r"\n"),
            char => encoder.write_char(char),
        })
    }
}

pub(super) fn account_outcome(account: &Label, outcome: &'static str) -> AccountOutcome {
    AccountOutcome { account: account.clone(), outcome }
}

pub(super) fn account_step(account: &Label, step: &'static str) -> AccountStep {
    AccountStep { account: account.clone(), step }
}

pub(super) fn of_part(part: Part) -> OfPart {
    OfPart { part: part.word() }
}

pub(super) fn plugin_part(OfPlugin { account, plugin }: &OfPlugin, part: Part) -> PluginPart {
    PluginPart { account: account.clone(), plugin: plugin.clone(), part: part.word() }
}

pub(super) fn plugin_turn(OfPlugin { account, plugin }: &OfPlugin, outcome: &'static str) -> PluginTurn {
    PluginTurn { account: account.clone(), plugin: plugin.clone(), outcome }
}
