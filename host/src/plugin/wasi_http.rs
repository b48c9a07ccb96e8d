//! `wasi:http` outgoing, for libraries that speak it: the same grants, limits and client as our own `http`.

use std::{sync::Arc, time::Instant};

use http_body_util::BodyExt;
use hyper::{
    header::{CONTENT_LENGTH, HOST},
    http,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::{
        bindings::http::types::{HostOutgoingRequest as _, Method},
        types::HostOutgoingRequest,
    },
};

use super::guest::Guest;
use crate::{
    config::PluginSettings,
    egress::{Answer, Egress, NoAnswer, Owner, Request, Waits, request, target::URL_BYTES_MAX},
};

/// The interface as wasmtime links it; older ones are this one to their guests.
const TYPES: &str = "wasi:http/types@0.2.12";

/// How many requests one guest may have on their way at once; the next ones wait for a body to be read or dropped.
const REQUESTS_MAX: usize = 64;

/// How much of a body a guest may write before some of it is sent, in bytes; it is kept twice. No request has to be sent for
/// that, so that a guest with many bodies gets little for each of those after the first.
const BODY_CHUNK_BYTES_MAX: usize = 32 << 10;
const LATER_CHUNK_BYTES_MAX: usize = 1 << 10;

/// How many bodies of a guest are the first.
const FIRST_BODIES: usize = 32;

/// The host's side of `wasi:http` for one guest.
pub(super) struct WasiHttp {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// What a request needs of its guest.
struct Hooks {
    owner: Owner,
    settings: Arc<PluginSettings>,
    egress: Egress,
    deadline: Instant,
    turns: Arc<Semaphore>,
    /// How many bodies the guest ever began.
    bodies: usize,
}

/// What hyper and wasmtime do with an answer in the background: for us nothing.
type Background = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttp {
    pub(super) fn new(owner: Owner, settings: &Arc<PluginSettings>, egress: &Egress, deadline: Instant) -> Self {
        let mut context = WasiHttpCtx::new();
        // Not only requests have one: each of the guest's handles may be a header.
        context.set_field_size_limit(egress.header_bytes_max().min(request::HEADER_BYTES_MAX));
        let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
        let (settings, egress) = (settings.clone(), egress.clone());
        let hooks = Hooks { owner, settings, egress, deadline, turns, bodies: 0 };
        Self { context, hooks }
    }
}

/// Refuses what no request of ours can have, where a guest says it: wasmtime keeps methods and hosts of any length, for as many
/// requests as the guest has handles, and whether the guest has a grant is asked only when one is sent.
pub(super) fn bound_requests(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Refusal = std::result::Result<(), ()>;
    type Context<'a> = StoreContextMut<'a, Guest>;
    let is_long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > URL_BYTES_MAX);

    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut guest: Context<'_>, (request, method): (Resource<HostOutgoingRequest>, Method)| {
            let refusal: Refusal = match method {
                Method::Other(_) => Err(()),
                known => guest.data_mut().http().set_method(request, known)?,
            };
            Ok((refusal,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        move |mut guest: Context<'_>, (request, host): (Resource<HostOutgoingRequest>, Option<String>)| {
            let refusal: Refusal = match is_long(&host) {
                true => Err(()),
                false => guest.data_mut().http().set_authority(request, host)?,
            };
            Ok((refusal,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        move |mut guest: Context<'_>, (request, path): (Resource<HostOutgoingRequest>, Option<String>)| {
            let refusal: Refusal = match is_long(&path) {
                true => Err(()),
                false => guest.data_mut().http().set_path_with_query(request, path)?,
            };
            Ok((refusal,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
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

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        self.bodies += 1;
        if self.bodies <= FIRST_BODIES { BODY_CHUNK_BYTES_MAX } else { LATER_CHUNK_BYTES_MAX }
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Background,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Background)>> + Send> {
        let (owner, settings, egress) = (self.owner.clone(), self.settings.clone(), self.egress.clone());
        let (waits, turns) = (waits(self.deadline, options.unwrap_or_default()), self.turns.clone());
        Box::new(async move {
            // The call's deadline ends this wait.
            let turn = turns.acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
            let answer = match asked(request) {
                Ok(request) => egress.send(Some(&owner), &settings.grants.http, request, waits).await,
                Err(error) => Err(error),
            };
            if let Err(NoAnswer::Denied(reason)) = &answer {
                egress.tell_denied(&owner.plugin, reason);
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
        NoAnswer::Unreachable(reason) | NoAnswer::Lost(reason) => Error::InternalError(Some(reason)),
    }
}

impl std::fmt::Debug for WasiHttp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WasiHttp").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::services::Services;

    #[test]
    fn a_thousand_bodies_hold_no_more_than_a_few_megabytes() {
        let services = Services::scratch();
        let owner = Owner { account: "main".into(), plugin: "a".into() };
        let mut http = WasiHttp::new(owner, &Arc::default(), &services.egress, Instant::now());
        let sizes: Vec<usize> = (0..1_000).map(|_| http.hooks.p2_outgoing_body_chunk_size()).collect();
        assert!(sizes.iter().all(|size| *size > 0));
        // One is on its way and one is waiting for that.
        assert!(sizes.iter().sum::<usize>() * 2 <= 4 << 20, "{sizes:?}");
    }
}
