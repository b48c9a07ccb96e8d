//! What turning a `.wasm` file into machine code may take, and what is kept of it.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, sync::LazyLock, time::Duration};

use super::{defaults, document::Table, section::Section};

/// `[compile]`, with a plugin's own over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compile {
    /// The largest `.wasm` file, in MiB. Default 64.
    pub file_mib_max: u64,
    /// The address space of the compiling process, in MiB. Default 4,096.
    pub memory_mib: u64,
    /// Its computing time, in s. Default 120.
    pub cpu_s: u64,
    /// Its time by the clock, in s. Default 180.
    pub timeout_s: u64,
}

/// The keys of `[compile]` about the cache, which all plugins share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileCache {
    /// `cache_mib_max`: how large the cache may become, in MiB, but for what is in use. Default 1,024.
    pub mib_max: u64,
    /// `cache_days`: how long code that no plugin uses is kept, in days. Default 30.
    pub days: u64,
}

impl Compile {
    /// Returns `file_mib_max` in bytes.
    pub fn file_bytes_max(&self) -> u64 {
        self.file_mib_max << 20
    }

    /// Reads `[compile]`, whose keys are more than these.
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self::default().with(&OwnCompile::given(section))
    }

    /// Returns the larger of each limit: for a file that several accounts ask, each with limits of its own.
    pub fn largest(self, other: &Self) -> Self {
        Self {
            file_mib_max: self.file_mib_max.max(other.file_mib_max),
            memory_mib: self.memory_mib.max(other.memory_mib),
            cpu_s: self.cpu_s.max(other.cpu_s),
            timeout_s: self.timeout_s.max(other.timeout_s),
        }
    }

    /// Returns these limits with a plugin's own over them.
    pub(super) fn with(mut self, own: &OwnCompile) -> Self {
        for (key, number) in &own.0 {
            (key.set)(&mut self, *number);
        }
        self
    }
}

/// The limits of `defaults.toml`.
impl Default for Compile {
    fn default() -> Self {
        let mut compile = Self { file_mib_max: 0, memory_mib: 0, cpu_s: 0, timeout_s: 0 };
        for key in &KEYS {
            (key.set)(&mut compile, defaults::number(defaults::compile(), key.name));
        }
        compile
    }
}

impl CompileCache {
    /// Returns `cache_mib_max` in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.mib_max << 20
    }

    /// Returns `cache_days` as a time.
    pub fn age_max(&self) -> Duration {
        Duration::from_secs(self.days * 86_400)
    }

    /// Reads `[compile]`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { mib_max: section.number("cache_mib_max", 1..=1_048_576), days: section.number("cache_days", 0..=3_650) }
    }
}

/// One key: its name, its bounds, and where it goes.
struct Key {
    name: &'static str,
    bounds: RangeInclusive<u64>,
    set: fn(&mut Compile, u64),
}

static KEYS: [Key; 4] = [
    Key { name: "file_mib_max", bounds: 1..=1_024, set: |own, mib| own.file_mib_max = mib },
    Key { name: "memory_mib", bounds: 256..=65_536, set: |own, mib| own.memory_mib = mib },
    Key { name: "cpu_s", bounds: 1..=3_600, set: |own, s| own.cpu_s = s },
    Key { name: "timeout_s", bounds: 1..=3_600, set: |own, s| own.timeout_s = s },
];

/// The keys of `[compile]` that a plugin can have for itself.
static OWN: LazyLock<Table> = LazyLock::new(|| {
    let key = |key: &Key| defaults::compile().get_key_value(key.name).map(|(name, node)| (name.clone(), node.clone()));
    KEYS.iter().filter_map(key).collect::<BTreeMap<_, _>>()
});

/// The limits that one table gives.
#[derive(Clone, Default)]
pub(super) struct OwnCompile(Vec<(&'static Key, u64)>);

impl OwnCompile {
    /// Reads the table of a plugin.
    pub(super) fn read(section: Section<'_>) -> Self {
        Self::given(&section.like(&OWN))
    }

    fn given(section: &Section<'_>) -> Self {
        let given = |key: &'static Key| Some((key, section.given_number(key.name, &key.bounds)?));
        Self(KEYS.iter().filter_map(given).collect())
    }
}

impl fmt::Debug for OwnCompile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(key, number)| (key.name, number))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};

    #[test]
    fn the_nearest_table_that_gives_a_limit_counts() {
        let config = load(
            "[compile]\ncpu_s = 60\ntimeout_s = 90\ncache_days = 7\n[plugins.large.compile]\nfile_mib_max = 128\ncpu_s = 300\n\
             [accounts.main]\ntoken = \"abc\"\n[accounts.main.plugins.large.compile]\ncpu_s = 600",
        );
        let of = |plugin| config.plugin(&config.accounts[0], plugin, false).compile;
        assert_eq!(of("echo"), config.compile);
        assert_eq!((of("echo").cpu_s, of("echo").file_mib_max, config.compile_cache.days), (60, 64, 7));
        assert_eq!((of("large").cpu_s, of("large").timeout_s, of("large").file_mib_max), (600, 90, 128));
    }

    #[test]
    fn a_file_that_accounts_share_gets_the_largest_of_their_limits() {
        let config = load(
            "[accounts.main]\ntoken = \"abc\"\n[accounts.shop]\npath = \"/shop\"\ntoken = \"abc\"\n\
             [accounts.main.plugins.a.compile]\ncpu_s = 600\nmemory_mib = 8192\n\
             [accounts.shop.plugins.a.compile]\nfile_mib_max = 128\ntimeout_s = 900",
        );
        let [main, shop] = [0, 1].map(|index| config.plugin(&config.accounts[index], "a", false).compile);
        let largest = main.clone().largest(&shop);
        assert_eq!(largest, shop.largest(&main));
        assert_eq!(
            (largest.cpu_s, largest.memory_mib, largest.file_mib_max, largest.timeout_s),
            (600, 8_192, 128, 900)
        );
    }

    #[test]
    fn the_cache_is_of_all_plugins() {
        assert_eq!(
            error("[plugins.a.compile]\nmemory_mib = 255\ncache_days = 1\n[accounts.main]\ntoken = \"abc\""),
            "aviary.toml:2: `plugins.a.compile.memory_mib` is 255; it must be a whole number, 256 to 65536\n\
             aviary.toml:3: unknown key `plugins.a.compile.cache_days`; did you mean `compile.cache_days`?"
        );
    }
}
