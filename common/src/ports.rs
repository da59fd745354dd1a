//! Free ports for processes that are started on this machine, by a command or by a test.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::clock;

/// Below those that the system gives to outgoing connections and to listeners that ask for any port: nobody takes the port of a
/// process while it is down, and no client connects to itself.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Between two ports. A broker opens a second one, two below its own, for old clients.
const SPACING: u16 = 4;

/// A port that nobody listens at now, nor two below it. A process never gets one twice before it got all of them.
///
/// # Errors
///
/// If all are taken.
pub fn free_port() -> io::Result<u16> {
    static START: OnceLock<u16> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let places = (PORTS.end - PORTS.start) / SPACING;
    // Processes that run at the same time begin at different places.
    let start = *START.get_or_init(|| {
        let seed = u64::from(std::process::id()) * 7_919 + clock::wall_ms().unsigned_abs() * 1_000_003;
        (seed % u64::from(places)) as u16
    });
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let place = || PORTS.start + (start + NEXT.fetch_add(1, Ordering::Relaxed) % places) % places * SPACING;
    let found = (0..places).map(|_| place()).find(|port| is_free(*port) && is_free(*port - 2));
    let none = || io::Error::other(format!("there is no free port between {} and {}", PORTS.start, PORTS.end));
    found.ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_leave_room_for_old_clients() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert!(ports.iter().all(|port| PORTS.contains(port)));
        let mut all: Vec<u16> = ports.iter().flat_map(|port| [*port, *port - 2]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * 50);
    }
}
