//! Names of topics and groups: what they may look like, which ones have a meaning, which ones clients may not touch.

use thiserror::Error;

use crate::limits::{GROUP_BYTES_MAX, NAMED_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX};

/// In front of a group's retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// In front of a group's dead-letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// In front of light queues.
pub const LMQ_PREFIX: &str = "%LMQ%";
/// In front of most system topics.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// In front of most system groups.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Template for topics that are created by sending to them.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";

/// Attribute of a topic: for this many seconds a message that is sent again under the same unique key gets the first one's
/// place.
pub const DUPLICATE_WINDOW: &str = "duplicate.window.seconds";
/// Where messages with a delay level wait; the queue is the level minus one.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where half messages appear to lie.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Where other brokers keep settled marks.
pub const OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where other brokers move halves that were checked too often.
pub const CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Default topic of message traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// Tests of old tools.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
/// Default topic of the benchmark tools.
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// Events of old brokers.
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
/// Input of the arbitrary timer.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// In front of the cluster's name in the topic of pop check points.
pub const REVIVE_TOPIC_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// In front of the broker's name in the topic of broker membership.
pub const SYNC_MEMBER_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
/// Consumer offsets of brokers that keep them in a database.
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
/// Comes after the cluster's name in the topic of replies.
pub const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";

/// Group that every client instance registers besides its own.
pub const CLIENT_INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";
/// Group under which half messages would be consumed.
pub const TRANSACTION_GROUP: &str = "CID_RMQ_SYS_TRANS";
/// Group of the admin tools.
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

/// System topics with a fixed name. Topics named after a cluster or a broker are known only to brokers.
const SYSTEM_TOPICS: &[&str] = &[
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    HALF_TOPIC,
    TRACE_TOPIC,
    OP_HALF_TOPIC,
    CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
    CHECKPOINT_TOPIC,
];

/// Topics that producers may not send to.
const SEND_FORBIDDEN: &[&str] =
    &[SCHEDULE_TOPIC, HALF_TOPIC, OP_HALF_TOPIC, CHECK_MAX_TIME_TOPIC, SELF_TEST_TOPIC, OFFSET_MOVED_EVENT];

/// Groups that users may not create or delete.
const SYSTEM_GROUPS: &[&str] = &[
    TRANSACTION_GROUP,
    TOOLS_GROUP,
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "__MONITOR_CONSUMER",
    "SCHEDULE_CONSUMER",
    CLIENT_INNER_PRODUCER,
];

/// Why a name is refused. The texts go to users as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing, or blanks only.
    #[error("The specified {0} is blank.")]
    Blank(&'static str),
    /// Longer than its kind of name may be.
    #[error("The specified {what} is longer than {what} max length {limit}.")]
    TooLong {
        /// `topic` or `group`.
        what: &'static str,
        /// Most bytes it may have.
        limit: usize,
    },
    /// A character that is not allowed.
    #[error("The specified {what}[{name}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    IllegalCharacter {
        /// `topic` or `group`.
        what: &'static str,
        /// The refused name.
        name: String,
    },
}

/// Whether users may create and send to a topic of this name, as far as its form goes. Retry and dead-letter topics may
/// be longer than others.
pub fn validate_topic(topic: &str) -> Result<(), NameError> {
    let limit = if topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
        NAMED_TOPIC_BYTES_MAX
    } else {
        TOPIC_BYTES_MAX
    };
    validate("topic", topic, limit)
}

/// Whether a group may have this name.
pub fn validate_group(group: &str) -> Result<(), NameError> {
    validate("group", group, GROUP_BYTES_MAX)
}

fn validate(what: &'static str, name: &str, limit: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank(what));
    }
    // Length first: an over-long name is not copied into the error.
    if name.len() > limit {
        return Err(NameError::TooLong { what, limit });
    }
    if !name.bytes().all(is_legal) {
        return Err(NameError::IllegalCharacter { what, name: name.to_owned() });
    }
    Ok(())
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'_' | b'-')
}

/// The topic from which a group consumes what it failed to consume.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that takes what a group has given up.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// Retry topic of a group that pops `topic`, older form. Which part is the group cannot be told from the name alone.
pub fn pop_retry_topic_v1(topic: &str, group: &str) -> String {
    format!("{RETRY_PREFIX}{group}_{topic}")
}

/// Retry topic of a group that pops `topic`, newer form. `+` occurs in neither name.
pub fn pop_retry_topic_v2(topic: &str, group: &str) -> String {
    format!("{RETRY_PREFIX}{group}+{topic}")
}

/// The topic that carries the replies of request-reply in a cluster.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}{REPLY_TOPIC_SUFFIX}")
}

/// Whether the topic is a group's retry topic, of whatever form.
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// Whether the topic holds dead letters.
pub fn is_dead_letter_topic(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}

/// The group of a retry topic (plain form) or dead-letter topic.
pub fn group_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX).or_else(|| topic.strip_prefix(DLQ_PREFIX))
}

/// Whether the topic belongs to the system: clients can neither create nor delete it, tools do not list it.
pub fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX)
}

/// Whether a producer's message to the topic is refused although the topic may exist.
pub fn is_send_forbidden(topic: &str) -> bool {
    SEND_FORBIDDEN.contains(&topic)
}

/// Whether the group belongs to the system.
pub fn is_system_group(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// The permissions of a topic on a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Perm(pub i32);

impl Perm {
    /// Topics may be created after this one's model.
    pub const INHERIT: i32 = 1;
    /// Producers may send.
    pub const WRITE: i32 = 2;
    /// Consumers may read.
    pub const READ: i32 = 4;
    /// Defined and unused.
    pub const PRIORITY: i32 = 8;
    /// The permissions of an ordinary topic.
    pub const READ_WRITE: Self = Self(Self::READ | Self::WRITE);

    /// Whether consumers may read.
    pub const fn is_readable(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether producers may send.
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Whether topics may be created after this one's model.
    pub const fn is_inherited(self) -> bool {
        self.0 & Self::INHERIT != 0
    }

    /// Whether it has no bit beyond those of an ordinary topic or template.
    pub const fn is_valid(self) -> bool {
        self.0 >= 0 && self.0 < Self::PRIORITY
    }

    /// With `bits` set.
    #[must_use]
    pub const fn with(self, bits: i32) -> Self {
        Self(self.0 | bits)
    }

    /// With `bits` cleared.
    #[must_use]
    pub const fn without(self, bits: i32) -> Self {
        Self(self.0 & !bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_and_illegal_names() {
        for good in ["T", "%RETRY%g", "a|b", "A-b_0", &"t".repeat(127)] {
            assert_eq!(validate_topic(good), Ok(()), "{good}");
        }
        assert_eq!(validate_topic(&retry_topic(&"g".repeat(120))), Ok(()));
        assert_eq!(validate_topic(""), Err(NameError::Blank("topic")));
        assert!(matches!(validate_topic(&"t".repeat(128)), Err(NameError::TooLong { limit: 127, .. })));
        assert!(matches!(
            validate_topic(&format!("%DLQ%{}", "g".repeat(251))),
            Err(NameError::TooLong { limit: 255, .. })
        ));
        for bad in ["a b", "a+b", "ü", "a.b", "a\u{1}"] {
            assert!(matches!(validate_topic(bad), Err(NameError::IllegalCharacter { .. })), "{bad}");
        }
        assert_eq!(validate_group(&"g".repeat(120)), Ok(()));
        assert!(validate_group(&"g".repeat(121)).is_err());
    }

    #[test]
    fn names_with_a_meaning() {
        assert_eq!(group_of("%RETRY%G"), Some("G"));
        assert_eq!(group_of(&dead_letter_topic("G")), Some("G"));
        assert_eq!(group_of("T"), None);
        assert!(is_system_topic("rmq_sys_wheel_timer") && is_system_topic("TBW102"));
        assert!(!is_system_topic("RMQ_SYS_OTHER") && !is_system_topic("T"));
        assert!(is_send_forbidden(HALF_TOPIC) && !is_send_forbidden(TRACE_TOPIC));
        assert!(is_system_group("CID_RMQ_SYS_x") && !is_system_group("CG"));
        assert_eq!(pop_retry_topic_v2("T", "G"), "%RETRY%G+T");
    }

    #[test]
    fn perm_bits() {
        let template = Perm(7);
        assert!(template.is_inherited() && template.is_valid());
        assert_eq!(template.without(Perm::INHERIT), Perm::READ_WRITE);
        assert!(!Perm(Perm::READ).is_writable());
        assert!(!Perm(8).is_valid() && !Perm(-1).is_valid());
    }
}
