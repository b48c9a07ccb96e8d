//! Whose a key is, as bytes that no key can imitate.
//!
//! A row is `account`, `plugin`, 0 and the key, or `account`, `plugin`, 1, `user` and the key. Each name stands behind its
//! length, so that no two rows of different owners are equal, and one owner's rows lie side by side in the keys' own order.

use crate::store::queue::Lane;

/// The tag of keys that belong to all users of a plugin.
const SHARED: u8 = 0;

/// The tag of keys that belong to one user.
const OF_USER: u8 = 1;

/// The keys of a plugin in an account: those of all users, or those of one. What lies outside cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    prefix: Vec<u8>,
    /// Where the part ends that names account and plugin.
    owner_bytes: usize,
    is_hosts_own: bool,
}

impl Space {
    /// The keys that a plugin has for all of its users.
    pub fn shared(account: &str, plugin: &str) -> Self {
        let mut space = Self::of(account, plugin);
        space.prefix.push(SHARED);
        space
    }

    /// The keys that a plugin has for one user.
    pub fn of_user(account: &str, plugin: &str, openid: &str) -> Self {
        let mut space = Self::of(account, plugin);
        space.prefix.push(OF_USER);
        push(&mut space.prefix, openid);
        space
    }

    /// The sessions of an account's visitors, which are the host's own.
    pub fn of_sessions(account: &str) -> Self {
        // No plugin has this name: plugins are named after files, and no file's name has a zero in it.
        Self { is_hosts_own: true, ..Self::shared(account, "\0sessions") }
    }

    fn of(account: &str, plugin: &str) -> Self {
        let prefix = joined(&[account, plugin]);
        Self { owner_bytes: prefix.len(), prefix, is_hosts_own: false }
    }

    /// Account and plugin: who has a quota.
    pub(super) fn owner(&self) -> &[u8] {
        &self.prefix[..self.owner_bytes]
    }

    /// Where its writes wait.
    pub(super) fn lane(&self) -> Lane<'_> {
        if self.is_hosts_own { Lane::Host(self.owner()) } else { Lane::Plugin(self.owner()) }
    }

    /// The row of a key, or with the beginning of a key, the beginning of rows.
    pub(super) fn row(&self, key: &str) -> Vec<u8> {
        [&self.prefix, key.as_bytes()].concat()
    }

    /// The key of a row of this space.
    pub(super) fn key<'a>(&self, row: &'a [u8]) -> Option<&'a str> {
        str::from_utf8(row.strip_prefix(self.prefix.as_slice())?).ok()
    }
}

/// Names, each behind its length: no two lists of names are the same bytes, nor one the beginning of another of its length.
pub(in crate::store) fn joined(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    names.iter().for_each(|name| push(&mut bytes, name));
    bytes
}

/// Appends a name behind its length.
fn push(bytes: &mut Vec<u8>, name: &str) {
    // No name is as long as 4 GiB.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(name.as_bytes());
}

/// Splits a row into its owner and its key; `None` if it is no row.
pub(super) fn split(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let after_owner = skip(skip(row)?)?;
    let owner = &row[..row.len() - after_owner.len()];
    let key = match after_owner.split_first()? {
        (&SHARED, key) => key,
        (&OF_USER, rest) => skip(rest)?,
        _ => return None,
    };
    Some((owner, key))
}

/// Returns what follows a name behind its length.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?..)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_plugins_write_does_not_wait_where_the_hosts_own_does() {
        for space in [Space::shared("main", "sessions"), Space::of_user("main", "a", "o1")] {
            assert!(matches!(space.lane(), Lane::Plugin(_)));
        }
        assert!(matches!(Space::of_sessions("main").lane(), Lane::Host(_)));
    }

    /// Names that look like parts of rows, and those that are odd in other ways.
    const ODD: [&str; 9] = ["", "a", "aa", "\0", "\0\0\0\u{1}a", "a\0\0\0\0", "\u{1}", "天气", "/../"];

    #[test]
    fn no_two_spaces_share_a_row_whatever_names_and_keys_are_chosen() {
        let mut rows = HashSet::new();
        let mut count = 0;
        for account in ODD {
            for plugin in ODD {
                for key in ODD {
                    rows.insert(Space::shared(account, plugin).row(key));
                    rows.extend(ODD.map(|user| Space::of_user(account, plugin, user).row(key)));
                    count += 1 + ODD.len();
                }
            }
        }
        assert_eq!(rows.len(), count);
    }

    #[test]
    fn no_space_is_the_beginning_of_another() {
        let spaces: Vec<_> = ODD
            .iter()
            .flat_map(|account| ODD.map(|plugin| (*account, plugin)))
            .flat_map(|(account, plugin)| {
                let of_users = ODD.map(|user| Space::of_user(account, plugin, user));
                of_users.into_iter().chain([Space::shared(account, plugin)])
            })
            .collect();
        for (index, space) in spaces.iter().enumerate() {
            let inside = spaces.iter().filter(|other| other.prefix.starts_with(&space.prefix)).count();
            assert_eq!(inside, 1, "{index}");
        }
    }

    #[test]
    fn a_row_tells_its_owner_and_key() {
        for name in ODD {
            for space in [Space::shared(name, "b"), Space::of_user("a", name, name)] {
                let row = space.row(name);
                assert_eq!(split(&row), Some((space.owner(), name.as_bytes())));
                assert_eq!(space.key(&row), Some(name));
            }
        }
        assert_eq!(split(b""), None);
        assert_eq!(split(&[0, 0, 0, 9, b'a']), None);
        assert_eq!(split(&[0, 0, 0, 0, 0, 0, 0, 0, 7]), None);
    }
}
