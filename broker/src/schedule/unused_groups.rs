//! Consumer groups that came into being because a client named them, and that nobody uses: they go by themselves, where
//! `groupExpireHours` says so.
//!
//! A group goes only if nothing would be missed: no operator chose its settings, it has no member, it has read no message
//! of any queue that is still kept, and nothing is in its retry and dead letter topics or waits to get there. All of that
//! must hold at each look for the whole time; a restart begins the time anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::name;
use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::index::{self, IndexError};
use crate::shard::{Admission, Command, Topic};
use crate::terms::{QueueId, QueueOffset, Stamp};

/// Between looks.
const EVERY: Duration = Duration::from_secs(600);
/// With more waiting messages than this no group goes: a look would take too long.
const TIMERS_MAX: usize = 1_000_000;

/// Since when groups have been unused, in milliseconds of the broker's time.
#[derive(Debug, Default)]
pub(crate) struct UnusedGroups {
    since: HashMap<String, Stamp>,
}

/// Looks until shutdown.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    let mut unused = UnusedGroups::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = unused.look(&broker, broker.now()).await {
            tracing::error!(%error, "unused groups: cannot read offsets; trying again");
        }
    }
}

impl UnusedGroups {
    /// One look at all groups at a time of the broker. Deletes those that have been unused for long enough.
    pub(crate) async fn look(&mut self, broker: &Arc<Broker>, now: Stamp) -> Result<(), IndexError> {
        let hours = u64::from(broker.config().group_expire_hours);
        if hours == 0 {
            self.since.clear();
            return Ok(());
        }
        let reader = Arc::clone(broker);
        let look = broker.tasks.spawn_blocking("unused groups", move || unused(&reader));
        let Ok(Some(unused)) = look.await else { return Ok(()) };
        let due = self.due(unused?, now, hours * 60 * 60 * 1000);
        if due.is_empty() {
            return Ok(());
        }
        let reader = Arc::clone(broker);
        let look = broker.tasks.spawn_blocking("waiting messages", move || waiting_for(&reader));
        let Ok(Some(waiting)) = look.await else { return Ok(()) };
        let Some(waiting) = waiting? else {
            tracing::warn!("unused groups stay: too many messages wait for their time to look whether one is theirs");
            return Ok(());
        };
        for group in due {
            let topics = own_topics(broker, &group);
            let is_awaited = topics.iter().flat_map(|topic| &topic.queues).any(|queue| waiting.contains(&queue.id));
            // Somebody may have come since the look.
            if !is_awaited && is_unused(broker, &group)? {
                expire(broker, &group, &topics).await;
            }
        }
        Ok(())
    }

    /// Which of the groups that are unused now have been for so long.
    fn due(&mut self, unused: Vec<String>, now: Stamp, after: u64) -> Vec<String> {
        let before = std::mem::take(&mut self.since);
        for group in unused {
            let since = before.get(&group).copied().unwrap_or(now);
            self.since.insert(group, since);
        }
        let long = self.since.iter().filter(|(_, since)| now.since(**since) >= after);
        long.map(|(group, _)| group.clone()).collect()
    }
}

fn unused(broker: &Broker) -> Result<Vec<String>, IndexError> {
    let mut unused = Vec::new();
    for group in broker.shard.groups().all() {
        if is_unused(broker, &group.name)? {
            unused.push(group.name.clone());
        }
    }
    Ok(unused)
}

fn is_unused(broker: &Broker, group: &str) -> Result<bool, IndexError> {
    let made_by_use = broker.shard.groups().get(group).is_some_and(|settings| settings.is_made_by_use());
    if !made_by_use || name::is_system_group(group) || !broker.clients.consumers(group).is_empty() {
        return Ok(false);
    }
    let has_messages = |topic: &Arc<Topic>| topic.queues.iter().any(|queue| queue.max_offset() > QueueOffset::ZERO);
    if own_topics(broker, group).iter().any(has_messages) {
        return Ok(false);
    }
    let offsets = broker.delivery.offsets.all_of(&broker.shard, group)?;
    let has_read = |(queue, offset): &(QueueId, QueueOffset)| {
        broker.shard.topics().queue(*queue).is_some_and(|queue| *offset > queue.min_offset())
    };
    Ok(!offsets.iter().any(has_read))
}

/// Retry and dead letter topic, as far as they are there.
fn own_topics(broker: &Broker, group: &str) -> Vec<Arc<Topic>> {
    let names = [name::retry_topic(group), name::dead_letter_topic(group)];
    names.iter().filter_map(|name| broker.shard.topics().get(name)).collect()
}

/// The queues that messages wait to enter; `None` if too many wait.
fn waiting_for(broker: &Broker) -> Result<Option<HashSet<QueueId>>, IndexError> {
    let waiting = index::timer::due(broker.shard.index(), Stamp::ZERO, Stamp::MAX, TIMERS_MAX + 1)?;
    Ok((waiting.len() <= TIMERS_MAX).then(|| waiting.iter().map(|row| row.queue).collect()))
}

async fn expire(broker: &Arc<Broker>, group: &str, topics: &[Arc<Topic>]) {
    let command = Command::DeleteGroup { group, offsets: true };
    if let Err(error) = broker.delivery.offsets.delete_group(&broker.shard, group, &command).await {
        return tracing::warn!(group, %error, "an unused group could not be deleted; trying again");
    }
    broker.metrics.groups_expired.add_one();
    tracing::info!(
        group,
        "unused group deleted (groupExpireHours): a client's use had made it, and nobody used it since"
    );
    for topic in topics {
        let name = &topic.settings.name;
        if let Err(error) = broker.shard.propose(&Command::DeleteTopic(name), Admission::Reserved).await {
            tracing::warn!(topic = name, %error, "the empty topic of an unused group could not be deleted");
        }
    }
    broker.registration.changed();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_must_be_unused_for_the_whole_time() {
        let mut unused = UnusedGroups::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(unused.due(names(&["a", "b"]), Stamp(1000), 500), names(&[]));
        assert_eq!(unused.due(names(&["a"]), Stamp(1300), 500), names(&[]));
        // b was used in between, so its time begins anew.
        assert_eq!(unused.due(names(&["a", "b"]), Stamp(1500), 500), names(&["a"]));
        assert_eq!(unused.due(names(&["b"]), Stamp(1999), 500), names(&[]));
        assert_eq!(unused.due(names(&["b"]), Stamp(2000), 500), names(&["b"]));
        assert!(!unused.since.contains_key("a"), "what is gone is forgotten");
    }
}
