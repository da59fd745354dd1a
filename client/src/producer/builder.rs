//! Settings of a producer.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::message::BODY_BYTES_MAX;
use escrowmq_common::message::compression::DEFAULT_THRESHOLD_BYTES;

use super::retry::RetryPolicy;
use super::send::Sender;
use super::{Producer, Profile, Shared};
use crate::client::Client;
use crate::error::StartError;
use crate::groups::ProducerMember;
use crate::heartbeat;
use crate::limit;
#[cfg(unix)]
use crate::spill::{Spill, SpillingProducerBuilder};

/// How a producer, transactional or not, sends.
#[derive(Clone, Debug)]
pub(crate) struct SendSettings {
    pub(crate) retry: RetryPolicy,
    pub(crate) compress_above: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) in_flight_max: u32,
    pub(crate) topics: Vec<String>,
    pub(crate) profile: Profile,
}

impl Default for SendSettings {
    fn default() -> SendSettings {
        SendSettings {
            retry: RetryPolicy {
                attempts_max: 3,
                attempt_timeout: Duration::from_secs(3),
                deadline: Duration::from_secs(10),
            },
            compress_above: DEFAULT_THRESHOLD_BYTES,
            body_bytes_max: BODY_BYTES_MAX,
            in_flight_max: 4096,
            topics: Vec::new(),
            profile: Profile::default(),
        }
    }
}

impl SendSettings {
    /// Checks the settings and the group's name; gives back the topics in the form that is kept.
    pub(crate) fn validate(&self, group: &str) -> Result<Vec<Arc<str>>, StartError> {
        limit::group(group).map_err(|error| StartError::setting("group", error))?;
        for topic in &self.topics {
            limit::topic(topic).map_err(|error| StartError::setting("topics", error))?;
        }
        if self.retry.attempts_max == 0 {
            return Err(StartError::setting("attempts_max", "must be at least 1"));
        }
        if self.retry.attempt_timeout.is_zero() || self.retry.deadline.is_zero() {
            return Err(StartError::setting("timeout", "must not be zero"));
        }
        Ok(self.topics.iter().map(|topic| topic.as_str().into()).collect())
    }
}

/// Setters that both kinds of producers have.
macro_rules! send_setters {
    () => {
        /// Topics that this producer will send to. Their brokers hear of the group at once, not with its first message;
        /// a transactional producer can then be asked about transactions of an earlier process.
        pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
            self.send.topics.extend(topics.into_iter().map(Into::into));
            self
        }

        /// Attempts per message that may leave it stored, the first one included. Default 3. Attempts that certainly
        /// stored nothing and fail for a passing reason are bounded by the deadline alone; so are those whose repeat the
        /// broker recognises: halves, and messages of a topic with a duplicate window longer than the deadline.
        pub fn attempts_max(mut self, count: u32) -> Self {
            self.send.retry.attempts_max = count;
            self
        }

        /// How long one attempt waits for the broker's answer. Default 3 s.
        pub fn attempt_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.send.retry.attempt_timeout = timeout;
            self
        }

        /// How long a send may take with all its attempts. Default 10 s, which is enough for another member of a broker
        /// group to become its leader.
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.send.retry.deadline = deadline;
            self
        }

        /// Bodies of at least this many bytes are compressed (zlib). Default 4096; `usize::MAX` compresses nothing.
        pub fn compress_above(mut self, bytes: usize) -> Self {
            self.send.compress_above = bytes;
            self
        }

        /// The largest body that may be sent, before compression, in bytes. Default 4 MiB; brokers have a limit of
        /// their own.
        pub fn body_bytes_max(mut self, bytes: usize) -> Self {
            self.send.body_bytes_max = bytes;
            self
        }

        /// Sends in flight at the same time; further ones wait for a place. Default 4096.
        pub fn in_flight_max(mut self, count: u32) -> Self {
            self.send.in_flight_max = count;
            self
        }
    };
}
pub(crate) use send_setters;

/// Collects the settings of a [`Producer`]. Made by [`Client::producer`](crate::Client::producer).
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct ProducerBuilder {
    client: Client,
    group: String,
    send: SendSettings,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, group: String) -> ProducerBuilder {
        ProducerBuilder { client, group, send: SendSettings::default() }
    }

    send_setters!();

    /// What this producer takes for success. Default [`Profile::Balanced`].
    pub fn profile(mut self, profile: Profile) -> Self {
        self.send.profile = profile;
        self
    }

    /// Keeps what could not be sent in a local folder, and sends it from there in order. Call it last: the other settings are
    /// those of the producer inside.
    #[cfg(unix)]
    pub fn spill(self, spill: Spill) -> SpillingProducerBuilder {
        SpillingProducerBuilder::new(self, spill)
    }

    /// Registers the producer, and at the brokers of its [`topics`](ProducerBuilder::topics) at once; others hear of it with
    /// the next heartbeat after the first message.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for a group name or setting that cannot be, [`StartError::GroupInUse`] if this client
    /// already has a producer of the group.
    pub async fn start(self) -> Result<Producer, StartError> {
        let topics = self.send.validate(&self.group)?;
        let core = self.client.core();
        let sender = Sender::new(core, self.group, self.send);
        let producer = Producer::new(self.client.clone(), sender, topics);
        let member: Arc<dyn ProducerMember> = Arc::<Shared>::clone(&producer.shared);
        core.groups.add_producer(&member)?;
        core.brokers.groups_changed();
        if !producer.shared.topics.is_empty() {
            heartbeat::greet_all(core).await;
        }
        Ok(producer)
    }
}
