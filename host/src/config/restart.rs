//! Which settings count only after a restart: they shape what is built once, when the host starts.

use super::Config;

/// Says whether a setting differs between two configurations.
type Differs = fn(&Config, &Config) -> bool;

static AFTER_RESTART: [(&str, Differs); 12] = [
    ("listen", |old, new| old.listen != new.listen),
    ("data_dir", |old, new| old.data_dir != new.data_dir),
    ("listener.header_timeout_ms", |old, new| old.listener.header_timeout != new.listener.header_timeout),
    ("listener.connections_max", |old, new| old.listener.connections_max != new.listener.connections_max),
    ("listener.shutdown_ms", |old, new| old.listener.shutdown != new.listener.shutdown),
    ("log.level", |old, new| old.log.level != new.log.level),
    ("log.format", |old, new| old.log.format != new.log.format),
    ("log.user", |old, new| old.log.user != new.log.user),
    ("engine.instances_max", |old, new| old.engine.instances_max != new.engine.instances_max),
    ("compile.memory_mib", |old, new| old.compile.memory_mib != new.compile.memory_mib),
    ("compile.cpu_s", |old, new| old.compile.cpu_s != new.compile.cpu_s),
    ("compile.timeout_s", |old, new| old.compile.timeout_s != new.compile.timeout_s),
];

/// Returns the keys that were changed and count only after a restart.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    AFTER_RESTART.iter().filter(|(_, differs)| differs(old, new)).map(|(key, _)| *key).collect()
}
