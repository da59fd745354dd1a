//! The handle with which a timer message can be called back before it is due.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use thiserror::Error;

const VERSION: &str = "v1";

/// Names one timer message: Base64url of `v1 topic broker deliver-time unique-key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    /// Topic that it will be delivered to.
    pub topic: String,
    /// Broker (group) that keeps it.
    pub broker: String,
    /// When it is due, in milliseconds since 1970.
    pub deliver_timestamp: i64,
    /// Unique key of the message.
    pub unique_key: String,
}

/// The text is no recall handle of a known version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a recall handle")]
pub struct RecallHandleError;

impl fmt::Display for RecallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, broker, deliver_timestamp, unique_key } = self;
        let plain = format!("{VERSION} {topic} {broker} {deliver_timestamp} {unique_key}");
        f.write_str(&URL_SAFE.encode(plain))
    }
}

impl FromStr for RecallHandle {
    type Err = RecallHandleError;

    fn from_str(text: &str) -> Result<Self, RecallHandleError> {
        let plain = URL_SAFE.decode(text).map_err(|_| RecallHandleError)?;
        let plain = std::str::from_utf8(&plain).map_err(|_| RecallHandleError)?;
        let mut parts = plain.split(' ');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(RecallHandleError);
        if part()? != VERSION {
            return Err(RecallHandleError);
        }
        let handle = Self {
            topic: part()?.to_owned(),
            broker: part()?.to_owned(),
            deliver_timestamp: part()?.parse().map_err(|_| RecallHandleError)?,
            unique_key: part()?.to_owned(),
        };
        if parts.next().is_some() { Err(RecallHandleError) } else { Ok(handle) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_back_and_others_refused() {
        let handle =
            RecallHandle { topic: "T".into(), broker: "b".into(), deliver_timestamp: 5, unique_key: "U".into() };
        assert_eq!(handle.to_string().parse(), Ok(handle));
        for plain in ["v2 T b 5 U", "v1 T b x U", "v1 T b 5", "v1 T b 5 U more", "v1  b 5 U"] {
            assert!(URL_SAFE.encode(plain).parse::<RecallHandle>().is_err(), "{plain}");
        }
        assert!("***".parse::<RecallHandle>().is_err());
    }
}
