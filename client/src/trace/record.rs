//! Records of the message trace, as the Java client writes them. Pure.
//!
//! A record is a line of fields that 0x01 separates, and ends with 0x02. The first field is its kind: `Pub` a message that was
//! sent, `SubBefore` and `SubAfter` the beginning and the end of a handler, `EndTransaction` a decision. A field without a
//! value is `null`.

use std::fmt::Write as _;
use std::sync::Arc;

use escrowmq_common::message::Properties;
use escrowmq_common::message::properties::name;

use crate::transaction::Decision;

/// Between the fields of a record.
const FIELD_END: char = '\u{1}';
/// Behind a record.
const RECORD_END: char = '\u{2}';

/// A body of records is sent when it has this many bytes, as other clients do.
const BODY_BYTES: usize = 118_000;
/// So it is when its index keys have this many: a message may have 32 KiB of properties.
const KEYS_BYTES: usize = 16_000;

/// What a message is called besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) tags: Option<Arc<str>>,
    /// Separated by blanks.
    pub(crate) keys: Option<Arc<str>>,
}

impl Labels {
    /// Those in a message's properties.
    pub(crate) fn of(properties: &str) -> Labels {
        let properties = Properties::new(properties);
        let get = |name| properties.get(name).map(Arc::from);
        Labels { tags: get(name::TAGS), keys: get(name::KEYS) }
    }
}

/// Kinds of messages, by their number in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal = 0,
    Half = 1,
    Committed = 2,
    Delayed = 3,
}

/// How a handler ended, by its number in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandlerEnd {
    Success = 0,
    TimedOut = 1,
    Failed = 4,
}

/// A decision, as Java spells it.
fn state(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "COMMIT_MESSAGE",
        Decision::Rollback => "ROLLBACK_MESSAGE",
        Decision::Unknown | Decision::InProgress { .. } => "UNKNOW",
    }
}

/// A message in a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) message_id: String,
    pub(crate) reconsume_times: u32,
    pub(crate) keys: Option<Arc<str>>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A broker has answered a send.
    Sent {
        at_ms: i64,
        region: Arc<str>,
        group: Arc<str>,
        topic: Arc<str>,
        message_id: String,
        labels: Labels,
        /// The broker's address.
        store_host: String,
        body_bytes: usize,
        cost_ms: i64,
        kind: Kind,
        offset_message_id: String,
        /// Stored as the broker is configured to.
        success: bool,
    },
    /// A handler begins.
    Began { at_ms: i64, region: Arc<str>, group: Arc<str>, request_id: Arc<str>, messages: Arc<[Consumed]> },
    /// A handler has ended.
    Handled {
        at_ms: i64,
        group: Arc<str>,
        request_id: Arc<str>,
        messages: Arc<[Consumed]>,
        /// Per message.
        cost_ms: i64,
        end: HandlerEnd,
    },
    /// A decision about a half message was sent.
    Decided {
        at_ms: i64,
        region: Arc<str>,
        group: Arc<str>,
        topic: Arc<str>,
        message_id: String,
        transaction_id: String,
        labels: Labels,
        store_host: String,
        decision: Decision,
        /// It answers a check of the broker.
        from_check: bool,
    },
}

impl Record {
    /// Appends the record.
    fn write(&self, out: &mut String) {
        match self {
            Record::Sent {
                at_ms,
                region,
                group,
                topic,
                message_id,
                labels,
                store_host,
                body_bytes,
                cost_ms,
                kind,
                offset_message_id,
                success,
            } => Line::begin(out, "Pub")
                .add(at_ms)
                .add(region)
                .add(group)
                .add(topic)
                .add(message_id)
                .add(or_null(labels.tags.as_ref()))
                .add(or_null(labels.keys.as_ref()))
                .add(store_host)
                .add(body_bytes)
                .add(cost_ms)
                .add(*kind as i32)
                .add(offset_message_id)
                .add(success)
                .end(),
            Record::Began { at_ms, region, group, request_id, messages } => {
                for message in messages.iter() {
                    Line::begin(out, "SubBefore")
                        .add(at_ms)
                        .add(region)
                        .add(group)
                        .add(request_id)
                        .add(&message.message_id)
                        .add(message.reconsume_times)
                        .add(or_null(message.keys.as_ref()))
                        .end();
                }
            }
            Record::Handled { at_ms, group, request_id, messages, cost_ms, end } => {
                for message in messages.iter() {
                    Line::begin(out, "SubAfter")
                        .add(request_id)
                        .add(&message.message_id)
                        .add(cost_ms)
                        .add(*end == HandlerEnd::Success)
                        .add(or_null(message.keys.as_ref()))
                        .add(*end as i32)
                        .add(at_ms)
                        .add(group)
                        .end();
                }
            }
            Record::Decided {
                at_ms,
                region,
                group,
                topic,
                message_id,
                transaction_id,
                labels,
                store_host,
                decision,
                from_check,
            } => Line::begin(out, "EndTransaction")
                .add(at_ms)
                .add(region)
                .add(group)
                .add(topic)
                .add(message_id)
                .add(or_null(labels.tags.as_ref()))
                .add(or_null(labels.keys.as_ref()))
                .add(store_host)
                .add(Kind::Committed as i32)
                .add(transaction_id)
                .add(state(*decision))
                .add(from_check)
                .end(),
        }
    }

    /// The index keys under which the record is found: ids and the users' keys.
    fn keys(&self) -> Vec<(&str, Option<&str>)> {
        match self {
            Record::Sent { message_id, labels, .. } | Record::Decided { message_id, labels, .. } => {
                vec![(message_id, labels.keys.as_deref())]
            }
            Record::Began { messages, .. } | Record::Handled { messages, .. } => {
                messages.iter().map(|message| (message.message_id.as_str(), message.keys.as_deref())).collect()
            }
        }
    }
}

/// A record on its way into the text.
struct Line<'a>(&'a mut String);

impl<'a> Line<'a> {
    fn begin(out: &'a mut String, kind: &str) -> Line<'a> {
        out.push_str(kind);
        Line(out)
    }

    fn add(self, field: impl std::fmt::Display) -> Line<'a> {
        self.0.push(FIELD_END);
        write!(self.0, "{field}").expect("text takes everything");
        self
    }

    fn end(self) {
        self.0.push(RECORD_END);
    }
}

fn or_null(text: Option<&Arc<str>>) -> &str {
    text.map_or("null", |text| text)
}

/// Records in the form of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) body: String,
    /// Separated by blanks; each once.
    pub(super) keys: String,
    /// How many records it holds.
    pub(super) records: u64,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.body.len() >= BODY_BYTES || self.keys.len() >= KEYS_BYTES
    }

    fn add_key(&mut self, key: &str) {
        if !self.keys.split(' ').any(|other| other == key) {
            if !self.keys.is_empty() {
                self.keys.push(' ');
            }
            self.keys.push_str(key);
        }
    }
}

/// Records in messages of a bounded size, in order.
pub(super) fn chunks(records: &[Record]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for record in records {
        if chunks.last().is_none_or(Chunk::is_full) {
            chunks.push(Chunk::default());
        }
        let chunk = chunks.last_mut().expect("one was added");
        record.write(&mut chunk.body);
        chunk.records += 1;
        for (id, keys) in record.keys() {
            chunk.add_key(id);
            // Users' keys are there for convenience: one of them may be as large as all properties together.
            for key in keys.unwrap_or_default().split(' ').filter(|key| !key.is_empty() && key.len() < KEYS_BYTES / 2) {
                if chunk.keys.len() < KEYS_BYTES {
                    chunk.add_key(key);
                }
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &Record) -> String {
        let mut text = String::new();
        record.write(&mut text);
        text.replace(FIELD_END, "|").replace(RECORD_END, "$")
    }

    fn labels(tags: &str, keys: &str) -> Labels {
        Labels { tags: Some(tags.into()), keys: Some(keys.into()) }
    }

    fn sent(message_id: &str, labels: Labels) -> Record {
        Record::Sent {
            at_ms: 1_796_120_186_187,
            region: "DefaultRegion".into(),
            group: "PG".into(),
            topic: "Orders".into(),
            message_id: message_id.to_owned(),
            labels,
            store_host: "127.0.0.1:30911".to_owned(),
            body_bytes: 5,
            cost_ms: 117,
            kind: Kind::Normal,
            offset_message_id: "7F000001000078BF0000000000000000".to_owned(),
            success: true,
        }
    }

    fn consumed(keys: Option<&str>) -> Arc<[Consumed]> {
        let message = Consumed { message_id: "M1".to_owned(), reconsume_times: 0, keys: keys.map(Arc::from) };
        Arc::new([message])
    }

    // What the Java client 5.3.3 wrote for the same events, read from RMQ_SYS_TRACE_TOPIC.

    #[test]
    fn a_sent_message_is_written_as_java_writes_it() {
        assert_eq!(
            text(&sent("FD0000000000000000000000000000026B761DBD16A602345D4A0000", labels("created", "k1 k2"))),
            "Pub|1796120186187|DefaultRegion|PG|Orders|FD0000000000000000000000000000026B761DBD16A602345D4A0000|created\
             |k1 k2|127.0.0.1:30911|5|117|0|7F000001000078BF0000000000000000|true$"
        );
        let mut delayed = sent("M1", Labels::default());
        if let Record::Sent { kind, .. } = &mut delayed {
            *kind = Kind::Delayed;
        }
        assert_eq!(
            text(&delayed),
            "Pub|1796120186187|DefaultRegion|PG|Orders|M1|null|null|127.0.0.1:30911|5|117|3\
             |7F000001000078BF0000000000000000|true$"
        );
    }

    #[test]
    fn a_handler_is_written_as_java_writes_it() {
        let (group, request_id): (Arc<str>, Arc<str>) = ("CG".into(), "R1".into());
        let began = |keys| Record::Began {
            at_ms: 1_796_120_189_948,
            region: "DefaultRegion".into(),
            group: group.clone(),
            request_id: request_id.clone(),
            messages: consumed(keys),
        };
        assert_eq!(text(&began(Some("k1 k2"))), "SubBefore|1796120189948|DefaultRegion|CG|R1|M1|0|k1 k2$");
        // An empty last field would be cut off by Java's `split`, and the record not be read.
        assert_eq!(text(&began(None)), "SubBefore|1796120189948|DefaultRegion|CG|R1|M1|0|null$");
        let handled = |end| Record::Handled {
            at_ms: 1_796_120_189_948,
            group: group.clone(),
            request_id: request_id.clone(),
            messages: consumed(Some("k1 k2")),
            cost_ms: 2,
            end,
        };
        assert_eq!(text(&handled(HandlerEnd::Success)), "SubAfter|R1|M1|2|true|k1 k2|0|1796120189948|CG$");
        assert_eq!(text(&handled(HandlerEnd::TimedOut)), "SubAfter|R1|M1|2|false|k1 k2|1|1796120189948|CG$");
        assert_eq!(text(&handled(HandlerEnd::Failed)), "SubAfter|R1|M1|2|false|k1 k2|4|1796120189948|CG$");
    }

    #[test]
    fn a_decision_is_written_as_java_writes_it() {
        let decided = |decision, labels, from_check| Record::Decided {
            at_ms: 1_796_120_186_566,
            region: "DefaultRegion".into(),
            group: "TG".into(),
            topic: "Orders".into(),
            message_id: "M1".to_owned(),
            transaction_id: "T1".to_owned(),
            labels,
            store_host: "127.0.0.1:30911".to_owned(),
            decision,
            from_check,
        };
        assert_eq!(
            text(&decided(Decision::Commit, labels("tx", "kt"), false)),
            "EndTransaction|1796120186566|DefaultRegion|TG|Orders|M1|tx|kt|127.0.0.1:30911|2|T1|COMMIT_MESSAGE|false$"
        );
        assert_eq!(
            text(&decided(Decision::Unknown, Labels::default(), true)),
            "EndTransaction|1796120186566|DefaultRegion|TG|Orders|M1|null|null|127.0.0.1:30911|2|T1|UNKNOW|true$"
        );
        assert!(text(&decided(Decision::Rollback, Labels::default(), false)).contains("|ROLLBACK_MESSAGE|"));
    }

    #[test]
    fn records_share_messages_of_a_bounded_size_and_are_found_by_all_their_keys() {
        let records = [sent("M1", labels("t", "k1 k2")), sent("M2", labels("t", "k2")), sent("M1", Labels::default())];
        let [chunk] = &chunks(&records)[..] else { panic!("one message") };
        assert_eq!((chunk.keys.as_str(), chunk.records), ("M1 k1 k2 M2", 3));
        assert_eq!(chunk.body.matches(RECORD_END).count(), 3);

        let long = "k".repeat(7000);
        let records: Vec<Record> =
            (0..1000).map(|n| sent(&format!("M{n}"), labels("t", &format!("{n}{long}")))).collect();
        let chunks = chunks(&records);
        assert_eq!(chunks.iter().map(|chunk| chunk.records).sum::<u64>(), 1000);
        let largest = chunks.iter().map(|chunk| (chunk.body.len(), chunk.keys.len())).max().expect("some");
        assert!(largest.0 < BODY_BYTES + 8000, "{largest:?}");
        assert!(chunks.iter().all(|chunk| chunk.keys.len() < KEYS_BYTES + KEYS_BYTES / 2));
    }
}
