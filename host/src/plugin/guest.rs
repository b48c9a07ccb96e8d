//! The running instance: what the host keeps for one call, and nothing that outlives it.

use std::{sync::Arc, time::Instant};

use wasmtime::{Store, StoreContextMut, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{Plugin, bindings::Message, limits::Limiter, log::Output, services::Services, wasi_http::WasiHttp};
use crate::config::PluginSettings;

/// The host's side of one guest. It lives in the guest's store and is dropped with it.
pub struct Guest {
    pub(super) plugin: Arc<str>,
    /// What is being answered; nothing while a plugin is only tried.
    pub(super) message: Option<Arc<Message>>,
    pub(super) settings: Arc<PluginSettings>,
    pub(super) services: Services,
    pub(super) deadline: Instant,
    pub(super) limiter: Limiter,
    pub(super) clock: Clock,
    output: Output,
    /// Made when the guest first asks for it: many never do.
    wasi: Option<Box<WasiCtx>>,
    /// The same.
    wasi_http: Option<Box<WasiHttp>>,
    pub(super) table: ResourceTable,
}

/// A guest's computing time, in ticks of the engine's epoch.
#[derive(Debug)]
pub(super) struct Clock {
    ticks: u64,
    ticks_max: u64,
}

impl Clock {
    pub(super) fn is_used_up(&self) -> bool {
        self.ticks >= self.ticks_max
    }
}

impl Guest {
    /// The guest of one call, which ends at `deadline`.
    pub(super) fn of_call(plugin: &Plugin, message: &Arc<Message>, deadline: Instant) -> Self {
        let message = Some(message.clone());
        Self { message, ..Self::new(&plugin.name, &plugin.settings, &plugin.services, deadline) }
    }

    /// A guest that is started, and asked nothing.
    pub(super) fn on_trial(settings: &Arc<PluginSettings>, deadline: Instant) -> Self {
        Self::new(&"plugin".into(), settings, &Services::scratch(), deadline)
    }

    fn new(plugin: &Arc<str>, settings: &Arc<PluginSettings>, services: &Services, deadline: Instant) -> Self {
        let limits = &settings.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self {
            plugin: plugin.clone(),
            message: None,
            settings: settings.clone(),
            services: services.clone(),
            deadline,
            limiter: Limiter::new(limits.memory_bytes(), limits.table_elements_max),
            clock: Clock { ticks: 0, ticks_max: limits.cpu_ms },
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
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(host_data_bytes);
        store.set_max_component_handles(handles_max);
        // A deadline of 0 would trap at the first instruction.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store
    }

    /// What the guest wrote to standard output and error.
    pub(super) fn take_output(&self) -> Vec<String> {
        self.output.take()
    }

    /// The guest's `wasi:http`, made at its first use, and the table of its handles.
    pub(super) fn wasi_http(&mut self) -> (&mut WasiHttp, &mut ResourceTable) {
        let Self { plugin, settings, services, deadline, wasi_http: made, table, .. } = self;
        let make = || Box::new(WasiHttp::new(plugin, settings, &services.egress, *deadline));
        (made.get_or_insert_with(make), table)
    }

    /// The answer to a call of an interface that the operator has not granted.
    pub(super) fn denied(&self, grant: &str) -> String {
        format!("plugin `{}` has no `{grant}` grant", self.plugin)
    }
}

/// Lets the other guests run at every tick, and ends a guest whose computing time is used up.
fn on_tick(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let clock = &mut store.data_mut().clock;
    clock.ticks += 1;
    Ok(if clock.is_used_up() {
        UpdateDeadline::Interrupt
    } else {
        // Not only behind the tasks that are ready, but behind what the network has for us, too.
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
    })
}

/// WASI with clocks, random numbers, the plugin's settings as environment variables, and output that becomes log lines:
/// no files, no sockets, no input, no arguments.
fn wasi(settings: &PluginSettings, output: &Output) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder.stdout(output.clone()).stderr(output.clone());
    for (name, value) in &settings.env {
        builder.env(name, value.expose());
    }
    builder.allow_tcp(false).allow_udp(false).build()
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
