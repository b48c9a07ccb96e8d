//! Which page a path is.

/// A page, with the name of the account that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Login(String),
    Callback(String),
    Profile(String),
    ProfileJson(String),
    SignOut(String),
    /// `/MP_verify_….txt`, or any other text at the root.
    VerifyFile(String),
    /// Below one of the host's own paths, but nothing.
    Nowhere,
}

impl Place {
    /// Reads a path; nothing if it is not one of the host's own, and so perhaps an account's.
    pub fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.splitn(4, '/').collect();
        Some(match parts[..] {
            ["oauth", account, "login"] => Self::Login(account.to_owned()),
            ["oauth", account, "callback"] => Self::Callback(account.to_owned()),
            ["me", account, "sign-out"] => Self::SignOut(account.to_owned()),
            ["me", name] if name.ends_with(".json") => Self::ProfileJson(name[..name.len() - 5].to_owned()),
            ["me", account] | ["me", account, ""] => Self::Profile(account.to_owned()),
            ["oauth" | "me" | "pages" | "jssdk", ..] => Self::Nowhere,
            [name] if name.ends_with(".txt") => Self::VerifyFile(name.to_owned()),
            _ => return None,
        })
    }

    /// Whose page it is.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Login(account)
            | Self::Callback(account)
            | Self::Profile(account)
            | Self::ProfileJson(account)
            | Self::SignOut(account) => Some(account),
            Self::VerifyFile(_) | Self::Nowhere => None,
        }
    }

    /// Whether a program reads the answer.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::ProfileJson(_))
    }
}
