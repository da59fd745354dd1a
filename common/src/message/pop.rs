//! Text forms of the pop protocol: receipts, the compact lists of a pop response, and the bit sets of batch
//! acknowledgements.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// `reviveQid` of receipts of an ordered pop.
pub const ORDER_REVIVE_QUEUE_ID: i32 = 999;

/// Largest bit that a batch acknowledgement may set: far more messages than one receipt can stand for.
const BITS_MAX: usize = 1 << 16;

// Every text that is written can be read again.
const _: () = assert!((BITS_MAX / 8).div_ceil(3) * 4 <= crate::limits::ACK_BITS_BYTES_MAX);

/// A text is not of the expected form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed {0}")]
pub struct PopTextError(&'static str);

/// Which of a group's topics a popped message lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PopTopic {
    /// The topic that the consumer asked for.
    #[default]
    Normal,
    /// `%RETRY%group_topic`.
    RetryV1,
    /// `%RETRY%group+topic`.
    RetryV2,
}

impl PopTopic {
    /// The mark on the wire: `0`, `1` or `2`.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Normal => "0",
            Self::RetryV1 => "1",
            Self::RetryV2 => "2",
        }
    }

    /// The topic whose mark is `mark`.
    pub fn from_mark(mark: &str) -> Option<Self> {
        match mark {
            "0" => Some(Self::Normal),
            "1" => Some(Self::RetryV1),
            "2" => Some(Self::RetryV2),
            _ => None,
        }
    }

    /// The name of the topic that is meant when `group` pops `topic`.
    pub fn name(self, topic: &str, group: &str) -> String {
        match self {
            Self::Normal => topic.to_owned(),
            Self::RetryV1 => crate::name::pop_retry_topic_v1(topic, group),
            Self::RetryV2 => crate::name::pop_retry_topic_v2(topic, group),
        }
    }
}

impl fmt::Display for PopTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mark())
    }
}

/// The receipt of one popped message (`POP_CK`, and `extraInfo` when it comes back): eight parts, single blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopReceipt {
    /// Queue offset at which the pop began.
    pub start_offset: i64,
    /// When it was popped, in milliseconds since 1970.
    pub pop_time: i64,
    /// How long the message stays hidden, in milliseconds.
    pub invisible_time: i64,
    /// Where the broker keeps the check point; [`ORDER_REVIVE_QUEUE_ID`] for ordered pops.
    pub revive_queue_id: i32,
    /// Which topic it lies in.
    pub topic: PopTopic,
    /// Broker (group) that handed it out.
    pub broker: String,
    /// Its queue.
    pub queue_id: i32,
    /// Its queue offset.
    pub offset: i64,
}

impl fmt::Display for PopReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} {} {}",
            self.start_offset,
            self.pop_time,
            self.invisible_time,
            self.revive_queue_id,
            self.topic,
            self.broker,
            self.queue_id,
            self.offset
        )
    }
}

impl FromStr for PopReceipt {
    type Err = PopTextError;

    fn from_str(text: &str) -> Result<Self, PopTextError> {
        let mut parts = Parts::new(text, ' ', "pop receipt");
        let receipt = Self {
            start_offset: parts.number()?,
            pop_time: parts.number()?,
            invisible_time: parts.number()?,
            revive_queue_id: parts.number()?,
            topic: parts.topic()?,
            broker: parts.text()?.to_owned(),
            queue_id: parts.number()?,
            offset: parts.number()?,
        };
        parts.end()?;
        Ok(receipt)
    }
}

/// One item of `startOffsetInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartOffset {
    /// Which topic.
    pub topic: PopTopic,
    /// Queue.
    pub queue_id: i32,
    /// Offset at which this pop began there.
    pub offset: i64,
}

/// One item of `msgOffsetInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageOffsets {
    /// Which topic.
    pub topic: PopTopic,
    /// Queue.
    pub queue_id: i32,
    /// Offsets of the returned messages, in the order of the body.
    pub offsets: Vec<i64>,
}

/// One item of `orderCountInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderCount {
    /// Which topic.
    pub topic: PopTopic,
    /// Queue.
    pub queue_id: i32,
    /// One message of the queue, or all of them.
    pub offset: Option<i64>,
    /// How often it has been consumed before.
    pub count: i32,
}

/// Writes `startOffsetInfo`.
pub fn write_start_offsets(items: &[StartOffset]) -> String {
    join(items.iter().map(|item| format!("{} {} {}", item.topic, item.queue_id, item.offset)))
}

/// Reads `startOffsetInfo`.
pub fn parse_start_offsets(text: &str) -> Result<Vec<StartOffset>, PopTextError> {
    items(text)
        .map(|item| {
            let mut parts = Parts::new(item, ' ', "startOffsetInfo");
            let start = StartOffset { topic: parts.topic()?, queue_id: parts.number()?, offset: parts.number()? };
            parts.end()?;
            Ok(start)
        })
        .collect()
}

/// Writes `msgOffsetInfo`.
pub fn write_message_offsets(items: &[MessageOffsets]) -> String {
    join(items.iter().map(|item| {
        let offsets: Vec<_> = item.offsets.iter().map(i64::to_string).collect();
        format!("{} {} {}", item.topic, item.queue_id, offsets.join(","))
    }))
}

/// Reads `msgOffsetInfo`.
pub fn parse_message_offsets(text: &str) -> Result<Vec<MessageOffsets>, PopTextError> {
    items(text)
        .map(|item| {
            let mut parts = Parts::new(item, ' ', "msgOffsetInfo");
            let (topic, queue_id) = (parts.topic()?, parts.number()?);
            let offsets = parts.text()?.split(',').map(|offset| parts.parse(offset)).collect::<Result<_, _>>()?;
            parts.end()?;
            Ok(MessageOffsets { topic, queue_id, offsets })
        })
        .collect()
}

/// Writes `orderCountInfo`.
pub fn write_order_counts(items: &[OrderCount]) -> String {
    join(items.iter().map(|item| match item.offset {
        Some(offset) => format!("{} qo{}%{offset} {}", item.topic, item.queue_id, item.count),
        None => format!("{} {} {}", item.topic, item.queue_id, item.count),
    }))
}

/// Reads `orderCountInfo`.
pub fn parse_order_counts(text: &str) -> Result<Vec<OrderCount>, PopTextError> {
    items(text)
        .map(|item| {
            let mut parts = Parts::new(item, ' ', "orderCountInfo");
            let topic = parts.topic()?;
            let place = parts.text()?;
            let (queue_id, offset) = match place.strip_prefix("qo") {
                Some(place) => {
                    let mut place = Parts::new(place, '%', "orderCountInfo");
                    let found = (place.number()?, Some(place.number()?));
                    place.end()?;
                    found
                }
                None => (parts.parse(place)?, None),
            };
            let count = parts.number()?;
            parts.end()?;
            Ok(OrderCount { topic, queue_id, offset, count })
        })
        .collect()
}

/// The messages that a batch acknowledgement names, as distances from the receipt's start offset, ascending. `text` is
/// Base64 of a bit set whose lowest bit comes first.
pub fn parse_ack_bits(text: &str) -> Result<Vec<usize>, PopTextError> {
    let bytes = STANDARD.decode(text).map_err(|_| PopTextError("acknowledgement bit set"))?;
    if bytes.len() > BITS_MAX / 8 {
        return Err(PopTextError("acknowledgement bit set"));
    }
    let set = |bit: &usize| bytes[bit / 8] >> (bit % 8) & 1 == 1;
    Ok((0..bytes.len() * 8).filter(set).collect())
}

/// Writes the bit set with `bits`; a bit beyond the bound of [`parse_ack_bits`] is an error.
pub fn write_ack_bits(bits: &[usize]) -> Result<String, PopTextError> {
    let mut bytes = Vec::new();
    for &bit in bits {
        if bit >= BITS_MAX {
            return Err(PopTextError("acknowledgement bit set"));
        }
        if bytes.len() <= bit / 8 {
            bytes.resize(bit / 8 + 1, 0_u8);
        }
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    Ok(STANDARD.encode(bytes))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').filter(|item| !item.is_empty())
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(";")
}

/// The parts of one item, each of which must be there.
struct Parts<'a> {
    rest: std::str::Split<'a, char>,
    what: &'static str,
}

impl<'a> Parts<'a> {
    fn new(text: &'a str, separator: char, what: &'static str) -> Self {
        Self { rest: text.split(separator), what }
    }

    fn text(&mut self) -> Result<&'a str, PopTextError> {
        self.rest.next().filter(|part| !part.is_empty()).ok_or(PopTextError(self.what))
    }

    fn parse<T: FromStr>(&self, part: &str) -> Result<T, PopTextError> {
        part.parse().map_err(|_| PopTextError(self.what))
    }

    fn number<T: FromStr>(&mut self) -> Result<T, PopTextError> {
        let part = self.text()?;
        self.parse(part)
    }

    fn topic(&mut self) -> Result<PopTopic, PopTextError> {
        PopTopic::from_mark(self.text()?).ok_or(PopTextError(self.what))
    }

    fn end(mut self) -> Result<(), PopTextError> {
        if self.rest.next().is_none() { Ok(()) } else { Err(PopTextError(self.what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_receipts_are_refused() {
        let good = "100 1700000000000 60000 3 0 broker-a 2 105";
        assert_eq!(good.parse::<PopReceipt>().unwrap().to_string(), good);
        for bad in [
            "",
            "100 1700000000000 60000 3 0 broker-a 2",
            "100 1700000000000 60000 3 0 broker-a 2 105 1",
            "100 1700000000000 60000 3 3 broker-a 2 105",
            "100 1700000000000 60000 3 0  2 105",
            "x 1700000000000 60000 3 0 broker-a 2 105",
        ] {
            assert!(bad.parse::<PopReceipt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_read_back() {
        let offsets = "0 0 100,101,103;1 0 5";
        assert_eq!(write_message_offsets(&parse_message_offsets(offsets).unwrap()), offsets);
        let counts = "0 2 1;0 qo2%100 3";
        let parsed = parse_order_counts(counts).unwrap();
        assert_eq!(parsed[1].offset, Some(100));
        assert_eq!(write_order_counts(&parsed), counts);
        assert_eq!(parse_start_offsets("").unwrap(), []);
        assert!(parse_message_offsets("0 0 1,,2").is_err());
        assert!(parse_order_counts("0 qo2 3").is_err());
    }

    #[test]
    fn bit_sets_are_bounded() {
        assert_eq!(write_ack_bits(&[0, 3, 9]).unwrap(), "CQI=");
        assert_eq!(parse_ack_bits("CQI=").unwrap(), [0, 3, 9]);
        assert!(write_ack_bits(&[usize::MAX]).is_err());
        assert!(parse_ack_bits(&STANDARD.encode(vec![1; 9000])).is_err());
        assert!(parse_ack_bits("?").is_err());
    }
}
