//! The client against brokers of the tests' own, which answer, lie, keep silent and go away as they are told. One program, because linking
//! each part by itself takes longer than running it.

mod fake;

mod batching;
mod consuming;
mod failover;
mod features;
mod hostile;
mod message_trace;
mod mute;
mod outage;
mod producing;
mod real_cluster;
mod transactions;
