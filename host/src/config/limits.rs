//! What one call of a plugin may use.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::{
    defaults,
    section::{Section, to_usize},
};

/// The most that a plugin's `table_elements_max` may be: the engine reserves as much for each table.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The most that a plugin's `memory_mib` may be: the engine keeps as much address space for each memory.
pub const MEMORY_MIB_MAX: usize = 1024;

/// The most that a plugin's `instances_max` may be: they are counted, but nothing is reserved for them.
pub const CORE_INSTANCES_MAX: usize = 1_000;

/// The most that a plugin's `memories_max` may be: the engine keeps that many for one more call than may run.
pub const MEMORIES_MAX: usize = 8;

/// The most that a plugin's `tables_max` may be, for the same reason.
pub const TABLES_MAX: usize = 64;

/// What one call of a plugin may use: `[limits]`, with a plugin's own over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory in MiB, all memories together. Default 64.
    pub memory_mib: usize,
    /// How many linear memories. Default 4.
    pub memories_max: usize,
    /// How many tables. Default 16.
    pub tables_max: usize,
    /// The elements of all tables. Default 100,000.
    pub table_elements_max: usize,
    /// How many core instances, of which a component is made. Default 100.
    pub instances_max: usize,
    /// Computing time in ms. Default 1,000.
    pub cpu_ms: u64,
    /// Time by the clock in ms. Default 0: whatever `[late]` leaves.
    pub timeout_ms: u64,
    /// How many of its calls may run at once in one account, and as many for its pages. Default 0: half of
    /// `engine.instances_max`.
    pub calls_max: usize,
    /// How long a call waits for its turn, or a guest for memory, in ms. Default 2,000.
    pub wait_ms: u64,
    /// The largest reply in bytes, all its texts together. Default 65,536.
    pub reply_bytes_max: usize,
    /// How many bytes of output become log events. Default 65,536.
    pub log_bytes_max: usize,
    /// How much the plugin may hand to the host at once, in MiB: in one call of a function, or in its answer. Default 4.
    pub host_data_mib: usize,
    /// How many of the host's resources it may hold at once. Default 1,000.
    pub handles_max: usize,
    /// How many calls of WeChat's API it may make, messages included. Default 20.
    pub wechat_calls_max: usize,
}

/// One limit: its key, its bounds, and where it goes.
struct Limit {
    key: &'static str,
    bounds: RangeInclusive<u64>,
    set: fn(&mut Limits, u64),
}

static LIMITS: [Limit; 14] = [
    Limit { key: "memory_mib", bounds: 1..=MEMORY_MIB_MAX as u64, set: |own, mib| own.memory_mib = to_usize(mib) },
    Limit {
        key: "memories_max",
        bounds: 1..=MEMORIES_MAX as u64,
        set: |own, count| own.memories_max = to_usize(count),
    },
    Limit { key: "tables_max", bounds: 1..=TABLES_MAX as u64, set: |own, count| own.tables_max = to_usize(count) },
    Limit {
        key: "table_elements_max",
        bounds: 100..=TABLE_ELEMENTS_MAX as u64,
        set: |own, count| own.table_elements_max = to_usize(count),
    },
    Limit {
        key: "instances_max",
        bounds: 1..=CORE_INSTANCES_MAX as u64,
        set: |own, count| own.instances_max = to_usize(count),
    },
    Limit { key: "cpu_ms", bounds: 1..=60_000, set: |own, ms| own.cpu_ms = ms },
    Limit { key: "timeout_ms", bounds: 0..=120_000, set: |own, ms| own.timeout_ms = ms },
    Limit { key: "calls_max", bounds: 0..=10_000, set: |own, count| own.calls_max = to_usize(count) },
    Limit { key: "wait_ms", bounds: 0..=120_000, set: |own, ms| own.wait_ms = ms },
    Limit { key: "reply_bytes_max", bounds: 64..=1_048_576, set: |own, bytes| own.reply_bytes_max = to_usize(bytes) },
    Limit { key: "log_bytes_max", bounds: 0..=16_777_216, set: |own, bytes| own.log_bytes_max = to_usize(bytes) },
    Limit { key: "host_data_mib", bounds: 1..=1_024, set: |own, mib| own.host_data_mib = to_usize(mib) },
    Limit { key: "handles_max", bounds: 16..=100_000, set: |own, count| own.handles_max = to_usize(count) },
    Limit { key: "wechat_calls_max", bounds: 0..=10_000, set: |own, count| own.wechat_calls_max = to_usize(count) },
];

impl Limits {
    /// Returns `memory_mib` in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_mib << 20
    }

    /// Returns `cpu_ms` as a time.
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu_ms)
    }

    /// Returns `host_data_mib` in bytes.
    pub fn host_data_bytes(&self) -> usize {
        self.host_data_mib << 20
    }

    /// Returns these limits with a plugin's own over them.
    pub(super) fn with(mut self, own: &OwnLimits) -> Self {
        for (limit, number) in &own.0 {
            (limit.set)(&mut self, *number);
        }
        self
    }
}

/// The limits of `defaults.toml`.
impl Default for Limits {
    fn default() -> Self {
        let mut limits = Self {
            memory_mib: 0,
            memories_max: 0,
            tables_max: 0,
            table_elements_max: 0,
            instances_max: 0,
            cpu_ms: 0,
            timeout_ms: 0,
            calls_max: 0,
            wait_ms: 0,
            reply_bytes_max: 0,
            log_bytes_max: 0,
            host_data_mib: 0,
            handles_max: 0,
            wechat_calls_max: 0,
        };
        for limit in &LIMITS {
            (limit.set)(&mut limits, defaults::number(defaults::limits(), limit.key));
        }
        limits
    }
}

/// The limits that one table gives.
#[derive(Clone, Default)]
pub(super) struct OwnLimits(Vec<(&'static Limit, u64)>);

impl OwnLimits {
    /// Reads a table with the keys of `[limits]`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let given = |limit: &'static Limit| Some((limit, section.given_number(limit.key, &limit.bounds)?));
        Self(LIMITS.iter().filter_map(given).collect())
    }
}

impl fmt::Debug for OwnLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(limit, number)| (limit.key, number))).finish()
    }
}
