//! The log as openraft sees it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::entry::{Extent, LogEntry, Proposal};
use super::{LogId, TypeConfig, Vote, index_of, log_id, membership};
use crate::log::{Log, NewRecord, Record, RecordId};
use crate::shard::Completions;
use crate::shard::executor::Executor;
use crate::terms::LogIndex;

/// What a record holds: the kind byte of the log.
pub(crate) mod kind {
    /// A batch of commands.
    pub(crate) const BATCH: u8 = 1;
    /// A leader's first entry.
    pub(crate) const BLANK: u8 = 2;
    /// A membership.
    pub(crate) const MEMBERSHIP: u8 = 3;
}

/// Entries read at once, in bytes; at least one entry.
const READ_BYTES: u64 = 1024 * 1024;

/// Those who wait for entries that were appended here, by index.
#[derive(Default)]
pub(crate) struct Awaiting {
    entries: Mutex<VecDeque<(LogIndex, Completions)>>,
    /// Told when an append or an apply failed: nothing that waits here will be applied any more.
    failed: Notify,
}

impl Awaiting {
    fn push(&self, index: LogIndex, completions: Completions) {
        self.entries.lock().push_back((index, completions));
    }

    /// Takes those of one entry; older ones belong to entries that never came to be applied here.
    pub(crate) fn take(&self, index: LogIndex) -> Option<Completions> {
        let mut entries = self.entries.lock();
        while entries.front().is_some_and(|(first, _)| *first < index) {
            entries.pop_front();
        }
        if entries.front().is_some_and(|(first, _)| *first == index) {
            return entries.pop_front().map(|(_, completions)| completions);
        }
        None
    }

    /// Something failed for good.
    pub(crate) fn fail(&self) {
        self.failed.notify_one();
    }

    /// Waits until something failed for good.
    pub(crate) async fn failed(&self) {
        self.failed.notified().await;
    }

    fn drop_after(&self, index: Option<LogIndex>) {
        self.entries.lock().retain(|(each, _)| index.is_some_and(|last| *each <= last));
    }

    /// Answers everybody that the outcome is unknown: nothing will be applied any more.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        drop(entries);
    }
}

/// The log, and who waits for its entries.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Log,
    executor: Executor,
    awaiting: Arc<Awaiting>,
}

impl LogStore {
    pub(crate) fn new(log: Log, executor: Executor, awaiting: Arc<Awaiting>) -> Self {
        Self { log, executor, awaiting }
    }

    /// Entries of an index range, as many as fit into the read bound.
    fn read(&self, from: LogIndex, to: LogIndex) -> io::Result<Vec<LogEntry>> {
        self.log.read_entries(from, to, READ_BYTES)?.into_iter().map(entry_of).collect()
    }
}

fn id_of(record: RecordId) -> LogId {
    log_id(record.term, record.index)
}

/// The entry that a record holds.
pub(super) fn entry_of(record: Record) -> io::Result<LogEntry> {
    let extent = Extent { payload: record.payload_position().0, end: record.end().0 };
    let payload = match record.kind {
        kind::BATCH => EntryPayload::Normal(Proposal::new(record.payload, None)),
        kind::BLANK => EntryPayload::Blank,
        kind::MEMBERSHIP => EntryPayload::Membership(membership::decode(&record.payload)?),
        other => {
            let why = format!("log entry {} is of kind {other}: written by a newer version", record.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    Ok(LogEntry::from_log(record.term, record.index, payload, extent))
}

fn record_of(entry: &LogEntry) -> NewRecord {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Normal(proposal) => (kind::BATCH, proposal.batch.clone()),
        EntryPayload::Blank => (kind::BLANK, Bytes::new()),
        EntryPayload::Membership(members) => (kind::MEMBERSHIP, Bytes::from(membership::encode(members))),
    };
    NewRecord { term: entry.term(), index: entry.index(), kind, payload }
}

/// First and last index of a range, the last one exclusive.
fn limits(range: &impl RangeBounds<u64>) -> (LogIndex, LogIndex) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (LogIndex(from), LogIndex(to))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let (from, to) = limits(&range);
        let to = to.min(self.log.last().map_or(LogIndex::ZERO, |last| last.index.next()));
        let mut from = from.max(self.log.first_index());
        let mut entries = Vec::new();
        while from < to {
            let read = self.read(from, to)?;
            let Some(last) = read.last() else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("log entry {from} is missing")));
            };
            from = last.index().next();
            entries.extend(read);
        }
        Ok(entries)
    }

    /// In pieces, so that catching up after a restart needs no memory for all of it.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = limits(&range);
        let store = self.clone();
        stream::unfold((from, VecDeque::new(), store), move |(from, mut ready, store)| async move {
            if ready.is_empty() && from < to {
                match store.read(from, to) {
                    Ok(read) if read.is_empty() => {
                        let error = io::Error::new(io::ErrorKind::InvalidData, format!("log entry {from} is missing"));
                        return Some((Err(error), (to, ready, store)));
                    }
                    Ok(read) => ready.extend(read),
                    Err(error) => return Some((Err(error), (to, ready, store))),
                }
            }
            let entry: LogEntry = ready.pop_front()?;
            let next = entry.index().next();
            Some((Ok(entry), (next, ready, store)))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.vote().map(|bytes| membership::decode_vote(&bytes)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read(LogIndex(start), LogIndex(end))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged = self.log.purged().map(id_of);
        Ok(LogState { last_purged_log_id: purged, last_log_id: self.log.last().map(id_of).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.log.save_vote(membership::encode_vote(vote), move |result| {
            // Openraft waits below; if it was dropped, the node is stopping.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
    }

    /// Kept in the log's own next write, unsynced: it only saves work after a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.log.set_committed(index_of(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let Some(index) = self.log.committed() else { return Ok(None) };
        let index = index.min(self.log.last().map_or(LogIndex::ZERO, |last| last.index));
        Ok(self.log.term_of(index)?.map(|term| log_id(term, index)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter();
        let mut records = Vec::with_capacity(entries.size_hint().0);
        for entry in entries {
            if let EntryPayload::Normal(proposal) = &entry.payload {
                if let Some(mut completions) = proposal.take_completions() {
                    completions.mark_appended();
                    self.awaiting.push(entry.index(), completions);
                }
                proposal.drop_claim();
            }
            records.push(record_of(&entry));
        }
        let (executor, log) = (self.executor.clone(), self.log.clone());
        let awaiting = Arc::clone(&self.awaiting);
        let flushed = move |result: io::Result<()>| {
            if result.is_err() {
                awaiting.fail();
            }
            // The writer goes on with what is queued; with nothing queued it answers those it flushed for itself. Only
            // where all that is applied is flushed: else whoever flushes the index may hold the state machine while it
            // waits for this very thread.
            if log.flushes_each() && log.is_idle() {
                executor.run_with(|| callback.io_completed(result));
            } else {
                callback.io_completed(result);
            }
        };
        self.log.append(records, flushed).map_err(|error| {
            self.awaiting.fail();
            io::Error::other(error)
        })?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map(|id| index_of(&id));
        self.awaiting.drop_after(last);
        let (sender, receiver) = oneshot::channel();
        self.log
            .truncate_after(last, move |result| {
                let _ = sender.send(result);
            })
            .map_err(io::Error::other)?;
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge_upto(index_of(&upto))?;
        Ok(())
    }
}
