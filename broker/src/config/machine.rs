//! The machine's name, addresses and memory, for defaults.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use escrowmq_common::net::outgoing_ip;

/// The name of the machine; `broker-a` where it has none.
pub(super) fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    if name.is_empty() { "broker-a".to_owned() } else { name.into_owned() }
}

/// The address that packets to other machines carry; the loopback address without a network.
pub(super) fn address() -> IpAddr {
    outgoing_ip().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// The default of `connectionBytesMax`: a quarter of the memory that this process may use, 64 MiB to 1 GiB.
pub(super) fn connection_bytes() -> usize {
    const LEAST: u64 = 64 << 20;
    const MOST: u64 = 1 << 30;
    (memory().unwrap_or(4 * MOST) / 4).clamp(LEAST, MOST) as usize
}

/// Bytes of the machine's memory, or of what a container may use of it.
fn memory() -> Option<u64> {
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse().ok());
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(limit.unwrap_or(u64::MAX).min(kib * 1024))
}

/// The user's own folder, if the environment or the list of users names one.
pub(super) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}
