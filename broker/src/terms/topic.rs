//! The settings of a topic.

use escrowmq_common::name::DUPLICATE_WINDOW;
use serde::{Deserialize, Serialize};

/// The settings of a topic, chosen by an operator or the automatic creation. Replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// The name.
    pub name: String,
    /// Queues that consumers read.
    pub read_queues: u32,
    /// Queues that producers write to.
    pub write_queues: u32,
    /// Permission bits: 1 inherit, 2 write, 4 read.
    pub perm: u32,
    /// The protocol's topicSysFlag.
    pub sys_flag: u32,
    /// Whether the topic is marked as ordered.
    pub order: bool,
    /// The protocol's attributes, name and value.
    pub attributes: Vec<(String, String)>,
}

impl TopicSettings {
    /// Permission bit: queues may be read.
    pub const READ: u32 = 4;
    /// Permission bit: queues may be written.
    pub const WRITE: u32 = 2;
    /// Permission bit: template for topics that are created automatically.
    pub const INHERIT: u32 = 1;

    /// A topic with the same number of read and write queues, readable and writable.
    pub fn new(name: impl Into<String>, queues: u32) -> Self {
        Self {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm: Self::READ | Self::WRITE,
            sys_flag: 0,
            order: false,
            attributes: Vec::new(),
        }
    }

    /// The longest [duplicate window](DUPLICATE_WINDOW), in seconds: a week.
    pub const DUPLICATE_WINDOW_MAX: u64 = 7 * 24 * 60 * 60;

    /// For how long repeated sends are recognised, in milliseconds; 0, the default, is not at all.
    pub fn duplicate_window(&self) -> u64 {
        let set = self.attributes.iter().find(|(name, _)| name == DUPLICATE_WINDOW);
        set.and_then(|(_, seconds)| seconds.parse::<u64>().ok()).map_or(0, |seconds| seconds.saturating_mul(1000))
    }

    /// How many queues exist for these settings.
    pub fn queue_count(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }

    /// How many queues, from the first on, are both written and read; where one of these is switched off, the other counts.
    pub fn live_queues(&self) -> u32 {
        match self.read_queues.min(self.write_queues) {
            0 => self.queue_count(),
            both => both,
        }
    }
}
