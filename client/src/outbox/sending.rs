//! Sending what was read from one slot, in the order of its rows.

use bytes::Bytes;

use super::row::Work;
use crate::error::SendError;
use crate::producer::{Producer, Until, send_in_order};

/// A row with its body.
pub(super) struct Ready {
    pub(super) row: Work,
    pub(super) body: Bytes,
}

/// What became of the rows of a slot. Rows that are not named wait for another try.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// A broker has them.
    pub(super) stored: Vec<i64>,
    /// They were refused for what they are.
    pub(super) refused: Vec<(Work, String)>,
    /// Those at which a queue ended for another reason, or of which nobody knows whether a broker has them. They wait, too.
    pub(super) away: Vec<(i64, SendError)>,
}

/// Sends the rows of one slot. Those of one queue go in their order; the first that fails ends its queue.
pub(super) async fn send(producer: &Producer, rows: Vec<Ready>, until: &Until) -> Sent {
    let mut sent = Sent::default();
    let mut messages = Vec::with_capacity(rows.len());
    for Ready { row, body } in rows {
        match row.message(body) {
            Ok(message) => messages.push((row, message)),
            Err(reason) => {
                sent.refused.push((row, reason));
                // What follows may be of its key.
                break;
            }
        }
    }
    let ended = send_in_order(producer, messages, until).await;
    sent.stored = ended.stored.iter().map(|row| row.id).collect();
    sent.refused.extend(ended.refused.into_iter().map(|(row, error)| (row, error.to_string())));
    sent.away = ended.away.into_iter().map(|(row, error)| (row.id, error)).collect();
    sent
}

/// Why a row was not sent, without what differs from try to try.
pub(super) fn cause(error: &SendError) -> String {
    match error {
        SendError::NotStored { last, .. } | SendError::OutcomeUnknown { last, .. } => last.to_string(),
        other => other.to_string(),
    }
}
