//! Echo: says every text back, word for word. Anything else is left to the next plugin.

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use aviary::bot::types::{Body, Message, Reply};

struct Echo;

impl exports::aviary::bot::handler::Guest for Echo {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        Ok(match message.body {
            // WeChat refuses an empty reply.
            Body::Text(text) if !text.content.is_empty() => Some(Reply::Text(text.content)),
            _ => None,
        })
    }
}

export!(Echo);
