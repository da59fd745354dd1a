//! Settings of a push consumer, and its start.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use escrowmq_common::body::{CheckClientBody, Form, json};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::name::CLIENT_INNER_PRODUCER;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::group::{ASKED_MAX, ConsumerSettings, Group};
use super::handler::Handler;
use super::in_order::Order;
use super::offset_file::OffsetFile;
use super::process_queue::BufferLimits;
use super::push_consumer::PushConsumer;
use super::ready::ReadyLine;
use super::start::ConsumeFrom;
use super::subscription::{Expression, Subscription};
use super::verdict::IntoVerdict;
use super::{balance, dispatch, lock, offsets};
use crate::client::Client;
use crate::core::{Core, refused};
use crate::error::{RequestError, StartError};
use crate::groups::ConsumerMember;
use crate::heartbeat;
use crate::limit;
use crate::message::MessageExt;
use crate::producer::{SendSettings, Sender};
use crate::queue::MessageQueue;
use crate::stats::HandlerCounts;

/// What the builders of consumers collect.
#[derive(Debug)]
pub(super) struct Parts {
    client: Client,
    group: String,
    pub(super) settings: ConsumerSettings,
    pub(super) subscriptions: Vec<Result<Subscription, StartError>>,
    pub(super) assigned: Option<BTreeSet<MessageQueue>>,
}

/// Setters that all consumers with handlers or streams have.
macro_rules! consumer_setters {
    () => {
        /// Subscribes to the messages of `topic` with one of these tags: `*` for all, `A`, `A || B`.
        pub fn subscribe(mut self, topic: impl AsRef<str>, tags: impl AsRef<str>) -> Self {
            self.parts.subscriptions.push(Subscription::tags(topic.as_ref(), tags.as_ref()));
            self
        }

        /// Subscribes to the messages of `topic` that meet an SQL92 condition over their properties, for example
        /// `amount > 100 AND region IN ('north', 'south')`. The broker must have property filters switched on.
        pub fn subscribe_sql(mut self, topic: impl AsRef<str>, condition: impl AsRef<str>) -> Self {
            self.parts.subscriptions.push(Subscription::sql(topic.as_ref(), condition.as_ref()));
            self
        }

        /// Where to begin if the group has stored no offset yet. Default [`ConsumeFrom::Last`].
        pub fn consume_from(mut self, from: ConsumeFrom) -> Self {
            self.parts.settings.from = from;
            self
        }

        /// Messages per pull, at most. Default 32, which is also what most brokers give at most.
        pub fn pull_max(mut self, count: u32) -> Self {
            self.parts.settings.pull_max = count as i32;
            self
        }

        /// Attempts to consume a message, the first one not counted, before it becomes a dead letter (`%DLQ%<group>`).
        /// Default 16. Where a failed message is tried again in place (in an order, or in queues that were assigned), by default for
        /// ever; the first attempt counts there.
        pub fn attempts_max(mut self, count: u32) -> Self {
            self.parts.settings.attempts_max = Some(count);
            self
        }

        /// Messages and body bytes that wait or are handled, per queue, at most. Default 1000 messages, 100 MiB.
        pub fn buffer(mut self, messages: usize, bytes: usize) -> Self {
            let span = i64::try_from(messages).unwrap_or(i64::MAX).saturating_mul(2);
            let limits = &mut self.parts.settings.limits;
            *limits = BufferLimits { messages, bytes, span: limits.span.max(span) };
            self
        }

        /// How long the broker may hold a pull while there is nothing. Default 15 s.
        pub fn hold(mut self, hold: Duration) -> Self {
            self.parts.settings.hold = hold;
            self
        }

        /// How often offsets are stored. Default 5 s. After a crash at most the messages of this time are delivered again.
        pub fn commit_interval(mut self, interval: Duration) -> Self {
            self.parts.settings.commit_interval = interval;
            self
        }

        /// How often the share is computed again without a reason. Default 20 s.
        pub fn rebalance_interval(mut self, interval: Duration) -> Self {
            self.parts.settings.rebalance_interval = interval;
            self
        }

        /// Handles the messages of a queue one after the other, by one member of the group at a time. A failed one is tried again in
        /// place, after a second unless its [`Verdict`](crate::Verdict) says when, and holds up its queue until it succeeds or has used
        /// up its attempts.
        pub fn ordered(mut self) -> Self {
            self.parts.settings.order = Order::Queue;
            self
        }

        /// The same for the messages of one sharding key: while one waits, those of other keys go on.
        pub fn ordered_by_key(self) -> Self {
            self.ordered_by(|message| message.sharding_key().map(str::to_owned))
        }

        /// The same by a key of yours. A message without one is bound to no other. Messages of a key are in one queue only if their
        /// producer has chosen it by that key.
        pub fn ordered_by(mut self, key: impl Fn(&MessageExt) -> Option<String> + Send + Sync + 'static) -> Self {
            self.parts.settings.order = Order::Key(Arc::new(key));
            self
        }

        /// Whether a message whose payload cannot be read ([`Verdict::Unreadable`](crate::Verdict::Unreadable)) is tried again like one
        /// whose handler failed, for example while members of the group are of two versions. Default: it goes to the dead letters at
        /// once.
        pub fn retry_unreadable(mut self, retry: bool) -> Self {
            self.parts.settings.retry_unreadable = retry;
            self
        }
    };
}
pub(super) use consumer_setters;

/// Collects the settings of a [`PushConsumer`]. Made by [`Client::push_consumer`](crate::Client::push_consumer).
///
/// All members of a group must subscribe to the same topics with the same expressions: a broker keeps one set per group.
#[derive(Debug)]
#[must_use = "a builder does nothing until one of the `start` methods"]
pub struct PushConsumerBuilder {
    parts: Parts,
}

impl PushConsumerBuilder {
    pub(crate) fn new(client: Client, group: String) -> PushConsumerBuilder {
        PushConsumerBuilder { parts: Parts::new(client, group) }
    }

    consumer_setters!();

    /// Handlers that run at the same time. Default 20.
    pub fn concurrency(mut self, count: usize) -> PushConsumerBuilder {
        self.parts.settings.concurrency = count;
        self
    }

    /// Messages per call of a batch handler, at most. Default 1.
    pub fn batch_max(mut self, count: usize) -> PushConsumerBuilder {
        self.parts.settings.batch_max = count;
        self
    }

    /// A handler that takes longer counts as failed; its future is dropped. Default 15 min.
    pub fn handler_timeout(mut self, timeout: Duration) -> PushConsumerBuilder {
        self.parts.settings.handler_timeout = timeout;
        self
    }

    /// Every member of the group gets every message, instead of each message going to one member. This member's offsets
    /// lie in the file `offsets`, which must not be shared. A message whose handler fails is logged and passed.
    pub fn broadcast(mut self, offsets: impl Into<PathBuf>) -> PushConsumerBuilder {
        self.parts.settings.broadcast = Some(offsets.into());
        self
    }

    /// Starts to consume with a handler per message, which may end with whatever is [`IntoVerdict`]. `Ok(())` moves the offset on;
    /// an error or a panic lets the broker try the message again later, to any member of the group; a [`Verdict`](crate::Verdict) says
    /// more.
    ///
    /// # Errors
    ///
    /// [`StartError`]: a setting, name or expression that cannot be, a group that this client consumes already, or a
    /// broker that refuses a subscription.
    pub async fn start<F, R>(mut self, handler: F) -> Result<PushConsumer, StartError>
    where
        F: Fn(MessageExt) -> R + Send + Sync + 'static,
        R: Future + Send + 'static,
        R::Output: IntoVerdict,
    {
        self.parts.settings.batch_max = 1;
        self.parts.begin(Handler::single(handler)).await
    }

    /// Starts to consume with a handler per batch: up to `batch_max` messages of one queue, which succeed or fail together. If they
    /// are [`ordered_by`](PushConsumerBuilder::ordered_by) a key, all of a batch have the same.
    ///
    /// # Errors
    ///
    /// Like [`start`](PushConsumerBuilder::start).
    pub async fn start_batch<F, R>(self, handler: F) -> Result<PushConsumer, StartError>
    where
        F: Fn(Vec<MessageExt>) -> R + Send + Sync + 'static,
        R: Future + Send + 'static,
        R::Output: IntoVerdict,
    {
        self.parts.begin(Handler::batch(handler)).await
    }

    /// [`ordered`](PushConsumerBuilder::ordered) and [`start_batch`](PushConsumerBuilder::start_batch).
    ///
    /// # Errors
    ///
    /// Like [`start`](PushConsumerBuilder::start).
    pub async fn start_ordered<F, R>(self, handler: F) -> Result<PushConsumer, StartError>
    where
        F: Fn(Vec<MessageExt>) -> R + Send + Sync + 'static,
        R: Future + Send + 'static,
        R::Output: IntoVerdict,
    {
        self.ordered().start_batch(handler).await
    }

    /// Starts to consume with a [`tower`](https://docs.rs/tower) service per message, for example a handler under layers that bound
    /// its time or its rate. Feature `tower`.
    ///
    /// One service serves all handlers that run at the same time: they call it one after the other, each once it is ready.
    ///
    /// # Errors
    ///
    /// Like [`start`](PushConsumerBuilder::start).
    #[cfg(feature = "tower")]
    pub async fn start_service<S>(mut self, service: S) -> Result<PushConsumer, StartError>
    where
        S: tower_service::Service<MessageExt> + Send + 'static,
        S::Future: Send,
        Result<S::Response, S::Error>: IntoVerdict,
    {
        self.parts.settings.batch_max = 1;
        self.parts.begin(Handler::service(service)).await
    }
}

impl Parts {
    pub(super) fn new(client: Client, group: String) -> Parts {
        Parts {
            client,
            group,
            settings: ConsumerSettings {
                from: ConsumeFrom::default(),
                concurrency: 20,
                batch_max: 1,
                pull_max: 32,
                attempts_max: None,
                limits: BufferLimits::default(),
                handler_timeout: Duration::from_secs(15 * 60),
                hold: Duration::from_secs(15),
                commit_interval: Duration::from_secs(5),
                rebalance_interval: Duration::from_secs(20),
                order: Order::Free,
                retry_unreadable: false,
                broadcast: None,
            },
            subscriptions: Vec::new(),
            assigned: None,
        }
    }

    pub(super) async fn begin(mut self, handler: Handler) -> Result<PushConsumer, StartError> {
        limit::group(&self.group).map_err(|error| StartError::setting("group", error))?;
        let subscriptions = std::mem::take(&mut self.subscriptions);
        let mut subscriptions = subscriptions.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.check(&subscriptions)?;
        let settings = self.settings;
        let broadcast = settings.broadcast.clone();
        let offset_file = broadcast.map(OffsetFile::open).transpose();
        let offset_file = offset_file.map_err(|error| StartError::setting("broadcast", error))?;
        if offset_file.is_none() && self.assigned.is_none() {
            subscriptions.push(Subscription::retry(&self.group));
        }
        let core = Arc::clone(self.client.core());
        check_conditions(&core, &self.group, &subscriptions).await?;
        let group = Arc::new(Group {
            retry_sender: Sender::new(&core, CLIENT_INNER_PRODUCER.to_owned(), SendSettings::default()),
            name: self.group,
            subscriptions,
            handler,
            offset_file,
            held: Mutex::new(HashMap::new()),
            leaving: Mutex::new(HashSet::new()),
            assigned: Mutex::new(self.assigned),
            ready: ReadyLine::new(),
            rebalance_soon: Notify::new(),
            intake: core.shutdown.child(),
            tasks: Tasks::new(),
            counts: HandlerCounts::default(),
            closed: AtomicBool::new(false),
            started_ms: clock::wall_ms(),
            asked_places: Arc::new(Semaphore::new(ASKED_MAX)),
            ended: Shutdown::new(),
            settings,
            core: Arc::clone(&core),
        });
        let member: Arc<dyn ConsumerMember> = Arc::<Group>::clone(&group);
        core.groups.add_consumer(&member)?;
        core.brokers.groups_changed();
        // So that the first look at the members finds us among them.
        heartbeat::greet_all(&core).await;
        group.tasks.spawn("rebalance", balance::run(Arc::clone(&group)));
        group.tasks.spawn("offsets", offsets::run(Arc::clone(&group)));
        if group.settings.order.is_ordered() {
            group.tasks.spawn("queue locks", lock::run(Arc::clone(&group)));
        }
        for _ in 0..group.settings.concurrency {
            group.tasks.spawn("handler", dispatch::run(Arc::clone(&group)));
        }
        Ok(PushConsumer::new(self.client, group))
    }

    fn check(&self, subscriptions: &[Subscription]) -> Result<(), StartError> {
        let settings = &self.settings;
        if settings.order.is_ordered() && settings.broadcast.is_some() {
            return Err(StartError::setting("broadcast", "an ordered consumer cannot broadcast"));
        }
        if subscriptions.is_empty() {
            return Err(StartError::setting("subscribe", "no topic given"));
        }
        for (index, subscription) in subscriptions.iter().enumerate() {
            if subscriptions[..index].iter().any(|other| other.topic == subscription.topic) {
                return Err(StartError::setting("subscribe", format!("{} twice", subscription.topic)));
            }
        }
        for (setting, value) in [
            ("concurrency", settings.concurrency),
            ("batch_max", settings.batch_max),
            ("pull_max", settings.pull_max.max(0) as usize),
            ("buffer", settings.limits.messages.min(settings.limits.bytes)),
        ] {
            if value == 0 {
                return Err(StartError::setting(setting, "must be at least 1"));
            }
        }
        for (setting, value) in [
            ("handler_timeout", settings.handler_timeout),
            ("commit_interval", settings.commit_interval),
            ("rebalance_interval", settings.rebalance_interval),
        ] {
            if value.is_zero() {
                return Err(StartError::setting(setting, "must not be zero"));
            }
        }
        Ok(())
    }
}

/// Has a broker read each SQL condition, so that a mistake is told now and not by messages that never come.
async fn check_conditions(core: &Core, group: &str, subscriptions: &[Subscription]) -> Result<(), StartError> {
    for subscription in subscriptions {
        if !matches!(subscription.expression, Expression::Sql(_)) {
            continue;
        }
        let route = core.routes.for_reading(&subscription.topic).await?;
        let addr = route.brokers.keys().find_map(|broker| core.routes.reader(broker, 0));
        let Some((_, addr)) = addr else {
            return Err(RequestError::NoRoute { topic: subscription.topic.to_string() }.into());
        };
        let body = CheckClientBody {
            client_id: core.id.clone(),
            group: group.to_owned(),
            namespace: None,
            subscription_data: subscription.data(),
        };
        let ask = Frame::request(request::CHECK_CLIENT_CONFIG).with_body(json::to_bytes(&body, Form::Strict));
        let answer = core.call(&addr, ask, core.settings.request_timeout).await?;
        match answer.code {
            response::SUCCESS => {}
            response::SUBSCRIPTION_PARSE_FAILED | response::SYSTEM_ERROR => {
                let (topic, reason) = (subscription.topic.to_string(), answer.remark.unwrap_or_default());
                return Err(StartError::Subscription { topic, reason });
            }
            _ => return Err(refused(&addr, answer).into()),
        }
    }
    Ok(())
}
