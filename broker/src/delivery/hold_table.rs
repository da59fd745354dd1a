//! The book-keeping of held pulls: found by number, by deadline and by connection.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::shard::Ticket;

/// Names one held pull; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HoldId(u64);

#[derive(Debug)]
struct Held<T> {
    pull: T,
    connection: u64,
    until: Duration,
    ticket: Option<Ticket>,
}

/// Held pulls. Each comes out once, to the first that takes it.
#[derive(Debug)]
pub(crate) struct HoldTable<T> {
    holds: HashMap<HoldId, Held<T>>,
    deadlines: BTreeSet<(Duration, HoldId)>,
    connections: BTreeSet<(u64, HoldId)>,
    /// How many each connection has, of those that have any.
    counts: HashMap<u64, usize>,
    next: u64,
}

impl<T> Default for HoldTable<T> {
    fn default() -> Self {
        Self {
            holds: HashMap::new(),
            deadlines: BTreeSet::new(),
            connections: BTreeSet::new(),
            counts: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> HoldTable<T> {
    /// Holds a pull of a connection until a time.
    pub(crate) fn insert(&mut self, pull: T, connection: u64, until: Duration) -> HoldId {
        let id = HoldId(self.next);
        self.next += 1;
        self.holds.insert(id, Held { pull, connection, until, ticket: None });
        self.deadlines.insert((until, id));
        self.connections.insert((connection, id));
        *self.counts.entry(connection).or_default() += 1;
        id
    }

    /// Remembers how the pull is registered at its queue. Says whether it is still held.
    pub(crate) fn set_ticket(&mut self, id: HoldId, ticket: Ticket) -> bool {
        let held = self.holds.get_mut(&id);
        held.map(|held| held.ticket = Some(ticket)).is_some()
    }

    /// Takes a pull out, with its registration.
    pub(crate) fn take(&mut self, id: HoldId) -> Option<(T, Option<Ticket>)> {
        let held = self.holds.remove(&id)?;
        self.deadlines.remove(&(held.until, id));
        self.connections.remove(&(held.connection, id));
        if let Entry::Occupied(mut count) = self.counts.entry(held.connection) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some((held.pull, held.ticket))
    }

    /// Takes out one pull whose time is over.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(T, Option<Ticket>)> {
        let (until, id) = *self.deadlines.first()?;
        if until > now {
            return None;
        }
        self.take(id)
    }

    /// Takes out one pull of a connection.
    pub(crate) fn take_of(&mut self, connection: u64) -> Option<(T, Option<Ticket>)> {
        let from = (connection, HoldId(0));
        let (of, id) = *self.connections.range(from..).next()?;
        if of == connection { self.take(id) } else { None }
    }

    /// How many a connection has.
    pub(crate) fn count_of(&self, connection: u64) -> usize {
        self.counts.get(&connection).copied().unwrap_or(0)
    }

    /// When the next pull's time is over.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.holds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_pull_comes_out_once() {
        let mut table = HoldTable::default();
        let a = table.insert("a", 1, SECOND * 2);
        let b = table.insert("b", 1, SECOND);
        assert_eq!(table.next_deadline(), Some(SECOND));
        assert_eq!(table.take(a).map(|(pull, _)| pull), Some("a"));
        assert!(table.take(a).is_none());
        assert_eq!(table.take_due(SECOND).map(|(pull, _)| pull), Some("b"));
        assert!(table.take(b).is_none());
        assert!(
            table.holds.is_empty()
                && table.deadlines.is_empty()
                && table.connections.is_empty()
                && table.counts.is_empty()
        );
    }

    #[test]
    fn time_takes_the_earliest_first_and_nothing_early() {
        let mut table = HoldTable::default();
        table.insert("late", 1, SECOND * 3);
        table.insert("early", 2, SECOND);
        table.insert("same time", 3, SECOND);
        assert!(table.take_due(Duration::ZERO).is_none());
        let due: Vec<&str> = std::iter::from_fn(|| table.take_due(SECOND * 2)).map(|(pull, _)| pull).collect();
        assert_eq!(due, ["early", "same time"]);
        assert_eq!(table.next_deadline(), Some(SECOND * 3));
    }

    #[test]
    fn a_closed_connection_takes_its_own_and_no_other() {
        let mut table = HoldTable::default();
        for connection in [1, 2, 2, 3] {
            table.insert(connection, connection, SECOND);
        }
        assert_eq!((table.count_of(1), table.count_of(2), table.count_of(9)), (1, 2, 0));
        let gone: Vec<u64> = std::iter::from_fn(|| table.take_of(2)).map(|(pull, _)| pull).collect();
        assert_eq!(gone, [2, 2]);
        assert!(table.take_of(0).is_none());
        assert_eq!(table.count_of(2), 0);
        assert_eq!(table.len(), 2);
    }
}
