//! The batching producer, as its user sees it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use escrowmq_common::task::Tasks;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::lanes::{Added, LaneId, Lanes};
use super::sending::Batches;
use super::window::{Place, Window};
use crate::error::{RequestError, SendError, StartError};
use crate::message::Message;
use crate::producer::{BatchLimit, Producer, Profile, SendSettings, packed_bytes};

/// Messages that go together; more under [`Profile::Fast`].
const BATCH_MESSAGES: usize = 64;
const BATCH_MESSAGES_FAST: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Collects the settings of a [`BatchingProducer`]. Made by [`Producer::batching`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct BatchingBuilder<P> {
    producer: P,
    in_flight_messages: u32,
    in_flight_bytes: u32,
    limit: BatchLimit,
    linger: Duration,
}

impl<P: Batches> BatchingBuilder<P> {
    pub(crate) fn new(producer: P, settings: &SendSettings) -> BatchingBuilder<P> {
        let messages = if settings.profile == Profile::Fast { BATCH_MESSAGES_FAST } else { BATCH_MESSAGES };
        BatchingBuilder {
            producer,
            in_flight_messages: 10_000,
            in_flight_bytes: 64 << 20,
            limit: BatchLimit { messages, bytes: BATCH_BYTES.min(settings.body_bytes_max) },
            linger: Duration::ZERO,
        }
    }

    /// Messages that are enqueued and not answered yet, at most; [`enqueue`](BatchingProducer::enqueue) waits for room. Default 10,000.
    pub fn in_flight_messages(mut self, count: u32) -> Self {
        self.in_flight_messages = count;
        self
    }

    /// Their bytes, at most. A larger message passes alone. Default 64 MiB.
    pub fn in_flight_bytes(mut self, bytes: u32) -> Self {
        self.in_flight_bytes = bytes;
        self
    }

    /// Messages of a batch, at most; a batch has no more than 1 MiB either. Default 64, under [`Profile::Fast`] 512.
    pub fn batch_messages(mut self, count: usize) -> Self {
        self.limit.messages = count;
        self
    }

    /// How long messages wait for others before they are sent, unless a batch is complete. Default 0: they are sent at once if nothing of
    /// their topic and key is in flight, and what comes meanwhile goes together. A few milliseconds make batches larger where
    /// messages come slowly.
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for a bound of 0, or of more messages than 2^28.
    pub fn start(self) -> Result<BatchingProducer<P>, StartError> {
        let most = 1 << 28;
        for (setting, value) in [
            ("in_flight_messages", self.in_flight_messages as usize),
            ("in_flight_bytes", self.in_flight_bytes as usize),
            ("batch_messages", self.limit.messages),
        ] {
            if value == 0 || setting == "in_flight_messages" && value > most {
                return Err(StartError::setting(setting, format!("must be from 1 to {most}")));
            }
        }
        let shared = Shared {
            producer: self.producer,
            window: Window::new(self.in_flight_messages, self.in_flight_bytes),
            lanes: Mutex::new(Lanes::new(self.limit)),
            limit: self.limit,
            linger: self.linger,
            hurry: Notify::new(),
            flushes: AtomicUsize::new(0),
            tasks: Tasks::new(),
        };
        Ok(BatchingProducer { shared: Arc::new(shared) })
    }
}

/// Gathers messages into batches and answers each by itself. Cheap to clone; made by [`Producer::batching`], or by
/// `SpillingProducer::batching`, whose receipts may say that a message is spilled.
///
/// ```no_run
/// # async fn run(client: escrowmq_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use escrowmq_client::Message;
///
/// let producer = client.producer("clicks").start().await?;
/// let batching = producer.batching().start()?;
/// let mut receipts = Vec::new();
/// for number in 0..1000 {
///     receipts.push(batching.enqueue(Message::new("Clicks", format!("click {number}"))).await?);
/// }
/// for receipt in receipts {
///     let sent = receipt.await?;
///     println!("{} is in {}", sent.message_id, sent.queue);
/// }
/// batching.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// * Messages of a sharding key are stored in the order in which they were enqueued, in the queue that
///   [`Producer::send`] would choose. When one could not be sent, those of its queue that were taken together with it are not tried
///   either, and fail with the same cause; later ones are tried. So a caller who needs no gap stops at the first error.
/// * Delayed messages and timers go by themselves, and so does each message of a topic with a duplicate window, which knows a batch only
///   as a whole: those gain nothing here.
/// * An enqueued message is sent whether or not anybody awaits its receipt.
pub struct BatchingProducer<P: Batches = Producer> {
    shared: Arc<Shared<P>>,
}

impl<P: Batches> Clone for BatchingProducer<P> {
    fn clone(&self) -> Self {
        BatchingProducer { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Batches> fmt::Debug for BatchingProducer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchingProducer").field("window", &self.shared.window).finish_non_exhaustive()
    }
}

/// A message on its way: whom to tell, and its place in the window.
struct Pending<P: Batches> {
    reply: oneshot::Sender<Result<P::Receipt, P::Error>>,
    _place: Place,
}

struct Shared<P: Batches> {
    producer: P,
    window: Window,
    lanes: Mutex<Lanes<Pending<P>>>,
    limit: BatchLimit,
    linger: Duration,
    /// Workers that linger need not any more: some batch is complete, or somebody flushes.
    hurry: Notify,
    /// Calls that wait for all to be sent.
    flushes: AtomicUsize,
    tasks: Tasks,
}

impl<P: Batches> BatchingProducer<P> {
    /// Puts a message into the window, and waits for room there. The receipt is a future of what becomes of it.
    ///
    /// A call that is dropped before its end has enqueued nothing.
    ///
    /// # Errors
    ///
    /// [`SendError::Invalid`] for a message that no broker would take, [`SendError::ShutDown`] after [`shutdown`](Self::shutdown).
    pub async fn enqueue(&self, mut message: Message) -> Result<BatchReceipt<P>, SendError> {
        let shared = &self.shared;
        let message_id = shared.producer.seal(&mut message)?;
        let place = shared.window.enter(packed_bytes(&message)).await.ok_or(SendError::ShutDown)?;
        let (reply, told) = oneshot::channel();
        let id = LaneId::of(&message);
        let added = shared.lanes.lock().add(&id, Pending { reply, _place: place }, message);
        match added {
            Added::Waits => {}
            Added::IsFull => shared.hurry.notify_waiters(),
            Added::NeedsWorker => {
                let worker = Worker { shared: Arc::clone(shared), id, has_ended: false };
                shared.tasks.spawn("batching producer", worker.run());
            }
        }
        Ok(BatchReceipt { message_id, told })
    }

    /// Waits until all messages that were enqueued before are answered, without lingering. Enqueues wait meanwhile.
    pub async fn flush(&self) {
        let _hurry = Hurry::new(&self.shared);
        self.shared.window.drained().await;
    }

    /// Refuses further messages and waits until those that were enqueued are answered. The producer inside goes on.
    pub async fn shutdown(&self) {
        let _hurry = Hurry::new(&self.shared);
        self.shared.window.close().await;
        self.shared.tasks.join().await;
    }

    /// The producer inside.
    pub fn producer(&self) -> &P {
        &self.shared.producer
    }
}

/// As long as it lives nobody lingers.
struct Hurry<'a, P: Batches>(&'a Shared<P>);

impl<'a, P: Batches> Hurry<'a, P> {
    fn new(shared: &'a Shared<P>) -> Self {
        shared.flushes.fetch_add(1, Ordering::AcqRel);
        shared.hurry.notify_waiters();
        Hurry(shared)
    }
}

impl<P: Batches> Drop for Hurry<'_, P> {
    fn drop(&mut self) {
        self.0.flushes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends what is in a lane until it is empty.
struct Worker<P: Batches> {
    shared: Arc<Shared<P>>,
    id: LaneId,
    has_ended: bool,
}

impl<P: Batches> Worker<P> {
    async fn run(mut self) {
        loop {
            self.linger().await;
            let Some(taken) = self.shared.lanes.lock().take(&self.id) else { break };
            let (pending, messages): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let results = self.shared.producer.send_lane(messages, self.shared.limit.messages).await;
            for (Pending { reply, _place }, result) in pending.into_iter().zip(results) {
                // Nobody may be waiting for it any more.
                let _ = reply.send(result);
            }
        }
        self.has_ended = true;
    }

    async fn linger(&self) {
        let shared = &*self.shared;
        if shared.linger.is_zero() {
            return;
        }
        let mut until = std::pin::pin!(tokio::time::sleep(shared.linger));
        loop {
            // Listens before it looks, so that it misses nothing.
            let mut hurry = std::pin::pin!(shared.hurry.notified());
            hurry.as_mut().enable();
            if shared.flushes.load(Ordering::Acquire) > 0 || shared.lanes.lock().is_full(&self.id) {
                return;
            }
            tokio::select! {
                () = &mut until => return,
                () = hurry => {}
            }
        }
    }
}

impl<P: Batches> Drop for Worker<P> {
    fn drop(&mut self) {
        if !self.has_ended {
            // It panicked, or the runtime is gone: those that waited for it are told that nobody knows.
            let left = self.shared.lanes.lock().abandoned(&self.id);
            drop(left);
        }
    }
}

/// The future of what becomes of an enqueued message. Dropping it does not take the message back.
#[must_use = "only the receipt says whether the message is stored"]
pub struct BatchReceipt<P: Batches = Producer> {
    message_id: String,
    told: oneshot::Receiver<Result<P::Receipt, P::Error>>,
}

impl<P: Batches> BatchReceipt<P> {
    /// The unique id that the message carries.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }
}

impl<P: Batches> fmt::Debug for BatchReceipt<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchReceipt").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

impl<P: Batches> Future for BatchReceipt<P> {
    type Output = Result<P::Receipt, P::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.told.poll_unpin(context).map(|told| {
            told.unwrap_or_else(|_| {
                let message_id = self.message_id.clone();
                Err(SendError::OutcomeUnknown { message_id, attempts: 0, last: RequestError::ShutDown }.into())
            })
        })
    }
}
