//! The budget that all connections of a process share: bytes, and connections in all and per address.
//!
//! A connection is charged for the buffers that it really has, in both directions. Charges change when buffers grow and
//! go, not with every frame, so a busy connection does not touch the shared count at all.
//!
//! The more of the bytes are taken, the stricter: see [`Pressure`]. [`SMALL`] bytes in each direction are always granted:
//! decisions, acknowledgements and heartbeats fit into them, so they pass whatever others hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Bytes in each direction that every connection may hold, whatever the others do.
pub(super) const SMALL: usize = 4 * 1024;

/// Requests with large bodies that are parsed at a time, each on a thread for blocking work. More would only compete for
/// the same cores.
pub const LARGE_BODY_PLACES: usize = 4;

/// How much all connections may take together.
#[derive(Clone, Debug)]
pub struct BudgetLimits {
    /// Bytes of unfinished input and unsent output. Default 1 GiB.
    pub bytes: usize,
    /// Connections at a time; further ones are accepted and closed. Default 65,535.
    pub connections: usize,
    /// Connections at a time from one address. Default 50,000: a load balancer may carry all clients there are.
    pub connections_per_address: usize,
}

impl Default for BudgetLimits {
    fn default() -> BudgetLimits {
        BudgetLimits { bytes: 1 << 30, connections: 65_535, connections_per_address: 50_000 }
    }
}

/// Counts, since the start, of what was slowed or refused for want of budget.
#[derive(Debug, Default)]
pub struct BudgetCounts {
    /// Connections taken.
    pub opened: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused_connections: AtomicU64,
    /// Connections closed at once because there were too many from their address.
    pub refused_addresses: AtomicU64,
    /// How often a connection was read no further for a while, for want of bytes or because too many of its requests were
    /// unanswered.
    pub slowed: AtomicU64,
    /// Requests answered as busy without having been looked at.
    pub refused_requests: AtomicU64,
    /// Connections closed because they held bytes that others needed and made no progress.
    pub evicted: AtomicU64,
    /// Connections closed because their peer did not read, or read too slowly.
    pub slow_readers: AtomicU64,
    /// Connections closed for what they sent: undecodable, unfinished, a malformed PROXY header.
    pub bad_input: AtomicU64,
}

/// Adds one to a count.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How far the bytes that a budget gives out are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Less than half.
    None,
    /// From half on: a connection with more than 64 KiB of unsent output is read no further.
    Slow,
    /// From three quarters on: a connection that holds bytes and makes no progress is closed.
    Evict,
    /// All: no connection gets more than [`SMALL`] bytes of new input, or is read while it has so much unsent output.
    Full,
    /// An eighth beyond: large answers are not given.
    Beyond,
}

/// The budget of a process. All its listeners share one.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    /// Bytes that are given out: three quarters of the limit. Buffers grow in steps, and what is written to a connection is
    /// there before it is counted; the last quarter is for that.
    room: usize,
    used: AtomicUsize,
    open: Mutex<Open>,
    counts: BudgetCounts,
    /// Places for requests whose large bodies are parsed away from their connection's task.
    pub(super) large_bodies: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many in all.
    All,
    /// Too many from its address.
    Address,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(BudgetLimits::default())
    }
}

impl Budget {
    /// A budget of which nothing is taken.
    pub fn new(limits: BudgetLimits) -> Budget {
        Budget {
            room: limits.bytes - limits.bytes / 4,
            limits,
            used: AtomicUsize::new(0),
            open: Mutex::default(),
            counts: BudgetCounts::default(),
            large_bodies: Arc::new(Semaphore::new(LARGE_BODY_PLACES)),
        }
    }

    /// A budget that never says no: for the connections that a process opens itself.
    pub fn unlimited() -> Budget {
        const MUCH: usize = usize::MAX / 4;
        Budget::new(BudgetLimits { bytes: MUCH, connections: MUCH, connections_per_address: MUCH })
    }

    /// Its limits.
    pub fn limits(&self) -> &BudgetLimits {
        &self.limits
    }

    /// Bytes that are taken.
    pub fn bytes_used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.open.lock().count
    }

    /// The most connections that one address has.
    pub fn most_of_an_address(&self) -> usize {
        self.open.lock().by_address.values().max().copied().unwrap_or(0)
    }

    /// Counts of events for want of budget.
    pub fn counts(&self) -> &BudgetCounts {
        &self.counts
    }

    pub(super) fn pressure(&self) -> Pressure {
        let (used, all) = (self.bytes_used(), self.room);
        // The usual case first: one look at a value that seldom changes.
        if used < all / 2 {
            Pressure::None
        } else if used < all - all / 4 {
            Pressure::Slow
        } else if used < all {
            Pressure::Evict
        } else if used < all + all / 8 {
            Pressure::Full
        } else {
            Pressure::Beyond
        }
    }

    /// Takes a connection from an address in; it counts as long as the answer lives.
    pub(super) fn admit(self: &Arc<Budget>, address: IpAddr) -> Result<Admitted, Refused> {
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.count >= self.limits.connections {
            count(&self.counts.refused_connections);
            return Err(Refused::All);
        }
        if !open.enter(address, self.limits.connections_per_address) {
            count(&self.counts.refused_addresses);
            return Err(Refused::Address);
        }
        open.count += 1;
        count(&self.counts.opened);
        Ok(Admitted { budget: Arc::clone(self), address })
    }
}

impl Open {
    fn enter(&mut self, address: IpAddr, limit: usize) -> bool {
        let count = self.by_address.get(&address).copied().unwrap_or(0);
        if count >= limit {
            return false;
        }
        self.by_address.insert(address, count + 1);
        true
    }

    fn leave(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// The place of one connection in a budget.
#[derive(Debug)]
pub(super) struct Admitted {
    budget: Arc<Budget>,
    address: IpAddr,
}

impl Admitted {
    /// Counts for another address from now on, unless that has too many.
    pub(super) fn count_for(&mut self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        if address == self.address {
            return Ok(());
        }
        let mut open = self.budget.open.lock();
        if !open.enter(address, self.budget.limits.connections_per_address) {
            count(&self.budget.counts.refused_addresses);
            return Err(Refused::Address);
        }
        open.leave(self.address);
        self.address = address;
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.budget.open.lock();
        open.count -= 1;
        open.leave(self.address);
    }
}

/// Bytes that one buffer takes from a budget. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(budget: &Arc<Budget>) -> Charge {
        Charge { budget: Arc::clone(budget), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves a part of the charge into one of its own.
    pub(super) fn split(&mut self, bytes: usize) -> Charge {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Charge { budget: Arc::clone(&self.budget), bytes }
    }

    /// Sets the charge to what is held already.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Raises the charge, if the budget has so much left.
    pub(super) fn raise(&mut self, to: usize) -> bool {
        let more = to.saturating_sub(self.bytes);
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if more > 0 && before.saturating_add(more) > self.budget.room {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget that gives out this many bytes.
    fn budget(room: usize, connections: usize, connections_per_address: usize) -> Arc<Budget> {
        let bytes = room / 3 * 4 + room % 3;
        Arc::new(Budget::new(BudgetLimits { bytes, connections, connections_per_address }))
    }

    #[test]
    fn charges_are_counted_refused_and_given_back() {
        let budget = budget(1200, 1, 1);
        let (mut one, mut two) = (Charge::new(&budget), Charge::new(&budget));
        assert!(one.raise(600) && two.raise(600));
        assert!(!two.raise(601));
        assert_eq!((two.bytes(), budget.bytes_used()), (600, 1200));
        assert!(one.raise(10), "what it has already");
        assert_eq!(one.bytes(), 600);
        // Bytes that are held already are counted, even beyond the limit.
        two.set(900);
        assert_eq!(budget.bytes_used(), 1500);
        drop(two);
        one.set(1);
        assert_eq!(budget.bytes_used(), 1);
        drop(one);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn a_part_of_a_charge_lives_by_itself() {
        let budget = budget(1200, 1, 1);
        let mut whole = Charge::new(&budget);
        whole.set(1000);
        let part = whole.split(600);
        assert_eq!((whole.bytes(), part.bytes(), budget.bytes_used()), (400, 600, 1000));
        assert_eq!(whole.split(9999).bytes(), 400, "no more than there is");
        assert_eq!(budget.bytes_used(), 600);
        drop(part);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn pressure_rises_with_what_is_taken() {
        let budget = budget(1200, 1, 1);
        let mut charge = Charge::new(&budget);
        for (bytes, pressure) in [
            (0, Pressure::None),
            (599, Pressure::None),
            (600, Pressure::Slow),
            (900, Pressure::Evict),
            (1200, Pressure::Full),
            (1349, Pressure::Full),
            (1350, Pressure::Beyond),
            (5000, Pressure::Beyond),
        ] {
            charge.set(bytes);
            assert_eq!(budget.pressure(), pressure, "{bytes}");
        }
        assert_eq!(Budget::unlimited().pressure(), Pressure::None);
    }

    #[test]
    fn connections_count_for_their_address_and_in_all() {
        let budget = budget(0, 3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let one = budget.admit(a).unwrap();
        // The same address in the other notation.
        let mut two = budget.admit("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(budget.admit(a).unwrap_err(), Refused::Address);
        assert_eq!(budget.most_of_an_address(), 2);
        let three = budget.admit(b).unwrap();
        assert_eq!(budget.admit(b).unwrap_err(), Refused::All);
        // A connection that turns out to come from elsewhere makes room where it was counted before.
        two.count_for(b).unwrap();
        assert_eq!(budget.connections(), 3);
        drop(three);
        drop(one);
        let _more = (budget.admit(a).unwrap(), budget.admit(a).unwrap());
        assert_eq!(two.count_for(a).unwrap_err(), Refused::Address);
        drop(two);
        assert_eq!(budget.connections(), 2);
        assert!(!budget.open.lock().by_address.contains_key(&b), "nothing is kept of an address without connections");
    }
}
