//! What others can see of a message's way: spans of `tracing`, trace contexts in messages, and RocketMQ's message trace.
//!
//! ```text
//!  Sender  -- Sending::begin .. end --.      .--> spans: "send Orders", "process Orders"        [spans]
//!  workers -- Handling::begin .. end --+-----+--> properties traceparent, tracestate            [context]
//!  polls   -- received ----------------+     |
//!  decisions -- decided ---------------'     '--> records -> Writer -> RMQ_SYS_TRACE_TOPIC      [record, writer]
//! ```
//!
//! * **Spans** are named and filled in as OpenTelemetry's conventions for messaging say, in the target
//!   `escrowmq_client::span`, at level INFO. Without a subscriber that wants them they cost a comparison.
//! * **Trace contexts** go on in another process with the feature `opentelemetry`: a message carries the W3C context of the
//!   span that sent it, and a handler runs in a span that has this context as its parent. A context that the user, or the
//!   outbox, put into the message stays; the sending span then links to it.
//! * **Records** of the message trace are what the Java client writes, byte by byte, if the client was built with
//!   [`message_trace`](crate::ClientBuilder::message_trace); `mqadmin queryMsgTraceById` and the dashboard show them.
//!
//! Promises: nothing here delays or fails a send or a handler. Records wait in a bounded queue; those that find it full, or
//! whose broker is away for too long, are dropped and counted.
//!
//! Left to others: exporting spans (a subscriber such as `tracing-opentelemetry`), metrics.

#[cfg(feature = "opentelemetry")]
mod context;
mod handling;
mod record;
mod sending;
mod spans;
mod writer;

pub(crate) use handling::{Handling, received};
pub(crate) use record::Labels;
pub(crate) use sending::{Sending, check_answered, decided, region};
pub(crate) use writer::Writer;

#[cfg(all(feature = "opentelemetry", feature = "sql"))]
pub(crate) use context::keep_current;

/// The property that carries a span's place in its trace.
pub(crate) const TRACE_PARENT: &str = "traceparent";
/// The property that carries what vendors add to it.
pub(crate) const TRACE_STATE: &str = "tracestate";
