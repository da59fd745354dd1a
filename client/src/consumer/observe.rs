//! Running a handler where others can see it.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::group::{Group, HeldQueue};
use super::verdict::Verdict;
use crate::message::MessageExt;
use crate::trace::Handling;

/// Runs the handler for these messages in a span of its own, counts its end, and leaves records of it if there are to be any.
pub(super) async fn handle(group: &Group, held: &Arc<HeldQueue>, messages: &[MessageExt]) -> Verdict {
    let (core, patience) = (&group.core, group.settings.handler_timeout);
    let began = Instant::now();
    let observed = Handling::begin(core, &group.name, group.offset_file.is_some(), messages);
    let handling = group.handler.handle(messages.to_vec(), Some(held), patience);
    let verdict = handling.instrument(observed.span()).await;
    group.counts.ended(began.elapsed(), messages.len(), &verdict, group.settings.retry_unreadable);
    observed.end(core, verdict.reason(), patience);
    verdict
}
