//! Decides about membership, and about the members that must hear of a change.
//!
//! Holds no socket, clock or lock. `C` is how a connection is reached; tests use a number.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel};

use super::heard::{self, Heard, Moment};
use super::member::{Client, ConnectionId, Member};
use super::subscription::Subscription;

/// A member that was silent for this long has left, unless the settings say otherwise.
pub(crate) const MEMBER_LIFE: Duration = Duration::from_secs(120);
/// How often silent members are looked for.
pub(crate) const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two notices to the same group. A restart of a large group makes each member join alone; without
/// a gap every one of them would hear of every other.
pub(crate) const NOTICE_GAP: Duration = Duration::from_millis(200);
/// Clients below this version do not know the notice.
const NOTICE_VERSION_MIN: i32 = 28;

/// One consumer group in one heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsumerBeat<'a> {
    /// The client's own words.
    pub data: &'a ConsumerData,
    /// Whether the group's settings let its members hear of changes.
    pub notify: bool,
}

/// One heartbeat: all groups of a client.
#[derive(Debug, Clone)]
pub(crate) struct Beat<'a> {
    /// Its producer groups.
    pub producers: Vec<&'a str>,
    /// Its consumer groups.
    pub consumers: Vec<ConsumerBeat<'a>>,
    /// The client left its subscriptions out because it believes that they are known.
    pub without_subscriptions: bool,
    /// For how long it counts.
    pub life: Duration,
    /// When it came by the broker's wall clock, in milliseconds since 1970: subscriptions that claim to be of later than that
    /// have a wrong clock.
    pub wall_ms: i64,
}

impl Default for Beat<'_> {
    fn default() -> Self {
        Self {
            producers: Vec::new(),
            consumers: Vec::new(),
            without_subscriptions: false,
            life: MEMBER_LIFE,
            wall_ms: i64::MAX,
        }
    }
}

/// Members that must hear that their group changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice<C> {
    /// The group.
    pub group: Arc<str>,
    /// Its members that understand the notice.
    pub members: Vec<C>,
}

/// The acts that follow from a change.
#[derive(Debug)]
pub(crate) struct Effects<C> {
    /// Groups that changed, each with whom to tell.
    pub notices: Vec<Notice<C>>,
    /// Connections to close: nothing was heard of them for their life.
    pub expired: Vec<C>,
    /// Producer groups that got a new member: halves that waited for an instance may go on.
    pub joined: Vec<Arc<str>>,
}

impl<C> Default for Effects<C> {
    fn default() -> Self {
        Self { notices: Vec::new(), expired: Vec::new(), joined: Vec::new() }
    }
}

#[derive(Debug)]
pub(super) struct ProducerGroup<C> {
    pub(super) members: BTreeMap<ConnectionId, Member<C>>,
}

#[derive(Debug)]
pub(super) struct ConsumerGroup<C> {
    pub(super) members: BTreeMap<ConnectionId, Member<C>>,
    pub(super) consume_type: ConsumeType,
    pub(super) message_model: MessageModel,
    pub(super) consume_from_where: ConsumeFromWhere,
    /// One table for the whole group: each full heartbeat of any member may change it.
    pub(super) subscriptions: HashMap<Arc<str>, Arc<Subscription>>,
    /// The subscriptions that members named, for each topic in that table.
    heard: HashMap<Arc<str>, Heard>,
    notify: bool,
    last_notice: Option<Duration>,
    notice_is_due: bool,
}

/// The groups of one connection.
#[derive(Debug)]
struct Memberships<C> {
    handle: C,
    /// Of the last heartbeat.
    client: Arc<str>,
    producers: HashSet<Arc<str>>,
    consumers: HashSet<Arc<str>>,
}

/// All groups and their members.
#[derive(Debug)]
pub(crate) struct Table<C> {
    producers: HashMap<Arc<str>, ProducerGroup<C>>,
    consumers: HashMap<Arc<str>, ConsumerGroup<C>>,
    connections: HashMap<ConnectionId, Memberships<C>>,
    /// Connections with at least one producer group by client id, the latest last.
    producing: HashMap<Arc<str>, Vec<ConnectionId>>,
    /// Notices that wait for their gap to pass.
    due: BTreeSet<(Duration, Arc<str>)>,
    next_scan: Duration,
    /// When the first heartbeat came.
    began: Option<Duration>,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self {
            producers: HashMap::new(),
            consumers: HashMap::new(),
            connections: HashMap::new(),
            producing: HashMap::new(),
            due: BTreeSet::new(),
            next_scan: SCAN_INTERVAL,
            began: None,
        }
    }
}

impl<C: Clone> Table<C> {
    /// A client says that it is there, and with what.
    pub(crate) fn heartbeat(
        &mut self,
        now: Duration,
        id: ConnectionId,
        handle: &C,
        client: &Arc<Client>,
        beat: &Beat<'_>,
    ) -> Effects<C> {
        let mut effects = Effects::default();
        self.keep_connection(id, handle, client);
        let since_start = now.saturating_sub(*self.began.get_or_insert(now));
        let moment = Moment { since_start, wall_ms: beat.wall_ms };
        let member =
            Member { handle: handle.clone(), client: Arc::clone(client), last_heartbeat: now, life: beat.life };
        for name in &beat.producers {
            self.producer_beat(id, &member, name, &mut effects);
        }
        for consumer in &beat.consumers {
            let moment = (!beat.without_subscriptions).then_some(moment);
            self.consumer_beat(id, &member, consumer, moment, &mut effects);
        }
        self.forget_if_idle(id);
        effects
    }

    /// A client leaves groups; its connection stays.
    pub(crate) fn unregister(
        &mut self,
        now: Duration,
        id: ConnectionId,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Effects<C> {
        let mut effects = Effects::default();
        if let Some(group) = producer_group {
            self.leave_producers(id, group);
        }
        if let Some(group) = consumer_group {
            self.leave_consumers(now, id, group, &mut effects);
        }
        self.forget_if_idle(id);
        effects
    }

    /// A connection ended: it leaves all its groups.
    pub(crate) fn closed(&mut self, now: Duration, id: ConnectionId) -> Effects<C> {
        let mut effects = Effects::default();
        let Some(connection) = self.connections.get(&id) else {
            return effects;
        };
        let producers: Vec<_> = connection.producers.iter().cloned().collect();
        let consumers: Vec<_> = connection.consumers.iter().cloned().collect();
        for group in producers {
            self.leave_producers(id, &group);
        }
        for group in consumers {
            self.leave_consumers(now, id, &group, &mut effects);
        }
        self.forget_if_idle(id);
        effects
    }

    /// Time has passed: sends the notices that waited, and removes members that were silent for too long.
    pub(crate) fn tick(&mut self, now: Duration) -> Effects<C> {
        let mut effects = Effects::default();
        // Removals first: nobody who just left is told.
        if now >= self.next_scan {
            self.next_scan = now + SCAN_INTERVAL;
            self.expire(now, &mut effects);
        }
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, group)) = self.due.pop_first() else {
                break;
            };
            if let Some(state) = self.consumers.get_mut(&group) {
                state.notice_is_due = false;
                state.last_notice = Some(now);
                effects.notices.push(notice(&group, state));
            }
        }
        effects
    }

    /// When the next [`tick`](Self::tick) has something to do.
    pub(crate) fn next_tick(&self) -> Duration {
        self.due.first().map_or(self.next_scan, |(at, _)| (*at).min(self.next_scan))
    }

    fn expire(&mut self, now: Duration, effects: &mut Effects<C>) {
        let is_silent = |member: &Member<C>| now.saturating_sub(member.last_heartbeat) > member.life;
        let mut producers = Vec::new();
        for (group, state) in &self.producers {
            let silent = state.members.iter().filter(|(_, member)| is_silent(member));
            producers.extend(silent.map(|(id, _)| (Arc::clone(group), *id)));
        }
        let mut consumers = Vec::new();
        for (group, state) in &self.consumers {
            let silent = state.members.iter().filter(|(_, member)| is_silent(member));
            consumers.extend(silent.map(|(id, _)| (Arc::clone(group), *id)));
        }
        let touched: BTreeSet<ConnectionId> = producers.iter().chain(&consumers).map(|(_, id)| *id).collect();
        for (group, id) in producers {
            self.leave_producers(id, &group);
        }
        let mut changed = BTreeSet::new();
        for (group, id) in consumers {
            if self.remove_consumer(id, &group) {
                changed.insert(group);
            }
        }
        for group in changed {
            self.changed(now, &group, effects);
        }
        // A client that dropped one of its groups without a word still speaks for the others: only a connection that
        // has nothing left is closed.
        for id in touched {
            if let Some(connection) = self.forget_if_idle(id) {
                effects.expired.push(connection);
            }
        }
    }

    fn keep_connection(&mut self, id: ConnectionId, handle: &C, client: &Arc<Client>) {
        let connection = self.connections.entry(id).or_insert_with(|| Memberships {
            handle: handle.clone(),
            client: Arc::clone(&client.id),
            producers: HashSet::new(),
            consumers: HashSet::new(),
        });
        if connection.client != client.id {
            let before = std::mem::replace(&mut connection.client, Arc::clone(&client.id));
            if !connection.producers.is_empty() {
                remove_producing(&mut self.producing, &before, id);
                self.producing.entry(Arc::clone(&client.id)).or_default().push(id);
            }
        }
    }

    /// Drops a connection without groups and says so.
    fn forget_if_idle(&mut self, id: ConnectionId) -> Option<C> {
        let connection = self.connections.get(&id)?;
        if connection.producers.is_empty() && connection.consumers.is_empty() {
            return self.connections.remove(&id).map(|connection| connection.handle);
        }
        None
    }

    fn producer_beat(&mut self, id: ConnectionId, member: &Member<C>, name: &str, effects: &mut Effects<C>) {
        let (name, group) = group_entry(&mut self.producers, name, || ProducerGroup { members: BTreeMap::new() });
        if group.members.insert(id, member.clone()).is_none() {
            let connection = self.connections.get_mut(&id).expect("kept at the heartbeat's begin");
            if connection.producers.is_empty() {
                self.producing.entry(Arc::clone(&connection.client)).or_default().push(id);
            }
            connection.producers.insert(Arc::clone(&name));
            effects.joined.push(name);
        }
    }

    fn consumer_beat(
        &mut self,
        id: ConnectionId,
        member: &Member<C>,
        beat: &ConsumerBeat<'_>,
        subscribes: Option<Moment>,
        effects: &mut Effects<C>,
    ) {
        let data = beat.data;
        let (name, group) = group_entry(&mut self.consumers, &data.group_name, || ConsumerGroup {
            members: BTreeMap::new(),
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
            subscriptions: HashMap::new(),
            heard: HashMap::new(),
            notify: beat.notify,
            last_notice: None,
            notice_is_due: false,
        });
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        group.notify = beat.notify;
        let joined = group.members.insert(id, member.clone()).is_none();
        let topics_changed = subscribes.is_some_and(|moment| group.replace_subscriptions(data, moment));
        if joined {
            let connection = self.connections.get_mut(&id).expect("kept at the heartbeat's begin");
            connection.consumers.insert(Arc::clone(&name));
        }
        if joined || topics_changed {
            self.changed(member.last_heartbeat, &name, effects);
        }
    }

    fn leave_producers(&mut self, id: ConnectionId, name: &str) {
        let Some(group) = self.producers.get_mut(name) else {
            return;
        };
        if group.members.remove(&id).is_none() {
            return;
        }
        if group.members.is_empty() {
            self.producers.remove(name);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.producers.remove(name);
            if connection.producers.is_empty() {
                remove_producing(&mut self.producing, &connection.client, id);
            }
        }
    }

    fn leave_consumers(&mut self, now: Duration, id: ConnectionId, name: &str, effects: &mut Effects<C>) {
        if self.remove_consumer(id, name) {
            self.changed(now, name, effects);
        }
    }

    /// Takes a member out. Says whether it was one; the group may be gone with it.
    fn remove_consumer(&mut self, id: ConnectionId, name: &str) -> bool {
        let Some(group) = self.consumers.get_mut(name) else {
            return false;
        };
        if group.members.remove(&id).is_none() {
            return false;
        }
        if group.members.is_empty() {
            self.consumers.remove(name);
            self.due.retain(|(_, waiting)| **waiting != *name);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.consumers.remove(name);
        }
        true
    }

    /// The members of a group must hear of a change: now, or when the gap since the last notice has passed.
    fn changed(&mut self, now: Duration, name: &str, effects: &mut Effects<C>) {
        let Some((name, group)) = self.consumers.get_key_value(name) else {
            return;
        };
        let name = Arc::clone(name);
        if !group.notify || group.message_model == MessageModel::Broadcasting || group.notice_is_due {
            return;
        }
        let at = group.last_notice.map_or(now, |last| last + NOTICE_GAP);
        let group = self.consumers.get_mut(&name).expect("found above");
        if at > now {
            group.notice_is_due = true;
            self.due.insert((at, name));
        } else {
            group.last_notice = Some(now);
            effects.notices.push(notice(&name, group));
        }
    }
}

impl<C> Table<C> {
    pub(super) fn producer_group(&self, name: &str) -> Option<&ProducerGroup<C>> {
        self.producers.get(name)
    }

    pub(super) fn consumer_group(&self, name: &str) -> Option<&ConsumerGroup<C>> {
        self.consumers.get(name)
    }

    pub(super) fn producer_groups(&self) -> impl Iterator<Item = (&Arc<str>, &ProducerGroup<C>)> {
        self.producers.iter()
    }

    pub(super) fn consumer_groups(&self) -> impl Iterator<Item = (&Arc<str>, &ConsumerGroup<C>)> {
        self.consumers.iter()
    }

    /// The latest connection of a client that produces.
    pub(super) fn producing(&self, client: &str) -> impl Iterator<Item = &C> {
        let ids = self.producing.get(client).into_iter().flatten().rev();
        ids.filter_map(|id| self.connections.get(id)).map(|connection| &connection.handle)
    }
}

impl<C> ConsumerGroup<C> {
    /// Whether a member has named a subscription of this version: the one of a client whose heartbeat is still on its way has
    /// not been heard.
    pub(super) fn has_heard(&self, topic: &str, version: i64) -> bool {
        let current = self.subscriptions.get(topic).is_some_and(|known| known.data.sub_version >= version);
        current || self.heard.get(topic).is_some_and(|heard| heard.knows(version))
    }

    /// Takes over what a heartbeat subscribes to. Says whether the set of topics changed.
    fn replace_subscriptions(&mut self, data: &ConsumerData, moment: Moment) -> bool {
        let mut changed = false;
        let room = heard::room(data.subscription_data_set.len());
        for subscription in &data.subscription_data_set {
            let topic = subscription.topic.as_str();
            let known = self.subscriptions.get_key_value(topic).map(|(topic, _)| Arc::clone(topic));
            let topic = known.unwrap_or_else(|| Arc::from(topic));
            if self.heard.entry(Arc::clone(&topic)).or_default().hear(subscription, moment, room) {
                let subscription = Arc::new(Subscription::new(subscription.clone()));
                changed |= self.subscriptions.insert(topic, subscription).is_none();
            }
        }
        let named: HashSet<&str> =
            data.subscription_data_set.iter().map(|subscription| subscription.topic.as_str()).collect();
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| named.contains(&**topic));
        self.heard.retain(|topic, _| named.contains(&**topic));
        changed || self.subscriptions.len() != before
    }
}

fn notice<C: Clone>(name: &Arc<str>, group: &ConsumerGroup<C>) -> Notice<C> {
    let members = group.members.values().filter(|member| member.client.version >= NOTICE_VERSION_MIN);
    Notice { group: Arc::clone(name), members: members.map(|member| member.handle.clone()).collect() }
}

/// The group of this name, made if it is new. A known name is not allocated again.
fn group_entry<'a, G>(
    groups: &'a mut HashMap<Arc<str>, G>,
    name: &str,
    make: impl FnOnce() -> G,
) -> (Arc<str>, &'a mut G) {
    let name = groups.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known));
    let group = groups.entry(Arc::clone(&name)).or_insert_with(make);
    (name, group)
}

fn remove_producing(producing: &mut HashMap<Arc<str>, Vec<ConnectionId>>, client: &str, id: ConnectionId) {
    if let Some(ids) = producing.get_mut(client) {
        ids.retain(|each| *each != id);
        if ids.is_empty() {
            producing.remove(client);
        }
    }
}

#[cfg(test)]
mod tests;
