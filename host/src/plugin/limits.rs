//! What one call may take of the host's memory, counted as the guest asks for it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use wasmtime::{ResourceLimiterAsync, Trap, WasmBacktrace};

use super::turns::{Ask, Busy, Grown, Lane};
use crate::{config::Limits, foreign::on_one_line};

/// wasmtime's answer to a growth, now or later.
type Growth<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

/// Counts a guest's memories and tables, and refuses what goes beyond the plugin's limits. What is within them waits until the
/// host has so much left for all guests.
///
/// The heap of a garbage collector is a linear memory, too: wasmtime asks here for it as well.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: Limits,
    /// All linear memories together. Memories only ever grow, so this is also the peak.
    memory_bytes: Counted,
    table_elements: Counted,
    /// Whether a growth was refused: what follows is most likely the guest's own abort.
    memory_refused: bool,
    /// The guest's share of the host's memory; none for one that is only tried.
    share: Option<Share>,
}

/// What all memories, or all tables, of a guest have together.
#[derive(Debug, Default)]
struct Counted {
    total: usize,
    /// How much of that the last growth added, which may still fail.
    last: usize,
}

/// What a guest holds of the memory for all guests.
#[derive(Debug)]
struct Share {
    deadline: Instant,
    /// How far the guest may grow before it has to ask.
    held_bytes: usize,
    /// What it got beyond its turn.
    grown: Grown,
    /// What it waits for, and since when.
    waits: Option<(Ask, Instant)>,
    busy: Option<Busy>,
}

impl Limiter {
    /// The limiter of a guest that shares no memory with others, because it is only tried.
    pub(super) fn alone(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            memory_bytes: Counted::default(),
            table_elements: Counted::default(),
            memory_refused: false,
            share: None,
        }
    }

    /// The limiter of a guest that has got `held_bytes` with its turn, and gets what it grows by from the lane.
    pub(super) fn sharing(limits: &Limits, lane: &Lane, held_bytes: usize, deadline: Instant) -> Self {
        let share = Share { deadline, held_bytes, grown: Grown::nothing(lane), waits: None, busy: None };
        Self { share: Some(share), ..Self::alone(limits) }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes.total
    }

    pub(super) fn memory_bytes_max(&self) -> usize {
        self.limits.memory_bytes()
    }

    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }

    /// Returns why the guest did not get memory that its limits allow, if so.
    pub(super) fn busy(&self) -> Option<Busy> {
        let share = self.share.as_ref()?;
        // The call's deadline can come before the wait's own end.
        let waits = || share.waits.as_ref().map(|(ask, since)| share.grown.busy(ask, since.elapsed()));
        share.busy.clone().or_else(waits)
    }

    /// Counts a growth, if the plugin's limits allow it.
    fn count_memory(&mut self, current: usize, desired: usize) -> bool {
        let fits = self.memory_bytes.grow(current, desired, self.limits.memory_bytes());
        self.memory_refused |= !fits;
        fits
    }

    fn count_table(&mut self, current: usize, desired: usize) -> bool {
        self.table_elements.grow(current, desired, self.limits.table_elements_max)
    }
}

impl Counted {
    /// Counts a growth, unless there would be more than `most`.
    fn grow(&mut self, current: usize, desired: usize, most: usize) -> bool {
        let more = desired.saturating_sub(current);
        let total = self.total.saturating_add(more);
        let fits = total <= most;
        if fits {
            *self = Self { total, last: more };
        }
        fits
    }

    /// Takes back the last growth, once.
    fn take_back(&mut self) {
        self.total -= std::mem::take(&mut self.last);
    }
}

/// Whether the module itself declares that it does not grow so far. wasmtime asks us first, and refuses then.
fn is_beyond(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_some_and(|maximum| desired > maximum)
}

impl Share {
    /// Gets what a guest of `memory_bytes` lacks, at once or later.
    async fn grow(&mut self, ask: Ask, memory_bytes: usize) -> wasmtime::Result<bool> {
        self.waits = Some((ask, Instant::now()));
        let grown = self.grown.wait(ask, self.deadline).await;
        self.waits = None;
        match grown {
            Ok(()) => {
                self.held_bytes = memory_bytes;
                Ok(true)
            }
            Err(busy) => {
                self.busy = Some(busy.clone());
                Err(busy.into())
            }
        }
    }
}

/// wasmtime's trait is made with `async_trait`. It is written out here so that the usual answers take no allocation: a box of
/// [`Allowed`] or [`Refused`] holds nothing.
impl ResourceLimiterAsync for Limiter {
    fn memory_growing<'limiter, 'growth>(
        &'limiter mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Growth<'growth>
    where
        'limiter: 'growth,
        Self: 'growth,
    {
        if is_beyond(desired, maximum) || !self.count_memory(current, desired) {
            return Box::pin(Refused);
        }
        let (memory_bytes, limits) = (self.memory_bytes.total, &self.limits);
        let Some(share) = self.share.as_mut().filter(|share| memory_bytes > share.held_bytes) else {
            return Box::pin(Allowed);
        };
        let ask = Ask::to_grow(memory_bytes - share.held_bytes, limits);
        if share.grown.take(&ask) {
            share.held_bytes = memory_bytes;
            return Box::pin(Allowed);
        }
        Box::pin(share.grow(ask, memory_bytes))
    }

    fn table_growing<'limiter, 'growth>(
        &'limiter mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Growth<'growth>
    where
        'limiter: 'growth,
        Self: 'growth,
    {
        match !is_beyond(desired, maximum) && self.count_table(current, desired) {
            true => Box::pin(Allowed),
            false => Box::pin(Refused),
        }
    }

    /// What the guest got of the memory for all guests stays its own until the call ends, for its next growth.
    ///
    /// Without 1-byte pages, which the engine has switched off, every failure told here is of a growth that was allowed
    /// just before. That is not so for tables: one that overflows is told here unasked, and one that was allowed never fails.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.instances_max
    }

    fn tables(&self) -> usize {
        self.limits.tables_max
    }

    fn memories(&self) -> usize {
        self.limits.memories_max
    }
}

/// The growth is allowed, at once.
struct Allowed;

impl Future for Allowed {
    type Output = wasmtime::Result<bool>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(true))
    }
}

/// The growth is refused: `memory.grow` says -1.
struct Refused;

impl Future for Refused {
    type Output = wasmtime::Result<bool>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(false))
    }
}

/// Reads from wasmtime's error which of the counted limits a component is over: how many it needs at least, and the setting.
/// The error has no type of its own.
pub(super) fn over_count(error: &wasmtime::Error) -> Option<String> {
    let text = error.root_cause().to_string();
    let (thing, count) = text.strip_prefix("resource limit exceeded: ")?.split_once(" count too high at ")?;
    let (things, setting) = match thing {
        "instance" => ("core instances", "instances_max"),
        "memory" => ("memories", "memories_max"),
        "table" => ("tables", "tables_max"),
        _ => return None,
    };
    Some(format!("it needs {count} {things} or more; raise its `limits.{setting}`"))
}

/// How many of the functions that a trap interrupted are named, and how long a name may be: the guest chose them.
const FUNCTIONS_MAX: usize = 6;
const FUNCTION_CHARS_MAX: usize = 60;

/// Words a trap, with the functions that it interrupted, the innermost first. Many plugins have no names for them.
pub(super) fn trapped(trap: Trap, error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let named = frames.iter().filter_map(|frame| frame.func_name()).take(FUNCTIONS_MAX);
    let names: Vec<String> = named.map(|name| on_one_line(name).chars().take(FUNCTION_CHARS_MAX).collect()).collect();
    match names.is_empty() {
        true => trap.to_string(),
        false => format!("{trap}, in {}", names.join(", called by ")),
    }
}

/// Words wasmtime's error so that it names the setting, if it is about one of the limits that wasmtime counts itself.
pub(super) fn explained(error: &wasmtime::Error) -> String {
    let text = on_one_line(&error.root_cause().to_string());
    if text.contains("fuel allocated for hostcalls") {
        return "handed more data to the host than it may (`limits.host_data_mib`)".to_owned();
    }
    if text.contains("resource table has no free keys") {
        return format!("{text} (`limits.handles_max`)");
    }
    over_count(error).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::turns::Turns;

    fn limits() -> Limits {
        Limits { memory_mib: 1, table_elements_max: 10, wait_ms: 0, ..Limits::default() }
    }

    #[test]
    fn all_memories_of_a_guest_count_together() {
        let mut limiter = Limiter::alone(&limits());
        assert!(limiter.count_memory(0, 600_000));
        assert!(limiter.count_memory(0, 400_000));
        assert!(!limiter.memory_refused());
        assert!(!limiter.count_memory(400_000, 500_000));
        assert!(limiter.memory_refused());
        assert_eq!(limiter.memory_bytes(), 1_000_000);
    }

    #[test]
    fn a_refused_table_growth_is_not_counted() {
        let mut limiter = Limiter::alone(&limits());
        assert!(!limiter.count_table(0, 11));
        assert!(limiter.count_table(0, 10));
    }

    #[tokio::test]
    async fn a_growth_that_wasmtime_refuses_is_not_counted() {
        let mut limiter = Limiter::alone(&limits());
        assert!(limiter.memory_growing(0, 65_536, Some(65_536)).await.unwrap());
        assert!(!limiter.memory_growing(65_536, 131_072, Some(65_536)).await.unwrap());
        assert!(!limiter.table_growing(0, 8, Some(7)).await.unwrap());
        assert_eq!((limiter.memory_bytes(), limiter.table_elements.total), (65_536, 0));
        assert!(!limiter.memory_refused(), "it was the module's own bound");
        assert!(limiter.memory_growing(65_536, 131_072, None).await.unwrap());
        for _ in 0..2 {
            limiter.memory_grow_failed(wasmtime::format_err!("no room")).unwrap();
            assert_eq!(limiter.memory_bytes(), 65_536);
        }
    }

    #[tokio::test]
    async fn a_guest_grows_within_what_the_host_has_left() {
        let turns = Turns::new(10, 1 << 20);
        let (mine, others) = (turns.lane("main", "mine"), turns.lane("main", "others"));
        let deadline = Instant::now();
        let mut limiter = Limiter::sharing(&limits(), &mine, 65_536, deadline);
        // The first page came with the turn.
        assert!(limiter.memory_growing(0, 65_536, None).await.unwrap());
        let mut rest = Grown::nothing(&others);
        assert!(rest.take(&Ask::to_grow(1 << 20, &limits())), "nothing is taken yet");
        let refused = limiter.memory_growing(65_536, 131_072, None).await.unwrap_err();
        assert!(refused.to_string().starts_with("found no memory left on the host; "), "{refused}");
        assert!(matches!(limiter.busy(), Some(Busy::Memory { .. })));
        assert!(!limiter.memory_refused(), "its own limit allowed it");
        drop(rest);
        assert!(limiter.memory_growing(65_536, 131_072, None).await.unwrap());
        drop(limiter);
        let is_free = Grown::nothing(&others).take(&Ask::to_grow(1 << 20, &limits()));
        assert!(is_free, "what it had grown by is free again");
    }
}
