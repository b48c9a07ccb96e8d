//! Which settings count only after a restart: they shape what is built once, when the host starts.

use super::Config;

/// Says whether a setting differs between two configurations.
type Differs = fn(&Config, &Config) -> bool;

static AFTER_RESTART: [(&str, Differs); 15] = [
    ("listen", |old, new| old.listen != new.listen),
    ("admin_listen", |old, new| old.admin_listen != new.admin_listen),
    ("data_dir", |old, new| old.data_dir != new.data_dir),
    ("cache_dir", |old, new| old.cache_dir != new.cache_dir),
    ("listener.header_bytes_max", |old, new| old.listener.header_bytes_max != new.listener.header_bytes_max),
    ("listener.header_timeout_ms", |old, new| old.listener.header_timeout != new.listener.header_timeout),
    ("listener.idle_timeout_ms", |old, new| old.listener.idle_timeout != new.listener.idle_timeout),
    ("listener.connections_max", |old, new| old.listener.connections_max != new.listener.connections_max),
    ("listener.shutdown_ms", |old, new| old.listener.shutdown != new.listener.shutdown),
    ("log.level", |old, new| old.log.level != new.log.level),
    ("log.format", |old, new| old.log.format != new.log.format),
    ("log.user", |old, new| old.log.user != new.log.user),
    ("engine.instances_max", |old, new| old.engine.instances_max != new.engine.instances_max),
    ("engine.stack_kib", |old, new| old.engine.stack_kib != new.engine.stack_kib),
    ("engine.pagemap_scan", |old, new| old.engine.pagemap_scan != new.engine.pagemap_scan),
];

/// Returns the keys that were changed and count only after a restart.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    AFTER_RESTART.iter().filter(|(_, differs)| differs(old, new)).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{defaults, fixture::load};

    #[test]
    fn what_counts_at_once_needs_no_restart() {
        let old = load("[accounts.main]\ntoken = \"abc\"");
        let new = load("[accounts.main]\ntoken = \"def\"\n[late]\nwindow_ms = 100\n[dedupe]\nkeys_max = 1000");
        // Two directories: `data_dir` stands beside each main file.
        assert_eq!(needs_restart(&old, &new), ["data_dir", "cache_dir"]);
        assert_eq!(needs_restart(&old, &old), [""; 0]);
    }

    #[test]
    fn what_is_built_once_needs_a_restart() {
        let old = load("[accounts.main]\ntoken = \"abc\"");
        let new = Config {
            file: old.file.clone(),
            data_dir: old.data_dir.clone(),
            cache_dir: old.cache_dir.clone(),
            ..load(
                "listen = \"127.0.0.1:0\"\n[accounts.main]\ntoken = \"abc\"\n[engine]\n\
                 instances_max = 7\n[log]\nformat = \"json\"",
            )
        };
        assert_eq!(needs_restart(&old, &new), ["listen", "log.format", "engine.instances_max"]);
    }

    #[test]
    fn defaults_toml_says_of_the_same_settings_that_they_count_after_a_restart() {
        let documented =
            defaults::documented().into_iter().filter(|(_, text)| text.contains("Counts after a restart."));
        let mut documented: Vec<_> = documented.map(|(key, _)| key).collect();
        let mut known: Vec<_> = AFTER_RESTART.iter().map(|(key, _)| key.to_string()).collect();
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
    }
}
