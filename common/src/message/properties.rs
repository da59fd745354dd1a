//! The property string of a message: `name 0x01 value 0x02`, repeated.
//!
//! Reading follows what all brokers and clients agree on: the last 0x02 may be missing; the first 0x01 of an item
//! separates, so a value may contain another; an item without 0x01, with an empty name or with an empty value is
//! skipped; of equal names the last counts. Writing always ends an item with 0x02.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use thiserror::Error;

/// Between a name and its value.
pub const NAME_END: char = '\u{1}';
/// Comes after each value.
pub const ITEM_END: char = '\u{2}';
/// Longest property string of a message, in bytes; its length field is a signed 16-bit number.
pub use crate::limits::PROPERTIES_BYTES_MAX;

const NAME_END_BYTE: u8 = 1;
const ITEM_END_BYTE: u8 = 2;

/// Names that the protocol gives a meaning.
pub mod name {
    /// Index keys, separated by one space.
    pub const KEYS: &str = "KEYS";
    /// The tag that subscriptions filter by.
    pub const TAGS: &str = "TAGS";
    /// `true` or `false`: whether the sender waits for the broker's durability.
    pub const WAIT: &str = "WAIT";
    /// Delay level, 1 to 18.
    pub const DELAY: &str = "DELAY";
    /// Id given by the producer.
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    /// A second id of some clients.
    pub const EXTEND_UNIQ_INFO: &str = "EXTEND_UNIQ_INFO";
    /// `true` on half messages and, still, on committed ones.
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    /// Producer group of a transactional message.
    pub const PRODUCER_GROUP: &str = "PGROUP";
    /// Copy of the unique key on transactional messages.
    pub const TRANSACTION_ID: &str = "__transactionId__";
    /// Seconds after birth before which no check is sent.
    pub const CHECK_IMMUNITY_TIME: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// First half-queue offset of a half message that was stored again.
    pub const TRANSACTION_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    /// How many checks were sent so far.
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    /// Topic that a parked message goes to.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    /// Queue that a parked message goes to.
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    /// Original topic of a message in a retry topic.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// Id of a retried message as it was first consumed.
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// Reconsume count of a retry that a consumer sends itself.
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    /// Limit of such a retry.
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    /// Set by consumers for themselves.
    pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
    /// Set by consumers for themselves.
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    /// Set by consumers for themselves.
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    /// Region of the broker.
    pub const MSG_REGION: &str = "MSG_REGION";
    /// `true` or `false`: whether clients trace the message.
    pub const TRACE_ON: &str = "TRACE_ON";
    /// Cluster of the broker.
    pub const CLUSTER: &str = "CLUSTER";
    /// Namespace instance.
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    /// Historic.
    pub const BUYER_ID: &str = "BUYER_ID";
    /// Historic.
    pub const TRANSFER_FLAG: &str = "TRANSFER_FLAG";
    /// Historic.
    pub const CORRECTION_FLAG: &str = "CORRECTION_FLAG";
    /// Historic.
    pub const MQ2_FLAG: &str = "MQ2_FLAG";
    /// Original topic of a dead letter.
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    /// Original id of a dead letter.
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    /// `reply` on reply messages.
    pub const MESSAGE_TYPE: &str = "MSG_TYPE";
    /// Pairs a reply with its request.
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    /// Client id that a reply is pushed to.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// How long the requester waits, in milliseconds.
    pub const TTL: &str = "TTL";
    /// When the broker pushed a reply, in milliseconds since 1970.
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    /// Set by requesters for themselves.
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    /// Receipt of a popped message.
    pub const POP_CK: &str = "POP_CK";
    /// Offset part of an older receipt form.
    pub const POP_CK_OFFSET: &str = "POP_CK_OFFSET";
    /// When the message was popped for the first time, in milliseconds since 1970.
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    /// How many messages an inner batch holds.
    pub const INNER_NUM: &str = "INNER_NUM";
    /// First offset of an inner batch.
    pub const INNER_BASE: &str = "INNER_BASE";
    /// Light queues that get a copy, comma separated.
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    /// Offsets in these light queues.
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    /// Key whose messages stay in order.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    /// Deliver that many seconds after arrival.
    pub const TIMER_DELAY_SECONDS: &str = "TIMER_DELAY_SEC";
    /// Deliver that many milliseconds after arrival.
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Deliver at that time, in milliseconds since 1970.
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// When a parked timer message is due, in milliseconds since 1970.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    /// When a timer message was accepted, in milliseconds since 1970.
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    /// When a timer message left the timer, in milliseconds since 1970.
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    /// How often a timer message was moved on.
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
    /// Delay level turned into a timer.
    pub const TIMER_DELAY_LEVEL: &str = "TIMER_DELAY_LEVEL";
    /// Unique key of the timer message to recall.
    pub const TIMER_DELETE_UNIQUE_KEY: &str = "TIMER_DEL_UNIQKEY";
    /// Born host carried over a conversion.
    pub const BORN_HOST: &str = "__BORNHOST";
    /// Born time carried over a conversion.
    pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
    /// Static topics.
    pub const REDIRECT: &str = "REDIRECT";
    /// Static topics.
    pub const FORWARD_QUEUE_ID: &str = "PROPERTY_FORWARD_QUEUE_ID";
    /// Tracing context.
    pub const TRACE_CONTEXT: &str = "TRACE_CONTEXT";
    /// Historic.
    pub const DUP_INFO: &str = "DUP_INFO";
    /// Optional checksum over the unit, always last.
    pub const CRC32: &str = "__CRC32#";
    /// Names with this prefix are internal to a broker and never stored.
    pub const TRANSIENT_PREFIX: &str = "__RMQ.TRANSIENT.";

    /// Names that users may not set, besides those that have a setter of their own in every client.
    const RESERVED: &[&str] = &[
        KEYS,
        TAGS,
        WAIT,
        DELAY,
        UNIQUE_KEY,
        EXTEND_UNIQ_INFO,
        TRANSACTION_PREPARED,
        PRODUCER_GROUP,
        TRANSACTION_ID,
        TRANSACTION_PREPARED_QUEUE_OFFSET,
        TRANSACTION_CHECK_TIMES,
        REAL_TOPIC,
        REAL_QUEUE_ID,
        RETRY_TOPIC,
        ORIGIN_MESSAGE_ID,
        RECONSUME_TIME,
        MAX_RECONSUME_TIMES,
        CONSUME_START_TIME,
        MIN_OFFSET,
        MAX_OFFSET,
        MSG_REGION,
        TRACE_ON,
        CLUSTER,
        INSTANCE_ID,
        BUYER_ID,
        TRANSFER_FLAG,
        CORRECTION_FLAG,
        MQ2_FLAG,
        DLQ_ORIGIN_TOPIC,
        DLQ_ORIGIN_MESSAGE_ID,
        MESSAGE_TYPE,
        CORRELATION_ID,
        REPLY_TO_CLIENT,
        TTL,
        PUSH_REPLY_TIME,
        ARRIVE_TIME,
        POP_CK,
        POP_CK_OFFSET,
        FIRST_POP_TIME,
        INNER_NUM,
        INNER_BASE,
        INNER_MULTI_DISPATCH,
        INNER_MULTI_QUEUE_OFFSET,
        SHARDING_KEY,
        TIMER_DELAY_SECONDS,
        TIMER_DELAY_MS,
        TIMER_DELIVER_MS,
        TIMER_OUT_MS,
        TIMER_ENQUEUE_MS,
        TIMER_DEQUEUE_MS,
        TIMER_ROLL_TIMES,
        TIMER_DELAY_LEVEL,
        TIMER_DELETE_UNIQUE_KEY,
        BORN_HOST,
        BORN_TIMESTAMP,
        REDIRECT,
        FORWARD_QUEUE_ID,
        TRACE_CONTEXT,
        DUP_INFO,
        CRC32,
    ];

    /// Whether the protocol gives `name` a meaning, so that a user's own property may not have it.
    ///
    /// [`CHECK_IMMUNITY_TIME`] is not among them: users set it themselves.
    pub fn is_reserved(name: &str) -> bool {
        RESERVED.contains(&name) || name.starts_with(TRANSIENT_PREFIX)
    }
}

/// Why a property cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// Names and values are not empty.
    #[error("property {0:?} has an empty name or value")]
    Empty(String),
    /// The separators 0x01 and 0x02 may not occur in names or values.
    #[error("property {0:?} contains a separator byte")]
    Separator(String),
}

/// A property whose value cannot be what its name stands for. Its sender meant something that nobody can carry out, so it
/// is refused: to read it as absent would deliver at once what was to wait.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("property {name}={value} {wanted}")]
pub struct PropertyValueError {
    /// Its name.
    pub name: &'static str,
    /// The beginning of its value.
    pub value: String,
    /// The form that it should have had.
    pub wanted: &'static str,
}

impl PropertyValueError {
    /// Longest part of a value in a message, in characters.
    const SHOWN_MAX: usize = 64;

    /// Says of a property what its value should have been: `is no number`.
    pub fn new(name: &'static str, value: &str, wanted: &'static str) -> Self {
        Self { name, value: value.chars().take(Self::SHOWN_MAX).collect(), wanted }
    }
}

/// Values of properties that a broker acts upon.
pub mod value {
    use super::PropertyValueError;

    /// A whole number of this type, blanks around it aside.
    pub fn number<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, PropertyValueError> {
        text.trim().parse().map_err(|_| PropertyValueError::new(name, text, "is no number in its range"))
    }

    /// `true` or `false` in any case, blanks around it aside.
    pub fn boolean(name: &'static str, text: &str) -> Result<bool, PropertyValueError> {
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if trimmed.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(PropertyValueError::new(name, text, "is neither true nor false"))
        }
    }

    /// A length of time in milliseconds from a number of `unit` milliseconds each. What lies below zero has passed: 0.
    pub fn millis(name: &'static str, text: &str, unit: u64) -> Result<u64, PropertyValueError> {
        let count: i64 = number(name, text)?;
        let millis = u64::try_from(count).unwrap_or_default().checked_mul(unit);
        // Times are signed 64-bit numbers on the wire.
        millis
            .filter(|millis| i64::try_from(*millis).is_ok())
            .ok_or_else(|| PropertyValueError::new(name, text, "is longer than any time"))
    }
}

/// Reads a property string in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a> {
    text: &'a str,
}

impl<'a> Properties<'a> {
    /// Over `text`, which may be anything.
    pub const fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The string itself.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        Self::find(self.text.as_bytes(), name)
    }

    /// Whether `name` has a value.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of `name` as a number; `None` also if it is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    /// Whether the value of `name` is `true` in any case. A missing property is false.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// All items in the order written. A name that occurs twice comes twice; the later one counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.text.split(ITEM_END).filter_map(|item| {
            let (name, value) = item.split_once(NAME_END)?;
            (!name.is_empty() && !value.is_empty()).then_some((name, value))
        })
    }

    /// Whether something appended to this string must begin with 0x02.
    pub fn needs_item_end(&self) -> bool {
        !self.text.is_empty() && !self.text.ends_with(ITEM_END)
    }

    /// The value of `name` in `bytes`, which need not be UTF-8 elsewhere. Searches from the end: the last item of a
    /// name counts.
    pub(super) fn find<'b>(bytes: &'b [u8], name: &str) -> Option<&'b str> {
        let name = name.as_bytes();
        let value = bytes.rsplit(|&byte| byte == ITEM_END_BYTE).find_map(|item| {
            let value = item.strip_prefix(name)?.strip_prefix(&[NAME_END_BYTE])?;
            (!name.is_empty() && !value.is_empty()).then_some(value)
        })?;
        std::str::from_utf8(value).ok()
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Appends one property to `text`, with the separator in front that a hand-made string may lack.
///
/// Name and value are the program's own or have been read from another property string; a stranger's go through
/// [`PropertyEditor::set`].
pub fn append(text: &mut String, name: &str, value: impl fmt::Display) {
    use fmt::Write as _;
    if Properties::new(text).needs_item_end() {
        text.push(ITEM_END);
    }
    write!(text, "{name}{NAME_END}{value}{ITEM_END}").expect("a String takes everything");
}

/// Changes a property string. Names keep their order, new ones go to the end, a doubled name becomes one item.
#[derive(Clone, Debug, Default)]
pub struct PropertyEditor<'a> {
    items: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> PropertyEditor<'a> {
    /// Starts from `text`; items that readers would skip are dropped.
    pub fn new(text: &'a str) -> Self {
        let (mut items, mut places) = (Vec::new(), HashMap::new());
        for (name, value) in Properties::new(text).iter() {
            // A stranger's string may hold thousands of items, so none is searched for among the others.
            match places.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(items.len());
                    items.push((name.into(), value.into()));
                }
                Entry::Occupied(place) => items[*place.get()].1 = value.into(),
            }
        }
        Self { items }
    }

    /// The value of `name` as it is now.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.items.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// Sets `name`, in its old place if it has one.
    pub fn set(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, str>>,
    ) -> Result<&mut Self, PropertyError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || value.is_empty() {
            return Err(PropertyError::Empty(name.into_owned()));
        }
        if [&name, &value].iter().any(|text| text.contains([NAME_END, ITEM_END])) {
            return Err(PropertyError::Separator(name.into_owned()));
        }
        self.put(name, value);
        Ok(self)
    }

    /// Sets `name` only if it has no value yet.
    pub fn set_default(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, str>>,
    ) -> Result<&mut Self, PropertyError> {
        let name = name.into();
        if self.get(&name).is_some() { Ok(self) } else { self.set(name, value) }
    }

    /// Removes `name`, if it is there.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.items.retain(|(other, _)| other != name);
        self
    }

    /// The new string.
    pub fn finish(&self) -> String {
        let bytes = self.items.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut text = String::with_capacity(bytes);
        for (name, value) in &self.items {
            text.push_str(name);
            text.push(NAME_END);
            text.push_str(value);
            text.push(ITEM_END);
        }
        text
    }

    // A search, since a program sets a few names of its own.
    fn put(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        match self.items.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.items.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&str, &str)> {
        Properties::new(text).iter().collect()
    }

    #[test]
    fn odd_strings_read_as_everybody_reads_them() {
        assert_eq!(pairs("K1\u{2}K\u{1}v2"), [("K", "v2")]);
        assert_eq!(pairs("K\u{1}v\u{1}\u{2}"), [("K", "v\u{1}")]);
        assert_eq!(pairs("\u{2}\u{2}K\u{1}\u{2}\u{1}v\u{2}"), []);
        let doubled = Properties::new("K\u{1}v\u{2}KK\u{1}x\u{2}K\u{1}w\u{2}X");
        assert_eq!(doubled.get("K"), Some("w"));
        assert_eq!(doubled.get("KK"), Some("x"));
        assert_eq!(doubled.get("X"), None);
        assert_eq!(doubled.get(""), None);
    }

    #[test]
    fn an_empty_later_item_does_not_hide_an_earlier_value() {
        assert_eq!(Properties::new("K\u{1}v\u{2}K\u{1}\u{2}").get("K"), Some("v"));
    }

    #[test]
    fn numbers_and_truth() {
        let read = Properties::new("DELAY\u{1}3\u{2}TRAN_MSG\u{1}True\u{2}X\u{1}x\u{2}");
        assert_eq!(read.number::<i32>(name::DELAY), Some(3));
        assert_eq!(read.number::<i32>("X"), None);
        assert!(read.is_true(name::TRANSACTION_PREPARED));
        assert!(!read.is_true("X"));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error_and_never_a_default() {
        assert_eq!(value::number::<i32>(name::DELAY, " 3 "), Ok(3));
        assert_eq!(value::number::<i32>(name::DELAY, "-1"), Ok(-1));
        for bad in ["abc", "3sw81-abc", "1.5", "99999999999", "", "0x3", "\u{663}"] {
            assert!(value::number::<i32>(name::DELAY, bad).is_err(), "{bad}");
        }
        let said = value::number::<i32>(name::DELAY, &"9".repeat(1000)).unwrap_err().to_string();
        assert_eq!(said, format!("property DELAY={} is no number in its range", "9".repeat(64)));
        assert_eq!((value::boolean("X", "True"), value::boolean("X", " false ")), (Ok(true), Ok(false)));
        for bad in ["1", "yes", "true,sw8", ""] {
            assert!(value::boolean("X", bad).is_err(), "{bad}");
        }
        assert_eq!(value::millis("X", "2", 1000), Ok(2000));
        assert_eq!(value::millis("X", "-2", 1000), Ok(0));
        for (text, unit) in [("9223372036854775807", 1000), ("9223372036854776", 1000), ("9223372036854775808", 1)] {
            assert!(value::millis("X", text, unit).is_err(), "{text}");
        }
    }

    #[test]
    fn appending_repairs_a_missing_separator() {
        let mut text = "K\u{1}v".to_owned();
        append(&mut text, "N", 5);
        assert_eq!(text, "K\u{1}v\u{2}N\u{1}5\u{2}");
    }

    #[test]
    fn the_editor_keeps_order_and_collapses_doubles() {
        let mut editor = PropertyEditor::new("A\u{1}1\u{2}B\u{1}2\u{2}A\u{1}3");
        editor.set("B", "4").unwrap().set_default("A", "9").unwrap().set("C", "5").unwrap();
        assert_eq!(editor.finish(), "A\u{1}3\u{2}B\u{1}4\u{2}C\u{1}5\u{2}");
        editor.remove("A").remove("missing");
        assert_eq!(editor.get("A"), None);
        assert_eq!(editor.finish(), "B\u{1}4\u{2}C\u{1}5\u{2}");
    }

    #[test]
    fn a_separator_cannot_be_smuggled_in() {
        let mut editor = PropertyEditor::default();
        assert!(editor.set("A", "x\u{2}TRAN_MSG\u{1}true").is_err());
        assert!(editor.set("A\u{1}", "x").is_err());
        assert!(editor.set("", "x").is_err());
        assert!(editor.set("A", "").is_err());
        assert_eq!(editor.finish(), "");
    }

    #[test]
    fn reserved_names() {
        assert!(name::is_reserved("UNIQ_KEY"));
        assert!(name::is_reserved("__RMQ.TRANSIENT.x"));
        assert!(!name::is_reserved("color"));
    }
}
