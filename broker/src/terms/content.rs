//! A message's content, which tells it from another message that has the same unique id.
//!
//! Unique ids are made by clients, of an address, a process number and a counter: containers and old clients make the same
//! one for different messages. So an id alone is no identity: only a message with the same id **and** the same content is one
//! that is sent again.

use escrowmq_common::message::Properties;
use escrowmq_common::message::properties::name;
use sha2::{Digest as _, Sha256};

/// The content of a message, as far as it tells whether two sends are one message: a digest of body and properties, cut to
/// 128 bits. Nobody finds two messages with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub [u8; 16]);

/// Properties that differ from one attempt to the next of the same send: tracing marks each attempt, and brokers add theirs.
const OF_AN_ATTEMPT: &[&str] = &[
    name::TRACE_CONTEXT,
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    name::MSG_REGION,
    name::TRACE_ON,
    name::CLUSTER,
];
/// And those whose names begin so.
const OF_AN_ATTEMPT_PREFIXES: &[&str] = &["sw8", "x-b3-", "x-datadog-"];

impl Content {
    /// The content of a message as its sender sent it. The order of its properties does not count.
    pub fn of(body: &[u8], properties: &str) -> Self {
        let mut items: Vec<(&str, &str)> =
            Properties::new(properties).iter().filter(|(name, _)| !is_of_an_attempt(name)).collect();
        items.sort_unstable();
        let mut digest = Sha256::new();
        digest.update((body.len() as u64).to_be_bytes());
        digest.update(body);
        for text in items.into_iter().flat_map(|(name, value)| [name, value]) {
            // Behind their lengths, so that no two lists of texts are the same bytes.
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
        let mut cut = [0; 16];
        cut.copy_from_slice(&digest.finalize()[..16]);
        Self(cut)
    }
}

fn is_of_an_attempt(name: &str) -> bool {
    OF_AN_ATTEMPT.contains(&name) || OF_AN_ATTEMPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_are_the_same_content() {
        let first = Content::of(b"body", "KEYS\u{1}a\u{2}color\u{1}red\u{2}");
        assert_eq!(Content::of(b"body", "color\u{1}red\u{2}KEYS\u{1}a"), first);
        for (body, properties) in [
            (&b"Body"[..], "KEYS\u{1}a\u{2}color\u{1}red\u{2}"),
            (b"body", "KEYS\u{1}b\u{2}color\u{1}red\u{2}"),
            (b"body", "KEYS\u{1}a\u{2}"),
            (b"body", ""),
            (b"", "KEYS\u{1}a\u{2}color\u{1}red\u{2}"),
        ] {
            assert_ne!(Content::of(body, properties), first);
        }
        assert_eq!(crc32fast::hash(b"plumless"), crc32fast::hash(b"buckeroo"), "of one checksum");
        assert_ne!(Content::of(b"plumless", ""), Content::of(b"buckeroo", ""));
    }

    #[test]
    fn what_tracing_writes_on_each_attempt_does_not_count() {
        let first = Content::of(b"body", "KEYS\u{1}a\u{2}traceparent\u{1}00-1\u{2}");
        assert_eq!(Content::of(b"body", "KEYS\u{1}a\u{2}traceparent\u{1}00-2\u{2}sw8-x\u{1}y\u{2}"), first);
    }
}
