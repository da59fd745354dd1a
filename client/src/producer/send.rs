//! Attempts: the I/O of a send.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{EndTransactionResponse, JoinTransactionHeader, SendMessageHeader, SendMessageResponse};
use escrowmq_common::message::TransactionType;
use escrowmq_common::name::AUTO_CREATE_TOPIC;
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::profile::Safety;
use super::retry::{Attempts, Chances, RetryPolicy, Verdict};
use super::select::{self, Penalties};
use super::{HalfNeeds, Prepared, Profile, SendSettings};
use crate::core::{Core, refused};
use crate::error::{ASKING_SETTINGS, GREETING, RequestError, SendError};
use crate::gate::Gate;
use crate::heartbeat::{Force, are_ours, greet};
use crate::message::Message;
use crate::queue::MessageQueue;
use crate::route::{NEW_TOPIC_QUEUES, Route};
use crate::stats::{ProducerStats, SendCounts, attempts_of};
use crate::trace::{self, Sending};
use crate::transaction::Decision;

/// The level that the broker reached before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreLevel {
    /// Everything the broker is configured for: flushed if it flushes synchronously, replicated if it replicates.
    Full,
    /// Stored in the broker's memory; the flush was not done in time (code 10).
    FlushTimedOut,
    /// Stored on the master; no replica was there to take it (code 11).
    NoReplica,
    /// Stored on the master; no replica confirmed in time (code 12).
    ReplicaTimedOut,
}

impl fmt::Display for StoreLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreLevel::Full => "stored as the broker is configured",
            StoreLevel::FlushTimedOut => "not flushed in time",
            StoreLevel::NoReplica => "no replica was there",
            StoreLevel::ReplicaTimedOut => "no replica confirmed in time",
        })
    }
}

impl StoreLevel {
    fn of(code: i32) -> Option<StoreLevel> {
        match code {
            response::SUCCESS => Some(StoreLevel::Full),
            response::FLUSH_DISK_TIMEOUT => Some(StoreLevel::FlushTimedOut),
            response::SLAVE_NOT_AVAILABLE => Some(StoreLevel::NoReplica),
            response::FLUSH_SLAVE_TIMEOUT => Some(StoreLevel::ReplicaTimedOut),
            _ => None,
        }
    }

    /// The response code that says so.
    pub(crate) fn code(self) -> i32 {
        match self {
            StoreLevel::Full => response::SUCCESS,
            StoreLevel::FlushTimedOut => response::FLUSH_DISK_TIMEOUT,
            StoreLevel::NoReplica => response::SLAVE_NOT_AVAILABLE,
            StoreLevel::ReplicaTimedOut => response::FLUSH_SLAVE_TIMEOUT,
        }
    }
}

/// A message that a broker has stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SendResult {
    /// The unique id that the message carries; consumers see it as the message's id.
    pub message_id: String,
    /// The broker's own id: its address and the position in its log.
    pub offset_message_id: String,
    /// Where it was stored.
    pub queue: MessageQueue,
    /// Its number in that queue; of a delayed or half message the number in the place where it waits.
    pub queue_offset: i64,
    /// The transaction's id, as the broker gave it.
    pub transaction_id: Option<String>,
    /// The level that the broker reached before it answered.
    pub level: StoreLevel,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// An earlier attempt ended without an answer and may have stored the message as well, where a repeat is not recognised.
    pub possible_duplicate: bool,
    /// With it a timer message can be recalled before it is due.
    pub recall_handle: Option<String>,
    /// The region of the broker, if the message leaves records of the message trace.
    pub(crate) traced_in: Option<Arc<str>>,
}

/// Why a send did not succeed, seen from inside.
#[derive(Debug)]
pub(crate) enum SenderError {
    Send(SendError),
    /// The broker cannot confirm decisions, and the caller insists.
    Unconfirmable {
        addr: String,
    },
    /// The broker takes transactions of one message only.
    Single {
        addr: String,
    },
    /// The topic has no queue on the broker that holds the transaction.
    OtherBroker {
        topic: String,
        broker: String,
    },
    /// The transaction that the half was to join is decided.
    Decided {
        addr: String,
        settled: Decision,
        remark: String,
    },
}

impl SenderError {
    /// As the error of a message that is no half.
    pub(super) fn ordinary(self) -> SendError {
        match self {
            SenderError::Send(error) => error,
            other => unreachable!("only half messages end with {other:?}"),
        }
    }
}

impl From<SendError> for SenderError {
    fn from(error: SendError) -> SenderError {
        SenderError::Send(error)
    }
}

/// How one attempt failed.
pub(super) enum AttemptError {
    Failed(RequestError),
    /// No other attempt at this broker can succeed, and elsewhere is not looked for.
    Final(SenderError),
}

/// The content of one attempt.
struct Attempt<'a> {
    prepared: &'a Prepared,
    queue: &'a MessageQueue,
    half: Option<&'a HalfNeeds>,
}

/// The sending half of every producer.
#[derive(Debug)]
pub(crate) struct Sender {
    core: Arc<Core>,
    group: String,
    settings: SendSettings,
    penalties: Mutex<Penalties>,
    /// Advances per send; starts anywhere, so that producers that start together do not walk in step.
    turn: AtomicUsize,
    gate: Gate,
    closed: AtomicBool,
    counts: SendCounts,
    safety: Safety,
}

impl Sender {
    pub(crate) fn new(core: &Arc<Core>, group: String, settings: SendSettings) -> Sender {
        Sender {
            core: Arc::clone(core),
            turn: AtomicUsize::new(RandomState::new().hash_one(&group) as usize),
            gate: Gate::new(settings.in_flight_max),
            group,
            settings,
            penalties: Mutex::default(),
            closed: AtomicBool::new(false),
            counts: SendCounts::default(),
            safety: Safety::default(),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn settings(&self) -> &SendSettings {
        &self.settings
    }

    /// A place among the sends in flight.
    pub(crate) async fn enter(&self) -> Result<SemaphorePermit<'_>, SendError> {
        self.gate.enter().await.ok_or(SendError::ShutDown)
    }

    /// A place if there is one and the producer is not closing.
    pub(crate) fn enter_if_free(&self) -> Option<SemaphorePermit<'_>> {
        self.gate.enter_if_free()
    }

    /// Waits until it refuses newcomers.
    #[cfg(unix)]
    pub(crate) async fn closing(&self) {
        self.gate.closing().await;
    }

    /// Refuses newcomers and waits for those in flight. Answers whether this call was the first.
    pub(crate) async fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.gate.close().await;
        first
    }

    /// Sends one ordinary message.
    pub(crate) async fn send(&self, message: Message, pinned: Option<MessageQueue>) -> Result<SendResult, SendError> {
        let place = self.enter().await?;
        self.send_in(&place, message, pinned, self.settings.retry.deadline).await
    }

    /// Sends one ordinary message in a place that the caller holds, until this deadline of its own.
    pub(crate) async fn send_in(
        &self,
        _place: &SemaphorePermit<'_>,
        message: Message,
        pinned: Option<MessageQueue>,
        deadline: Duration,
    ) -> Result<SendResult, SendError> {
        let mut prepared = Prepared::new(message, &self.settings)?;
        let observed = Sending::begin(&self.core, &mut prepared, false);
        let ended = self.send_within(deadline, &prepared, pinned, None).instrument(observed.span()).await;
        observed.end(&self.core, &self.group, ended.as_ref());
        let sent = ended.map_err(SenderError::ordinary)?;
        self.settings.profile.accepts(sent.level, &sent.message_id, &sent.queue)?;
        Ok(sent)
    }

    pub(crate) fn stats(&self) -> ProducerStats {
        self.counts.stats(&self.group, self.gate.inside())
    }

    /// Sends what is prepared, with all the attempts that the policy allows.
    pub(crate) async fn send_prepared(
        &self,
        prepared: &Prepared,
        pinned: Option<MessageQueue>,
        half: Option<&HalfNeeds>,
    ) -> Result<SendResult, SenderError> {
        self.send_within(self.settings.retry.deadline, prepared, pinned, half).await
    }

    /// The same with a deadline of its own, and counted.
    pub(crate) async fn send_within(
        &self,
        deadline: Duration,
        prepared: &Prepared,
        pinned: Option<MessageQueue>,
        half: Option<&HalfNeeds>,
    ) -> Result<SendResult, SenderError> {
        let began = Instant::now();
        let ended = self.send_attempts(deadline, prepared, pinned, half).await;
        let (attempts, counted) = match &ended {
            Ok(sent) => (sent.attempts, Ok(())),
            Err(SenderError::Send(error)) => (attempts_of(error), Err(error.outcome_unknown())),
            Err(_) => (1, Err(false)),
        };
        self.counts.ended(began.elapsed(), attempts, counted);
        ended
    }

    async fn send_attempts(
        &self,
        deadline: Duration,
        prepared: &Prepared,
        pinned: Option<MessageQueue>,
        half: Option<&HalfNeeds>,
    ) -> Result<SendResult, SenderError> {
        let mut attempts = Attempts::new(RetryPolicy { deadline, ..self.settings.retry }, Instant::now());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last_queue: Option<MessageQueue> = None;
        let mut refresh_route = false;
        loop {
            attempts.begin();
            let mut elsewhere = false;
            let attempt = async {
                let route = self.route(&prepared.topic, refresh_route).await.map_err(AttemptError::Failed)?;
                let wanted = if attempts.stays() { last_queue.as_ref() } else { pinned.as_ref() };
                let chosen = self.choose(&route, turn, prepared, wanted, half, last_queue.as_ref()).await?;
                let queue = &*last_queue.insert(chosen);
                let is_free = pinned.is_none()
                    && prepared.sharding_key.is_none()
                    && half.is_none_or(|needs| needs.first.is_none());
                elsewhere = is_free && route.writable_elsewhere(queue.broker());
                let attempt = Attempt { prepared, queue, half };
                let addr = self.reach(&attempt).await?;
                Ok::<_, AttemptError>((attempt, addr))
            };
            // The steps before the request may take no longer than the send itself: their own times add up.
            let reached = tokio::time::timeout_at(attempts.ends(), attempt)
                .await
                .unwrap_or_else(|_| Err(AttemptError::Failed(RequestError::too_late("a broker", deadline))));
            let ended = match reached {
                Ok((attempt, addr)) => match attempts.patience(Instant::now()) {
                    // Sent now, it would be given up at once, and nobody would know what became of it.
                    Duration::ZERO => Err(AttemptError::Failed(RequestError::too_late(&addr, deadline))),
                    timeout => self.attempt(&attempt, &addr, timeout).await,
                },
                Err(failure) => Err(failure),
            };
            let failure = match ended {
                Ok(mut sent) => {
                    self.penalties.lock().clear(sent.queue.broker());
                    sent.attempts = attempts.made();
                    sent.possible_duplicate = attempts.maybe_twice();
                    return Ok(sent);
                }
                Err(AttemptError::Final(error)) if attempts.maybe_stored() => {
                    return Err(error.after_unknown(&prepared.message_id, attempts.made()));
                }
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Failed(failure)) => {
                    if let Some(queue) = &last_queue
                        && failure.blames_broker()
                    {
                        self.penalties.lock().add(queue.broker_shared(), Instant::now());
                    }
                    failure
                }
            };
            tracing::debug!(id = %prepared.message_id, attempt = attempts.made(), %failure, "send attempt failed");
            let chances = self.chances(elsewhere, last_queue.as_ref(), half, &failure, &attempts).await;
            match attempts.judge(&failure, chances, Instant::now()) {
                Verdict::Again { pause, refresh_route: refresh } => {
                    refresh_route = refresh;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Verdict::GiveUp => {
                    return Err(attempts.into_error(&prepared.message_id, failure).into());
                }
            }
        }
    }

    /// The circumstances of a failed attempt that decide about the next.
    async fn chances(
        &self,
        elsewhere: bool,
        queue: Option<&MessageQueue>,
        half: Option<&HalfNeeds>,
        failure: &RequestError,
        attempts: &Attempts,
    ) -> Chances {
        let Some(queue) = queue else { return Chances { elsewhere, ..Chances::default() } };
        // Ours recognise each half that is sent again, and were greeted before. A half in doubt never goes to another group:
        // another instance of the producer, which knows of one transaction only, would commit both. Of other messages it is asked
        // when it matters.
        let recognised = failure.outcome_unknown()
            && match half {
                Some(_) => self.core.routes.pass_on(queue.broker()),
                None => self.recognises(queue, attempts.patience(Instant::now())).await,
            };
        Chances { elsewhere, other_member: self.core.routes.has_way(queue.broker()), recognised }
    }

    /// Whether the topic has a duplicate window that is longer than a send may take, all attempts included. A broker that does
    /// not say so in time has none.
    async fn recognises(&self, queue: &MessageQueue, patience: Duration) -> bool {
        let asked = async {
            // The first send may be in doubt before the first heartbeat is answered.
            are_ours(&self.core, queue.broker()).await
                && self.core.routes.duplicate_window(&self.core, queue).await > self.settings.retry.deadline
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(false)
    }

    /// Whether the topic has a duplicate window. A broker that does not say so in time has none.
    pub(super) async fn has_duplicate_window(&self, queue: &MessageQueue) -> bool {
        let window = self.core.routes.duplicate_window(&self.core, queue);
        let window = tokio::time::timeout(self.settings.retry.attempt_timeout, window).await;
        window.is_ok_and(|window| !window.is_zero())
    }

    /// Sends one message without waiting for an answer.
    pub(crate) async fn send_oneway(&self, message: Message) -> Result<(), SendError> {
        if self.settings.profile == Profile::Strict {
            let reason = "Profile::Strict refuses one-way sends, which nobody confirms: use `send`, or another profile";
            return Err(SendError::invalid(reason));
        }
        let _place = self.enter().await?;
        let mut prepared = Prepared::new(message, &self.settings)?;
        let observed = Sending::begin(&self.core, &mut prepared, false);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let sent = async {
            let route = self.route(&prepared.topic, false).await?;
            let queue = self.pick(&route.writable, turn, &prepared, None)?;
            let addr = self.core.way_to(queue.broker(), &prepared.topic).await?;
            self.core.oneway(&addr, self.frame(&Attempt { prepared: &prepared, queue: &queue, half: None })).await
        };
        let deadline = self.settings.retry.deadline;
        let sent = tokio::time::timeout(deadline, sent.instrument(observed.span())).await;
        let sent = sent.unwrap_or_else(|_| Err(RequestError::too_late("a broker", deadline)));
        sent.map_err(|last| {
            let error = SendError::NotStored { attempts: 1, last };
            observed.failed("not_stored", &error);
            error
        })
    }

    /// The request that sends an ordinary message to this queue.
    pub(crate) fn frame_of(&self, prepared: &Prepared, queue: &MessageQueue) -> Frame {
        self.frame(&Attempt { prepared, queue, half: None })
    }

    pub(crate) async fn route(&self, topic: &str, refresh: bool) -> Result<Arc<Route>, RequestError> {
        if refresh { self.core.routes.refresh(topic, true).await } else { self.core.routes.for_sending(topic).await }
    }

    /// The queue of the next attempt: the one asked for, one beside the half that is to be joined, or any.
    async fn choose(
        &self,
        route: &Arc<Route>,
        turn: usize,
        prepared: &Prepared,
        pinned: Option<&MessageQueue>,
        half: Option<&HalfNeeds>,
        last: Option<&MessageQueue>,
    ) -> Result<MessageQueue, AttemptError> {
        if let Some(pinned) = pinned {
            return Ok(pinned.clone());
        }
        match half.and_then(|needs| needs.first.as_ref()) {
            Some(first) => self.choose_beside(first, Arc::clone(route), turn, prepared, last.is_some()).await,
            None => self.pick(&route.writable, turn, prepared, last).map_err(AttemptError::Failed),
        }
    }

    /// One of these queues: that of the sharding key, else the one whose turn it is.
    pub(super) fn pick(
        &self,
        queues: &[MessageQueue],
        turn: usize,
        prepared: &Prepared,
        last: Option<&MessageQueue>,
    ) -> Result<MessageQueue, RequestError> {
        let queue = match &prepared.sharding_key {
            Some(key) => select::select_by_key(queues, key),
            None => select::select(queues, turn, last, &self.penalties.lock(), Instant::now()),
        };
        queue.cloned().ok_or_else(|| RequestError::NoRoute { topic: prepared.topic.to_string() })
    }

    /// Where the request goes. Nothing of the message is sent, however this ends.
    async fn reach(&self, attempt: &Attempt<'_>) -> Result<Arc<str>, AttemptError> {
        let queue = attempt.queue;
        let way = self.core.way_to(queue.broker(), queue.topic()).await;
        let addr = way.map_err(AttemptError::Failed)?;
        if let Some(needs) = attempt.half {
            // Before the half is there: a broker that does not know the group could ask nobody about it.
            let greeted = greet(&self.core, &addr, Force::IfNeeded).await;
            let abilities = greeted.map_err(|error| AttemptError::Failed(error.before_sending(GREETING)))?;
            needs.suit(abilities, attempt.prepared, &addr).map_err(AttemptError::Final)?;
        } else if self.settings.profile == Profile::Strict {
            let asked = self.safety.of(&self.core, &addr).await;
            let safe = asked.map_err(|error| AttemptError::Failed(error.before_sending(ASKING_SETTINGS)))?;
            let unsafe_broker = |reason| SendError::UnsafeBroker { addr: addr.to_string(), reason };
            safe.map_err(|reason| AttemptError::Final(unsafe_broker(reason).into()))?;
        }
        Ok(addr)
    }

    /// The request and its answer.
    async fn attempt(&self, attempt: &Attempt<'_>, addr: &str, timeout: Duration) -> Result<SendResult, AttemptError> {
        let queue = attempt.queue;
        let answer = self.core.call(addr, self.frame(attempt), timeout).await.map_err(AttemptError::Failed)?;
        let Some(level) = StoreLevel::of(answer.code) else {
            if let Some(settled) = settled(attempt, &answer) {
                let (addr, remark) = (addr.to_owned(), answer.remark.unwrap_or_default());
                return Err(AttemptError::Final(SenderError::Decided { addr, settled, remark }));
            }
            return Err(AttemptError::Failed(refused(addr, answer)));
        };
        let sent: SendMessageResponse<'_> = match answer.header() {
            Ok(sent) => sent,
            Err(error) => {
                // A success that cannot be read: stored, and no attempt will tell more.
                let last = RequestError::malformed(addr, error);
                let message_id = attempt.prepared.message_id.clone();
                return Err(AttemptError::Final(SendError::OutcomeUnknown { message_id, attempts: 1, last }.into()));
            }
        };
        Ok(SendResult {
            message_id: attempt.prepared.message_id.clone(),
            offset_message_id: sent.msg_id.to_owned(),
            queue: MessageQueue::new(Arc::clone(&attempt.prepared.topic), queue.broker_shared(), sent.queue_id),
            queue_offset: sent.queue_offset,
            transaction_id: sent.transaction_id.map(str::to_owned),
            level,
            attempts: 1,
            possible_duplicate: false,
            recall_handle: sent.recall_handle.map(str::to_owned),
            traced_in: trace::region(&self.core, &sent),
        })
    }

    fn frame(&self, attempt: &Attempt<'_>) -> Frame {
        let (prepared, queue) = (attempt.prepared, attempt.queue);
        let sys_flag = match attempt.half {
            Some(_) => prepared.sys_flag.with_transaction(TransactionType::Prepared),
            None => prepared.sys_flag,
        };
        let header = SendMessageHeader {
            producer_group: &self.group,
            topic: &prepared.topic,
            default_topic: AUTO_CREATE_TOPIC,
            default_topic_queue_nums: NEW_TOPIC_QUEUES,
            queue_id: queue.id(),
            sys_flag: sys_flag.0,
            born_timestamp: clock::wall_ms(),
            flag: prepared.flag,
            properties: Some(&prepared.properties),
            reconsume_times: prepared.reconsume.map_or(0, |(times, _)| times),
            unit_mode: false,
            max_reconsume_times: prepared.reconsume.map(|(_, max)| max),
            batch: prepared.is_batch,
            broker_name: Some(queue.broker()),
        };
        let code = if prepared.is_batch { request::SEND_BATCH_MESSAGE } else { request::SEND_MESSAGE_V2 };
        let frame = Frame::request(code).with_header(&header).with_body(prepared.body.clone());
        match attempt.half.and_then(|needs| needs.first.as_ref()) {
            Some(first) => frame.with_header(&JoinTransactionHeader { transaction_first: Some(first.position) }),
            None => frame,
        }
    }
}

/// How the transaction that a half was to join was settled, if that is why the broker refused it.
fn settled(attempt: &Attempt<'_>, answer: &Frame) -> Option<Decision> {
    attempt.half?.first.as_ref()?;
    let told: EndTransactionResponse<'_> = answer.header().ok()?;
    (answer.code == response::ILLEGAL_OPERATION).then(|| Decision::from_wire(told.decision?)).flatten()
}
