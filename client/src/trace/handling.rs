//! Handlers, and messages that a user takes, as they are observed.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::message::properties::name;
use escrowmq_common::message::unique_id;
use tokio::time::Instant;
use tracing::Span;

use super::record::{Consumed, HandlerEnd, Record};
use super::spans;
use crate::core::Core;
use crate::message::MessageExt;

/// What the record of the end needs.
struct Began {
    group: Arc<str>,
    request_id: Arc<str>,
    messages: Arc<[Consumed]>,
    at: Instant,
}

/// A handler under way.
pub(crate) struct Handling {
    span: Span,
    began: Option<Began>,
}

impl Handling {
    /// Begins to observe a handler of these messages, which are of one queue.
    pub(crate) fn begin(core: &Core, group: &str, is_broadcast: bool, messages: &[MessageExt]) -> Handling {
        Handling { span: span(core, group, is_broadcast, messages), began: record_begin(core, group, messages) }
    }

    /// The span to run the handler in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Tells how it ended: with `failure`, if it failed. `patience` is the time after which it would have been given up.
    pub(crate) fn end(self, core: &Core, failure: Option<&str>, patience: Duration) {
        let is_late = self.began.as_ref().is_some_and(|began| began.at.elapsed() >= patience);
        if let Some(reason) = failure
            && !self.span.is_disabled()
        {
            spans::failed(&self.span, "handler_failed", reason);
        }
        let end = match failure {
            None => HandlerEnd::Success,
            Some(_) if is_late => HandlerEnd::TimedOut,
            Some(_) => HandlerEnd::Failed,
        };
        record_end(core, self.began, end);
    }
}

/// A user takes these messages, which are of one queue. Nobody learns what becomes of them: as with the Java client, their records
/// say that they were consumed then.
pub(crate) fn received(core: &Core, group: &str, messages: &[MessageExt]) {
    let span = spans::receive(&core.id, group, messages);
    if !span.is_disabled() {
        link_all(&span, messages);
    }
    record_end(core, record_begin(core, group, messages), HandlerEnd::Success);
}

fn record_end(core: &Core, began: Option<Began>, end: HandlerEnd) {
    let (Some(writer), Some(began)) = (&core.trace, began) else { return };
    let cost_ms = began.at.elapsed().as_millis() as i64 / began.messages.len().max(1) as i64;
    writer.push(Record::Handled {
        at_ms: clock::wall_ms(),
        group: began.group,
        request_id: began.request_id,
        messages: began.messages,
        cost_ms,
        end,
    });
}

fn record_begin(core: &Core, group: &str, messages: &[MessageExt]) -> Option<Began> {
    let writer = core.trace.as_ref()?;
    let traced = messages
        .iter()
        .filter(|message| !writer.is_own(message.topic()) && message.property(name::TRACE_ON) != Some("false"));
    let consumed: Arc<[Consumed]> = traced
        .map(|message| Consumed {
            message_id: message.message_id(),
            reconsume_times: message.reconsume_times(),
            keys: message.property(name::KEYS).map(Arc::from),
        })
        .collect();
    if consumed.is_empty() {
        return None;
    }
    let (group, request_id): (Arc<str>, Arc<str>) = (group.into(), unique_id().as_ref().into());
    writer.push(Record::Began {
        at_ms: clock::wall_ms(),
        region: messages[0].property(name::MSG_REGION).unwrap_or("null").into(),
        group: Arc::clone(&group),
        request_id: Arc::clone(&request_id),
        messages: Arc::clone(&consumed),
    });
    Some(Began { group, request_id, messages: consumed, at: Instant::now() })
}

fn span(core: &Core, group: &str, is_broadcast: bool, messages: &[MessageExt]) -> Span {
    let span = spans::process(&core.id, group, is_broadcast, messages);
    if !span.is_disabled() {
        continue_trace(&span, messages);
    }
    span
}

/// A handler of one message goes on with that message's trace; one of several points to each of theirs.
#[cfg(feature = "opentelemetry")]
fn continue_trace(span: &Span, messages: &[MessageExt]) {
    use super::context;
    match messages {
        [one] => {
            if let Some(parent) = context::in_message(one) {
                context::set_parent(span, parent);
            }
        }
        several => link_all(span, several),
    }
}

/// Points to the traces of messages.
#[cfg(feature = "opentelemetry")]
fn link_all(span: &Span, messages: &[MessageExt]) {
    use super::context;
    messages.iter().filter_map(context::in_message).for_each(|made| context::link(span, made));
}

#[cfg(not(feature = "opentelemetry"))]
fn continue_trace(_: &Span, _: &[MessageExt]) {}

#[cfg(not(feature = "opentelemetry"))]
fn link_all(_: &Span, _: &[MessageExt]) {}
