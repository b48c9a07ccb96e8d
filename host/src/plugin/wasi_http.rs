//! `wasi:http` outgoing, for libraries that speak it: the same grants, limits and client as our own `http`.

use std::{sync::Arc, time::Instant};

use http_body_util::BodyExt;
use hyper::{
    header::{CONTENT_LENGTH, HOST},
    http,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::guest::Guest;
use crate::{
    config::PluginSettings,
    egress::{Answer, Egress, NoAnswer, Request, Waits, request},
};

/// How many requests one guest may have on their way at once; the next ones wait for a body to be read or dropped.
const REQUESTS_MAX: usize = 64;

/// The host's side of `wasi:http` for one guest.
pub(super) struct WasiHttp {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// What a request needs of its guest.
struct Hooks {
    plugin: Arc<str>,
    settings: Arc<PluginSettings>,
    egress: Egress,
    deadline: Instant,
    turns: Arc<Semaphore>,
}

/// What hyper and wasmtime do with an answer in the background: for us nothing.
type Background = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttp {
    pub(super) fn new(plugin: &Arc<str>, settings: &Arc<PluginSettings>, egress: &Egress, deadline: Instant) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(egress.header_bytes_max());
        let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
        let (plugin, settings, egress) = (plugin.clone(), settings.clone(), egress.clone());
        let hooks = Hooks { plugin, settings, egress, deadline, turns };
        Self { context, hooks }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (WasiHttp { context, hooks }, table) = self.wasi_http();
        WasiHttpCtxView { hooks, table, ctx: context }
    }
}

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        // The length is checked against the body, here and there.
        Arc::new(|name| {
            name != CONTENT_LENGTH && (request::is_hosts_own(name) || DEFAULT_FORBIDDEN_HEADERS.contains(name))
        })
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Background,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Background)>> + Send> {
        let (plugin, settings, egress) = (self.plugin.clone(), self.settings.clone(), self.egress.clone());
        let (waits, turns) = (waits(self.deadline, options.unwrap_or_default()), self.turns.clone());
        Box::new(async move {
            // The call's deadline ends this wait.
            let turn = turns.acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
            let answer = match asked(request) {
                Ok(request) => egress.send(&settings.grants.http, request, waits).await,
                Err(error) => Err(error),
            };
            if let Err(NoAnswer::Denied(reason)) = &answer {
                egress.tell_denied(&plugin, reason);
            }
            Ok((response(answer.map_err(error)?, turn), Box::new(async { Ok(()) }) as Background))
        })
    }
}

fn waits(deadline: Instant, options: RequestOptions) -> Waits {
    let RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout } = options;
    Waits {
        connect: connect_timeout,
        first_byte: first_byte_timeout,
        between_bytes: between_bytes_timeout,
        ..Waits::of_call(deadline, None)
    }
}

/// Takes wasmtime's request apart and reads its URL like any other: one place decides what a URL means.
fn asked(request: http::Request<WasiBody>) -> std::result::Result<Request, NoAnswer> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(HOST);
    // wasmtime has checked that it is one number; the body is held to it.
    let length = head.headers.remove(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = body.map_err(Into::into).boxed_unsync();
    let request = Request::new(head.method.as_str(), &head.uri.to_string(), head.headers, body)?;
    Ok(Request { length: length.or(request.length), ..request })
}

/// Hands an answer over; its turn ends with its body.
fn response(answer: Answer, turn: OwnedSemaphorePermit) -> http::Response<WasiBody> {
    let body = answer.body.map_err(move |reason| {
        let _held = &turn;
        error(reason)
    });
    let mut response = http::Response::new(body.boxed_unsync());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

fn error(error: NoAnswer) -> Error {
    match error {
        NoAnswer::Denied(_) => Error::HttpRequestDenied,
        NoAnswer::Invalid(_) => Error::HttpRequestUriInvalid,
        NoAnswer::Timeout => Error::HttpResponseTimeout,
        NoAnswer::TooLarge(bytes_max) => Error::HttpResponseBodySize(Some(bytes_max)),
        NoAnswer::Unreachable(reason) => Error::InternalError(Some(reason)),
    }
}

impl std::fmt::Debug for WasiHttp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WasiHttp").finish_non_exhaustive()
    }
}
