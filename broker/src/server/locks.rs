//! Queue locks of ordered consumers.

use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{LockBatchBody, LockBatchResponse, MessageQueue};
use escrowmq_common::frame::Frame;

use crate::broker::Broker;
use crate::index::IndexError;
use crate::reply::Reply;
use crate::shard::{Admission, Command, Completion, Lock, Outcome};
use crate::terms::QueueId;

/// The queues of a request that exist here, each once.
fn known(broker: &Broker, queues: Vec<MessageQueue>) -> HashMap<QueueId, MessageQueue> {
    let id = |queue: &MessageQueue| {
        let topic = broker.shard.topics().get(&queue.topic)?;
        topic.queue(queue.queue_id).map(|queue| queue.id)
    };
    queues.into_iter().filter_map(|queue| Some((id(&queue)?, queue))).collect()
}

pub(super) fn lock(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let body: LockBatchBody = match from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return reply.refuse(error),
    };
    let mut queues = known(broker, body.mq_set);
    if let Err(error) = leave_renewed(broker, &body.consumer_group, &body.client_id, &mut queues) {
        return reply.refuse(error);
    }
    if queues.is_empty() {
        return held(reply, Vec::new());
    }
    let command = Command::Lock(Lock {
        group: &body.consumer_group,
        client: &body.client_id,
        life: broker.config().lock_life.as_millis() as u64,
        queues: queues.keys().copied().collect(),
    });
    submit(broker, &command, reply, move |reply, outcome| match outcome {
        Outcome::Locked(ids) => {
            let mut queues = queues;
            held(reply, ids.iter().filter_map(|id| queues.remove(id)).collect());
        }
        other => unexpected(reply, other),
    });
}

/// Leaves out the queues whose locks count as renewed when this member began to lead: its time may have leapt by a minute, and
/// the client that has one of them does not know.
fn leave_renewed(
    broker: &Broker,
    group: &str,
    client: &str,
    queues: &mut HashMap<QueueId, MessageQueue>,
) -> Result<(), IndexError> {
    let Some(since) = broker.time.renewed(broker.config().lock_life) else { return Ok(()) };
    for queue in queues.keys().copied().collect::<Vec<_>>() {
        if broker.shard.is_locked_by_other(group, queue, client, since)? {
            queues.remove(&queue);
        }
    }
    Ok(())
}

fn held(reply: Reply, queues: Vec<MessageQueue>) {
    reply.body(&to_bytes(&LockBatchResponse { lock_ok_mq_set: queues }, Form::Loose));
}

pub(super) fn unlock(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let body: LockBatchBody = match from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return reply.refuse(error),
    };
    let queues = known(broker, body.mq_set);
    if queues.is_empty() {
        return reply.ok();
    }
    let command = Command::Unlock(Lock {
        group: &body.consumer_group,
        client: &body.client_id,
        life: 0,
        queues: queues.keys().copied().collect(),
    });
    submit(broker, &command, reply, |reply, outcome| match outcome {
        Outcome::Done => reply.ok(),
        other => unexpected(reply, other),
    });
}

fn submit(broker: &Broker, command: &Command<'_>, reply: Reply, answer: impl FnOnce(Reply, Outcome) + Send + 'static) {
    let back = reply.clone();
    let completion: Completion = Box::new(move |result| match result {
        Ok(outcome) => answer(back, outcome),
        Err(error) => back.refuse(error),
    });
    // A lock that cannot be renewed makes its owner stop: it goes before new messages.
    if let Err((error, _)) = broker.shard.submit(command, Admission::Reserved, completion) {
        reply.refuse(error);
    }
}

fn unexpected(reply: Reply, outcome: Outcome) {
    match outcome {
        Outcome::Refused(refusal) => reply.refuse(refusal),
        Outcome::Published(_)
        | Outcome::Prepared(_)
        | Outcome::Settled(_)
        | Outcome::Locked(_)
        | Outcome::Handled(_)
        | Outcome::Done => unreachable!("locks are taken, given up or refused"),
    }
}
