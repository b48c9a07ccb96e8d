//! What the machine has, and what is left of it.

use std::{fs, path::Path};

/// What is assumed where the system does not say: the smallest machine one would rent.
const MEMORY_BYTES: usize = 1 << 30;

/// Where the groups of the one hierarchy are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Returns how much memory there is for this process: the machine's, or less if its container has less.
pub fn memory_bytes() -> usize {
    least("MemTotal:", |group| bound(Path::new(GROUPS), group, "memory.max")).unwrap_or(MEMORY_BYTES)
}

/// Returns how much memory this machine has left, or its container if that has less, as far as the system tells.
pub fn memory_bytes_left() -> Option<usize> {
    least("MemAvailable:", |group| left(Path::new(GROUPS), group))
}

/// The least of what the machine says of its memory and what this process's groups say.
fn least(fact_of_machine: &str, of_group: impl Fn(&str) -> Option<usize>) -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| fact(&text, fact_of_machine));
    let machine = machine.and_then(|bytes| usize::try_from(bytes).ok());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups_of(&groups).filter_map(of_group).chain(machine).min()
}

/// Whether this process's memory may be put out to disk. Where the system does not say, it may.
pub fn may_swap() -> bool {
    let has_swap = fs::read_to_string("/proc/swaps").map_or(true, |swaps| has_swap(&swaps));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    has_swap && !groups_of(&groups).any(|group| bound(Path::new("/sys/fs/cgroup"), group, "memory.swap.max") == Some(0))
}

/// Tells whether anything is listed below the heading of `/proc/swaps`.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Finds a line such as `MemTotal:  16384000 kB`, and returns bytes.
fn fact(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The process's group of the one hierarchy (`0::/system.slice/aviary.service`), and those above it.
fn groups_of(cgroup: &str) -> impl Iterator<Item = &str> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    std::iter::successors(own, |group| match *group {
        "" => None,
        group => Some(group.rsplit_once('/').map_or("", |(above, _)| above)),
    })
}

/// The group's bound of that name; none if it has none (`max`) or the system keeps it elsewhere.
fn bound(root: &Path, group: &str, name: &str) -> Option<usize> {
    fs::read_to_string(root.join(group).join(name)).ok()?.trim().parse().ok()
}

/// How much the group has left of its bound. What it holds of files that were read makes room for others.
fn left(root: &Path, group: &str) -> Option<usize> {
    let (most, used) = (bound(root, group, "memory.max")?, bound(root, group, "memory.current")?);
    let stat = fs::read_to_string(root.join(group).join("memory.stat")).unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok()).unwrap_or(0);
    Some(most.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read_in_kib() {
        assert_eq!(fact("MemFree:         1 kB\nMemTotal:       16384 kB\n", "MemTotal:"), Some(16 << 20));
        assert_eq!(fact("nothing of the kind", "MemTotal:"), None);
        assert!(memory_bytes() > 0);
    }

    #[test]
    fn a_group_has_left_what_it_does_not_use_and_what_it_holds_of_files() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("memory.current"), "1000\n").unwrap();
        fs::write(group.join("memory.stat"), "anon 600\ninactive_file 300\nactive_file 100\n").unwrap();
        assert_eq!(left(root.path(), "a"), None);
        for (most, is_left) in [("max\n", None), ("1500\n", Some(800)), ("100\n", Some(0))] {
            fs::write(group.join("memory.max"), most).unwrap();
            assert_eq!(left(root.path(), "a"), is_left, "{most}");
        }
    }

    #[test]
    fn a_group_lies_in_others_that_bound_it_too() {
        let groups: Vec<_> = groups_of("0::/system.slice/aviary.service\n").collect();
        assert_eq!(groups, ["system.slice/aviary.service", "system.slice", ""]);
        assert_eq!(groups_of("0::/\n").collect::<Vec<_>>(), [""]);
        assert_eq!(groups_of("1:memory:/old\n").count(), 0);
    }

    #[test]
    fn swap_is_what_is_listed_below_the_heading() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap(heading));
        assert!(has_swap(&format!("{heading}/dev/dm-1                               partition\t8388604\t0\t-2\n")));
    }

    #[test]
    fn a_group_without_a_bound_has_none() {
        let root = tempfile::tempdir().unwrap();
        for (group, text) in [("a", "max\n"), ("b", "1048576\n")] {
            fs::create_dir(root.path().join(group)).unwrap();
            fs::write(root.path().join(group).join("memory.max"), text).unwrap();
        }
        let bounds = ["a", "b", "c"].map(|group| bound(root.path(), group, "memory.max"));
        assert_eq!(bounds, [None, Some(1 << 20), None]);
    }
}
