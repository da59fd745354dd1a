//! The route table: which broker groups serve which topic, and where their members are.
//!
//! It promises that a lookup sees a broker exactly while that broker is believed alive: from its registration
//! until it unregisters, its connection closes, or it stays silent for longer than it said it would; that nobody but the
//! process that registered says any of that for it, and takes its place only as `claim` allows; and that the table stays
//! below its [`RouteLimits`]. Nothing is written to disk; after a restart the brokers' next registrations fill the table
//! again.
//!
//! ```text
//!   events + time --> RouteTable (one owner, plain) --> Changes --> Routes (shared, read by every lookup)
//! ```
//!
//! [`RouteTable`] decides and has no lock, socket or clock; [`Routes`] is what lookups read: one pointer to the
//! broker groups and a sharded map of topics. A registration of 100,000 topics is applied to it entry by entry,
//! so that a lookup waits for one insertion at most. A topic entry may for a moment name a group that is gone
//! already or miss one that has just come: [`answer`] leaves out what the groups do not know.
//!
//! Parsing requests, answering them, closing connections and telling brokers is left to the server.

pub mod answer;
mod changes;
mod claim;
mod group;
mod json;
mod limits;
mod registration;
mod table;
mod topic;
mod view;

#[cfg(test)]
mod scenarios;

pub use changes::{Changes, MinBrokerChange, RouteTableOptions, TopicChange};
pub use claim::Goodbye;
pub use group::{BrokerGroup, BrokerId, Brokers};
pub use limits::RouteLimits;
pub use registration::{Origin, Refused, Registered, Registration, TopicSettings};
pub use table::RouteTable;
pub use topic::{QueueMapping, Queues, TopicRoute};
pub use view::Routes;

/// The connection over which a broker registered; its end is the broker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// How long a broker may stay silent when its registration does not say: two minutes, four registrations.
pub const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(120);

/// Permission bits of a topic at a broker group, as the protocol numbers them.
pub mod permission {
    /// Producers may send.
    pub const WRITE: i32 = 2;
    /// Consumers may read.
    pub const READ: i32 = 4;
}
