//! Fallback: answers what no other plugin answered, so that nobody talks to a wall.
//!
//! | message | answer |
//! |---|---|
//! | anything a user sent, of whatever type | the text of the setting `TEXT` |
//! | an event | none: what nobody typed deserves no complaint |
//!
//! It belongs at the end of the chain, where its file name `90-fallback.wasm` puts it. Its one setting, in `aviary.toml`;
//! without it, or when it is blank, the text is 无法识别该消息!
//!
//! ```toml
//! [plugins.fallback]
//! env = { TEXT = "我还不会这个，试试发送“帮助”。" }
//! ```
//!
//! It needs no grants.

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "aviary:fallback/fallback",
    additional_derives: [PartialEq],
    generate_all,
});

use aviary::bot::types::{Body, Message, Reply};
use wasi::cli::environment::get_environment;

/// What is said when the operator set nothing else.
const TEXT: &str = "无法识别该消息!";

/// What the host calls.
#[derive(Debug)]
pub struct Fallback;

impl exports::aviary::bot::handler::Guest for Fallback {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        Ok(answer(&message.body, get_environment))
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
    use super::Fallback;
    super::export!(Fallback with_types_in super);
}

/// Returns the reply to a message, or nothing if it is an event.
/// The environment is read only when it is needed.
fn answer(body: &Body, environment: impl FnOnce() -> Vec<(String, String)>) -> Option<Reply> {
    if let Body::Event(_) = body {
        return None;
    }
    let set = environment().into_iter().find(|(name, text)| name == "TEXT" && !text.trim().is_empty());
    Some(Reply::Text(set.map_or_else(|| TEXT.into(), |(_, text)| text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aviary::bot::types::{Event, Image, Text};

    fn text(content: &str) -> Body {
        Body::Text(Text { content: content.into(), menu_id: None })
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_message_of_any_type_is_answered() {
        let image = Image { pic_url: "https://example.com/1.jpg".into(), media_id: "1".into() };
        for body in [text("你好"), text(""), Body::Image(image), Body::Other("sticker".into())] {
            assert_eq!(answer(&body, Vec::new), Some(Reply::Text("无法识别该消息!".into())));
        }
    }

    #[test]
    fn the_operator_chooses_the_words() {
        let set = || environment(&[("CITY", "上海"), ("TEXT", "试试“帮助”")]);
        assert_eq!(answer(&text("你好"), set), Some(Reply::Text("试试“帮助”".into())));
    }

    #[test]
    fn a_blank_setting_is_none() {
        for blank in ["", " \n"] {
            let set = || environment(&[("TEXT", blank)]);
            assert_eq!(answer(&text("你好"), set), Some(Reply::Text("无法识别该消息!".into())));
        }
    }

    #[test]
    fn an_event_gets_no_complaint_and_costs_no_look_at_the_settings() {
        let unread = || -> Vec<(String, String)> { panic!("the environment was read") };
        assert_eq!(answer(&Body::Event(Event::Unsubscribe), unread), None);
        assert_eq!(answer(&Body::Event(Event::Other("poi_check_notify".into())), unread), None);
    }
}
