//! Keywords: answers words with what stands beside them in a table.
//!
//! | message | answer |
//! |---|---|
//! | a text that fits a row of the table | the reply of that row |
//! | a tap on a menu item (`CLICK`) whose key is the keyword of a row | the reply of that row |
//! | the event `aviary_check`, which the host asks about | a failure that names the mistakes in the table, if it has any |
//! | anything else | none: the next plugin is asked |
//!
//! The table is a setting, `TABLE`: usually a file that a spreadsheet program saved as CSV.
//!
//! ```toml
//! [plugins.keywords]
//! match = [{ type = "text" }, { event = "CLICK" }, { event = "aviary_check" }]
//! env = { TABLE = "${file:keywords.csv}" }
//! ```
//!
//! `table.rs` describes its columns. A row with a mistake is left out; the others answer. It needs no grants.

mod table;
mod words;

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "aviary:keywords/keywords",
    additional_derives: [PartialEq],
    generate_all,
});

use aviary::bot::types::{Body, Event, Message, Reply};
use wasi::cli::environment::get_environment;

use table::Table;

/// The event by which the host asks whether the settings are right.
const CHECK: &str = "aviary_check";

/// What the host calls.
#[derive(Debug)]
pub struct Keywords;

impl exports::aviary::bot::handler::Guest for Keywords {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        answer(&message.body, get_environment)
    }
}

/// What a message needs is small beside the page that the instance begins with; a large table takes a few pages more.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: mini_alloc::MiniAlloc = mini_alloc::MiniAlloc::INIT;

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Keywords;
    super::export!(Keywords with_types_in super);
}

/// Returns the reply of the row that fits. The environment is read only for what can have one.
fn answer(body: &Body, environment: impl FnOnce() -> Vec<(String, String)>) -> Result<Option<Reply>, String> {
    let table = || environment().into_iter().find(|(name, text)| name == "TABLE" && !text.trim().is_empty());
    match body {
        Body::Text(text) => Ok(table().and_then(|(_, table)| Table::read(&table).reply_to_text(&text.content))),
        Body::Event(Event::Click(click)) => {
            Ok(table().and_then(|(_, table)| Table::read(&table).reply_to_key(&click.key)))
        }
        Body::Event(Event::Other(name)) if name == CHECK => match table() {
            Some((_, table)) => Table::read(&table).check().map(|()| None),
            None => Err("it has no table; set `env = { TABLE = \"${file:keywords.csv}\" }`".to_owned()),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aviary::bot::types::{Click, Text};

    const TABLE: &str = "关键词,回复\n价格,99 元\n";

    fn text(content: &str) -> Body {
        Body::Text(Text { content: content.into(), menu_id: None })
    }

    fn check() -> Body {
        Body::Event(Event::Other(CHECK.into()))
    }

    fn with(table: &str) -> impl FnOnce() -> Vec<(String, String)> {
        let variables = vec![("CITY".to_owned(), "上海".to_owned()), ("TABLE".to_owned(), table.to_owned())];
        move || variables
    }

    #[test]
    fn a_word_of_the_table_is_answered_and_another_is_left_to_the_next_plugin() {
        assert_eq!(answer(&text("价格"), with(TABLE)), Ok(Some(Reply::Text("99 元".into()))));
        assert_eq!(answer(&text("地址"), with(TABLE)), Ok(None));
    }

    #[test]
    fn a_menu_item_is_answered_by_its_key() {
        let click = Body::Event(Event::Click(Click { key: "价格".into() }));
        assert_eq!(answer(&click, with(TABLE)), Ok(Some(Reply::Text("99 元".into()))));
    }

    #[test]
    fn what_has_no_words_costs_no_look_at_the_settings() {
        let unread = || -> Vec<(String, String)> { panic!("the environment was read") };
        assert_eq!(answer(&Body::Event(Event::Unsubscribe), unread), Ok(None));
    }

    #[test]
    fn without_a_table_every_word_is_left_to_the_next_plugin() {
        assert_eq!(answer(&text("价格"), Vec::new), Ok(None));
        assert_eq!(answer(&text("价格"), with(" \n")), Ok(None));
    }

    #[test]
    fn a_check_tells_what_is_wrong_and_nothing_else() {
        assert_eq!(answer(&check(), with(TABLE)), Ok(None));
        let none = answer(&check(), Vec::new).unwrap_err();
        assert_eq!(none, "it has no table; set `env = { TABLE = \"${file:keywords.csv}\" }`");
        let wrong = answer(&check(), with("关键词,回复\n价格,\n")).unwrap_err();
        assert_eq!(wrong, "row 2 of the table: `价格` has no `回复`");
    }
}
