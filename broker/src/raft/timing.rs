//! Times of a group, each with its reason.
//!
//! ```text
//! leader dies        lease of its followers ends            one of them stands    it leads
//!    |----------- LEASE ------------------|----- sampled -----|--- two round trips ---|
//!    0                                   600 ms         1000 to 1200 ms
//! ```
//!
//! A follower stands for election when it has heard nothing for the lease plus a time that it samples between the two election
//! times; openraft's lease is the larger of them. So a dead leader is replaced after 1.0 to 1.2 s, two round trips and two flushes.

use std::time::Duration;

/// Between heartbeats. Openraft sends one at the first tick after this time, and has five ticks in it (13/64 of it each): 197 ms
/// make 200 ms. Two may be lost within a lease.
pub(super) const HEARTBEAT_MS: u64 = 197;
/// The shortest sampled time. Enough for a vote: two round trips and two flushes of a slow disk.
pub(super) const ELECTION_MIN_MS: u64 = 400;
/// The longest sampled time, and the lease: for so long after a heartbeat nobody votes for another leader. Shorter ones elect
/// when a disk stalls.
pub(super) const ELECTION_MAX_MS: u64 = 600;
/// A leader that hears from no majority is silent for this time, then calls for this time, and so on. A leader that can send and
/// not receive would keep its followers from electing another one otherwise. Openraft asks for two leases at least.
pub(super) const PROBE_MS: u64 = 2 * ELECTION_MAX_MS;

/// The lease.
pub(crate) const LEASE: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// A leader answers reads for this long after a majority heard from it. Shorter than the lease by what clocks may run apart:
/// a sixth.
pub(crate) const READ_LEASE: Duration = Duration::from_millis(ELECTION_MAX_MS * 5 / 6);

/// A leader that handed over, and still leads after this time, lays its term down. The member that was asked waits the shortest
/// election time for its log to be flushed, and is elected within two round trips and a flush; nobody's lease is left by then.
pub(super) const HAND_OVER_PATIENCE: Duration = Duration::from_millis(ELECTION_MIN_MS + ELECTION_MAX_MS);

/// An append that got no answer for this time is given up. Longer than a disk stalls, shorter than TCP takes to find that the
/// other side is gone.
pub(super) const APPEND_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of appends to one member that were not answered. At 1 ms it is enough for 4 GB/s.
pub(super) const APPEND_WINDOW_BYTES: usize = 4 << 20;
/// Appends to one member that were not answered.
pub(super) const APPEND_WINDOW: usize = 64;

const _: () = assert!(ELECTION_MIN_MS > HEARTBEAT_MS && ELECTION_MIN_MS < ELECTION_MAX_MS);
const _: () = assert!(3 * HEARTBEAT_MS <= ELECTION_MAX_MS, "two heartbeats may be lost");
