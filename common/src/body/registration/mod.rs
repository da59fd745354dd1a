//! A broker's account of itself to a nameserver.
//!
//! The body comes as plain JSON or, for brokers with many topics, packed:
//!
//! ```text
//!  zlib( length i32 + data version JSON
//!        count i32, then per topic: length i32 + "name read write perm filterType attributesJson"
//!        length i32 + filter server list JSON
//!        [count i32, then per static topic: length i32 + mapping JSON]        from version 413 on )
//! ```
//!
//! The packed form loses `order` and `topicSysFlag` of each topic.

mod parts;
mod topics;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use topics::{QueueMappingInfo, RegisteredTopic, RegisteredTopics};

use super::bounds::Bounded as _;
use super::json::{self, BodyError, Form};
use super::topic::{TopicConfig, TopicConfigTable, TopicFilterType};
use crate::limits::{REGISTRATION_MAPPED_MAX, REGISTRATION_MAPPINGS_MAX};
use crate::message::compression;
use crate::message::{CompressionError, CompressionType};
use parts::Parts;

/// Most topics of one registration. A broker that has more tells them in several.
pub use crate::limits::REGISTRATION_TOPICS_MAX;

/// Largest unpacked registration that is accepted, in bytes: the most topics with the longest names that there are. It is
/// never in memory as a whole.
pub const REGISTRATION_BYTES_MAX: usize = 320 * 1024 * 1024;

/// Longest part of a packed registration, in bytes: a topic's line with its attributes, or a static topic's mapping.
pub const REGISTRATION_PART_BYTES_MAX: usize = 1024 * 1024;

/// Body of `REGISTER_BROKER`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Always empty.
    pub filter_server_list: Vec<String>,
    /// The broker's topics.
    pub topic_config_serialize_wrapper: TopicConfigTable,
}

/// Why a registration could not be read. Sending the same again ends the same way.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// The packed stream is broken or too large.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A JSON part is broken.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A length or count does not fit the stream.
    #[error("registration is cut off")]
    Truncated,
    /// A topic's line is not of the expected form.
    #[error("malformed topic line in registration")]
    Topic,
    /// More topics than one registration may have.
    #[error(
        "registration of {topics} topics, the limit is {REGISTRATION_TOPICS_MAX}: register them in several requests \
         (splitRegistrationSize)"
    )]
    TooManyTopics {
        /// How many it has, or says it has.
        topics: usize,
    },
    /// More static topics than one registration may have.
    #[error("registration of more than {REGISTRATION_MAPPINGS_MAX} static topics, which is the limit")]
    TooManyMappings,
    /// Its static topics map more queues than one registration may.
    #[error("registration whose static topics map more than {REGISTRATION_MAPPED_MAX} queues, which is the limit")]
    TooManyMapped,
    /// A part is longer than any broker makes it.
    #[error("registration has a part of {length} bytes, the limit is {REGISTRATION_PART_BYTES_MAX}")]
    LongPart {
        /// As the stream says.
        length: usize,
    },
}

impl RegisterBrokerBody {
    /// Reads the body; `is_compressed` is what the header says. The parts that routes are made of come from
    /// [`RegisteredTopics::decode`] as well, which is many times smaller in memory.
    pub fn decode(body: &[u8], is_compressed: bool) -> Result<Self, RegistrationError> {
        if !is_compressed {
            return Ok(json::from_slice(body)?);
        }
        let mut table = TopicConfigTable::default();
        let mut mappings = Vec::new();
        let mut parts = Parts::unpack(body);
        table.data_version = json::from_slice(parts.part()?)?;
        for _ in 0..parts.topic_count()? {
            let topic = parse_topic_line(parts.part()?)?;
            table.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = match parts.part()? {
            [] => Vec::new(),
            list => json::from_slice(list)?,
        };
        parts.mappings(|mapping| {
            mappings.push(json::from_slice(mapping)?);
            Ok(())
        })?;
        parts.finish()?;
        for mapping in mappings {
            let mapping: serde_json::Value = mapping;
            if let Some(topic) = mapping.get("topic").and_then(serde_json::Value::as_str) {
                let topic = topic.to_owned();
                table.topic_queue_mapping_info_map.insert(topic, mapping);
            }
        }
        let body = Self { filter_server_list, topic_config_serialize_wrapper: table };
        body.check()?;
        Ok(body)
    }

    /// The body as JSON.
    pub fn encode(&self) -> Bytes {
        json::to_bytes(self, Form::Loose)
    }

    /// The body packed, for nameservers of version 413 and later.
    pub fn encode_compressed(&self) -> Bytes {
        let topics = &self.topic_config_serialize_wrapper;
        let mut plain = Vec::new();
        put_part(&mut plain, &json::to_bytes(&topics.data_version, Form::Strict));
        plain.put_i32(topics.topic_config_table.len() as i32);
        for topic in topics.topic_config_table.values() {
            put_part(&mut plain, topic_line(topic).as_bytes());
        }
        put_part(&mut plain, &json::to_bytes(&self.filter_server_list, Form::Strict));
        plain.put_i32(topics.topic_queue_mapping_info_map.len() as i32);
        for mapping in topics.topic_queue_mapping_info_map.values() {
            put_part(&mut plain, &json::to_bytes(mapping, Form::Loose));
        }
        CompressionType::Zlib.compress(&plain, compression::DEFAULT_LEVEL).expect("memory takes everything").into()
    }
}

fn topic_line(topic: &TopicConfig) -> String {
    let attributes = json::to_bytes(&topic.attributes, Form::Strict);
    format!(
        "{} {} {} {} {} {}",
        topic.topic_name,
        topic.read_queue_nums,
        topic.write_queue_nums,
        topic.perm,
        topic.topic_filter_type,
        str::from_utf8(&attributes).expect("JSON is UTF-8"),
    )
}

/// Five words, then, from version 5 on, the attributes, which may contain blanks of their own.
fn parse_topic_line(line: &[u8]) -> Result<TopicConfig, RegistrationError> {
    let (topic, filter_type, attributes) = topics::words_of(line)?;
    let mut topic = TopicConfig {
        topic_name: topic.name.to_owned(),
        read_queue_nums: topic.read,
        write_queue_nums: topic.write,
        perm: topic.perm,
        topic_filter_type: TopicFilterType::from_name(filter_type).unwrap_or_default(),
        ..TopicConfig::default()
    };
    if let Some(attributes) = attributes.filter(|text| !text.is_empty() && *text != "null") {
        topic.attributes = json::from_slice(attributes.as_bytes())?;
    }
    Ok(topic)
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.put_i32(part.len() as i32);
    out.put_slice(part);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn body() -> RegisterBrokerBody {
        let mut body = RegisterBrokerBody::default();
        let topics = &mut body.topic_config_serialize_wrapper;
        topics.data_version.counter = 7;
        topics.data_version.timestamp = 1_700_000_000_000;
        for (name, queues) in [("A", 4), ("%RETRY%G", 1)] {
            topics.topic_config_table.insert(name.into(), TopicConfig::new(name, queues));
        }
        let odd = topics.topic_config_table.get_mut("A").unwrap();
        odd.attributes = BTreeMap::from([("message.type".into(), "a b".into())]);
        body
    }

    fn pack(plain: &[u8]) -> Vec<u8> {
        CompressionType::Zlib.compress(plain, 5).unwrap()
    }

    #[test]
    fn both_forms_are_read_back() {
        let body = body();
        assert_eq!(RegisterBrokerBody::decode(&body.encode(), false).unwrap(), body);
        assert_eq!(RegisterBrokerBody::decode(&body.encode_compressed(), true).unwrap(), body);
    }

    #[test]
    fn older_brokers_send_less() {
        let mut plain = Vec::new();
        put_part(&mut plain, br#"{"counter":1,"timestamp":2}"#);
        plain.put_i32(1);
        put_part(&mut plain, b"T 8 8 6 SINGLE_TAG");
        put_part(&mut plain, b"[]");
        let body = RegisterBrokerBody::decode(&pack(&plain), true).unwrap();
        let topics = body.topic_config_serialize_wrapper;
        assert_eq!(topics.data_version.counter, 1);
        assert_eq!(topics.topic_config_table["T"], TopicConfig::new("T", 8));
    }

    #[test]
    fn every_cut_is_an_error_or_a_body_of_the_older_kind() {
        let plain = CompressionType::Zlib.decompress(&body().encode_compressed(), REGISTRATION_BYTES_MAX).unwrap();
        for cut in 0..plain.len() {
            let outcome = RegisterBrokerBody::decode(&pack(&plain[..cut]), true);
            assert_eq!(outcome.is_ok(), cut == plain.len() - 4, "{cut}");
        }
    }

    #[test]
    fn lengths_and_lines_that_lie_are_errors() {
        let mut counts = Vec::new();
        put_part(&mut counts, b"{}");
        counts.put_i32(i32::MAX);
        assert!(RegisterBrokerBody::decode(&pack(&counts), true).is_err());
        for line in ["", "T", "T 8 8 x SINGLE_TAG", "T 8 8 6 SINGLE_TAG {", "T  8 8 6 SINGLE_TAG"] {
            assert!(parse_topic_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
