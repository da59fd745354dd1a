//! Each broker's knowledge of this client, and the abilities that it announced.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The abilities that a broker announces in its answer to a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// It answers `END_TRANSACTION` with the outcome. Apache brokers answer, but nothing one could rely on.
    pub(crate) confirms_decisions: bool,
    /// It joins several halves to one transaction and extends the lease of a transaction that is in progress.
    pub(crate) transactions: bool,
}

/// The last heartbeat that a broker answered.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    /// The connection it went over: membership ends with it.
    connection: u64,
    /// Which state of our groups it reported.
    epoch: u64,
    abilities: Abilities,
}

/// One broker address.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    last: Mutex<Option<Greeting>>,
    /// Held by the one that greets, so that a crowd greets once.
    pub(crate) greeting: tokio::sync::Mutex<()>,
}

impl Broker {
    /// The broker's abilities, if it has answered a heartbeat of the present groups on this connection.
    pub(crate) fn current(&self, connection: u64, epoch: u64) -> Option<Abilities> {
        let last = (*self.last.lock())?;
        (last.connection == connection && last.epoch >= epoch).then_some(last.abilities)
    }

    /// Whether the broker has ever answered a heartbeat.
    pub(crate) fn is_known(&self) -> bool {
        self.last.lock().is_some()
    }

    /// The broker answered a heartbeat that was made at `epoch`. Answers whether it was the first on this connection.
    pub(crate) fn greeted(&self, connection: u64, epoch: u64, abilities: Abilities) -> bool {
        let before = self.last.lock().replace(Greeting { connection, epoch, abilities });
        before.is_none_or(|before| before.connection != connection)
    }
}

/// All broker addresses that a heartbeat went to.
#[derive(Debug, Default)]
pub(crate) struct Brokers {
    by_addr: Mutex<HashMap<Arc<str>, Arc<Broker>>>,
    /// Grows whenever the groups of this client change, so that an older greeting is told from a current one.
    epoch: AtomicU64,
    /// Asks the heartbeat loop for a round before its time.
    pub(crate) greet_soon: Notify,
}

impl Brokers {
    /// The broker at this address.
    pub(crate) fn at(&self, addr: &str) -> Arc<Broker> {
        let mut by_addr = self.by_addr.lock();
        match by_addr.get(addr) {
            Some(broker) => Arc::clone(broker),
            None => Arc::clone(by_addr.entry(addr.into()).or_default()),
        }
    }

    /// The number of the present state of the groups.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The groups changed: every broker must hear of it before it counts as greeted.
    pub(crate) fn groups_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.greet_soon.notify_one();
    }

    /// A connection ended. If a broker knew us by it, it must be greeted again.
    pub(crate) fn connection_lost(&self, connection: u64) {
        let by_addr = self.by_addr.lock();
        let known = by_addr.values().any(|broker| broker.last.lock().is_some_and(|last| last.connection == connection));
        if known {
            self.greet_soon.notify_one();
        }
    }

    /// Every broker that has answered a heartbeat.
    pub(crate) fn greeted(&self) -> Vec<(Arc<str>, Arc<Broker>)> {
        let by_addr = self.by_addr.lock();
        let greeted = by_addr.iter().filter(|(_, broker)| broker.is_known());
        greeted.map(|(addr, broker)| (Arc::clone(addr), Arc::clone(broker))).collect()
    }

    /// The abilities that the broker at the other end of a connection announced; none if no heartbeat went over it.
    pub(crate) fn abilities_on(&self, connection: u64) -> Abilities {
        let by_addr = self.by_addr.lock();
        let mut greetings = by_addr.values().filter_map(|broker| *broker.last.lock());
        let greeting = greetings.find(|last| last.connection == connection);
        greeting.map_or(Abilities::default(), |last| last.abilities)
    }

    /// Forgets the addresses that no route names any more.
    pub(crate) fn retain(&self, addrs: &HashSet<Arc<str>>) {
        self.by_addr.lock().retain(|addr, _| addrs.contains(addr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_holds_for_its_connection_and_its_groups() {
        let brokers = Brokers::default();
        let broker = brokers.at("h:1");
        let able = Abilities { confirms_decisions: true, transactions: true };
        assert_eq!(broker.current(7, brokers.epoch()), None);
        assert!(!broker.is_known());
        assert!(broker.greeted(7, brokers.epoch(), able), "the first one");
        assert!(!broker.greeted(7, brokers.epoch(), able));
        assert_eq!(brokers.at("h:1").current(7, brokers.epoch()), Some(able));
        assert_eq!(broker.current(8, brokers.epoch()), None, "another connection");
        assert!(broker.is_known());
        brokers.groups_changed();
        assert_eq!(broker.current(7, brokers.epoch()), None, "another group");
        assert_eq!(brokers.abilities_on(7), able, "the broker is the same, whatever the groups");
        assert_eq!(brokers.abilities_on(8), Abilities::default());
    }
}
