//! How many topics, queues and groups there may be, and how fast one connection may make them.
//!
//! Each takes memory for as long as it exists, and is loaded at each start. A client that could make them without end would end
//! the broker for all.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::Creations;
use crate::terms::TopicSettings;

/// On whose behalf something is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// A client, by the number of its connection.
    Connection(u64),
    /// The broker itself, for what is there already: system topics, the retry and dead letter topics of a group.
    Broker,
}

/// Why nothing more is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMany {
    /// The broker has as many as it may have.
    #[error("this broker may have {limit} {what} ({setting}) and has no room for {wanted} more: nothing was made")]
    There {
        /// Topics, queues or groups.
        what: &'static str,
        /// The setting.
        setting: &'static str,
        /// Its value.
        limit: u64,
        /// How many were to be made.
        wanted: u64,
    },
    /// The connection made too many.
    #[error(
        "a connection may make {limit} topics and groups in a minute (creationsPerMinutePerConnection): try again later"
    )]
    TooFast {
        /// The setting's value.
        limit: u32,
    },
}

/// Counts the topics and groups that each connection makes in a minute. A connection that makes none has no entry.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// The minute of the monotonic clock that is counted, and the connections' counts.
    of: Mutex<(u64, HashMap<u64, u32>)>,
}

impl Rates {
    /// Counts one more of a connection, unless it has made `limit` in this minute.
    fn take(&self, connection: u64, limit: u32, now: Duration) -> bool {
        let minute = now.as_secs() / 60;
        let mut rates = self.of.lock();
        if rates.0 != minute {
            *rates = (minute, HashMap::new());
        }
        let made = rates.1.entry(connection).or_default();
        if *made >= limit {
            return false;
        }
        *made += 1;
        true
    }
}

impl Creations {
    /// Whether a topic with these settings may be made, or may grow to them, while this many others are being made.
    pub(super) fn may_make_topic(
        &self,
        maker: Maker,
        settings: &TopicSettings,
        being_made: usize,
        queues_being_made: u64,
    ) -> Result<(), TooMany> {
        let Maker::Connection(_) = maker else { return Ok(()) };
        let (config, topics) = (self.config.load(), self.shard.topics());
        let current = topics.get(&settings.name);
        if current.is_none() {
            self.check_rate(maker)?;
            self.check_room("topics", "maxTopics", config.max_topics as u64, (topics.len() + being_made) as u64, 1)?;
        }
        let known = current.map_or(0, |topic| topic.queues.len() as u64);
        let wanted = u64::from(settings.queue_count()).saturating_sub(known);
        let there = topics.queue_count().saturating_add(queues_being_made);
        self.check_room("queues", "maxQueues", config.max_queues, there, wanted)
    }

    /// Whether a group may be made, if there is none of this name, while this many others are being made.
    pub(super) fn may_make_group(&self, maker: Maker, name: &str, being_made: usize) -> Result<(), TooMany> {
        let groups = self.shard.groups();
        if maker == Maker::Broker || groups.get(name).is_some() {
            return Ok(());
        }
        self.check_rate(maker)?;
        let limit = self.config.load().max_groups as u64;
        self.check_room("groups", "maxGroups", limit, (groups.len() + being_made) as u64, 1)
    }

    fn check_rate(&self, maker: Maker) -> Result<(), TooMany> {
        let Maker::Connection(connection) = maker else { return Ok(()) };
        let limit = self.config.load().creations_per_minute;
        if self.rates.take(connection, limit, self.clock.monotonic()) {
            return Ok(());
        }
        self.metrics.creations_too_fast.add_one();
        Err(TooMany::TooFast { limit })
    }

    fn check_room(
        &self,
        what: &'static str,
        setting: &'static str,
        limit: u64,
        there: u64,
        wanted: u64,
    ) -> Result<(), TooMany> {
        // An existing topic or group may be changed even above the limit.
        if wanted == 0 || there.saturating_add(wanted) <= limit {
            return Ok(());
        }
        self.metrics.creations_refused.add_one();
        Err(TooMany::There { what, setting, limit, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_makes_so_many_in_a_minute() {
        let (rates, at) = (Rates::default(), Duration::from_secs);
        assert!(rates.take(1, 2, at(59)) && rates.take(1, 2, at(59)));
        assert!(!rates.take(1, 2, at(59)));
        assert!(rates.take(2, 2, at(59)), "another one has its own");
        assert!(rates.take(1, 2, at(60)), "a minute later");
        assert_eq!(rates.of.lock().1.len(), 1, "nothing is kept of the minute before");
    }
}
