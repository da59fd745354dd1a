//! What became of a message that was not lost.

use crate::error::SendError;
use crate::producer::SendResult;

/// Where a message is now, and so what it outlives.
#[derive(Clone, Debug)]
#[must_use = "a message that is only spilled is at no broker yet"]
#[non_exhaustive]
pub enum Receipt {
    /// A broker has it, as safely as [`SendResult::level`] says.
    Stored(SendResult),
    /// The local folder has it, and it is sent later. The loss of this machine's disk loses it.
    Spilled(Spilled),
}

/// A message that is kept locally.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Spilled {
    /// The unique id that the message carries.
    pub message_id: String,
    /// It is on disk for good. `false` with [`sync(false)`](super::Spill::sync): then a power cut of this machine loses it.
    pub is_synced: bool,
    /// A broker may have it as well: an attempt ended without an answer. It is sent again under the same id.
    pub possible_duplicate: bool,
    /// Why it was not sent. `None` if it waits behind others: of its key, or while brokers are away.
    pub cause: Option<Box<SendError>>,
}

impl Receipt {
    /// The unique id that the message carries.
    pub fn message_id(&self) -> &str {
        match self {
            Receipt::Stored(sent) => &sent.message_id,
            Receipt::Spilled(spilled) => &spilled.message_id,
        }
    }

    /// The broker's answer, if a broker has the message.
    pub fn stored(&self) -> Option<&SendResult> {
        match self {
            Receipt::Stored(sent) => Some(sent),
            Receipt::Spilled(_) => None,
        }
    }

    /// How it is kept, if no broker has it for certain.
    pub fn spilled(&self) -> Option<&Spilled> {
        match self {
            Receipt::Stored(_) => None,
            Receipt::Spilled(spilled) => Some(spilled),
        }
    }
}
