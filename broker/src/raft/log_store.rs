//! The log as openraft sees it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};
use tokio::sync::oneshot;

use super::entry::{LogEntry, Place, Proposal};
use super::pace::Pace;
use super::state::StateMachine;
use super::{LogId, Payload, TypeConfig, Vote, index_of, log_id, membership};
use crate::executor::{Blocking, Executor};
use crate::latch::{Failure, FailureLatch, Promise};
use crate::log::{AppendError, Log, NewRecord, Record, RecordId};
use crate::planted::{Bug, planted};
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
/// Old entries read at once for a member that is behind. What the group does for its clients waits that long.
const PACED_BYTES: u64 = 256 * 1024;

/// The log of a member whose state machine is `M`.
pub(super) struct LogStore<M> {
    log: Log,
    executor: Executor,
    blocking: Blocking,
    machine: Arc<M>,
    latch: FailureLatch,
    /// Whether others are, or may soon be, members of the group.
    has_peers: Arc<AtomicBool>,
    /// Of the member for which this one is read. Each clone has its own.
    pace: Pace,
}

impl<M> Clone for LogStore<M> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            executor: self.executor.clone(),
            blocking: self.blocking.clone(),
            machine: Arc::clone(&self.machine),
            latch: self.latch.clone(),
            has_peers: Arc::clone(&self.has_peers),
            pace: Pace::default(),
        }
    }
}

impl<M: StateMachine> LogStore<M> {
    pub(super) fn new(
        log: Log,
        executor: Executor,
        blocking: Blocking,
        machine: Arc<M>,
        latch: FailureLatch,
        has_peers: Arc<AtomicBool>,
    ) -> Self {
        Self { log, executor, blocking, machine, latch, has_peers, pace: Pace::default() }
    }

    /// Entries of an index range, as many as fit into the read bound.
    async fn read(&self, from: LogIndex, to: LogIndex) -> io::Result<Vec<LogEntry>> {
        match self.log.read_recent(from, to, READ_BYTES) {
            Some(recent) => recent.into_iter().map(entry_of).collect(),
            None => self.read_old(from, to, READ_BYTES).await,
        }
    }

    async fn read_old(&self, from: LogIndex, to: LogIndex, bytes: u64) -> io::Result<Vec<LogEntry>> {
        let log = self.log.clone();
        let records = self.blocking.run("read old entries", move || log.read_entries(from, to, bytes)).await?;
        records.into_iter().map(entry_of).collect()
    }
}

fn id_of(record: RecordId) -> LogId {
    log_id(record.term, record.index)
}

/// The entry that a record holds.
pub(super) fn entry_of(record: Record) -> io::Result<LogEntry> {
    let (term, index, place) = (record.term, record.index, Place::of(&record));
    Ok(LogEntry::stored(term, index, payload_of(record)?, place))
}

/// What openraft sees of a record.
pub(super) fn payload_of(record: Record) -> io::Result<Payload> {
    Ok(match record.kind {
        kind::BATCH => EntryPayload::Normal(Proposal::stored(record.payload)),
        kind::BLANK => EntryPayload::Blank,
        kind::MEMBERSHIP => EntryPayload::Membership(membership::decode(&record.payload)?),
        other => {
            let why = format!("log entry {} is of kind {other}: written by a newer version", record.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    })
}

/// The record that holds an entry.
pub(super) fn record_of(entry: &LogEntry) -> NewRecord {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Normal(proposal) => (kind::BATCH, proposal.payload.clone()),
        EntryPayload::Blank => (kind::BLANK, Bytes::new()),
        EntryPayload::Membership(members) => (kind::MEMBERSHIP, Bytes::from(membership::encode(members))),
    };
    let crc = entry.place.map(|place| place.crc);
    NewRecord { term: entry.term(), index: entry.index(), kind, payload, crc }
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
            let read = self.read(from, to).await?;
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
                match store.read(from, to).await {
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

    /// For a member that is behind these are old ones.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let (from, to) = (LogIndex(start), LogIndex(end));
        if let Some(recent) = self.log.read_recent(from, to, READ_BYTES) {
            return recent.into_iter().map(entry_of).collect();
        }
        self.executor.sleep_until(self.pace.next()).await;
        let (began, log_end, committed) = (self.executor.now(), self.log.end(), self.log.committed());
        let entries = self.read_old(from, to, PACED_BYTES).await?;
        let place = |entry: Option<&LogEntry>| entry.and_then(|entry| entry.place);
        if let (Some(first), Some(last)) = (place(entries.first()), place(entries.last())) {
            self.pace.note(last.end.get() - first.position.get(), began, log_end, committed);
        }
        Ok(entries)
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
        let all = self.log.last().filter(|_| planted(Bug::AppliedUncommitted)).map(|last| last.index);
        let Some(index) = all.or(self.log.committed()) else { return Ok(None) };
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
        // Room for entries of a leader, until they have it.
        let mut rooms = Vec::new();
        let mut at = None;
        for mut entry in entries {
            if let EntryPayload::Normal(proposal) = &entry.payload {
                proposal.appending(entry.index());
            }
            if records.is_empty() {
                at = entry.place.map(|place| place.position);
            }
            rooms.extend(entry.room.take());
            records.push(record_of(&entry));
        }
        let (executor, log, has_peers) = (self.executor.clone(), self.log.clone(), Arc::clone(&self.has_peers));
        // On the log's writer thread. The usual way is to wake the core, which runs on another thread. Running the core here
        // saves that switch. It is safe in one case only, because the core may go on to apply, and apply may wait for room in
        // the index, which the flusher makes:
        //
        //   flusher                            this thread
        //   waits until the log is durable
        //                                      answers an append
        //                                      runs the core, which applies
        //                                      waits for the flusher: nobody flushes, a deadlock
        //
        // The flusher waits for the log only if entries are applied that are not durable here. With one voter and a flush
        // before each answer there are none; with more, others can make a majority. The queue must be empty as well, else the
        // appends in it would wait for the core.
        let flushed = move |result: io::Result<()>| {
            let alone = !has_peers.load(Ordering::Relaxed);
            if result.is_ok() && alone && log.flushes_each() && log.is_idle() {
                executor.run_with(|| callback.io_completed(result));
            } else {
                callback.io_completed(result);
            }
        };
        let appended = match at {
            Some(position) => self.log.append_at(position, records, flushed),
            None => self.log.append(records, flushed),
        };
        drop(rooms);
        let Err(error) = appended else { return Ok(()) };
        let failure = match &error {
            AppendError::WrongPosition { index, given, .. } | AppendError::Diverged { index, position: given } => {
                let found = (Some(*index), Some(*given), error.to_string());
                self.latch.broken(Promise::LogsAgree, found.0, found.1, found.2)
            }
            // Openraft takes any error for the end of its storage, and so does everybody else.
            _ => self.latch.close(Failure::storage("append", io::Error::other(error))),
        };
        Err(failure.to_io_error())
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

    /// Later: files are deleted, and the core must not wait for that.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (log, latch) = (self.log.clone(), self.latch.clone());
        drop(self.blocking.run("delete old log files", move || {
            log.purge_upto(index_of(&upto))
                .map_err(|error| latch.close(Failure::storage("deleting old log files", error)).to_io_error())
        }));
        Ok(())
    }
}
