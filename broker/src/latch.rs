//! The one failure latch of a broker's store.
//!
//! Log, group and shard hold the same latch. The first of them that finds that the store cannot go on closes it, and each
//! does its part: the log answers what is queued with the failure, the group ends, the shard refuses commands. Reads go on.
//! Nothing opens the latch again: a restart recovers from the disk.
//!
//! Two kinds of failure close it: the operating system refused an operation of the store, or a [`Promise`] does not hold.
//! A broken promise is a fault of the program. Going on could spread it to clients and replicas, and ending the process
//! would only repeat it at each start, so the broker stays up, readable, and says what it found.
//!
//! Promises: the first failure stays; each hook is called once; [`FailureLatch::is_closed`] costs one load.
//! Leaves to others: what each holder does when it hears of a failure.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::terms::{LogIndex, Position};

/// The promises that the program looks at while it runs. The numbers are those of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// P1: each applied entry has the index after the one before.
    AppliedByOne,
    /// P1: records follow each other without gap or overlap, and terms do not fall.
    PositionsRise,
    /// P1: the index is never durable beyond the log.
    IndexBehindLog,
    /// P1: the logs of a group agree, position by position and checksum by checksum.
    LogsAgree,
    /// P3: the row of a half and its decision never stand side by side.
    HalfOrDecision,
    /// P3: each command has one outcome.
    OneOutcome,
    /// P4: open and parked halves, decisions and timers are counted without wrapping.
    CountersHold,
    /// P5: the stamps of entries do not fall.
    StampsRise,
    /// P5: the ends of a queue do not fall.
    QueueEndsRise,
    /// P6: what is on its way to be applied is counted without wrapping.
    LoadHolds,
}

impl Promise {
    /// The promise in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::AppliedByOne => "P1: the applied index rises by one",
            Self::PositionsRise => "P1: records follow each other",
            Self::IndexBehindLog => "P1: the index is never durable beyond the log",
            Self::LogsAgree => "P1: the logs of a group agree",
            Self::HalfOrDecision => "P3: a half is never undecided and decided at once",
            Self::OneOutcome => "P3: each command has one outcome",
            Self::CountersHold => "P4: counters do not wrap",
            Self::StampsRise => "P5: stamps do not fall",
            Self::QueueEndsRise => "P5: the ends of a queue do not fall",
            Self::LoadHolds => "P6: the load on its way does not wrap",
        }
    }
}

/// A promise that does not hold, and where that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The promise.
    pub promise: Promise,
    /// The entry at hand, if there was one.
    pub entry: Option<LogIndex>,
    /// The position at hand, if there was one.
    pub position: Option<Position>,
    /// A description of what was found instead.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the promise \"{}\" does not hold", self.promise.text())?;
        if let Some(entry) = self.entry {
            write!(f, " at entry {entry}")?;
        }
        if let Some(position) = self.position {
            write!(f, ", position {position}")?;
        }
        write!(f, ": {}", self.found)
    }
}

/// Why the store takes no more writes. It lasts until a restart, which recovers from the disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The operating system refused an operation of the store.
    #[error("the store stopped taking writes: {action} failed: {source}; restart the broker to recover")]
    Storage {
        /// The operation that failed, as a noun: "write", "flush", ...
        action: &'static str,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// A promise does not hold, which is a fault of the program.
    #[error(
        "the store stopped taking writes: {0}. This is a fault of the broker: keep its data folder and report it; a restart \
         recovers from the log"
    )]
    Broken(Broken),
}

impl Failure {
    /// An operation of the store that failed.
    pub fn storage(action: &'static str, source: io::Error) -> Self {
        Self::Storage { action, source: Arc::new(source) }
    }

    /// The cause of the failure, without advice: for those who find the store failed at its start.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Storage { action, source } => format!("{action} failed: {source}"),
            Self::Broken(broken) => broken.to_string(),
        }
    }

    /// The operation that failed, or the promise that does not hold.
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Storage { action, .. } => action,
            Self::Broken(broken) => broken.promise.text(),
        }
    }

    /// The entry and the position at hand when a promise was found broken.
    pub const fn place(&self) -> (Option<LogIndex>, Option<Position>) {
        match self {
            Self::Storage { .. } => (None, None),
            Self::Broken(broken) => (broken.entry, broken.position),
        }
    }

    /// The kind of the operating system's answer.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Storage { source, .. } => source.kind(),
            Self::Broken(_) => io::ErrorKind::Other,
        }
    }

    pub(crate) fn to_io_error(&self) -> io::Error {
        io::Error::new(self.kind(), self.clone())
    }
}

type Hook = Box<dyn Fn(&Failure) + Send + Sync>;

/// See the module. Clones are handles of the same latch.
#[derive(Clone, Default)]
pub struct FailureLatch {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    failure: OnceLock<Failure>,
    hooks: Mutex<Vec<Hook>>,
    closed: Notify,
}

impl fmt::Debug for FailureLatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FailureLatch").field(&self.inner.failure.get()).finish()
    }
}

impl FailureLatch {
    /// Closes the latch, unless it is closed already, and answers the failure that closed it. Calls the hooks: hold none of
    /// the locks that they take.
    pub fn close(&self, failure: Failure) -> Failure {
        if self.inner.failure.set(failure).is_ok() {
            let failure = self.failure().expect("it was set just now");
            tracing::error!(event = "store_failed", %failure, "no writes until a restart; reads go on");
            // Taken out, so that a hook may use the latch.
            let hooks = std::mem::take(&mut *self.inner.hooks.lock());
            for hook in hooks {
                hook(failure);
            }
            self.inner.closed.notify_waiters();
        }
        self.failure().expect("it was set by now").clone()
    }

    /// Closes the latch because a promise does not hold.
    pub(crate) fn broken(
        &self,
        promise: Promise,
        entry: Option<LogIndex>,
        position: Option<Position>,
        found: String,
    ) -> Failure {
        self.close(Failure::Broken(Broken { promise, entry, position, found }))
    }

    /// Why it was closed, if it was.
    pub fn failure(&self) -> Option<&Failure> {
        self.inner.failure.get()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.failure().is_some()
    }

    /// Waits until it is closed.
    pub(crate) async fn closed(&self) {
        let closed = self.inner.closed.notified();
        if !self.is_closed() {
            closed.await;
        }
    }

    /// Calls `hook` when the latch is closed; at once if it is.
    pub(crate) fn on_close(&self, hook: impl Fn(&Failure) + Send + Sync + 'static) {
        let mut hooks = self.inner.hooks.lock();
        match self.failure() {
            None => hooks.push(Box::new(hook)),
            Some(failure) => {
                drop(hooks);
                hook(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_first_failure_stays_and_each_holder_hears_of_it_once() {
        let latch = FailureLatch::default();
        let heard = Arc::new(AtomicUsize::new(0));
        let count = |latch: &FailureLatch| {
            let heard = Arc::clone(&heard);
            latch.on_close(move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            });
        };
        count(&latch);
        assert!(!latch.is_closed());
        let waits = latch.closed();
        let first = latch.broken(Promise::StampsRise, Some(LogIndex(7)), Some(Position(90)), "4 after 5".to_owned());
        assert_eq!(
            first.to_string(),
            "the store stopped taking writes: the promise \"P5: stamps do not fall\" does not hold at entry 7, position 90: \
             4 after 5. This is a fault of the broker: keep its data folder and report it; a restart recovers from the log"
        );
        let second = latch.close(Failure::storage("flush", io::Error::other("no")));
        assert!(matches!(second, Failure::Broken(_)));
        waits.await;
        latch.closed().await;
        count(&latch);
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
