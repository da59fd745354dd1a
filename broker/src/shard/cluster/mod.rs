//! A group of three, on one thread, from a seed.
//!
//! ```text
//! seed -> world: three shards with their disks and clocks, a network, clients, a plan of faults
//!           |      one step at a time: a part of a node, a message, a client, a fault; if nobody has anything to do, time goes on
//!           `-> healed -> every half settles -> judge: logs, states, ledger of the clients
//! ```
//!
//! All of the product from the intake down to the disk and up to the bytes on the wire runs here: proposer, Raft, log, apply,
//! flushes, timers. The network, the disks, the clocks and the random numbers are simulated, so a seed does the same each time.
//!
//! A run is no evidence if it was too quiet: under nine tenths of its planned faults happened, no leader changed, or few
//! commands were acknowledged. Then it counts as failed. `planted` shows that each check finds what it is there for.
//!
//! Leaves to others: what a shard does alone at each operation of its disk (`cuts`), and what real processes and networks do
//! (`tests/`).

mod campaign;
mod clients;
mod copies;
mod faults;
mod judge;
mod net;
mod node;
mod world;
