//! `escrowmq outbox`, on a SQLite file.

use std::process::{Command, Output};

use escrowmq_client::{Message, OutboxState};
use escrowmq_tests::processes::binary;
use serde_json::Value;

use super::{Scene, TOPIC, sqlite};

/// Runs the tool on a database; answers its exit code and what it printed.
fn tool(url: &str, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary("escrowmq"));
    let Output { status, stdout, stderr } =
        command.arg("outbox").args(words).env("ESCROWMQ_DATABASE", url).output().expect("the tool runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_looks_at_failed_rows_and_decides() {
    let (_folder, url, pool) = sqlite().await;
    let scene = Scene::open(url, pool).await;
    let relay = scene.relay("relay").await;
    let message = |name: &str| {
        let body = if name == "large" { "x".repeat(100_000) } else { name.to_owned() };
        Message::new(TOPIC, body).sharding_key("k").tag("t")
    };
    scene.order(&["large".to_owned()], message).await;
    scene.until_count(OutboxState::Failed, 1).await;
    scene.order(&["behind".to_owned()], message).await;
    scene.until_count(OutboxState::Held, 1).await;

    let (code, listed) = tool(&scene.url, &["list", "--json", "--state", "failed"]);
    let rows: Value = serde_json::from_str(&listed).expect(&listed);
    assert_eq!((code, &rows[0]["attempts"], &rows[0]["key"]), (Some(0), &Value::from(3), &Value::from("k")));
    let id = rows[0]["id"].to_string();
    let (code, shown) = tool(&scene.url, &["show", &id]);
    assert!(code == Some(0) && shown.contains("properties TAGS") && shown.contains("last_error"), "{shown}");
    let (code, table) = tool(&scene.url, &["list"]);
    assert!(code == Some(0) && table.contains("LAST ERROR") && table.contains("held"), "{table}");

    assert_eq!(tool(&scene.url, &["requeue", &id]).0, Some(0));
    scene.until_count(OutboxState::Failed, 1).await;
    let (code, refusal) = tool(&scene.url, &["discard", &id]);
    assert!(code == Some(1) && refusal.contains("--yes"), "{refusal}");
    let (code, told) = tool(&scene.url, &["discard", "--all", "--yes"]);
    assert!(code == Some(0) && told.contains("1 rows are discarded"), "{told}");
    let (code, told) = tool(&scene.url, &["requeue", &id]);
    assert!(code == Some(1) && told.contains("nothing was done"), "{told}");
    assert_eq!(tool(&scene.url, &["show", &id]).0, Some(1));
    scene.until_count(OutboxState::Held, 0).await;
    scene.until_count(OutboxState::Waiting, 0).await;
    assert_eq!(scene.visible().await.concat(), ["behind"]);
    let (code, refusal) = tool("oracle://host", &["list"]);
    assert!(code == Some(1) && refusal.contains("sqlite://"), "{refusal}");
    // The test's own listener: the command gives up before it would say a word to a server.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("postgres://shop@{}/shop?sslmode=require", listener.local_addr().expect("it is bound"));
    let (code, refusal) = tool(&url, &["list"]);
    assert!(code == Some(1) && refusal.contains("through a tunnel"), "{refusal}");
    relay.shutdown().await;
}
