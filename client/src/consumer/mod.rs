//! Consuming: a push consumer that hands messages to a handler, and a pull consumer that is asked for them.
//!
//! ```text
//!  balance: queues of the route, members of the group -> my share     (every 20 s, on a change, on NOTIFY)
//!    won queue  -> start offset -> pull loop (long poll) -> ProcessQueue (bounded)
//!    lost queue -> stop, store the offset
//!  ProcessQueue -> ReadyLine -> workers -> handler --Done---> finished ---> offset stored every 5 s
//!                                             |----Again--> sent back to the broker (retry topic) ----> finished
//!                                             `----Never--> sent to the dead letters with the reason -> finished
//!                                                              `--not taken--> handed out again later
//! ```
//!
//! Promises: an offset is stored only when everything below it was handled or taken over by the broker; buffers are
//! bounded per queue; the share is the one that every other client computes from the same lists, so that members in
//! different languages can share a group; shutdown lets running handlers end and stores what they earned.
//!
//! Deciding is pure ([`rebalance`], [`process_queue`], [`start`], [`verdict`]); the files around them do the I/O. A [`stream`] is a push
//! consumer whose handler waits for the user's answer.
//!
//! Left to others: the broker counts attempts and moves a message to `%DLQ%<group>` after the last one.

mod balance;
mod builder;
mod control;
mod dispatch;
mod group;
mod handler;
mod in_order;
mod inspect;
mod lock;
mod observe;
mod offset_file;
mod offsets;
mod process_queue;
mod pull;
mod pull_consumer;
mod push_consumer;
mod ready;
mod rebalance;
mod retry;
mod start;
mod steer;
mod stream;
mod subscription;
mod verdict;

pub use builder::PushConsumerBuilder;
pub use pull_consumer::{PullConsumer, PullConsumerBuilder};
pub use push_consumer::PushConsumer;
pub use start::ConsumeFrom;
pub use steer::{Lag, SeekTo};
pub use stream::{Deliveries, Delivery, Expired, StreamBuilder};
pub use verdict::{IntoVerdict, Verdict};

pub(crate) use control::ResetRequest;
pub(crate) use handler::panic_text;
pub(crate) use offsets::{
    max as offset_max, min as offset_min, put as offset_put, search as offset_search, stored as offset_stored,
};
pub(crate) use verdict::judged;
