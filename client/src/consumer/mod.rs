//! Consuming: a push consumer that hands messages to a handler, and a pull consumer that is asked for them.
//!
//! ```text
//!  balance: queues of the route, members of the group -> my share     (every 20 s, on a change, on NOTIFY)
//!    won queue  -> start offset -> pull loop (long poll) -> ProcessQueue (bounded)
//!    lost queue -> stop, store the offset
//!  ProcessQueue -> ReadyLine -> workers -> handler --ok--> finished ---> offset stored every 5 s
//!                                             `--failed--> sent back to the broker (retry topic, dead letter) -> finished
//!                                                              `--failed too--> handed out again later
//! ```
//!
//! Promises: an offset is stored only when everything below it was handled or taken over by the broker; buffers are
//! bounded per queue; the share is the one that every other client computes from the same lists, so that members in
//! different languages can share a group; shutdown lets running handlers end and stores what they earned.
//!
//! Deciding is pure ([`rebalance`], [`process_queue`], [`start`]); the files around them do the I/O.
//!
//! Left to others: the broker counts attempts and moves a message to `%DLQ%<group>` after the last one.

mod balance;
mod builder;
mod control;
mod dispatch;
mod group;
mod handler;
mod inspect;
mod lock;
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
mod subscription;

pub use builder::PushConsumerBuilder;
pub use pull_consumer::{PullConsumer, PullConsumerBuilder};
pub use push_consumer::PushConsumer;
pub use start::ConsumeFrom;

pub(crate) use control::ResetRequest;
pub(crate) use handler::panic_text;
pub(crate) use offsets::{
    max as offset_max, min as offset_min, put as offset_put, search as offset_search, stored as offset_stored,
};
