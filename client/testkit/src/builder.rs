//! The settings of a kit.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::StartError;
use crate::kit::Kit;

/// Collects the settings of a [`Kit`]. Made by [`Kit::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct KitBuilder {
    pub(crate) topics: Vec<Topic>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) patience: Duration,
}

/// A topic that is there from the start.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) queues: u32,
    pub(crate) duplicate_window: Duration,
}

impl KitBuilder {
    pub(crate) fn new() -> KitBuilder {
        KitBuilder { topics: Vec::new(), settings: BTreeMap::new(), patience: Duration::from_secs(10) }
    }

    /// A topic that is there from the start. Others come into being by the first message that is sent to them, unless
    /// [`auto_create_topics`](KitBuilder::auto_create_topics) says otherwise.
    pub fn topic(self, name: impl Into<String>, queues: u32) -> KitBuilder {
        self.topic_with_duplicate_window(name, queues, Duration::ZERO)
    }

    /// A topic whose broker recognises, for this long, a message that is sent again: it keeps one of them. In whole seconds.
    pub fn topic_with_duplicate_window(mut self, name: impl Into<String>, queues: u32, window: Duration) -> KitBuilder {
        self.topics.push(Topic { name: name.into(), queues, duplicate_window: window });
        self
    }

    /// Whether sending to an unknown topic creates it. Default true.
    pub fn auto_create_topics(self, create: bool) -> KitBuilder {
        self.setting("autoCreateTopicEnable", create)
    }

    /// A setting of the broker, by the name that its settings file has: `transactionTimeOut`, `messageDelayLevel` and so on. The
    /// name of the broker, its addresses and its folder are the kit's.
    #[expect(clippy::needless_pass_by_value, reason = "a number is given as it is")]
    pub fn setting(mut self, key: impl Into<String>, value: impl ToString) -> KitBuilder {
        self.settings.insert(key.into(), value.to_string());
        self
    }

    /// How long an assertion waits, in real time, for what must happen. Default 10 s.
    pub fn patience(mut self, patience: Duration) -> KitBuilder {
        self.patience = patience;
        self
    }

    /// Starts nameserver and broker. Returns when clients are served and the topics are there.
    pub async fn start(self) -> Result<Kit, StartError> {
        Kit::start_as(self).await
    }
}
