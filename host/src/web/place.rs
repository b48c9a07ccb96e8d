//! Which page a path is.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str};

/// What stands encoded in a part of a path.
pub const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b',')
    .add(b'\'')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'^')
    .add(b'|')
    .add(b'[')
    .add(b']');

/// A page, with the name of the account that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Login(String),
    Callback(String),
    Profile(String),
    ProfileJson(String),
    SignOut(String),
    /// A signature for the JS-SDK.
    Signature(String),
    /// A page of a plugin, below the account's.
    Page {
        account: String,
        plugin: String,
    },
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
            ["jssdk", account] => Self::Signature(account.to_owned()),
            ["me", account, "sign-out"] => Self::SignOut(account.to_owned()),
            ["me", name] if name.ends_with(".json") => Self::ProfileJson(name[..name.len() - 5].to_owned()),
            ["me", account] | ["me", account, ""] => Self::Profile(account.to_owned()),
            ["pages", account, plugin] | ["pages", account, plugin, _] if !plugin.is_empty() => {
                // What is no UTF-8 is no name.
                let plugin = percent_decode_str(plugin).decode_utf8().unwrap_or_default().into_owned();
                Self::Page { account: account.to_owned(), plugin }
            }
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
            | Self::SignOut(account)
            | Self::Signature(account)
            | Self::Page { account, .. } => Some(account),
            Self::VerifyFile(_) | Self::Nowhere => None,
        }
    }

    /// Whether a program reads the answer.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::ProfileJson(_) | Self::Signature(_))
    }
}
