//! Messages by position and by key.
//!
//! Both show only what is in a queue: a half message before its commit, a rolled-back one and one that waits for its
//! time are found by no id and no key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{Header as _, QueryMessageHeader, QueryMessageResponse, ViewMessageHeader};
use escrowmq_common::message::MessageUnit;
use escrowmq_common::message::properties::name;
use escrowmq_common::some_lines;

use super::slow;
use crate::broker::Broker;
use crate::key_index::{Candidate, words};
use crate::reply::Reply;
use crate::shard::ReadError;
use crate::terms::{Position, QueueOffset, Stamp};

/// Most messages of one answer, even if more are asked for.
const MESSAGES_MAX: usize = 64;
/// Most messages of one answer for a unique id; there is one, or the copies that its producer's retries made.
const UNIQUE_MAX: usize = 32;
/// Bytes of units after which an answer takes no further one. A frame holds twice that.
const ANSWER_BYTES: usize = 8 << 20;
/// Candidates that are looked up for one answer. It bounds the cost of a key that very many messages have.
const LOOKED_UP_MAX: usize = 4096;
/// Candidates that are passed over for their time.
const PASSED_OVER_MAX: usize = 1 << 20;
/// How long a query waits for the index to reach the newest message.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn view(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: ViewMessageHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let asked = header.offset;
    slow::run(broker, "view message", reply, move |broker, reply| {
        let mut unit = BytesMut::new();
        match u64::try_from(asked).ok().map(|asked| visible_unit(broker, Position(asked), &mut unit)) {
            Some(Ok(Some(_))) => reply.body(&unit),
            None | Some(Ok(None)) => {
                reply.error(response::SYSTEM_ERROR, &format!("can not find message by the offset, {asked}"));
            }
            Some(Err(error)) => reply.refuse(error),
        }
    });
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Number of its queue in the shard.
    queue: u32,
    /// Its queue offset.
    offset: QueueOffset,
    /// When it entered the queue.
    store_time: Stamp,
}

/// Appends the unit at a log position as consumers get it, if it is in a queue.
pub(super) fn visible_unit(
    broker: &Broker,
    position: Position,
    out: &mut BytesMut,
) -> Result<Option<Place>, ReadError> {
    let Some(located) = broker.shard.unit_at(position)? else { return Ok(None) };
    broker.shard.unit(&located.queue, &located.entry, out)?;
    let entry = &located.entry;
    Ok(Some(Place { queue: located.queue.id.0, offset: entry.offset, store_time: entry.store_time }))
}

/// A query for messages by key.
#[derive(Debug)]
struct Query {
    topic: String,
    key: String,
    /// The key is a unique id.
    is_unique: bool,
    limit: usize,
    /// Store times, both ends included.
    from: Stamp,
    upto: Stamp,
}

impl Query {
    fn new(header: &QueryMessageHeader<'_>) -> Self {
        let is_unique = header.unique_key || header.index_type == Some("U");
        let most = if is_unique { UNIQUE_MAX } else { MESSAGES_MAX };
        Self {
            topic: header.topic.to_owned(),
            key: header.key.to_owned(),
            is_unique,
            limit: usize::try_from(header.max_num).unwrap_or_default().clamp(1, most),
            from: Stamp(u64::try_from(header.begin_timestamp).unwrap_or_default()),
            upto: Stamp(u64::try_from(header.end_timestamp).unwrap_or_default()),
        }
    }

    /// Whether the candidate became visible too late, as it was stored too late.
    fn is_too_late(&self, candidate: &Candidate) -> bool {
        u64::from(candidate.stored_seconds) > self.upto.get() / 1000
    }

    /// Whether a unit is of this topic and has this key: the index only knows hashes.
    fn matches(&self, unit: &[u8]) -> bool {
        let Ok(unit) = MessageUnit::decode(unit) else { return false };
        let is_unique_key = || unit.property(name::UNIQUE_KEY) == Some(self.key.as_str());
        let is_key = || unit.property(name::KEYS).is_some_and(|keys| words(keys).any(|word| word == self.key));
        unit.topic() == self.topic && (is_unique_key() || !self.is_unique && is_key())
    }
}

pub(super) fn query(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let query = match QueryMessageHeader::decode(&request.fields) {
        Ok(header) => Query::new(&header),
        Err(error) => return reply.refuse(error),
    };
    slow::run(broker, "query message", reply, move |broker, reply| {
        // Then every message whose send was answered before this request came is in the index; else the answer says how far it is.
        if let Some(applied) = broker.shard.counters().applied_index() {
            broker.keys.catch_up(applied, PATIENCE);
        }
        let reach = broker.keys.reach();
        let mut units = BytesMut::new();
        let found = match find(broker, &query, &mut units) {
            Ok(found) => found,
            Err(error) => return reply.error(response::SYSTEM_ERROR, &error.to_string()),
        };
        let (code, remark) = match found {
            0 => (response::QUERY_NOT_FOUND, Some("can not find message, maybe time range not correct")),
            _ => (response::SUCCESS, None),
        };
        let header = QueryMessageResponse {
            index_last_update_timestamp: reach.map_or(0, |reach| reach.stamp.signed()),
            index_last_update_position: reach.map_or(0, |reach| reach.position.signed()),
        };
        reply.send(code, remark, |fields| header.write(fields), &[&units]);
    });
}

/// Appends the messages of a query, newest first, and says how many there are.
fn find(broker: &Broker, query: &Query, out: &mut BytesMut) -> std::io::Result<usize> {
    let mut places = HashSet::new();
    let mut found = 0;
    let mut looked_up = 0;
    for candidate in broker.keys.candidates(&query.topic, &query.key).take(PASSED_OVER_MAX) {
        let candidate = candidate?;
        if query.is_too_late(&candidate) {
            continue;
        }
        if found == query.limit || out.len() >= ANSWER_BYTES || looked_up == LOOKED_UP_MAX {
            break;
        }
        looked_up += 1;
        let start = out.len();
        let place = visible_unit(broker, candidate.position, out).unwrap_or_else(|error| {
            // One message that cannot be read hides no other.
            some_lines!(warn, position = %candidate.position, %error, "a message with the asked key cannot be read");
            None
        });
        let in_time = |place: &Place| (query.from..=query.upto).contains(&place.store_time);
        // A message whose bytes were moved has two positions and one place.
        let is_wanted =
            place.is_some_and(|place| in_time(&place) && query.matches(&out[start..]) && places.insert(place));
        if is_wanted {
            found += 1;
        } else {
            out.truncate(start);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use escrowmq_common::message::UnitBuilder;

    use super::*;

    fn unit(topic: &str, properties: &str) -> BytesMut {
        let host = "127.0.0.1:1".parse().unwrap();
        let mut out = BytesMut::new();
        UnitBuilder::to_store(topic, 0, host, b"x", &[properties]).write(&mut out).unwrap();
        out
    }

    fn query(key: &str, is_unique: bool) -> Query {
        let fields = Frame::request(12)
            .with_field("topic", "T")
            .with_field("key", key)
            .with_field("maxNum", 1_000_000)
            .with_field("beginTimestamp", -5)
            .with_field("endTimestamp", i64::MAX)
            .with_field("_UNIQUE_KEY_QUERY", is_unique)
            .fields;
        Query::new(&QueryMessageHeader::decode(&fields).unwrap())
    }

    #[test]
    fn a_hit_has_the_very_key_and_topic() {
        let message = unit("T", "KEYS\u{1}one two\u{2}UNIQ_KEY\u{1}id\u{2}");
        for key in ["one", "two", "id"] {
            assert!(query(key, false).matches(&message), "{key}");
            assert!(!query(key, false).matches(&unit("U", "KEYS\u{1}one two\u{2}UNIQ_KEY\u{1}id\u{2}")));
        }
        assert!(query("id", true).matches(&message));
        for key in ["on", "one two", "three", ""] {
            assert!(!query(key, false).matches(&message), "{key}");
        }
        assert!(!query("one", true).matches(&message));
        assert!(!query("one", false).matches(&message[..20]));
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let asked = query("k", false);
        assert_eq!((asked.limit, asked.from, asked.upto), (MESSAGES_MAX, Stamp::ZERO, Stamp(i64::MAX as u64)));
        assert_eq!(query("k", true).limit, UNIQUE_MAX);
        let late = Candidate { position: Position::ZERO, stored_seconds: 6 };
        assert!(Query { upto: Stamp(5_999), ..query("k", false) }.is_too_late(&late));
        assert!(!Query { upto: Stamp(6_000), ..query("k", false) }.is_too_late(&late));
    }
}
