//! Spans from their beginning to the body of a request to the collector.

use super::*;

fn service() -> Service {
    Service {
        collector: "127.0.0.1:1".to_owned(),
        path: String::new(),
        cluster: "C".to_owned(),
        instance: "b/h:1".to_owned(),
        host: "h".to_owned(),
        port: 10_911,
    }
}

fn parent(flags: &str) -> Parent {
    let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
    Parent::of(|name| (name == "traceparent").then_some(&*text)).unwrap()
}

fn about() -> About {
    About { operation: Some("send"), kind: Some("send"), topic: Some("T".to_owned()), ..About::default() }
}

#[test]
fn a_sender_decides_where_there_is_one_and_else_chance() {
    let (never, _export) = Spans::new(0.0, service());
    let (always, _export) = Spans::new(1.0, service());
    let is_recorded = |spans: &Arc<Spans>, parent| spans.begin(request::SEND_MESSAGE, parent, about).is_some();
    assert_eq!([is_recorded(&never, Some(parent("01"))), is_recorded(&never, Some(parent("00")))], [true, false]);
    assert_eq!([is_recorded(&always, Some(parent("01"))), is_recorded(&always, Some(parent("00")))], [true, false]);
    assert_eq!([is_recorded(&never, None), is_recorded(&always, None)], [false, true]);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (spans, _export) = Spans::new(1.0, service());
    let begun = spans.begin(request::SEND_MESSAGE, None, about).unwrap();
    for _ in 0..QUEUE + 3 {
        begun.end(response::SUCCESS, None, Duration::ZERO);
    }
    assert_eq!((spans.dropped.get(), spans.exported.get()), (3, 0));
}

#[test]
fn the_body_has_what_the_conventions_ask_for() {
    let span = |response: i32, parent: Option<Parent>| Span {
        trace: 7_u128.to_be_bytes(),
        id: 9_u64.to_be_bytes(),
        parent,
        code: request::SEND_MESSAGE_V2,
        about: about(),
        start: 1_000_000_000_000_000_001,
        end: 1_000_000_000_000_000_002,
        response,
        error: is_error(response).then(|| "no".to_owned()),
    };
    let body = otlp::body(&service(), &[span(0, Some(parent("01"))), span(16, None)]);
    let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let (child, root) = (&spans[0], &spans[1]);
    let value = |span: &serde_json::Value, key: &str| {
        let found = span["attributes"].as_array().unwrap().iter().find(|one| one["key"] == key)?.clone();
        found["value"].as_object().unwrap().values().next().and_then(|value| value.as_str().map(str::to_owned))
    };
    assert_eq!(child["name"], "send T");
    assert_eq!(child["traceId"], format!("{:032x}", 7));
    assert_eq!(child["spanId"], "0000000000000009");
    assert_eq!(child["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(child["startTimeUnixNano"], "1000000000000000001");
    assert_eq!(child["kind"], 2);
    for (key, expected) in [
        ("messaging.system", "rocketmq"),
        ("messaging.destination.name", "T"),
        ("rpc.method", "SEND_MESSAGE_V2"),
        ("rpc.response.status_code", "0"),
        ("server.port", "10911"),
    ] {
        assert_eq!(value(child, key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(value(child, "error.type"), None);
    assert!(child.get("status").is_none() && root.get("parentSpanId").is_none());
    assert_eq!(root["status"], serde_json::json!({ "code": 2, "message": "no" }));
    assert_eq!(value(root, "error.type").as_deref(), Some("16"));
}
