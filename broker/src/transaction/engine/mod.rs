//! What becomes of transactions, decided and nothing else: events and time in, what is to be done out.
//!
//! [`life`] is the life of a half message as the log tells it: prepared, checked, parked, resumed, settled. Apply runs it on
//! the index. Tests run it on a map. Nothing in here knows a clock, a socket, a file or a lock.

pub mod life;
