//! The thread that follows the log and keeps the files.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use super::LogSource;
use super::entry::{Entry, extract};
use super::folder;
use super::known::{Known, Sealed, Shared};
use super::merge::{self, Merge};
use super::run::{Coverage, RunWriter};
use crate::log::Record;
use crate::terms::{LogIndex, Stamp};

/// How often the builder looks for new records when no lookup asks for them.
const IDLE: Duration = Duration::from_millis(250);
/// Pause after a failed read or write.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the log read at once.
const READ_BYTES: u64 = 1 << 20;
/// Entries moved by a merge between two looks at the log.
const MERGE_STEP: usize = 1 << 16;

/// When the newest entries become a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// With this many entries: 24 bytes each, twice that while a file is written.
    pub(super) entries: usize,
    /// After this many bytes of log, which is the most that a restart reads again.
    pub(super) log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1 << 16, log_bytes: 256 << 20 }
    }
}

pub(super) struct Builder<S> {
    shared: Arc<Shared>,
    source: S,
    limits: Limits,
    merge: Option<Merge>,
    /// Entries of the record at hand.
    scratch: Vec<Entry>,
}

impl<S: LogSource> Builder<S> {
    pub(super) fn new(shared: Arc<Shared>, source: S, limits: Limits) -> Self {
        Self { shared, source, limits, merge: None, scratch: Vec::new() }
    }

    /// Follows the log until the shutdown. Trouble with files costs lookups their completeness and nobody else anything:
    /// it is logged, and tried again.
    pub(super) fn run(mut self, shutdown: &Shutdown) {
        let mut reconciled = false;
        while !shutdown.is_cancelled() {
            let result = if reconciled { self.turn() } else { self.reconcile().map(|()| true) };
            match result {
                Ok(worked) => {
                    reconciled = true;
                    if !worked {
                        self.wait_unless_wanted();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the key index cannot go on for now");
                    self.give_merge_up();
                    self.wait(PAUSE);
                }
            }
        }
        self.give_merge_up();
        self.shared.known.lock().stopped = true;
        self.shared.progress.notify_all();
    }

    fn wait(&self, time: Duration) {
        let mut known = self.shared.known.lock();
        self.shared.wanted.wait_for(&mut known, time);
    }

    /// Waits, unless a lookup asked since the last turn began for what is not known.
    fn wait_unless_wanted(&self) {
        let mut known = self.shared.known.lock();
        if known.wanted.take().is_none_or(|wanted| wanted < known.next_index) {
            self.shared.wanted.wait_for(&mut known, IDLE);
        }
    }

    /// Drops runs that were made from another log: one that was lost with a crash, or replaced.
    fn reconcile(&mut self) -> io::Result<()> {
        let mut known = self.shared.known.lock();
        while let Some(run) = known.runs.back() {
            if self.source.term_of(run.coverage.last_index)? == Some(run.coverage.last_term) {
                break;
            }
            folder::delete(run);
            known.runs.pop_back();
        }
        let first = self.source.first_index();
        if known.runs.front().is_some_and(|run| run.coverage.first_index > first) {
            // The oldest part is missing: build all of it again rather than keep books about two parts.
            known.runs.drain(..).for_each(|run| folder::delete(&run));
        }
        known.next_index = known.runs.back().map_or(first, |run| run.coverage.last_index.next());
        drop(known);
        self.shared.progress.notify_all();
        Ok(())
    }

    /// One round. Says whether there is more to do at once.
    fn turn(&mut self) -> io::Result<bool> {
        self.drop_damaged();
        self.drop_purged();
        // First what an earlier round could not write: memory is bounded, so nothing is read before that.
        self.write_sealed()?;
        let read = self.read_on()?;
        let merged = self.merge_on()?;
        Ok(read || merged)
    }

    /// Drops a run that a lookup found damaged, and all newer ones: they are built again.
    fn drop_damaged(&mut self) {
        let Some(index) = self.shared.known.lock().damaged.take() else { return };
        self.give_merge_up();
        let mut known = self.shared.known.lock();
        while known.runs.back().is_some_and(|run| run.coverage.last_index >= index) {
            let run = known.runs.pop_back().expect("there is a last one");
            folder::delete(&run);
            known.next_index = run.coverage.first_index;
            known.sealed = None;
            known.fresh = super::known::Fresh::default();
        }
    }

    /// Drops runs of which the log holds nothing any more.
    fn drop_purged(&mut self) {
        let first = self.source.first_position();
        let purged = |known: &Known| known.runs.front().is_some_and(|run| run.coverage.end <= first);
        if !purged(&self.shared.known.lock()) {
            return;
        }
        // The merge may hold one of them.
        self.give_merge_up();
        let mut known = self.shared.known.lock();
        while purged(&known) {
            let run = known.runs.pop_front().expect("there is a first one");
            folder::delete(&run);
        }
    }

    fn read_on(&mut self) -> io::Result<bool> {
        let Some(applied) = self.source.applied() else { return Ok(false) };
        let next = self.shared.known.lock().next_index;
        let from = next.max(self.source.first_index());
        if from > applied {
            return Ok(false);
        }
        let records = match self.source.read(from, applied.next(), READ_BYTES) {
            Ok(records) => records,
            // Purged in between: the next round begins later.
            Err(error) if error.kind() == ErrorKind::NotFound && self.source.first_index() > from => return Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Its file is missing. It may come back, so its keys are waited for until somebody gives it up.
                let behind = self.source.behind_lost(from).ok_or(error)?;
                tracing::warn!(%from, %behind, "keys of log records that were given up are not indexed");
                self.shared.known.lock().next_index = behind;
                self.shared.progress.notify_all();
                return Ok(true);
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(index = %from, %error, "keys of a log record that cannot be read are not indexed");
                self.shared.known.lock().next_index = from.next();
                self.shared.progress.notify_all();
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if from > next {
            // The records in between are purged, and with them all that was known.
            self.forget_all();
        }
        for record in &records {
            self.add(record);
            if self.is_full() {
                self.seal();
                self.write_sealed()?;
            }
        }
        // Records that came meanwhile can wait for the next round, in which there are more of them.
        Ok(records.last().is_some_and(|last| last.index < applied))
    }

    fn forget_all(&mut self) {
        self.give_merge_up();
        let mut known = self.shared.known.lock();
        known.runs.drain(..).for_each(|run| folder::delete(&run));
        known.sealed = None;
        known.fresh = super::known::Fresh::default();
    }

    fn add(&mut self, record: &Record) {
        self.scratch.clear();
        let stamp = extract(record, &mut self.scratch).unwrap_or_else(|error| {
            tracing::warn!(index = %record.index, %error, "keys of a log record that does not decode are not indexed");
            None
        });
        let mut known = self.shared.known.lock();
        known.fresh.entries.extend_from_slice(&self.scratch);
        let before = known.newest().map_or(Stamp::ZERO, |coverage| coverage.newest_stamp);
        let coverage = known.fresh.coverage.get_or_insert(Coverage {
            first_index: record.index,
            last_index: record.index,
            last_term: record.term,
            start: record.position,
            end: record.end(),
            newest_stamp: before,
        });
        coverage.last_index = record.index;
        coverage.last_term = record.term;
        coverage.end = record.end();
        coverage.newest_stamp = stamp.unwrap_or(coverage.newest_stamp);
        known.next_index = record.index.next();
        drop(known);
        self.shared.progress.notify_all();
    }

    fn is_full(&self) -> bool {
        let known = self.shared.known.lock();
        let Some(coverage) = known.fresh.coverage else { return false };
        known.fresh.entries.len() >= self.limits.entries || coverage.end.since(coverage.start) >= self.limits.log_bytes
    }

    fn seal(&mut self) {
        let mut known = self.shared.known.lock();
        let mut fresh = std::mem::take(&mut known.fresh);
        let Some(coverage) = fresh.coverage else { return };
        // Some milliseconds, during which lookups wait.
        fresh.entries.sort_unstable();
        known.sealed = Some(Arc::new(Sealed { entries: fresh.entries, coverage }));
    }

    fn write_sealed(&mut self) -> io::Result<()> {
        let Some(sealed) = self.shared.known.lock().sealed.clone() else { return Ok(()) };
        let mut writer = RunWriter::create(&self.shared.dir, "seal", 0)?;
        for entry in &sealed.entries {
            writer.push(*entry)?;
        }
        let run = writer.finish(sealed.coverage)?;
        let mut known = self.shared.known.lock();
        known.runs.push_back(Arc::new(run));
        known.sealed = None;
        Ok(())
    }

    fn merge_on(&mut self) -> io::Result<bool> {
        if self.merge.is_none() {
            let sources = {
                let known = self.shared.known.lock();
                merge::due(&known.runs).map(|range| known.runs.range(range).cloned().collect::<Vec<_>>())
            };
            let Some(sources) = sources else { return Ok(false) };
            let first_index = sources[0].coverage.first_index;
            self.merge = Merge::begin(&self.shared.dir, sources).map(Some).or_else(|e| self.judge(first_index, e))?;
        }
        let keep_from = self.source.first_position();
        let Some(merge) = &mut self.merge else { return Ok(true) };
        let first_index = merge.first_index();
        match merge.step(MERGE_STEP, keep_from) {
            Ok(true) => self.finish_merge()?,
            Ok(false) => {}
            Err(error) => {
                self.judge(first_index, error)?;
            }
        }
        Ok(true)
    }

    /// A damaged source is built again; other trouble is the caller's.
    fn judge(&self, first_index: LogIndex, error: io::Error) -> io::Result<Option<Merge>> {
        if error.kind() != ErrorKind::InvalidData {
            return Err(error);
        }
        tracing::warn!(%error, "a file of the key index is damaged; its part of the log is read again");
        self.shared.known.lock().damaged = Some(first_index);
        Ok(None)
    }

    fn finish_merge(&mut self) -> io::Result<()> {
        let Some(merge) = self.merge.take() else { return Ok(()) };
        let (run, sources) = merge.finish()?;
        let mut known = self.shared.known.lock();
        let at = known.runs.iter().position(|each| Arc::ptr_eq(each, &sources[0]));
        let at = at.expect("a merge is given up before one of its sources goes");
        known.runs.drain(at..at + sources.len());
        known.runs.insert(at, Arc::new(run));
        drop(known);
        // Dying here leaves them for the next start, which sees that they are inside the new one.
        for source in &sources {
            folder::delete(source);
        }
        Ok(())
    }

    fn give_merge_up(&mut self) {
        if let Some(merge) = self.merge.take() {
            merge.abandon();
        }
    }
}
