//! The one owner of the routes: events and time in, [`Changes`] out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::DataVersion;

use super::{
    BrokerGroup, BrokerId, Brokers, Changes, ConnectionId, MinBrokerChange, Queues, Refused, Registered, Registration,
    RouteTableOptions, TopicChange, TopicRoute, TopicSettings, permission,
};

/// A broker that is believed alive.
#[derive(Debug)]
struct Live {
    group: Arc<str>,
    id: BrokerId,
    /// When it was last heard of, as time since start.
    seen: Duration,
    silence_max: Duration,
    version: DataVersion,
    connection: ConnectionId,
    ha_address: Arc<str>,
}

/// Topics, broker groups and their members' signs of life.
///
/// Invariant: each address listed in a group has exactly one entry in `live`, which names that group and that
/// id, and no other address has one. An address stands for one process and is listed once.
///
/// Time is what the caller says: any clock that does not go back, as time since some start.
#[derive(Debug, Default)]
pub struct RouteTable {
    options: RouteTableOptions,
    brokers: Arc<Brokers>,
    /// By address.
    live: HashMap<Arc<str>, Live>,
    topics: HashMap<Arc<str>, Arc<TopicRoute>>,
}

impl RouteTable {
    /// An empty table.
    pub fn new(options: RouteTableOptions) -> Self {
        RouteTable { options, ..RouteTable::default() }
    }

    /// Changes the options; what was decided stays.
    pub fn set_options(&mut self, options: RouteTableOptions) {
        self.options = options;
    }

    /// A broker describes itself.
    ///
    /// A registration under an id that another address holds with a newer `state_version` comes from a leader
    /// that has been replaced: it changes nothing and is answered as if it had been taken, so that the old
    /// leader finds out from its own group and not by an error here.
    pub fn register(
        &mut self,
        now: Duration,
        broker: Registration,
        changes: &mut Changes,
    ) -> Result<Registered, Refused> {
        let known = self.brokers.group(&broker.group).cloned();
        let holder = known.as_ref().and_then(|g| g.addresses.get(&broker.id));
        if let Some(holder) = holder.filter(|h| **h != broker.address) {
            let newest = self.live(holder).version.state_version;
            if newest > broker.version.state_version {
                tracing::warn!(
                    group = %broker.group, id = %broker.id, address = %broker.address, %holder,
                    "ignored a registration older than that of the id's holder"
                );
                return Ok(Registered::default());
            }
        } else if holder.is_none() && broker.topics.len() == 1 {
            return Err(Refused::NotYetRegistered);
        }

        let min_before = known.as_ref().and_then(|g| g.min_broker()).map(|(id, _)| id);
        let fresh = self.is_fresh(&broker);
        let group = self.list(known.as_deref(), &broker, changes);
        let prime = group.min_broker().is_some_and(|(id, _)| id == broker.id);
        let is_master = broker.id == BrokerId::MASTER;
        if is_master || (prime && broker.acting_master.is_some()) {
            let read_only = !is_master && group.acting_master;
            self.take_topics(&broker, fresh, read_only, changes);
        }

        let lost_master = known.is_some_and(|g| g.has_master()) && !group.has_master();
        if lost_master && group.acting_master {
            self.clean_topics(&[], std::slice::from_ref(&group.name), changes);
        }

        let gained_min = min_before.is_some_and(|before| broker.id < before);
        self.note_alive(now, broker, fresh);
        if gained_min {
            self.notify(&group, None, changes);
        }
        Ok(self.answer_to(&group, is_master))
    }

    /// A sign of life between registrations; one from a broker that is not listed changes nothing.
    pub fn heartbeat(&mut self, now: Duration, address: &str) {
        if let Some(live) = self.live.get_mut(address) {
            live.seen = now;
        }
    }

    /// The version of the topics that a broker registered last; a sign of life as well.
    pub fn query_version(&mut self, now: Duration, address: &str) -> Option<DataVersion> {
        let live = self.live.get_mut(address)?;
        live.seen = now;
        Some(live.version)
    }

    /// A broker says goodbye. One that says so under an id that is no longer its own, over a connection that is
    /// not the registered one, speaks for a process that the address does not stand for any more (a group may
    /// share one address that moves): it is not heard.
    pub fn unregister(&mut self, connection: ConnectionId, address: &str, id: BrokerId, changes: &mut Changes) {
        let Some(live) = self.live.get(address) else {
            return;
        };
        if live.connection != connection && live.id != id {
            tracing::warn!(%address, %id, listed_as = %live.id, "ignored a goodbye for somebody else");
            return;
        }
        self.drop_brokers(&[Arc::from(address)], changes);
    }

    /// A connection ended; so did the brokers that registered over it last.
    pub fn connection_closed(&mut self, connection: ConnectionId, changes: &mut Changes) {
        let gone = self.addresses_where(|live| live.connection == connection);
        self.drop_brokers(&gone, changes);
    }

    /// Time has passed: drops brokers that were silent for longer than they may be.
    pub fn tick(&mut self, now: Duration, changes: &mut Changes) {
        let gone = self.addresses_where(|live| now.saturating_sub(live.seen) > live.silence_max);
        for address in &gone {
            let live = self.live(address);
            tracing::warn!(group = %live.group, id = %live.id, %address, "broker fell silent");
            changes.close.push(live.connection);
        }
        self.drop_brokers(&gone, changes);
    }

    /// Takes the write permission of every topic at the group away, until the broker's topics change; returns
    /// how many topics the group has.
    pub fn wipe_write_permission(&mut self, group: &str, changes: &mut Changes) -> usize {
        self.change_permission(group, changes, |perm| perm & !permission::WRITE)
    }

    /// Gives every topic at the group read and write permission; returns how many topics the group has.
    pub fn add_write_permission(&mut self, group: &str, changes: &mut Changes) -> usize {
        self.change_permission(group, changes, |perm| perm | permission::READ | permission::WRITE)
    }

    /// Forgets a topic, everywhere or in one cluster only. It comes back if a broker still has it and changes.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>, changes: &mut Changes) {
        let Some(entry) = self.topics.get(topic) else {
            return;
        };
        let mut route = TopicRoute::clone(entry);
        match cluster {
            None => route = TopicRoute::new(Arc::clone(entry.name())),
            Some(cluster) => {
                for queues in entry.queues() {
                    if self.brokers.in_cluster(&queues.group, cluster) {
                        route.remove(&queues.group);
                    }
                }
            }
        }
        self.put_topic(route, changes);
    }

    /// An operator adds queues of a topic by hand. Queues at groups that are not there are left out.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<Queues>, changes: &mut Changes) {
        let mut route = self.topic_for_change(topic);
        for queues in queues {
            if self.brokers.group(&queues.group).is_some() {
                route.put(queues);
            }
        }
        self.put_topic(route, changes);
    }

    /// Whether the topics that come with a registration replace what is known: the broker is new, has another
    /// id than before, or its topics changed.
    fn is_fresh(&self, broker: &Registration) -> bool {
        self.live
            .get(&broker.address)
            .is_none_or(|live| live.group != broker.group || live.id != broker.id || live.version != broker.version)
    }

    /// Enters the broker into its group: it leaves any other place it was listed at, and whoever held its id.
    fn list(&mut self, known: Option<&BrokerGroup>, broker: &Registration, changes: &mut Changes) -> Arc<BrokerGroup> {
        let renamed = self.live.get(&broker.address);
        if renamed.is_some_and(|live| live.group != broker.group) {
            self.drop_brokers(std::slice::from_ref(&broker.address), changes);
        }
        let mut group = BrokerGroup {
            name: known.map_or_else(|| broker.group.clone(), |g| g.name.clone()),
            cluster: broker.cluster.clone(),
            zone: broker.zone.clone(),
            acting_master: broker.acting_master.unwrap_or(false),
            addresses: known.map(|g| g.addresses.clone()).unwrap_or_default(),
        };
        group.addresses.retain(|_, a| *a != broker.address);
        let replaced = group.addresses.insert(broker.id, broker.address.clone());
        if let Some(replaced) = replaced {
            tracing::info!(group = %group.name, id = %broker.id, was = %replaced, address = %broker.address, "broker replaced");
            self.live.remove(&replaced);
        }
        if known != Some(&group) {
            Arc::make_mut(&mut self.brokers).put(group);
            changes.brokers = Some(Arc::clone(&self.brokers));
        }
        let listed = self.brokers.group(&broker.group);
        Arc::clone(listed.expect("the group is listed: known and unchanged, or just put"))
    }

    fn take_topics(&mut self, broker: &Registration, fresh: bool, read_only: bool, changes: &mut Changes) {
        for topic in &broker.topics {
            let known = self.topics.get(&*topic.name);
            if !fresh && known.is_some_and(|route| route.at(&broker.group).is_some()) {
                continue;
            }
            let queues = queues_of(topic, &broker.group, read_only);
            if known.is_some_and(|route| route.at(&broker.group) == Some(&queues)) {
                continue;
            }
            let mut route = self.topic_for_change(&topic.name);
            route.put(queues);
            self.put_topic(route, changes);
        }
        for mapping in broker.mappings.iter().filter(|_| fresh) {
            let known = self.topics.get(&*mapping.topic);
            if known.is_some_and(|route| route.mapping(&broker.group) == Some(mapping)) {
                continue;
            }
            let mut route = self.topic_for_change(&mapping.topic);
            route.put_mapping(broker.group.clone(), mapping.clone());
            self.put_topic(route, changes);
        }
        // One topic is a broker that tells what is new, not a broker with a single topic.
        if self.options.delete_missing_topics && broker.topics.len() != 1 {
            self.delete_missing(broker, changes);
        }
    }

    fn delete_missing(&mut self, broker: &Registration, changes: &mut Changes) {
        if !broker.mappings.is_empty() {
            return;
        }
        let named: HashSet<&str> = broker.topics.iter().map(|t| t.name.as_str()).collect();
        let missing = self.topics_at(|group| group == &*broker.group);
        for name in missing.into_iter().filter(|n| !named.contains(&**n)) {
            let mut route = self.topic_for_change(&name);
            route.remove(&broker.group);
            self.put_topic(route, changes);
        }
    }

    fn note_alive(&mut self, now: Duration, broker: Registration, fresh: bool) {
        if fresh {
            tracing::info!(
                cluster = %broker.cluster, group = %broker.group, id = %broker.id, address = %broker.address,
                topics = broker.topics.len(), "broker registered"
            );
        }
        self.live.insert(
            broker.address,
            Live {
                group: broker.group,
                id: broker.id,
                seen: now,
                silence_max: broker.silence_max,
                version: broker.version,
                connection: broker.connection,
                ha_address: broker.ha_address,
            },
        );
    }

    /// What a slave has to know: who leads its group.
    fn answer_to(&self, group: &BrokerGroup, is_master: bool) -> Registered {
        let master = group.addresses.get(&BrokerId::MASTER);
        let master = master.filter(|_| !is_master);
        let Some(master) = master else {
            return Registered::default();
        };
        let live = self.live(master);
        debug_assert_eq!(live.group, group.name, "a listed address names its group");
        Registered { master_address: Some(Arc::clone(master)), ha_address: Some(Arc::clone(&live.ha_address)) }
    }

    /// Takes brokers out of their groups, and groups without members out of the topics.
    fn drop_brokers(&mut self, addresses: &[Arc<str>], changes: &mut Changes) {
        let mut emptied: Vec<Arc<str>> = Vec::new();
        let mut masterless: Vec<Arc<str>> = Vec::new();
        for address in addresses {
            let Some(live) = self.live.remove(address) else {
                continue;
            };
            let listed = self.brokers.group(&live.group);
            let mut group = BrokerGroup::clone(listed.expect("a live broker's group is listed"));
            let was_min = group.min_broker().is_some_and(|(id, _)| id == live.id);
            group.addresses.remove(&live.id);
            tracing::info!(group = %live.group, id = %live.id, %address, "broker gone");
            let brokers = Arc::make_mut(&mut self.brokers);
            changes.brokers = None; // an older picture; the newest follows below
            if group.addresses.is_empty() {
                brokers.remove(&live.group);
                emptied.push(live.group);
                continue;
            }
            if group.acting_master && !group.has_master() {
                masterless.push(live.group);
            }
            brokers.put(group.clone());
            if was_min {
                self.notify(&group, Some(address), changes);
            }
        }
        if !addresses.is_empty() {
            changes.brokers = Some(Arc::clone(&self.brokers));
            self.clean_topics(&emptied, &masterless, changes);
        }
    }

    fn clean_topics(&mut self, emptied: &[Arc<str>], masterless: &[Arc<str>], changes: &mut Changes) {
        if emptied.is_empty() && masterless.is_empty() {
            return;
        }
        let concerned = self.topics_at(|group| emptied.iter().chain(masterless).any(|g| &**g == group));
        for name in concerned {
            let mut route = self.topic_for_change(&name);
            for group in emptied {
                route.remove(group);
            }
            for group in masterless {
                if let Some(queues) = route.at(group).cloned() {
                    let perm = queues.perm & !permission::WRITE;
                    route.put(Queues { perm, ..queues });
                }
            }
            self.put_topic(route, changes);
        }
    }

    fn notify(&self, group: &BrokerGroup, offline: Option<&Arc<str>>, changes: &mut Changes) {
        if !self.options.notify_min_broker || !group.acting_master {
            return;
        }
        let Some((min_id, min_address)) = group.min_broker() else {
            return;
        };
        // Who came knows that it came, unless it is alone; who went concerns everybody.
        let all = offline.is_some() || group.addresses.len() == 1;
        let told = group.addresses.iter().filter(|(id, _)| all || **id != min_id);
        changes.notify.push(MinBrokerChange {
            connections: told.map(|(_, address)| self.live(address).connection).collect(),
            group: Arc::clone(&group.name),
            min_id,
            min_address: Arc::clone(min_address),
            offline_address: offline.cloned(),
            ha_address: offline.is_none().then(|| Arc::clone(&self.live(min_address).ha_address)),
        });
    }

    fn change_permission(&mut self, group: &str, changes: &mut Changes, change: impl Fn(i32) -> i32) -> usize {
        let concerned = self.topics_at(|g| g == group);
        for name in &concerned {
            let mut route = self.topic_for_change(name);
            if let Some(queues) = route.at(group).cloned() {
                let perm = change(queues.perm);
                route.put(Queues { perm, ..queues });
            }
            self.put_topic(route, changes);
        }
        concerned.len()
    }

    /// The names of the topics that have queues at a group that `wanted` accepts.
    fn topics_at(&self, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let has = |route: &TopicRoute| route.queues().iter().any(|q| wanted(&q.group));
        self.topics.values().filter(|route| has(route)).map(|route| Arc::clone(route.name())).collect()
    }

    fn topic_for_change(&self, name: &str) -> TopicRoute {
        self.topics.get(name).map_or_else(|| TopicRoute::new(Arc::from(name)), |route| TopicRoute::clone(route))
    }

    fn put_topic(&mut self, route: TopicRoute, changes: &mut Changes) {
        if route.queues().is_empty() {
            if self.topics.remove(&**route.name()).is_some() {
                changes.topics.push(TopicChange::Remove(Arc::clone(route.name())));
            }
            return;
        }
        let known = self.topics.get(&**route.name());
        if known.is_some_and(|known| **known == route) {
            return;
        }
        let route = Arc::new(route);
        self.topics.insert(Arc::clone(route.name()), Arc::clone(&route));
        changes.topics.push(TopicChange::Put(route));
    }

    fn addresses_where(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Arc<str>> {
        self.live.iter().filter(|(_, live)| wanted(live)).map(|(address, _)| Arc::clone(address)).collect()
    }

    fn live(&self, address: &str) -> &Live {
        self.live.get(address).expect("a listed address has a live entry")
    }
}

fn queues_of(topic: &TopicSettings, group: &Arc<str>, read_only: bool) -> Queues {
    let wiped = if read_only { permission::WRITE } else { 0 };
    Queues {
        group: Arc::clone(group),
        read: topic.read,
        write: topic.write,
        perm: topic.perm & !wiped,
        sys_flag: topic.sys_flag,
    }
}

#[cfg(test)]
impl RouteTable {
    /// Asserts the invariants that the type's documentation names.
    pub(super) fn check(&self) {
        let mut listed = 0;
        for group in self.brokers.groups() {
            assert!(!group.addresses.is_empty(), "{} is empty", group.name);
            for (id, address) in &group.addresses {
                let live = self.live(address);
                assert_eq!((&live.group, live.id), (&group.name, *id), "{address}");
                listed += 1;
            }
        }
        assert_eq!(listed, self.live.len(), "only listed brokers are alive");
        for (name, route) in &self.topics {
            assert_eq!(name, route.name());
            assert!(!route.queues().is_empty(), "{name} is served by nobody");
            for queues in route.queues() {
                assert!(self.brokers.group(&queues.group).is_some(), "{name} at {} that is gone", queues.group);
            }
        }
    }
}
