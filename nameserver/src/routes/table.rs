//! The one owner of the routes: events and time in, [`Changes`] out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::DataVersion;
use escrowmq_common::some_lines;

use super::{
    BrokerGroup, BrokerId, Brokers, Changes, ConnectionId, MinBrokerChange, Origin, Queues, Refused, Registered,
    Registration, RouteTableOptions, TopicChange, TopicRoute, TopicSettings, permission,
};

/// A broker that is believed alive.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) group: Arc<str>,
    pub(super) id: BrokerId,
    /// When it was last heard of, as time since start.
    pub(super) seen: Duration,
    /// The longest time between two signs of life so far.
    pub(super) beat: Duration,
    pub(super) silence_max: Duration,
    pub(super) version: DataVersion,
    pub(super) origin: Origin,
    pub(super) ha_address: Arc<str>,
}

/// Topics, broker groups and their members' signs of life.
///
/// Invariant: each address listed in a group has exactly one entry in `live`, which names that group and that
/// id, and no other address has one. An address stands for one process and is listed once.
///
/// Time is what the caller says: any clock that does not go back, as time since some start.
#[derive(Debug, Default)]
pub struct RouteTable {
    pub(super) options: RouteTableOptions,
    brokers: Arc<Brokers>,
    /// By address.
    pub(super) live: HashMap<Arc<str>, Live>,
    topics: HashMap<Arc<str>, Arc<TopicRoute>>,
    /// The sum of the topics' weights.
    pub(super) weight: usize,
}

impl RouteTable {
    /// An empty table.
    pub fn new(options: RouteTableOptions) -> Self {
        RouteTable { options, ..RouteTable::default() }
    }

    /// The brokers as they are now.
    pub(super) fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// A topic's entry.
    pub(super) fn topic(&self, name: &str) -> Option<&Arc<TopicRoute>> {
        self.topics.get(name)
    }

    /// Changes the options; what was decided stays.
    pub fn set_options(&mut self, options: RouteTableOptions) {
        self.options = options;
    }

    /// A broker describes itself. A registration that is refused changes nothing, but it is a sign of life of the broker
    /// that is listed under its name, if it comes from that one.
    pub fn register(
        &mut self,
        now: Duration,
        broker: Registration,
        changes: &mut Changes,
    ) -> Result<Registered, Refused> {
        let known = self.brokers.group(&broker.group).cloned();
        let brings_topics = brings_topics(known.as_deref(), &broker);
        if let Err(refused) = self.admit(now, known.as_deref(), &broker, brings_topics) {
            if !self.stays(now, broker.origin, &broker.group, &broker.address, broker.id) {
                // As another member, perhaps.
                self.heartbeat(now, broker.origin, &broker.address);
            }
            return Err(refused);
        }

        let min_before = known.as_ref().and_then(|g| g.min_broker()).map(|(id, _)| id);
        let fresh = self.is_fresh(&broker);
        let group = self.list(known.as_deref(), &broker, changes);
        let is_master = broker.id == BrokerId::MASTER;
        if brings_topics {
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

    fn admit(
        &self,
        now: Duration,
        known: Option<&BrokerGroup>,
        broker: &Registration,
        brings_topics: bool,
    ) -> Result<(), Refused> {
        self.claim(now, broker)?;
        let is_held = known.is_some_and(|group| group.addresses.contains_key(&broker.id));
        if !is_held && broker.topics.len() == 1 {
            return Err(Refused::NotYetRegistered);
        }
        self.check_brokers(broker)?;
        if brings_topics { self.check_topics(broker) } else { Ok(()) }
    }

    /// The version of the topics that a broker registered last. A sign of life as well, if that broker asks.
    pub fn query_version(&mut self, now: Duration, origin: Origin, address: &str) -> Option<DataVersion> {
        self.heartbeat(now, origin, address);
        self.live.get(address).map(|live| live.version)
    }

    /// A connection ended; so did the brokers that registered over it last.
    pub fn connection_closed(&mut self, connection: ConnectionId, changes: &mut Changes) {
        let gone = self.addresses_where(|live| live.origin.connection == connection);
        self.drop_brokers(&gone, changes);
    }

    /// Time has passed: drops brokers that were silent for longer than they may be.
    pub fn tick(&mut self, now: Duration, changes: &mut Changes) {
        let gone = self.addresses_where(|live| now.saturating_sub(live.seen) > live.silence_max);
        for address in &gone {
            let live = self.live(address);
            some_lines!(warn, event = "broker_silent", group = %live.group, id = %live.id, %address, "broker fell silent");
            changes.close.push(live.origin.connection);
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

    /// An operator adds queues of a topic by hand. Queues at groups that are not there are left out; answers at how many
    /// groups there are some now.
    pub fn register_topic(
        &mut self,
        topic: &str,
        queues: Vec<Queues>,
        changes: &mut Changes,
    ) -> Result<usize, Refused> {
        let mut route = self.topic_for_change(topic);
        let before = self.topics.get(topic).map_or(0, |route| route.weight());
        let mut put = 0;
        for queues in queues {
            if self.brokers.group(&queues.group).is_some() {
                route.put(queues);
                put += 1;
            }
        }
        self.check_growth(if put == 0 { 0 } else { route.weight().saturating_sub(before) })?;
        self.put_topic(route, changes);
        Ok(put)
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
        let mut addresses = known.map(|g| g.addresses.clone()).unwrap_or_default();
        addresses.retain(|_, a| *a != broker.address);
        let mut group = BrokerGroup {
            name: known.map_or_else(|| broker.group.clone(), |g| g.name.clone()),
            cluster: broker.cluster.clone(),
            zone: broker.zone.clone(),
            acting_master: broker.acting_master.unwrap_or(false),
            addresses,
        };
        // One member among others does not move the whole group elsewhere.
        if let Some(known) = known.filter(|_| group.min_broker().is_some_and(|(min, _)| min < broker.id)) {
            group.cluster = known.cluster.clone();
            group.zone.clone_from(&known.zone);
            group.acting_master = known.acting_master;
        }
        let replaced = group.addresses.insert(broker.id, broker.address.clone());
        if let Some(replaced) = replaced {
            some_lines!(info, event = "broker_replaced", group = %group.name, id = %broker.id, was = %replaced, address = %broker.address, "broker replaced");
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
        if self.options.delete_missing_topics && broker.topics.len() != 1 && !broker.is_part {
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
            some_lines!(info, event = "broker_registered", cluster = %broker.cluster, group = %broker.group, id = %broker.id, address = %broker.address,
                topics = broker.topics.len(), "broker registered"
            );
        }
        let before = self.live.get(&broker.address).map(|live| live.beat.max(now.saturating_sub(live.seen)));
        self.live.insert(
            broker.address,
            Live {
                group: broker.group,
                id: broker.id,
                seen: now,
                beat: before.unwrap_or_default(),
                silence_max: broker.silence_max,
                version: broker.version,
                origin: broker.origin,
                ha_address: broker.ha_address,
            },
        );
    }

    /// The answer that a slave needs: the leader of its group.
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
    pub(super) fn drop_brokers(&mut self, addresses: &[Arc<str>], changes: &mut Changes) {
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
            some_lines!(info, event = "broker_gone", group = %live.group, id = %live.id, %address, "broker gone");
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
        // A new smallest broker is not told about itself, unless it is alone; the loss of one is told to all.
        let all = offline.is_some() || group.addresses.len() == 1;
        let told = group.addresses.iter().filter(|(id, _)| all || **id != min_id);
        changes.notify.push(MinBrokerChange {
            connections: told.map(|(_, address)| self.live(address).origin.connection).collect(),
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
            if let Some(removed) = self.topics.remove(&**route.name()) {
                self.weight -= removed.weight();
                changes.topics.push(TopicChange::Remove(Arc::clone(route.name())));
            }
            return;
        }
        let known = self.topics.get(&**route.name());
        if known.is_some_and(|known| **known == route) {
            return;
        }
        self.weight = self.weight - known.map_or(0, |known| known.weight()) + route.weight();
        let route = Arc::new(route);
        self.topics.insert(Arc::clone(route.name()), Arc::clone(&route));
        changes.topics.push(TopicChange::Put(route));
    }

    fn addresses_where(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Arc<str>> {
        self.live.iter().filter(|(_, live)| wanted(live)).map(|(address, _)| Arc::clone(address)).collect()
    }

    pub(super) fn live(&self, address: &str) -> &Live {
        self.live.get(address).expect("a listed address has a live entry")
    }
}

/// Whether the topics of this registration count: the group's master speaks for it, or else its smallest member.
fn brings_topics(known: Option<&BrokerGroup>, broker: &Registration) -> bool {
    let others = known.into_iter().flat_map(|group| &group.addresses).filter(|(_, a)| **a != broker.address);
    let is_smallest = others.map(|(id, _)| *id).all(|other| broker.id <= other);
    broker.id == BrokerId::MASTER || (is_smallest && broker.acting_master.is_some())
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
        let weight: usize = self.topics.values().map(|route| route.weight()).sum();
        assert_eq!(weight, self.weight, "the weight is that of the topics");
        for (name, route) in &self.topics {
            assert_eq!(name, route.name());
            assert!(!route.queues().is_empty(), "{name} is served by nobody");
            for queues in route.queues() {
                assert!(self.brokers.group(&queues.group).is_some(), "{name} at {} that is gone", queues.group);
            }
        }
    }
}
