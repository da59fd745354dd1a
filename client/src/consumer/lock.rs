//! Queue locks: what makes ordered consumption one member's at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{self, Form, LockBatchBody, LockBatchResponse, json};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::group::{Group, HeldQueue};
use crate::core::expect_success;
use crate::error::RequestError;
use crate::queue::MessageQueue;

/// How often all locks are renewed. The broker lets a lock live for 60 s.
const RENEW_INTERVAL: Duration = Duration::from_secs(20);
/// After a round in which a broker did not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a lock counts as held after the broker last said so: half of its life, so that this member has stopped long
/// before another can start.
const TRUSTED: Duration = Duration::from_secs(30);

/// Renews the locks of all held queues until the consumer ends.
pub(super) async fn run(group: Arc<Group>) {
    let mut pause = RENEW_INTERVAL;
    loop {
        tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let all_answered = tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            all = async { lock(&group, &group.held()).await } => all,
        };
        pause = if all_answered { RENEW_INTERVAL } else { RETRY_INTERVAL };
    }
}

/// Tries to lock the queues, one request per broker; notes on each until when its lock is trusted. Answers whether all brokers
/// answered.
pub(super) async fn lock(group: &Group, held: &[Arc<HeldQueue>]) -> bool {
    let answered = join_all(by_broker(held).into_iter().map(|(broker, held)| async move {
        // Counted from before the request left: the broker's life of the lock began no earlier.
        let until = Instant::now() + TRUSTED;
        match ask(group, broker, &held, request::LOCK_BATCH_MQ).await {
            Ok(locked) => {
                for held in held {
                    let is_locked = locked.contains(&held.queue);
                    *held.locked_until.lock() = is_locked.then_some(until);
                    if is_locked && held.buffer.lock().waiting() > 0 {
                        group.ready.push(held);
                    }
                    if is_locked {
                        held.room.notify_one();
                    }
                }
                return true;
            }
            Err(error) if error.is_outage() => {}
            Err(error) => tracing::warn!(broker, %error, "queues not locked"),
        }
        false
    }));
    answered.await.into_iter().all(|answered| answered)
}

/// Gives the locks back.
pub(super) async fn unlock(group: &Group, held: &[Arc<HeldQueue>]) {
    join_all(by_broker(held).into_iter().map(|(broker, held)| async move {
        if let Err(error) = ask(group, broker, &held, request::UNLOCK_BATCH_MQ).await {
            tracing::debug!(broker, %error, "queues not unlocked; their locks expire");
        }
    }))
    .await;
}

fn by_broker(held: &[Arc<HeldQueue>]) -> HashMap<&str, Vec<&Arc<HeldQueue>>> {
    let mut brokers: HashMap<&str, Vec<&Arc<HeldQueue>>> = HashMap::new();
    for held in held {
        brokers.entry(held.queue.broker()).or_default().push(held);
    }
    brokers
}

async fn ask(
    group: &Group,
    broker: &str,
    held: &[&Arc<HeldQueue>],
    code: i32,
) -> Result<Vec<MessageQueue>, RequestError> {
    let queues =
        held.iter().map(|held| body::MessageQueue::new(held.queue.topic(), held.queue.broker(), held.queue.id()));
    let batch = LockBatchBody {
        consumer_group: group.name.clone(),
        client_id: group.core.id.clone(),
        mq_set: queues.collect(),
        ..LockBatchBody::default()
    };
    let topic = held.first().map_or("", |held| held.queue.topic());
    let ask = Frame::request(code).with_body(json::to_bytes(&batch, Form::Strict));
    let (addr, answer) = group.core.ask(broker, topic, &ask).await?;
    let answer = expect_success(&addr, answer)?;
    if answer.body.is_empty() {
        return Ok(Vec::new());
    }
    let locked: LockBatchResponse =
        json::from_slice(&answer.body).map_err(|error| RequestError::malformed(&addr, error))?;
    let queues = locked.lock_ok_mq_set.into_iter();
    Ok(queues.map(|queue| MessageQueue::new(queue.topic, queue.broker_name, queue.queue_id)).collect())
}
