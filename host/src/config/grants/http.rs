//! `grants.http`: the hosts that a plugin may send requests to.

use super::Section;

/// One host, and how it may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {}

/// Reads `http`; `None` if the table has none.
pub(super) fn read(_: &Section<'_>) -> Option<Vec<HttpGrant>> {
    None
}
