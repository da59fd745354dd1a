//! The report of a run: one JSON object for programs, or lines for people made from the same object.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::conduct::Outcome;
use super::names;
use super::process::Watched;

/// From this share of its threads' time on, the generator may have been what limited a run.
const LIMIT_SHARE: f64 = 0.85;
/// From this share of the machine on, other processes disturb.
const OTHERS_SHARE: f64 = 0.08;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// The messages that a throughput counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Acknowledged messages.
    Acknowledged,
    /// Messages that became visible.
    Visible,
    /// Received messages.
    Received,
}

/// Rounded to `places` decimal places.
pub(super) fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

/// The measured values of a run, of any workload.
pub(super) fn measurement(outcome: &Outcome, counted: Counted, watched: &Watched, threads: usize) -> Object {
    let (tally, between) = (&outcome.tally, &outcome.between);
    let (messages, seconds) = match counted {
        Counted::Acknowledged => (tally.measured, outcome.elapsed),
        Counted::Visible => (between.visible.unwrap_or_default(), between.elapsed),
        Counted::Received => (tally.received, outcome.elapsed),
    };
    // The looks at the processes are not exactly at the window's edges: they count what happened between them.
    let between_messages = between.visible.unwrap_or(between.messages).max(1) as f64;
    let mut object = Object::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    let rate = if seconds > 0.0 { messages as f64 / seconds } else { 0.0 };
    put("throughput", json!(rounded(rate, 1)));
    put("messages", json!(messages));
    put("seconds", json!(rounded(seconds, 3)));
    put("latency_ms", tally.latency.json());
    let errors: Object = tally
        .refusals
        .iter()
        .map(|(code, refusals)| (names::name(*code), json!({ "count": refusals.count, "remark": refusals.remark })))
        .collect();
    put("errors", Value::Object(errors));
    put("sent", json!(tally.sent));
    put("acknowledged", json!(tally.acknowledged));
    put("lost", json!(tally.lost));
    put("unanswered", json!(tally.unanswered));
    put("strays", json!(tally.strays));
    put("checks", json!(tally.checks));
    if let Some(broken) = &tally.broken {
        put("broken", json!(broken));
    }
    let share = between.cpu.own / (between.elapsed * threads as f64).max(1e-9);
    put(
        "generator",
        json!({
            "cpu_us": rounded(between.cpu.own * 1e6 / between_messages, 2),
            "share": rounded(share, 3),
            "lag_p99_ms": rounded(tally.lag.per_mille(990).as_secs_f64() * 1e3, 3),
            "was_limit": share >= LIMIT_SHARE,
        }),
    );
    if !watched.is_empty() {
        let cpu = between.cpu;
        let mut broker = json!({
            "cpu_us": rounded(cpu.watched * 1e6 / between_messages, 2),
            "cpu_cores": rounded(cpu.watched / between.elapsed.max(1e-9), 3),
        });
        merge(&mut broker, outcome.memory.json());
        put("broker", broker);
        let others = (cpu.machine - cpu.watched - cpu.own).max(0.0) / cpu.capacity.max(1e-9);
        put("others_share", json!(rounded(others, 3)));
    }
    put("interrupted", json!(outcome.is_interrupted));
    object
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Lines for people. Objects within that are measurements themselves get a heading.
pub(super) fn text(object: &Object) -> String {
    let mut out = String::new();
    if let Some(title) = object.get("title").and_then(Value::as_str) {
        let _ = writeln!(out, "{title}");
    }
    lines(&mut out, object);
    for (key, value) in object {
        if let Value::Object(inner) = value
            && inner.contains_key("throughput")
        {
            let _ = writeln!(out, "{}:", key.replace('_', " "));
            lines(&mut out, inner);
        }
    }
    if let Some(notes) = object.get("notes").and_then(Value::as_array) {
        for note in notes.iter().filter_map(Value::as_str) {
            let _ = writeln!(out, "  {note}");
        }
    }
    for warning in warnings(object) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn lines(out: &mut String, object: &Object) {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64).unwrap_or_default();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "  {name:<12} {text}");
    };
    if object.contains_key("throughput") {
        let mut text = format!("{} messages/s", grouped(number(object.get("throughput"))));
        if let Some(rate) = object.get("mb_per_s").and_then(Value::as_f64) {
            let _ = write!(text, ", {rate:.1} MB/s");
        }
        line("throughput", text);
    }
    for (key, name) in
        [("latency_ms", "latency"), ("send_latency_ms", "sends"), ("pull_latency_ms", "pulls"), ("open_ms", "opening")]
    {
        if let Some(Value::Object(latency)) = object.get(key) {
            let of = |key| number(latency.get(key));
            line(
                name,
                format!(
                    "p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
                    of("p50"),
                    of("p99"),
                    of("p999"),
                    of("max")
                ),
            );
        }
    }
    if let Some(Value::Object(broker)) = object.get("broker") {
        line(
            "broker",
            format!(
                "{:.2} us of CPU per message, {:.1} MiB resident, {:.1} MiB of it no file's",
                number(broker.get("cpu_us")),
                number(broker.get("resident_mib")),
                number(broker.get("anonymous_mib"))
            ),
        );
    }
    if let Some(Value::Object(generator)) = object.get("generator") {
        let share = number(generator.get("share")) * 100.0;
        let cpu = number(generator.get("cpu_us"));
        line("generator", format!("{cpu:.2} us of CPU per message, {share:.0} % of its threads' time"));
    }
    if let Some(Value::Object(errors)) = object.get("errors") {
        for (code, error) in errors {
            let remark = error.get("remark").and_then(Value::as_str).unwrap_or_default();
            line("refused", format!("{} with {code}: {}", grouped(number(error.get("count"))), plain(remark)));
        }
    }
    for (key, text) in [
        ("lost", "without an answer when their connection ended"),
        ("unanswered", "without an answer when the run was given up"),
        ("strays", "answers to nothing"),
        ("disordered", "messages out of their queue's order"),
        ("checks", "questions of the broker about undecided messages"),
    ] {
        let count = number(object.get(key));
        if count > 0.0 {
            line(key, format!("{} {text}", grouped(count)));
        }
    }
    if let Some(stored) = object.get("stored") {
        let acknowledged = grouped(number(object.get("acknowledged")));
        line("acknowledged", format!("{acknowledged}, stored {}", grouped(number(Some(stored)))));
    }
}

/// Warnings that a reader needs before believing the figures.
fn warnings(object: &Object) -> Vec<String> {
    let mut found = Vec::new();
    let inner = object.values().filter_map(Value::as_object).filter(|inner| inner.contains_key("throughput"));
    for object in std::iter::once(object).chain(inner) {
        let generator = object.get("generator");
        if generator.and_then(|generator| generator.get("was_limit")) == Some(&Value::Bool(true)) {
            found.push("the load generator was the limit; try --threads, or another machine".to_owned());
        }
        let others = object.get("others_share").and_then(Value::as_f64).unwrap_or_default();
        if others > OTHERS_SHARE {
            found.push(format!("other processes used {:.0} % of this machine meanwhile", others * 100.0));
        }
        if let Some(broken) = object.get("broken").and_then(Value::as_str) {
            found.push(format!("a connection ended early: {broken}"));
        }
        if object.get("interrupted") == Some(&Value::Bool(true)) {
            found.push("interrupted: the figures are of a part of the run".to_owned());
        }
    }
    found.dedup();
    found
}

/// A terminal obeys control characters; what a broker says may hold some, and may be long.
fn plain(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A whole number with commas.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let texts = [0.0, 999.0, 1000.4, 1_234_567.0].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
        assert!((rounded(1.23456, 2) - 1.23).abs() < 1e-9);
    }

    #[test]
    fn a_limit_in_any_part_is_a_warning() {
        let inner = json!({ "throughput": 5.0, "generator": { "was_limit": true }, "others_share": 0.5 });
        let Value::Object(object) = json!({ "title": "t", "before": inner, "after": inner }) else { unreachable!() };
        let text = text(&object);
        assert!(text.starts_with("t\n") && text.contains("before:\n  throughput   5 messages/s"), "{text}");
        assert!(text.contains("warning: the load generator was the limit"), "{text}");
        assert!(text.contains("other processes used 50 %"), "{text}");
    }
}
