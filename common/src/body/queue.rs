//! Naming a queue, and tables keyed by queues.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::bounds::bounded;
use super::json;
use crate::limits::{BROKER_NAME_BYTES_MAX, NAMED_TOPIC_BYTES_MAX};

/// A queue of a topic on a broker (group).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    /// Name of the broker (group).
    pub broker_name: String,
    /// Queue number from 0; -1 stands for all of a broker.
    #[serde(deserialize_with = "json::number")]
    pub queue_id: i32,
    /// Topic.
    pub topic: String,
}

impl MessageQueue {
    /// From its parts.
    pub fn new(topic: impl Into<String>, broker_name: impl Into<String>, queue_id: i32) -> Self {
        Self { broker_name: broker_name.into(), queue_id, topic: topic.into() }
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.topic, self.broker_name, self.queue_id)
    }
}

/// A table keyed by queue. On the wire the keys are objects; a list whose elements hold the queue's fields and an
/// `offset` is read too, as some clients write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct QueueTable<V>(pub BTreeMap<MessageQueue, V>);

impl<V> Default for QueueTable<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Deref for QueueTable<V> {
    type Target = BTreeMap<MessageQueue, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<V> DerefMut for QueueTable<V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<V> FromIterator<(MessageQueue, V)> for QueueTable<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<V> IntoIterator for QueueTable<V> {
    type Item = (MessageQueue, V);
    type IntoIter = std::collections::btree_map::IntoIter<MessageQueue, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a QueueTable<V> {
    type Item = (&'a MessageQueue, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, MessageQueue, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueTable<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Table(std::marker::PhantomData))
    }
}

struct Table<V>(std::marker::PhantomData<V>);

/// One element of the list form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Element<V> {
    #[serde(default)]
    broker_name: String,
    #[serde(default, deserialize_with = "json::number")]
    queue_id: i32,
    #[serde(default)]
    topic: String,
    offset: V,
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for Table<V> {
    type Value = QueueTable<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table keyed by queue, or a list of queues with offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = QueueTable::default();
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with('{') {
                let queue = serde_json::from_str(&key).map_err(A::Error::custom)?;
                table.insert(queue, map.next_value()?);
            } else {
                // Some writers put the text of an object's default notation here; nobody can read that back.
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(table)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut table = QueueTable::default();
        while let Some(element) = list.next_element::<Element<V>>()? {
            let queue = MessageQueue::new(element.topic, element.broker_name, element.queue_id);
            table.insert(queue, element.offset);
        }
        Ok(table)
    }
}

bounded! {
    MessageQueue { broker_name: BROKER_NAME_BYTES_MAX, queue_id, topic: NAMED_TOPIC_BYTES_MAX }
}

#[cfg(test)]
mod tests {
    use super::super::json::{Form, from_slice, to_bytes};
    use super::*;

    #[test]
    fn both_forms_are_read_and_the_loose_one_is_written() {
        let loose = br#"{{"brokerName":"b","queueId":1,"topic":"t"}:7}"#;
        let table: QueueTable<i64> = from_slice(loose).unwrap();
        assert_eq!(table[&MessageQueue::new("t", "b", 1)], 7);
        assert_eq!(to_bytes(&table, Form::Loose), loose.as_slice());
        let strict = to_bytes(&table, Form::Strict);
        assert_eq!(from_slice::<QueueTable<i64>>(&strict).unwrap(), table);
        let list = br#"[{"brokerName":"b","offset":7,"queueId":1,"topic":"t"}]"#;
        assert_eq!(from_slice::<QueueTable<i64>>(list).unwrap(), table);
    }

    #[test]
    fn a_key_that_is_no_queue_is_skipped_or_refused() {
        let table: QueueTable<i64> = from_slice(br#"{"MessageQueue [topic=t]":7}"#).unwrap();
        assert!(table.is_empty());
        assert!(from_slice::<QueueTable<i64>>(br#"{"{broken":7}"#).is_err());
    }
}
