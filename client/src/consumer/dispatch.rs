//! The workers: from the line of ready queues through the handler to the offset.

use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, HeldQueue};
use super::verdict::Verdict;
use super::{in_order, observe, retry};
use crate::message::MessageExt;

/// Before messages are tried again that the broker did not take back.
const PAUSE_NOT_TAKEN: Duration = Duration::from_secs(5);
/// Before messages are tried again that stay here, as with queues that the user assigned.
const PAUSE_HERE: Duration = Duration::from_secs(10);

/// Handles messages until the line closes.
pub(super) async fn run(group: Arc<Group>) {
    while let Some(held) = group.ready.next().await {
        if held.is_dropped() || held.is_paused() {
            continue;
        }
        if group.settings.order.is_ordered() {
            in_order::handle(&group, &held).await;
        } else {
            concurrent(&group, &held).await;
        }
        held.room.notify_one();
        held.left.notify_waiters();
    }
}

/// What a failed message is to become.
pub(super) enum Failed {
    Again { after: Option<Duration>, reason: String },
    Never { reason: String },
}

impl Failed {
    /// By the verdict of the handler; `None` for a success.
    pub(super) fn of(verdict: Verdict, retry_unreadable: bool) -> Option<Failed> {
        match verdict {
            Verdict::Done => None,
            Verdict::Again { after, reason } => Some(Failed::Again { after, reason }),
            Verdict::Unreadable { reason } if retry_unreadable => Some(Failed::Again { after: None, reason }),
            Verdict::Never { reason } | Verdict::Unreadable { reason } => Some(Failed::Never { reason }),
        }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Failed::Again { reason, .. } | Failed::Never { reason } => reason,
        }
    }
}

/// Runs the handler. Answers how it failed, if it did.
pub(super) async fn handled(group: &Group, held: &Arc<HeldQueue>, batch: &[MessageExt]) -> Option<Failed> {
    let verdict = observe::handle(group, held, batch).await;
    let failed = Failed::of(verdict, group.settings.retry_unreadable)?;
    let offsets: Vec<i64> = batch.iter().map(MessageExt::queue_offset).collect();
    tracing::warn!(queue = %held.queue, ?offsets, reason = failed.reason(), "handler failed");
    Some(failed)
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
    match handled(group, held, &batch).await {
        None => held.buffer.lock().finish(batch.iter().map(MessageExt::queue_offset)),
        Some(failed) => give_up(group, held, batch, &failed).await,
    }
}

/// Hands failed messages to the broker; those that it does not take are tried again here, later.
async fn give_up(group: &Arc<Group>, held: &Arc<HeldQueue>, batch: Vec<MessageExt>, failed: &Failed) {
    // The queue's next owner gets them anyway.
    if held.is_dropped() {
        return;
    }
    if group.offset_file.is_some() {
        // The other members have had it too; nobody takes it back for one of them.
        held.buffer.lock().finish(batch.iter().map(MessageExt::queue_offset));
        return;
    }
    let mut pause = PAUSE_NOT_TAKEN;
    let mut kept = Vec::new();
    for message in batch {
        let taken = match failed {
            Failed::Again { after, .. } if group.is_assigned() => {
                // Nobody reads the retry topic for queues that a user has assigned.
                pause = after.unwrap_or(PAUSE_HERE);
                let failures = held.failed(message.queue_offset() as u64);
                in_order::is_exhausted(group, failures) && retry::bury(group, &message, failures, "").await
            }
            Failed::Again { after, .. } => retry::hand_over(group, &message, *after).await,
            Failed::Never { reason } => retry::bury(group, &message, message.reconsume_times(), reason).await,
        };
        if taken {
            held.succeeded(message.queue_offset() as u64);
            held.buffer.lock().finish([message.queue_offset()]);
        } else {
            kept.push(message);
        }
    }
    if kept.is_empty() {
        return;
    }
    later(group, held, pause, move |held| held.buffer.lock().give_back(kept));
}

/// Does something to a queue after a while, and lets the workers look at it then; nothing if the queue is lost in the meantime.
pub(super) fn later(
    group: &Arc<Group>,
    held: &Arc<HeldQueue>,
    pause: Duration,
    then: impl FnOnce(&HeldQueue) + Send + 'static,
) {
    let (group, held) = (Arc::clone(group), Arc::clone(held));
    let tasks = group.tasks.clone();
    tasks.spawn("retry later", async move {
        tokio::select! {
            biased;
            () = held.dropped.cancelled() => return,
            () = group.intake.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        then(&held);
        group.ready.push(&held);
    });
}
