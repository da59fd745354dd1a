//! The EscrowMQ broker: keeps messages, half messages in escrow, and delivers.
//!
//! * [`shard`]: the one write path. [`log`]: the truth on disk. [`index`]: what the log means. [`raft`]: agreement.
//! * [`terms`]: the words that all of these share.
//! * [`transaction`], [`schedule`], [`delivery`]: what is due, what is asked for.
//! * [`retention`]: what goes, and what happens when the disk is full.
//! * [`client_registry`]: which producers and consumers are connected.
//! * [`key_index`]: messages by key. [`metrics`], [`stats`]: counts, for alarms and for tools.
//! * [`backup`]: copies of a running broker's data. [`check`]: what `escrowmq fsck` looks at.
//! * [`server`]: requests in, responses out. [`config`]: the settings.
//! * [`planted`]: failures that tests switch on; nothing of them is in the product.

pub mod backup;
pub mod broker;
pub mod check;
pub mod client_registry;
pub mod config;
pub mod delivery;
pub mod index;
pub mod key_index;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod planted;
pub mod raft;
pub mod registration;
pub mod retention;
pub mod schedule;
pub mod server;
pub mod shard;
pub mod start;
pub mod stats;
pub mod steady_clock;
pub mod terms;
pub mod transaction;
