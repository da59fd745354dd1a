//! The handle that handlers and runners share, and the task that moves its time on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{ConsumerIdList, MessageModel};
use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::NotifyConsumerIdsChangedHeader;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::Shutdown;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::member::{Client, ConnectionId, ConsumerMember, GroupView, Member, ProducerMember};
use super::subscription::Subscription;
use super::table::{Beat, Effects, Table};

/// Most names of joined groups that are kept apart; with more, all groups count as joined.
const JOINED_MAX: usize = 10_000;

/// Producer groups that got a member since the runner of transactions last asked.
#[derive(Debug, Default)]
struct Joined {
    groups: HashSet<Arc<str>>,
    /// More than [`JOINED_MAX`]: which ones is not known.
    all: bool,
}

/// The clients that are connected. Shared by all connections; locks are held for a look or a change, never across a wait.
#[derive(Debug)]
pub(crate) struct ClientRegistry {
    clock: Clock,
    table: RwLock<Table<Arc<Connection>>>,
    joined: Mutex<Joined>,
    producer_joined: Notify,
    /// The table's next tick may have become earlier.
    sooner: Notify,
}

impl ClientRegistry {
    /// Nobody is connected yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            table: RwLock::default(),
            joined: Mutex::default(),
            producer_joined: Notify::new(),
            sooner: Notify::new(),
        }
    }

    /// A client says on this connection that it is there.
    pub(crate) fn heartbeat(&self, connection: &Arc<Connection>, client: &Arc<Client>, beat: &Beat<'_>) {
        let (now, id) = (self.clock.monotonic(), ConnectionId::of(connection));
        self.change(|table| table.heartbeat(now, id, connection, client, beat));
        if !connection.is_open() {
            // It closed before it was entered, so nobody else would remove it.
            self.closed(connection);
        }
    }

    /// A client leaves groups.
    pub(crate) fn unregister(
        &self,
        connection: &Arc<Connection>,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) {
        let (now, id) = (self.clock.monotonic(), ConnectionId::of(connection));
        self.change(|table| table.unregister(now, id, producer_group, consumer_group));
    }

    /// A connection ended.
    pub(crate) fn closed(&self, connection: &Connection) {
        let (now, id) = (self.clock.monotonic(), ConnectionId::of(connection));
        self.change(|table| table.closed(now, id));
    }

    /// Does what time alone brings, and says how long to wait before the next call.
    pub(crate) fn tick(&self) -> Duration {
        let now = self.clock.monotonic();
        self.change(|table| table.tick(now));
        self.table.read().next_tick().saturating_sub(now)
    }

    /// Moves the registry's time on until the broker stops.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        loop {
            // Registered before the look, so that what becomes due earlier meanwhile is not missed.
            let sooner = self.sooner.notified();
            let wait = self.tick();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sooner => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Table<Arc<Connection>>) -> Effects<Arc<Connection>>) {
        let (effects, sooner) = {
            let mut table = self.table.write();
            let before = table.next_tick();
            let effects = change(&mut table);
            (effects, table.next_tick() < before)
        };
        if sooner {
            self.sooner.notify_one();
        }
        for connection in effects.expired {
            connection.close("no heartbeat");
        }
        for notice in effects.notices {
            let header = NotifyConsumerIdsChangedHeader { consumer_group: &notice.group };
            for connection in notice.members {
                let request = Frame::request(request::NOTIFY_CONSUMER_IDS_CHANGED).with_header(&header);
                // A member that cannot be told finds out at its own next rebalance, 20 s later at most.
                if let Err(error) = connection.send_oneway(request) {
                    tracing::debug!(group = %notice.group, %error, "notice of a group change not sent");
                }
            }
        }
        if !effects.joined.is_empty() {
            let mut joined = self.joined.lock();
            for group in effects.joined {
                if joined.groups.len() >= JOINED_MAX {
                    joined.all = true;
                    joined.groups.clear();
                }
                if !joined.all {
                    joined.groups.insert(group);
                }
            }
            drop(joined);
            self.producer_joined.notify_one();
        }
    }

    /// Told when [`take_joined_groups`](Self::take_joined_groups) has something.
    pub(crate) fn producer_joined(&self) -> &Notify {
        &self.producer_joined
    }

    /// The producer groups that got a member since the last call, each once.
    pub(crate) fn take_joined_groups(&self) -> Vec<Arc<str>> {
        let joined = std::mem::take(&mut *self.joined.lock());
        if joined.all {
            return self.table.read().producer_groups().map(|(name, _)| Arc::clone(name)).collect();
        }
        joined.groups.into_iter().collect()
    }

    /// The client id under which a connection is in a producer group.
    pub(crate) fn client_id_of(&self, connection_id: u64, producer_group: &str) -> Option<Arc<str>> {
        let table = self.table.read();
        let member = table.producer_group(producer_group)?.members.get(&ConnectionId(connection_id))?;
        Some(Arc::clone(&member.client.id))
    }

    /// The latest open connection of a client that produces.
    pub(crate) fn producer_connection(&self, client_id: &str) -> Option<Arc<Connection>> {
        let table = self.table.read();
        table.producing(client_id).find(|connection| connection.is_open()).cloned()
    }

    /// The members of a producer group.
    pub(crate) fn producers(&self, group: &str) -> Vec<ProducerMember> {
        let table = self.table.read();
        let members = table.producer_group(group).map(|group| &group.members);
        members.into_iter().flat_map(|members| members.values()).map(|member| self.seen(member)).collect()
    }

    /// All producer groups with their members.
    pub(crate) fn all_producers(&self) -> Vec<(Arc<str>, Vec<ProducerMember>)> {
        let table = self.table.read();
        let groups = table.producer_groups();
        groups
            .map(|(name, group)| (Arc::clone(name), group.members.values().map(|member| self.seen(member)).collect()))
            .collect()
    }

    /// The members of a consumer group.
    pub(crate) fn consumers(&self, group: &str) -> Vec<ConsumerMember> {
        let table = self.table.read();
        let members = table.consumer_group(group).map(|group| &group.members);
        members.into_iter().flat_map(|members| members.values()).map(|member| self.seen(member)).collect()
    }

    /// How many members a consumer group has.
    pub(crate) fn consumer_count(&self, group: &str) -> usize {
        self.table.read().consumer_group(group).map_or(0, |group| group.members.len())
    }

    /// Whether a connection is in a consumer group.
    pub(crate) fn is_consumer(&self, group: &str, connection_id: u64) -> bool {
        let table = self.table.read();
        let id = ConnectionId(connection_id);
        table.consumer_group(group).is_some_and(|group| group.members.contains_key(&id))
    }

    /// The distinct client ids of a consumer group.
    pub(crate) fn consumer_ids(&self, group: &str) -> ConsumerIdList {
        let table = self.table.read();
        let members = table.consumer_group(group).map(|group| &group.members);
        let mut ids: Vec<String> = members
            .into_iter()
            .flat_map(|members| members.values())
            .map(|member| member.client.id.to_string())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ConsumerIdList { consumer_id_list: ids }
    }

    /// How a consumer group consumes; `None` without members.
    pub(crate) fn consumer_group(&self, group: &str) -> Option<GroupView> {
        let table = self.table.read();
        let group = table.consumer_group(group)?;
        Some(GroupView {
            consume_type: group.consume_type,
            message_model: group.message_model,
            consume_from_where: group.consume_from_where,
            subscriptions: group.subscriptions.values().cloned().collect(),
        })
    }

    /// Looks up a group's subscription of a topic for a pull that names `version` of it. Says also whether the group is broadcast
    /// to, and whether a member has named that version.
    pub(crate) fn look_up(&self, group: &str, topic: &str, version: i64) -> SubscriptionLook {
        let table = self.table.read();
        let Some(group) = table.consumer_group(group) else {
            return SubscriptionLook::NoMembers;
        };
        let is_broadcast = group.message_model == MessageModel::Broadcasting;
        let subscription = group.subscriptions.get(topic).cloned();
        SubscriptionLook::Group { is_broadcast, is_heard: group.has_heard(topic, version), subscription }
    }

    /// The subscription of a topic that is in force for a group's members; `None` if there is none.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.table.read().consumer_group(group)?.subscriptions.get(topic).cloned()
    }

    /// The consumer groups whose members subscribed to a topic.
    pub(crate) fn groups_of_topic(&self, topic: &str) -> Vec<Arc<str>> {
        let table = self.table.read();
        let groups = table.consumer_groups().filter(|(_, group)| group.subscriptions.contains_key(topic));
        groups.map(|(name, _)| Arc::clone(name)).collect()
    }

    fn seen(&self, member: &Member<Arc<Connection>>) -> ProducerMember {
        let age = self.clock.monotonic().saturating_sub(member.last_heartbeat);
        ProducerMember {
            client_id: Arc::clone(&member.client.id),
            connection: Arc::clone(&member.handle),
            language: member.client.language,
            version: member.client.version,
            last_heartbeat: self.clock.wall_ms() - age.as_millis() as i64,
        }
    }
}

/// A group as its pull finds it.
#[derive(Debug, Clone)]
pub(crate) enum SubscriptionLook {
    /// No member of the group is connected.
    NoMembers,
    /// The group has members.
    Group {
        /// Whether each member gets all messages.
        is_broadcast: bool,
        /// A heartbeat has named the version that the pull names, or a later one is in force.
        is_heard: bool,
        /// The group's subscription of the topic.
        subscription: Option<Arc<Subscription>>,
    },
}
