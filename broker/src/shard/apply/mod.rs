//! The state machine: what a command in the log does.
//!
//! ```text
//! entries at hand -> commands -> Staged (rows, pages, outcomes) -> one index write -> queue ends -> completions -> wakes
//! ```
//!
//! Promises: deterministic, nothing is read but the log and the index; all entries at hand become one index write, which
//! also carries their log id; readers see a message only after that write, and a completion is called only after readers
//! can see it. A command that moves whole tables (topics, groups, timers that are due) is an entry of its own, because it
//! reads rows that the staged ones might be changing.
//!
//! Left to others: when entries may be applied (`raft`, never beyond what the flush mode calls durable).

mod cold;
mod half_rows;
pub(crate) mod life;
mod publish;
mod retention;
mod staged;

pub(in crate::shard) use retention::lowest_pin;
pub(in crate::shard) use staged::Staged;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::half_rows::Step;
use super::agreed::Agreed;
use super::batch::Batch;
use super::command::Command;
use super::completion::Completions;
use super::outcome::Outcome;
use super::shared::Shared;
use super::topic::{Queue, Topic};
use crate::index::meta::{self, Applied, Sequences};
use crate::index::{IndexBatch, IndexError};
use crate::latch::{Broken, Failure, Promise};
use crate::planted::{Bug, planted};
use crate::raft::{CommittedEntry, Content};
use crate::terms::to_u32;
use crate::terms::{FIRST_LEVEL, LogIndex, Malformed, QueueId, Stamp};

/// Why the state machine cannot go on. The node must stop: going on would make it differ from the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// An entry does not decode, and is not in quarantine.
    #[error(
        "entry {index} of the log (checksum {checksum:08x}) cannot be applied: {source}. Stop the broker; `escrowmq fsck DIR` says what \
         is damaged, and `escrowmq fsck DIR --repair --quarantine {index}` sets the entry aside and says what is lost with it"
    )]
    Entry {
        /// Its Raft index.
        index: LogIndex,
        /// CRC-32 of what it holds.
        checksum: u32,
        /// The fault that decoding found.
        source: Malformed,
    },
    /// The log uses a higher feature level than this build speaks.
    #[error(
        "the log is of feature level {level} from entry {index} on, and this build speaks {speaks}: install a version that speaks \
         {level}. Nothing of that entry was applied; the data is whole"
    )]
    TooNew {
        /// The Raft index of the entry.
        index: LogIndex,
        /// Its level.
        level: u32,
        /// The level of this build.
        speaks: u32,
    },
    /// A promise would not hold.
    #[error(transparent)]
    Broken(Failure),
}

/// The name under which the last membership is kept.
pub(crate) const MEMBERSHIP: &str = "membership";

/// The state machine of one shard. One owner; everybody else reads through the [`Shard`](super::Shard).
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    applied: Option<Applied>,
    sequences: Sequences,
}

impl StateMachine {
    /// The state that the index holds; fills the topics and groups that handlers read.
    pub(in crate::shard) fn load(shared: Arc<Shared>) -> Result<Self, IndexError> {
        if planted(Bug::TimerLost) {
            forget_timers(&shared.index)?;
        }
        let applied = meta::applied(&shared.index)?;
        let sequences = meta::sequences(&shared.index)?;
        for row in meta::topics(&shared.index)? {
            let name: Arc<str> = Arc::from(row.settings.name.as_str());
            let mut queues = Vec::with_capacity(row.queues.len());
            for (index, id) in row.queues.iter().enumerate() {
                let topic_id = QueueId(row.queues[0]);
                queues.push(Arc::new(Queue::new(QueueId(*id), topic_id, Arc::clone(&name), to_u32(index))));
            }
            shared.topics.put(Topic { settings: row.settings, queues });
        }
        load_ends(&shared)?;
        for group in meta::groups(&shared.index)? {
            shared.groups.put(group);
        }
        for producer in crate::index::producer::all(&shared.index)? {
            shared.producers.put(&producer);
        }
        shared.counters.set(&sequences, applied);
        shared.counters.set_trimmed(meta::kept(&shared.index)?.trimmed);
        shared.lost.set(meta::lost_ranges(&shared.index)?);
        let (level, settings) = (meta::level(&shared.index)?, meta::settings(&shared.index)?);
        shared.agreement.change(|agreed| *agreed = Agreed { level, settings });
        Ok(Self { shared, applied, sequences })
    }

    /// How far the index has applied the log; `None` while it has applied nothing.
    pub(crate) fn applied(&self) -> Option<Applied> {
        self.applied
    }

    /// The encoded membership that was applied last.
    pub(crate) fn membership(&self) -> Result<Option<Vec<u8>>, IndexError> {
        meta::bytes(&self.shared.index, MEMBERSHIP)
    }

    /// Applies committed entries, in order, and answers those who wait for them.
    pub(crate) fn apply(
        &mut self,
        entries: impl ExactSizeIterator<Item = (CommittedEntry, Option<Completions>)>,
    ) -> Result<(), ApplyError> {
        let mut staged = Staged::new(self.sequences, self.applied);
        let mut answers: Vec<(Option<Completions>, Vec<Outcome>)> = Vec::with_capacity(entries.len());
        for (entry, mut completions) in entries {
            staged.check_follows(&entry);
            let mut outcomes = Vec::new();
            let mut alone = false;
            match &entry.content {
                Content::Blank => {}
                Content::Membership(bytes) => meta::put_bytes(&mut staged.rows, MEMBERSHIP, bytes),
                Content::Proposed(payload) => {
                    match Batch::decode(payload).and_then(|batch| Ok((batch.commands()?, batch))) {
                        Ok((commands, batch)) => {
                            self.check_level(entry.index, &commands)?;
                            alone = commands.first().is_some_and(Command::is_alone);
                            if alone {
                                // Everything before becomes visible first: this command reads whole tables.
                                self.write(&mut staged, &mut answers)?;
                            }
                            staged.begin_entry(&batch, entry.payload_position);
                            outcomes.reserve_exact(commands.len());
                            for command in &commands {
                                outcomes.push(self.step(&mut staged, command)?);
                            }
                        }
                        // Those who wait for it are told that nobody knows.
                        Err(source) => {
                            self.pass_quarantined(&entry, payload, source)?;
                            completions = None;
                        }
                    }
                }
            }
            staged.end_entry(&entry);
            if let Some(broken) = staged.broken() {
                return Err(self.broken(Broken { entry: Some(entry.index), ..broken }));
            }
            answers.push((completions, outcomes));
            if alone {
                // The staged rows have no trace of what this command removed, and the registries change only with the
                // write: the next command reads both. Without this write, outcomes would depend on which entries are
                // applied together, and a replay could decide otherwise.
                self.write(&mut staged, &mut answers)?;
            }
        }
        self.write(&mut staged, &mut answers)?;
        Ok(())
    }

    /// Refuses what a newer version has logged, before anything of it is applied.
    fn check_level(&self, index: LogIndex, commands: &[Command<'_>]) -> Result<(), ApplyError> {
        let level = commands.iter().map(Command::level).max().unwrap_or(FIRST_LEVEL);
        let speaks = self.shared.log.feature_level();
        if level > speaks { Err(ApplyError::TooNew { index, level, speaks }) } else { Ok(()) }
    }

    /// Passes an entry that does not decode, if an operator has set it aside.
    fn pass_quarantined(&self, entry: &CommittedEntry, payload: &[u8], source: Malformed) -> Result<(), ApplyError> {
        let (index, checksum) = (entry.index, crc32fast::hash(payload));
        if !self.shared.quarantine.holds(index, checksum) {
            return Err(ApplyError::Entry { index, checksum, source });
        }
        tracing::warn!(event = "entry_quarantined", entry = %index, %source, "an entry of the log is in quarantine: what it held is lost");
        self.shared.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Carries out a command. One that cannot be carried out is refused, and counted: the same on every replica.
    fn step(&self, staged: &mut Staged, command: &Command<'_>) -> Result<Outcome, IndexError> {
        let outcome = self.carry_out(staged, command)?;
        if matches!(outcome, Outcome::Refused(_)) {
            self.shared.counters.refused_commands.fetch_add(1, Ordering::Relaxed);
        }
        Ok(outcome)
    }

    fn carry_out(&self, staged: &mut Staged, command: &Command<'_>) -> Result<Outcome, IndexError> {
        let shared = &*self.shared;
        match command {
            Command::Publish(publish) => publish::publish(shared, staged, publish),
            Command::Prepare(prepare) => Step { shared, staged }.prepare(prepare),
            Command::Settle(settle) => Step { shared, staged }.settle(settle),
            Command::Checked(checked) => Step { shared, staged }.checked(checked),
            Command::Extend(extend) => Step { shared, staged }.extend(extend),
            Command::Park(park) => Step { shared, staged }.park(park),
            Command::Resume(resume) => Step { shared, staged }.resume(resume),
            Command::CommitOffsets(commits) => cold::commit_offsets(shared, staged, commits),
            Command::PutTopic(settings) => Ok(cold::put_topic(shared, staged, settings)),
            Command::DeleteTopic(name) => cold::delete_topic(shared, staged, name),
            Command::PutGroup(settings) => Ok(cold::put_group(staged, settings)),
            Command::DeleteGroup { group, offsets } => Ok(cold::delete_group(shared, staged, group, *offsets)),
            Command::Fire { upto, limit } => cold::fire(shared, staged, *upto, *limit),
            Command::Cancel { due, position } => cold::cancel(shared, staged, *due, *position),
            Command::Lock(lock) => cold::lock(shared, staged, lock),
            Command::Unlock(lock) => cold::unlock(shared, staged, lock),
            Command::Trim { upto } => retention::trim(shared, staged, *upto),
            Command::Roll(roll) => retention::roll(shared, staged, roll),
            Command::GiveUp(given) => Ok(cold::give_up(staged, given)),
            Command::Expire { decided_before } => cold::expire(shared, staged, *decided_before),
            Command::Settings(settings) => Ok(cold::settings(shared, staged, settings)),
            Command::Feature(level) => Ok(cold::feature(shared, staged, *level)),
        }
    }

    /// Writes what is staged, lets readers see it, answers, wakes.
    fn write(
        &mut self,
        staged: &mut Staged,
        answers: &mut Vec<(Option<Completions>, Vec<Outcome>)>,
    ) -> Result<(), ApplyError> {
        let Some(applied) = staged.applied().filter(|_| !answers.is_empty()) else { return Ok(()) };
        half_rows::put_producers(staged);
        let mut rows: IndexBatch = std::mem::take(&mut staged.rows);
        staged.put_pages(&mut rows);
        if let Some(broken) = staged.broken() {
            return Err(self.broken(Broken { entry: Some(applied.index), ..broken }));
        }
        if staged.sequences != self.sequences {
            meta::put_sequences(&mut rows, &staged.sequences);
        }
        if !planted(Bug::AppliedForgotten) {
            meta::put_applied(&mut rows, applied);
        }
        self.shared.index.write(rows);
        // From here on readers see it. A crash before the next flush only means that it is applied again.
        (self.sequences, self.applied) = (staged.sequences, Some(applied));
        let woken = staged.publish(&self.shared);
        self.shared.counters.set(&self.sequences, self.applied);
        for (completions, outcomes) in answers.drain(..) {
            let (commands, made) = (completions.as_ref().map(Completions::len), outcomes.len());
            if commands.is_some_and(|commands| commands != made) {
                let found = format!("{commands:?} commands have {made} outcomes");
                let (promise, entry) = (Promise::OneOutcome, Some(applied.index));
                // Those who wait are told that nobody knows.
                return Err(self.broken(Broken { promise, entry, position: None, found }));
            }
            if let Some(completions) = completions {
                completions.complete(outcomes.into_iter());
            }
        }
        for queue in woken {
            queue.arrivals.wake();
        }
        staged.signal(&self.shared.signals);
        Ok(())
    }

    /// Closes the latch.
    fn broken(&self, broken: Broken) -> ApplyError {
        ApplyError::Broken(self.shared.intake.latch().close(Failure::Broken(broken)))
    }
}

/// [`Bug::TimerLost`].
fn forget_timers(index: &crate::index::Index) -> Result<(), IndexError> {
    let mut rows = IndexBatch::default();
    for row in crate::index::timer::due(index, Stamp::ZERO, Stamp::MAX, usize::MAX)? {
        row.delete(&mut rows);
    }
    index.write(rows);
    Ok(())
}

/// The ends of all queues: their pages tell, or what a trim left.
fn load_ends(shared: &Shared) -> Result<(), IndexError> {
    meta::for_all_ends(&shared.index, |id, min, max| {
        if let Some(queue) = shared.topics.queue(id) {
            queue.publish(min, max);
        }
    })?;
    crate::index::queue::for_all_ends(&shared.index, |id, min, max| {
        let Some(queue) = shared.topics.queue(id) else { return };
        let (min, max) = (min.max(queue.min_offset()), max.max(queue.max_offset()));
        queue.publish(min, if planted(Bug::QueueOffsetReused) { min.max(max.previous().unwrap_or(max)) } else { max });
    })
}

impl Command<'_> {
    /// Whether the command must be the only one of its entry, because it reads or moves whole tables.
    pub fn is_alone(&self) -> bool {
        matches!(
            self,
            Self::PutTopic(_)
                | Self::DeleteTopic(_)
                | Self::PutGroup(_)
                | Self::DeleteGroup { .. }
                | Self::Fire { .. }
                | Self::Cancel { .. }
                | Self::Lock(_)
                | Self::Unlock(_)
                | Self::Trim { .. }
                | Self::Roll(_)
                | Self::GiveUp(_)
                | Self::Expire { .. }
                | Self::Settings(_)
                | Self::Feature(_)
        )
    }
}
