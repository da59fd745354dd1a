//! `escrowmq txn commit`, `rollback`, `resume` and `park`.

use anyhow::bail;
use escrowmq_client::{BrokerAddress, DecideError, Decided, MessagePlace, TransactionAction};
use serde_json::{Value, json};

use super::super::operator;
use super::super::output::Output;
use super::super::time::readable;
use super::brokers::{Brokers, explain};
use super::handle::{Handle, Name};
use super::print::emit;
use super::{Whole, view};
use crate::confirm;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Handles (broker:number) as `escrowmq txn list` shows them, or offset message ids
    #[arg(required = true, value_name = "TRANSACTION")]
    names: Vec<Name>,
    /// Why; the broker keeps it with the transaction
    #[arg(long, short, value_parser = operator::reason)]
    reason: String,
    /// Name of the operator; the broker keeps it with the transaction. Without it: `$USER@host`
    #[arg(long, short, value_parser = operator::name)]
    operator: Option<String>,
    /// Do not ask before it is done
    #[arg(long, short)]
    yes: bool,
}

impl Arguments {
    /// Before anything is asked of a broker.
    pub(super) fn refuse_if_nobody_can_be_asked(&self) -> anyhow::Result<()> {
        confirm::refuse_if_nobody_can_be_asked(self.yes)
    }

    fn operator(&self) -> String {
        self.operator.clone().unwrap_or_else(operator::current)
    }
}

pub(super) async fn run(
    brokers: &Brokers,
    action: TransactionAction,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Whole> {
    // A name that leads nowhere stops all: it may be a slip, and nothing is done yet.
    let mut targets = Vec::new();
    for name in &arguments.names {
        targets.push(brokers.of(name)?);
    }
    if !arguments.yes && !confirm(brokers, action, &targets).await? {
        bail!("nothing was done");
    }
    let operator = arguments.operator();
    let mut results = Vec::new();
    for (broker, handle) in targets {
        let decided =
            brokers.admin.decide_transaction(&broker.addr, handle.half_id, action, &operator, &arguments.reason).await;
        let result = Line::new(broker, handle, action, decided);
        if !json {
            emit(&result.text())?;
        }
        results.push(result);
    }
    if json {
        let objects: Vec<Value> = results.iter().map(Line::object).collect();
        emit(&format!("{:#}\n", Value::Array(objects)))?;
    }
    Ok(if results.iter().all(|result| result.decided.is_ok()) { Whole::Yes } else { Whole::No })
}

/// Shows what it is about, on stderr, and reads the answer.
async fn confirm(
    brokers: &Brokers,
    action: TransactionAction,
    targets: &[(&BrokerAddress, Handle)],
) -> anyhow::Result<bool> {
    let mut output = Output::new(&["TRANSACTION", "GROUP", "TOPIC", "STATE", "PREPARED", "KEYS"]);
    for (broker, handle) in targets {
        let found = brokers.admin.transaction(&broker.addr, handle.half_id).await;
        match found.map_err(|error| anyhow::anyhow!(explain(broker, &error)))? {
            Some(info) => output.row([
                json!(handle.to_string()),
                json!(info.producer_group),
                json!(info.topic),
                json!(view::state(&info)),
                json!(readable(info.prepared_at)),
                json!(info.keys),
            ]),
            None => output.row([
                json!(handle.to_string()),
                json!(null),
                json!(null),
                json!("not found"),
                json!(null),
                json!(null),
            ]),
        }
    }
    Ok(confirm::ask(&output.table(), &format!("{action} {}", them(targets.len())))?)
}

fn them(count: usize) -> String {
    if count == 1 { "this transaction".to_owned() } else { format!("these {count} transactions") }
}

/// The result for one of them.
struct Line {
    handle: Handle,
    action: TransactionAction,
    decided: Result<Decided, DecideError>,
    /// The result in words, and whether a retry helps.
    remark: String,
}

impl Line {
    fn new(
        broker: &BrokerAddress,
        handle: Handle,
        action: TransactionAction,
        decided: Result<Decided, DecideError>,
    ) -> Self {
        let remark = match &decided {
            Ok(decided) => done(action, decided),
            Err(error) => not_done(broker, &handle, error),
        };
        Self { handle, action, decided, remark }
    }

    fn text(&self) -> String {
        format!("{}  {}\n", self.handle, self.remark)
    }

    /// One word for programs.
    fn result(&self) -> &'static str {
        match (&self.decided, self.action) {
            (Ok(_), TransactionAction::Commit) => "committed",
            (Ok(_), TransactionAction::Rollback) => "rolled_back",
            (Ok(_), TransactionAction::Resume) => "resumed",
            (Ok(_), TransactionAction::Park) => "parked",
            (Ok(_), TransactionAction::Unknown) => "done",
            (Err(DecideError::AlreadyDecided { .. }), _) => "opposite",
            (Err(DecideError::NotPossible { .. }), _) => "not_possible",
            (Err(DecideError::NotFound { .. }), _) => "not_found",
            (Err(error), _) if error.outcome_unknown() => "unknown",
            (Err(_), _) => "failed",
        }
    }

    fn object(&self) -> Value {
        let decided = self.decided.as_ref().ok();
        let place = |place: &MessagePlace| json!({ "topic": place.topic, "queue": place.queue_id, "queue_offset": place.queue_offset });
        let member = |(half_id, at): &(u64, MessagePlace)| json!({ "transaction": view::handle(&self.handle.broker, *half_id).to_string(), "place": place(at) });
        let (first, first_at) = match &self.decided {
            Err(DecideError::AlreadyDecided { settled, decided_at, .. }) => (Some(view::past(*settled)), *decided_at),
            _ => (None, None),
        };
        json!({
            "transaction": self.handle.to_string(),
            "result": self.result(),
            "repeated": decided.map(|decided| decided.repeated),
            "decided_at_ms": decided.and_then(|decided| decided.decided_at).or(first_at),
            "store_level": decided.and_then(|decided| decided.store_level.as_ref()),
            "place": decided.and_then(|decided| decided.place.as_ref()).map(place),
            "members": decided.map(|decided| decided.members.iter().map(member).collect::<Vec<_>>()),
            "first_decision": first.map(|first| first.replace(' ', "_")),
            "remark": self.remark,
        })
    }
}

fn done(action: TransactionAction, decided: &Decided) -> String {
    let mut text = match action {
        TransactionAction::Commit => "committed".to_owned(),
        TransactionAction::Rollback => "rolled back".to_owned(),
        TransactionAction::Resume => "resumed: its producer group is asked again".to_owned(),
        TransactionAction::Park => "parked: nobody is asked until it is resumed".to_owned(),
        TransactionAction::Unknown => "done".to_owned(),
    };
    if decided.repeated {
        let at = decided.decided_at.map(|at| format!(", at {}", readable(at))).unwrap_or_default();
        text = format!("{text} before{at}; nothing changed");
    }
    for place in decided.place.iter().chain(decided.members.iter().map(|(_, place)| place)) {
        text = format!("{text}; {place}");
    }
    text
}

fn not_done(broker: &BrokerAddress, handle: &Handle, error: &DecideError) -> String {
    match error {
        DecideError::AlreadyDecided { settled, decided_at, .. } => {
            let at = decided_at.map(|at| format!(" at {}", readable(at))).unwrap_or_default();
            format!(
                "refused: it was {} before{at}; the first decision stands, and a retry does not change it; \
                 `escrowmq txn show {handle}` says who decided",
                view::past(*settled)
            )
        }
        DecideError::NotPossible { remark, .. } => format!("refused: {remark}"),
        DecideError::NotFound { half_id } => format!(
            "not found: broker {} knows no half message {half_id}, or has forgotten how it was decided",
            broker.broker
        ),
        DecideError::Request(error) if error.outcome_unknown() => {
            format!("unknown: {error}; it may be done all the same, and a retry is safe: the first decision stands")
        }
        DecideError::Request(error) => format!("not done: {}", explain(broker, error)),
        other => format!("not done: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_client::{Decision, RequestError};

    use super::*;

    fn line(decided: Result<Decided, DecideError>) -> Line {
        let broker = BrokerAddress { cluster: "c".to_owned(), broker: "b".to_owned(), addr: "h:1".to_owned() };
        Line::new(&broker, "b:7".parse().unwrap(), TransactionAction::Commit, decided)
    }

    #[test]
    fn a_commit_says_where_its_messages_are() {
        let place = |offset| MessagePlace { topic: "T".to_owned(), queue_id: 2, queue_offset: offset };
        let decided = Decided { place: Some(place(Some(17))), members: vec![(9, place(None))], ..Decided::default() };
        let line = line(Ok(decided));
        assert_eq!(line.text(), "b:7  committed; T, queue 2, offset 17; T, queue 2, waits for its delay\n");
        let object = line.object();
        assert_eq!((&object["result"], &object["place"]["queue_offset"]), (&json!("committed"), &json!(17)));
        assert_eq!(object["members"][0]["transaction"], "b:9");
    }

    #[test]
    fn each_way_not_to_be_done_has_its_word_and_its_advice() {
        let opposite = line(Err(DecideError::AlreadyDecided {
            half_id: 7,
            action: TransactionAction::Commit,
            settled: Decision::Rollback,
            decided_at: Some(0),
        }));
        assert!(opposite.text().contains("rolled back before at 1970"), "{}", opposite.text());
        assert_eq!(
            (opposite.result(), opposite.object()["first_decision"].as_str()),
            ("opposite", Some("rolled_back"))
        );
        let lost = line(Err(RequestError::ConnectionLost { addr: "h:1".to_owned(), reason: "cut".to_owned() }.into()));
        assert_eq!(lost.result(), "unknown");
        assert!(lost.text().contains("a retry is safe"), "{}", lost.text());
        let gone = line(Err(DecideError::NotFound { half_id: 7 }));
        assert_eq!(gone.result(), "not_found");
    }
}
