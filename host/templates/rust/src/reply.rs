//! Replies in one line each. Those that are not here are cases of `Reply`.

use crate::aviary::bot::types::{Article, Reply};

/// A text; one of over 2,048 bytes comes in parts.
pub fn text(text: impl Into<String>) -> Reply {
    Reply::Text(text.into())
}

/// A picture, by its media id.
pub fn image(media_id: impl Into<String>) -> Reply {
    Reply::Image(media_id.into())
}

/// An article that opens a page; without a description or a picture where they are empty.
pub fn news(title: &str, description: &str, picture_url: &str, url: &str) -> Reply {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Reply::News(vec![Article {
        title: title.into(),
        description: given(description),
        pic_url: given(picture_url),
        url: url.into(),
    }])
}
