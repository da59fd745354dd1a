//! Consumer groups that came into being because a client named them, and that nobody uses: they go by themselves, where
//! `groupExpireHours` says so.
//!
//! A group goes only if nothing would be missed: no operator chose its settings, it has no member, it has read no message
//! of any queue that is still kept, and nothing is in its retry and dead letter topics or waits to get there. All of that
//! must hold at each look for the whole time, which begins again with a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::name;
use escrowmq_common::some_lines;
use escrowmq_common::task::{Shutdown, Tasks};

use crate::client_registry::ClientRegistry;
use crate::config::CurrentConfig;
use crate::delivery::Offsets;
use crate::index::{self, IndexError};
use crate::metrics::Metrics;
use crate::registration::Registration;
use crate::shard::{Admission, Command, Shard, Topic};
use crate::steady_clock::SteadyClock;
use crate::terms::{QueueId, QueueOffset, Stamp};

/// Between looks.
const EVERY: Duration = Duration::from_secs(600);
/// With more waiting messages than this no group goes: a look would take too long.
const TIMERS_MAX: usize = 1_000_000;

/// Deletes groups that nobody has used for long enough.
pub(crate) struct UnusedGroups {
    /// The groups with their topics, and where commands go.
    pub shard: Shard,
    /// The members of groups.
    pub clients: Arc<ClientRegistry>,
    /// How far groups have come.
    pub offsets: Arc<Offsets>,
    /// After how long a group goes.
    pub config: CurrentConfig,
    /// Counts those that went.
    pub metrics: Arc<Metrics>,
    /// Tells nameservers that their topics went.
    pub registration: Arc<Registration>,
    /// Now.
    pub time: Arc<SteadyClock>,
    /// Where offsets and timers are read.
    pub tasks: Tasks,
}

/// Since when groups have been unused, in milliseconds of the broker's time.
#[derive(Debug, Default)]
pub(crate) struct UnusedSince(HashMap<String, Stamp>);

impl UnusedGroups {
    /// Looks until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let groups = Arc::new(self);
        let mut since = UnusedSince::default();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = groups.look(&mut since, groups.time.now()).await {
                tracing::error!(%error, "unused groups: cannot read offsets; trying again");
            }
        }
    }

    /// One look at all groups at a time of the broker. Deletes those that have been unused for long enough.
    pub(crate) async fn look(self: &Arc<Self>, since: &mut UnusedSince, now: Stamp) -> Result<(), IndexError> {
        let hours = u64::from(self.config.load().group_expire_hours);
        if hours == 0 {
            since.0.clear();
            return Ok(());
        }
        let reader = Arc::clone(self);
        let look = self.tasks.spawn_blocking("unused groups", move || reader.unused());
        let Ok(Some(unused)) = look.await else { return Ok(()) };
        let due = since.due(unused?, now, hours * 60 * 60 * 1000);
        if due.is_empty() {
            return Ok(());
        }
        let reader = Arc::clone(self);
        let look = self.tasks.spawn_blocking("waiting messages", move || reader.waiting_for());
        let Ok(Some(waiting)) = look.await else { return Ok(()) };
        let Some(waiting) = waiting? else {
            tracing::warn!("unused groups stay: too many messages wait for their time to look whether one is theirs");
            return Ok(());
        };
        for group in due {
            let topics = self.own_topics(&group);
            let is_awaited = topics.iter().flat_map(|topic| &topic.queues).any(|queue| waiting.contains(&queue.id));
            // Somebody may have come since the look.
            if !is_awaited && self.is_unused(&group)? {
                self.expire(&group, &topics).await;
            }
        }
        Ok(())
    }

    fn unused(&self) -> Result<Vec<String>, IndexError> {
        let mut unused = Vec::new();
        for group in self.shard.groups().all() {
            if self.is_unused(&group.name)? {
                unused.push(group.name.clone());
            }
        }
        Ok(unused)
    }

    fn is_unused(&self, group: &str) -> Result<bool, IndexError> {
        let made_by_use = self.shard.groups().get(group).is_some_and(|settings| settings.is_made_by_use());
        if !made_by_use || name::is_system_group(group) || !self.clients.consumers(group).is_empty() {
            return Ok(false);
        }
        let has_messages = |topic: &Arc<Topic>| topic.queues.iter().any(|queue| queue.max_offset() > QueueOffset::ZERO);
        if self.own_topics(group).iter().any(has_messages) {
            return Ok(false);
        }
        let offsets = self.offsets.all_of(&self.shard, group)?;
        let has_read = |(queue, offset): &(QueueId, QueueOffset)| {
            self.shard.topics().queue(*queue).is_some_and(|queue| *offset > queue.min_offset())
        };
        Ok(!offsets.iter().any(has_read))
    }

    /// Retry and dead letter topic, as far as they are there.
    fn own_topics(&self, group: &str) -> Vec<Arc<Topic>> {
        let names = [name::retry_topic(group), name::dead_letter_topic(group)];
        names.iter().filter_map(|name| self.shard.topics().get(name)).collect()
    }

    /// The queues that messages wait to enter; `None` if too many wait.
    fn waiting_for(&self) -> Result<Option<HashSet<QueueId>>, IndexError> {
        let waiting = index::timer::due(self.shard.index(), Stamp::ZERO, Stamp::MAX, TIMERS_MAX + 1)?;
        Ok((waiting.len() <= TIMERS_MAX).then(|| waiting.iter().map(|row| row.queue).collect()))
    }

    async fn expire(&self, group: &str, topics: &[Arc<Topic>]) {
        let command = Command::DeleteGroup { group, offsets: true };
        if let Err(error) = self.offsets.delete_group(&self.shard, group, &command).await {
            return tracing::warn!(group, %error, "an unused group could not be deleted; trying again");
        }
        self.metrics.groups_expired.add_one();
        some_lines!(
            info,
            group,
            "unused group deleted (groupExpireHours): a client's use had made it, and nobody used it since"
        );
        for topic in topics {
            let name = &topic.settings.name;
            if let Err(error) = self.shard.propose(&Command::DeleteTopic(name), Admission::Reserved).await {
                tracing::warn!(topic = name, %error, "the empty topic of an unused group could not be deleted");
            }
        }
        self.registration.changed();
    }
}

impl UnusedSince {
    /// Which of the groups that are unused now have been for this long.
    fn due(&mut self, unused: Vec<String>, now: Stamp, after: u64) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        for group in unused {
            let since = before.get(&group).copied().unwrap_or(now);
            self.0.insert(group, since);
        }
        let long = self.0.iter().filter(|(_, since)| now.since(**since) >= after);
        long.map(|(group, _)| group.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_must_be_unused_for_the_whole_time() {
        let mut unused = UnusedSince::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(unused.due(names(&["a", "b"]), Stamp(1000), 500), names(&[]));
        assert_eq!(unused.due(names(&["a"]), Stamp(1300), 500), names(&[]));
        // b was used in between, so its time begins again.
        assert_eq!(unused.due(names(&["a", "b"]), Stamp(1500), 500), names(&["a"]));
        assert_eq!(unused.due(names(&["b"]), Stamp(1999), 500), names(&[]));
        assert_eq!(unused.due(names(&["b"]), Stamp(2000), 500), names(&["b"]));
        assert!(!unused.0.contains_key("a"), "what is gone is forgotten");
    }
}
