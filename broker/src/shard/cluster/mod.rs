//! A group of three or five, on one thread, from a seed.
//!
//! ```text
//! seed -> world: shards with their disks and clocks, a network, clients, a plan of faults
//!           |      one step at a time: a part of a node, a message, a client, a fault; if nobody has anything to do, time goes on
//!           `-> healed -> check-backs settle every half -> judge: logs, states, ledger of the clients
//! ```
//!
//! All of the product from the intake down to the disk and up to the bytes on the wire runs here: proposer, Raft, log, apply,
//! flushes, timers. So does what only a leader does, in the order in which it comes and goes: its office, check-backs, delayed
//! messages, newest offsets ([`desk`]). The network, the disks, the clocks and the random numbers are simulated, so a seed does
//! the same each time. Every fifth seed has five members. With every fourth seed members lose their folders and come back under other
//! ids ([`wipes`]); the leaders care for them by the product's own code ([`keeper`]).
//!
//! A run is no evidence if it was too quiet: under nine tenths of its planned faults happened, no leader changed, or few
//! commands were acknowledged. Then it counts as failed. `planted` shows that each check finds what it is there for.
//!
//! Leaves to others: requests and connections of clients, who are at the shard itself here; what a shard does alone at each operation of its disk (`cuts`), and what real processes and networks do
//! (`tests/`).

mod campaign;
mod checks;
mod clients;
mod consumers;
mod copies;
mod desk;
mod faults;
mod guards;
mod judge;
mod keeper;
mod net;
mod node;
mod wipes;
mod world;
