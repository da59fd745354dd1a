//! The words of storage: what rows, commands and requests all speak of.
//!
//! Promises: a term means the same on every floor, and has one form in bytes; this folder imports nothing else of the broker, so
//! that each floor above may import it. Leaves to others: everything that is done with the terms.

#![warn(clippy::cast_possible_truncation, reason = "a number of the store that is cut is a number that is lost")]

mod atomic;
mod cold;
mod content;
mod cursor;
mod decision;
mod disk_use;
mod entered;
mod feature;
mod group;
mod ids;
mod lost;
mod number;
mod pin;
mod position;
mod stamp;
mod topic;
mod when;

pub use atomic::AtomicLogIndex;
pub(crate) use cold::{decode_cold, encode_cold};
pub use content::Content;
pub use cursor::{Cursor, Malformed, TooLong, get_optional, put_bounded, put_optional, put_text};
pub use decision::{Decision, ParkReason, TRANSACTION_HALVES_MAX};
pub use disk_use::DiskUse;
pub use entered::Entered;
pub(crate) use feature::{FEATURE_LEVEL, FIRST_LEVEL, SETTINGS_LEVEL};
pub use group::GroupSettings;
pub use ids::{HalfId, LogIndex, QueueId, QueueOffset};
pub use lost::LostRange;
pub(crate) use number::{to_u8, to_u32, to_usize};
pub use pin::PinOwner;
pub use position::Position;
pub use stamp::Stamp;
pub use topic::TopicSettings;
pub use when::{When, get_when, put_when};
