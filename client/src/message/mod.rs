//! Messages on their way out ([`Message`]) and on their way in ([`MessageExt`]).
//!
//! The bytes of both are the business of `escrowmq_common::message`; here are the names that users of the SDK know, and
//! the rules a message must keep before it may leave.

mod delivered;
mod outgoing;

pub(crate) use delivered::DEAD_LETTER_REASON;
pub use delivered::MessageExt;
pub use outgoing::Message;

#[cfg(test)]
pub(crate) use delivered::testing;
