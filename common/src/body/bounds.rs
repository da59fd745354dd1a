//! How much of everything a body may hold.
//!
//! A type that [`from_slice`](super::json::from_slice) reads is a [`Body`], and says by [`bounded!`] what each of its fields
//! may hold: the macro names all fields, so that a new one does not compile without. Bodies that only clients and tools
//! read, as answers of the broker that they chose, are declared by [`answers!`] and bounded by their frame alone.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::json::BodyError;
use super::queue::{MessageQueue, QueueTable};
use super::registration::RegisterBrokerBody;
use crate::limits;

/// A body, or a part of one, that can be checked against the limits.
pub trait Bounded {
    /// The first thing in it that is too long, or too many.
    fn check(&self) -> Result<(), BodyError> {
        Ok(())
    }
}

/// A type that is read from a body.
pub trait Body: Bounded + DeserializeOwned {
    /// Most objects and lists in the body, inner ones included. A body with more is refused unread, because each costs many
    /// times its two bytes.
    const PARTS_MAX: usize = limits::PARTS_MAX;
}

/// The limit of a field of one type. `()` is no limit.
pub(super) trait Within<L> {
    fn within(&self, field: &'static str, limit: L) -> Result<(), BodyError>;
}

/// Most entries of a list or a table of texts, and most bytes of each text.
#[derive(Clone, Copy)]
pub(super) struct Each {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// Most bytes of all names and values of a table together.
#[derive(Clone, Copy)]
pub(super) struct Altogether(pub(super) usize);

/// The wire name of a field: `client_id` is `clientId`. A wire name stays what it is.
fn wire_name(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    name
}

fn bytes(field: &'static str, length: usize, limit: usize) -> Result<(), BodyError> {
    if length <= limit { Ok(()) } else { Err(BodyError::TooLong { field: wire_name(field), length, limit }) }
}

fn entries(field: &'static str, count: usize, limit: usize) -> Result<(), BodyError> {
    if count <= limit { Ok(()) } else { Err(BodyError::TooMany { field: wire_name(field), count, limit }) }
}

impl<T: Bounded> Within<()> for T {
    fn within(&self, _: &'static str, (): ()) -> Result<(), BodyError> {
        self.check()
    }
}

impl Within<usize> for String {
    fn within(&self, field: &'static str, limit: usize) -> Result<(), BodyError> {
        bytes(field, self.len(), limit)
    }
}

impl<L, T: Within<L>> Within<L> for Option<T> {
    fn within(&self, field: &'static str, limit: L) -> Result<(), BodyError> {
        self.as_ref().map_or(Ok(()), |value| value.within(field, limit))
    }
}

impl<T: Bounded> Within<usize> for Vec<T> {
    fn within(&self, field: &'static str, limit: usize) -> Result<(), BodyError> {
        entries(field, self.len(), limit)?;
        self.iter().try_for_each(T::check)
    }
}

impl Within<Each> for Vec<String> {
    fn within(&self, field: &'static str, limit: Each) -> Result<(), BodyError> {
        entries(field, self.len(), limit.entries)?;
        self.iter().try_for_each(|text| bytes(field, text.len(), limit.bytes))
    }
}

impl<V: Bounded> Within<Each> for BTreeMap<String, V> {
    fn within(&self, field: &'static str, limit: Each) -> Result<(), BodyError> {
        entries(field, self.len(), limit.entries)?;
        self.iter().try_for_each(|(name, value)| {
            bytes(field, name.len(), limit.bytes)?;
            value.check()
        })
    }
}

impl Within<Altogether> for BTreeMap<String, String> {
    fn within(&self, field: &'static str, limit: Altogether) -> Result<(), BodyError> {
        bytes(field, self.iter().map(|(name, value)| name.len() + value.len()).sum(), limit.0)
    }
}

impl<V: Bounded> Bounded for QueueTable<V> {
    fn check(&self) -> Result<(), BodyError> {
        entries("queues", self.0.len(), limits::ENTRIES_MAX)?;
        self.0.iter().try_for_each(|(queue, value)| {
            MessageQueue::check(queue)?;
            value.check()
        })
    }
}

impl<V: Bounded + DeserializeOwned> Body for QueueTable<V> {}

/// The members of a broker group.
impl Within<Each> for BTreeMap<i64, String> {
    fn within(&self, field: &'static str, limit: Each) -> Result<(), BodyError> {
        entries(field, self.len(), limit.entries)?;
        self.values().try_for_each(|text| bytes(field, text.len(), limit.bytes))
    }
}

/// The attributes of a topic or group.
impl Bounded for BTreeMap<String, String> {
    fn check(&self) -> Result<(), BodyError> {
        self.within("attributes", Altogether(limits::ATTRIBUTES_BYTES_MAX))
    }
}

impl Body for BTreeMap<String, String> {}

/// A list of names.
impl Bounded for Vec<String> {
    fn check(&self) -> Result<(), BodyError> {
        self.within("list", Each { entries: limits::ENTRIES_MAX, bytes: limits::ADDRESS_BYTES_MAX })
    }
}

impl Body for Vec<String> {}

/// Passed on as it comes, or looked at by tests.
impl Bounded for serde_json::Value {}

impl Body for serde_json::Value {}

/// Makes types [`Bounded`] whose values need no limit.
macro_rules! plain {
    ($($type:ty),*) => {$(impl Bounded for $type {})*};
}

plain!(i32, i64, u32, u64, f64, bool);

/// Declares what the fields of bodies may hold, each field by its name: `field` alone where its type says enough. `as` says the
/// name on the wire where it is not the field's in camel case. `parts` after the type is its
/// [`PARTS_MAX`](Body::PARTS_MAX), where that is not the usual one.
macro_rules! bounded {
    ($($type:ident $(parts($parts:expr))? { $($field:ident $(as $wire:literal)? $(: $limit:expr)?),* $(,)? })*) => {$(
        impl $crate::body::bounds::Bounded for $type {
            fn check(&self) -> Result<(), $crate::body::BodyError> {
                let Self { $($field),* } = self;
                $(
                    let limit = bounded!(@limit $($limit)?);
                    let name = bounded!(@name $field $($wire)?);
                    $crate::body::bounds::Within::within($field, name, limit)?;
                )*
                Ok(())
            }
        }

        impl $crate::body::bounds::Body for $type {
            $(const PARTS_MAX: usize = $parts;)?
        }

        #[cfg(test)]
        impl $crate::body::bounds::tests::Named for $type {
            const NAMES: &'static [&'static str] = &[$(bounded!(@name $field $($wire)?)),*];
        }
    )*};
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $wire:literal) => { $wire };
    (@limit) => { () };
    (@limit $limit:expr) => { $limit };
}

/// Declares bodies that only clients and tools read.
macro_rules! answers {
    ($($type:ident),* $(,)?) => {$(
        impl $crate::body::bounds::Bounded for $type {}

        impl $crate::body::bounds::Body for $type {
            const PARTS_MAX: usize = usize::MAX;
        }
    )*};
}

pub(super) use {answers, bounded};

bounded! {
    RegisterBrokerBody parts(limits::REGISTRATION_PARTS_MAX) {
        filter_server_list: Each { entries: limits::ENTRIES_MAX, bytes: limits::ADDRESS_BYTES_MAX },
        topic_config_serialize_wrapper,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::json::{Form, from_slice, to_bytes};
    use super::super::{
        BatchAck, BatchAckBody, BrokerData, CheckClientBody, ConsumerData, ConsumerStatus, DataVersion, HeartbeatData,
        LockBatchBody, ProducerData, QueryAssignmentBody, QueueData, ResetOffsetBody, SetMessageRequestModeBody,
        SubscriptionData, SubscriptionGroupConfig, SubscriptionGroupList, TopicConfig, TopicConfigList,
        TopicConfigTable, TopicRouteData,
    };
    use super::*;

    /// The names by which refusals call the fields of a body.
    pub(in crate::body) trait Named {
        const NAMES: &'static [&'static str];
    }

    /// Fields that are written under a name that no refusal would use.
    fn misnamed<T: Named + serde::Serialize + Default>() -> Vec<String> {
        let written = to_bytes(&T::default(), Form::Strict);
        let written: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&written).unwrap();
        let named: Vec<String> = T::NAMES.iter().map(|name| wire_name(name)).collect();
        written.into_iter().map(|(name, _)| name).filter(|name| !named.contains(name)).collect()
    }

    macro_rules! assert_named {
        ($($type:ty),* $(,)?) => {$(assert_eq!(misnamed::<$type>(), [""; 0], stringify!($type));)*};
    }

    #[test]
    fn refusals_call_fields_as_the_wire_does() {
        assert_named!(
            BatchAck,
            BatchAckBody,
            BrokerData,
            CheckClientBody,
            ConsumerData,
            ConsumerStatus,
            DataVersion,
            HeartbeatData,
            LockBatchBody,
            MessageQueue,
            ProducerData,
            QueryAssignmentBody,
            QueueData,
            RegisterBrokerBody,
            ResetOffsetBody,
            SetMessageRequestModeBody,
            SubscriptionData,
            SubscriptionGroupConfig,
            SubscriptionGroupList,
            TopicConfig,
            TopicConfigList,
            TopicConfigTable,
            TopicRouteData,
        );
    }

    fn refusal<T: Body + std::fmt::Debug>(body: &str) -> (String, i32) {
        let error = from_slice::<T>(body.as_bytes()).unwrap_err();
        (error.to_string(), error.code())
    }

    #[test]
    fn texts_have_limits_wherever_they_lie() {
        let group = "g".repeat(256);
        let said = format!("groupName: 256 bytes, at most {} are taken", limits::NAMED_GROUP_BYTES_MAX);
        for list in ["consumerDataSet", "producerDataSet"] {
            let body = format!(r#"{{"clientID":"c","{list}":[{{"groupName":"{group}"}}]}}"#);
            assert_eq!(refusal::<HeartbeatData>(&body), (said.clone(), 13), "{list}");
        }
        let config = format!(r#"{{"groupName":"{group}"}}"#);
        assert_eq!(refusal::<SubscriptionGroupConfig>(&config), (said, 13));
        let topic = "t".repeat(70_000);
        let said = "topic: 70000 bytes, at most 255 are taken".to_owned();
        let subscribed = format!(r#"{{"consumerDataSet":[{{"subscriptionDataSet":[{{"topic":"{topic}"}}]}}]}}"#);
        assert_eq!(refusal::<HeartbeatData>(&subscribed), (said.clone(), 13));
        let locked = format!(r#"{{"mqSet":[{{"queueId":0}},{{"topic":"{topic}"}}]}}"#);
        assert_eq!(refusal::<LockBatchBody>(&locked), (said, 13));
        let acked = format!(r#"{{"acks":[{{"t":"{topic}"}}]}}"#);
        assert_eq!(refusal::<BatchAckBody>(&acked), ("t: 70000 bytes, at most 255 are taken".to_owned(), 13));
        let client = format!(r#"{{"clientID":"{}"}}"#, "c".repeat(1025));
        assert_eq!(refusal::<HeartbeatData>(&client), ("clientID: 1025 bytes, at most 1024 are taken".to_owned(), 13));
        let key = format!(r#"{{{{"topic":"{topic}","queueId":0}}:5}}"#);
        assert_eq!(refusal::<QueueTable<i64>>(&key).1, 13);
    }

    #[test]
    fn attributes_count_altogether() {
        let half = limits::ATTRIBUTES_BYTES_MAX / 2;
        let config = |extra: &str| {
            let (one, two) = ("a".repeat(half - 1), "b".repeat(half - 1));
            format!(r#"{{"topicConfigList":[{{"attributes":{{"x":"{one}","y":"{two}{extra}"}},"topicName":"T"}}]}}"#)
        };
        assert!(from_slice::<TopicConfigList>(config("").as_bytes()).is_ok());
        let said = format!("attributes: {} bytes, at most {} are taken", 2 * half + 1, 2 * half);
        assert_eq!(refusal::<TopicConfigList>(&config("+")), (said, 13));
    }

    #[test]
    fn lists_have_limits() {
        let most = limits::HEARTBEAT_GROUPS_MAX;
        let beat = |count: usize| format!(r#"{{"producerDataSet":[{}{{}}]}}"#, "{},".repeat(count - 1));
        assert!(from_slice::<HeartbeatData>(beat(most).as_bytes()).is_ok());
        let said = format!("producerDataSet: {} entries, at most {most} are taken", most + 1);
        assert_eq!(refusal::<HeartbeatData>(&beat(most + 1)), (said, 13));
        let locks = |count: usize| format!(r#"{{"mqSet":[{}{{}}]}}"#, "{},".repeat(count - 1));
        assert!(from_slice::<LockBatchBody>(locks(limits::ENTRIES_MAX).as_bytes()).is_ok());
        assert_eq!(refusal::<LockBatchBody>(&locks(limits::ENTRIES_MAX + 1)).1, 13);
        // Far too many are not even put into a list.
        let said = format!("more than {} objects and lists", limits::PARTS_MAX);
        assert_eq!(refusal::<LockBatchBody>(&locks(2_000_000)), (said, 13));
    }

    #[test]
    fn a_registration_is_bounded_too() {
        let mut body = RegisterBrokerBody::default();
        let name = "t".repeat(256);
        let topics = &mut body.topic_config_serialize_wrapper.topic_config_table;
        topics.insert(name.clone(), TopicConfig::new(name, 1));
        for (bytes, is_packed) in [(body.encode_compressed(), true), (body.encode(), false)] {
            let error = RegisterBrokerBody::decode(&bytes, is_packed).unwrap_err();
            assert!(error.to_string().ends_with("256 bytes, at most 255 are taken"), "{error}");
        }
    }

    #[test]
    fn what_clients_send_is_within() {
        let body = LockBatchBody { client_id: "10.0.0.1@1".into(), ..LockBatchBody::default() };
        assert_eq!(from_slice::<LockBatchBody>(&to_bytes(&body, Form::Loose)).unwrap(), body);
        assert_eq!(wire_name("lock_ok_mq_set"), "lockOkMqSet");
    }
}
