//! Telling the broker what was decided, and reading what it made of it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use escrowmq_common::code::{remark, request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{EndTransactionHeader, EndTransactionResponse, ExtendTransactionHeader};
use tokio::time::Instant;

use super::{Decision, Durability, Half, Member, Outcome, TransactionError};
use crate::brokers::Abilities;
use crate::core::{Core, refused};
use crate::error::{GREETING, RequestError, code_is_retryable};
use crate::heartbeat::{Force, greet};
use crate::queue::MessageQueue;
use crate::trace;

/// How long a decision is tried, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecisionPolicy {
    /// The longest wait for one answer.
    pub(crate) attempt_timeout: Duration,
    /// The end of it all: of looking for the broker, of greeting it and of waiting for its answers together.
    pub(crate) deadline: Duration,
}

/// The time that one call has.
#[derive(Clone, Copy)]
struct Limits {
    policy: DecisionPolicy,
    ends: Instant,
}

impl Limits {
    fn from_now(policy: DecisionPolicy) -> Limits {
        Limits { policy, ends: Instant::now() + policy.deadline }
    }

    /// Does what comes before a request. It may take no longer than the call itself: its own times add up.
    async fn before_sending<T>(self, step: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
        let ended = tokio::time::timeout_at(self.ends, step).await;
        ended.unwrap_or_else(|_| Err(RequestError::too_late("a broker", self.policy.deadline)))
    }

    /// How long an answer may be awaited. Once nothing is left a request would be given up as soon as it is sent, and
    /// nobody would know what became of it: then it is not sent.
    fn patience(self, addr: &str) -> Result<Duration, RequestError> {
        match self.policy.attempt_timeout.min(self.ends.saturating_duration_since(Instant::now())) {
            Duration::ZERO => Err(RequestError::too_late(addr, self.policy.deadline)),
            patience => Ok(patience),
        }
    }
}

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whose decision it is, and about what.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The producer group.
    pub(super) group: &'a str,
    /// The transaction's halves, the first one first; never empty.
    pub(super) halves: &'a [Half],
}

impl Subject<'_> {
    /// The half that decisions are addressed to: they settle all of them.
    fn first(&self) -> &Half {
        self.halves.first().expect("a transaction without a half has nothing to decide")
    }

    fn transaction_id(&self) -> String {
        self.first().transaction_id.clone()
    }
}

/// Sends the decision and, where the broker confirms, waits until it is certain. Repeating it is safe: the broker keeps
/// the first decision and answers a repeat with the first one's outcome.
pub(super) async fn tell(
    core: &Core,
    subject: Subject<'_>,
    decision: Decision,
    remark: Option<String>,
    policy: DecisionPolicy,
) -> Result<Outcome, TransactionError> {
    let limits = Limits::from_now(policy);
    let mut pause = PAUSE_FIRST;
    // How the last attempt failed that the broker may have heard.
    let mut heard: Option<RequestError> = None;
    loop {
        let failure = match attempt(core, subject, decision, remark.clone(), limits).await {
            Ok(answered) => {
                if answered.is_ok() {
                    trace::decided(core, subject.group, subject.halves, decision);
                }
                return answered;
            }
            Err(failure) => failure,
        };
        let id = &subject.first().transaction_id;
        tracing::debug!(%id, ?decision, %failure, "decision not confirmed yet");
        if !decision.is_final() {
            // A courtesy: without it the broker asks all the same.
            return Ok(Outcome::Undecided);
        }
        let last = heard_last(&mut heard, failure);
        if !find_again(core, subject, limits, &mut pause).await {
            return Err(TransactionError::Unresolved { transaction_id: id.clone(), decision, last });
        }
    }
}

/// The failure to tell of: the last one that leaves the outcome unknown, if any does. A later attempt that was not sent takes
/// nothing back of an earlier one that was.
fn heard_last(heard: &mut Option<RequestError>, failure: RequestError) -> RequestError {
    if failure.outcome_unknown() { heard.insert(failure).clone() } else { heard.clone().unwrap_or(failure) }
}

/// Pauses before another attempt, and asks where the broker is if no member of its group is left to try. Answers whether there is
/// time for one.
async fn find_again(core: &Core, subject: Subject<'_>, limits: Limits, pause: &mut Duration) -> bool {
    let again = Instant::now() + *pause;
    *pause = (*pause * 2).min(PAUSE_MAX);
    if again >= limits.ends {
        return false;
    }
    let queue = &subject.first().queue;
    if !core.routes.has_way(queue.broker()) {
        // A failed refresh leaves what is known.
        let _ = tokio::time::timeout_at(limits.ends, core.routes.refresh(queue.topic(), false)).await;
    }
    tokio::time::sleep_until(again).await;
    Instant::now() < limits.ends
}

/// Asks the broker for more time, and waits until it is granted. While the broker has no leader it is asked again; other
/// failures end the call: who needs more time has some left.
pub(super) async fn extend(
    core: &Core,
    subject: Subject<'_>,
    retry_after: Duration,
    policy: DecisionPolicy,
) -> Result<(), TransactionError> {
    let limits = Limits::from_now(policy);
    let mut pause = PAUSE_FIRST;
    let decision = Decision::InProgress { retry_after };
    let mut heard = None;
    loop {
        let failure = match ask_for_time(core, subject, decision, limits).await {
            Ok(answered) => return answered,
            Err(failure) => failure,
        };
        let misses_leader = failure.misses_leader();
        let last = heard_last(&mut heard, failure);
        if !misses_leader || !find_again(core, subject, limits, &mut pause).await {
            return Err(TransactionError::Unresolved { transaction_id: subject.transaction_id(), decision, last });
        }
    }
}

/// One attempt to get more time; `Err` says nothing about the transaction.
async fn ask_for_time(
    core: &Core,
    subject: Subject<'_>,
    decision: Decision,
    limits: Limits,
) -> Result<Result<(), TransactionError>, RequestError> {
    let (addr, abilities) = broker_of(core, subject.first(), limits).await?;
    if !abilities.transactions {
        let what = "extend the time of a transaction without using up its checks";
        return Ok(Err(TransactionError::Unsupported { addr: addr.to_string(), what }));
    }
    let end = with_lease(end_frame(subject, decision, None), decision);
    let answer = core.call(&addr, end, limits.patience(&addr)?).await?;
    Ok(judge(&addr, subject, decision, answer)?.map(drop))
}

/// Where a decision on `half` goes, and what can be expected of the broker there.
async fn broker_of(core: &Core, half: &Half, limits: Limits) -> Result<(Arc<str>, Abilities), RequestError> {
    let found = async {
        let addr = core.way_to(half.queue.broker(), half.queue.topic()).await?;
        let greeted = greet(core, &addr, Force::IfNeeded).await;
        Ok((addr, greeted.map_err(|error| error.before_sending(GREETING))?))
    };
    limits.before_sending(found).await
}

/// One attempt; `Err` is worth another.
async fn attempt(
    core: &Core,
    subject: Subject<'_>,
    decision: Decision,
    remark: Option<String>,
    limits: Limits,
) -> Result<Result<Outcome, TransactionError>, RequestError> {
    let (addr, abilities) = broker_of(core, subject.first(), limits).await?;
    let mut end = end_frame(subject, decision, remark);
    // "Unknown" and "in progress" settle nothing, so there is nothing to wait for.
    if !decision.is_final() {
        if abilities.transactions {
            end = with_lease(end, decision);
        }
        limits.before_sending(core.oneway(&addr, end)).await?;
        return Ok(Ok(Outcome::Undecided));
    }
    if !abilities.confirms_decisions {
        // Waits for a connection if the one of the greeting is gone, and for nothing else.
        limits.before_sending(core.oneway(&addr, end)).await?;
        return Ok(Ok(Outcome::Unconfirmed));
    }
    let answer = core.call(&addr, end, limits.patience(&addr)?).await?;
    judge(&addr, subject, decision, answer)
}

fn end_frame(subject: Subject<'_>, decision: Decision, remark: Option<String>) -> Frame {
    let half = subject.first();
    let mut end = Frame::request(request::END_TRANSACTION).with_header(&EndTransactionHeader {
        producer_group: subject.group,
        tran_state_table_offset: half.table_offset,
        commit_log_offset: half.position,
        commit_or_rollback: decision.wire_type(),
        from_transaction_check: false,
        msg_id: Some(&half.message_id),
        transaction_id: Some(&half.transaction_id),
        topic: Some(half.queue.topic()),
        broker_name: Some(half.queue.broker()),
    });
    end.remark = remark;
    end
}

/// Adds the time that "in progress" asks for. Only for brokers that know it.
pub(super) fn with_lease(end: Frame, decision: Decision) -> Frame {
    let Decision::InProgress { retry_after } = decision else {
        return end;
    };
    let retry_after_millis = i64::try_from(retry_after.as_millis()).unwrap_or(i64::MAX);
    end.with_header(&ExtendTransactionHeader { retry_after_millis: Some(retry_after_millis) })
}

/// Reads the answer to an awaited decision.
fn judge(
    addr: &str,
    subject: Subject<'_>,
    decision: Decision,
    answer: Frame,
) -> Result<Result<Outcome, TransactionError>, RequestError> {
    let transaction_id = subject.transaction_id();
    match answer.code {
        response::SUCCESS => Ok(Ok(outcome(subject, decision, &answer))),
        response::ILLEGAL_OPERATION => {
            let told: Option<EndTransactionResponse<'_>> = answer.header().ok();
            let settled = told.as_ref().and_then(|told| Decision::from_wire(told.decision?));
            let decided_at = told.and_then(|told| Some(UNIX_EPOCH + millis(told.decided_at?)));
            let remark = answer.remark.unwrap_or_default();
            Ok(Err(match (decision, settled) {
                (Decision::InProgress { .. }, Some(settled)) => {
                    TransactionError::AlreadyDecided { transaction_id, settled, remark }
                }
                _ => TransactionError::OppositeDecision { transaction_id, decision, settled, decided_at, remark },
            }))
        }
        code if is_passing(code, answer.remark.as_deref().unwrap_or_default()) => Err(refused(addr, answer)),
        code => {
            let remark = answer.remark.unwrap_or_default();
            Ok(Err(TransactionError::DecisionRefused { transaction_id, decision, code, remark }))
        }
    }
}

/// The outcome in a success. Fields that are missing or cannot be read make it poorer, not less of a success.
fn outcome(subject: Subject<'_>, decision: Decision, answer: &Frame) -> Outcome {
    let told: Option<EndTransactionResponse<'_>> = answer.header().ok();
    let repeated = told.as_ref().is_some_and(|told| told.repeated);
    match decision {
        Decision::Commit => {
            let first = &subject.first().queue;
            let topic = told.as_ref().and_then(|told| told.topic).unwrap_or(first.topic());
            let id = told.as_ref().and_then(|told| told.queue_id).unwrap_or(first.id());
            Outcome::Committed {
                queue: MessageQueue::new(topic, first.broker_shared(), id),
                queue_offset: told.as_ref().and_then(|told| told.queue_offset),
                level: told.as_ref().and_then(|told| Durability::from_wire(told.store_level?)),
                repeated,
                members: members(subject, told.as_ref().and_then(|told| told.members).unwrap_or_default()),
            }
        }
        Decision::Rollback => Outcome::RolledBack { repeated },
        Decision::Unknown | Decision::InProgress { .. } => Outcome::Undecided,
    }
}

/// The places of the halves beyond the first, as `halfId:topic:queueId:queueOffset` items tell them. One that the broker does
/// not name is in the queue that it was prepared for.
fn members(subject: Subject<'_>, text: &str) -> Vec<Member> {
    let place = |half: &Half| {
        let mut items = text.split(';').map(|item| item.splitn(4, ':'));
        let mut item = items.find_map(|mut item| (item.next()?.parse() == Ok(half.position)).then_some(item))?;
        let (topic, id, offset) = (item.next()?, item.next()?.parse().ok()?, item.next()?.parse().ok());
        Some((MessageQueue::new(topic, half.queue.broker_shared(), id), offset))
    };
    let rest = subject.halves.iter().skip(1);
    rest.map(|half| {
        let (queue, queue_offset) = place(half).unwrap_or_else(|| (half.queue.clone(), None));
        Member { message_id: half.message_id.clone(), queue, queue_offset }
    })
    .collect()
}

fn millis(since_epoch: i64) -> Duration {
    Duration::from_millis(since_epoch.max(0) as u64)
}

/// How brokers say that there is nothing to decide: no such half message, or not this group's.
const REFUSALS: [&str; 4] = [remark::NO_SUCH_HALF, remark::WRONG_GROUP, remark::WRONG_COUNTER, remark::WRONG_POSITION];

/// Whether an answer says nothing about the half message, so that the decision is worth repeating.
fn is_passing(code: i32, remark: &str) -> bool {
    match code {
        // Everything that a broker did not expect, a lost leader among it, except where it says what is wrong.
        response::SYSTEM_ERROR => !REFUSALS.iter().any(|refusal| remark.starts_with(refusal)),
        // A broker that does not lead any more, or not yet.
        response::SLAVE_NOT_AVAILABLE => true,
        response::NO_PERMISSION | response::TOPIC_NOT_EXIST => false,
        code => code_is_retryable(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Labels;

    fn half(position: i64) -> Half {
        Half {
            transaction_id: "t".into(),
            message_id: format!("m{position}"),
            queue: MessageQueue::new("T", "a", 1),
            position,
            table_offset: 3,
            labels: Labels::default(),
        }
    }

    fn answer(code: i32) -> Frame {
        Frame::response(&Frame::request(request::END_TRANSACTION), code)
    }

    fn judged(decision: Decision, answer: Frame) -> Result<Result<Outcome, TransactionError>, RequestError> {
        judge("h:1", Subject { group: "P", halves: &[half(7), half(8), half(9)] }, decision, answer)
    }

    fn settled(decision: Decision, answer: Frame) -> Outcome {
        judged(decision, answer).expect("final").expect("settled")
    }

    #[test]
    fn a_confirmed_commit_names_its_places() {
        let told = answer(0)
            .with_field("queueOffset", 42)
            .with_field("queueId", 2)
            .with_field("topic", "T")
            .with_field("storeLevel", "flushed")
            .with_field("repeated", "true")
            .with_field("members", "9:U:0:5;8:V:3:");
        let member = |position: i64, topic: &str, id, queue_offset| Member {
            message_id: format!("m{position}"),
            queue: MessageQueue::new(topic, "a", id),
            queue_offset,
        };
        let expected = Outcome::Committed {
            queue: MessageQueue::new("T", "a", 2),
            queue_offset: Some(42),
            level: Some(Durability::Flushed),
            repeated: true,
            members: vec![member(8, "V", 3, None), member(9, "U", 0, Some(5))],
        };
        assert_eq!(settled(Decision::Commit, told), expected);
    }

    #[test]
    fn a_success_that_says_little_is_a_success() {
        for bare in [answer(0), answer(0).with_field("queueOffset", "many").with_field("members", "9;x")] {
            let Outcome::Committed { queue, queue_offset: None, level: None, repeated: false, members } =
                settled(Decision::Commit, bare)
            else {
                panic!("committed without details")
            };
            assert_eq!(queue, MessageQueue::new("T", "a", 1));
            assert_eq!(members.iter().map(|member| member.message_id.as_str()).collect::<Vec<_>>(), ["m8", "m9"]);
        }
        assert_eq!(settled(Decision::Rollback, answer(0)), Outcome::RolledBack { repeated: false });
    }

    #[test]
    fn the_opposite_decision_is_told_with_what_stands() {
        let opposite = || {
            let told = answer(604).with_remark("committed before").with_field("decision", "commit");
            told.with_field("decidedAt", 1_000)
        };
        let error = judged(Decision::Rollback, opposite()).expect("final").expect_err("opposite");
        let TransactionError::OppositeDecision { settled, decided_at, .. } = error else { panic!("{error}") };
        assert_eq!((settled, decided_at), (Some(Decision::Commit), Some(UNIX_EPOCH + Duration::from_secs(1))));
        let late = Decision::InProgress { retry_after: Duration::from_secs(1) };
        let error = judged(late, opposite()).expect("final").expect_err("too late");
        assert!(matches!(error, TransactionError::AlreadyDecided { settled: Decision::Commit, .. }), "{error}");
    }

    #[test]
    fn passing_codes_are_repeated_and_others_are_not() {
        for code in
            [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE, response::SLAVE_NOT_AVAILABLE, response::GO_AWAY]
        {
            assert!(judged(Decision::Commit, answer(code)).is_err(), "{code}");
        }
        for code in [response::NO_PERMISSION, response::TOPIC_NOT_EXIST, response::REQUEST_CODE_NOT_SUPPORTED] {
            let error = judged(Decision::Commit, answer(code)).expect("final").expect_err("refused");
            assert!(matches!(error, TransactionError::DecisionRefused { .. }), "{code}");
        }
    }

    #[test]
    fn a_system_error_is_final_only_where_it_says_why() {
        let unknown = answer(response::SYSTEM_ERROR).with_remark("the outcome is unknown");
        assert!(judged(Decision::Commit, unknown).is_err());
        let refused = answer(response::SYSTEM_ERROR).with_remark("The producer group wrong, want A, is B");
        let error = judged(Decision::Commit, refused).expect("final").expect_err("refused");
        assert!(matches!(error, TransactionError::DecisionRefused { .. }), "{error}");
    }

    #[test]
    fn only_what_is_in_progress_asks_for_time() {
        let end = |decision| {
            let frame = end_frame(Subject { group: "P", halves: &[half(7)] }, decision, None);
            with_lease(frame, decision).fields.get("retryAfterMillis").map(str::to_owned)
        };
        assert_eq!(end(Decision::Unknown), None);
        assert_eq!(end(Decision::Commit), None);
        let lease = |retry_after| end(Decision::InProgress { retry_after });
        assert_eq!(lease(Duration::from_millis(1_500)).as_deref(), Some("1500"));
        assert_eq!(lease(Duration::MAX), Some(i64::MAX.to_string()));
    }
}
