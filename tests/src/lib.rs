//! Harness of the tests that run real processes.
//!
//! ```text
//!  test --starts--> Nameserver, Broker (Process: folder, ports, log, kill)   [processes]
//!    |  Wire: single frames, each of them as the test wants it               [wire]
//!    |  the SDK: what a user would do                                        [escrowmq_client]
//!    |  hostile: every request code with anything in any field            [hostile]
//!    |  Group: three brokers that are one, and two nameservers              [group]
//!    |  Stored: what a stopped member has on its disk                        [stored]
//!    |  Network: cuts, delays and loses, between the members of a group      [network]
//!    |  Door: shuts the clients of one broker out                            [door]
//!    |  Proxy: loses, repeats, delays and reorders frames                    [proxy]
//!    |  Valve: shuts a client's way to its database                          [valve]
//!    |  until: waits for a condition, up to a deadline                       [wait]
//!    |  Load: transactions, sends and consumers all the time                [load]
//!    |  SmallDisk, Tracer: disks that run full, calls that fail               [small_disk, tracer]
//!    |  Ledger: who was told what, kept outside of the broker                [ledger]
//!    |  LocalDatabase: the application's own truth, on disk first            [local]
//!    |  Postgres, MariaDb, Redis: database servers of the test's own         [databases]
//!    |  Prometheus: asks brokers and looks at rules, where it is installed   [prometheus]
//!    |  sections: what a page for operators shows                            [shown]
//!    |  Recorder: what happened, line by line                                [history]
//!    |  judge: whether that may be                                           [checker]
//!    `  judge_appends, judge_decisions: whether one copy could have said that [linear]
//! ```
//!
//! Promises: a test never sleeps in the hope of something, never meets another test (own folder, own ports, own
//! processes), leaves no process behind, and shows the end of the processes' logs when it fails. Only processes that were
//! started here are ever signalled, through their handle.

pub mod checker;
pub mod databases;
pub mod dice;
pub mod documents;
pub mod door;
pub mod dying;
pub mod group;
pub mod history;
pub mod hostile;
pub mod ledger;
pub mod linear;
pub mod load;
pub mod local;
pub mod metrics;
pub mod network;
pub mod processes;
pub mod prometheus;
pub mod proxy;
pub mod shown;
pub mod small_disk;
pub mod stored;
pub mod tracer;
pub mod valve;
pub mod wait;
pub mod wire;

pub use databases::{MariaDb, Postgres, Redis};
pub use processes::{Broker, Cluster, Nameserver, Settings};
pub use wait::{DEADLINE, since, until, until_within};
pub use wire::{Check, End, Half, Pulled, Wire};
