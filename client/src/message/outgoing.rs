//! A message to be sent.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use escrowmq_common::message::properties::{ITEM_END, NAME_END, PROPERTIES_BYTES_MAX, name};

use crate::error::SendError;
use crate::limit::{self, shown};

/// Names of the protocol that a [`Message`] may have before it is sent.
const PROTOCOL: [&str; 9] = [
    name::TAGS,
    name::KEYS,
    name::DELAY,
    name::TIMER_DELIVER_MS,
    name::TIMER_DELAY_MS,
    name::SHARDING_KEY,
    name::CHECK_IMMUNITY_TIME,
    name::WAIT,
    name::UNIQUE_KEY,
];

/// A message to be sent: topic, body and properties. Cloning shares the body.
///
/// ```
/// use escrowmq_client::Message;
///
/// let message = Message::new("Orders", "order 17 was paid").tag("paid").key("order-17").property("currency", "EUR");
/// assert_eq!(message.topic(), "Orders");
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    topic: Arc<str>,
    body: Bytes,
    flag: i32,
    /// In the order set; a name occurs once.
    properties: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The first thing that was asked for and cannot be carried. Told when the message is sent: setters return the message.
    fault: Option<String>,
}

impl Message {
    /// A message for `topic`. The body must not be empty.
    pub fn new(topic: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Message {
        Message { topic: topic.into(), body: body.into(), flag: 0, properties: Vec::new(), fault: None }
    }

    /// Sets the tag, the one word that consumers filter by. One that no subscription could name (with `||` in it, or blanks
    /// at an end) is refused when the message is sent.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Message {
        let tag = tag.into();
        if tag.contains("||") || tag.trim() != tag {
            let why = "subscriptions join tags by `||` and trim each, so none could name it";
            self.refuse(|| format!("tag {} cannot be subscribed to: {why}", shown(&tag)));
        }
        self.with(name::TAGS, tag)
    }

    /// Adds an index key, by which the message can be searched. One that is empty or holds a blank is refused when the message
    /// is sent: on the wire a blank ends a key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Message {
        let key = key.as_ref();
        if key.is_empty() {
            self.refuse(|| "a key is empty".to_owned());
        } else if key.contains(' ') {
            self.refuse(|| {
                format!("key {} holds a blank, which ends a key on the wire: replace it, or add two keys", shown(key))
            });
        }
        let keys = match self.get(name::KEYS) {
            Some(keys) => format!("{keys} {key}"),
            None => key.to_owned(),
        };
        self.set(name::KEYS, keys);
        self
    }

    /// Adds several index keys.
    #[must_use]
    pub fn keys<K: AsRef<str>>(self, keys: impl IntoIterator<Item = K>) -> Message {
        keys.into_iter().fold(self, Message::key)
    }

    /// Sets a property of the user's own. Names of the protocol (`TAGS`, `DELAY`, ...) and empty names or values are
    /// refused when the message is sent.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Message {
        self.set(name.into(), value.into());
        self
    }

    /// Delivers the message only after the delay of `level`: 1 to 18 stand for 1 s, 5 s, 10 s, 30 s, 1 to 10 min in
    /// steps of one, 20 min, 30 min, 1 h and 2 h unless the broker is configured otherwise. 0 means no delay.
    #[must_use]
    pub fn delay_level(mut self, level: u8) -> Message {
        self.properties.retain(|(name, _)| name != name::DELAY);
        if level > 0 { self.with(name::DELAY, level.to_string()) } else { self }
    }

    /// Delivers the message at this wall time of the broker, with a precision of one second. Needs a broker of the
    /// 5.x protocol.
    #[must_use]
    pub fn deliver_at(self, time: SystemTime) -> Message {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.with(name::TIMER_DELIVER_MS, since_epoch.as_millis().to_string())
    }

    /// Delivers the message this long after it arrived at the broker, with a precision of one second. Needs a broker of
    /// the 5.x protocol.
    #[must_use]
    pub fn deliver_after(self, delay: Duration) -> Message {
        self.with(name::TIMER_DELAY_MS, delay.as_millis().to_string())
    }

    /// Keeps messages of one key in one queue, in the order in which they were sent, as long as the topic's queues stay
    /// the same and each send is awaited before the next.
    #[must_use]
    pub fn sharding_key(self, key: impl Into<String>) -> Message {
        self.with(name::SHARDING_KEY, key)
    }

    /// For a transactional message: the broker makes its first check no earlier than this after the message's birth, in
    /// whole seconds. Instead of the broker's own default.
    #[must_use]
    pub fn check_immunity(self, time: Duration) -> Message {
        self.with(name::CHECK_IMMUNITY_TIME, time.as_secs().to_string())
    }

    /// Whether the broker answers only after flush and replication as it is configured (the default), or at once.
    #[must_use]
    pub fn wait_stored(self, wait: bool) -> Message {
        self.with(name::WAIT, if wait { "true" } else { "false" })
    }

    /// Gives the message the unique id that it carries through all attempts, instead of a new one. For sending a message
    /// again whose first send ended with an unknown outcome: a broker with a duplicate window then keeps one of them.
    #[must_use]
    pub fn unique_id(self, id: impl Into<String>) -> Message {
        self.with(name::UNIQUE_KEY, id)
    }

    /// Sets the number that travels beside the body without meaning to anybody but the users.
    #[must_use]
    pub fn flag(mut self, flag: i32) -> Message {
        self.flag = flag;
        self
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The body as given, never compressed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// A property by name, the protocol's own included.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    /// All properties, the protocol's own included, in the order in which they were set.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    pub(crate) fn topic_shared(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    pub(crate) fn flag_value(&self) -> i32 {
        self.flag
    }

    pub(crate) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.put(name.into(), Cow::Owned(value.into()));
    }

    /// Sets a property to a word of the protocol.
    pub(crate) fn set_word(&mut self, name: &'static str, word: &'static str) {
        self.put(Cow::Borrowed(name), Cow::Borrowed(word));
    }

    fn put(&mut self, name: Cow<'static, str>, value: Cow<'static, str>) {
        match self.properties.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name, value)),
        }
    }

    /// Sets a property that the message had when it was put away, one of the protocol's own included.
    pub(crate) fn restore(&mut self, name: String, value: impl Into<String>) {
        match PROTOCOL.into_iter().find(|known| *known == name) {
            Some(known) => self.set(known, value),
            None => self.set(name, value),
        }
    }

    /// The message cannot be sent as it was asked for. The first reason counts.
    fn refuse(&mut self, reason: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(reason);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.properties.retain(|(other, _)| other != name);
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Message {
        self.set(name, value);
        self
    }

    /// The properties in the form of the wire.
    pub(crate) fn property_text(&self) -> String {
        let mut text = String::new();
        self.append_property_text(&mut text);
        text
    }

    /// Appends that to a text.
    pub(crate) fn append_property_text(&self, text: &mut String) {
        text.reserve(self.properties.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
        for (name, value) in &self.properties {
            text.push_str(name);
            text.push(NAME_END);
            text.push_str(value);
            text.push(ITEM_END);
        }
    }

    /// Whether the message may leave. `body_bytes_max` is the producer's limit.
    pub(crate) fn validate(&self, body_bytes_max: usize) -> Result<(), SendError> {
        limit::topic(&self.topic).map_err(|error| SendError::invalid(format!("topic {error}")))?;
        if let Some(fault) = &self.fault {
            return Err(SendError::invalid(fault.clone()));
        }
        if self.body.is_empty() {
            return Err(SendError::invalid("the body is empty"));
        }
        if self.body.len() > body_bytes_max {
            let reason = format!("the body has {} bytes, the limit is {body_bytes_max}", self.body.len());
            return Err(SendError::invalid(reason));
        }
        let mut bytes = 0;
        for (key, value) in &self.properties {
            bytes += key.len() + value.len() + 2;
            // Names from this crate are borrowed, names from the user are owned.
            if matches!(key, Cow::Owned(_)) && name::is_reserved(key) {
                return Err(SendError::invalid(format!("property name {key} belongs to the protocol")));
            }
            if key.is_empty() || value.is_empty() {
                return Err(SendError::invalid(format!("property {} has an empty name or value", shown(key))));
            }
            if [key.as_ref(), value.as_ref()].iter().any(|text| text.contains([NAME_END, ITEM_END])) {
                let why = "U+0001 or U+0002, which separate properties on the wire";
                return Err(SendError::invalid(format!("property {} holds {why}", shown(key))));
            }
        }
        if bytes > PROPERTIES_BYTES_MAX {
            let reason = format!("the properties have {bytes} bytes, the limit is {PROPERTIES_BYTES_MAX}");
            return Err(SendError::invalid(reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(message: &Message) -> String {
        message.validate(1000).expect_err("refused").to_string()
    }

    #[test]
    fn properties_take_the_form_of_the_wire() {
        let message =
            Message::new("T", "b").tag("a").key("k1").keys(["k2", "k3"]).property("x", "1").property("x", "2");
        assert_eq!(message.property_text(), "TAGS\u{1}a\u{2}KEYS\u{1}k1 k2 k3\u{2}x\u{1}2\u{2}");
        message.validate(1000).expect("a good message");
    }

    #[test]
    fn a_delay_can_be_taken_back() {
        assert_eq!(Message::new("T", "b").delay_level(3).get("DELAY"), Some("3"));
        assert_eq!(Message::new("T", "b").delay_level(3).delay_level(0).get("DELAY"), None);
    }

    #[test]
    fn what_a_broker_would_refuse_does_not_leave() {
        assert!(reason(&Message::new("T", "")).contains("empty"));
        assert!(reason(&Message::new("T", vec![0; 1001])).contains("1001 bytes"));
        assert!(reason(&Message::new("bad topic", "b")).contains("topic"));
        assert!(reason(&Message::new("T", "b").property("TRAN_MSG", "true")).contains("protocol"));
        assert!(reason(&Message::new("T", "b").property("a\u{1}b", "c")).contains("U+0001"));
        assert!(reason(&Message::new("T", "b").property("a", "")).contains("empty"));
        assert!(reason(&Message::new("T", "b").property("a", "x".repeat(32_767))).contains("32767"));
        assert!(reason(&Message::new("t".repeat(128), "b")).contains("128 bytes"));
    }

    #[test]
    fn what_the_wire_would_split_is_refused_not_split() {
        let message = || Message::new("T", "b");
        for blank in ["a b", " a", "a ", " "] {
            assert!(reason(&message().key(blank)).contains("blank"), "{blank:?}");
            assert!(reason(&message().keys(["k", blank, "l"])).contains("blank"), "{blank:?}");
        }
        assert!(reason(&message().key("k").key("")).contains("a key is empty"));
        assert!(reason(&message().key("")).contains("empty"));
        for tag in ["a||b", "a || b", "||", " a", "a\n"] {
            assert!(reason(&message().tag(tag)).contains("subscribed"), "{tag:?}");
        }
        message().tag("a|b").key("a|b=\t\"ü\"").validate(1000).expect("nothing is split");
        for text in ["a\u{1}b", "a\u{2}"] {
            for message in [
                message().tag(text),
                message().key(text),
                message().sharding_key(text),
                message().unique_id(text),
                message().property(text, "v"),
                message().property("n", text),
            ] {
                assert!(reason(&message).contains("U+0001"), "{text:?}");
            }
        }
        let long = reason(&message().key("x ".repeat(10_000)));
        assert!(long.len() < 300, "a long text is not repeated in its error: {long}");
    }
}
