//! Caller: the plugin that sends customer-service messages and calls WeChat's API as the tests tell it.
//!
//! A text message is orders, one a line; the reply has the answers, one a line. It is never shipped.
//!
//! | order | what it says |
//! |---|---|
//! | `send OPENID TEXT` | `sent`; `me` is the user whose message this is |
//! | `menu OPENID` | `sent`, a menu in an agent's name, marked as an AI's |
//! | `typing OPENID` | `shown` |
//! | `call METHOD PATH?QUERY BODY` | the JSON; without a BODY there is none |
//! | `upload PATH?QUERY TEXT` | the JSON, for the file `picture.png` that holds TEXT |
//! | `download PATH?QUERY` | type, name and content of the file |
//!
//! What went wrong is said in debug form. Any other message gets no answer.

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use std::fmt::Debug;

use aviary::bot::{
    customer_service::{self, Content, Menu, Options},
    types::{Body, Message, Reply},
    wechat_api::{self, Media},
};

/// What the host calls.
#[derive(Debug)]
pub struct Caller;

impl exports::aviary::bot::handler::Guest for Caller {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = &message.body else { return Ok(None) };
        let answers: Option<Vec<String>> = text.content.lines().map(|order| obey(&message.from_user, order)).collect();
        Ok(answers.map(|answers| Reply::Text(answers.join("\n"))))
    }
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Caller;
    super::export!(Caller with_types_in super);
}

/// Carries out one order of the table above; `None` if it is none.
fn obey(sender: &str, order: &str) -> Option<String> {
    let (verb, rest) = order.split_once(' ')?;
    let (first, more) = rest.split_once(' ').map_or((rest, None), |(first, more)| (first, Some(more)));
    let openid = if first == "me" { sender } else { first };
    Some(match verb {
        "send" => said(customer_service::send(openid, &Content::Text(more?.into()), &plain()).map(|()| "sent".into())),
        "menu" => said(customer_service::send(openid, &menu(), &by_agent()).map(|()| "sent".into())),
        "typing" => said(customer_service::typing(openid, true).map(|()| "shown".into())),
        "call" => {
            let (target, body) = more?.split_once(' ').map_or((more?, None), |(target, body)| (target, Some(body)));
            let (path, query) = path_and_query(target);
            said(wechat_api::call(first, path, &query, body))
        }
        "upload" => {
            let (path, query) = path_and_query(first);
            let data = more?.as_bytes().to_vec();
            let media = Media { file_name: "picture.png".into(), content_type: "image/png".into(), data };
            said(wechat_api::upload(path, &query, "media", &media))
        }
        "download" => {
            let (path, query) = path_and_query(first);
            said(wechat_api::download(path, &query).map(|Media { content_type, file_name, data }| {
                format!("{content_type} {file_name} {}", String::from_utf8_lossy(&data))
            }))
        }
        _ => return None,
    })
}

fn plain() -> Options {
    Options { kf_account: None, is_ai: false }
}

fn by_agent() -> Options {
    Options { kf_account: Some("test1@kftest".into()), is_ai: true }
}

fn menu() -> Content {
    let items = vec![("1".into(), "好".into()), ("2".into(), "不好".into())];
    Content::Menu(Menu { head: "满意吗？".into(), items, tail: "谢谢".into() })
}

fn path_and_query(target: &str) -> (&str, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    (path, pairs.map(|(name, value)| (name.into(), value.into())).collect())
}

fn said(outcome: Result<String, impl Debug>) -> String {
    outcome.unwrap_or_else(|error| format!("{error:?}"))
}
