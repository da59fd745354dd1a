//! Swap and huge pages.

use super::finding::Finding;

/// Of the machine, and of the broker's process where one runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swap {
    /// Bytes of all swap space.
    pub(super) total: u64,
    /// Bytes of it that are in use.
    pub(super) used: u64,
    /// Bytes of the broker that are in it.
    pub(super) of_broker: Option<u64>,
}

impl Swap {
    /// Reads /proc/meminfo, and /proc/PID/status of the broker.
    pub(super) fn parse(meminfo: &str, status: Option<&str>) -> Self {
        let total = kib(meminfo, "SwapTotal:").unwrap_or_default();
        let free = kib(meminfo, "SwapFree:").unwrap_or_default();
        Self { total, used: total.saturating_sub(free), of_broker: status.and_then(|status| kib(status, "VmSwap:")) }
    }
}

/// The bytes in a line such as `SwapTotal:  0 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

const PAUSES: &str = "a broker that waits for its own memory answers late, and a leader may lose its lease";

pub(super) fn swap(swap: Swap) -> Finding {
    const CHECK: &str = "swap";
    const OFF: &str = "give the machine memory, or turn swap off (`swapoff -a`, and out of /etc/fstab; `MemorySwapMax=0` in the unit)";
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match swap {
        Swap { of_broker: Some(bytes @ 1..), .. } => {
            Finding::warning(CHECK, format!("{} MiB of the broker are in swap", mib(bytes)), PAUSES, OFF)
        }
        Swap { total: 0, .. } => Finding::ok(CHECK, "there is none"),
        Swap { used: 0, total, .. } => Finding::ok(CHECK, format!("{} MiB, none in use", mib(total))),
        Swap { used, total, .. } => {
            Finding::note(CHECK, format!("{} of {} MiB are in use", mib(used), mib(total)), PAUSES, OFF)
        }
    }
}

/// `setting` is the text of `/sys/kernel/mm/transparent_hugepage/enabled`, where the system has that.
pub(super) fn huge_pages(setting: Option<&str>) -> Finding {
    const CHECK: &str = "huge-pages";
    let chosen = setting.and_then(|text| text.split('[').nth(1)).and_then(|text| text.split(']').next());
    match chosen {
        Some("always") => Finding::warning(
            CHECK,
            "transparent huge pages are made for everybody (always)",
            "memory that is freed in small pieces stays taken, and making huge pages stalls requests",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, and transparent_hugepage=madvise for the kernel",
        ),
        Some(other) => Finding::ok(CHECK, format!("transparent huge pages: {other}")),
        None => Finding::ok(CHECK, "the system makes no transparent huge pages"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn swap_hurts_when_it_is_used_and_most_by_the_broker() {
        let of = |meminfo: &str, status| swap(Swap::parse(meminfo, status)).verdict;
        let (none, free, used) = (
            "MemTotal: 9 kB\nSwapTotal:       0 kB\nSwapFree:        0 kB\n",
            "SwapTotal:  2048 kB\nSwapFree:   2048 kB\n",
            "SwapTotal:  2048 kB\nSwapFree:   1024 kB\n",
        );
        assert_eq!((of(none, None), of(free, Some("VmSwap:\t       0 kB\n"))), (Verdict::Ok, Verdict::Ok));
        assert_eq!(of(used, Some("VmSwap:\t       0 kB\n")), Verdict::Note);
        assert_eq!(of(used, Some("Name: x\nVmSwap:\t    1024 kB\n")), Verdict::Warning);
        assert_eq!(of("", None), Verdict::Ok);
    }

    #[test]
    fn huge_pages_for_everybody_hurt() {
        assert_eq!(huge_pages(Some("[always] madvise never\n")).verdict, Verdict::Warning);
        assert_eq!(huge_pages(Some("always [madvise] never\n")).verdict, Verdict::Ok);
        assert_eq!(huge_pages(None).verdict, Verdict::Ok);
    }
}
