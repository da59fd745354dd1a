//! `escrowmq txn` as an operator runs it, against a running broker with transactions that nobody decides.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

use escrowmq_client::{Client, Decision, Half, Message, MessageExt, Outcome, TransactionListener};
use serde_json::Value;
use support::Standalone;

/// A producer that never knows.
struct Undecided;

impl TransactionListener for Undecided {
    async fn execute_local_transaction(&self, _message: &Message, _half: &Half) -> Decision {
        Decision::Unknown
    }

    async fn check_local_transaction(&self, _message: &MessageExt) -> Decision {
        Decision::Unknown
    }
}

/// Leaves half messages of the group `payments` undecided, and goes; their transaction ids.
fn leave_open(cluster: &Standalone, bodies: &[&str]) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::builder(&cluster.namesrv).connect().await.unwrap();
        let producer = client.transaction_producer("payments", Undecided).start().await.unwrap();
        let mut ids = Vec::new();
        for body in bodies {
            let message = Message::new("Orders", (*body).to_owned()).tag("created").key(format!("key-{body}"));
            let result = producer.send(message).await.unwrap();
            assert_eq!(result.outcome, Outcome::Undecided);
            ids.push(result.half.message_id);
        }
        client.shutdown().await;
        ids
    })
}

/// Leaves a transaction of one message for each of these topics undecided.
fn leave_whole_open(cluster: &Standalone, topics: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::builder(&cluster.namesrv).connect().await.unwrap();
        let producer = client.transaction_producer("payments", Undecided).start().await.unwrap();
        let transaction = producer.begin();
        for topic in topics {
            transaction.prepare(Message::new(*topic, "x")).await.unwrap();
        }
        drop(transaction);
        client.shutdown().await;
    });
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The handle of each transaction of a list, in its order.
fn handles(list: &Value) -> Vec<String> {
    let transactions = list["transactions"].as_array().unwrap();
    transactions.iter().map(|info| info["transaction"].as_str().unwrap().to_owned()).collect()
}

fn field(info: &Value, name: &str) -> String {
    match &info[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

const WHY: [&str; 3] = ["--reason", "paid by hand", "--yes"];

#[test]
fn open_transactions_are_found_page_by_page_and_counted() {
    let cluster = Standalone::start();
    cluster.text("admin", &["topic", "create", "Orders", "--queues", "1"]);
    let nothing = cluster.text("txn", &["list"]);
    assert!(nothing.starts_with("BROKER") && nothing.ends_with("0 transactions\n"), "{nothing}");
    let ids = leave_open(&cluster, &["a", "b", "c", "d", "e"]);

    let all = cluster.json("txn", &["list"]);
    assert_eq!((all["transactions"].as_array().unwrap().len(), &all["next"]), (5, &Value::Null));
    let first = &all["transactions"][0];
    assert_eq!((field(first, "group"), field(first, "topic")), ("payments".to_owned(), "Orders".to_owned()));
    assert_eq!((field(first, "state"), field(first, "keys")), ("open".to_owned(), "key-a".to_owned()));
    assert_eq!(field(first, "transaction_id"), ids[0]);
    let mut paged = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut arguments = vec!["list", "--limit", "2", "--group", "payments", "--topic", "Orders", "--state", "open"];
        arguments.extend(after.as_deref().into_iter().flat_map(|after| ["--after", after]));
        let page = cluster.json("txn", &arguments);
        paged.extend(handles(&page));
        match &page["next"] {
            Value::String(next) => after = Some(next.clone()),
            _ => break,
        }
    }
    assert_eq!(paged, handles(&all));
    let table = cluster.text("txn", &["list", "--limit", "2"]);
    assert!(
        table.contains(&paged[1]) && !table.contains(&paged[2]) && table.contains("--after standalone:"),
        "{table}"
    );
    assert_eq!(handles(&cluster.json("txn", &["list", "--all"])), paged);
    assert!(handles(&cluster.json("txn", &["list", "--older-than", "1h"])).is_empty());
    assert!(handles(&cluster.json("txn", &["list", "--state", "parked"])).is_empty());

    let counts = cluster.json("txn", &["count"]);
    assert_eq!(
        (field(&counts[0], "group"), &counts[0]["open"], &counts[0]["parked"]),
        ("payments".to_owned(), &5.into(), &0.into())
    );
    assert!(counts[0]["oldest_open_at_ms"].as_i64() == first["prepared_at_ms"].as_i64());
    assert!(cluster.text("txn", &["count"]).contains("5 open and 0 parked in 1 group"));

    let by_handle = cluster.json("txn", &["show", &paged[0]]);
    assert_eq!(by_handle["properties"]["KEYS"], "key-a");
    let by_message = cluster.json("txn", &["show", &field(&by_handle, "offset_message_id")]);
    let by_id = cluster.json("txn", &["show", &ids[0], "--group", "payments"]);
    assert_eq!((field(&by_message, "transaction"), field(&by_id, "transaction")), (paged[0].clone(), paged[0].clone()));
    assert!(cluster.text("txn", &["show", &paged[0]]).contains("property KEYS"));

    for (wrong, says) in [
        (vec!["show", "nobody:1"], "only standalone"),
        (vec!["show", "standalone:1"], "no half message 1"),
        (vec!["show", &ids[0]], "--group"),
        (vec!["list", "--broker", "nobody"], "only standalone"),
    ] {
        let output = cluster.run("txn", &wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert!(stderr(&output).contains(says), "{wrong:?}: {}", stderr(&output));
    }
    cluster.stop();
}

#[test]
fn a_transaction_of_several_messages_is_one_line_and_counts_once() {
    let cluster = Standalone::start();
    for topic in ["Orders", "Parcels"] {
        cluster.text("admin", &["topic", "create", topic, "--queues", "1"]);
    }
    leave_open(&cluster, &["a"]);
    leave_whole_open(&cluster, &["Orders", "Parcels", "Orders"]);
    let list = cluster.json("txn", &["list"]);
    let transactions = list["transactions"].as_array().unwrap();
    let messages: Vec<_> = transactions.iter().map(|info| &info["messages"]).collect();
    assert_eq!(messages, [&Value::from(1), &Value::from(3)]);
    assert_eq!(cluster.json("txn", &["count"])[0]["open"], 2);
    assert!(cluster.text("txn", &["list"]).ends_with("2 transactions\n"));
    let of_topic = cluster.json("txn", &["list", "--topic", "Parcels"]);
    assert_eq!(handles(&of_topic), [transactions[1]["members"][0].as_str().unwrap()], "{of_topic}");
    // Any of its messages leads to all of it.
    let member = handles(&of_topic).remove(0);
    let shown = cluster.json("txn", &["show", &member]);
    assert_eq!(shown["first_half"], transactions[1]["transaction"]);
    let member_id = field(&shown, "transaction_id");
    assert_eq!(cluster.json("txn", &["show", &member_id, "--group", "payments"])["transaction"], member.as_str());
    let mut commit = vec!["commit", member.as_str()];
    commit.extend(WHY);
    cluster.text("txn", &commit);
    assert_eq!(cluster.json("txn", &["count"])[0]["open"], 1);
    assert!(cluster.text("admin", &["topic", "status", "Orders"]).contains("2 messages"));
    cluster.stop();
}

#[test]
fn a_group_or_topic_that_nobody_knows_is_an_error_and_none_is_an_answer() {
    let cluster = Standalone::start();
    leave_open(&cluster, &["a"]);
    for (arguments, says) in [
        (vec!["list", "--group", "payment"], "payment"),
        (vec!["count", "--group", "payment"], "payment"),
        (vec!["list", "--topic", "Order"], "there is no topic"),
    ] {
        let output = cluster.run("txn", &arguments);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}");
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
    }
    let handle = handles(&cluster.json("txn", &["list", "--group", "payments", "--topic", "Orders"])).remove(0);
    let mut rollback = vec!["rollback", handle.as_str()];
    rollback.extend(WHY);
    cluster.text("txn", &rollback);
    assert!(handles(&cluster.json("txn", &["list", "--group", "payments"])).is_empty());
    let none = cluster.json("txn", &["count", "--group", "payments"]);
    assert_eq!((&none[0]["open"], &none[0]["parked"]), (&0.into(), &0.into()));
    cluster.stop();
}

#[test]
fn an_operator_decides_with_a_reason_and_the_first_decision_stands() {
    let cluster = Standalone::start();
    cluster.text("admin", &["topic", "create", "Orders", "--queues", "1"]);
    leave_open(&cluster, &["a", "b", "c"]);
    let handles = handles(&cluster.json("txn", &["list"]));

    // Nobody is there to say yes.
    let unasked =
        cluster.command("txn", &["commit", &handles[0], "--reason", "x"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(unasked.status.code(), Some(1));
    assert!(
        stderr(&unasked).contains("--yes") && stderr(&unasked).contains("nothing was done"),
        "{}",
        stderr(&unasked)
    );
    let without_reason = cluster.run("txn", &["commit", &handles[0], "--yes"]);
    assert_eq!(without_reason.status.code(), Some(2), "{}", stderr(&without_reason));

    let mut commit = vec!["commit", handles[0].as_str(), handles[1].as_str(), "--operator", "ops@host"];
    commit.extend(WHY);
    let committed = cluster.text("txn", &commit);
    assert_eq!(committed.lines().count(), 2, "{committed}");
    assert!(committed.contains("committed; Orders, queue 0, offset 0"), "{committed}");
    assert!(cluster.text("admin", &["topic", "status", "Orders"]).contains("2 messages"));
    let repeated = cluster.json("txn", &commit);
    assert_eq!((&repeated[1]["repeated"], &repeated[1]["place"]["queue_offset"]), (&true.into(), &1.into()));

    // One that is decided otherwise does not stop the next one.
    let mut rollback = vec!["rollback", handles[0].as_str(), handles[2].as_str()];
    rollback.extend(WHY);
    let output = cluster.run("txn", &rollback);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("committed before") && lines[0].contains("the first decision stands"), "{text}");
    assert!(lines[1].ends_with("rolled back"), "{text}");
    assert!(cluster.text("admin", &["topic", "status", "Orders"]).contains("2 messages"));
    let shown = cluster.json("txn", &["show", &handles[0]]);
    assert_eq!((field(&shown, "state"), &shown["decision"]["operator"]), ("committed".to_owned(), &"ops@host".into()));
    assert_eq!(shown["decision"]["reason"], "paid by hand");
    assert_eq!(cluster.json("txn", &["count"]), Value::Array(Vec::new()));
    let gone = cluster.run("txn", &["commit", "standalone:1", "--reason", "x", "--yes"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stdout(&gone).contains("not found"), "{}", stdout(&gone));
    cluster.stop();
}

#[test]
fn a_parked_transaction_is_resumed() {
    let cluster = Standalone::start();
    leave_open(&cluster, &["a"]);
    let handle = handles(&cluster.json("txn", &["list"])).remove(0);
    let act = |action: &'static str| {
        let mut arguments = vec![action, handle.as_str()];
        arguments.extend(WHY);
        cluster.run("txn", &arguments)
    };
    let early = act("resume");
    assert_eq!(early.status.code(), Some(1));
    assert!(stdout(&early).contains("refused"), "{}", stdout(&early));
    assert!(act("park").status.success());
    assert!(cluster.text("txn", &["list", "--state", "parked"]).contains("parked (operator)"));
    assert_eq!(cluster.json("txn", &["count"])[0]["parked"], 1);
    assert!(act("resume").status.success());
    let shown = cluster.json("txn", &["show", &handle]);
    assert_eq!((field(&shown, "state"), &shown["acts"][1]["action"]), ("open".to_owned(), &"resume".into()));
    assert_eq!(shown["acts"][1]["reason"], "paid by hand");
    assert!(!field(&shown["acts"][1], "operator").is_empty(), "who is known without --operator");
    cluster.stop();
}

#[test]
fn a_watch_tells_each_look_and_ends_well() {
    let cluster = Standalone::start();
    leave_open(&cluster, &["a", "b"]);
    let arguments = ["watch", "--interval", "50ms", "--json"];
    let mut watch = cluster.command("txn", &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let look: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&look["groups"][0]["group"], &look["groups"][0]["open"]), (&"payments".into(), &2.into()));
    }
    interrupt(watch.id());
    assert!(watch.wait().unwrap().success());

    // A reader that has seen enough ends it as well.
    let mut watch = cluster.command("txn", &["watch", "--interval", "50ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("until Ctrl-C"));
    drop(lines);
    assert!(watch.wait().unwrap().success());
    cluster.stop();
}

fn interrupt(process: u32) {
    let killed = std::process::Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(killed.success());
}
