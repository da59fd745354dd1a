//! The part of a registration that routes are made of. A nameserver looks at nothing else.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::parts::Parts;
use super::{REGISTRATION_TOPICS_MAX, RegistrationError};
use crate::body::bounds::{self, Bounded};
use crate::body::json;
use crate::body::topic::{DataVersion, TopicConfig};
use crate::limits::{
    NAMED_TOPIC_BYTES_MAX, REGISTRATION_MAPPED_MAX, REGISTRATION_MAPPINGS_MAX, REGISTRATION_PARTS_MAX,
};

/// A topic as a route shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTopic {
    /// Name.
    pub name: String,
    /// How many queues consumers read.
    pub read: i32,
    /// How many queues producers write.
    pub write: i32,
    /// See [`Perm`](crate::name::Perm).
    pub perm: i32,
    /// Unit bits; the packed form loses them.
    pub sys_flag: i32,
}

/// A static topic's mapping, as brokers write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueMappingInfo {
    /// The broker group.
    pub bname: String,
    /// Logical queue number to the group's own queue number.
    pub curr_id_map: BTreeMap<i32, i32>,
    /// Set while a remapping is under way.
    pub dirty: bool,
    /// Grows with each remapping.
    pub epoch: i64,
    /// The scope that the mapping belongs to.
    pub scope: Option<String>,
    /// The topic.
    pub topic: String,
    /// Logical queues in all groups together.
    pub total_queues: i32,
}

/// Body of `REGISTER_BROKER` as far as routes are concerned, in the order in which it came; a name may be there twice, and
/// then the later one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisteredTopics {
    /// Names the state of the broker's topics.
    pub data_version: DataVersion,
    /// The topics.
    pub topics: Vec<RegisteredTopic>,
    /// Topics that are not among them, because no client can name them: their names have more than 255 bytes.
    pub unnameable: usize,
    /// Mappings of static topics.
    pub mappings: Vec<QueueMappingInfo>,
}

impl RegisteredTopics {
    /// Reads a body; `is_compressed` is what the header says. One of a million topics takes about 80 bytes for each, and
    /// their names.
    pub fn decode(body: &[u8], is_compressed: bool) -> Result<Self, RegistrationError> {
        if !is_compressed {
            let body: Body = json::from_slice(body)?;
            return Ok(body.topic_config_serialize_wrapper.into());
        }
        let mut parts = Parts::unpack(body);
        let data_version = json::from_slice(parts.part()?)?;
        let mut topics = Topics::default();
        for _ in 0..parts.topic_count()? {
            let (topic, ..) = words_of(parts.part()?)?;
            topics.add(topic.name.len(), || topic.to_owned());
        }
        parts.part()?; // filter servers, of which there are none any more
        let mut mappings = Mappings::default();
        parts.mappings(|mapping| mappings.add(json::from_slice(mapping)?))?;
        parts.finish()?;
        Ok(Self { data_version, topics: topics.named, unnameable: topics.unnameable, mappings: mappings.all })
    }

    /// Reads a body as brokers before 3.0.11 sent it: the topics alone.
    pub fn decode_bare(body: &[u8]) -> Result<Self, RegistrationError> {
        let table: Table = json::from_slice(body)?;
        Ok(table.into())
    }
}

// Its reader looks at the names that it keeps, and at what all of them take together.
impl Bounded for Body {}

impl bounds::Body for Body {
    const PARTS_MAX: usize = REGISTRATION_PARTS_MAX;
}

impl Bounded for Table {}

impl bounds::Body for Table {
    const PARTS_MAX: usize = REGISTRATION_PARTS_MAX;
}

impl Bounded for QueueMappingInfo {}

impl bounds::Body for QueueMappingInfo {}

/// The words of a topic's line before they are copied.
pub(super) struct Words<'a> {
    pub(super) name: &'a str,
    pub(super) read: i32,
    pub(super) write: i32,
    pub(super) perm: i32,
}

impl Words<'_> {
    fn to_owned(&self) -> RegisteredTopic {
        RegisteredTopic { name: self.name.to_owned(), read: self.read, write: self.write, perm: self.perm, sys_flag: 0 }
    }
}

/// Takes a topic's line apart: the words, the filter type, and the attributes if there are any.
pub(super) fn words_of(line: &[u8]) -> Result<(Words<'_>, &str, Option<&str>), RegistrationError> {
    let line = std::str::from_utf8(line).map_err(|_| RegistrationError::Topic)?;
    let mut words = line.splitn(6, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(RegistrationError::Topic);
    let number = |word: &str| word.parse().map_err(|_| RegistrationError::Topic);
    let topic = Words { name: word()?, read: number(word()?)?, write: number(word()?)?, perm: number(word()?)? };
    let filter_type = word()?;
    Ok((topic, filter_type, words.next()))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    topic_config_serialize_wrapper: Table,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_field_names, reason = "the protocol's names")]
struct Table {
    data_version: DataVersion,
    topic_config_table: Topics,
    topic_queue_mapping_info_map: Mappings,
}

impl From<Table> for RegisteredTopics {
    fn from(table: Table) -> Self {
        RegisteredTopics {
            data_version: table.data_version,
            topics: table.topic_config_table.named,
            unnameable: table.topic_config_table.unnameable,
            mappings: table.topic_queue_mapping_info_map.all,
        }
    }
}

/// One topic's settings; what is missing is as [`TopicConfig`] has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    #[serde(deserialize_with = "json::number")]
    perm: i32,
    #[serde(deserialize_with = "json::number")]
    read_queue_nums: i32,
    #[serde(deserialize_with = "json::number")]
    topic_sys_flag: i32,
    #[serde(deserialize_with = "json::number")]
    write_queue_nums: i32,
}

impl Default for Settings {
    fn default() -> Self {
        let TopicConfig { perm, read_queue_nums, topic_sys_flag, write_queue_nums, .. } = TopicConfig::default();
        Settings { perm, read_queue_nums, topic_sys_flag, write_queue_nums }
    }
}

/// The topics of a table as a list: a tree of millions of tiny entries would take many times the bytes that were sent.
#[derive(Default)]
struct Topics {
    named: Vec<RegisteredTopic>,
    unnameable: usize,
}

impl Topics {
    fn len(&self) -> usize {
        self.named.len() + self.unnameable
    }

    /// Adds a topic whose name has `name_bytes` bytes.
    fn add(&mut self, name_bytes: usize, topic: impl FnOnce() -> RegisteredTopic) {
        if name_bytes <= NAMED_TOPIC_BYTES_MAX {
            self.named.push(topic());
        } else {
            self.unnameable += 1;
        }
    }
}

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TopicsVisitor)
    }
}

struct TopicsVisitor;

impl<'de> Visitor<'de> for TopicsVisitor {
    type Value = Topics;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("topics with their settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Topics, A::Error> {
        let mut topics = Topics::default();
        while let Some(name) = map.next_key::<String>()? {
            if topics.len() == REGISTRATION_TOPICS_MAX {
                let mut more = 1;
                map.next_value::<IgnoredAny>()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    more += 1;
                }
                return Err(A::Error::custom(RegistrationError::TooManyTopics { topics: topics.len() + more }));
            }
            let settings: Settings = map.next_value()?;
            topics.add(name.len(), || RegisteredTopic {
                name,
                read: settings.read_queue_nums,
                write: settings.write_queue_nums,
                perm: settings.perm,
                sys_flag: settings.topic_sys_flag,
            });
        }
        Ok(topics)
    }
}

/// The mappings of static topics; those without a topic map nothing.
#[derive(Default)]
struct Mappings {
    all: Vec<QueueMappingInfo>,
    queues: usize,
}

impl Mappings {
    fn add(&mut self, mapping: QueueMappingInfo) -> Result<(), RegistrationError> {
        if mapping.topic.is_empty() {
            return Ok(());
        }
        if self.all.len() == REGISTRATION_MAPPINGS_MAX {
            return Err(RegistrationError::TooManyMappings);
        }
        self.queues += mapping.curr_id_map.len();
        if self.queues > REGISTRATION_MAPPED_MAX {
            return Err(RegistrationError::TooManyMapped);
        }
        self.all.push(mapping);
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Mappings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MappingsVisitor)
    }
}

struct MappingsVisitor;

impl<'de> Visitor<'de> for MappingsVisitor {
    type Value = Mappings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mappings of static topics")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mappings, A::Error> {
        let mut mappings = Mappings::default();
        while let Some((IgnoredAny, mapping)) = map.next_entry()? {
            mappings.add(mapping).map_err(A::Error::custom)?;
        }
        Ok(mappings)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RegisterBrokerBody;
    use super::*;
    use crate::message::CompressionType;

    fn body(topics: usize) -> RegisterBrokerBody {
        let mut body = RegisterBrokerBody::default();
        let table = &mut body.topic_config_serialize_wrapper;
        table.data_version.counter = 7;
        table.topic_config_table = (0..topics)
            .map(|n| format!("T{n}"))
            .map(|name| (name.clone(), TopicConfig { perm: 4, ..TopicConfig::new(name, 3) }))
            .collect();
        let mapping = serde_json::json!({"topic": "T0", "bname": "a", "currIdMap": {"1": 0}, "totalQueues": 2});
        table.topic_queue_mapping_info_map.insert("T0".into(), mapping);
        body
    }

    #[test]
    fn both_forms_give_the_same_topics() {
        let body = body(20);
        let plain = RegisteredTopics::decode(&body.encode(), false).unwrap();
        let packed = RegisteredTopics::decode(&body.encode_compressed(), true).unwrap();
        assert_eq!(plain, packed);
        assert_eq!(packed.topics.len(), 20);
        assert_eq!((packed.topics[0].name.as_str(), packed.topics[0].read, packed.topics[0].perm), ("T0", 3, 4));
        assert_eq!(packed.mappings[0].curr_id_map, BTreeMap::from([(1, 0)]));
        assert_eq!(packed.data_version.counter, 7);
    }

    #[test]
    fn missing_settings_are_the_usual_ones() {
        let text = br#"{"topicConfigSerializeWrapper":{"topicConfigTable":{"T":{}}}}"#;
        let topics = RegisteredTopics::decode(text, false).unwrap().topics;
        assert_eq!(topics, [RegisteredTopic { name: "T".into(), read: 16, write: 16, perm: 6, sys_flag: 0 }]);
    }

    #[test]
    fn more_topics_than_a_registration_may_have_are_refused_with_the_limit() {
        let mut plain = Vec::new();
        super::super::put_part(&mut plain, b"{}");
        plain.extend((REGISTRATION_TOPICS_MAX as i32 + 1).to_be_bytes());
        let packed = CompressionType::Zlib.compress(&plain, 1).unwrap();
        let mut text = String::from(r#"{"topicConfigSerializeWrapper":{"topicConfigTable":{"#);
        // The same name again and again is the shortest such body.
        text.push_str(&r#""T":{},"#.repeat(REGISTRATION_TOPICS_MAX + 3));
        text.push_str(r#""T":{}}}}"#);
        for refused in [RegisteredTopics::decode(&packed, true), RegisteredTopics::decode(text.as_bytes(), false)] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("the limit is 1000000"), "{error}");
        }
        let error = RegisteredTopics::decode(text.as_bytes(), false).unwrap_err().to_string();
        assert!(error.contains("1000004 topics"), "{error}");
    }

    #[test]
    fn topics_that_no_client_can_name_are_counted_and_not_kept() {
        let mut body = body(2);
        let table = &mut body.topic_config_serialize_wrapper.topic_config_table;
        let long = "L".repeat(NAMED_TOPIC_BYTES_MAX + 1);
        table.insert(long.clone(), TopicConfig::new(long, 1));
        for read in [
            RegisteredTopics::decode(&body.encode(), false).unwrap(),
            RegisteredTopics::decode(&body.encode_compressed(), true).unwrap(),
        ] {
            assert_eq!((read.topics.len(), read.unnameable), (2, 1));
        }
    }

    /// A body of `topics` static topics that map `queues` queues each, plain and packed.
    fn static_topics(topics: usize, queues: usize) -> [Result<RegisteredTopics, RegistrationError>; 2] {
        let mapped: Vec<String> = (0..queues).map(|queue| format!("{queue}:{queue}")).collect();
        let mapping = |topic| format!(r#"{{"topic":"T{topic}","currIdMap":{{{}}}}}"#, mapped.join(","));
        let mut packed = Vec::new();
        super::super::put_part(&mut packed, b"{}");
        packed.extend(0_i32.to_be_bytes());
        super::super::put_part(&mut packed, b"[]");
        packed.extend((topics as i32).to_be_bytes());
        (0..topics).for_each(|topic| super::super::put_part(&mut packed, mapping(topic).as_bytes()));
        let packed = CompressionType::Zlib.compress(&packed, 1).unwrap();
        let all: Vec<String> = (0..topics).map(|topic| format!(r#""T{topic}":{}"#, mapping(topic))).collect();
        let table = format!(r#"{{"topicQueueMappingInfoMap":{{{}}}}}"#, all.join(","));
        let plain = format!(r#"{{"topicConfigSerializeWrapper":{table}}}"#);
        [RegisteredTopics::decode(plain.as_bytes(), false), RegisteredTopics::decode(&packed, true)]
    }

    #[test]
    fn what_static_topics_map_is_bounded() {
        for read in static_topics(REGISTRATION_MAPPINGS_MAX, 1) {
            assert_eq!(read.unwrap().mappings.len(), REGISTRATION_MAPPINGS_MAX);
        }
        for refused in static_topics(REGISTRATION_MAPPINGS_MAX + 1, 1) {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("more than 65536 static topics"), "{error}");
        }
        for refused in static_topics(21, 50_000) {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("more than 1000000 queues"), "{error}");
        }
    }

    #[test]
    fn a_part_longer_than_any_broker_makes_it_is_refused_before_it_is_unpacked() {
        let mut plain = Vec::new();
        super::super::put_part(&mut plain, b"{}");
        plain.extend(1_i32.to_be_bytes());
        plain.extend(i32::MAX.to_be_bytes());
        let packed = CompressionType::Zlib.compress(&plain, 1).unwrap();
        let error = RegisteredTopics::decode(&packed, true).unwrap_err();
        assert!(matches!(error, RegistrationError::LongPart { .. }), "{error}");
    }
}
