//! The way back from a command to who submitted it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::remark;
use escrowmq_common::some_lines;

use super::durations::Durations;
use super::outcome::Outcome;
use crate::terms::TooLong;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much is on its way already. Nothing was stored; try again after a pause.
    #[error("busy: {0} bytes wait to be applied; nothing was stored, try again")]
    Busy(u64),
    /// The disk has no room for new messages. Nothing was stored; try again when there is room.
    #[error("disk full: nothing was stored, try again when there is room")]
    DiskFull,
    /// This node does not lead. Nothing was stored; try the leader.
    #[error("this node does not lead its group: nothing was stored, try again")]
    NotLeader,
    /// The broker is stopping. Nothing was stored.
    #[error("the broker is stopping: nothing was stored, try again elsewhere")]
    Stopping,
    /// The command was on its way when the store failed or the broker stopped: it may or may not have happened.
    #[error("{}: the command may or may not be stored", remark::OUTCOME_UNKNOWN)]
    OutcomeUnknown,
    /// A part of the command is longer than it may be. Nothing was stored, and a retry of the same ends the same way.
    #[error("nothing was stored: {0}")]
    TooLong(#[from] TooLong),
    /// The command could not be read back after it was encoded, which is a fault of the broker. Nothing was stored.
    #[error(
        "the broker could not encode this, which is a fault of its own: nothing was stored. A retry may share its batch with others and pass; if it does not, report it"
    )]
    Unencodable,
    /// The store failed and takes no more writes until a restart. Nothing was stored.
    #[error("the store failed and takes no writes until the broker is restarted: nothing was stored")]
    StoreFailed,
}

impl SubmitError {
    /// Whether the command may have happened all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown)
    }
}

/// Called once with the outcome, on the apply thread: must only hand over or write into a buffer, never wait.
pub(crate) type Completion = Box<dyn FnOnce(Result<Outcome, SubmitError>) + Send>;

/// The completions of one batch, in the order of its commands. Each is called once, whatever becomes of the batch: if
/// it is dropped before it was appended, nothing was stored; after that, nobody knows.
pub(crate) struct Completions {
    calls: Vec<Completion>,
    appended: bool,
    /// When the batch was committed, and where to count what comes after it.
    committed: Option<(Arc<Durations>, Duration)>,
}

impl std::fmt::Debug for Completions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Completions({})", self.calls.len())
    }
}

impl Completions {
    /// The completions of a batch that was not appended yet.
    pub(crate) fn new(calls: Vec<Completion>) -> Self {
        Self { calls, appended: false, committed: None }
    }

    /// From now on the batch may be in the log.
    pub(crate) fn mark_appended(&mut self) {
        self.appended = true;
    }

    /// The batch is committed, and about to be applied. From here on its time is counted.
    pub(in crate::shard) fn mark_committed(&mut self, durations: &Arc<Durations>, now: Duration) {
        self.committed = Some((Arc::clone(durations), now));
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Answers all, each with the outcome of its command: apply makes one for each.
    pub(crate) fn complete(mut self, outcomes: impl ExactSizeIterator<Item = Outcome>) {
        let calls = std::mem::take(&mut self.calls);
        let count = calls.len() as u64;
        let answering = self.committed.take().map(|(durations, committed)| {
            let now = durations.now();
            durations.apply.record_many(now.saturating_sub(committed), count);
            (durations, now)
        });
        for (each, outcome) in calls.into_iter().zip(outcomes) {
            call(each, Ok(outcome));
        }
        if let Some((durations, began)) = answering {
            durations.answer.record_many(durations.now().saturating_sub(began), count);
        }
    }

    /// Answers all with an error.
    pub(crate) fn fail(mut self, error: &SubmitError) {
        for each in std::mem::take(&mut self.calls) {
            call(each, Err(error.clone()));
        }
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        let error = if self.appended { SubmitError::OutcomeUnknown } else { SubmitError::NotLeader };
        for each in std::mem::take(&mut self.calls) {
            call(each, Err(error.clone()));
        }
    }
}

/// Calls a completion. One that panics costs its own caller the answer and nobody else anything: it runs on the apply
/// thread, under the state machine's lock.
pub(super) fn call(completion: Completion, outcome: Result<Outcome, SubmitError>) {
    if catch_unwind(AssertUnwindSafe(|| completion(outcome))).is_err() {
        some_lines!(
            error,
            "an answer failed, which is a fault of the broker: its caller gets none, and the command stands"
        );
    }
}

/// Answers completions that never got to a batch of the log.
pub(crate) fn fail_all(completions: Vec<Completion>, error: &SubmitError) {
    Completions::new(completions).fail(error);
}
