//! Connections between the members of one replication group. They carry requests and answers whose bytes mean nothing
//! here.
//!
//! ```text
//!  Link::call -> Calls (queue, bounded) -> Wire -> socket ... socket -> Wire -> Serve::serve (in the order of calls)
//!  its answer <- Calls (by id)          <- Wire <- socket ... socket <- Wire <- serve's futures (in any order)
//! ```
//!
//! A member listens on a port of its own ([`Peers`]) and dials the others. Each pair has a connection for each [`Lane`]
//! and direction of asking, opened when it is first used: what is small and urgent never waits behind what is large.
//!
//! Before anything else both sides introduce themselves ([`Hello`]) and prove that they know the secret of the group:
//!
//! ```text
//!  dials                                    listens
//!  HELLO   greeting: lane, nonce, hello -->  version, group, own id?
//!                                      <--   greeting: same lane, its own nonce and hello
//!  version, group, expected member?
//!  PROOF   HMAC(secret, "dialer",   both greetings) -->  proof right? formats overlap? does the Gate admit it?
//!                                      <--   HMAC(secret, "listener", both greetings)
//!  proof right? formats? Gate?
//! ```
//!
//! The side that dials proves first, so that a stranger who connects learns nothing that it could try passwords on. A
//! proof covers both nonces, both names and the lane under the label of its role: it is worth nothing on another
//! connection, nor in the other direction. What follows is neither encrypted nor signed: a network on which others can
//! change packets needs a tunnel.
//!
//! Promises:
//! * All of it runs on one thread and runtime of its own: what clients do on their connections does not delay it.
//! * A call is queued when [`Link::call`] is called, and ends exactly once, by its deadline at the latest. Its error
//!   tells whether the request may have been carried out. No call is ever sent twice.
//! * Requests of one connection are served in the order of their calls.
//! * A stranger costs a few KiB for five seconds, one of 64 places, and now and then a line in the log.
//! * Whatever is queued, in flight or served has a bound in number and bytes.
//! * A member that went away is dialed again after 50 ms to 2 s. One that was refused is told why, and its operator by
//!   the log, once.
//!
//! Leaves to others: what requests mean, who may be a member ([`Gate`]), and work that takes long: [`Serve::serve`] is
//! called on the thread of all connections and must not block it.

#![warn(clippy::cast_possible_truncation, reason = "a length that is cut is a frame that is misread")]

mod accept;
mod back_off;
mod calls;
mod counts;
mod dial;
mod error;
mod greeting;
mod handshake;
mod hello;
mod link;
mod peers;
mod proof;
mod refusal;
mod roles;
mod secret;
mod serving;
mod shared;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use error::CallError;
pub(crate) use hello::{Hello, Lane, Target};
pub(crate) use link::Link;
pub(crate) use peers::{BYTES_MAX, HANDSHAKE_TIME, Peers, Settings, StartError};
pub(crate) use refusal::{Reason, Refusal};
pub(crate) use roles::{Gate, Serve, Streams};
pub(crate) use secret::{Secret, SecretError};
#[cfg(test)]
pub(crate) use status::{LinkStatus, Phase};
#[cfg(test)]
pub(crate) use wire::REQUEST_BYTES_MAX;
