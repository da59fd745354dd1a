//! Which producers and consumers are connected, and what the consumers subscribed to.
//!
//! ```text
//!  heartbeat, unregister, connection closed, time --> Table --> members to tell, connections to close, groups that came back
//!                                                       ^
//!  pulls, checks, listings ------- ClientRegistry ------+
//! ```
//!
//! [`Table`] decides and holds no socket; [`ClientRegistry`] is the handle that everybody shares and that carries out
//! what the table says. Membership is in memory alone: after a restart clients send their heartbeats again.
//!
//! Promises: a member is one connection, and nothing of it is left when the connection ends; a group's other members
//! hear of a change at once, and of further changes within [`NOTICE_GAP`] as one; a group has the subscriptions that its members
//! named last, even if their clocks are wrong; reading never waits for a socket.
//!
//! Left to others: whether a group may exist (`creation`), the offsets of a group (`delivery`).

mod heard;
mod member;
mod registry;
mod subscription;
mod table;

pub(crate) use member::{Client, ConsumerMember, ProducerMember};
pub(crate) use registry::{ClientRegistry, SubscriptionLook};
pub(crate) use subscription::Subscription;
pub(crate) use table::{Beat, ConsumerBeat};
