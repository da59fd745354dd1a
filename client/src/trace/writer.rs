//! The way of records to the trace topic: a bounded queue, and a task that sends what is in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::message::properties::name;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::record::{Chunk, Record, chunks};
use crate::core::Core;
use crate::message::Message;
use crate::producer::{Prepared, SendSettings, Sender, SenderError};

/// Records that wait to be sent; further ones are dropped.
const WAITING_MAX: usize = 2048;
/// Records that are sent together, unless their message gets too large.
const BATCH_MAX: usize = 100;
/// How long a record waits for others.
const LINGER: Duration = Duration::from_millis(20);
/// How long the end of a client waits for its last records.
const FLUSH: Duration = Duration::from_secs(5);
/// The group that trace messages are sent under, by the name that other clients give theirs.
const GROUP: &str = "_INNER_TRACE_PRODUCER";

enum Item {
    Record(Record),
    /// Answered when everything before it was sent or dropped.
    Flush(oneshot::Sender<()>),
}

/// Takes records.
#[derive(Debug)]
pub(crate) struct Writer {
    topic: Arc<str>,
    queue: mpsc::Sender<Item>,
    /// The other end, until the task takes it.
    arriving: Mutex<Option<mpsc::Receiver<Item>>>,
    dropped: AtomicU64,
}

impl Writer {
    pub(crate) fn new(topic: &str) -> Writer {
        let (queue, arriving) = mpsc::channel(WAITING_MAX);
        Writer { topic: topic.into(), queue, arriving: Mutex::new(Some(arriving)), dropped: AtomicU64::new(0) }
    }

    /// Starts to send, if the client has a writer.
    pub(crate) fn start(core: &Arc<Core>) {
        let Some(arriving) = core.trace.as_ref().and_then(|writer| writer.arriving.lock().take()) else {
            return;
        };
        let mut settings = SendSettings::default();
        settings.retry.deadline = FLUSH;
        let sender = Sender::new(core, GROUP.to_owned(), settings);
        core.tasks.spawn("message trace", run(Arc::clone(core), sender, arriving));
    }

    /// Whether messages of this topic leave no records: the records themselves.
    pub(super) fn is_own(&self, topic: &str) -> bool {
        *self.topic == *topic
    }

    /// Takes a record in, or drops it if too many wait.
    pub(super) fn push(&self, record: Record) {
        if self.queue.try_send(Item::Record(record)).is_err() {
            self.add_dropped(1);
        }
    }

    /// Records dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn add_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until the records taken in so far have been sent, for a while.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                // An error means that the task has ended: nothing is left to wait for.
                let _ = wait.await;
            }
        };
        if tokio::time::timeout(FLUSH, flushed).await.is_err() {
            tracing::warn!("the last records of the message trace were not sent in time");
        }
    }
}

async fn run(core: Arc<Core>, sender: Sender, mut arriving: mpsc::Receiver<Item>) {
    let writer = core.trace.as_ref().expect("the task of a writer");
    let mut items = Vec::with_capacity(BATCH_MAX);
    let mut is_failing = false;
    loop {
        let next = async {
            arriving.recv_many(&mut items, BATCH_MAX).await;
            let is_urgent = items.iter().any(|item| matches!(item, Item::Flush(_)));
            if items.len() < BATCH_MAX && !is_urgent {
                tokio::time::sleep(LINGER).await;
                while items.len() < BATCH_MAX
                    && let Ok(item) = arriving.try_recv()
                {
                    items.push(item);
                }
            }
        };
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = next => {}
        }
        let mut waiters = Vec::new();
        let mut records = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            match item {
                Item::Record(record) => records.push(record),
                Item::Flush(waiter) => waiters.push(waiter),
            }
        }
        for chunk in chunks(&records) {
            let count = chunk.records;
            let sent = tokio::select! {
                biased;
                () = core.shutdown.cancelled() => return,
                sent = send(&sender, &writer.topic, chunk) => sent,
            };
            if let Err(error) = &sent {
                writer.add_dropped(count);
                // Once, until it works again.
                if !is_failing {
                    tracing::warn!(topic = %writer.topic, ?error, "records of the message trace are dropped");
                }
            }
            is_failing = sent.is_err();
        }
        for waiter in waiters {
            // Nobody waits any more: then nobody needs to know.
            let _ = waiter.send(());
        }
    }
}

/// Sends one message of records, which itself leaves neither records nor spans.
async fn send(sender: &Sender, topic: &Arc<str>, chunk: Chunk) -> Result<(), SenderError> {
    let mut message = Message::new(Arc::clone(topic), chunk.body);
    message.set(name::KEYS, chunk.keys);
    let prepared = Prepared::new(message, sender.settings())?;
    sender.send_prepared(&prepared, None, None).await.map(drop)
}
