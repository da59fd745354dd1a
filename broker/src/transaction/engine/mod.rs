//! Decides about check-backs and does nothing else: events and time in, actions out. No clock, socket, file or lock.
//!
//! ```text
//!  a half that is due, its group's instances, time --> Scheduler::consider --> Step: ask, wait, hold back, park
//!                                                            ^
//!                    instance joined or left, check answered or not sent, half decided or resumed
//! ```
//!
//! The life of a half message as the log tells it is `shard::apply::life`; here is decided who is asked when. [`policy`] knows the
//! times. [`scheduler`] holds the state that lives only as long as the process (unanswered checks of each connection, halves that
//! wait for an instance, halves held back because every connection of their group is full) and applies the rules to one half. It is a value without
//! a reader or a lock: whoever holds it hands in rows and events.
//!
//! Promises:
//! * A check goes to an instance of the half's group that is connected, the sender first, and never to a connection
//!   that owes [`WINDOW`] answers.
//! * A half without anyone to ask waits and uses up no attempt; one that is held back costs no entry of the log.
//! * Every half that is due ends asked, waiting, held back or parked; nothing that goes wrong with one half changes the fate
//!   of another.
//! * After a restart everything that waited or was held back is found again, in the tables alone.
//!
//! Left to others: which halves are due (`round`), reading tables and bytes, writing to connections, submitting commands
//! (`runner`), and rows (`shard::apply`).
//!
//! The rules are shown one by one in `transaction/tests/scripts/*.txt`, and tried in random order against a simple model in
//! `transaction/tests/random`.

pub(crate) mod policy;
pub(crate) mod scheduler;
mod waiting;
mod windows;

pub(crate) use policy::CheckPolicy;
pub(crate) use scheduler::{Instance, Scheduler};
