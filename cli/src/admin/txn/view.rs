//! A transaction as people read it, and as programs do.
//!
//! JSON names are in lower case with underscores, as all of `--json` has them; times are milliseconds since 1970 and end in
//! `_at_ms`. A missing value is null.

use escrowmq_client::{Asked, Decision, TransactionInfo, TransactionState};
use serde_json::{Map, Value, json};

use super::super::output::Output;
use super::super::time::readable;
use super::age::short;
use super::handle::Handle;

/// A list of transactions as a table.
pub(super) fn table() -> Output {
    Output::new(&[
        "BROKER",
        "TRANSACTION",
        "GROUP",
        "TOPIC",
        "MESSAGES",
        "STATE",
        "AGE",
        "CHECKS",
        "NEXT CHECK",
        "CLIENT",
        "KEYS",
    ])
}

/// Its row in [`table`].
pub(super) fn row(broker: &str, info: &TransactionInfo, now: i64) -> [Value; 11] {
    [
        json!(broker),
        json!(handle(broker, info.half_id).to_string()),
        json!(info.producer_group),
        json!(info.topic),
        json!(messages(info)),
        json!(state(info)),
        json!(short(now - info.prepared_at)),
        json!(info.checks),
        json!(info.next_check_at.map(|at| due(at, now))),
        json!(info.client_id),
        json!(info.keys),
    ]
}

/// How many messages it has; unknown where only a further one of them was looked at.
fn messages(info: &TransactionInfo) -> Option<usize> {
    info.first_half.is_none().then(|| 1 + info.members.len())
}

pub(super) fn handle(broker: &str, half_id: u64) -> Handle {
    Handle { broker: broker.to_owned(), half_id }
}

/// Its state, with the reason if it is parked.
pub(super) fn state(info: &TransactionInfo) -> String {
    match (info.state, &info.parked) {
        (TransactionState::Parked, Some(parked)) => format!("parked ({})", parked.reason),
        (TransactionState::Parked, None) => "parked".to_owned(),
        (TransactionState::Open, _) => "open".to_owned(),
        (TransactionState::Committed, _) => "committed".to_owned(),
        (TransactionState::RolledBack, _) => "rolled back".to_owned(),
        (TransactionState::Unknown, _) => "unknown to this release".to_owned(),
    }
}

/// A transaction's state after the decision, in words.
pub(super) fn past(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "committed",
        Decision::Rollback => "rolled back",
        Decision::Unknown | Decision::InProgress { .. } => "decided",
    }
}

fn due(at: i64, now: i64) -> String {
    if at <= now { "now".to_owned() } else { format!("in {}", short(at - now)) }
}

/// A time with its distance.
fn when(at: i64, now: i64) -> String {
    if at <= now {
        format!("{} ({} ago)", readable(at), short(now - at))
    } else {
        format!("{} (in {})", readable(at), short(at - now))
    }
}

/// A text, or nothing: of a decided transaction not all is kept.
fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn prepared_at(info: &TransactionInfo) -> Option<i64> {
    (info.prepared_at > 0).then_some(info.prepared_at)
}

/// A producer's answer to a check, in words.
fn answered(asked: &Asked) -> String {
    match asked.answer.as_deref() {
        Some("commit") => "which answered commit".to_owned(),
        Some("rollback") => "which answered rollback".to_owned(),
        Some("unknown") => "which did not know yet".to_owned(),
        Some("inProgress") => "which said that it is in progress; the check does not count".to_owned(),
        Some(other) => format!("which answered {other}"),
        None => "no answer known".to_owned(),
    }
}

/// Everything about one transaction, a line each.
pub(super) fn details(broker: &str, info: &TransactionInfo, now: i64) -> Output {
    let mut output = Output::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: Value| output.row([json!(field), value]);
    put("transaction", json!(handle(broker, info.half_id).to_string()));
    put("state", json!(state(info)));
    put("transaction id", text(&info.transaction_id));
    put("offset message id", text(&info.offset_msg_id));
    put("group", text(&info.producer_group));
    put("client", text(&info.client_id));
    put("topic", text(&info.topic));
    put("queue", json!(info.queue_id));
    put("counter", json!(info.counter));
    put("bytes", json!((info.size_bytes > 0).then_some(info.size_bytes)));
    put("keys", json!(info.keys));
    put("tags", json!(info.tags));
    put("prepared", json!(prepared_at(info).map(|at| when(at, now))));
    if let Some(delay) = info.delay {
        put("visible", json!(format!("{} after the commit", short(i64::try_from(delay).unwrap_or(i64::MAX)))));
    }
    if let Some(at) = info.deliver_at {
        put("visible", json!(format!("at {} if committed before", readable(at))));
    }
    if let Some(first) = info.first_half {
        put("decided with", json!(handle(broker, first).to_string()));
    }
    for member in &info.members {
        put("decides", json!(handle(broker, *member).to_string()));
    }
    put("checks", json!(info.checks));
    if info.decision.is_none() {
        put("next check", json!(info.next_check_at.map(|at| when(at, now))));
    }
    for asked in &info.asked {
        put("asked", json!(format!("{}: {}, {}", when(asked.at, now), asked.client_id, answered(asked))));
    }
    if let Some(parked) = &info.parked {
        put("parked", json!(format!("{}: {}", when(parked.at, now), parked.reason)));
    }
    for act in &info.acts {
        put("operator", json!(format!("{}: {} by {}: {}", when(act.at, now), act.action, act.operator, act.reason)));
    }
    if let Some(decision) = &info.decision {
        let by = if decision.operator.is_empty() {
            let how = if decision.reason.is_empty() { "" } else { ", " };
            format!(" by its producer{how}{}", decision.reason)
        } else {
            format!(" by {}: {}", decision.operator, decision.reason)
        };
        put("decision", json!(format!("{}: {}{by}", when(decision.at, now), state(info))));
        if let Some(offset) = decision.queue_offset {
            put("queue offset", json!(offset));
        }
    }
    for (name, value) in info.properties.iter().flatten() {
        put(&format!("property {name}"), json!(value));
    }
    output
}

/// Everything about one transaction, for programs.
pub(super) fn object(broker: &str, info: &TransactionInfo, now: i64) -> Map<String, Value> {
    let handles = |ids: &[u64]| ids.iter().map(|id| handle(broker, *id).to_string()).collect::<Vec<_>>();
    let asked =
        info.asked.iter().map(|asked| json!({ "at_ms": asked.at, "client": asked.client_id, "answer": asked.answer }));
    let acts = info
        .acts
        .iter()
        .map(|act| json!({ "at_ms": act.at, "action": act.action, "operator": act.operator, "reason": act.reason }));
    let decision = info.decision.as_ref().map(|decision| {
        json!({
            "at_ms": decision.at,
            "operator": decision.operator,
            "reason": decision.reason,
            "queue_offset": decision.queue_offset,
        })
    });
    let value = json!({
        "transaction": handle(broker, info.half_id).to_string(),
        "broker": broker,
        "half_id": info.half_id,
        "counter": info.counter,
        "offset_message_id": info.offset_msg_id,
        "transaction_id": text(&info.transaction_id),
        "group": text(&info.producer_group),
        "client": text(&info.client_id),
        "topic": text(&info.topic),
        "queue": info.queue_id,
        "state": info.state,
        "prepared_at_ms": prepared_at(info),
        "age_ms": prepared_at(info).map(|at| (now - at).max(0)),
        "bytes": (info.size_bytes > 0).then_some(info.size_bytes),
        "delay_ms": info.delay,
        "deliver_at_ms": info.deliver_at,
        "first_half": info.first_half.map(|first| handle(broker, first).to_string()),
        "members": handles(&info.members),
        "messages": messages(info),
        "checks": info.checks,
        "next_check_at_ms": info.next_check_at,
        "asked": asked.collect::<Vec<_>>(),
        "parked_at_ms": info.parked.as_ref().map(|parked| parked.at),
        "park_reason": info.parked.as_ref().map(|parked| &parked.reason),
        "acts": acts.collect::<Vec<_>>(),
        "decision": decision,
        "keys": info.keys,
        "tags": info.tags,
        "properties": info.properties,
    });
    match value {
        Value::Object(object) => object,
        other => unreachable!("json! of members is an object, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_client::{Act, DecisionInfo, Parked, TransactionAction};

    use super::*;

    fn parked() -> TransactionInfo {
        TransactionInfo {
            half_id: 4096,
            producer_group: "G".to_owned(),
            state: TransactionState::Parked,
            prepared_at: 1_000_000,
            parked: Some(Parked { at: 1_500_000, reason: "no checker".to_owned() }),
            asked: vec![
                Asked { at: 1_200_000, client_id: "c@1".to_owned(), answer: Some("unknown".to_owned()) },
                Asked { at: 1_210_000, client_id: "c@2".to_owned(), answer: None },
            ],
            members: vec![4200, 4300],
            acts: vec![Act {
                action: TransactionAction::Resume,
                at: 1_300_000,
                operator: "ops@host".to_owned(),
                reason: "try again".to_owned(),
            }],
            ..TransactionInfo::default()
        }
    }

    #[test]
    fn a_table_says_what_matters() {
        let mut output = table();
        output.row(row("b", &parked(), 1_725_000));
        let text = output.table();
        let line = text.lines().nth(1).unwrap();
        assert!(line.contains("  3  "), "three messages, one line: {line}");
        assert!(line.contains("b:4096") && line.contains("parked (no checker)") && line.contains("12m 5s"), "{line}");
    }

    #[test]
    fn details_name_who_was_asked_and_who_acted() {
        let mut info = parked();
        info.decision = Some(DecisionInfo {
            at: 1_600_000,
            operator: "ops@host".to_owned(),
            queue_offset: Some(17),
            reason: "paid by hand".to_owned(),
        });
        let text = details("b", &info, 1_700_000).table();
        for part in [
            "c@1, which did not know yet",
            "c@2, no answer known",
            "resume by ops@host: try again",
            "by ops@host: paid by hand",
            "queue offset",
            "(3m 20s ago)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let object = object("b", &info, 1_700_000);
        assert_eq!((&object["state"], &object["age_ms"]), (&json!("parked"), &json!(700_000)));
        assert_eq!(object["acts"][0]["action"], "resume");
        assert_eq!((&object["asked"][0]["answer"], &object["messages"]), (&json!("unknown"), &json!(3)));
        assert_eq!(object["decision"]["queue_offset"], 17);
        assert_eq!(object["park_reason"], "no checker");
    }

    #[test]
    fn a_check_that_is_due_is_due_now() {
        assert_eq!((due(5, 5), due(7_005, 5)), ("now".to_owned(), "in 7s".to_owned()));
    }
}
