//! A message in the form in which every attempt sends it.

use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::message::compression::DEFAULT_LEVEL;
use escrowmq_common::message::properties::name;
use escrowmq_common::message::{CompressionType, SysFlag, unique_id};

use super::SendSettings;
use crate::error::SendError;
use crate::message::Message;

/// A checked message: its unique id is fixed, its body compressed, its properties written.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) topic: Arc<str>,
    pub(crate) body: Bytes,
    /// Bytes of the body before compression.
    pub(crate) plain_bytes: usize,
    pub(crate) flag: i32,
    pub(crate) sys_flag: SysFlag,
    pub(crate) properties: String,
    pub(crate) message_id: String,
    pub(crate) sharding_key: Option<String>,
    /// Carries a delay or a timer, which not every broker can do everywhere.
    pub(crate) is_delayed: bool,
    /// Several messages in one body.
    pub(crate) is_batch: bool,
    /// For a consumer's own retry: attempts so far and their limit.
    pub(crate) reconsume: Option<(i32, i32)>,
}

impl Prepared {
    /// Checks the message and fixes what all attempts share.
    pub(crate) fn new(message: Message, settings: &SendSettings) -> Result<Prepared, SendError> {
        message.validate(settings.body_bytes_max)?;
        settings.profile.admits(&message)?;
        Ok(Prepared::unchecked(message, settings))
    }

    /// A message that a consumer sends again: its properties are those of the protocol, and its broker took it once.
    pub(crate) fn retried(message: Message, settings: &SendSettings) -> Prepared {
        Prepared::unchecked(message, settings)
    }

    fn unchecked(mut message: Message, settings: &SendSettings) -> Prepared {
        let message_id = seal(&mut message, settings.profile.waits());
        let (body, sys_flag) = compressed(message.body(), settings.compress_above);
        Prepared {
            topic: message.topic_shared(),
            body,
            plain_bytes: message.body().len(),
            flag: message.flag_value(),
            sys_flag,
            properties: message.property_text(),
            message_id,
            sharding_key: message.get(name::SHARDING_KEY).map(str::to_owned),
            is_delayed: is_delayed(&message),
            is_batch: false,
            reconsume: None,
        }
    }
}

/// Gives the message what every sent message has, once: its unique id, and whether the broker is to
/// wait for flush and replication. Answers the id.
pub(crate) fn seal(message: &mut Message, waits: bool) -> String {
    if message.get(name::WAIT).is_none() {
        message.set_word(name::WAIT, if waits { "true" } else { "false" });
    }
    if let Some(id) = message.get(name::UNIQUE_KEY) {
        return id.to_owned();
    }
    let id = unique_id().to_string();
    message.set(name::UNIQUE_KEY, id.clone());
    id
}

/// Whether the message is to be delivered later than it is sent.
pub(crate) fn is_delayed(message: &Message) -> bool {
    [name::DELAY, name::TIMER_DELIVER_MS, name::TIMER_DELAY_MS, name::TIMER_DELAY_SECONDS]
        .iter()
        .any(|name| message.get(name).is_some())
}

/// The body as it travels. One that does not shrink travels as it is.
fn compressed(body: &Bytes, threshold: usize) -> (Bytes, SysFlag) {
    if body.len() >= threshold
        && let Ok(smaller) = CompressionType::Zlib.compress(body, DEFAULT_LEVEL)
        && smaller.len() < body.len()
    {
        return (smaller.into(), SysFlag::default().with_compression(CompressionType::Zlib));
    }
    (body.clone(), SysFlag::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unique_id_is_given_once_or_taken() {
        let settings = SendSettings::default();
        let prepared = Prepared::new(Message::new("T", "b"), &settings).expect("a good message");
        assert_eq!(prepared.message_id.len(), 32);
        assert!(prepared.properties.contains(&format!("UNIQ_KEY\u{1}{}\u{2}", prepared.message_id)));
        assert!(prepared.properties.contains("WAIT\u{1}true\u{2}"));
        let given = Prepared::new(Message::new("T", "b").unique_id("mine").wait_stored(false), &settings);
        let given = given.expect("a good message");
        assert_eq!(given.message_id, "mine");
        assert!(given.properties.contains("WAIT\u{1}false\u{2}"));
    }

    #[test]
    fn large_bodies_shrink_and_small_or_dense_ones_stay() {
        let settings = SendSettings::default();
        let large = Prepared::new(Message::new("T", vec![7; 5000]), &settings).expect("a good message");
        assert!(large.body.len() < 5000);
        assert_eq!(large.sys_flag.0, 1 | 0x300);
        let plain = CompressionType::Zlib.decompress(&large.body, 5000).expect("zlib");
        assert_eq!(plain, vec![7; 5000]);
        let small = Prepared::new(Message::new("T", vec![7; 4095]), &settings).expect("a good message");
        assert_eq!((small.body.len(), small.sys_flag.0), (4095, 0));
    }

    #[test]
    fn delays_are_noticed() {
        let delayed = |message| Prepared::new(message, &SendSettings::default()).expect("a good message").is_delayed;
        assert!(!delayed(Message::new("T", "b")));
        assert!(delayed(Message::new("T", "b").delay_level(1)));
        assert!(delayed(Message::new("T", "b").deliver_after(std::time::Duration::from_secs(1))));
    }
}
