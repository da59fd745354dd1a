//! The state that the tasks of one push consumer share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_common::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel};
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::control::ResetRequest;
use super::handler::Handler;
use super::offset_file::OffsetFile;
use super::process_queue::{BufferLimits, ProcessQueue};
use super::ready::{Queued, ReadyLine};
use super::start::ConsumeFrom;
use super::subscription::Subscription;
use super::{inspect, lock, offsets};
use crate::core::Core;
use crate::groups::{Closing, ConsumerMember};
use crate::heartbeat::ConsumerReport;
use crate::producer::Sender;
use crate::queue::MessageQueue;

/// How a push consumer works; see the builder for what each means.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerSettings {
    pub(crate) from: ConsumeFrom,
    pub(crate) concurrency: usize,
    pub(crate) batch_max: usize,
    pub(crate) pull_max: i32,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) limits: BufferLimits,
    pub(crate) handler_timeout: Duration,
    pub(crate) hold: Duration,
    pub(crate) commit_interval: Duration,
    pub(crate) rebalance_interval: Duration,
    /// One handler per queue at a time, failures retried in place, queues locked at the broker.
    pub(crate) is_ordered: bool,
    /// Every member reads everything; offsets lie in this file.
    pub(crate) broadcast: Option<PathBuf>,
}

/// A queue that this member holds.
#[derive(Debug)]
pub(crate) struct HeldQueue {
    pub(crate) queue: MessageQueue,
    pub(crate) buffer: Mutex<ProcessQueue>,
    /// Signalled when the buffer may have room again.
    pub(crate) room: Notify,
    /// Cancelled when the queue is lost or the consumer ends.
    pub(crate) dropped: Shutdown,
    /// The offset that the broker is known to have stored; -1 before the first.
    pub(crate) stored: AtomicI64,
    /// The replica that the broker suggested to read from.
    pub(crate) replica: AtomicI64,
    /// Ordered consumption: until when the broker's lock certainly holds.
    pub(crate) locked_until: Mutex<Option<Instant>>,
    /// Ordered consumption: a handler is at work on this queue.
    pub(crate) busy: AtomicBool,
    /// Ordered consumption: failed attempts of the message at the head.
    pub(crate) failures: AtomicU32,
    in_line: AtomicBool,
}

impl Queued for HeldQueue {
    fn in_line(&self) -> &AtomicBool {
        &self.in_line
    }
}

impl HeldQueue {
    pub(crate) fn new(queue: MessageQueue, start: i64, dropped: Shutdown) -> HeldQueue {
        HeldQueue {
            queue,
            buffer: Mutex::new(ProcessQueue::new(start)),
            room: Notify::new(),
            dropped,
            stored: AtomicI64::new(-1),
            replica: AtomicI64::new(0),
            locked_until: Mutex::new(None),
            busy: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            in_line: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.is_cancelled()
    }

    /// Whether the broker's lock certainly holds now.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// Requests of brokers that are worked on at the same time; what is more is refused.
pub(crate) const ASKED_MAX: usize = 32;

/// A push consumer.
pub(crate) struct Group {
    pub(crate) core: Arc<Core>,
    pub(crate) name: String,
    pub(crate) settings: ConsumerSettings,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_ms: i64,
    /// By topic, the retry topic included.
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) handler: Handler,
    /// The offsets of a broadcast consumer; others keep theirs at the broker.
    pub(crate) offset_file: Option<OffsetFile>,
    /// The queues of this member. The balance task alone adds and removes.
    pub(crate) held: Mutex<HashMap<MessageQueue, Arc<HeldQueue>>>,
    pub(crate) ready: ReadyLine<HeldQueue>,
    /// For the retries that the broker does not take: a producer of the group that every client registers.
    pub(crate) retry_sender: Sender,
    /// Asks for a rebalance now.
    pub(crate) rebalance_soon: Notify,
    /// Stops balancing, pulling and periodic commits.
    pub(crate) intake: Shutdown,
    pub(crate) tasks: Tasks,
    pub(crate) closed: AtomicBool,
    /// Places for what brokers ask and this member works on in tasks of its own.
    pub(crate) asked_places: Arc<Semaphore>,
    /// Signalled when closing is complete.
    pub(crate) ended: Shutdown,
}

impl Group {
    /// The subscription to `topic`.
    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| &*subscription.topic == topic)
    }

    /// The queues held now.
    pub(crate) fn held(&self) -> Vec<Arc<HeldQueue>> {
        self.held.lock().values().cloned().collect()
    }

    /// Stops work on a queue and stores its offset. Its handlers may go on, but their results do not count any more.
    pub(crate) async fn release(&self, queue: &MessageQueue) {
        let Some(held) = self.held.lock().remove(queue) else {
            return;
        };
        held.dropped.cancel();
        held.buffer.lock().drop_waiting();
        if !offsets::store(self, &held).await {
            tracing::debug!(%queue, "released without its offset");
        }
        if self.settings.is_ordered {
            lock::unlock(self, &[held]).await;
        }
    }

    async fn end(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            self.ended.cancelled().await;
            return;
        }
        self.intake.cancel();
        self.ready.close();
        for held in self.held() {
            held.buffer.lock().drop_waiting();
        }
        // Pull loops end at once, workers with their handler.
        let all_ended = tokio::time::timeout(self.core.settings.shutdown_timeout, self.tasks.join()).await;
        if all_ended.is_err() {
            tracing::warn!(group = %self.name, "handlers still run at the end of the consumer");
        }
        let held: Vec<Arc<HeldQueue>> = self.held.lock().drain().map(|(_, held)| held).collect();
        let unstored = offsets::store_all(self, &held).await;
        if unstored > 0 {
            let queues = unstored;
            tracing::warn!(group = %self.name, queues, "offsets not stored: what was consumed last comes again");
        }
        if self.settings.is_ordered {
            lock::unlock(self, &held).await;
        }
        self.core.groups.remove_consumer(&self.name);
        self.core.leave(None, Some(&self.name)).await;
        self.ended.cancel();
        tracing::info!(group = %self.name, "consumer ended");
    }
}

impl ConsumerMember for Group {
    fn group(&self) -> &str {
        &self.name
    }

    fn report(&self) -> ConsumerReport {
        ConsumerReport {
            data: ConsumerData {
                group_name: self.name.clone(),
                consume_type: ConsumeType::Passively,
                message_model: match self.offset_file {
                    Some(_) => MessageModel::Broadcasting,
                    None => MessageModel::Clustering,
                },
                consume_from_where: match self.settings.from {
                    ConsumeFrom::Last => ConsumeFromWhere::LastOffset,
                    ConsumeFrom::First => ConsumeFromWhere::FirstOffset,
                    ConsumeFrom::Timestamp(_) => ConsumeFromWhere::Timestamp,
                },
                subscription_data_set: self.subscriptions.iter().map(Subscription::data).collect(),
                ..ConsumerData::default()
            },
        }
    }

    fn rebalance(&self) {
        self.rebalance_soon.notify_one();
    }

    fn reset(self: Arc<Self>, request: ResetRequest) {
        let Ok(place) = Arc::clone(&self.asked_places).try_acquire_owned() else {
            tracing::warn!(group = %self.name, "offset reset left out: brokers ask too much at the same time");
            return;
        };
        let group = Arc::clone(&self);
        self.tasks.spawn("offset reset", async move {
            let _place = place;
            for (queue, offset) in request.offsets {
                if offset < 0 || group.subscription(queue.topic()).is_none() {
                    tracing::warn!(%queue, offset, "offset reset left out: it is negative, or the topic is not consumed");
                    continue;
                }
                // The offset that the handlers earned goes first; the operator's word is the last.
                group.release(&queue).await;
                if let Err(error) = offsets::set(&group, &queue, offset).await {
                    tracing::warn!(%queue, offset, %error, "reset offset not stored");
                }
            }
            group.rebalance_soon.notify_one();
        });
    }

    fn asked(self: Arc<Self>, connection: &Arc<Connection>, request: Frame) {
        inspect::answer(&self, connection, request);
    }

    fn close(&self) -> Closing<'_> {
        Box::pin(self.end())
    }
}
