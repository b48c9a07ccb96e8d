//! Welcome: greets whoever follows the account.
//!
//! | message | answer |
//! |---|---|
//! | the event `subscribe` | the text of the setting `TEXT` |
//! | anything else | none: the next plugin is asked |
//!
//! Its one setting, in `aviary.toml`; without it, or when it is blank, the text is 感谢您的关注!
//!
//! ```toml
//! [plugins.welcome]
//! env = { TEXT = "你好，欢迎！" }
//! ```
//!
//! It needs no grants.

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "aviary:welcome/welcome",
    additional_derives: [PartialEq],
    generate_all,
});

use aviary::bot::types::{Body, Event, Message, Reply};
use wasi::cli::environment::get_environment;

/// What is said when the operator set nothing else.
const TEXT: &str = "感谢您的关注!";

/// What the host calls.
#[derive(Debug)]
pub struct Welcome;

impl exports::aviary::bot::handler::Guest for Welcome {
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
    use super::Welcome;
    super::export!(Welcome with_types_in super);
}

/// Returns the greeting if the user has just followed the account.
/// The environment is read only then: most messages are not for this plugin.
fn answer(body: &Body, environment: impl FnOnce() -> Vec<(String, String)>) -> Option<Reply> {
    let Body::Event(Event::Subscribe(_)) = body else {
        return None;
    };
    let set = environment().into_iter().find(|(name, text)| name == "TEXT" && !text.trim().is_empty());
    Some(Reply::Text(set.map_or_else(|| TEXT.into(), |(_, text)| text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aviary::bot::types::{Subscribe, Text};

    fn subscribe() -> Body {
        Body::Event(Event::Subscribe(Subscribe { scene: None, ticket: None, last_trade_no: None }))
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_new_follower_is_thanked() {
        assert_eq!(answer(&subscribe(), Vec::new), Some(Reply::Text("感谢您的关注!".into())));
    }

    #[test]
    fn the_operator_chooses_the_words() {
        let set = || environment(&[("CITY", "上海"), ("TEXT", "你好，\n欢迎！")]);
        assert_eq!(answer(&subscribe(), set), Some(Reply::Text("你好，\n欢迎！".into())));
    }

    #[test]
    fn a_blank_setting_is_none() {
        for blank in ["", " \n"] {
            let set = || environment(&[("TEXT", blank)]);
            assert_eq!(answer(&subscribe(), set), Some(Reply::Text("感谢您的关注!".into())));
        }
    }

    #[test]
    fn everything_else_is_left_to_the_next_plugin_without_a_look_at_the_settings() {
        let unread = || -> Vec<(String, String)> { panic!("the environment was read") };
        let text = Text { content: "你好".into(), menu_id: None };
        assert_eq!(answer(&Body::Text(text), unread), None);
        assert_eq!(answer(&Body::Event(Event::Unsubscribe), unread), None);
    }
}
