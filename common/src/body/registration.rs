//! What a broker tells a nameserver about itself.
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

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::json::{self, BodyError, Form};
use super::topic::{TopicConfig, TopicConfigTable, TopicFilterType};
use crate::message::compression;
use crate::message::{CompressionError, CompressionType};

/// Largest unpacked registration that is accepted, in bytes: about half a million topics.
pub const REGISTRATION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Body of `REGISTER_BROKER`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Always empty.
    pub filter_server_list: Vec<String>,
    /// The broker's topics.
    pub topic_config_serialize_wrapper: TopicConfigTable,
}

/// Why a registration could not be read.
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
}

impl RegisterBrokerBody {
    /// Reads the body; `is_compressed` is what the header says.
    pub fn decode(body: &[u8], is_compressed: bool) -> Result<Self, RegistrationError> {
        if is_compressed {
            Self::unpack(&CompressionType::Zlib.decompress(body, REGISTRATION_BYTES_MAX)?)
        } else {
            Ok(json::from_slice(body)?)
        }
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

    fn unpack(plain: &[u8]) -> Result<Self, RegistrationError> {
        let mut parts = Parts { rest: plain };
        let mut topics =
            TopicConfigTable { data_version: json::from_slice(parts.part()?)?, ..TopicConfigTable::default() };
        for _ in 0..parts.count()? {
            let topic = parse_topic_line(parts.part()?)?;
            topics.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = match parts.part()? {
            [] => Vec::new(),
            list => json::from_slice(list)?,
        };
        // Brokers before version 413 end here.
        let mappings = if parts.rest.is_empty() { 0 } else { parts.count()? };
        for _ in 0..mappings {
            let mapping: serde_json::Value = json::from_slice(parts.part()?)?;
            if let Some(topic) = mapping.get("topic").and_then(serde_json::Value::as_str) {
                let topic = topic.to_owned();
                topics.topic_queue_mapping_info_map.insert(topic, mapping);
            }
        }
        Ok(Self { filter_server_list, topic_config_serialize_wrapper: topics })
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
    let line = std::str::from_utf8(line).map_err(|_| RegistrationError::Topic)?;
    let mut words = line.splitn(6, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(RegistrationError::Topic);
    let number = |word: &str| word.parse().map_err(|_| RegistrationError::Topic);
    let mut topic = TopicConfig {
        topic_name: word()?.to_owned(),
        read_queue_nums: number(word()?)?,
        write_queue_nums: number(word()?)?,
        perm: number(word()?)?,
        topic_filter_type: TopicFilterType::from_name(word()?).unwrap_or_default(),
        ..TopicConfig::default()
    };
    if let Some(attributes) = words.next().filter(|text| !text.is_empty() && *text != "null") {
        topic.attributes = json::from_slice(attributes.as_bytes())?;
    }
    Ok(topic)
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.put_i32(part.len() as i32);
    out.put_slice(part);
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// A count or length. Nothing is allocated by it: what it counts has to be there.
    fn count(&mut self) -> Result<usize, RegistrationError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(RegistrationError::Truncated)?;
        self.rest = rest;
        usize::try_from(i32::from_be_bytes(*number)).map_err(|_| RegistrationError::Truncated)
    }

    fn part(&mut self) -> Result<&'a [u8], RegistrationError> {
        let length = self.count()?;
        let (part, rest) = self.rest.split_at_checked(length).ok_or(RegistrationError::Truncated)?;
        self.rest = rest;
        Ok(part)
    }
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
