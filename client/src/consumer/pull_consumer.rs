//! A consumer that is told which queues to read, and asked for messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::body::{ConsumeType, ConsumerData};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::TagFilter;
use escrowmq_common::remoting::Connection;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::control::ResetRequest;
use super::offsets;
use super::pull::{Pull, Pulled};
use super::start::ConsumeFrom;
use super::subscription::{Expression, Subscription};
use crate::client::Client;
use crate::core::Core;
use crate::error::{RequestError, StartError};
use crate::groups::{Closing, ConsumerMember};
use crate::heartbeat::{self, ConsumerReport};
use crate::limit;
use crate::message::MessageExt;
use crate::queue::MessageQueue;
use crate::stats::ConsumerStats;
use crate::trace;

/// The longest time that a broker is asked to hold one pull.
const HOLD_MAX: Duration = Duration::from_secs(15);
/// Before a pull goes to another member of a broker group.
const PAUSE_FAILED: Duration = Duration::from_millis(50);

/// Collects the settings of a [`PullConsumer`]. Made by [`Client::pull_consumer`](crate::Client::pull_consumer).
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct PullConsumerBuilder {
    client: Client,
    group: String,
    from: ConsumeFrom,
    pull_max: i32,
    tags: String,
}

impl PullConsumerBuilder {
    pub(crate) fn new(client: Client, group: String) -> PullConsumerBuilder {
        PullConsumerBuilder { client, group, from: ConsumeFrom::First, pull_max: 32, tags: "*".to_owned() }
    }

    /// Where to begin in a queue for which the group has stored no offset. Default [`ConsumeFrom::First`].
    pub fn consume_from(mut self, from: ConsumeFrom) -> PullConsumerBuilder {
        self.from = from;
        self
    }

    /// Messages per poll, at most. Default 32.
    pub fn pull_max(mut self, count: u32) -> PullConsumerBuilder {
        self.pull_max = count.max(1) as i32;
        self
    }

    /// Only messages with one of these tags: `A`, `A || B`. Default `*`, all.
    pub fn tags(mut self, tags: impl Into<String>) -> PullConsumerBuilder {
        self.tags = tags.into();
        self
    }

    /// Registers the consumer. It reads nothing until it is assigned queues.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for a group name or expression that cannot be, [`StartError::GroupInUse`] if this client
    /// already has a consumer of the group.
    pub async fn start(self) -> Result<PullConsumer, StartError> {
        limit::group(&self.group).map_err(|error| StartError::setting("group", error))?;
        let filter = TagFilter::parse(self.tags.trim()).map_err(|error| StartError::setting("tags", error))?;
        let core = Arc::clone(self.client.core());
        let shared = Arc::new(Shared {
            core: Arc::clone(&core),
            client: self.client,
            group: self.group,
            from: self.from,
            pull_max: self.pull_max,
            filter,
            positions: Mutex::default(),
            turn: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let member: Arc<dyn ConsumerMember> = Arc::<Shared>::clone(&shared);
        core.groups.add_consumer(&member)?;
        core.brokers.groups_changed();
        heartbeat::greet_all(&core).await;
        Ok(PullConsumer { shared })
    }
}

/// Reads the queues it is assigned, at the pace of its user. Cheap to clone.
///
/// There is no rebalance and no retry topic: two members that are assigned the same queue both read it, and a message is
/// done with when its user commits past it.
#[derive(Clone, Debug)]
pub struct PullConsumer {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    /// Keeps the client alive as long as its consumer.
    client: Client,
    group: String,
    from: ConsumeFrom,
    pull_max: i32,
    filter: TagFilter,
    /// The next offset to read of each assigned queue.
    positions: Mutex<BTreeMap<MessageQueue, i64>>,
    /// Which queue a poll looks at first.
    turn: AtomicUsize,
    closed: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullConsumer")
            .field("client", &self.client.id())
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl PullConsumer {
    /// The consumer's group.
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// The queues of `topic` that can be read now.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, RequestError> {
        Ok(self.shared.core.routes.for_reading(topic).await?.readable.iter().cloned().collect())
    }

    /// Reads these queues from now on, and no others. Each goes on where the group's stored offset says.
    pub async fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) -> Result<(), RequestError> {
        let mut positions = BTreeMap::new();
        for queue in queues {
            self.shared.core.routes.for_reading(queue.topic()).await?;
            let known = self.shared.positions.lock().get(&queue).copied();
            let start = match known {
                Some(position) => position,
                None => {
                    offsets::start_of(&self.shared.core, &self.shared.group, &queue, self.shared.from).await?.offset
                }
            };
            positions.insert(queue, start);
        }
        *self.shared.positions.lock() = positions;
        // The brokers of these queues may be new to this client, and pulls need the group known there.
        heartbeat::greet_all(&self.shared.core).await;
        Ok(())
    }

    /// The next offset to be read of an assigned queue.
    pub fn position(&self, queue: &MessageQueue) -> Option<i64> {
        self.shared.positions.lock().get(queue).copied()
    }

    /// Goes on at this offset of an assigned queue. Answers whether the queue is assigned.
    pub fn seek(&self, queue: &MessageQueue, offset: i64) -> bool {
        self.shared.positions.lock().get_mut(queue).map(|position| *position = offset).is_some()
    }

    /// The next messages of one of the assigned queues; waits up to `timeout` for some. Empty if none came in time.
    ///
    /// A poll whose future is dropped loses nothing: positions move when it returns. While a broker group has no leader the poll
    /// waits for the next one.
    pub async fn poll(&self, timeout: Duration) -> Result<Vec<MessageExt>, RequestError> {
        let ends = Instant::now() + timeout;
        loop {
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(RequestError::ShutDown);
            }
            let mut queues: Vec<(MessageQueue, i64)> =
                self.shared.positions.lock().iter().map(|(queue, position)| (queue.clone(), *position)).collect();
            if queues.is_empty() {
                return Ok(Vec::new());
            }
            let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed) % queues.len();
            queues.rotate_left(turn);
            let left = ends.saturating_duration_since(Instant::now());
            let hold = Some(left.min(HOLD_MAX)).filter(|left| !left.is_zero());
            // All at once: the first one with messages ends the wait, the others have moved nothing.
            let mut pulls: FuturesUnordered<_> =
                queues.iter().map(|(queue, position)| self.pull(queue, *position, hold)).collect();
            let (mut answered, mut failure) = (false, None);
            while let Some((queue, position, pulled)) = pulls.next().await {
                match pulled {
                    Ok(Pulled::Messages { messages, next, .. }) => {
                        self.advance(queue, position, next);
                        if !messages.is_empty() {
                            trace::received(&self.shared.core, &self.shared.group, &messages);
                            return Ok(messages);
                        }
                        answered = true;
                    }
                    Ok(Pulled::Moved { to }) => {
                        self.advance(queue, position, to);
                        answered = true;
                    }
                    // One broker that fails does not keep the messages of the others.
                    Err(error) => {
                        failure = Some((queue.broker(), error));
                        continue;
                    }
                }
                if hold.is_some() {
                    // This queue's filter passed over something, or its hold is over: look at all of them again.
                    break;
                }
            }
            if let Some((broker, failure)) = failure
                && !answered
            {
                let again = Instant::now() + PAUSE_FAILED;
                if again >= ends || !failure.misses_leader() || !self.shared.core.routes.has_way(broker) {
                    return Err(failure);
                }
                // Another member waits for the next leader for us.
                tokio::time::sleep_until(again).await;
                continue;
            }
            if Instant::now() >= ends {
                return Ok(Vec::new());
            }
        }
    }

    /// Stores the positions of all assigned queues as the group's offsets: everything that was polled is done with.
    pub async fn commit(&self) -> Result<(), RequestError> {
        let positions = self.shared.positions.lock().clone();
        for (queue, position) in positions {
            offsets::put(&self.shared.core, &self.shared.group, &queue, position).await?;
        }
        Ok(())
    }

    /// Tells the brokers that this member leaves. Stores nothing: commit first what is done with.
    pub async fn shutdown(&self) {
        self.shared.close().await;
    }

    async fn pull<'q>(
        &self,
        queue: &'q MessageQueue,
        position: i64,
        hold: Option<Duration>,
    ) -> (&'q MessageQueue, i64, Result<Pulled, RequestError>) {
        let subscription = Subscription {
            topic: queue.topic().into(),
            expression: Expression::Tags(self.shared.filter.clone()),
            version: 0,
        };
        let pull = Pull {
            group: &self.shared.group,
            queue,
            subscription: &subscription,
            offset: position,
            commit: None,
            count_max: self.shared.pull_max,
            hold,
            carry_subscription: true,
            replica: 0,
        };
        (queue, position, pull.run(&self.shared.core).await.map(|(pulled, _)| pulled))
    }

    /// Moves a position on, unless a seek moved it in the meantime.
    fn advance(&self, queue: &MessageQueue, from: i64, to: i64) {
        if let Some(position) = self.shared.positions.lock().get_mut(queue)
            && *position == from
        {
            *position = to;
        }
    }
}

impl ConsumerMember for Shared {
    fn group(&self) -> &str {
        &self.group
    }

    fn report(&self) -> ConsumerReport {
        // No subscriptions: each pull carries its own, and a set here would speak for other members of the group.
        let data = ConsumerData {
            group_name: self.group.clone(),
            consume_type: ConsumeType::Actively,
            ..ConsumerData::default()
        };
        ConsumerReport { data }
    }

    fn stats(&self) -> Option<ConsumerStats> {
        None
    }

    fn rebalance(&self) {}

    fn reset(self: Arc<Self>, request: ResetRequest) {
        let mut positions = self.positions.lock();
        for (queue, offset) in request.offsets {
            if let Some(position) = positions.get_mut(&queue) {
                *position = offset;
            }
        }
    }

    fn asked(self: Arc<Self>, connection: &Arc<Connection>, request: Frame) {
        let answer = Frame::response(&request, response::REQUEST_CODE_NOT_SUPPORTED);
        connection.reply(&answer.with_remark("a pull consumer has no handler and no buffers"));
    }

    fn close(&self) -> Closing<'_> {
        Box::pin(async {
            if !self.closed.swap(true, Ordering::AcqRel) {
                self.core.groups.remove_consumer(&self.group);
                self.core.leave(None, Some(&self.group)).await;
            }
        })
    }
}
