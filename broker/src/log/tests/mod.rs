//! Tests of the whole log.

mod basic;
mod crash;
mod damage;
mod faults;
mod model;

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::{Flush, LogSettings, NewRecord};
use crate::terms::LogIndex;

/// Collects the outcome of an operation.
pub(crate) struct Outcome(mpsc::Receiver<io::Result<()>>);

impl Outcome {
    pub(crate) fn wait(self) -> io::Result<()> {
        self.0.recv_timeout(Duration::from_secs(30)).expect("every operation is answered")
    }
}

/// A callback and what it will be told.
pub(crate) fn outcome() -> (impl FnOnce(io::Result<()>) + Send + 'static, Outcome) {
    let (sender, receiver) = mpsc::channel();
    let done = move |result| {
        // The test may have stopped caring.
        let _ = sender.send(result);
    };
    (done, Outcome(receiver))
}

pub(crate) fn record(term: u64, index: u64, payload: impl Into<Bytes>) -> NewRecord {
    NewRecord { term, index: LogIndex(index), kind: 1, payload: payload.into(), crc: None }
}

/// Payload bytes that depend on the seed and look like nothing else.
pub(crate) fn payload(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) fn small(flush: Flush) -> LogSettings {
    LogSettings {
        segment_bytes: 16 << 10,
        flush,
        tail_cache_bytes: 2 << 10,
        zero_ahead_bytes: 4 << 10,
        ..LogSettings::default()
    }
}
