//! A consumer's choice of a topic's messages.

use std::sync::Arc;

use escrowmq_common::body::{EXPRESSION_SQL92, EXPRESSION_TAG, SubscriptionData};
use escrowmq_common::clock;
use escrowmq_common::limits::EXPRESSION_BYTES_MAX;
use escrowmq_common::message::TagFilter;
use escrowmq_common::name::retry_topic;

use crate::error::StartError;
use crate::limit;
use crate::message::MessageExt;

/// How messages are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// By tag: the broker compares hashes, the client texts.
    Tags(TagFilter),
    /// By an SQL92 condition over properties: the broker alone decides.
    Sql(String),
}

/// One topic and the messages wanted of it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: Arc<str>,
    pub(crate) expression: Expression,
    /// Milliseconds since 1970 of its making; among members the newest counts.
    pub(crate) version: i64,
}

impl Subscription {
    /// By tags: `*`, `A`, `A || B`.
    pub(crate) fn tags(topic: &str, expression: &str) -> Result<Subscription, StartError> {
        limit::topic(topic).map_err(|error| StartError::setting("topic", error))?;
        limit::bytes(expression, EXPRESSION_BYTES_MAX).map_err(|error| StartError::setting("expression", error))?;
        let tags = TagFilter::parse(expression.trim()).map_err(|error| StartError::setting("expression", error))?;
        Ok(Subscription { topic: topic.into(), expression: Expression::Tags(tags), version: clock::wall_ms() })
    }

    /// By an SQL92 condition.
    pub(crate) fn sql(topic: &str, condition: &str) -> Result<Subscription, StartError> {
        limit::topic(topic).map_err(|error| StartError::setting("topic", error))?;
        if condition.trim().is_empty() {
            return Err(StartError::setting("expression", "the condition is empty"));
        }
        limit::bytes(condition, EXPRESSION_BYTES_MAX).map_err(|error| StartError::setting("expression", error))?;
        let expression = Expression::Sql(condition.to_owned());
        Ok(Subscription { topic: topic.into(), expression, version: clock::wall_ms() })
    }

    /// To the retry topic of `group`: everything, because what is retried was wanted once.
    pub(crate) fn retry(group: &str) -> Subscription {
        let topic = retry_topic(group).into();
        Subscription { topic, expression: Expression::Tags(TagFilter::All), version: clock::wall_ms() }
    }

    /// The name of the expression's language.
    pub(crate) fn language(&self) -> &'static str {
        match self.expression {
            Expression::Tags(_) => EXPRESSION_TAG,
            Expression::Sql(_) => EXPRESSION_SQL92,
        }
    }

    /// Whether a message that the broker let through is really wanted: tags may share a hash.
    pub(crate) fn wants(&self, message: &MessageExt) -> bool {
        match &self.expression {
            Expression::Tags(tags) => tags.matches(message.tag()),
            Expression::Sql(_) => true,
        }
    }

    /// The expression's text.
    pub(crate) fn text(&self) -> String {
        match &self.expression {
            Expression::Tags(TagFilter::All) => "*".to_owned(),
            Expression::Tags(TagFilter::Tags(tags)) => {
                tags.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>().join(" || ")
            }
            Expression::Sql(condition) => condition.clone(),
        }
    }

    /// As a heartbeat reports it.
    pub(crate) fn data(&self) -> SubscriptionData {
        let tags: &[(String, i32)] = match &self.expression {
            Expression::Tags(TagFilter::Tags(tags)) => tags,
            _ => &[],
        };
        SubscriptionData {
            topic: self.topic.to_string(),
            sub_string: self.text(),
            tags_set: tags.iter().map(|(tag, _)| tag.clone()).collect(),
            code_set: tags.iter().map(|(_, hash)| *hash).collect(),
            sub_version: self.version,
            expression_type: Some(self.language().to_owned()),
            ..SubscriptionData::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_reports_texts_and_hashes() {
        let data = Subscription::tags("T", "TagA || TagB").expect("good").data();
        assert_eq!((data.topic.as_str(), data.sub_string.as_str()), ("T", "TagA || TagB"));
        assert_eq!(data.code_set.into_iter().collect::<Vec<_>>(), [2_598_919, 2_598_920]);
        let retry = Subscription::retry("g").data();
        assert_eq!((retry.topic.as_str(), retry.sub_string.as_str()), ("%RETRY%g", "*"));
        assert!(retry.tags_set.is_empty());
    }

    #[test]
    fn nonsense_is_refused_before_it_leaves() {
        assert!(Subscription::tags("bad topic", "*").is_err());
        assert!(Subscription::tags("T", " || ").is_err());
        assert!(Subscription::sql("T", " ").is_err());
        let long = "a || ".repeat(20_000);
        for refused in [Subscription::tags("T", &long), Subscription::sql("T", &long)] {
            let error = refused.expect_err("too long").to_string();
            assert!(error.contains("100000 bytes, the limit is 65536"), "{error}");
        }
    }
}
