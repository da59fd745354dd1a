//! Looking: `list`, `show`, `watch`.

use std::time::Duration;

use escrowmq_client::{Message, Outbox, OutboxDatabase, OutboxQuery, OutboxRow, OutboxState};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::{Output, age, emit, print};

/// As much of a body as is shown to people.
const SHOWN_BYTES: usize = 4096;

pub(super) async fn list<DB: OutboxDatabase>(
    outbox: &Outbox<DB>,
    state: Option<OutboxState>,
    after: i64,
    limit: u32,
    json: bool,
) -> anyhow::Result<bool> {
    let query = OutboxQuery { state, after, limit };
    let rows = outbox.list(&query).await?;
    let mut output = Output::new(&["ID", "STATE", "AGE", "TOPIC", "KEY", "TENANT", "BYTES", "ATTEMPTS", "LAST ERROR"]);
    for row in &rows {
        output.row([
            json!(row.id),
            json!(row.state.word()),
            if json { json!(millis(row.age)) } else { json!(age::short(millis(row.age))) },
            json!(row.topic),
            text(&row.key),
            text(&row.tenant),
            json!(row.bytes),
            json!(row.attempts),
            text(&row.last_error),
        ]);
    }
    if let Some(last) = rows.last().filter(|_| rows.len() >= limit as usize) {
        output.note(format!("more: --after {}", last.id));
    }
    print(&output, json)?;
    Ok(true)
}

pub(super) async fn show<DB: OutboxDatabase>(outbox: &Outbox<DB>, id: i64, json: bool) -> anyhow::Result<bool> {
    let (Some(row), Some(message)) = (outbox.find(id).await?, outbox.message(id).await?) else {
        eprintln!("escrowmq: there is no row {id}: its message was sent, or it was discarded");
        return Ok(false);
    };
    if json {
        emit(&format!("{:#}\n", object(&row, &message)))?;
        return Ok(true);
    }
    let mut output = Output::new(&["FIELD", "VALUE"]);
    if let Value::Object(fields) = object(&row, &message) {
        for (name, value) in fields {
            match value {
                Value::Object(properties) => {
                    for (property, value) in properties {
                        output.row([json!(format!("{name} {property}")), value]);
                    }
                }
                value => output.row([json!(name), value]),
            }
        }
    }
    print(&output, false)?;
    Ok(true)
}

fn object(row: &OutboxRow, message: &Message) -> Value {
    let body = message.body();
    let shown = &body[..body.len().min(SHOWN_BYTES)];
    let properties: serde_json::Map<String, Value> =
        message.properties().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    json!({
        "id": row.id,
        "state": row.state.word(),
        "tenant": text(&row.tenant),
        "topic": row.topic,
        "key": text(&row.key),
        "unique_id": row.unique_id,
        "bytes": row.bytes,
        "attempts": row.attempts,
        "last_error": text(&row.last_error),
        "created_at": row.created_at,
        "changed_at": row.changed_at,
        "properties": properties,
        "body": String::from_utf8_lossy(shown),
        "body_is_cut": body.len() > SHOWN_BYTES,
    })
}

pub(super) async fn watch<DB: OutboxDatabase>(
    outbox: &Outbox<DB>,
    interval: Duration,
    json: bool,
) -> anyhow::Result<bool> {
    let looking = async {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let counts = outbox.count().await?;
            let query = OutboxQuery { state: Some(OutboxState::Waiting), limit: 1, ..OutboxQuery::default() };
            let oldest = outbox.list(&query).await?.first().map(|row| millis(row.age));
            let of = |state| counts.get(&state).copied().unwrap_or(0);
            if json {
                let mut line: serde_json::Map<String, Value> =
                    OutboxState::ALL.into_iter().map(|state| (state.word().to_owned(), json!(of(state)))).collect();
                line.insert("oldest_ms".to_owned(), json!(oldest));
                emit(&format!("{}\n", Value::Object(line)))?;
                continue;
            }
            let mut output = Output::new(&["WAITING", "OLDEST", "HELD", "FAILED", "SENT"]);
            output.row([
                json!(of(OutboxState::Waiting)),
                oldest.map_or(Value::Null, |oldest| json!(age::short(oldest))),
                json!(of(OutboxState::Held)),
                json!(of(OutboxState::Failed)),
                json!(of(OutboxState::Sent)),
            ]);
            emit(&output.table())?;
        }
    };
    tokio::select! {
        ended = looking => ended,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Ok(true)
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}
