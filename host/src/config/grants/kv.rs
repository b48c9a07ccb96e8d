//! `grants.kv`: keys of the plugin's own in the store.

use super::Section;

/// How much a plugin may keep in one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvGrant {}

/// Reads `kv`; `None` if the table has none.
pub(super) fn read(_: &Section<'_>) -> Option<Option<KvGrant>> {
    None
}
