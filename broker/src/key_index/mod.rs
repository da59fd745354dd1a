//! Finding messages by key and by unique id.
//!
//! ```text
//! log --builder thread--> newest entries in memory --full--> run (sorted file) --8 of a level--> wider run
//!                                   \                           |
//!  lookup: hash of topic and key ----+----- newest first ------+--> candidate positions --> resolved by the caller
//! ```
//!
//! This is no state: everything here follows from the log alone, is built after apply, and is rebuilt if it is missing
//! or damaged. One thread reads each applied record once; sending waits for nothing of it.
//!
//! Promises: memory is bounded for any input; a file is complete and durable before it has its name; lookups never
//! miss a known entry, and say up to where that is; a damaged file costs its part of the log a second reading, never a
//! wrong answer.
//!
//! Left to others: whether a candidate may be seen and really has that key. A candidate may be a half message, one that
//! waits for its time, one that was rolled back, or another key with the same hash. Only
//! [`Shard::locate`](crate::shard::Shard::locate) and a look at the unit make it a hit.

mod builder;
mod entry;
mod folder;
mod hash;
mod known;
mod merge;
mod run;

#[cfg(test)]
mod tests;

pub(crate) use entry::words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::{Condvar, Mutex};

use self::builder::{Builder, Limits};
use self::entry::Entry;
use self::hash::TopicHash;
use self::known::{Known, Shared};
use self::run::{Hits, Run};
use crate::log::Record;
use crate::shard::Shard;
use crate::terms::{LogIndex, Position, Stamp};

/// Where the index reads the log.
pub(crate) trait LogSource: Send + 'static {
    /// Index of the newest applied record; `None` before the first.
    fn applied(&self) -> Option<LogIndex>;
    /// Index of the oldest record held.
    fn first_index(&self) -> LogIndex;
    /// Log position of the oldest record held.
    fn first_position(&self) -> Position;
    /// The term of a record; `None` if the log does not hold it.
    fn term_of(&self, index: LogIndex) -> io::Result<Option<u64>>;
    /// The records `from..to`, at most `max_bytes` of them but at least one. Errors as those of
    /// [`Log::read_entries`](crate::log::Log::read_entries).
    fn read(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> io::Result<Vec<Record>>;
    /// Where to go on after a record that cannot be read, if an operator has given it up: nobody finds its messages.
    fn behind_lost(&self, index: LogIndex) -> Option<LogIndex>;
}

/// A file of a key index that is damaged.
#[derive(Debug)]
pub(crate) struct DamagedRun {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The error; of kind [`io::ErrorKind::Unsupported`] if the file was written by a newer version.
    pub error: io::Error,
}

/// Reads all files of the key index in `dir`, which nobody must be using, and says how many there are and which are
/// damaged. Changes nothing. No folder is an index without files.
pub(crate) fn verify(dir: &Path) -> io::Result<(usize, Vec<DamagedRun>)> {
    let mut damaged = Vec::new();
    let mut runs = 0;
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, damaged)),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if !Run::is_name(&path) {
            continue;
        }
        runs += 1;
        let verified = Run::open(path.clone()).map_err(|error| (0, error)).and_then(|run| Arc::new(run).verify());
        if let Err((offset, error)) = verified {
            damaged.push(DamagedRun { path, offset, error });
        }
    }
    Ok((runs, damaged))
}

/// Writes a file of `entries` made-up entries, for tests of what reads such files.
#[cfg(test)]
pub(crate) fn write_run_for_tests(dir: &Path, entries: u64) {
    let mut writer = run::RunWriter::create(dir, "made", 0).unwrap();
    for nth in 0..entries {
        writer.push(Entry { hash: nth << 32, position: Position(nth), seconds: 1 }).unwrap();
    }
    let coverage = run::Coverage {
        first_index: LogIndex(0),
        last_index: LogIndex(1),
        last_term: 1,
        start: Position::ZERO,
        end: Position(entries),
        newest_stamp: Stamp(1),
    };
    writer.finish(coverage).unwrap();
}

impl LogSource for Shard {
    fn applied(&self) -> Option<LogIndex> {
        self.counters().applied_index()
    }

    fn first_index(&self) -> LogIndex {
        self.log().first_index()
    }

    fn first_position(&self) -> Position {
        self.log().first_position()
    }

    fn term_of(&self, index: LogIndex) -> io::Result<Option<u64>> {
        self.log().term_of(index)
    }

    fn read(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> io::Result<Vec<Record>> {
        self.log().read_entries(from, to, max_bytes)
    }

    fn behind_lost(&self, index: LogIndex) -> Option<LogIndex> {
        let segments = self.log().segments();
        let at = segments.partition_point(|segment| segment.first_index <= index).checked_sub(1)?;
        self.lost().holds(segments[at].start).then(|| segments.get(at + 1).map(|next| next.first_index))?
    }
}

/// A message that may have the key that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Log position of its unit.
    pub position: Position,
    /// When it was stored, in seconds since 1970. It becomes visible then, or later.
    pub stored_seconds: u32,
}

/// Up to where the log is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Log position after the newest record that is known.
    pub position: Position,
    /// Stamp of the newest batch that is known.
    pub stamp: Stamp,
}

/// The index of keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyIndex {
    shared: Arc<Shared>,
}

impl KeyIndex {
    /// Opens the index in `dir`, making the folder if there is none. Nothing is known of newer records until
    /// [`follow`](Self::follow) runs. Reads the heads of all files: call it where blocking is allowed.
    pub(crate) fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        let runs = folder::load(&dir)?;
        // Nothing counts as known before the builder has compared the runs with the log.
        let known = Mutex::new(Known::new(runs));
        let shared = Shared { dir, known, wanted: Condvar::new(), progress: Condvar::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens the index of a shard and follows its log on a thread of its own until `shutdown`.
    pub(crate) fn start(
        dir: impl Into<PathBuf>,
        shard: &Shard,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let index = Self::open(dir)?;
        let (follower, shard, shutdown) = (index.clone(), shard.clone(), shutdown.clone());
        tasks.spawn_thread("key-index", move || follower.follow(shard, &shutdown))?;
        Ok(index)
    }

    /// Follows a log until `shutdown`. Blocks; one caller at a time.
    pub(crate) fn follow(&self, source: impl LogSource, shutdown: &Shutdown) {
        self.follow_within(source, shutdown, Limits::default());
    }

    fn follow_within(&self, source: impl LogSource, shutdown: &Shutdown, limits: Limits) {
        Builder::new(Arc::clone(&self.shared), source, limits).run(shutdown);
    }

    /// Waits until the record with this Raft index is known, or `patience` is over; says whether it is known. Blocks.
    pub(crate) fn catch_up(&self, index: LogIndex, patience: Duration) -> bool {
        self.shared.catch_up(index, patience)
    }

    /// Up to where the log is known; `None` before the first record.
    pub(crate) fn reach(&self) -> Option<Reach> {
        let newest = self.shared.known.lock().newest();
        newest.map(|coverage| Reach { position: coverage.end, stamp: coverage.newest_stamp })
    }

    /// The messages that may have this topic and this key, newest first. Reads files as it goes on.
    pub(crate) fn candidates(&self, topic: &str, key: &str) -> Candidates {
        let hash = TopicHash::new(topic).of(key);
        let known = self.shared.known.lock();
        Candidates {
            shared: Arc::clone(&self.shared),
            hash,
            recent: known.recent(hash).into_iter(),
            hits: None,
            runs: known.runs.iter().cloned().collect(),
        }
    }
}

/// The candidates of one lookup, newest first.
pub(crate) struct Candidates {
    shared: Arc<Shared>,
    hash: u64,
    recent: std::vec::IntoIter<Entry>,
    hits: Option<Hits>,
    /// Not looked at yet, oldest first.
    runs: Vec<Arc<Run>>,
}

impl Candidates {
    fn next_entry(&mut self) -> Option<io::Result<Entry>> {
        if let Some(entry) = self.recent.next() {
            return Some(Ok(entry));
        }
        loop {
            if let Some(hits) = &mut self.hits {
                match hits.next() {
                    Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                        // Built again in the background; the entries of the other runs are still right.
                        tracing::warn!(%error, "a file of the key index is damaged");
                        self.shared.known.lock().damaged = Some(hits.run().coverage.first_index);
                        self.shared.wanted.notify_one();
                    }
                    Some(next) => return Some(next),
                    None => {}
                }
            }
            self.hits = Some(self.runs.pop()?.find(self.hash));
        }
    }
}

impl Iterator for Candidates {
    type Item = io::Result<Candidate>;

    fn next(&mut self) -> Option<io::Result<Candidate>> {
        let entry = self.next_entry()?;
        Some(entry.map(|entry| Candidate { position: entry.position, stored_seconds: entry.seconds }))
    }
}
