//! The state that the tasks of one push consumer share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
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
use super::in_order::Order;
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
use crate::stats::{ConsumerStats, HandlerCounts};

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
    /// In an order, failures are retried in place and queues are locked at the broker.
    pub(crate) order: Order,
    /// A payload that cannot be read goes the way of other failures, not to the dead letters.
    pub(crate) retry_unreadable: bool,
    /// Every member reads everything; offsets lie in this file.
    pub(crate) broadcast: Option<PathBuf>,
}

/// What goes on in the lanes of a queue, or with messages that are bound to no lane.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// A handler is at work on these, or a failed message of theirs waits.
    pub(crate) busy: HashSet<u64>,
    /// Failures in a row of those that are tried again in place.
    failures: HashMap<u64, u32>,
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
    /// The queue is another member's, or begins at another offset: what its handlers achieve does not count any more.
    pub(crate) lost: AtomicBool,
    /// Signalled when a handler has ended.
    pub(crate) left: Notify,
    /// Nothing is pulled or handed out for the time being.
    pub(crate) paused: AtomicBool,
    /// The end of the queue as the last pull found it; -1 before the first.
    pub(crate) end: AtomicI64,
    /// The offset that the broker is known to have stored; -1 before the first.
    pub(crate) stored: AtomicI64,
    /// The replica that the broker suggested to read from.
    pub(crate) replica: AtomicI64,
    /// Ordered consumption: until when the broker's lock certainly holds.
    pub(crate) locked_until: Mutex<Option<Instant>>,
    pub(crate) lanes: Mutex<Lanes>,
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
            lost: AtomicBool::new(false),
            left: Notify::new(),
            paused: AtomicBool::new(false),
            end: AtomicI64::new(-1),
            lanes: Mutex::default(),
            in_line: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.is_cancelled()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Counts a failure. Answers how many there were in a row.
    pub(crate) fn failed(&self, lane: u64) -> u32 {
        let mut lanes = self.lanes.lock();
        let failures = lanes.failures.entry(lane).or_default();
        *failures += 1;
        *failures
    }

    /// Ends a row of failures.
    pub(crate) fn succeeded(&self, lane: u64) {
        self.lanes.lock().failures.remove(&lane);
    }

    /// Waits until no handler is at work, as long as the broker's lock certainly holds.
    async fn idle(&self) {
        let Some(until) = *self.locked_until.lock() else { return };
        let ended = async {
            loop {
                let left = self.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.buffer.lock().running() == 0 {
                    return;
                }
                left.await;
            }
        };
        // After that another member may have it anyway.
        let _ = tokio::time::timeout_at(until, ended).await;
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
    /// Queues of an ordered consumer that were lost, and whose handlers are still at work.
    pub(crate) leaving: Mutex<HashSet<MessageQueue>>,
    /// The queues that the user has chosen, instead of this member's share.
    pub(crate) assigned: Mutex<Option<BTreeSet<MessageQueue>>>,
    pub(crate) ready: ReadyLine<HeldQueue>,
    /// For the retries that the broker does not take: a producer of the group that every client registers.
    pub(crate) retry_sender: Sender,
    /// Asks for a rebalance now.
    pub(crate) rebalance_soon: Notify,
    /// Stops balancing, pulling and periodic commits.
    pub(crate) intake: Shutdown,
    pub(crate) tasks: Tasks,
    pub(crate) counts: HandlerCounts,
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

    /// Whether the user has chosen the queues of this member.
    pub(crate) fn is_assigned(&self) -> bool {
        self.assigned.lock().is_some()
    }

    /// Stops work on a queue and stores its offset. Its handlers may go on, but their results do not count any more; in ordered
    /// consumption they are waited for, so that nobody handles the next message beside them.
    pub(crate) async fn release(&self, queue: &MessageQueue) {
        let Some(held) = self.held.lock().remove(queue) else {
            return;
        };
        let is_ordered = self.settings.order.is_ordered();
        if is_ordered {
            self.leaving.lock().insert(queue.clone());
        } else {
            held.lost.store(true, Ordering::Release);
        }
        held.dropped.cancel();
        held.buffer.lock().drop_waiting();
        if is_ordered {
            held.idle().await;
            held.lost.store(true, Ordering::Release);
        }
        if !offsets::store(self, &held).await {
            tracing::debug!(%queue, "released without its offset");
        }
        if is_ordered {
            lock::unlock(self, &[held]).await;
            self.leaving.lock().remove(queue);
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
        if self.settings.order.is_ordered() {
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

    fn stats(&self) -> Option<ConsumerStats> {
        let held = self.held();
        let (mut waiting, mut running, mut lag) = (0, 0, 0);
        for held in &held {
            {
                let buffer = held.buffer.lock();
                waiting += buffer.waiting();
                running += buffer.running();
            }
            lag += held.lag(held.end.load(Ordering::Relaxed)).messages();
        }
        Some(self.counts.stats(&self.name, held.len(), (waiting, running), lag))
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
