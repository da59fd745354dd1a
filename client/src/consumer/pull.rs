//! The pull loop of one queue, and the pull itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{PullMessageHeader, PullMessageResponse};
use escrowmq_common::message::decode_units;
use tokio::time::Instant;

use super::group::{Group, HeldQueue};
use super::offsets;
use super::subscription::Subscription;
use crate::core::{Core, refused};
use crate::error::RequestError;
use crate::heartbeat::{Force, greet};
use crate::message::MessageExt;
use crate::queue::MessageQueue;
use crate::route::MASTER;

/// Most bytes that a broker may put into one answer.
const PULL_BYTES_MAX: i32 = 256 * 1024;
/// Bytes of unfolded bodies after which the rest of an answer is pulled again.
const PLAIN_BYTES_MAX: usize = 64 << 20;
/// How much longer than the broker's hold the answer is waited for.
const HOLD_MARGIN: Duration = Duration::from_secs(15);
/// After a failed pull; after one that hit the broker's flow control; after an offset that the broker moved.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
const PAUSE_FLOW: Duration = Duration::from_millis(20);
const PAUSE_MOVED: Duration = Duration::from_secs(1);
/// After an answer that brought nothing and came sooner than [`AT_ONCE`], as a broker under pressure answers a pull that it
/// would have held; it doubles with each, up to [`PAUSE_FAILED`].
const PAUSE_AT_ONCE: Duration = Duration::from_millis(20);
const AT_ONCE: Duration = Duration::from_millis(100);

/// The result of a pull.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// Messages, perhaps none, and where to go on.
    Messages {
        /// In queue order.
        messages: Vec<MessageExt>,
        /// The next offset to pull from.
        next: i64,
        /// The end of the queue.
        end: i64,
    },
    /// The offset is outside of what the broker has; it names one inside.
    Moved {
        /// That one.
        to: i64,
    },
}

/// One pull.
pub(crate) struct Pull<'a> {
    pub(crate) group: &'a str,
    pub(crate) queue: &'a MessageQueue,
    pub(crate) subscription: &'a Subscription,
    pub(crate) offset: i64,
    /// To be stored along the way.
    pub(crate) commit: Option<i64>,
    pub(crate) count_max: i32,
    /// How long the broker may hold the request while there is nothing.
    pub(crate) hold: Option<Duration>,
    /// The broker does not know the subscription from a heartbeat.
    pub(crate) carry_subscription: bool,
    /// The replica to read from.
    pub(crate) replica: i64,
}

impl Pull<'_> {
    /// Does it. Answers also which replica the broker suggests for the next one.
    pub(crate) async fn run(&self, core: &Core) -> Result<(Pulled, i64), RequestError> {
        let (replica, addr) = match core.routes.reader(self.queue.broker(), self.replica) {
            Some(found) => found,
            None => (MASTER, core.way_to(self.queue.broker(), self.queue.topic()).await?),
        };
        let timeout = self.hold.map_or(core.settings.request_timeout, |hold| hold + HOLD_MARGIN);
        let answer = core.call(&addr, self.frame(replica), timeout).await?;
        let read = |answer: &Frame| -> Result<PullMessageResponse, RequestError> {
            let header: PullMessageResponse = answer.header().map_err(|error| RequestError::malformed(&addr, error))?;
            // The offset is gone on from, and stored: one that is not there must not count as the queue's beginning.
            let next = answer.fields.get("nextBeginOffset").map(|_| header.next_begin_offset);
            match next.filter(|next| (0..i64::MAX).contains(next)) {
                Some(_) => Ok(header),
                None => Err(RequestError::malformed(&addr, format!("no offset to go on from: {next:?}"))),
            }
        };
        match answer.code {
            response::SUCCESS => {
                let header = read(&answer)?;
                let (messages, next) = self.messages(answer, &addr, header.next_begin_offset)?;
                Ok((Pulled::Messages { messages, next, end: header.max_offset }, header.suggest_which_broker_id))
            }
            response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY => {
                let header = read(&answer)?;
                let pulled =
                    Pulled::Messages { messages: Vec::new(), next: header.next_begin_offset, end: header.max_offset };
                Ok((pulled, header.suggest_which_broker_id))
            }
            response::PULL_OFFSET_MOVED => {
                let header = read(&answer)?;
                Ok((Pulled::Moved { to: header.next_begin_offset }, header.suggest_which_broker_id))
            }
            _ => Err(refused(&addr, answer)),
        }
    }

    /// The messages of an answer that this subscription wants, and where to go on. A unit that cannot be read fails the pull:
    /// passing over it would lose the message. Bodies may unfold to much more than the answer had: what is too much is left
    /// to the next pull.
    fn messages(&self, answer: Frame, addr: &str, next: i64) -> Result<(Vec<MessageExt>, i64), RequestError> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        for unit in decode_units(answer.body) {
            let unit = unit.map_err(|error| RequestError::malformed(addr, error))?;
            let offset = unit.queue_offset;
            if offset < 0 || offset >= next {
                let reason = format!("a message has offset {offset}, and the next one is {next}");
                return Err(RequestError::malformed(addr, reason));
            }
            let message = MessageExt::from_queue(unit, self.queue.clone());
            bytes += message.body().len();
            if self.subscription.wants(&message) {
                messages.push(message);
            }
            if bytes >= PLAIN_BYTES_MAX {
                return Ok((messages, offset + 1));
            }
        }
        Ok((messages, next))
    }

    fn frame(&self, replica: i64) -> Frame {
        // Offsets are the master's business.
        let commit = self.commit.filter(|_| replica == MASTER);
        let bits = [
            (commit.is_some(), PullMessageHeader::COMMIT),
            (self.hold.is_some(), PullMessageHeader::MAY_HOLD),
            (self.carry_subscription, PullMessageHeader::SUBSCRIPTION),
        ];
        let text = self.carry_subscription.then(|| self.subscription.text());
        let header = PullMessageHeader {
            consumer_group: self.group,
            topic: self.queue.topic(),
            queue_id: self.queue.id(),
            queue_offset: self.offset,
            max_msg_nums: self.count_max,
            sys_flag: bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum(),
            commit_offset: commit.unwrap_or(0),
            suspend_timeout_millis: self.hold.map_or(0, |hold| hold.as_millis() as i64),
            subscription: text.as_deref(),
            sub_version: self.subscription.version,
            expression_type: Some(self.subscription.language()),
            max_msg_bytes: Some(PULL_BYTES_MAX),
            request_source: None,
            proxy_forward_client_id: None,
            broker_name: Some(self.queue.broker()),
        };
        Frame::request(request::PULL_MESSAGE).with_header(&header)
    }
}

/// Pulls a held queue until it is dropped.
pub(super) async fn run(group: Arc<Group>, held: Arc<HeldQueue>, start: i64) {
    let mut next = start;
    let dropped = held.dropped.cancelled();
    tokio::pin!(dropped);
    let mut failures: u32 = 0;
    let mut at_once = Duration::ZERO;
    loop {
        let mut asked = Instant::now();
        let pulled = tokio::select! {
            biased;
            () = &mut dropped => return,
            pulled = async {
                room(&group, &held).await;
                asked = Instant::now();
                pull(&group, &held, next).await
            } => pulled,
        };
        let pause = match pulled {
            Ok(Pulled::Messages { messages, next: to, end }) => {
                failures = 0;
                held.end.store(end, Ordering::Relaxed);
                let arrived = !messages.is_empty();
                let brought_nothing = !arrived && to <= next;
                next = next.max(to);
                held.buffer.lock().put(messages, next);
                if arrived {
                    group.ready.push(&held);
                }
                if !brought_nothing || asked.elapsed() >= AT_ONCE.min(group.settings.hold) {
                    at_once = Duration::ZERO;
                    continue;
                }
                at_once = (at_once * 2).clamp(PAUSE_AT_ONCE, PAUSE_FAILED);
                at_once
            }
            Ok(Pulled::Moved { to }) => {
                tracing::warn!(queue = %held.queue, from = next, to, "offset moved by the broker");
                moved(&group, &held, to).await;
                return;
            }
            Err(error) => {
                // A lasting failure is logged when it begins, and then ever more rarely.
                failures += 1;
                if failures.is_power_of_two() && !error.is_outage() {
                    tracing::warn!(queue = %held.queue, failures, %error, "pull failed");
                }
                recover(&group, &held, &error, failures).await
            }
        };
        tokio::select! {
            biased;
            () = &mut dropped => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits until the buffer takes another answer, and in ordered consumption until the queue is locked.
async fn room(group: &Group, held: &HeldQueue) {
    loop {
        let wait = held.room.notified();
        let waits = held.is_paused() || group.settings.order.is_ordered() && !held.is_locked();
        if !waits && !held.buffer.lock().is_full(group.settings.limits) {
            return;
        }
        // A lock is lost by time alone, so nobody signals that; everything else does.
        let _ = tokio::time::timeout(Duration::from_secs(1), wait).await;
    }
}

async fn pull(group: &Group, held: &HeldQueue, next: i64) -> Result<Pulled, RequestError> {
    let subscription = group.subscription(held.queue.topic()).expect("only subscribed topics are balanced");
    // After a reconnect the broker does not know the group yet and would refuse.
    if let Some((_, addr)) = group.core.routes.reader(held.queue.broker(), held.replica.load(Ordering::Relaxed)) {
        greet(&group.core, &addr, Force::IfNeeded).await?;
    }
    let committable = held.buffer.lock().committable();
    let pull = Pull {
        group: &group.name,
        queue: &held.queue,
        subscription,
        offset: next,
        commit: Some(committable).filter(|offset| *offset > 0 && group.offset_file.is_none()),
        count_max: group.settings.pull_max,
        hold: Some(group.settings.hold),
        carry_subscription: false,
        replica: held.replica.load(Ordering::Relaxed),
    };
    let (pulled, replica) = pull.run(&group.core).await?;
    held.replica.store(replica, Ordering::Relaxed);
    Ok(pulled)
}

/// Does what may cure a failed pull, which was this many in a row. Answers how long to wait before the next.
async fn recover(group: &Group, held: &HeldQueue, error: &RequestError, failures: u32) -> Duration {
    match error {
        RequestError::Refused { code: response::FLOW_CONTROL, .. } => return PAUSE_FLOW,
        RequestError::Refused { addr, code, .. } => {
            // The broker lost sight of the group: tell it who we are.
            let unknown = [
                response::SUBSCRIPTION_NOT_EXIST,
                response::SUBSCRIPTION_NOT_LATEST,
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                response::FILTER_DATA_NOT_EXIST,
                response::FILTER_DATA_NOT_LATEST,
            ];
            if unknown.contains(code) {
                let _ = greet(&group.core, addr, Force::Always).await;
            }
        }
        _ => {}
    }
    if !error.misses_leader() {
        return PAUSE_FAILED;
    }
    held.replica.store(MASTER, Ordering::Relaxed);
    if group.core.routes.has_way(held.queue.broker()) {
        // Another member waits for the next leader for us. None of them may be asked in a storm.
        return PAUSE_AT_ONCE.saturating_mul(1 << failures.min(6)).min(PAUSE_FAILED);
    }
    if error.is_outage() {
        let _ = group.core.routes.refresh(held.queue.topic(), false).await;
    }
    PAUSE_FAILED
}

/// The broker says that the offset is not one of its: stores the one that it names, and takes the queue again from there.
async fn moved(group: &Arc<Group>, held: &Arc<HeldQueue>, to: i64) {
    // An answer to a message that is out would count for an offset that is no longer this queue's.
    held.lost.store(true, Ordering::Release);
    held.dropped.cancel();
    held.buffer.lock().drop_waiting();
    tokio::time::sleep(PAUSE_MOVED).await;
    if let Err(error) = offsets::set(group, &held.queue, to).await {
        tracing::warn!(queue = %held.queue, offset = to, %error, "moved offset not stored");
    }
    let mut all = group.held.lock();
    if all.get(&held.queue).is_some_and(|current| Arc::ptr_eq(current, held)) {
        all.remove(&held.queue);
    }
    drop(all);
    group.rebalance_soon.notify_one();
}
