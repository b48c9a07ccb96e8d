//! A text that must not be seen: a token, a setting of a plugin that may be someone's API key.

use std::fmt;

/// A text that prints as `[redacted]`: it has no `Display`, and whoever needs the text has to say
/// [`expose`](Self::expose).
///
/// There is no `==` either: comparing secrets takes constant time, and that belongs to whoever knows what is compared.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Returns the text itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_prints_as_redacted_and_is_exposed_on_request() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "[redacted] Some(\n    [redacted],\n)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
