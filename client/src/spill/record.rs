//! A message as the payload of a record. Pure.

use bytes::Bytes;
use escrowmq_common::message::properties::Properties;

use crate::message::Message;

/// A message that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Grows with each message, over restarts too.
    pub(super) number: u64,
    /// When it was spilled, in milliseconds since 1970.
    pub(super) since_ms: i64,
    /// A broker may have it all the same.
    pub(super) possible_duplicate: bool,
    pub(super) message: Message,
}

/// Bytes before the topic.
const FIXED_BYTES: usize = 8 + 8 + 1 + 4 + 2 + 4;

/// Bytes of the payload of a message.
pub(super) fn payload_bytes(message: &Message) -> usize {
    let properties: usize = message.properties().map(|(name, value)| name.len() + value.len() + 2).sum();
    FIXED_BYTES + message.topic().len() + properties + message.body().len()
}

/// The payload. Topics have at most 127 bytes and properties at most 32,767: the message was checked.
pub(super) fn encode(kept: &Kept) -> Vec<u8> {
    let message = &kept.message;
    let properties = message.property_text();
    let mut bytes = Vec::with_capacity(payload_bytes(message));
    bytes.extend_from_slice(&kept.number.to_be_bytes());
    bytes.extend_from_slice(&kept.since_ms.to_be_bytes());
    bytes.push(u8::from(kept.possible_duplicate));
    bytes.extend_from_slice(&message.flag_value().to_be_bytes());
    bytes.extend_from_slice(&(message.topic().len() as u16).to_be_bytes());
    bytes.extend_from_slice(&(properties.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message.topic().as_bytes());
    bytes.extend_from_slice(properties.as_bytes());
    bytes.extend_from_slice(message.body());
    bytes
}

/// The message of a payload; `None` if that is none, which its checksum rules out unless another program wrote it.
pub(super) fn decode(payload: &Bytes) -> Option<Kept> {
    let mut rest = &payload[..];
    let number = u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let since_ms = i64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let possible_duplicate = take(&mut rest, 1)?[0] != 0;
    let flag = i32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let topic_bytes = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
    let property_bytes = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let topic = std::str::from_utf8(take(&mut rest, topic_bytes.into())?).ok()?;
    let properties = std::str::from_utf8(take(&mut rest, property_bytes as usize)?).ok()?;
    let mut message = Message::new(topic, payload.slice_ref(rest)).flag(flag);
    for (name, value) in Properties::new(properties).iter() {
        message.restore(name.to_owned(), value);
    }
    Some(Kept { number, since_ms, possible_duplicate, message })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = Message::new("Orders", vec![0_u8, 255, 3])
            .tag("a")
            .key("k")
            .sharding_key("s")
            .delay_level(3)
            .unique_id("mine")
            .wait_stored(false)
            .property("x", "y=1")
            .flag(-7);
        let kept = Kept { number: 9, since_ms: 1_700_000_000_000, possible_duplicate: true, message };
        let payload: Bytes = encode(&kept).into();
        assert_eq!(payload.len(), payload_bytes(&kept.message));
        let back = decode(&payload).expect("readable");
        assert_eq!((back.number, back.since_ms, back.possible_duplicate), (9, 1_700_000_000_000, true));
        assert_eq!(format!("{:?}", back.message), format!("{:?}", kept.message));
        back.message.validate(1000).expect("it may still be sent");
        for end in 0..FIXED_BYTES + 6 {
            assert!(decode(&payload.slice(..end)).is_none(), "{end}");
        }
    }
}
