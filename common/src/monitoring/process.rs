//! Figures that every process has, under the names that all clients of Prometheus give them.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::Families;

/// The commit that a program was built from, where the build says so.
const COMMIT: Option<&str> = option_env!("ESCROWMQ_COMMIT");

/// What the kernel says of this process. `None` where there is no `/proc`.
struct Seen {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
    start_seconds: f64,
}

impl Seen {
    fn look() -> Option<Seen> {
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        Seen::read(&fs::read_to_string("/proc/self/stat").ok()?, boot, clock_ticks_per_second(), page_size() as u64)
    }

    /// Reads `/proc/self/stat`. `boot` is when the machine started, in seconds since 1970.
    fn read(stat: &str, boot: f64, ticks: u64, page: u64) -> Option<Seen> {
        // The name of the program is in parentheses, and may hold anything. The field after it is the third one.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let seconds = |field| Some(number(field)? as f64 / ticks as f64);
        Some(Seen {
            cpu_seconds: seconds(14)? + seconds(15)?,
            threads: number(20)?,
            start_seconds: boot + seconds(22)?,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * page,
        })
    }
}

/// The program, its settings and its process. `hash` is that of the settings in force.
pub fn process(families: &mut Families<'_>, program: &str, version: &str, hash: u32) {
    families.gauges(
        "escrowmq_build_info",
        "1, with the program, its version and the commit it was built from.",
        |build| {
            let labels = [("program", program), ("version", version), ("commit", COMMIT.unwrap_or("unknown"))];
            build.gauge(&labels, 1_u64);
        },
    );
    families.gauge(
        "escrowmq_configuration_hash",
        "A number that is another one when any setting in force is another one.",
        hash,
    );
    let (seen, open) = (Seen::look(), fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64));
    let seen = seen.as_ref();
    families.counters("process_cpu_seconds_total", "Processor time, of the system for it too.", |samples| {
        seen.inspect(|seen| samples.counter(&[], seen.cpu_seconds));
    });
    for (name, help, value) in [
        ("process_open_fds", "Open file descriptors.", open),
        ("process_max_fds", "File descriptors that may be open.", getrlimit(Resource::Nofile).current),
        ("process_resident_memory_bytes", "Memory in use.", seen.map(|seen| seen.resident_bytes)),
        ("process_virtual_memory_bytes", "Addresses in use.", seen.map(|seen| seen.virtual_bytes)),
        ("process_threads", "Threads.", seen.map(|seen| seen.threads)),
    ] {
        families.gauges(name, help, |samples| {
            value.inspect(|value| samples.gauge(&[], *value));
        });
    }
    families.gauges("process_start_time_seconds", "When it was started, in seconds since 1970.", |samples| {
        seen.inspect(|seen| samples.gauge(&[], seen.start_seconds));
    });
}

/// A number for settings, given as keys with values.
pub fn configuration_hash<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    for (key, value) in entries {
        for text in [key, "=", &value, "\n"] {
            hash.update(text.as_bytes());
        }
    }
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::text;

    #[test]
    fn the_kernels_line_is_read_whatever_the_program_is_called() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 1000 0 0 0 250 50 0 0 20 0 9 0 1000 4096000 300 18446744073709551615";
        let seen = Seen::read(stat, 1_700_000_000.0, 100, 4096).unwrap();
        assert_eq!((seen.threads, seen.virtual_bytes, seen.resident_bytes), (9, 4_096_000, 300 * 4096));
        assert!((seen.cpu_seconds - 3.0).abs() < 1e-9 && (seen.start_seconds - 1_700_000_010.0).abs() < 1e-9);
        assert!(Seen::read("7 (a) S 1", 0.0, 100, 4096).is_none());
    }

    #[test]
    fn a_running_process_has_all_figures() {
        let page = text(|families| process(families, "broker", "1.2.3", 77));
        assert!(page.contains("escrowmq_build_info{program=\"broker\",version=\"1.2.3\",commit=\""), "{page}");
        assert!(page.contains("escrowmq_configuration_hash 77\n"), "{page}");
        for name in
            ["cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes", "threads", "start_time_seconds"]
        {
            let sample =
                page.lines().find_map(|line| line.strip_prefix("process_")?.strip_prefix(name)?.strip_prefix(' '));
            let value: f64 = sample.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap();
            assert!(value > 0.0 || name == "cpu_seconds_total", "{name} {value}");
        }
    }

    #[test]
    fn the_hash_follows_each_setting() {
        let hash = |a: &str, b: &str| configuration_hash([("a", a.to_owned()), ("b", b.to_owned())].into_iter());
        assert_eq!(hash("1", "2"), hash("1", "2"));
        assert_ne!(hash("1", "2"), hash("2", "1"));
        assert_ne!(hash("1\nb=2", ""), hash("1", "2"));
    }
}
