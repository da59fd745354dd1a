//! One round of retention: look, move what must stay, trim, and let files go.

use std::sync::Arc;

use super::Keeper;
use super::age::{Ages, Files};
use super::plan::{Plan, Rules};
use super::roll::{self, Load};
use crate::index::IndexError;
use crate::shard::{Admission, Command, Park, ReadError, SubmitError};
use crate::terms::{ParkReason, Position};

/// Bytes that may be moved at the start and for nothing: a log that stands still has its old halves moved too.
const BUDGET_START: u64 = 64 << 20;
/// Bytes that may be moved in each round beside as many as came in.
const BUDGET_ROUND: u64 = 64 << 10;

/// Why a round ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Does the rounds, and keeps what one hands to the next.
pub(super) struct Trimmer {
    keeper: Arc<Keeper>,
    ages: Ages,
    /// Bytes that may be moved. Grows with what comes in, so that moving never makes more than half of the writing,
    /// however much is pinned.
    budget: u64,
    log_end: Position,
    log_first: Position,
}

impl Trimmer {
    pub(super) fn new(keeper: Arc<Keeper>) -> Trimmer {
        let log_end = keeper.shard.log().end();
        let log_first = keeper.shard.log().first_position();
        Trimmer { keeper, ages: Ages::default(), budget: BUDGET_START, log_end, log_first }
    }

    /// One round. Blocks on files; the runtime is asked to wait for commands.
    pub(super) async fn round(mut self) -> (Trimmer, Result<(), RoundError>) {
        let result = self.steps().await;
        (self, result)
    }

    async fn steps(&mut self) -> Result<(), RoundError> {
        let files = self.look();
        let proposed = self.propose(&files).await;
        // What the group has trimmed goes on each member, also where another one proposes.
        self.purge(&files);
        match proposed {
            Err(RoundError::Submit(SubmitError::NotLeader)) => Ok(()),
            proposed => proposed,
        }
    }

    async fn propose(&mut self, files: &Files) -> Result<(), RoundError> {
        let plan = Plan::new(files, self.rules());
        self.earn();
        let pinned = self.note_pins(&plan)?;
        if pinned.is_some_and(|lowest| lowest < plan.roll) {
            self.move_pins(plan.roll).await?;
        }
        let counters = self.keeper.shard.counters();
        if plan.trim > counters.trimmed().max(self.keeper.shard.log().first_position()) {
            let before = counters.trimmed();
            self.submit(&Command::Trim { upto: plan.trim }).await?;
            let after = self.keeper.shard.counters().trimmed();
            self.keeper.retention.trims.add(u64::from(after > before));
        }
        Ok(())
    }

    fn look(&mut self) -> Files {
        let log = self.keeper.shard.log();
        let first = log.first_position();
        self.keeper.retention.trimmed_bytes.add(first.since(self.log_first));
        self.log_first = first;
        self.ages.look(log)
    }

    fn rules(&self) -> Rules {
        let config = self.keeper.config.load();
        let used = self.keeper.retention.disk_used_percent.get();
        Rules {
            now: self.keeper.time.now(),
            keep: u64::from(config.file_reserved_hours) * 60 * 60 * 1000,
            size: (config.max_store_bytes > 0).then_some(config.max_store_bytes),
            early: config.clean_above().is_some_and(|mark| used > u64::from(mark)),
        }
    }

    fn earn(&mut self) {
        let end = self.keeper.shard.log().end();
        let came = end.since(self.log_end);
        self.log_end = end;
        self.budget = (self.budget + came + BUDGET_ROUND).min(BUDGET_START.max(self.budget));
    }

    /// Shows others how far pins and cuts have come; says the lowest pin.
    fn note_pins(&self, plan: &Plan) -> Result<Option<Position>, RoundError> {
        let lowest = self.keeper.shard.lowest_pin()?;
        self.keeper.retention.note(plan, lowest);
        Ok(lowest)
    }

    /// Moves pinned bytes until none lies below `below`, or the budget is used up.
    async fn move_pins(&mut self, below: Position) -> Result<(), RoundError> {
        while self.budget > 0 {
            let load = roll::gather(&self.keeper.shard, below)?;
            for half in &load.lost {
                self.submit(&Command::Park(Park { half: *half, reason: ParkReason::Unreadable, by: "", why: "" }))
                    .await?;
            }
            if load.is_empty() && load.lost.is_empty() {
                break;
            }
            let bytes = load.bytes();
            self.budget = self.budget.saturating_sub(bytes.max(1));
            self.log_end = self.log_end.advance(bytes);
            self.submit_load(&load).await?;
            self.keeper.retention.moved_bytes.add(bytes);
        }
        Ok(())
    }

    async fn submit_load(&self, load: &Load) -> Result<(), RoundError> {
        let shard = &self.keeper.shard;
        load.command(|command| shard.propose(command, Admission::Reserved)).await?;
        Ok(())
    }

    async fn submit(&self, command: &Command<'_>) -> Result<(), RoundError> {
        self.keeper.shard.propose(command, Admission::Reserved).await?;
        Ok(())
    }

    /// Lets the files go that lie below the trim, as far as the index is on disk beyond them.
    fn purge(&self, files: &Files) {
        let trimmed = self.keeper.shard.counters().trimmed();
        let Some(last) = files.last_index_below(trimmed) else { return };
        // The trim itself is durable before the first file goes, and the base from which a lost index is built again
        // is newer than what goes.
        if let Err(error) = self.keeper.applier.keep_base(last) {
            tracing::warn!(%error, "old log files stay until the index is on disk");
            return;
        }
        self.keeper.purger.purge(last);
    }
}
