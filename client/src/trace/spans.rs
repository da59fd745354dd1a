//! Spans as OpenTelemetry's semantic conventions for messaging describe them.
//!
//! Fields whose names begin with `otel.` are read by `tracing-opentelemetry`: a span's name there may hold the topic, which
//! that of `tracing` cannot. The fields of a span that nobody wants are not computed.

use std::net::SocketAddr;

use escrowmq_common::message::Properties;
use escrowmq_common::message::properties::name;
use tracing::Span;
use tracing::field::{Empty, display};

use super::TRACE_PARENT;
use super::record::Kind;
use crate::message::MessageExt;
use crate::producer::Prepared;

/// By this target users switch the spans on and off, wherever the code that makes them lies.
const TARGET: &str = "escrowmq_client::span";

/// The span of a send.
pub(super) fn send(client: &str, prepared: &Prepared, kind: Kind) -> Span {
    let properties = Properties::new(&prepared.properties);
    let number = |name| properties.get(name).and_then(|text| text.parse::<i64>().ok());
    tracing::info_span!(
        target: TARGET,
        "send",
        otel.name = format_args!("send {}", prepared.topic),
        // With the context of another span in it, that one made the message, and this one passes it on.
        otel.kind = if properties.get(TRACE_PARENT).is_some() { "client" } else { "producer" },
        messaging.system = "rocketmq",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = &*prepared.topic,
        messaging.client.id = client,
        messaging.message.id = prepared.message_id,
        messaging.message.body.size = prepared.plain_bytes as i64,
        messaging.rocketmq.message.type = match (kind, &prepared.sharding_key) {
            (Kind::Half | Kind::Committed, _) => "transaction",
            (Kind::Delayed, _) => "delay",
            (Kind::Normal, Some(_)) => "fifo",
            (Kind::Normal, None) => "normal",
        },
        messaging.rocketmq.message.tag = properties.get(name::TAGS),
        messaging.rocketmq.message.group = prepared.sharding_key,
        messaging.rocketmq.message.delay_time_level = number(name::DELAY),
        messaging.rocketmq.message.delivery_timestamp = number(name::TIMER_DELIVER_MS),
        messaging.destination.partition.id = Empty,
        server.address = Empty,
        server.port = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The span of a batch of this many messages.
pub(super) fn send_batch(client: &str, topic: &str, messages: usize, body_bytes: impl FnOnce() -> usize) -> Span {
    tracing::info_span!(
        target: TARGET,
        "send",
        otel.name = format_args!("send {topic}"),
        otel.kind = "producer",
        messaging.system = "rocketmq",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.client.id = client,
        messaging.batch.message_count = messages as i64,
        messaging.message.body.size = body_bytes() as i64,
        messaging.destination.partition.id = Empty,
        server.address = Empty,
        server.port = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The span that a handler of these messages, of one queue, runs in.
pub(super) fn process(client: &str, group: &str, is_broadcast: bool, messages: &[MessageExt]) -> Span {
    let Some(first) = messages.first() else {
        return Span::none();
    };
    let one = (messages.len() == 1).then_some(first);
    tracing::info_span!(
        target: TARGET,
        "process",
        otel.name = format_args!("process {}", first.topic()),
        otel.kind = "consumer",
        messaging.system = "rocketmq",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = first.topic(),
        messaging.consumer.group.name = group,
        messaging.client.id = client,
        messaging.message.id = one.map(MessageExt::message_id),
        messaging.batch.message_count = one.is_none().then_some(messages.len() as i64),
        messaging.message.body.size = messages.iter().map(|message| message.body().len()).sum::<usize>() as i64,
        messaging.rocketmq.consumption_model = if is_broadcast { "broadcasting" } else { "clustering" },
        messaging.rocketmq.message.tag = one.and_then(MessageExt::tag),
        messaging.destination.partition.id = format_args!("{}", first.queue().id()),
        server.address = format_args!("{}", first.store_host().ip()),
        server.port = i64::from(first.store_host().port()),
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The span of a poll that brought these messages, of one queue.
pub(super) fn receive(client: &str, group: &str, messages: &[MessageExt]) -> Span {
    let Some(first) = messages.first() else {
        return Span::none();
    };
    tracing::info_span!(
        target: TARGET,
        "receive",
        otel.name = format_args!("receive {}", first.topic()),
        otel.kind = "client",
        messaging.system = "rocketmq",
        messaging.operation.name = "receive",
        messaging.operation.type = "receive",
        messaging.destination.name = first.topic(),
        messaging.consumer.group.name = group,
        messaging.client.id = client,
        messaging.batch.message_count = messages.len() as i64,
        messaging.message.body.size = messages.iter().map(|message| message.body().len()).sum::<usize>() as i64,
        messaging.destination.partition.id = format_args!("{}", first.queue().id()),
        server.address = format_args!("{}", first.store_host().ip()),
        server.port = i64::from(first.store_host().port()),
    )
}

/// The place where a message was stored.
pub(super) fn stored(span: &Span, queue: i32, broker: Option<SocketAddr>) {
    span.record("messaging.destination.partition.id", display(queue));
    if let Some(broker) = broker {
        span.record("server.address", display(broker.ip()));
        span.record("server.port", i64::from(broker.port()));
    }
}

/// The operation failed.
pub(super) fn failed(span: &Span, kind: &str, reason: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", reason);
}
