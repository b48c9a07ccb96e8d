//! The running instance: what the host keeps for one call, and nothing that outlives it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use wasmtime::{Store, StoreContextMut, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::{
    Plugin, bindings::Message, limits::Limiter, log::Output, millis, page::Visitor, question::Question,
    services::Services, wasi_http::WasiHttp,
};
use crate::{api::Api, config::PluginSettings, egress::Owner};

/// The host's side of one guest. It lives in the guest's store and is dropped with it.
pub struct Guest {
    pub(super) plugin: Arc<str>,
    /// What is being answered; nothing while a plugin is only tried.
    pub(super) question: Option<Question>,
    /// Who asks for a page, if none is being answered.
    visitor: Option<Arc<Visitor>>,
    pub(super) settings: Arc<PluginSettings>,
    pub(super) services: Arc<Services>,
    /// WeChat's API for the account; nothing where there is none, and while a plugin is only tried.
    pub(super) api: Option<Api>,
    /// How many calls of it were made.
    pub(super) wechat_calls: usize,
    pub(super) deadline: Instant,
    pub(super) limiter: Limiter,
    output: Output,
    /// Made when the guest first asks for it: many never do.
    wasi: Option<Box<WasiCtx>>,
    /// The same.
    wasi_http: Option<Box<WasiHttp>>,
    pub(super) table: ResourceTable,
}

impl Guest {
    /// The guest of one call, which ends at `deadline`. With its turn it has got `held_bytes` of memory.
    pub(super) fn of_call(plugin: &Plugin, question: &Question, held_bytes: usize, deadline: Instant) -> Self {
        let question = Some(question.clone());
        let limits = &plugin.settings.limits;
        let limiter = Limiter::sharing(limits, &plugin.lanes.messages, held_bytes, deadline);
        let api = plugin.api.clone();
        Self { question, limiter, api, ..Self::new(&plugin.name, &plugin.settings, &plugin.services, deadline) }
    }

    /// The guest that makes a page; see [`Guest::of_call`].
    pub(super) fn of_visit(plugin: &Plugin, visitor: &Arc<Visitor>, held_bytes: usize, deadline: Instant) -> Self {
        let visitor = Some(visitor.clone());
        let limits = &plugin.settings.limits;
        let limiter = Limiter::sharing(limits, &plugin.lanes.pages, held_bytes, deadline);
        let api = plugin.api.clone();
        Self { visitor, limiter, api, ..Self::new(&plugin.name, &plugin.settings, &plugin.services, deadline) }
    }

    /// In which account, and for which user, the guest is at work; the user is empty where it is nobody's.
    pub(super) fn at_work_for(&self) -> Option<(&str, &str)> {
        let of_message = self.message().map(|message| (message.account.as_str(), message.from_user.as_str()));
        of_message.or_else(|| self.visitor.as_ref().map(|visitor| (&*visitor.account, visitor.openid.as_str())))
    }

    /// A guest that is started, and asked nothing.
    pub(super) fn on_trial(settings: &Arc<PluginSettings>, deadline: Instant) -> Self {
        Self::new(&"plugin".into(), settings, &Services::scratch().into(), deadline)
    }

    fn new(plugin: &Arc<str>, settings: &Arc<PluginSettings>, services: &Arc<Services>, deadline: Instant) -> Self {
        let limits = &settings.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self {
            plugin: plugin.clone(),
            question: None,
            visitor: None,
            settings: settings.clone(),
            services: services.clone(),
            api: None,
            wechat_calls: 0,
            deadline,
            limiter: Limiter::alone(limits),
            output: Output::new(limits.log_bytes_max),
            wasi: None,
            wasi_http: None,
            table,
        }
    }

    /// Makes the store of the guest: fresh and limited.
    pub(super) fn into_store(self, engine: &wasmtime::Engine) -> Store<Self> {
        let (host_data_bytes, handles_max) = (self.settings.limits.host_data_bytes(), self.settings.limits.handles_max);
        let mut store = Store::new(engine, self);
        store.limiter_async(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(host_data_bytes);
        store.set_max_component_handles(handles_max);
        // A deadline of 0 would trap at the first instruction.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store
    }

    /// The message that is being answered.
    pub(super) fn message(&self) -> Option<&Message> {
        self.question.as_ref().map(|question| &*question.message)
    }

    /// What the guest wrote to standard output and error.
    pub(super) fn take_output(&self) -> Vec<String> {
        self.output.take()
    }

    /// The guest's `wasi:http`, made at its first use, and the table of its handles.
    pub(super) fn wasi_http(&mut self) -> (&mut WasiHttp, &mut ResourceTable) {
        if self.wasi_http.is_none() {
            let made = WasiHttp::new(self.owner(), &self.settings, &self.services.egress, self.deadline);
            self.wasi_http = Some(Box::new(made));
        }
        (self.wasi_http.as_mut().expect("it was made"), &mut self.table)
    }

    /// Whose the guest's requests are.
    pub(super) fn owner(&self) -> Owner {
        // One that is only tried is in no account.
        let account = self.at_work_for().map_or("", |(account, _)| account);
        Owner { account: account.into(), plugin: self.plugin.clone() }
    }

    /// The answer to a call of an interface that the operator has not granted.
    pub(super) fn denied(&self, grant: &str) -> String {
        format!("plugin `{}` has no `{grant}` grant", self.plugin)
    }
}

/// Lets the other guests run at every tick, and whoever polls this one see how long it has [computed](super::computing).
fn on_tick(_: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    // Not only behind the tasks that are ready, but behind what the network has for us, too.
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

/// How many random bytes a guest gets at once: what takes less than a tick to make.
const RANDOM_BYTES_MAX: u64 = 256 << 10;

/// WASI with coarse clocks, random numbers, the plugin's settings as environment variables, and output that becomes log lines:
/// no files, no sockets, no input, no arguments.
fn wasi(settings: &PluginSettings, output: &Output) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder.stdout(output.clone()).stderr(output.clone());
    builder.monotonic_clock(CoarseClock::new()).wall_clock(CoarseWallClock).max_random_size(RANDOM_BYTES_MAX);
    for (name, value) in &settings.env {
        builder.env(name, value.expose());
    }
    builder.allow_tcp(false).allow_udp(false).build()
}

/// The step of a guest's clocks. What a guest could learn about others by timing takes finer ones.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// Time since a second before the guest first asked for anything of WASI, in whole steps. Go takes a clock that stands at 0 for
/// a broken one.
struct CoarseClock(Instant);

impl CoarseClock {
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl HostMonotonicClock for CoarseClock {
    fn resolution(&self) -> u64 {
        nanos(CLOCK_STEP)
    }

    fn now(&self) -> u64 {
        nanos(Duration::from_secs(1) + whole_steps(self.0.elapsed()))
    }
}

/// The time of day, in whole steps.
struct CoarseWallClock;

impl HostWallClock for CoarseWallClock {
    fn resolution(&self) -> Duration {
        CLOCK_STEP
    }

    fn now(&self) -> Duration {
        whole_steps(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

fn whole_steps(time: Duration) -> Duration {
    Duration::from_millis(millis(time))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Self { settings, output, wasi: made, table, .. } = self;
        WasiCtxView { ctx: made.get_or_insert_with(|| Box::new(wasi(settings, output))), table }
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
