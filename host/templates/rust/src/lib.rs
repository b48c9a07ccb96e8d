//! {{name}}: the bot. Every message starts it afresh; what has to outlive one is kept with `aviary::bot::kv`.

pub mod reply;

wit_bindgen::generate!({ world: "bot" });

use aviary::bot::types::{Body, Event, Message, Reply};

struct Bot;

impl exports::aviary::bot::handler::Guest for Bot {
    /// `Ok(None)`: not for this bot, the next plugin is asked. `Err(…)`: a failure, which is logged.
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        Ok(match &message.body {
            Body::Event(Event::Subscribe(_)) => Some(reply::text(greeting())),
            Body::Text(text) if text.content == "你好" => Some(reply::text(greeting())),
            Body::Text(text) if text.content == "文章" => {
                Some(reply::news("{{name}}", "一篇文章", "", "https://example.com/"))
            }
            Body::Image(image) => Some(reply::image(&image.media_id)),
            _ => None,
        })
    }
}

export!(Bot);

/// A setting: `env` in aviary.toml.
fn greeting() -> String {
    std::env::var("GREETING").unwrap_or_else(|_| "你好！".into())
}
