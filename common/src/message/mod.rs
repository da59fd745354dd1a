//! Messages in the form that producers send, brokers store and consumers receive.
//!
//! A **unit** is one stored message with everything that belongs to it: sizes, times, hosts, body, topic, properties.
//! The same bytes lie in the broker's log and travel in the bodies of pull, pop, view and query responses, so the
//! broker writes a unit once ([`UnitBuilder`]) and afterwards changes only fields of fixed width ([`UnitPatch`]).
//!
//! ```text
//!  producer: body, properties --UnitBuilder--> unit in the log --copy + UnitPatch--> response body --Units--> Message
//!                  ^ batch::Batch (several messages in one request body)
//! ```
//!
//! Promises: no input makes it panic, read outside its bytes or allocate more than the input's own size (decompression
//! takes an explicit bound instead); everything that the writers produce, the readers take back unchanged.
//! A unit's CRC covers the body as stored and is never recomputed when fields are patched.
//!
//! Left to others: which topics and names are allowed ([`crate::name`]), what properties mean to a broker,
//! and where units are stored. Its errors speak of bytes that will not get better, so none of them is retryable.

pub mod batch;
mod builder;
pub mod compression;
mod cursor;
mod host;
pub mod id;
mod layout;
mod owned;
pub mod pop;
pub mod properties;
mod recall;
mod sys_flag;
mod tag;
mod unit;

pub use builder::UnitBuilder;
pub use compression::{CompressionError, CompressionType};
pub use id::{OffsetMessageId, UniqueId, UniqueIdParts, UniqueIds, unique_id};
pub use layout::{UnitLayout, UnitPatch, field};
pub use owned::{Message, Units, decode_units};
pub use properties::{Properties, PropertyEditor};
pub use recall::{RecallHandle, RecallHandleError};
pub use sys_flag::{SysFlag, TransactionType};
pub use tag::{TagFilter, TagFilterError, java_hash, tags_code};
pub use unit::{MessageUnit, UnitError, body_crc};

/// Largest body that a broker or a client accepts unless configured otherwise, in bytes (`maxMessageSize`).
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most bytes by which a whole unit may be larger than its body.
pub const UNIT_OVERHEAD_BYTES_MAX: usize = 64 * 1024;
