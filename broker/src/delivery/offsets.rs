//! How far each group has come in each queue.
//!
//! The newest value is in memory, where the next reader sees it; it is stored in batches, at most once a second for a
//! group and queue, and sooner where somebody waits for it. After a crash a group has lost at most the last second of
//! its commits and gets those messages again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use escrowmq_common::task::Shutdown;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::index::IndexError;
use crate::planted::{Bug, planted};
use crate::raft::Office;
use crate::shard::{Admission, Command, OffsetCommit, Outcome, Shard, SubmitError};
use crate::terms::{QueueId, QueueOffset};

/// How often what changed is stored.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
/// Offsets of one command.
const BATCH: usize = 4096;
/// How many turns of storing pass between two looks for deleted queues and groups.
const TIDY_TURNS: u32 = 60;

/// Why an offset is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitRefusal {
    /// Below what is stored, from a connection that is no member of the group or does not pull the queue.
    #[error(
        "offset {offset} is below the stored {stored}: only the member of the group that pulls the queue takes it back; \
         reset the group's offset instead"
    )]
    Lower {
        /// The offset that the client wants.
        offset: QueueOffset,
        /// The offset that is stored.
        stored: QueueOffset,
    },
    /// An operator moved the group, and the consumer has not heard of it yet.
    #[error("the offset was reset to {0}; pull again first")]
    Reset(QueueOffset),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// One group in one queue.
#[derive(Debug, Default)]
struct Slot {
    /// The newest offset; `None` until it was read or written once.
    newest: Option<QueueOffset>,
    /// Whether `newest` is still to be stored.
    dirty: bool,
    /// The connection that pulled last.
    puller: Option<u64>,
    /// Where that pull went on.
    pulled: Option<QueueOffset>,
    /// Where an operator moved the group, until its consumer hears of it.
    reset: Option<QueueOffset>,
}

/// Called when a commit is stored, or could not be.
type Stored = Box<dyn FnOnce(Result<(), SubmitError>) + Send>;

/// The commits that are to be stored next.
#[derive(Default)]
struct Pending {
    dirty: Vec<(Arc<str>, QueueId)>,
    waiters: Vec<Stored>,
}

/// The offsets of all groups.
pub(crate) struct Offsets {
    /// Without it nothing is stored: another leader may have taken newer offsets.
    office: Arc<Office>,
    groups: DashMap<Arc<str>, HashMap<QueueId, Slot>>,
    pending: Mutex<Pending>,
    /// Somebody waits for a commit.
    hurry: Notify,
    /// One flush at a time, so that an older value never overtakes a newer one.
    flushing: tokio::sync::Mutex<()>,
}

impl Offsets {
    /// Knows none. Stores as long as `office` is held.
    pub(crate) fn new(office: Arc<Office>) -> Self {
        Self {
            office,
            groups: DashMap::new(),
            pending: Mutex::default(),
            hurry: Notify::new(),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// The next offset that a group consumes from a queue; `None` if it never committed one.
    pub(crate) fn newest(&self, shard: &Shard, group: &str, queue: QueueId) -> Result<Option<QueueOffset>, IndexError> {
        let known = self.groups.get(group).and_then(|slots| slots.get(&queue)?.newest);
        match known {
            Some(offset) => Ok(Some(offset)),
            None => shard.offset(group, queue),
        }
    }

    /// All offsets of a group: those that are stored, as far as newer ones are not known.
    pub(crate) fn all_of(&self, shard: &Shard, group: &str) -> Result<Vec<(QueueId, QueueOffset)>, IndexError> {
        let mut offsets: HashMap<QueueId, QueueOffset> = shard.offsets(group)?.into_iter().collect();
        if let Some(slots) = self.groups.get(group) {
            offsets.extend(slots.iter().filter_map(|(queue, slot)| Some((*queue, slot.newest?))));
        }
        Ok(offsets.into_iter().collect())
    }

    /// Where the last pull of a group went on in a queue; `None` if there was none since the start.
    pub(crate) fn last_pull(&self, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let slots = self.groups.get(group)?;
        slots.get(&queue)?.pulled
    }

    /// A connection pulls a queue for a group from `offset` on. Says where the group was moved to, once.
    pub(crate) fn pulled(
        &self,
        group: &str,
        queue: QueueId,
        connection: u64,
        offset: QueueOffset,
    ) -> Option<QueueOffset> {
        self.with_slot(group, queue, |slot| {
            slot.puller = Some(connection);
            slot.pulled = Some(offset);
            slot.reset.take()
        })
    }

    /// Where the group was moved to, once; for a pull that waits.
    pub(crate) fn take_reset(&self, group: &str, queue: QueueId) -> Option<QueueOffset> {
        self.groups.get_mut(group)?.get_mut(&queue)?.reset.take()
    }

    /// Whether the group was moved and its consumer does not know yet.
    pub(crate) fn is_reset(&self, group: &str, queue: QueueId) -> bool {
        self.groups.get(group).is_some_and(|slots| slots.get(&queue).is_some_and(|slot| slot.reset.is_some()))
    }

    /// A consumer commits an offset. `is_member` says whether its connection is in the group; it is asked only for an
    /// offset that goes back, and must not ask for offsets itself.
    pub(crate) fn commit(
        &self,
        shard: &Shard,
        group: &str,
        queue: QueueId,
        offset: QueueOffset,
        connection: u64,
        is_member: impl FnOnce() -> bool,
    ) -> Result<(), CommitRefusal> {
        self.take(shard, group, queue, offset, |slot, newest| judge(slot, newest, offset, connection, is_member))
    }

    /// A tool sets an offset of a group: it may go back.
    pub(crate) fn set(
        &self,
        shard: &Shard,
        group: &str,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<(), CommitRefusal> {
        self.take(shard, group, queue, offset, |slot, _| no_reset(slot))
    }

    /// Takes an offset if `judge`, which is given the newest one, lets it pass.
    fn take(
        &self,
        shard: &Shard,
        group: &str,
        queue: QueueId,
        offset: QueueOffset,
        judge: impl FnOnce(&Slot, Option<QueueOffset>) -> Result<(), CommitRefusal>,
    ) -> Result<(), CommitRefusal> {
        let stored = self.newest(shard, group, queue)?;
        let became_dirty = self.with_slot(group, queue, |slot| {
            // A commit that came since the look above is newer than the stored offset.
            let newest = slot.newest.or(stored);
            judge(slot, newest)?;
            if newest == Some(offset) && !slot.dirty {
                slot.newest = newest;
                return Ok(false);
            }
            slot.newest = Some(offset);
            Ok::<bool, CommitRefusal>(!std::mem::replace(&mut slot.dirty, true))
        })?;
        if became_dirty {
            self.mark(group, queue);
        }
        Ok(())
    }

    /// Calls `stored` when everything that was committed before is stored.
    pub(crate) fn when_stored(&self, stored: impl FnOnce(Result<(), SubmitError>) + Send + 'static) {
        self.pending.lock().waiters.push(Box::new(stored));
        self.hurry.notify_one();
    }

    /// An operator moves a group. Stored by the next [`flush`](Self::flush).
    pub(crate) fn reset(&self, group: &str, queue: QueueId, offset: QueueOffset) {
        let became_dirty = self.with_slot(group, queue, |slot| {
            slot.newest = Some(offset);
            slot.reset = Some(offset);
            !std::mem::replace(&mut slot.dirty, true)
        });
        if became_dirty {
            self.mark(group, queue);
        }
    }

    /// Deletes a group by `command` together with what is known of its offsets. No commit from before is on its way meanwhile,
    /// which could bring one of them back after the group was made again.
    pub(crate) async fn delete_group(
        self: &Arc<Self>,
        shard: &Shard,
        group: &str,
        command: &Command<'_>,
    ) -> Result<Outcome, SubmitError> {
        let _turn = self.flushing.lock().await;
        let (sender, receiver) = oneshot::channel();
        let (offsets, name) = (Arc::clone(self), group.to_owned());
        // In the completion, which runs before anything is applied that comes after the deletion.
        let completion = Box::new(move |outcome: Result<Outcome, SubmitError>| {
            if outcome.is_ok() {
                offsets.groups.remove(name.as_str());
            }
            // The waiting side may have gone; the group is deleted all the same.
            let _ = sender.send(outcome);
        });
        shard.submit(command, Admission::Reserved, completion).map_err(|(error, _)| error)?;
        receiver.await.unwrap_or(Err(SubmitError::OutcomeUnknown))
    }

    /// Stores the offsets that changed, and answers the requests that wait for it. Returns the first error; offsets that could
    /// not be stored are kept for the next turn.
    pub(crate) async fn flush(&self, shard: &Shard) -> Result<(), SubmitError> {
        let _turn = self.flushing.lock().await;
        let pending = std::mem::take(&mut *self.pending.lock());
        let mut result = Ok(());
        for batch in pending.dirty.chunks(BATCH) {
            if let Err(error) = self.store(shard, batch).await {
                result = Err(error);
            }
        }
        for waiter in pending.waiters {
            waiter(result.clone());
        }
        result
    }

    async fn store(&self, shard: &Shard, batch: &[(Arc<str>, QueueId)]) -> Result<(), SubmitError> {
        let mut commits = Vec::with_capacity(batch.len());
        for (group, queue) in batch {
            let Some(mut slots) = self.groups.get_mut(group) else { continue };
            let Some(slot) = slots.get_mut(queue) else { continue };
            // Cleared before the value is on its way: a commit that comes meanwhile is stored by the next turn.
            slot.dirty = false;
            if let Some(offset) = slot.newest {
                commits.push(OffsetCommit { group, queue: *queue, offset });
            }
        }
        if commits.is_empty() {
            return Ok(());
        }
        // Offsets that an earlier leadership left behind may be older than what others have stored since.
        let result = if self.office.is_held() || planted(Bug::OffsetsKept) {
            shard.propose(&Command::CommitOffsets(commits), Admission::Reserved).await
        } else {
            Err(SubmitError::NotLeader)
        };
        if let Err(error) = result {
            for (group, queue) in batch {
                let again = self.groups.get_mut(group).is_some_and(|mut slots| {
                    slots.get_mut(queue).is_some_and(|slot| !std::mem::replace(&mut slot.dirty, true))
                });
                if again {
                    self.mark(group, *queue);
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// This member does not lead any more, or not yet: forgets what is not stored. Another leader has taken newer offsets since,
    /// or will.
    pub(crate) fn forget(&self) {
        if planted(Bug::OffsetsKept) {
            return;
        }
        self.groups.clear();
        let pending = std::mem::take(&mut *self.pending.lock());
        for waiter in pending.waiters {
            waiter(Err(SubmitError::OutcomeUnknown));
        }
    }

    /// Stores the offsets that changed, until the broker stops. The rest is stored by a last [`flush`](Self::flush).
    pub(crate) async fn run(&self, shard: &Shard, shutdown: Shutdown) {
        let executor = shard.executor();
        let (mut turn, mut next) = (0_u32, executor.now());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.hurry.notified() => {}
                () = executor.sleep_until(next) => (turn, next) = (turn + 1, executor.now() + STORE_INTERVAL),
            }
            if let Err(error) = self.flush(shard).await {
                tracing::warn!(%error, "consumer offsets not stored; trying again");
            }
            if turn >= TIDY_TURNS {
                turn = 0;
                self.tidy(shard);
            }
        }
    }

    /// Drops what is known of queues and groups that no longer exist.
    fn tidy(&self, shard: &Shard) {
        self.groups.retain(|group, slots| {
            let group_exists = shard.groups().get(group).is_some();
            slots.retain(|queue, slot| slot.dirty || group_exists && shard.topics().queue(*queue).is_some());
            !slots.is_empty()
        });
    }

    fn mark(&self, group: &str, queue: QueueId) {
        let name = self.groups.get(group).map_or_else(|| Arc::from(group), |slots| Arc::clone(slots.key()));
        self.pending.lock().dirty.push((name, queue));
    }

    fn with_slot<R>(&self, group: &str, queue: QueueId, change: impl FnOnce(&mut Slot) -> R) -> R {
        // A known group is found without allocating its name again.
        if let Some(mut slots) = self.groups.get_mut(group) {
            return change(slots.entry(queue).or_default());
        }
        let mut slots = self.groups.entry(Arc::from(group)).or_default();
        change(slots.entry(queue).or_default())
    }
}

/// Whether a consumer may commit `offset`. Going back is for the member of the group that pulled last. A member that lost
/// the queue would otherwise undo the progress of the one that has it now; and so would a connection that has not said who
/// it is, which after a restart of the broker is every consumer until its first heartbeat.
fn judge(
    slot: &Slot,
    newest: Option<QueueOffset>,
    offset: QueueOffset,
    connection: u64,
    is_member: impl FnOnce() -> bool,
) -> Result<(), CommitRefusal> {
    no_reset(slot)?;
    match newest {
        Some(stored) if offset < stored && (slot.puller != Some(connection) || !is_member()) => {
            Err(CommitRefusal::Lower { offset, stored })
        }
        _ => Ok(()),
    }
}

/// A commit was made before its consumer heard of a reset.
fn no_reset(slot: &Slot) -> Result<(), CommitRefusal> {
    slot.reset.map_or(Ok(()), |reset| Err(CommitRefusal::Reset(reset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(1);

    fn offsets() -> Offsets {
        Offsets::new(Arc::new(Office::alone()))
    }

    #[test]
    fn only_the_member_that_pulled_last_goes_back() {
        let slot = Slot { puller: Some(7), ..Slot::default() };
        let refused = |newest, offset, connection, is_member: bool| {
            judge(&slot, newest, offset, connection, || is_member).is_err()
        };
        assert!(!refused(None, QueueOffset(5), 8, false));
        assert!(!refused(Some(QueueOffset(5)), QueueOffset(5), 8, false));
        assert!(!refused(Some(QueueOffset(5)), QueueOffset(6), 8, false));
        assert!(refused(Some(QueueOffset(5)), QueueOffset(4), 8, true));
        assert!(!refused(Some(QueueOffset(5)), QueueOffset(4), 7, true));
        assert!(refused(Some(QueueOffset(5)), QueueOffset(4), 7, false), "it has not registered");
        // Nobody pulled yet: a member may still not go back, and a stranger neither.
        let fresh = Slot::default();
        assert!(judge(&fresh, Some(QueueOffset(5)), QueueOffset(4), 8, || true).is_err());
        assert!(judge(&fresh, Some(QueueOffset(5)), QueueOffset(4), 8, || false).is_err());
    }

    #[test]
    fn commits_wait_until_the_consumer_hears_of_a_reset() {
        let offsets = offsets();
        offsets.reset("G", QUEUE, QueueOffset(3));
        assert!(offsets.is_reset("G", QUEUE));
        let refused =
            offsets.with_slot("G", QUEUE, |slot| judge(slot, slot.newest, QueueOffset(9), 1, || true).is_err());
        assert!(refused);
        assert_eq!(offsets.pulled("G", QUEUE, 1, QueueOffset(9)), Some(QueueOffset(3)));
        assert_eq!((offsets.last_pull("G", QUEUE), offsets.last_pull("H", QUEUE)), (Some(QueueOffset(9)), None));
        assert_eq!(offsets.pulled("G", QUEUE, 1, QueueOffset(3)), None);
        assert!(!offsets.is_reset("G", QUEUE));
        let refused =
            offsets.with_slot("G", QUEUE, |slot| judge(slot, slot.newest, QueueOffset(9), 1, || true).is_err());
        assert!(!refused);
    }

    #[test]
    fn an_offset_is_listed_for_storing_once() {
        let offsets = offsets();
        offsets.reset("G", QUEUE, QueueOffset(3));
        offsets.reset("G", QUEUE, QueueOffset(4));
        assert_eq!(offsets.pending.lock().dirty, [(Arc::from("G"), QUEUE)]);
    }
}
