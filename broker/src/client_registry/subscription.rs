//! The subscription of a consumer group to a topic.

use std::sync::OnceLock;

use escrowmq_common::body::SubscriptionData;

use crate::filter::{Filter, FilterError};

/// A subscription as the client sent it, and the filter that the first pull makes of it.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// As the client sent it.
    pub data: SubscriptionData,
    filter: OnceLock<Result<Filter, FilterError>>,
}

impl Subscription {
    /// Reads nothing yet: heartbeats bring subscriptions under the registry's lock, and many that nobody pulls by.
    pub(crate) fn new(data: SubscriptionData) -> Self {
        Self { data, filter: OnceLock::new() }
    }

    /// The messages that pass. An expression that does not parse is kept with its error, which its pulls get as answer.
    pub(crate) fn filter(&self) -> &Result<Filter, FilterError> {
        self.filter.get_or_init(|| Filter::of_subscription(&self.data))
    }
}
