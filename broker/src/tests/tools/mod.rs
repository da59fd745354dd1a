//! The requests of operators' tools to a broker, over real sockets.

mod audit;
mod groups;
mod members;
mod messages;
mod settings;
pub(in crate::tests) mod support;
mod transactions;
