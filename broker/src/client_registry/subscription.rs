//! What a consumer group wants of a topic.

use escrowmq_common::body::SubscriptionData;

use crate::delivery::filter::{Filter, FilterError};

/// A subscription as the client sent it, and the filter made of it once.
#[derive(Debug)]
pub struct Subscription {
    /// As the client sent it.
    pub data: SubscriptionData,
    /// What passes. An expression that does not parse is kept with its error, which its pulls get as answer.
    pub filter: Result<Filter, FilterError>,
}

impl Subscription {
    /// Reads the expression.
    pub fn new(data: SubscriptionData) -> Self {
        let filter = Filter::of_subscription(&data);
        Self { data, filter }
    }
}
