//! `wasi:http/incoming-handler`: a visitor's request goes in, a page comes out, in the same sandbox as a message's reply.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, Response, StatusCode, header::HeaderName};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout_at};
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::{
        bindings::http::types::{ErrorCode, Scheme},
        body::HyperOutgoingBody,
    },
};

use super::{Call, Failure, GUEST_ERROR_CHARS_MAX, Plugin, guest::Guest};
use crate::foreign::{on_one_line, shortened};

/// Who asks for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    pub account: Arc<str>,
    /// Empty if the visitor is not signed in.
    pub openid: String,
}

/// What a plugin answered, whole. Its headers are what the guest wrote.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub enum NoPage {
    #[error("ended without an answer")]
    Silent,
    #[error("answered with an error: {0}")]
    Refused(String),
    #[error("broke off in the middle of its answer")]
    BrokenOff,
    #[error("made a page of more than {bytes_max} bytes (`pages.answer_bytes_max`)")]
    TooLarge { bytes_max: usize },
    #[error("wanted to lead the visitor out of the account's domains, or what they sent to pages that are not its own")]
    LeadsAway,
    #[error("said `{0}` more than once, which means different things to different browsers")]
    Twice(HeaderName),
    #[error("answered with the status {0}; it may be one of 200 to 599")]
    Status(u16),
}

type Told = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Plugin {
    /// Asks the plugin for a page, in a fresh sandbox that ends with this call, at `deadline` at the latest. The page is taken
    /// whole: a visitor who reads slowly holds no sandbox.
    pub async fn serve(
        &self,
        request: Request<Bytes>,
        visitor: &Arc<Visitor>,
        answer_bytes_max: usize,
        deadline: Instant,
    ) -> Call<Page> {
        let visiting = |held_bytes, deadline| Guest::of_visit(self, visitor, held_bytes, deadline);
        let mut sandbox = match self.open(&self.lanes.pages, visiting, deadline).await {
            Ok(sandbox) => sandbox,
            Err(call) => return call,
        };
        let (sender, receiver) = oneshot::channel();
        // It takes what the guest writes while the guest writes it, and ends when nobody can write any more.
        let page = tokio::spawn(collected(receiver, answer_bytes_max));
        let handled = sandbox.run(async |store| self.handle(store, request, sender).await).await;
        let mut call = sandbox.close(handled);
        let answer = match std::mem::replace(&mut call.answer, Ok(())) {
            // Nobody can write any more, so what is there is all.
            Ok(()) => page_of(page, deadline).await,
            Err(failure) => {
                page.abort();
                Err(failure)
            }
        };
        call.map(answer)
    }

    async fn handle(
        &self,
        store: &mut Store<Guest>,
        request: Request<Bytes>,
        sender: oneshot::Sender<Told>,
    ) -> wasmtime::Result<Result<(), String>> {
        let Some(page) = &self.code.page else { return Ok(Err("it has no pages".to_owned())) };
        let request =
            request.map(|body| Full::new(body).map_err(|never| -> wasmtime_wasi_http::Error { match never {} }));
        let request = store.data_mut().http().new_incoming_request(Scheme::Https, request)?;
        let answer = store.data_mut().http().new_response_outparam(sender)?;
        let instance = self.code.pre.instantiate_async(&mut *store).await?;
        let page = page.load(&mut *store, &instance)?;
        page.wasi_http_incoming_handler().call_handle(store, request, answer).await?;
        Ok(Ok(()))
    }
}

async fn page_of(page: JoinHandle<Result<Page, NoPage>>, deadline: Instant) -> Result<Page, Failure> {
    match timeout_at(deadline.into(), page).await {
        Ok(Ok(page)) => Ok(page?),
        _ => Err(NoPage::BrokenOff.into()),
    }
}

/// What the guest said of its error, as far as it is told.
fn told(code: &ErrorCode) -> String {
    shortened(&on_one_line(&format!("{code:?}")), GUEST_ERROR_CHARS_MAX).to_owned()
}

async fn collected(receiver: oneshot::Receiver<Told>, bytes_max: usize) -> Result<Page, NoPage> {
    let response = receiver.await.map_err(|_| NoPage::Silent)?;
    let response = response.map_err(|code| NoPage::Refused(told(&code)))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => NoPage::TooLarge { bytes_max },
        false => NoPage::BrokenOff,
    })?;
    Ok(Page { status: head.status, headers: head.headers, body: body.to_bytes() })
}
