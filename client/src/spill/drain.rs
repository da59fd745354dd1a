//! The task that sends what waits, as soon as brokers take it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use escrowmq_common::task::Shutdown;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::outlet::Outlet;
use super::waiting::{Entry, LaneId, PageResult};
use super::writer::{Command, Commands, Shared};
use crate::error::SendError;
use crate::message::Message;

/// Sends until shutdown, or until the outlet closes, and until what was on its way then has ended. Then lets go of the thread that writes.
pub(super) async fn run<O: Outlet>(outlet: Arc<O>, shared: Arc<Shared>, commands: Arc<Commands>, shutdown: Shutdown) {
    let Some(thread) = commands.get() else { return };
    send_all(&*outlet, &shared, thread, &shutdown).await;
    commands.close();
}

async fn send_all<O: Outlet>(outlet: &O, shared: &Shared, commands: mpsc::Sender<Command>, shutdown: &Shutdown) {
    let start = Instant::now();
    let mut pages = FuturesUnordered::new();
    let ended = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = outlet.closing() => {}
        }
    };
    let mut ended = std::pin::pin!(ended);
    let mut is_ending = false;
    loop {
        while !is_ending && let Some((lane, page)) = { shared.waiting.lock().page(start.elapsed()) } {
            pages.push(send(outlet, shared, &commands, lane, page));
        }
        if is_ending && pages.is_empty() {
            return;
        }
        let due = shared.waiting.lock().next_due();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(start + due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut ended, if !is_ending => is_ending = true,
            Some((lane, result)) = pages.next() => settle(shared, &commands, start, &lane, result).await,
            () = shared.wake.notified(), if !is_ending => {}
            () = due, if !is_ending => {}
        }
    }
}

async fn send<O: Outlet>(
    outlet: &O,
    shared: &Shared,
    commands: &mpsc::Sender<Command>,
    lane: LaneId,
    page: Vec<Entry>,
) -> (LaneId, PageResult) {
    let away = PageResult { is_away: true, ..PageResult::default() };
    let (reply, read) = oneshot::channel();
    let places = page.iter().map(|entry| entry.place).collect();
    if commands.send(Command::Read { places, reply }).await.is_err() {
        return (lane, away);
    }
    let messages = match read.await {
        Ok(Ok(messages)) => messages,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a spill cannot be read; it is tried again");
            shared.went_wrong(error.to_string());
            return (lane, away);
        }
        Err(_) => return (lane, away),
    };
    let mut result = PageResult::default();
    let mut ready: Vec<(u64, Message)> = Vec::with_capacity(messages.len());
    for (entry, kept) in page.iter().zip(messages) {
        if let Some(kept) = kept {
            ready.push((entry.number, kept.message));
        } else {
            // It is damaged, and in the failure log.
            shared.failed.fetch_add(1, Ordering::Relaxed);
            result.stored.push(entry.number);
        }
    }
    let sent = outlet.send_page(ready).await;
    shared.sent.fetch_add(sent.stored.len() as u64, Ordering::Relaxed);
    result.stored.extend(sent.stored);
    result.refused =
        sent.refused.into_iter().map(|(number, error)| (number, error.to_string(), error.is_retryable())).collect();
    for (_, error) in sent.away {
        tracing::debug!(%error, "messages of a spill are not sent; it is tried again");
        result.is_away = true;
        result.maybe_stored |= error.outcome_unknown();
        shared.went_wrong(error.to_string());
    }
    (lane, result)
}

async fn settle(shared: &Shared, commands: &mpsc::Sender<Command>, start: Instant, lane: &LaneId, result: PageResult) {
    let (done, given_up) = shared.waiting.lock().settle(lane, result, start.elapsed());
    if !done.is_empty() {
        // Fails only without a thread, whose end is in the log.
        let _ = commands.send(Command::Done(done)).await;
    }
    for (entry, reason) in given_up {
        let (reply, is_written) = oneshot::channel();
        let command = Command::Fail { entry: entry.clone(), reason: reason.clone(), reply };
        let is_written = commands.send(command).await.is_ok() && is_written.await.unwrap_or(false);
        shared.waiting.lock().given_up(&entry, is_written, start.elapsed());
        if is_written {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(topic = %entry.topic, reason, "a spilled message was refused: a person has to look at the failure log");
            shared.went_wrong(reason);
        }
    }
}

/// Whether a message is kept after this: brokers are away, busy or without a route, or nobody knows what became of it.
pub(super) fn is_kept_after(error: &SendError) -> bool {
    match error {
        SendError::OutcomeUnknown { .. } => true,
        SendError::NotStored { last, .. } => last.is_retryable() && !crate::producer::concerns_message(error),
        SendError::Invalid { .. }
        | SendError::BelowAsked { .. }
        | SendError::UnsafeBroker { .. }
        | SendError::ShutDown => false,
    }
}
