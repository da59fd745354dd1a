//! Messages that no broker takes for what they are: they fail, hold their key back, and a person decides.

use escrowmq_client::{Message, OnFailed, OutboxQuery, OutboxState};
use escrowmq_tests::until;

use super::{Scene, TOPIC, names, with_databases};
use crate::barrier::shop::Shop;

/// More than the broker takes.
const LARGE: usize = 100_000;

with_databases!(a_refused_message_fails_and_holds_its_key);
with_databases!(a_failed_message_lets_others_pass_where_that_is_wanted);
with_databases!(a_relay_sends_nothing_from_tables_that_it_does_not_know);

/// The third of each key is too large for the broker, which nobody knows before.
fn third_large(name: &str) -> Message {
    let key = name.split('-').next().expect("a first part").to_owned();
    let body = if name.ends_with("02") { "x".repeat(LARGE) } else { name.to_owned() };
    Message::new(TOPIC, body).sharding_key(key)
}

async fn rows<DB: Shop>(scene: &Scene<DB>, state: OutboxState) -> Vec<escrowmq_client::OutboxRow> {
    let query = OutboxQuery { state: Some(state), ..OutboxQuery::default() };
    scene.outbox.list(&query).await.expect("rows")
}

async fn a_refused_message_fails_and_holds_its_key<DB: Shop>(scene: Scene<DB>) {
    let relay = scene.relay("relay").await;
    scene.order(&names("a", 5), third_large).await;
    scene.order(&names("b", 2), third_large).await;
    scene.until_count(OutboxState::Failed, 1).await;
    scene.until_count(OutboxState::Waiting, 0).await;
    let failed = rows(&scene, OutboxState::Failed).await;
    assert_eq!((failed[0].attempts, failed[0].key.as_str()), (3, "a"));
    assert!(failed[0].bytes > LARGE as u64, "{:?}", failed[0]);
    assert!(!failed[0].last_error.is_empty());
    assert_eq!(relay.stats().failed, 1);
    assert_eq!(rows(&scene, OutboxState::Held).await.len(), 2);
    // Also those that come later, and those of another relay.
    relay.shutdown().await;
    let relay = scene.relay("other").await;
    scene.order(&["a-9000".to_owned(), "b-9000".to_owned()], third_large).await;
    scene.until_count(OutboxState::Held, 3).await;
    scene.until_count(OutboxState::Waiting, 0).await;
    let mut read = scene.visible().await.concat();
    read.sort();
    assert_eq!(read, ["a-0000", "a-0001", "b-0000", "b-0001", "b-9000"]);

    assert!(scene.outbox.requeue(failed[0].id).await.expect("an answer"));
    assert!(!scene.outbox.requeue(failed[0].id + 1).await.expect("an answer"), "it has not failed");
    scene.until_count(OutboxState::Failed, 1).await;
    scene.until_count(OutboxState::Held, 3).await;
    assert!(scene.outbox.discard(failed[0].id).await.expect("an answer"));
    scene.until_count(OutboxState::Held, 0).await;
    scene.until_count(OutboxState::Waiting, 0).await;
    let of_key: Vec<String> = scene.visible().await.concat().into_iter().filter(|body| body.starts_with('a')).collect();
    assert_eq!(of_key, ["a-0000", "a-0001", "a-0003", "a-0004", "a-9000"]);
    relay.shutdown().await;
}

async fn a_failed_message_lets_others_pass_where_that_is_wanted<DB: Shop>(scene: Scene<DB>) {
    let producer = scene.producer("relay").await;
    let relay = scene.outbox.relay(&producer).on_failed(OnFailed::Pass).max_attempts(1);
    let relay = relay.keep_sent(std::time::Duration::from_secs(3600)).start().expect("a relay");
    scene.order(&names("a", 5), third_large).await;
    scene.until_count(OutboxState::Sent, 4).await;
    assert_eq!(scene.count(OutboxState::Failed).await, 1);
    assert_eq!(scene.visible().await.concat(), ["a-0000", "a-0001", "a-0003", "a-0004"]);
    relay.shutdown().await;
}

async fn a_relay_sends_nothing_from_tables_that_it_does_not_know<DB: Shop>(scene: Scene<DB>) {
    let version = async |version: u32| {
        let mut tx = scene.pool.begin().await.expect("a transaction");
        let change = format!("UPDATE escrowmq_schema SET version = {version} WHERE table_name = 'escrowmq_outbox'");
        <DB as Shop>::execute(&mut tx, &change).await.expect("a version");
        tx.commit().await.expect("a commit");
    };
    scene.outbox.check_tables().await.expect("its own version");
    version(2).await;
    let refused = scene.outbox.check_tables().await.expect_err("a newer one");
    assert!(refused.to_string().contains("version 2"), "{refused}");
    scene.order(&names("a", 2), |name| Message::new(TOPIC, name.to_owned())).await;
    let relay = scene.relay("relay").await;
    until("a refusal", async || relay.stats().last_error.filter(|said| said.contains("version 2"))).await;
    assert_eq!((relay.stats().slots, scene.count(OutboxState::Waiting).await), (0, 2));
    // As somebody might do who has taken the wrong program first.
    version(1).await;
    scene.agreed().await;
    relay.shutdown().await;
}
