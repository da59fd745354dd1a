//! The handle by which an operator names a transaction.

use std::fmt;
use std::str::FromStr;

use escrowmq_common::message::OffsetMessageId;

/// One half message of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) broker: String,
    pub(super) half_id: u64,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.broker, self.half_id)
    }
}

impl FromStr for Handle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A broker's name may hold a colon, a number does not.
        let parts = text.rsplit_once(':').filter(|(broker, _)| !broker.is_empty());
        let handle = parts.and_then(|(broker, id)| Some(Self { broker: broker.to_owned(), half_id: id.parse().ok()? }));
        handle.ok_or_else(|| format!("{text:?} is no handle; write broker:number as `escrowmq txn list` shows it"))
    }
}

/// A handle, or an offset message id, which holds the address of its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Handle(Handle),
    Message(OffsetMessageId),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(handle) => handle.fmt(f),
            Self::Message(id) => id.fmt(f),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<OffsetMessageId>() {
            Ok(id) => Ok(Self::Message(id)),
            Err(_) => text.parse().map(Self::Handle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_as_they_are_written() {
        let handle: Handle = "broker-a:4096".parse().unwrap();
        assert_eq!((handle.broker.as_str(), handle.half_id), ("broker-a", 4096));
        assert_eq!(handle.to_string(), "broker-a:4096");
        assert_eq!("a:b:1".parse::<Handle>().unwrap().broker, "a:b");
        for bad in ["", "4096", ":1", "a:", "a:-1", "a:x"] {
            assert!(bad.parse::<Handle>().is_err(), "{bad:?}");
        }
        let id = OffsetMessageId { host: "10.0.0.1:10911".parse().unwrap(), position: 4096 };
        assert_eq!(id.to_string().parse::<Name>().unwrap(), Name::Message(id));
    }
}
