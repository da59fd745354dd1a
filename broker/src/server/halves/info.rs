//! Rows of the index as operators see them.

use std::collections::BTreeMap;

use bytes::BytesMut;
use escrowmq_common::body::{Act, Asked, DecisionInfo, Parked, TransactionAction, TransactionInfo, TransactionState};
use escrowmq_common::code::word;
use escrowmq_common::message::properties::{Properties, name};
use escrowmq_common::message::{MessageUnit, OffsetMessageId};
use escrowmq_common::some_lines;

use crate::broker::Broker;
use crate::index::{DecisionRow, HalfRow, history};
use crate::shard::ReadError;
use crate::terms::{Decision, HalfId, QueueId, QueueOffset, Stamp, When};
use crate::transaction::answers::{Answer, DECIDED_BY_ANSWER};

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Keys and tags.
    Listed,
    /// All properties.
    Whole,
}

/// Bytes that a half takes of what a page may cost.
pub(super) fn cost(row: &HalfRow) -> usize {
    let asked: usize = row.asked.iter().map(|asked| asked.client.len() + 64).sum();
    let acts: usize = row.acts.iter().map(|act| act.by.len() + act.why.len() + 64).sum();
    512 + row.length as usize + asked + acts + 16 * row.members.len()
}

/// A half without a decision. One whose message cannot be read is shown without what only the message says.
pub(super) fn undecided(broker: &Broker, row: &HalfRow, detail: Detail) -> TransactionInfo {
    let mut info = TransactionInfo {
        acts: row.acts.iter().map(act).collect(),
        asked: asked(broker, row.half, &row.asked),
        checks: row.checks,
        client_id: row.client.clone(),
        first_half: row.first_half.map(HalfId::get),
        members: row.members.iter().map(|half| half.get()).collect(),
        next_check_at: next_check(broker, row).map(Stamp::signed),
        parked: row.parked.map(|(reason, since)| Parked { at: since.signed(), reason: reason.name().to_owned() }),
        prepared_at: row.prepared_at.signed(),
        producer_group: row.group.clone(),
        size_bytes: row.length,
        state: if row.parked.is_some() { TransactionState::Parked } else { TransactionState::Open },
        transaction_id: row.unique_id.clone(),
        ..place(broker, row.half, row.counter, row.queue)
    };
    match row.when {
        When::Now => {}
        When::After(delay) => info.delay = Some(delay),
        When::At(time) => info.deliver_at = Some(time.signed()),
    }
    let mut unit = BytesMut::new();
    read(&mut info, broker.shard.half_unit(row, &mut unit), &unit, detail);
    info
}

/// A decided half. By whom and when it was sent is not kept beyond the decision.
pub(super) fn decided(broker: &Broker, half: HalfId, row: &DecisionRow) -> TransactionInfo {
    let mut info = TransactionInfo {
        decision: Some(DecisionInfo {
            at: row.at.signed(),
            operator: row.by.clone(),
            queue_offset: row.offset.map(QueueOffset::signed),
            reason: row.reason.clone(),
        }),
        acts: row.acts.iter().map(act).collect(),
        asked: asked(broker, half, &row.asked),
        checks: row.checks,
        first_half: row.first_half.map(HalfId::get),
        members: row.members.iter().map(|half| half.get()).collect(),
        producer_group: row.group.clone(),
        state: match row.decision {
            Decision::Commit => TransactionState::Committed,
            Decision::Rollback => TransactionState::RolledBack,
        },
        ..place(broker, half, row.counter, row.queue)
    };
    if row.reason == DECIDED_BY_ANSWER
        && let Some(last) = info.asked.last_mut()
    {
        let decision = match row.decision {
            Decision::Commit => word::COMMIT,
            Decision::Rollback => word::ROLLBACK,
        };
        last.answer = Some(decision.to_owned());
    }
    let queue = broker.shard.topics().queue(row.queue);
    // Of what nobody may see any more, nothing is shown here either.
    if let (Some(queue), Some(offset)) = (queue, row.offset)
        && let Ok(Some(entry)) = broker.shard.entry(&queue, offset)
    {
        let mut unit = BytesMut::new();
        info.size_bytes = entry.length;
        read(&mut info, broker.shard.unit(&queue, &entry, &mut unit), &unit, Detail::Whole);
    }
    info
}

fn asked(broker: &Broker, half: HalfId, asked: &[history::Asked]) -> Vec<Asked> {
    let times: Vec<Stamp> = asked.iter().map(|asked| asked.at).collect();
    let answers = broker.transactions.answers_to(half, &times);
    let with_answer = |(asked, answer): (&history::Asked, Option<Answer>)| Asked {
        at: asked.at.signed(),
        answer: answer.map(|answer| answer.name().to_owned()),
        client_id: asked.client.clone(),
    };
    asked.iter().zip(answers).map(with_answer).collect()
}

fn act(act: &history::Act) -> Act {
    Act {
        action: if act.parked { TransactionAction::Park } else { TransactionAction::Resume },
        at: act.at.signed(),
        operator: act.by.clone(),
        reason: act.why.clone(),
    }
}

/// Its ids, and the queue that it enters.
fn place(broker: &Broker, half: HalfId, counter: u64, queue: QueueId) -> TransactionInfo {
    let queue = broker.shard.topics().queue(queue);
    TransactionInfo {
        counter: counter.cast_signed(),
        half_id: half.get(),
        offset_msg_id: OffsetMessageId { host: broker.store_host, position: half.get().cast_signed() }.to_string(),
        queue_id: queue.as_ref().map_or(-1, |queue| queue.index.cast_signed()),
        topic: queue.map(|queue| queue.topic.to_string()).unwrap_or_default(),
        ..TransactionInfo::default()
    }
}

/// When the next check is due, if one is. The first one of most halves has no time of its own.
fn next_check(broker: &Broker, row: &HalfRow) -> Option<Stamp> {
    if row.parked.is_some() || row.first_half.is_some() {
        return None;
    }
    let first_after = u64::try_from(broker.config().transaction_time_out.as_millis()).unwrap_or(u64::MAX);
    Some(row.next_due.unwrap_or_else(|| row.prepared_at.saturating_add(first_after)))
}

/// Adds what the message says.
fn read(info: &mut TransactionInfo, unit: Result<(), ReadError>, bytes: &[u8], detail: Detail) {
    let unit = match unit.map_err(|error| error.to_string()) {
        Ok(()) => MessageUnit::decode(bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    let unit = match unit {
        Ok(unit) => unit,
        Err(error) => {
            some_lines!(warn, half = info.half_id, %error, "the message of a transaction cannot be shown");
            return;
        }
    };
    // The topic of a half that is parked because its topic was deleted.
    if info.topic.is_empty() {
        unit.topic().clone_into(&mut info.topic);
        info.queue_id = unit.queue_id();
    }
    let text = unit.properties_text();
    let properties = Properties::new(&text);
    info.keys = properties.get(name::KEYS).map(str::to_owned);
    info.tags = properties.get(name::TAGS).map(str::to_owned);
    if info.transaction_id.is_empty() {
        properties.get(name::UNIQUE_KEY).unwrap_or_default().clone_into(&mut info.transaction_id);
    }
    if detail == Detail::Whole {
        let all: BTreeMap<_, _> = properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        info.properties = Some(all);
    }
}
