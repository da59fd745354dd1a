//! Messages that a consumer has got.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::arguments::Arguments;
use crate::bodies::Bodies;
use crate::sample::Sample;

/// Counts each of `--messages` messages once, by the number in its body. The first `--warmup` of them are not measured.
#[derive(Debug)]
pub struct Tally {
    seen: Vec<AtomicBool>,
    warmup: usize,
    received: AtomicUsize,
    repeated: AtomicUsize,
    /// Bodies without a number that was sent.
    strange: AtomicUsize,
    began: OnceLock<Sample>,
    ended: OnceLock<Sample>,
    done: Notify,
}

impl Tally {
    /// Nothing yet.
    pub fn new(arguments: &Arguments) -> Tally {
        Tally {
            seen: (0..arguments.count("messages")).map(|_| AtomicBool::new(false)).collect(),
            warmup: arguments.count("warmup"),
            received: AtomicUsize::new(0),
            repeated: AtomicUsize::new(0),
            strange: AtomicUsize::new(0),
            began: OnceLock::new(),
            ended: OnceLock::new(),
            done: Notify::new(),
        }
    }

    /// A message with this body has come.
    pub fn note(&self, body: &[u8]) {
        let number = Bodies::number(body).and_then(|number| usize::try_from(number).ok());
        let Some(seen) = number.and_then(|number| self.seen.get(number)) else {
            self.strange.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if seen.swap(true, Ordering::Relaxed) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let received = self.received.fetch_add(1, Ordering::Relaxed) + 1;
        if received == self.warmup {
            self.began.get_or_init(Sample::now);
        }
        if received == self.seen.len() {
            self.ended.get_or_init(Sample::now);
            self.done.notify_one();
        }
    }

    /// Until all have come, at most for `--deadline`. A consumer that has not got all by then says so in its line.
    pub async fn all(&self, arguments: &Arguments) {
        // It wakes who comes later, too.
        let _ = timeout(arguments.time("deadline"), self.done.notified()).await;
    }

    /// What is there, after the consumer has ended.
    pub fn line(&self) -> Value {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let times = self.began.get().zip(self.ended.get()).map(|(began, ended)| ended.since(began));
        json!({
            "messages": self.seen.len() - self.warmup, "seconds": times.map(|times| times.0), "cpu_us": times.map(|times| times.1),
            "received": count(&self.received), "repeated": count(&self.repeated), "strange": count(&self.strange),
        })
    }
}
