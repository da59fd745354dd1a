//! The handle that handlers and runners hold.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::agreed::Agreed;
use super::applier::Applier;
use super::command::Command;
use super::completion::{Completion, SubmitError};
use super::counters::{Counters, Signals};
use super::durations::Durations;
use super::group::Groups;
use super::intake::{Admission, Intake};
use super::lost::Lost;
use super::outcome::Outcome;
use super::producers::Producers;
use super::quarantine::Quarantine;
use super::shared::Shared;
use super::topic::Topics;
use crate::executor::Executor;
use crate::index::{self, HalfRow, Index, IndexError, IndexReader};
use crate::log::{Log, LogReader};
use crate::terms::{HalfId, Position, QueueId, QueueOffset, Stamp};

/// One shard: cheap to clone.
#[derive(Clone)]
pub struct Shard {
    pub(in crate::shard) shared: Arc<Shared>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard(applied {:?})", self.shared.counters.applied_index())
    }
}

impl Shard {
    /// Puts an index and a log together. `quarantine` holds the entries of the log that are set aside.
    pub(crate) fn open(index: Index, log: Log, quarantine: Quarantine) -> Result<(Self, Arc<Applier>), IndexError> {
        let shared = Shared::new(index, log, quarantine);
        let applier = Arc::new(Applier::new(Arc::clone(&shared))?);
        Ok((Self { shared }, applier))
    }

    /// Submits a command; `completion` is called once, on the apply thread, or not at all if this returns an error.
    ///
    /// Never blocks. The command is encoded before this returns, so it may borrow.
    pub fn submit(
        &self,
        command: &Command<'_>,
        admission: Admission,
        completion: Completion,
    ) -> Result<(), (SubmitError, Completion)> {
        self.shared.intake.submit(command, admission, completion)
    }

    /// Submits a command, before this returns, and waits for its outcome.
    pub fn propose(
        &self,
        command: &Command<'_>,
        admission: Admission,
    ) -> impl Future<Output = Result<Outcome, SubmitError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let completion: Completion = Box::new(move |outcome| {
            // The waiting side may have gone; the command happens all the same.
            let _ = sender.send(outcome);
        });
        let submitted = self.submit(command, admission, completion).map_err(|(error, _)| error);
        async move {
            submitted?;
            receiver.await.unwrap_or(Err(SubmitError::OutcomeUnknown))
        }
    }

    /// The executor of the write path. A thread that has submitted commands and has nothing better to do lends itself:
    /// see [`Executor::lend`].
    pub fn executor(&self) -> &Executor {
        &self.shared.executor
    }

    /// All topics.
    pub fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    /// All consumer groups.
    pub fn groups(&self) -> &Groups {
        &self.shared.groups
    }

    /// Settings and feature level of the group, as far as the log is applied here.
    pub fn agreed(&self) -> Arc<Agreed> {
        self.shared.agreement.now()
    }

    /// The same, now and at each change.
    pub fn watch_agreed(&self) -> watch::Receiver<Arc<Agreed>> {
        self.shared.agreement.watch()
    }

    /// The highest feature level that this build speaks.
    pub fn speaks(&self) -> u32 {
        self.shared.log.feature_level()
    }

    /// Producer groups that have, or lately had, half messages.
    pub fn producers(&self) -> &Producers {
        &self.shared.producers
    }

    /// How many entries of the log are set aside.
    pub fn quarantined(&self) -> u64 {
        self.shared.quarantine.len() as u64
    }

    /// The parts of the log that operators have given up.
    pub fn lost(&self) -> &Lost {
        &self.shared.lost
    }

    /// Counts that apply keeps.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How long commands spend on their way.
    pub fn durations(&self) -> &Durations {
        &self.shared.durations
    }

    /// The signals of apply to the runners.
    pub fn signals(&self) -> &Signals {
        &self.shared.signals
    }

    /// How commands come in: load and refusals.
    pub fn intake(&self) -> &Intake {
        &self.shared.intake
    }

    /// The state on disk.
    pub fn index(&self) -> &IndexReader {
        &self.shared.index
    }

    /// The log.
    pub fn log(&self) -> &LogReader {
        &self.shared.log
    }

    /// Tries to make room in the log after there was none; says whether there is. Creates a file: call it where blocking is
    /// allowed.
    pub fn replenish_log(&self) -> bool {
        self.shared.log.replenish().is_ok()
    }

    /// The stored offset of a consumer group in a queue: the next one to consume.
    pub fn offset(&self, group: &str, queue: QueueId) -> Result<Option<QueueOffset>, IndexError> {
        index::offset::get(self.index(), group, queue)
    }

    /// All stored offsets of a consumer group.
    pub fn offsets(&self, group: &str) -> Result<Vec<(QueueId, QueueOffset)>, IndexError> {
        index::offset::of_group(self.index(), group)
    }

    /// The lowest log position whose bytes must be kept, for an undecided half or a message that waits.
    pub fn lowest_pin(&self) -> Result<Option<Position>, IndexError> {
        super::apply::lowest_pin(&self.shared)
    }

    /// The undecided half with this id.
    pub fn half(&self, half: HalfId) -> Result<Option<HalfRow>, IndexError> {
        index::half::get(self.index(), half)
    }

    /// Whether another client than this one has a lock of the group on a queue that had not ended at `since`.
    pub(crate) fn is_locked_by_other(
        &self,
        group: &str,
        queue: QueueId,
        client: &str,
        since: Stamp,
    ) -> Result<bool, IndexError> {
        let lock = index::offset::get_lock(self.index(), group, queue)?;
        Ok(lock.is_some_and(|lock| lock.until > since && lock.client != client))
    }

    /// Whether any client holds an unexpired lock of this group, at `now`.
    pub fn holds_lock(&self, group: &str, now: Stamp) -> Result<bool, IndexError> {
        index::offset::any_lock(self.index(), group, now)
    }
}
