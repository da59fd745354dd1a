//! What the broker must know of a message's properties, found in one pass.

use escrowmq_common::message::properties::name;
use escrowmq_common::message::{Properties, java_hash};

/// The properties that mean something to the broker, borrowed from the message's own string.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known<'a> {
    pub(super) unique_key: Option<&'a str>,
    pub(super) tags: Option<&'a str>,
    /// `TRAN_MSG` is true.
    pub(super) is_transactional: bool,
    pub(super) producer_group: Option<&'a str>,
    pub(super) immunity: Option<&'a str>,
    pub(super) delay: Option<&'a str>,
    pub(super) timer_delay_seconds: Option<&'a str>,
    pub(super) timer_delay_ms: Option<&'a str>,
    pub(super) timer_deliver_ms: Option<&'a str>,
    pub(super) reply_to_client: Option<&'a str>,
    /// Something is there that is removed or replaced, so that the string must be written anew.
    pub(super) needs_edit: bool,
}

impl<'a> Known<'a> {
    /// Reads a property string; of equal names the last one counts.
    pub(super) fn of(text: &'a str) -> Self {
        let mut known = Self::default();
        for (name, value) in Properties::new(text).iter() {
            match name {
                name::UNIQUE_KEY => known.unique_key = Some(value),
                name::TAGS => known.tags = Some(value),
                name::TRANSACTION_PREPARED => known.is_transactional = value.eq_ignore_ascii_case("true"),
                name::PRODUCER_GROUP => known.producer_group = Some(value),
                name::CHECK_IMMUNITY_TIME => known.immunity = Some(value),
                name::DELAY => known.delay = Some(value),
                name::TIMER_DELAY_SECONDS => known.timer_delay_seconds = Some(value),
                name::TIMER_DELAY_MS => known.timer_delay_ms = Some(value),
                name::TIMER_DELIVER_MS => known.timer_deliver_ms = Some(value),
                name::REPLY_TO_CLIENT => known.reply_to_client = Some(value),
                name::POP_CK
                | name::MSG_REGION
                | name::TRACE_ON
                | name::CLUSTER
                | name::REAL_TOPIC
                | name::REAL_QUEUE_ID
                | name::TIMER_OUT_MS
                | name::TIMER_ENQUEUE_MS => known.needs_edit = true,
                name if name.starts_with(name::TRANSIENT_PREFIX) => known.needs_edit = true,
                _ => {}
            }
        }
        known
    }

    /// The hash that queues keep of the tag.
    pub(super) fn tag_hash(&self) -> i64 {
        self.tags.map_or(0, |tag| i64::from(java_hash(tag)))
    }

    /// The delay level; 0 if there is none, or nothing that is a number.
    pub(super) fn delay_level(&self) -> i32 {
        self.delay.and_then(|level| level.trim().parse().ok()).unwrap_or_default()
    }

    /// Whether the message names a time of delivery.
    pub(super) fn has_timer(&self) -> bool {
        self.timer_delay_seconds.is_some() || self.timer_delay_ms.is_some() || self.timer_deliver_ms.is_some()
    }

    /// Whether this is a half message. A retry of old clients carries the property on; it is told by its delay.
    pub(super) fn is_half(&self, reconsume_times: i32) -> bool {
        self.is_transactional && !(reconsume_times > 0 && self.delay_level() > 0)
    }

    /// How long the first check waits, in milliseconds, if the message says so in a way that makes sense.
    pub(super) fn immunity_ms(&self) -> Option<u64> {
        let seconds: i64 = self.immunity?.trim().parse().ok()?;
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| seconds.saturating_mul(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts() {
        let known = Known::of("UNIQ_KEY\u{1}a\u{2}TAGS\u{1}TagA\u{2}UNIQ_KEY\u{1}b");
        assert_eq!(known.unique_key, Some("b"));
        assert_eq!(known.tag_hash(), 2_598_919);
        assert!(!known.needs_edit && !known.is_half(0) && !known.has_timer());
        assert_eq!(Known::of("").tag_hash(), 0);
    }

    #[test]
    fn a_half_is_told_by_its_property_unless_it_is_a_retry() {
        let half = Known::of("TRAN_MSG\u{1}True\u{2}PGROUP\u{1}g\u{2}");
        assert!(half.is_half(0) && half.is_half(1));
        assert!(!Known::of("TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}").is_half(1));
        assert!(Known::of("TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}").is_half(0));
        assert!(!Known::of("TRAN_MSG\u{1}1\u{2}").is_half(0));
        assert!(!Known::of("TRAN_MSG\u{1}true\u{2}TRAN_MSG\u{1}false\u{2}").is_half(0));
    }

    #[test]
    fn immunity_is_a_positive_number_of_seconds() {
        let immunity =
            |value: &str| Known::of(&format!("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}{value}\u{2}")).immunity_ms();
        assert_eq!(immunity("10"), Some(10_000));
        for none in ["-1", "0", "x", "99999999999999999999"] {
            assert_eq!(immunity(none), None, "{none}");
        }
        assert_eq!(immunity("9223372036854775807"), Some(u64::MAX));
    }

    #[test]
    fn what_the_broker_itself_writes_must_be_replaced() {
        for name in ["POP_CK", "MSG_REGION", "REAL_TOPIC", "__RMQ.TRANSIENT.x"] {
            assert!(Known::of(&format!("{name}\u{1}x\u{2}")).needs_edit, "{name}");
        }
    }
}
