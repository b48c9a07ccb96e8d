//! The baseline: an echo bot as one would write it without Aviary. axum, the same verification, parsing and reply as the
//! host's, from the same crate; no plugins, no sandbox, no memory of messages, no log. And one page.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use aviary_wechat::{
    crypt, envelope, signature,
    xml::{self, Element, Writer},
};
use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};

use crate::{
    account::{self, Mode},
    pages,
    wechat::now_s,
};

/// A native echo bot on the loopback interface.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port; 0 is a free one, which is printed
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Serve encrypted pushes instead of plain ones
    #[arg(long)]
    safe: bool,
}

/// Serves until the process is ended.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mode = if args.safe { Mode::Safe } else { Mode::Plain };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener =
            tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
        eprintln!("The native handler listens on http://{}/", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, Router::new().route(pages::PATH, get(page)).fallback(handle).with_state(mode)).await?;
        Ok(())
    })
}

async fn handle(State(mode): State<Mode>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    match answer(mode, query.as_deref().unwrap_or_default(), &body) {
        Ok(xml) => ([(header::CONTENT_TYPE, "text/xml; charset=utf-8")], xml).into_response(),
        Err(status) => status.into_response(),
    }
}

async fn page() -> Html<&'static str> {
    Html(pages::HELLO)
}

/// Answers a push with its own text.
pub fn answer(mode: Mode, query: &str, body: &[u8]) -> Result<String, StatusCode> {
    let query = Query::of(query).ok_or(StatusCode::FORBIDDEN)?;
    match mode {
        Mode::Plain => {
            if !signature::verify(account::TOKEN, &query.timestamp, &query.nonce, &query.signature) {
                return Err(StatusCode::FORBIDDEN);
            }
            echo(&parse(body)?)
        }
        Mode::Safe => {
            let outer = parse(body)?;
            let encrypt = envelope::ciphertext(&outer).ok_or(StatusCode::FORBIDDEN)?;
            let Query { timestamp, nonce, msg_signature, .. } = &query;
            if !signature::verify_message(account::TOKEN, timestamp, nonce, encrypt, msg_signature) {
                return Err(StatusCode::FORBIDDEN);
            }
            let key = account::aes_key();
            let xml = crypt::decrypt(&key, encrypt, account::APP_ID).map_err(|_| StatusCode::BAD_REQUEST)?;
            let reply = echo(&parse(&xml)?)?;
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok(envelope::seal(&key, account::APP_ID, account::TOKEN, now_s(), nonce, random, &reply))
        }
    }
}

fn parse(body: &[u8]) -> Result<Element, StatusCode> {
    xml::parse(body).map_err(|_| StatusCode::BAD_REQUEST)
}

fn echo(push: &Element) -> Result<String, StatusCode> {
    let of = |name| push.text_of(name).ok_or(StatusCode::BAD_REQUEST);
    if of("MsgType")? != "text" {
        return Ok("success".into());
    }
    let mut reply = Writer::new();
    reply
        .text("ToUserName", of("FromUserName")?)
        .text("FromUserName", of("ToUserName")?)
        .number("CreateTime", now_s())
        .text("MsgType", "text")
        .text("Content", of("Content")?);
    Ok(reply.finish())
}

/// What is signed, and how. A parameter that is missing is empty, and an empty one fits no signature.
#[derive(Default)]
struct Query {
    signature: String,
    msg_signature: String,
    timestamp: String,
    nonce: String,
}

impl Query {
    /// Reads a query; nothing if its timestamp is no number.
    fn of(query: &str) -> Option<Self> {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "signature" => read.signature = value.into_owned(),
                "msg_signature" => read.msg_signature = value.into_owned(),
                "timestamp" => read.timestamp = value.into_owned(),
                "nonce" => read.nonce = value.into_owned(),
                _ => {}
            }
        }
        read.timestamp.parse::<u64>().is_ok().then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_signature_is_refused_in_both_modes() {
        let query = "signature=0123&msg_signature=0123&timestamp=1714036504&nonce=1";
        assert_eq!(answer(Mode::Plain, query, b"<xml></xml>"), Err(StatusCode::FORBIDDEN));
        let sealed = b"<xml><Encrypt>AAAA</Encrypt></xml>";
        assert_eq!(answer(Mode::Safe, query, sealed), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn what_is_no_text_is_answered_success() {
        let event = xml::parse(b"<xml><MsgType>event</MsgType></xml>").unwrap();
        assert_eq!(echo(&event), Ok("success".into()));
    }
}
