//! Members of groups.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{ConsumeFromWhere, ConsumeType, MessageModel};
use escrowmq_common::frame::Language;
use escrowmq_common::remoting::Connection;

use super::subscription::Subscription;

/// A connection's number, unique while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub u64);

impl ConnectionId {
    /// The number of this connection.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self(connection.id())
    }
}

/// The client's words about itself in each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its id; several connections may have the same.
    pub id: Arc<str>,
    /// The language it is written in.
    pub language: Language,
    /// Its version ordinal.
    pub version: i32,
}

/// One connection in one group.
#[derive(Debug, Clone)]
pub(super) struct Member<C> {
    pub(super) handle: C,
    pub(super) client: Arc<Client>,
    /// Monotonic time of the last heartbeat that named the group.
    pub(super) last_heartbeat: Duration,
    /// For how long that heartbeat counts.
    pub(super) life: Duration,
}

/// A producer as listings and checks see it.
#[derive(Debug, Clone)]
pub(crate) struct ProducerMember {
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it can be reached.
    pub connection: Arc<Connection>,
    /// The language it is written in.
    pub language: Language,
    /// Its version ordinal.
    pub version: i32,
    /// Its last heartbeat, in milliseconds since 1970.
    pub last_heartbeat: i64,
}

/// A consumer as listings and relays see it.
pub(crate) type ConsumerMember = ProducerMember;

/// The way in which a consumer group consumes, as its members said last.
#[derive(Debug, Clone)]
pub(crate) struct GroupView {
    /// Push, pull or pop.
    pub consume_type: ConsumeType,
    /// Shared or broadcast.
    pub message_model: MessageModel,
    /// Where a new group begins.
    pub consume_from_where: ConsumeFromWhere,
    /// Its subscriptions, by topic.
    pub subscriptions: Vec<Arc<Subscription>>,
}
