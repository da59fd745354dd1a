//! The words of storage: what rows, commands and requests all speak of.
//!
//! Promises: a term means the same on every floor, and has one form in bytes; this folder imports nothing else of the broker, so
//! that each floor above may import it. Leaves to others: everything that is done with the terms.

mod content;
mod cursor;
mod decision;
mod disk_use;
mod group;
mod ids;
mod lost;
mod pin;
mod position;
mod stamp;
mod topic;
mod when;

pub use content::Content;
pub use cursor::{Cursor, Malformed, TooLong, get_optional, put_bounded, put_optional, put_text};
pub use decision::{Decision, ParkReason, TRANSACTION_HALVES_MAX};
pub use disk_use::DiskUse;
pub use group::GroupSettings;
pub use ids::{HalfId, LogIndex, QueueId, QueueOffset};
pub use lost::LostRange;
pub use pin::PinOwner;
pub use position::Position;
pub use stamp::Stamp;
pub use topic::TopicSettings;
pub use when::{When, get_when, put_when};
