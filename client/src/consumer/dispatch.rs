//! The workers: from the line of ready queues through the handler to the offset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::group::{Group, HeldQueue};
use super::handler::Handled;
use super::retry;
use crate::message::MessageExt;

/// In ordered consumption, before the failed head of a queue is tried again.
const PAUSE_ORDERED: Duration = Duration::from_secs(1);
/// Before messages are tried again that the broker did not take back.
const PAUSE_NOT_TAKEN: Duration = Duration::from_secs(5);

/// Handles messages until the line closes.
pub(super) async fn run(group: Arc<Group>) {
    while let Some(held) = group.ready.next().await {
        if held.is_dropped() {
            continue;
        }
        if group.settings.is_ordered {
            ordered(&group, &held).await;
        } else {
            concurrent(&group, &held).await;
        }
        held.room.notify_one();
    }
}

/// One batch of a queue, while other workers may handle the next one.
async fn concurrent(group: &Arc<Group>, held: &Arc<HeldQueue>) {
    let (batch, more) = {
        let mut buffer = held.buffer.lock();
        (buffer.take(group.settings.batch_max), buffer.waiting() > 0)
    };
    if more {
        group.ready.push(held);
    }
    if batch.is_empty() {
        return;
    }
    let offsets: Vec<i64> = batch.iter().map(MessageExt::queue_offset).collect();
    match group.handler.handle(batch.clone(), group.settings.handler_timeout).await {
        Handled::Consumed => held.buffer.lock().finish(offsets),
        Handled::Failed(reason) => {
            tracing::warn!(queue = %held.queue, ?offsets, reason, "handler failed");
            give_up(group, held, batch).await;
        }
    }
}

/// Hands failed messages to the broker; those that it does not take are tried again here, later.
async fn give_up(group: &Arc<Group>, held: &Arc<HeldQueue>, batch: Vec<MessageExt>) {
    // The queue's next owner gets them anyway.
    if held.is_dropped() {
        return;
    }
    if group.offset_file.is_some() {
        // The other members have had it too; nobody takes it back for one of them.
        held.buffer.lock().finish(batch.iter().map(MessageExt::queue_offset));
        return;
    }
    let mut kept = Vec::new();
    for message in batch {
        if retry::hand_over(group, &message).await {
            held.buffer.lock().finish([message.queue_offset()]);
        } else {
            kept.push(message);
        }
    }
    if kept.is_empty() {
        return;
    }
    let (group, held) = (Arc::clone(group), Arc::clone(held));
    let tasks = group.tasks.clone();
    tasks.spawn("retry later", async move {
        if waits(&group, &held, PAUSE_NOT_TAKEN).await {
            held.buffer.lock().give_back(kept);
            group.ready.push(&held);
        }
    });
}

/// The head of a queue, alone and in order.
async fn ordered(group: &Arc<Group>, held: &Arc<HeldQueue>) {
    // A push of the queue while a worker has it relies on that worker to look again.
    if held.busy.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut again_after = None;
    if held.is_locked() {
        let batch = held.buffer.lock().take(group.settings.batch_max);
        if !batch.is_empty() {
            let offsets: Vec<i64> = batch.iter().map(MessageExt::queue_offset).collect();
            match group.handler.handle(batch.clone(), group.settings.handler_timeout).await {
                Handled::Consumed => {
                    held.failures.store(0, Ordering::Release);
                    held.buffer.lock().finish(offsets);
                }
                Handled::Failed(reason) => {
                    let failures = held.failures.fetch_add(1, Ordering::AcqRel) + 1;
                    tracing::warn!(queue = %held.queue, ?offsets, failures, reason, "handler failed");
                    if !exhausted(group, held, &batch, failures).await {
                        held.buffer.lock().give_back(batch);
                        again_after = Some(PAUSE_ORDERED);
                    }
                }
            }
        }
    }
    held.busy.store(false, Ordering::Release);
    match again_after {
        None if held.is_locked() && held.buffer.lock().waiting() > 0 => group.ready.push(held),
        // Without the lock nothing is handed out; its renewal puts the queue into the line.
        None => {}
        Some(pause) => {
            let (group, held) = (Arc::clone(group), Arc::clone(held));
            let tasks = group.tasks.clone();
            tasks.spawn("retry in order", async move {
                if waits(&group, &held, pause).await {
                    group.ready.push(&held);
                }
            });
        }
    }
}

/// Whether the head has failed so often that the broker took it out of the way.
async fn exhausted(group: &Group, held: &HeldQueue, batch: &[MessageExt], failures: u32) -> bool {
    if group.settings.attempts_max.is_none_or(|max| failures < max) {
        return false;
    }
    for message in batch {
        if !retry::bury(group, message, failures).await {
            return false;
        }
    }
    held.failures.store(0, Ordering::Release);
    held.buffer.lock().finish(batch.iter().map(MessageExt::queue_offset));
    true
}

/// Waits; `false` if the queue was lost in the meantime.
async fn waits(group: &Group, held: &HeldQueue, pause: Duration) -> bool {
    tokio::select! {
        biased;
        () = held.dropped.cancelled() => false,
        () = group.intake.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}
