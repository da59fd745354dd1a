//! The requester.

use std::time::Duration;

use escrowmq_common::message::properties::name;
use escrowmq_common::message::unique_id;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::NoReply;
use crate::core::Core;
use crate::error::{RequestError, SendError};
use crate::heartbeat::{Force, greet};
use crate::message::{Message, MessageExt};
use crate::producer::Sender;

/// What a send leaves of the timeout, at most.
const SPARE: Duration = Duration::from_millis(50);

/// Sends a request and waits for its reply, together at most `timeout`.
pub(crate) async fn ask(sender: &Sender, mut message: Message, timeout: Duration) -> Result<MessageExt, NoReply> {
    let core = sender.core();
    let ends = Instant::now() + timeout;
    // Held until the reply is there: by it the producer bounds the requests in flight, and its end waits for them.
    let entered = timeout_at(ends, sender.enter()).await;
    let place = entered.map_err(|_| not_in_time(timeout))?.map_err(NoReply::NotSent)?;
    let correlation_id = unique_id().to_string();
    let message_id = message.get(name::UNIQUE_KEY).map_or_else(|| unique_id().to_string(), str::to_owned);
    message.set(name::CORRELATION_ID, correlation_id.clone());
    message.set(name::REPLY_TO_CLIENT, core.id.clone());
    message.set(name::TTL, timeout.as_millis().max(1).to_string());
    message.set(name::UNIQUE_KEY, message_id.clone());
    let mut ticket = core.waiting.wait(correlation_id);
    become_known(core, message.topic(), ends.min(Instant::now() + sender.settings().retry.attempt_timeout)).await;
    let rest = ends.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        return Err(not_in_time(timeout));
    }
    // The send ends a little before the wait, so that what it knows for certain is told.
    let deadline = rest.saturating_sub((rest / 10).min(SPARE)).min(sender.settings().retry.deadline);
    let sending = sender.send_in(&place, message, None, deadline);
    tokio::pin!(sending);
    let mut sent: Option<bool> = None;
    loop {
        tokio::select! {
            biased;
            // It may overtake the answer to the send.
            reply = ticket.reply() => return Ok(reply),
            ended = &mut sending, if sent.is_none() => match ended {
                Ok(_) => sent = Some(true),
                // It may be stored: then its reply tells.
                Err(error) if error.outcome_unknown() => sent = Some(false),
                Err(error) => return Err(NoReply::NotSent(error)),
            },
            () = core.shutdown.cancelled() => return Err(NoReply::ShutDown { message_id }),
            () = tokio::time::sleep_until(ends) => {
                return Err(NoReply::TimedOut { message_id, after: timeout, stored: sent == Some(true) });
            }
        }
    }
}

/// Lets the brokers of the topic know this client: any of them may get the reply to pass on. One that cannot be greeted now
/// is left to the next heartbeat.
async fn become_known(core: &Core, topic: &str, until: Instant) {
    let greeted = async {
        let Ok(route) = core.routes.for_sending(topic).await else {
            // The send finds the same, and says so.
            return;
        };
        let ways = route.brokers.keys().filter(|broker| core.routes.has_way(broker));
        let ways: Vec<_> = ways.filter_map(|broker| core.routes.way(broker)).collect();
        let greetings = ways.iter().map(|addr| async move {
            if let Err(error) = greet(core, addr, Force::IfNeeded).await {
                tracing::debug!(%addr, %error, "broker not greeted before a request");
            }
        });
        join_all(greetings).await;
    };
    // Out of time, the request goes out all the same.
    let _ = timeout_at(until, greeted).await;
}

fn not_in_time(timeout: Duration) -> NoReply {
    NoReply::NotSent(SendError::NotStored { attempts: 0, last: RequestError::too_late("a broker", timeout) })
}
