//! One producer, a listener per topic or tag.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use escrowmq_common::message::properties::name;

use super::listener::Listener;
use super::{Decision, Half, TransactionListener};
use crate::message::{Message, MessageExt};

/// A listener that hands each transaction to the listener of its message's topic and tag: the tag's if there is one, else
/// the topic's, else [`otherwise`](Router::otherwise). Of a transaction of several messages the first one counts.
///
/// ```
/// # use escrowmq_client::{Checker, Decision, MessageExt};
/// use escrowmq_client::Router;
///
/// # let orders = Checker::new(|_: MessageExt| async { Decision::Unknown });
/// # let (refunds, others) = (orders, orders);
/// let router = Router::new()
///     .on("Orders", orders)
///     .on_tag("Orders", "refunded", refunds)
///     .otherwise(others);
/// ```
#[derive(Clone, Default)]
pub struct Router {
    topics: HashMap<String, Topic>,
    otherwise: Option<Arc<dyn Listener>>,
}

#[derive(Clone, Default)]
struct Topic {
    any: Option<Arc<dyn Listener>>,
    by_tag: HashMap<String, Arc<dyn Listener>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("topics", &self.topics.keys()).finish_non_exhaustive()
    }
}

impl Router {
    /// A router without routes.
    pub fn new() -> Router {
        Router::default()
    }

    /// Gives the transactions of `topic` to `listener`, except for those whose tag has one of its own. A later listener for
    /// the same topic takes the place of the earlier one.
    #[must_use]
    pub fn on(mut self, topic: impl Into<String>, listener: impl TransactionListener) -> Router {
        self.topics.entry(topic.into()).or_default().any = Some(Arc::new(listener));
        self
    }

    /// Gives the transactions of `topic` with this tag to `listener`.
    #[must_use]
    pub fn on_tag(
        mut self,
        topic: impl Into<String>,
        tag: impl Into<String>,
        listener: impl TransactionListener,
    ) -> Router {
        self.topics.entry(topic.into()).or_default().by_tag.insert(tag.into(), Arc::new(listener));
        self
    }

    /// Gives all other transactions to `listener`. Without one they are [`Decision::Unknown`], with a warning in the log:
    /// the broker asks again, so a process that knows the topic may still answer.
    #[must_use]
    pub fn otherwise(mut self, listener: impl TransactionListener) -> Router {
        self.otherwise = Some(Arc::new(listener));
        self
    }

    fn find(&self, topic: &str, tag: Option<&str>) -> Option<&Arc<dyn Listener>> {
        let of_topic = self.topics.get(topic);
        let of_tag = of_topic.zip(tag).and_then(|(topic, tag)| topic.by_tag.get(tag));
        let found = of_tag.or_else(|| of_topic.and_then(|topic| topic.any.as_ref())).or(self.otherwise.as_ref());
        if found.is_none() {
            tracing::warn!(topic, tag, "no listener for transactions of this topic and tag: left to the next check");
        }
        found
    }
}

impl TransactionListener for Router {
    async fn execute_local_transaction(&self, message: &Message, half: &Half) -> Decision {
        match self.find(message.topic(), message.get(name::TAGS)) {
            Some(listener) => listener.execute(message, half).await,
            None => Decision::Unknown,
        }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        match self.find(message.topic(), message.tag()) {
            Some(listener) => listener.check(message).await,
            None => Decision::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Checker;

    /// A listener that answers always the same, told apart by the number of its seconds.
    fn numbered(seconds: u64) -> impl TransactionListener {
        let retry_after = std::time::Duration::from_secs(seconds);
        Checker::new(move |_: MessageExt| async move { Decision::InProgress { retry_after } })
    }

    async fn asked(router: &Router, topic: &str, tag: Option<&str>) -> Option<u64> {
        let listener = router.find(topic, tag)?;
        let message = crate::message::testing::delivered(topic, 0, b"x");
        let Decision::InProgress { retry_after } = listener.check(&message).await else { panic!("numbered") };
        Some(retry_after.as_secs())
    }

    #[tokio::test]
    async fn the_tag_goes_before_the_topic_and_both_before_the_rest() {
        let router =
            Router::new().on("T", numbered(1)).on_tag("T", "paid", numbered(2)).on_tag("U", "paid", numbered(3));
        assert_eq!(asked(&router, "T", Some("paid")).await, Some(2));
        assert_eq!(asked(&router, "T", Some("other")).await, Some(1));
        assert_eq!(asked(&router, "T", None).await, Some(1));
        assert_eq!(asked(&router, "U", Some("paid")).await, Some(3));
        assert_eq!(asked(&router, "U", None).await, None);
        assert_eq!(asked(&router, "V", Some("paid")).await, None);
        let router = router.otherwise(numbered(4)).on("T", numbered(5));
        assert_eq!(asked(&router, "U", None).await, Some(4));
        assert_eq!(asked(&router, "V", Some("paid")).await, Some(4));
        assert_eq!(asked(&router, "T", None).await, Some(5), "the later one");
    }

    #[tokio::test]
    async fn what_nobody_wants_stays_unknown() {
        let message = crate::message::testing::delivered("T", 0, b"x");
        assert_eq!(Router::new().check_local_transaction(&message).await, Decision::Unknown);
    }
}
