//! Tests with real processes, in one program: each test program more would be linked once more. A module is a file of the
//! table in `tests/README.md`; `cargo test -p escrowmq-tests --test all kills::` runs one of them.

mod answers;
mod barrier;
mod budgets;
mod cluster;
mod crash;
mod delivery;
mod demo;
mod deploy;
mod disk;
mod documents;
mod failover;
mod flood;
mod followers;
mod groups;
mod heartbeats;
mod hidden;
mod hostile;
mod idempotent;
mod kills;
mod lazy;
mod linear;
mod lossy;
mod members;
mod minority;
mod no_loss;
mod outages;
mod outbox;
mod packages;
mod partitions;
mod process;
mod protocol;
mod request_reply;
mod spread;
mod streams;
mod transactions;
