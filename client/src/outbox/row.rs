//! A row: a message that waits in a table, and where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::message::java_hash;
use escrowmq_common::message::properties::name;

use super::error::AddError;
use crate::message::Message;
use crate::producer::seal;

/// Slots of messages with a sharding key. Those of one key are in one slot, and a slot is one relay's at a time. A number that
/// most numbers of queues divide: then the messages of a slot go to one queue together.
pub(super) const KEY_SLOTS: i64 = 64;
/// Slots of messages without one, which need no order. They follow the others, so that a broker that is away does not hold up
/// what another one could take.
pub(super) const FREE_SLOTS: i64 = 64;
/// All of them.
pub(super) const SLOTS: i64 = KEY_SLOTS + FREE_SLOTS;

/// A place of a slot in an order that mixes both kinds: any run of it has about as many of each.
#[cfg(any(feature = "sql", test))]
pub(super) fn mixed(slot: i64) -> i64 {
    slot * 37 % SLOTS
}

/// The largest row, with its body and properties, in bytes.
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;

/// What the columns of all databases hold.
const KEY_CHARS_MAX: usize = 4096;
const ID_CHARS_MAX: usize = 512;

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OutboxState {
    /// It is to be sent.
    Waiting,
    /// An earlier message of its key has failed. It waits until a person has looked at that one.
    Held,
    /// It was refused, and is not tried again before a person says so.
    Failed,
    /// A broker has it. Such rows are there for the time of [`keep_sent`](super::RelayBuilder::keep_sent) only.
    Sent,
}

impl OutboxState {
    /// All of them.
    pub const ALL: [OutboxState; 4] = [OutboxState::Waiting, OutboxState::Held, OutboxState::Failed, OutboxState::Sent];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            OutboxState::Waiting => "waiting",
            OutboxState::Held => "held",
            OutboxState::Failed => "failed",
            OutboxState::Sent => "sent",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<OutboxState> {
        OutboxState::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for OutboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A row as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxRow {
    /// Its number, which grows in the order in which messages were added.
    pub id: i64,
    /// Where it stands.
    pub state: OutboxState,
    /// The tenant that it was added for; empty if there are none.
    pub tenant: String,
    /// The topic.
    pub topic: String,
    /// The sharding key; empty if it has none.
    pub key: String,
    /// The unique id that every try carries.
    pub unique_id: String,
    /// Bytes of body and properties.
    pub bytes: u64,
    /// How often a broker refused it.
    pub attempts: u32,
    /// Why the last try failed. Empty before one, and of rows that wait behind such a one in their queue.
    pub last_error: String,
    /// When it was added, by the database's clock in UTC.
    pub created_at: String,
    /// When its state changed last, by the same clock.
    pub changed_at: String,
    /// How long ago it was added.
    pub age: Duration,
}

/// Which rows a person wants to see.
#[derive(Clone, Debug, Default)]
pub struct OutboxQuery {
    /// Those in this state alone.
    pub state: Option<OutboxState>,
    /// Those after this id.
    pub after: i64,
    /// At most so many; 0 stands for 100.
    pub limit: u32,
}

impl OutboxQuery {
    pub(super) fn limit(&self) -> u32 {
        if self.limit == 0 { 100 } else { self.limit }
    }
}

/// A row as it is written.
pub(super) struct NewRow {
    pub(super) slot: i64,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) unique_id: String,
    pub(super) flag: i64,
    pub(super) properties: String,
    pub(super) body: Bytes,
}

impl NewRow {
    /// The row of a message, which is checked as a producer would.
    pub(super) fn of(mut message: Message) -> Result<NewRow, AddError> {
        #[cfg(feature = "opentelemetry")]
        crate::trace::keep_current(&mut message);
        message.validate(ROW_BYTES_MAX).map_err(|error| AddError::Invalid { reason: error.to_string() })?;
        let unique_id = seal(&mut message, true);
        let key = message.get(name::SHARDING_KEY).unwrap_or_default().to_owned();
        let properties: BTreeMap<&str, &str> = message.properties().collect();
        let properties = serde_json::to_string(&properties).expect("texts are JSON");
        for (what, text, max) in [("sharding key", &key, KEY_CHARS_MAX), ("unique id", &unique_id, ID_CHARS_MAX)] {
            let length = text.chars().count();
            if length > max || text.contains('\0') {
                let reason = format!("the {what} has {length} characters, the limit is {max}; none may be a zero");
                return Err(AddError::Invalid { reason });
            }
        }
        let row = NewRow {
            slot: slot(&key, &unique_id),
            topic: message.topic().to_owned(),
            key,
            unique_id,
            flag: message.flag_value().into(),
            properties,
            body: message.body().clone(),
        };
        if row.bytes() > ROW_BYTES_MAX {
            return Err(AddError::TooLarge { bytes: row.bytes(), max: ROW_BYTES_MAX });
        }
        Ok(row)
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.properties.len()
    }
}

/// The slot of a key, or of an id if there is none. The hash is the one that chooses the queue of a key.
pub(super) fn slot(key: &str, unique_id: &str) -> i64 {
    let hash = |text: &str| i64::from(java_hash(text).unsigned_abs());
    if key.is_empty() { KEY_SLOTS + hash(unique_id) % FREE_SLOTS } else { hash(key) % KEY_SLOTS }
}

/// A row as a relay reads it.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) id: i64,
    pub(super) slot: i64,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) unique_id: String,
    pub(super) flag: i64,
    pub(super) properties: String,
    /// Large ones are read when they are sent.
    pub(super) body: Option<Bytes>,
    pub(super) bytes: i64,
    pub(super) attempts: i64,
    pub(super) age_ms: i64,
}

impl Work {
    /// The message as it was added. The error says that somebody else has written the row.
    pub(super) fn message(&self, body: Bytes) -> Result<Message, String> {
        let properties: BTreeMap<String, String> =
            serde_json::from_str(&self.properties).map_err(|error| format!("its properties: {error}"))?;
        let flag = i32::try_from(self.flag).map_err(|_| format!("its flag {} is no 32-bit number", self.flag))?;
        let mut message = Message::new(self.topic.as_str(), body).flag(flag);
        for (name, value) in properties {
            message.restore(name, value);
        }
        // The columns count: a person may have mended them.
        message.set(name::UNIQUE_KEY, self.unique_id.as_str());
        if !self.key.is_empty() {
            message.set(name::SHARDING_KEY, self.key.as_str());
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(message: Message) -> Message {
        let row = NewRow::of(message).expect("a good message");
        let work = Work {
            id: 1,
            slot: row.slot,
            topic: row.topic,
            key: row.key,
            unique_id: row.unique_id,
            flag: row.flag,
            properties: row.properties,
            body: None,
            bytes: 0,
            attempts: 0,
            age_ms: 0,
        };
        work.message(row.body).expect("readable")
    }

    #[cfg(feature = "opentelemetry")]
    #[test]
    fn a_row_keeps_the_trace_context_of_the_span_that_added_it() {
        use opentelemetry::trace::TracerProvider as _;
        use tracing_subscriber::layer::SubscriberExt as _;

        let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder().build().tracer("test");
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let back = tracing::info_span!("order").in_scope(|| restored(Message::new("T", "b")));
            assert!(back.get("traceparent").is_some_and(|parent| parent.len() == 55), "{back:?}");
        });
    }

    #[test]
    fn a_message_comes_back_as_it_was_added() {
        let message = Message::new("T", "b").tag("a").key("k").keys(["l"]).sharding_key("s").unique_id("mine");
        let message = message.property("quote", "\"ü\"\n").flag(-7).delay_level(3).wait_stored(false);
        let back = restored(message.clone());
        assert_eq!((back.topic(), back.body(), back.flag_value()), (message.topic(), message.body(), -7));
        let sorted = |message: &Message| {
            message.properties().map(|(a, b)| (a.to_owned(), b.to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(sorted(&back), sorted(&message));
        back.validate(ROW_BYTES_MAX).expect("it can be sent");
        let timed = Message::new("T", "b").deliver_after(Duration::from_secs(9)).check_immunity(Duration::from_secs(9));
        restored(timed).validate(ROW_BYTES_MAX).expect("it can be sent");
        assert_eq!(restored(Message::new("T", "b")).get(name::UNIQUE_KEY).map(str::len), Some(32));
    }

    #[test]
    fn what_cannot_be_sent_is_not_added() {
        let refused = |message| NewRow::of(message).err().expect("refused");
        assert!(matches!(refused(Message::new("bad topic", "b")), AddError::Invalid { .. }));
        assert!(matches!(refused(Message::new("T", "")), AddError::Invalid { .. }));
        assert!(matches!(refused(Message::new("T", "b").sharding_key("k".repeat(4097))), AddError::Invalid { .. }));
        assert!(matches!(refused(Message::new("T", "b").unique_id("i".repeat(513))), AddError::Invalid { .. }));
        assert!(matches!(refused(Message::new("T", "b").sharding_key("a\0b")), AddError::Invalid { .. }));
        NewRow::of(Message::new("T", "b").sharding_key("k".repeat(4096))).expect("it has room");
        let large = Message::new("T", vec![0; ROW_BYTES_MAX]).property("a", "b");
        assert!(matches!(refused(large), AddError::TooLarge { .. }));
    }

    #[test]
    fn any_half_of_the_slots_has_both_kinds() {
        let mut slots: Vec<i64> = (0..SLOTS).collect();
        slots.sort_by_key(|slot| mixed(*slot));
        assert_eq!(slots.iter().map(|slot| mixed(*slot)).collect::<Vec<_>>(), (0..SLOTS).collect::<Vec<_>>());
        for half in slots.windows(usize::try_from(SLOTS / 2).expect("a number")) {
            let keyed = half.iter().filter(|slot| **slot < KEY_SLOTS).count();
            assert!((24..=40).contains(&keyed), "{keyed} of {}", half.len());
        }
    }

    #[test]
    fn a_key_keeps_its_slot_and_no_key_has_others() {
        assert_eq!(slot("order-17", "a"), slot("order-17", "b"));
        assert!((0..KEY_SLOTS).contains(&slot("order-17", "a")));
        assert!((KEY_SLOTS..SLOTS).contains(&slot("", "a")));
        // The hash of this text is the least 32-bit number, which has no absolute value of that width.
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert!((0..KEY_SLOTS).contains(&slot("polygenelubricants", "a")));
    }
}
