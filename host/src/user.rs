//! How a user is named in the log: never by openid.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use crate::config::LogUser;

/// Names users by a hash whose key is made at start and written nowhere: one user has one name in one run of the host.
#[derive(Debug)]
pub struct UserNames {
    key: RandomState,
    setting: LogUser,
}

impl UserNames {
    /// Makes a key.
    pub fn new(setting: LogUser) -> Self {
        Self { key: RandomState::new(), setting }
    }

    /// Names a user, or nobody if users are not to be named.
    pub fn name(&self, openid: &str) -> UserName {
        match self.setting {
            LogUser::Hash => UserName(Some(self.key.hash_one(openid))),
            LogUser::Off => UserName(None),
        }
    }
}

/// A user's name in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserName(Option<u64>);

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // Half of the hash tells users of one log apart well enough.
            Some(hash) => write!(f, "{:08x}", hash >> 32),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_name_that_does_not_show_the_openid() {
        let users = UserNames::new(LogUser::Hash);
        assert_eq!(users.name("oABC").to_string(), users.name("oABC").to_string());
        assert_ne!(users.name("oABC"), users.name("oABD"));
        assert_eq!(UserNames::new(LogUser::Off).name("oABC").to_string(), "-");
    }
}
