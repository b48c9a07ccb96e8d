//! Parrot: says every text back with a mark of its own, so that a test can tell it from the bundled echo whose place it
//! takes.

wit_bindgen::generate!({
    path: "../../wit",
    world: "bot",
});

use aviary::bot::types::{Body, Message, Reply};

/// What the host calls.
#[derive(Debug)]
pub struct Parrot;

impl exports::aviary::bot::handler::Guest for Parrot {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        match message.body {
            Body::Text(text) => Ok(Some(Reply::Text(format!("鹦鹉：{}", text.content)))),
            _ => Ok(None),
        }
    }
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Parrot;
    super::export!(Parrot with_types_in super);
}
