//! The visitor's language: Chinese or English.

use axum::http::{HeaderMap, header};

/// A language that the host's own pages speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    Chinese,
    English,
}

impl Language {
    /// Takes the first that the browser asks for and we speak; else the one that WeChat's browser says it is in; else Chinese.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepted = text(header::ACCEPT_LANGUAGE).split(',').find_map(Self::parse);
        // WeChat's browser: `… MicroMessenger/8.0.50 … Language/zh_CN`.
        let of_browser = || text(header::USER_AGENT).split_once("Language/").and_then(|(_, tag)| Self::parse(tag));
        accepted.or_else(of_browser).unwrap_or_default()
    }

    fn parse(tag: &str) -> Option<Self> {
        match tag.trim().get(..2)?.to_ascii_lowercase().as_str() {
            "zh" => Some(Self::Chinese),
            "en" => Some(Self::English),
            _ => None,
        }
    }

    /// Its tag, for browsers.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Chinese => "zh-CN",
            Self::English => "en",
        }
    }

    /// How WeChat's API names it.
    pub fn wechat(self) -> &'static str {
        match self {
            Self::Chinese => "zh_CN",
            Self::English => "en",
        }
    }

    /// Chooses one of two texts.
    pub fn choose<T>(self, chinese: T, english: T) -> T {
        match self {
            Self::Chinese => chinese,
            Self::English => english,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str, agent: &str) -> Language {
        let values = [(header::ACCEPT_LANGUAGE, accept), (header::USER_AGENT, agent)];
        Language::of(&values.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect())
    }

    #[test]
    fn the_browser_is_asked_first_and_then_wechat() {
        assert_eq!(of("zh-CN,zh;q=0.9,en;q=0.8", ""), Language::Chinese);
        assert_eq!(of("fr, en-GB;q=0.8", "MicroMessenger/8 Language/zh_CN"), Language::English);
        assert_eq!(of("fr", "MicroMessenger/8 Language/en"), Language::English);
        assert_eq!(of("", ""), Language::Chinese);
        assert_eq!(Language::of(&HeaderMap::new()), Language::Chinese);
    }
}
