//! Spans in the JSON form of OTLP: numbers of 64 bits are texts there, and ids are hexadecimal.

use std::fmt::Write as _;

use escrowmq_common::code::request;
use serde_json::{Value, json};

use super::Span;
use super::export::Service;

/// A span of a request that came from elsewhere.
const KIND_SERVER: u8 = 2;
const STATUS_ERROR: u8 = 2;
/// The parent is known to be of another process; and its own sampled flag.
const FLAGS: u32 = 0x301;
const FLAGS_OF_ROOT: u32 = 0x101;

/// The body of a request that brings these spans.
pub(super) fn body(service: &Service, spans: &[Span]) -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes([
            ("service.name", Some("escrowmq-broker")),
            ("service.version", Some(env!("CARGO_PKG_VERSION"))),
            ("service.namespace", Some(&service.cluster)),
            ("service.instance.id", Some(&service.instance)),
        ]) },
        "scopeSpans": [{
            "scope": { "name": "escrowmq-broker", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans.iter().map(|span| one(service, span)).collect::<Vec<_>>(),
        }],
    }] })
}

fn one(service: &Service, span: &Span) -> Value {
    let about = &span.about;
    let response = span.response.to_string();
    let mut all = attributes([
        ("messaging.system", Some("rocketmq")),
        ("messaging.operation.name", about.operation),
        ("messaging.operation.type", about.kind),
        ("messaging.destination.name", about.topic.as_deref()),
        ("messaging.consumer.group.name", about.consumer_group.as_deref()),
        ("escrowmq.producer.group.name", about.producer_group.as_deref()),
        ("rpc.system.name", Some("rocketmq")),
        ("rpc.method", request::name(span.code)),
        ("rpc.response.status_code", Some(&response)),
        ("error.type", span.error.is_some().then_some(response.as_str())),
        ("server.address", Some(&service.host)),
        ("client.address", Some(&about.client)),
    ]);
    all.push(json!({ "key": "server.port", "value": { "intValue": service.port.to_string() } }));
    let mut value = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "flags": if span.parent.is_some() { FLAGS } else { FLAGS_OF_ROOT },
        "name": span.name(),
        "kind": KIND_SERVER,
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": all,
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = hex(&parent.span).into();
        if let Some(state) = &parent.state {
            value["traceState"] = state.as_str().into();
        }
    }
    if let Some(error) = &span.error {
        value["status"] = json!({ "code": STATUS_ERROR, "message": error });
    }
    value
}

/// Attributes that have a value.
fn attributes<const N: usize>(texts: [(&str, Option<&str>); N]) -> Vec<Value> {
    let one = |(key, text): (&str, Option<&str>)| Some(json!({ "key": key, "value": { "stringValue": text? } }));
    texts.into_iter().filter_map(one).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Of `sent` spans, those that the collector refused although it took the request, as its answer says.
pub(super) fn refused(answer: &[u8], sent: u64) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
    count.unwrap_or_default().min(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_many_were_refused() {
        for (answer, expected) in [
            ("", 0),
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"why"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, 2),
            (r#"{"partialSuccess":{"rejectedSpans":"99"}}"#, 5),
            (r#"{"partialSuccess":{"rejectedSpans":-1}}"#, 0),
            ("no json", 0),
        ] {
            assert_eq!(refused(answer.as_bytes(), 5), expected, "{answer}");
        }
    }
}
