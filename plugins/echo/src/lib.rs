//! Echo: says every text back, word for word.
//!
//! | message | answer |
//! |---|---|
//! | a text | the same text |
//! | anything else | none: the next plugin is asked |
//!
//! It has no settings, needs no grants and imports nothing: the smallest useful plugin, and the one that benchmarks run.

wit_bindgen::generate!({
    path: "../../wit",
    world: "bot",
    additional_derives: [PartialEq],
});

use aviary::bot::types::{Body, Message, Reply};

/// What the host calls.
#[derive(Debug)]
pub struct Echo;

impl exports::aviary::bot::handler::Guest for Echo {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        Ok(answer(message.body))
    }
}

/// What a message needs fits into the memory that the instance begins with: it grows none, and little has to be reset.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: mini_alloc::MiniAlloc = mini_alloc::MiniAlloc::INIT;

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Echo;
    super::export!(Echo with_types_in super);
}

/// Returns the reply to a message, or nothing if it is not a text.
fn answer(body: Body) -> Option<Reply> {
    match body {
        // WeChat refuses an empty reply, so an empty text is left to others.
        Body::Text(text) if !text.content.is_empty() => Some(Reply::Text(text.content)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aviary::bot::types::{Event, Image, Text};

    fn text(content: &str) -> Body {
        Body::Text(Text { content: content.into(), menu_id: None })
    }

    #[test]
    fn a_text_comes_back_as_it_was_typed() {
        assert_eq!(answer(text(" 你好 [微笑]\n")), Some(Reply::Text(" 你好 [微笑]\n".into())));
    }

    #[test]
    fn an_empty_text_is_left_to_the_next_plugin() {
        assert_eq!(answer(text("")), None);
    }

    #[test]
    fn whatever_is_not_a_text_is_left_to_the_next_plugin() {
        let image = Image { pic_url: "https://example.com/1.jpg".into(), media_id: "1".into() };
        assert_eq!(answer(Body::Image(image)), None);
        assert_eq!(answer(Body::Event(Event::Unsubscribe)), None);
        assert_eq!(answer(Body::Other("sticker".into())), None);
    }
}
