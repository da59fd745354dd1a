//! The properties of a message that the broker acts on, found in one pass.

use escrowmq_common::message::properties::{PropertyValueError, name, value};
use escrowmq_common::message::{Properties, java_hash};

use crate::terms::Stamp;

/// The longest time before a first check that a half message may ask for, in milliseconds: a year. Longer than that nobody
/// waits for a local transaction, and a half that is never checked never ends.
const IMMUNITY_MAX_MS: u64 = 365 * 24 * 60 * 60 * 1_000;

/// The properties that mean something to the broker, borrowed from the message's own string. A value that cannot be read
/// makes the whole string unreadable.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known<'a> {
    pub(super) unique_key: Option<&'a str>,
    pub(super) tags: Option<&'a str>,
    /// `TRAN_MSG` is true.
    pub(super) is_transactional: bool,
    pub(super) producer_group: Option<&'a str>,
    /// How long the first check waits, in milliseconds, if the message says so. 0 and below mean the broker's own time.
    pub(super) immunity_ms: Option<u64>,
    /// The delay level; 0 and below mean none.
    pub(super) delay_level: i32,
    pub(super) timer: Option<Timer>,
    pub(super) reply_to_client: Option<&'a str>,
    /// A property whose meaning this broker cannot carry out.
    pub(super) unserved: Option<Unserved>,
    /// Something is there that is removed or replaced, so that the string must be written again.
    pub(super) needs_edit: bool,
}

/// The time of delivery that a message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// This many milliseconds after arrival, or after the commit.
    After(u64),
    /// At this time; one before that has passed.
    At(Stamp),
}

/// Properties that ask for what this broker does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// The message holds several inner ones, for a batch queue.
    InnerBatch,
    /// The message is to be copied into light queues.
    LightQueues,
    /// The message is an order to forget another one that waits.
    TimerDeletion,
}

impl Unserved {
    /// The remark for the sender.
    pub(super) fn remark(self) -> &'static str {
        match self {
            Self::InnerBatch => {
                "inner batches (property INNER_NUM) need a topic of batch queues, which this broker does not have"
            }
            Self::LightQueues => {
                "light queues (property INNER_MULTI_DISPATCH) are not served: the copies would be in no queue"
            }
            Self::TimerDeletion => {
                "property TIMER_DEL_UNIQKEY takes nothing back here: recall a message that waits by RECALL_MESSAGE and its handle"
            }
        }
    }
}

impl<'a> Known<'a> {
    /// Reads a property string; of equal names the last one counts.
    pub(super) fn of(text: &'a str) -> Result<Self, PropertyValueError> {
        let mut known = Self::default();
        let (mut transactional, mut immunity, mut delay) = (None, None, None);
        let (mut delay_seconds, mut delay_ms, mut deliver_ms) = (None, None, None);
        for (name, value) in Properties::new(text).iter() {
            match name {
                name::UNIQUE_KEY => known.unique_key = Some(value),
                name::TAGS => known.tags = Some(value),
                name::TRANSACTION_PREPARED => transactional = Some(value),
                name::PRODUCER_GROUP => known.producer_group = Some(value),
                name::CHECK_IMMUNITY_TIME => immunity = Some(value),
                name::DELAY => delay = Some(value),
                name::TIMER_DELAY_SECONDS => delay_seconds = Some(value),
                name::TIMER_DELAY_MS => delay_ms = Some(value),
                name::TIMER_DELIVER_MS => deliver_ms = Some(value),
                name::REPLY_TO_CLIENT => known.reply_to_client = Some(value),
                name::INNER_NUM => known.unserved = Some(Unserved::InnerBatch),
                name::INNER_MULTI_DISPATCH => known.unserved = Some(Unserved::LightQueues),
                name::TIMER_DELETE_UNIQUE_KEY => known.unserved = Some(Unserved::TimerDeletion),
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
        if let Some(text) = transactional {
            known.is_transactional = value::boolean(name::TRANSACTION_PREPARED, text)?;
        }
        if let Some(text) = delay {
            known.delay_level = value::number(name::DELAY, text)?;
        }
        if let Some(text) = immunity {
            known.immunity_ms = read_immunity(text)?;
        }
        // Each is read, also those that do not count beside another one.
        let deliver = deliver_ms.map(|text| value::millis(name::TIMER_DELIVER_MS, text, 1)).transpose()?;
        let millis = delay_ms.map(|text| value::millis(name::TIMER_DELAY_MS, text, 1)).transpose()?;
        let seconds = delay_seconds.map(|text| value::millis(name::TIMER_DELAY_SECONDS, text, 1_000)).transpose()?;
        known.timer = seconds.or(millis).map(Timer::After).or(deliver.map(|time| Timer::At(Stamp(time))));
        Ok(known)
    }

    /// The hash that queues keep of the tag.
    pub(super) fn tag_hash(&self) -> i32 {
        self.tags.map_or(0, java_hash)
    }

    /// Whether the message asks to wait, for a level or for a time.
    pub(super) fn is_delayed(&self) -> bool {
        self.delay_level > 0 || self.timer.is_some()
    }

    /// Whether this is a half message. A retry of old clients carries the property on; it is told by its delay.
    pub(super) fn is_half(&self, reconsume_times: i32) -> bool {
        self.is_transactional && !(reconsume_times > 0 && self.delay_level > 0)
    }
}

fn read_immunity(text: &str) -> Result<Option<u64>, PropertyValueError> {
    let millis = value::millis(name::CHECK_IMMUNITY_TIME, text, 1_000)?;
    if millis > IMMUNITY_MAX_MS {
        return Err(PropertyValueError::new(name::CHECK_IMMUNITY_TIME, text, "is longer than a year"));
    }
    Ok(Some(millis).filter(|millis| *millis > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Stamp;

    fn of(text: &str) -> Known<'_> {
        Known::of(text).unwrap()
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let known = of("UNIQ_KEY\u{1}a\u{2}TAGS\u{1}TagA\u{2}UNIQ_KEY\u{1}b");
        assert_eq!(known.unique_key, Some("b"));
        assert_eq!(known.tag_hash(), 2_598_919);
        assert!(!known.needs_edit && !known.is_half(0) && !known.is_delayed());
        assert_eq!(of("").tag_hash(), 0);
        assert_eq!(of("DELAY\u{1}abc\u{2}DELAY\u{1}2\u{2}").delay_level, 2);
    }

    #[test]
    fn a_half_is_told_by_its_property_unless_it_is_a_retry() {
        let half = of("TRAN_MSG\u{1}True\u{2}PGROUP\u{1}g\u{2}");
        assert!(half.is_half(0) && half.is_half(1));
        assert!(!of("TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}").is_half(1));
        assert!(of("TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}").is_half(0));
        assert!(!of("TRAN_MSG\u{1}true\u{2}TRAN_MSG\u{1}false\u{2}").is_half(0));
    }

    #[test]
    fn immunity_is_a_number_of_seconds() {
        let immunity = |value: &str| {
            Known::of(&format!("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}{value}\u{2}")).map(|known| known.immunity_ms).ok()
        };
        assert_eq!(immunity("10"), Some(Some(10_000)));
        assert_eq!((immunity("-1"), immunity("0")), (Some(None), Some(None)));
        for refused in ["x", "1.5", "31536001", "9223372036854775807", "99999999999999999999"] {
            assert_eq!(immunity(refused), None, "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_read_spoils_the_string_whichever_property_it_is() {
        for bad in [
            "DELAY\u{1}abc",
            "DELAY\u{1}3sw81-abc",
            "DELAY\u{1}99999999999",
            "TIMER_DELAY_SEC\u{1}soon",
            "TIMER_DELAY_SEC\u{1}9223372036854775807",
            "TIMER_DELAY_MS\u{1}1e3",
            "TIMER_DELIVER_MS\u{1}99999999999999999999",
            "TIMER_DELAY_SEC\u{1}1\u{2}TIMER_DELIVER_MS\u{1}soon",
            "TRAN_MSG\u{1}1",
            "TRAN_MSG\u{1}truesw8",
            "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}long",
        ] {
            assert!(Known::of(bad).is_err(), "{bad}");
        }
        assert_eq!(of("TIMER_DELAY_SEC\u{1}2\u{2}TIMER_DELAY_MS\u{1}7").timer, Some(Timer::After(2_000)));
        assert_eq!(of("TIMER_DELAY_MS\u{1}-7").timer, Some(Timer::After(0)));
        assert_eq!(of("TIMER_DELIVER_MS\u{1}77").timer, Some(Timer::At(Stamp(77))));
    }

    #[test]
    fn what_the_broker_itself_writes_must_be_replaced() {
        for name in ["POP_CK", "MSG_REGION", "REAL_TOPIC", "__RMQ.TRANSIENT.x"] {
            assert!(of(&format!("{name}\u{1}x\u{2}")).needs_edit, "{name}");
        }
    }
}
