//! `escrowmq backup` of a broker that works, `escrowmq restore`, and the broker that comes of it; `escrowmq fsck`.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::properties::name;
use escrowmq_common::task::Tasks;
use escrowmq_tests::processes::{binary, spawn_broker_at};
use escrowmq_tests::{Broker, End, Settings, Wire, until, until_within};
use serde_json::Value;

const TOPIC: &str = "Backup";
const GROUP: &str = "backup-producer";
const CONSUMERS: &str = "backup-consumers";

fn escrowmq(arguments: &[&str]) -> Output {
    Command::new(binary("escrowmq")).args(arguments).output().expect("the command runs")
}

/// The JSON that a command prints; it must end with this exit code.
#[track_caller]
fn json(arguments: &[&str], code: i32) -> Value {
    let output = escrowmq(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {} {errors}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {errors}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

async fn offset(wire: &Wire) -> Option<String> {
    let ask = Frame::request(request::QUERY_CONSUMER_OFFSET)
        .with_field("consumerGroup", CONSUMERS)
        .with_field("topic", TOPIC)
        .with_field("queueId", 0);
    wire.ask(ask).await.fields.get("offset").map(str::to_owned)
}

async fn commit_offset(wire: &Wire, offset: i64) {
    let ask = Frame::request(request::UPDATE_CONSUMER_OFFSET)
        .with_field("consumerGroup", CONSUMERS)
        .with_field("topic", TOPIC)
        .with_field("queueId", 0)
        .with_field("commitOffset", offset);
    wire.ask(ask).await;
}

async fn bodies(wire: &Wire, topic: &str) -> Vec<String> {
    let messages = wire.read_queue(topic, 0).await;
    messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restore() {
    let settings = Settings::default()
        .with("mappedFileSizeCommitLog", 1 << 20)
        .with("transactionTimeOut", 2000)
        .with("messageDelayLevel", "8s 1h");
    let mut broker = Broker::start(settings.clone()).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    wire.create_topic("Load", 1).await;
    let group = format!(r#"{{"groupName":"{CONSUMERS}","retryMaxTimes":7}}"#);
    wire.ask(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group)).await;
    for nth in 0..20 {
        wire.send(TOPIC, 0, format!("m{nth}"), &[]).await.unwrap();
    }
    let committed = wire.half(GROUP, TOPIC, "committed", "committed").await;
    wire.end(&committed, End::Commit).await.unwrap();
    let rolled_back = wire.half(GROUP, TOPIC, "rolled-back", "rolled back").await;
    wire.end(&rolled_back, End::Rollback).await.unwrap();
    let open = wire.half(GROUP, TOPIC, "open", "open").await;
    wire.send(TOPIC, 0, "delayed", &[(name::DELAY, "1")]).await.unwrap();
    wire.send(TOPIC, 0, "much delayed", &[(name::DELAY, "2")]).await.unwrap();
    commit_offset(&wire, 13).await;
    let before = bodies(&wire, TOPIC).await;

    // The backup is taken while others send.
    let (sending, count) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (goes_on, counted, loaded) = (Arc::clone(&sending), Arc::clone(&count), broker.wire());
    let tasks = Tasks::new();
    tasks.spawn("load", async move {
        while goes_on.load(Ordering::Acquire) {
            loaded.send("Load", 0, vec![b'x'; 20_000], &[]).await.unwrap();
            counted.fetch_add(1, Ordering::AcqRel);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("backups");
    until("some load", async || (count.load(Ordering::Acquire) > 150).then_some(())).await;
    let address = broker.address();
    let first =
        tokio::task::block_in_place(|| json(&["backup", "--out", text(&out), "--broker", &address, "--json"], 0));
    let second =
        tokio::task::block_in_place(|| json(&["backup", "--out", text(&out), "--broker", &address, "--json"], 0));
    sending.store(false, Ordering::Release);
    tasks.join().await;
    let sent = count.load(Ordering::Acquire);
    assert!(second["keptBytes"].as_u64() > Some(1 << 20), "the second copies no segment again: {first} {second}");
    assert!(!broker.data_folder().join("backup").join(second["id"].as_str().unwrap()).exists(), "released");

    // Changes that come later are not in it.
    wire.send(TOPIC, 0, "later", &[]).await.unwrap();
    wire.end(&open, End::Rollback).await.unwrap();
    commit_offset(&wire, 17).await;
    broker.kill();

    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let restored = json(&["restore", "--from", text(&out), "--to", text(&data), "--json"], 0);
    assert_eq!(restored["id"], second["id"]);
    let refused = escrowmq(&["restore", "--from", text(&out), "--to", text(&data)]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("not empty"));
    let (mut process, port) = spawn_broker_at(&settings, home.path());
    let wire = Wire::to(format!("127.0.0.1:{port}"));
    until("the restored broker", async || wire.call(Frame::request(request::HEART_BEAT)).await.is_ok().then_some(()))
        .await;
    // Messages, and only those of then. The delayed one may have become visible meanwhile.
    let now = bodies(&wire, TOPIC).await;
    assert_eq!(now[..before.len()], before);
    assert!(!now.contains(&"later".to_owned()), "{now:?}");
    let load = bodies(&wire, "Load").await.len();
    assert!(load >= 150 && load <= sent, "{load} of {sent}");
    // Offset, group, decisions.
    assert_eq!(offset(&wire).await.as_deref(), Some("13"));
    let groups = wire.ask(Frame::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)).await;
    let groups: Value = serde_json::from_slice(&groups.body).unwrap();
    assert_eq!(groups["subscriptionGroupTable"][CONSUMERS]["retryMaxTimes"], 7);
    for (half, end) in [(&committed, End::Commit), (&rolled_back, End::Rollback)] {
        assert_eq!(wire.end(half, end).await.unwrap().code, response::SUCCESS, "{end:?} again");
        assert_eq!(wire.end(half, end.opposite()).await.unwrap().code, response::ILLEGAL_OPERATION);
    }
    // The open half is checked back, and its decision counts.
    wire.greet("restored-client", GROUP, &[]).await;
    wire.until_checked("open").await;
    assert!(!bodies(&wire, TOPIC).await.contains(&"open".to_owned()));
    assert_eq!(wire.end(&open, End::Commit).await.unwrap().code, response::SUCCESS);
    assert!(bodies(&wire, TOPIC).await.contains(&"open".to_owned()));
    // The timer fires; the later one waits.
    until_within(Duration::from_secs(30), "the delayed message", async || {
        bodies(&wire, TOPIC).await.contains(&"delayed".to_owned()).then_some(())
    })
    .await;
    assert!(!bodies(&wire, TOPIC).await.contains(&"much delayed".to_owned()));
    // Messages by key, which the backup does not hold: that index was rebuilt.
    until("the message by its key", async || {
        (wire.query(TOPIC, "key-committed", false).await.len() == 1).then_some(())
    })
    .await;

    // While it runs nobody looks at its files; stopped, nothing is wrong.
    let refused = json(&["fsck", text(&data), "--json"], 2);
    assert!(refused["error"].as_str().unwrap().contains(&format!("process {}", process.id())), "{refused}");
    process.terminate();
    process.wait(Duration::from_secs(30)).await;
    let checked = json(&["fsck", text(&data), "--deep", "--json"], 0);
    assert!(checked["clean"] == true && checked["figures"]["compared"] == true, "{checked}");
    assert_eq!(checked["figures"]["rows"]["T"], 1, "the timer that is not due is there");

    // The killed one: a backup without a broker.
    let stopped =
        json(&["backup", "--out", text(&out), "--store", text(&broker.data_folder()), "--keep", "1", "--json"], 0);
    assert_eq!(stopped["removed"].as_array().unwrap().len(), 2, "{stopped}");
    let again = folder.path().join("again");
    json(&["restore", "--from", text(&out), "--to", text(&again), "--json"], 0);
    let listed = json(&["restore", "--from", text(&out), "--list", "--json"], 0);
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_names_damage_and_repairs_what_can_be_repaired() {
    let mut broker = Broker::start(Settings::default().without_checks()).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    for nth in 0..50 {
        wire.send(TOPIC, 0, format!("m{nth}"), &[]).await.unwrap();
    }
    broker.kill();
    let data = broker.data_folder();
    assert_eq!(json(&["fsck", text(&data), "--json"], 0)["clean"], true);

    // A torn write after the last record.
    let log = data.join("log/00000000000000000000.log");
    let mut content = std::fs::read(&log).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    content[end + 100..end + 200].fill(7);
    std::fs::write(&log, &content).unwrap();
    let found = json(&["fsck", text(&data), "--json"], 1);
    assert_eq!(found["findings"][0]["kind"], "torn-tail", "{found}");
    let repaired = json(&["fsck", text(&data), "--repair", "--json"], 0);
    assert_eq!(repaired["repair"][0]["done"], true, "{repaired}");

    // A changed record: named, left alone, and given up only when the place is named.
    let mut content = std::fs::read(&log).unwrap();
    let at = content.windows(3).rposition(|bytes| bytes == b"m30").unwrap();
    content[at] ^= 1;
    std::fs::write(&log, &content).unwrap();
    let found = json(&["fsck", text(&data), "--repair", "--json"], 1);
    assert_eq!(found["findings"][0]["kind"], "log-damaged", "{found}");
    assert_eq!(found["repair"][0]["done"], false);
    let place = format!("{}:{}", found["findings"][0]["file"].as_str().unwrap(), found["findings"][0]["offset"]);
    let wrong = escrowmq(&["fsck", text(&data), "--repair", "--drop-acknowledged-after", "/nowhere:1"]);
    assert_eq!(wrong.status.code(), Some(2));
    let dropped = json(&["fsck", text(&data), "--repair", "--drop-acknowledged-after", &place, "--json"], 0);
    assert_eq!(dropped["clean"], true, "{dropped}");
    broker.start_again().await;
    let expected: Vec<String> = (0..30).map(|nth| format!("m{nth}")).collect();
    assert_eq!(bodies(&broker.wire(), TOPIC).await, expected, "everything before the damage is there");
    assert_eq!(escrowmq(&["fsck", "/nowhere"]).status.code(), Some(2));
}
