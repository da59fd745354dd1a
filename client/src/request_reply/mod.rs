//! Request-reply: a message that asks, and the message that answers it.
//!
//! ```text
//!  requester                         broker                        replier
//!  Producer::request -- a message --> topic --> consumer, handler
//!    | waits by CORRELATION_ID                     | Producer::reply
//!    `<-- 326, a request of the broker <-- 324/325 -'   (stored in `<cluster>_REPLY_TOPIC`, too)
//! ```
//!
//! The broker passes a reply on over the connection by which it knows the requester's client id, as a producer; so the
//! requester greets the brokers of its topic before it asks ([`ask`]). The replier sends the reply to the broker that it
//! read the request from, then to others of the cluster ([`answer`]). Clients in other languages do the same and work
//! together with this one on either side.
//!
//! Promises: a request waits at most its timeout, all steps included; requests in flight are bounded by the producer's
//! `in_flight_max`; a reply that nobody waits for (any more) is dropped, so that a repeated reply does no harm; an error
//! says whether the request may be handled all the same.
//!
//! Left to others: delivery to the replier and its retries, which are those of every message ([`crate::consumer`]).

mod answer;
mod ask;
mod error;
mod waiting;

pub use error::{NoReply, ReplyError};

pub(crate) use answer::{is_request, reply, reply_to};
pub(crate) use ask::ask;
pub(crate) use waiting::{Waiting, arrived};
