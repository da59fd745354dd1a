//! Numbers of a client for its user's own metrics: a snapshot on demand, by [`Client::stats`](crate::Client::stats).
//!
//! Counts and times grow from the start of a producer or consumer on, so that a rate is the difference of two snapshots. Counting is a
//! few additions to atomics for each send and each handler.

mod latency;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use latency::Latency;

pub(crate) use latency::Latencies;

use crate::consumer::Verdict;
use crate::error::SendError;
use crate::events::ServerKind;

/// A client's numbers now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientStats {
    /// Its producers, transactional or not, by group.
    pub producers: Vec<ProducerStats>,
    /// Its consumers with handlers or streams, by group.
    pub consumers: Vec<ConsumerStats>,
    /// Servers that do not answer.
    pub away: Vec<ServerAway>,
}

/// A server that does not answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerAway {
    /// Its kind.
    pub kind: ServerKind,
    /// Its address.
    pub addr: String,
    /// Since when.
    pub duration: Duration,
}

/// A producer's numbers. A batch is one send, and so is a half message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerStats {
    /// The group.
    pub group: String,
    /// Sends that have begun and not ended.
    pub in_flight: u64,
    /// Sends that a broker has confirmed.
    pub sent: u64,
    /// Sends that certainly stored nothing.
    pub failed: u64,
    /// Sends that may have stored something.
    pub unknown: u64,
    /// Attempts beyond the first of each send.
    pub retries: u64,
    /// From the beginning of a send to its end, failed ones included.
    pub latency: Latency,
}

/// A consumer's numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// The group.
    pub group: String,
    /// Queues that this member reads.
    pub queues: usize,
    /// Messages that wait for a handler.
    pub waiting: usize,
    /// Messages in handlers, or with the user of a stream.
    pub running: usize,
    /// Messages that are done with.
    pub done: u64,
    /// Messages that came to be tried again.
    pub again: u64,
    /// Messages whose handler sent them to the dead letters.
    pub never: u64,
    /// From the beginning of a handler to its end; of a stream, to the answer.
    pub latency: Latency,
    /// Messages behind the end of the queues that this member reads, as the last pulls found them. Those that the subscription passes over
    /// are counted in.
    pub lag: u64,
}

/// What a producer counts.
#[derive(Debug, Default)]
pub(crate) struct SendCounts {
    sent: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    retries: AtomicU64,
    latencies: Latencies,
}

impl SendCounts {
    /// A send ended after so many attempts; `Err` says whether it may be stored all the same.
    pub(crate) fn ended(&self, took: Duration, attempts: u32, ended: Result<(), bool>) {
        let count = match ended {
            Ok(()) => &self.sent,
            Err(false) => &self.failed,
            Err(true) => &self.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.retries.fetch_add(u64::from(attempts.saturating_sub(1)), Ordering::Relaxed);
        self.latencies.record(took);
    }

    pub(crate) fn stats(&self, group: &str, in_flight: usize) -> ProducerStats {
        ProducerStats {
            group: group.to_owned(),
            in_flight: in_flight as u64,
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            latency: self.latencies.latency(),
        }
    }
}

/// Attempts of a send that failed.
pub(crate) fn attempts_of(error: &SendError) -> u32 {
    match error {
        SendError::NotStored { attempts, .. } | SendError::OutcomeUnknown { attempts, .. } => *attempts,
        SendError::BelowAsked { .. } => 1,
        SendError::Invalid { .. } | SendError::UnsafeBroker { .. } | SendError::ShutDown => 0,
    }
}

/// What a consumer counts.
#[derive(Debug, Default)]
pub(crate) struct HandlerCounts {
    done: AtomicU64,
    again: AtomicU64,
    never: AtomicU64,
    latencies: Latencies,
}

impl HandlerCounts {
    /// A handler of so many messages ended.
    pub(crate) fn ended(&self, took: Duration, messages: usize, verdict: &Verdict, retry_unreadable: bool) {
        let count = match verdict {
            Verdict::Done => &self.done,
            Verdict::Unreadable { .. } if retry_unreadable => &self.again,
            Verdict::Again { .. } => &self.again,
            Verdict::Never { .. } | Verdict::Unreadable { .. } => &self.never,
        };
        count.fetch_add(messages as u64, Ordering::Relaxed);
        self.latencies.record(took);
    }

    /// With what the queues hold.
    pub(crate) fn stats(
        &self,
        group: &str,
        queues: usize,
        (waiting, running): (usize, usize),
        lag: u64,
    ) -> ConsumerStats {
        ConsumerStats {
            group: group.to_owned(),
            queues,
            waiting,
            running,
            done: self.done.load(Ordering::Relaxed),
            again: self.again.load(Ordering::Relaxed),
            never: self.never.load(Ordering::Relaxed),
            latency: self.latencies.latency(),
            lag,
        }
    }
}
