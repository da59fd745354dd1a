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
use tokio::sync::oneshot;

use super::entry::{Extent, LogEntry, Proposal};
use super::state::StateMachine;
use super::{LogId, TypeConfig, Vote, index_of, log_id, membership};
use crate::executor::Executor;
use crate::latch::{Failure, FailureLatch};
use crate::log::{Log, NewRecord, Record, RecordId};
use crate::terms::LogIndex;

/// The content of a record: the kind byte of the log.
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

/// The log of a member whose state machine is `M`.
pub(super) struct LogStore<M> {
    log: Log,
    executor: Executor,
    machine: Arc<M>,
    latch: FailureLatch,
}

impl<M> Clone for LogStore<M> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            executor: self.executor.clone(),
            machine: Arc::clone(&self.machine),
            latch: self.latch.clone(),
        }
    }
}

impl<M: StateMachine> LogStore<M> {
    pub(super) fn new(log: Log, executor: Executor, machine: Arc<M>, latch: FailureLatch) -> Self {
        Self { log, executor, machine, latch }
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
    let extent = Extent { payload: record.payload_position(), end: record.end() };
    let payload = match record.kind {
        kind::BATCH => EntryPayload::Normal(Proposal::stored(record.payload)),
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
        EntryPayload::Normal(proposal) => (kind::BATCH, proposal.payload.clone()),
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

impl<M: StateMachine> RaftLogReader<TypeConfig> for LogStore<M> {
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

impl<M: StateMachine> RaftLogStorage<TypeConfig> for LogStore<M> {
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
                proposal.appending(entry.index());
            }
            records.push(record_of(&entry));
        }
        let (executor, log) = (self.executor.clone(), self.log.clone());
        // On the log's writer thread. The usual way is to wake the core, which runs on another thread. Running the core here
        // saves that switch. It is safe in one case only, because the core may go on to apply, which takes the state
        // machine's lock:
        //
        //   flusher                            this thread
        //   locks the state machine
        //   waits until the log is durable
        //                                      answers an append
        //                                      runs the core, which applies
        //                                      waits for the state machine's lock: nobody flushes, a deadlock
        //
        // The flusher waits for the log only if entries are applied that are not durable. With a flush before each answer
        // there are none. The queue must be empty as well, else the appends in it would wait for the core.
        let flushed = move |result: io::Result<()>| {
            if result.is_ok() && log.flushes_each() && log.is_idle() {
                executor.run_with(|| callback.io_completed(result));
            } else {
                callback.io_completed(result);
            }
        };
        // Openraft takes any error for the end of its storage, and so does everybody else.
        let appended = self.log.append(records, flushed).map_err(io::Error::other);
        appended.map(drop).map_err(|error| self.latch.close(Failure::storage("append", error)).to_io_error())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map(|id| index_of(&id));
        self.machine.truncated(last);
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
