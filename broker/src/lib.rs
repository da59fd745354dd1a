//! The EscrowMQ broker: keeps messages, half messages in escrow, and delivers.
//!
//! Public is what other packages use: the process ([`start`], [`config`], [`limits`]), and what works on a data folder ([`backup`],
//! [`check`], [`log`], [`recover`], [`terms`]). Nobody else can reach a part that writes.
//!
//! * [`shard`]: the one write path. [`log`]: the truth on disk. [`index`]: what the log means. [`raft`]: agreement.
//! * [`terms`]: the words that all of these share. [`peer`]: connections between the members of a group. [`group`]: who they are.
//! * [`transaction`], [`schedule`], [`delivery`]: what is due, what is asked for. [`filter`]: which messages a group wants.
//! * [`retention`]: what goes, and what happens when the disk is full.
//! * [`creation`]: topics and groups that come into being.
//! * [`client_registry`]: which producers and consumers are connected.
//! * [`key_index`]: messages by key. [`metrics`], [`stats`]: counts, for alarms and for tools. [`monitoring`]: the page of counts.
//! * [`gate`]: places for work that may take long.
//! * [`snapshot`]: copies of the state for members that lack entries. [`backup`]: copies of a running broker's data. [`check`]: what `escrowmq fsck` looks at.
//! * [`server`]: requests in, responses out; [`reply`]: the way back. [`config`]: the settings.
//! * [`planted`]: failures that tests switch on; nothing of them is in the product.

#![allow(rustdoc::private_intra_doc_links, reason = "the pages are for those who read the source")]

pub mod backup;
mod broker;
pub mod check;
mod client_registry;
pub mod config;
mod creation;
mod delivery;
mod executor;
mod filter;
mod forward;
mod gate;
mod group;
mod index;
mod key_index;
pub mod latch;
pub mod limits;
pub mod log;
mod metrics;
mod monitoring;
#[cfg_attr(not(test), expect(dead_code, reason = "no tool shows yet how links do and what the port counts"))]
mod peer;
mod planted;
mod raft;
mod registration;
mod reply;
mod retention;
mod schedule;
mod server;
mod shard;
mod snapshot;
mod spans;
pub mod start;
mod stats;
mod steady_clock;
mod storage;
pub mod terms;
#[cfg(test)]
mod tests;
mod transaction;

pub use group::recover;
