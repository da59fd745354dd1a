//! Spans of requests, for a collector of OpenTelemetry.
//!
//! A request whose span is recorded has a [`Begun`] with it until it is answered. The span is made then and put into a queue, from
//! which [`Export`] sends batches over HTTP, in the JSON form of OTLP. What decides whether a span is recorded is the context that
//! a message carries ([`Parent`]): if its sender's span is recorded, so is the broker's. Without one, chance decides.
//!
//! Promises: no request waits for a collector; a queue that is full and a collector that does not answer cost spans, which are
//! counted; the queue has a bound, and so has each span. Left to others: what a request is about (`server`), the names of metrics
//! (`monitoring`).

mod chance;
mod export;
mod otlp;
mod parent;
mod post;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::monitoring::Count;
use tokio::sync::mpsc;

use chance::Chance;

pub(crate) use export::{Export, Service};
pub(crate) use parent::Parent;

/// Spans that wait for export; further ones are dropped.
const QUEUE: usize = 2048;
/// Longest text in a span, in bytes: names of topics and groups are shorter, remarks may be longer.
const TEXT_MAX: usize = 256;

/// Where requests get their spans, and what became of spans.
#[derive(Debug)]
pub(crate) struct Spans {
    chance: Chance,
    queue: mpsc::Sender<Span>,
    /// Spans that the collector took.
    pub exported: Count,
    /// Spans that found no place in the queue, or that the collector did not take.
    pub dropped: Count,
}

/// What a request asks for, in the words of OpenTelemetry's conventions for messaging.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    /// The name of the operation; without one the request's code gives the span its name.
    pub operation: Option<&'static str>,
    /// The type of the operation.
    pub kind: Option<&'static str>,
    /// The topic.
    pub topic: Option<String>,
    /// The consumer group.
    pub consumer_group: Option<String>,
    /// The producer group.
    pub producer_group: Option<String>,
    /// The address that the request came from.
    pub client: String,
}

/// A request whose span is recorded, until its answer.
#[derive(Debug)]
pub(crate) struct Begun {
    spans: Arc<Spans>,
    trace: [u8; 16],
    parent: Option<Parent>,
    code: i32,
    about: About,
}

/// A span that has ended.
#[derive(Debug)]
struct Span {
    trace: [u8; 16],
    id: [u8; 8],
    parent: Option<Parent>,
    code: i32,
    about: About,
    /// Nanoseconds since 1970.
    start: u64,
    end: u64,
    response: i32,
    /// The remark of a request that was refused.
    error: Option<String>,
}

impl Spans {
    /// Records `ratio` of the requests whose messages carry no context, from 0 to 1. [`Export`] is what sends spans on.
    pub(crate) fn new(ratio: f64, service: Service) -> (Arc<Self>, Export) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let chance = Chance::new(ratio);
        let spans = Arc::new(Self { chance, queue, exported: Count::default(), dropped: Count::default() });
        let export = Export::new(Arc::clone(&spans), queued, service);
        (spans, export)
    }

    /// The span of a request with this code, if it is to be recorded.
    pub(crate) fn begin(
        self: &Arc<Self>,
        code: i32,
        parent: Option<Parent>,
        about: impl FnOnce() -> About,
    ) -> Option<Arc<Begun>> {
        let is_recorded = parent.as_ref().map_or_else(|| self.chance.hits(), |parent| parent.is_sampled);
        is_recorded.then(|| {
            let trace = parent.as_ref().map_or_else(|| self.chance.trace_id(), |parent| parent.trace);
            Arc::new(Begun { spans: Arc::clone(self), trace, parent, code, about: about() })
        })
    }
}

impl Begun {
    /// The request was answered, this long after it came.
    pub(crate) fn end(&self, response: i32, remark: Option<&str>, age: Duration) {
        let end = clock::wall_ns();
        let span = Span {
            trace: self.trace,
            id: self.spans.chance.span_id(),
            parent: self.parent.clone(),
            code: self.code,
            about: self.about.clone(),
            start: end.saturating_sub(age.as_nanos() as u64),
            end,
            response,
            error: is_error(response).then(|| shortened(remark.unwrap_or_default()).to_owned()),
        };
        if self.spans.queue.try_send(span).is_err() {
            self.spans.dropped.add_one();
        }
    }
}

impl Span {
    /// By the conventions the operation and what it is done to; else the request's code.
    fn name(&self) -> String {
        match (self.about.operation, &self.about.topic) {
            (Some(operation), Some(topic)) => format!("{operation} {topic}"),
            (Some(operation), None) => operation.to_owned(),
            (None, _) => request::name(self.code).unwrap_or("unknown request").to_owned(),
        }
    }
}

/// Whether an answer says that the request was not carried out. That there is nothing to pull is no error.
fn is_error(code: i32) -> bool {
    !matches!(
        code,
        response::SUCCESS
            | response::FLUSH_DISK_TIMEOUT
            | response::SLAVE_NOT_AVAILABLE
            | response::FLUSH_SLAVE_TIMEOUT
            | response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED
            | response::QUERY_NOT_FOUND
    )
}

/// As much of a text as a span holds.
pub(crate) fn shortened(text: &str) -> &str {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests;
