//! Broker groups: brokers that share a name and hold the same messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// A member's number in its group. The group's writable member is number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub i64);

impl BrokerId {
    /// The member that takes writes; clients send to no other.
    pub const MASTER: BrokerId = BrokerId(0);
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One broker group as lookups see it. A change makes a new one; readers keep theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerGroup {
    /// The broker name of the protocol.
    pub name: Arc<str>,
    /// The cluster that the latest registration named.
    pub cluster: Arc<str>,
    /// Where the group stands, for clients that ask for brokers near them.
    pub zone: Option<Arc<str>>,
    /// Whether the smallest slave may be shown as master (read only) while there is none.
    pub acting_master: bool,
    /// The live members; never empty in a published group.
    pub addresses: BTreeMap<BrokerId, Arc<str>>,
}

impl BrokerGroup {
    /// Whether somebody takes writes.
    pub fn has_master(&self) -> bool {
        self.addresses.contains_key(&BrokerId::MASTER)
    }

    /// The member with the smallest number.
    pub fn min_broker(&self) -> Option<(BrokerId, &Arc<str>)> {
        self.addresses.first_key_value().map(|(id, addr)| (*id, addr))
    }

    /// The number under which `address` is listed.
    pub fn id_of(&self, address: &str) -> Option<BrokerId> {
        self.addresses.iter().find(|(_, a)| &***a == address).map(|(id, _)| *id)
    }
}

/// All live broker groups by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brokers {
    groups: HashMap<Arc<str>, Arc<BrokerGroup>>,
}

impl Brokers {
    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Arc<BrokerGroup>> {
        self.groups.get(name)
    }

    /// All groups, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<BrokerGroup>> {
        self.groups.values()
    }

    /// The clusters, each with the names of its groups.
    pub fn clusters(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut clusters: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for group in self.groups() {
            clusters.entry(&group.cluster).or_default().insert(&group.name);
        }
        clusters
    }

    /// Whether a group of that name belongs to `cluster`.
    pub fn in_cluster(&self, name: &str, cluster: &str) -> bool {
        self.group(name).is_some_and(|g| &*g.cluster == cluster)
    }

    pub(super) fn put(&mut self, group: BrokerGroup) {
        self.groups.insert(group.name.clone(), Arc::new(group));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.groups.remove(name);
    }
}
