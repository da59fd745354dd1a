//! Where a queue is consumed from when this group has stored nothing for it yet. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where a group that has stored no offset for a queue begins. An offset that is stored always wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeFrom {
    /// With messages sent from now on. On a young topic a broker may have the group begin at its first message all the
    /// same, so that nothing sent between the topic's creation and the consumer's start is missed.
    #[default]
    Last,
    /// With the oldest message that is kept.
    First,
    /// With the first message stored at or after this time.
    Timestamp(SystemTime),
}

/// The start, or the request to the broker that finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartPoint {
    /// Nothing: this offset.
    At(i64),
    /// The queue's end.
    End,
    /// The first offset at this time, in milliseconds since 1970.
    Since(i64),
}

impl ConsumeFrom {
    /// The start of a queue without a stored offset.
    pub(crate) fn start_point(self, is_retry_topic: bool) -> StartPoint {
        match self {
            // Messages in a retry topic were sent back by this very group: they are never skipped.
            _ if is_retry_topic => StartPoint::At(0),
            ConsumeFrom::Last => StartPoint::End,
            // The broker corrects it to the oldest message that is kept.
            ConsumeFrom::First => StartPoint::At(0),
            ConsumeFrom::Timestamp(time) => {
                let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                StartPoint::Since(since_epoch.as_millis() as i64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_choice_asks_for_what_it_needs() {
        assert_eq!(ConsumeFrom::Last.start_point(false), StartPoint::End);
        assert_eq!(ConsumeFrom::First.start_point(false), StartPoint::At(0));
        let time = UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(ConsumeFrom::Timestamp(time).start_point(false), StartPoint::Since(1500));
    }

    #[test]
    fn a_retry_topic_is_read_whole() {
        for from in [ConsumeFrom::Last, ConsumeFrom::First, ConsumeFrom::Timestamp(UNIX_EPOCH)] {
            assert_eq!(from.start_point(true), StartPoint::At(0));
        }
    }
}
