//! What is committed is sent, in the order of its key, also when brokers were away.

use std::time::Duration;

use escrowmq_client::{AddError, Message, OutboxQuery, OutboxRow, OutboxState};
use escrowmq_tests::until;

use super::{Scene, TOPIC, names, with_databases};
use crate::barrier::shop::Shop;

with_databases!(what_is_committed_is_sent_and_nothing_else);
with_databases!(messages_of_a_key_keep_their_order);
with_databases!(a_broker_that_is_away_uses_up_no_attempt);
with_databases!(a_large_message_goes_with_small_ones);

fn plain(name: &str) -> Message {
    Message::new(TOPIC, name.to_owned()).key(name).tag("new").property("shop", "north")
}

async fn what_is_committed_is_sent_and_nothing_else<DB: Shop>(scene: Scene<DB>) {
    scene.order(&names("before", 150), plain).await;
    let relay = scene.relay("relay").await;
    scene.order(&names("after", 50), plain).await;
    scene.begin(&names("never", 5), plain).await.rollback().await.expect("a rollback");
    let open = scene.begin(&names("late", 5), plain).await;
    if DB::NAME != "SQLite" {
        // There a second writer would wait for the first one.
        scene.order(&names("meanwhile", 5), plain).await;
    }
    scene.outbox.commit(open).await.expect("a commit");
    scene.agreed().await;
    let wire = scene.cluster.broker.wire();
    let found = wire.query(TOPIC, "before-0007", false).await;
    assert_eq!(found.len(), 1);
    let properties = found[0].properties();
    assert_eq!((properties.get("TAGS"), properties.get("shop")), (Some("new"), Some("north")));

    let mut tx = scene.pool.begin().await.expect("a transaction");
    let large = Message::new(TOPIC, vec![0; (4 << 20) + 1]);
    let refused = scene.outbox.add(&mut tx, large).await.expect_err("too large");
    assert!(matches!(refused, AddError::Invalid { .. }) && !refused.is_retryable(), "{refused}");
    drop(tx);
    until("all are counted", async || (relay.stats().oldest.is_none()).then_some(())).await;
    let stats = relay.stats();
    assert_eq!((stats.refused, stats.failed, stats.alarm), (0, 0, false), "{stats:?}");
    relay.shutdown().await;
    assert!(scene.outbox.list(&OutboxQuery::default()).await.expect("rows").is_empty());
}

async fn messages_of_a_key_keep_their_order<DB: Shop>(scene: Scene<DB>) {
    let relay = scene.relay("relay").await;
    let keyed = |name: &str| {
        let key = name.split('-').next().expect("a first part").to_owned();
        Message::new(TOPIC, name.to_owned()).sharding_key(key)
    };
    for round in 0..8 {
        let batch: Vec<String> = (0..20)
            .flat_map(|number| ["a", "b", "c", "d", "e"].map(|key| format!("{key}-{round}-{number:03}")))
            .collect();
        scene.order(&batch, keyed).await;
    }
    let queues = scene.agreed().await;
    for key in ["a", "b", "c", "d", "e"] {
        let with_key = |queue: &&Vec<String>| queue.iter().any(|body| body.starts_with(key));
        let holders: Vec<&Vec<String>> = queues.iter().filter(with_key).collect();
        assert_eq!(holders.len(), 1, "a key has one queue");
        let of_key: Vec<&String> = holders[0].iter().filter(|body| body.starts_with(key)).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    relay.shutdown().await;
}

async fn a_broker_that_is_away_uses_up_no_attempt<DB: Shop>(mut scene: Scene<DB>) {
    // A send whose answer came too late is repeated, and recognised.
    let window = "+duplicate.window.seconds=600";
    scene.cluster.broker.wire().create_topic_with(TOPIC, super::QUEUES.cast_signed(), window).await;
    let relay = scene.relay("relay").await;
    scene.order(&names("first", 5), plain).await;
    scene.until_count(OutboxState::Waiting, 0).await;
    scene.cluster.broker.kill();
    scene.order(&names("second", 20), |name| plain(name).sharding_key(name)).await;
    until("tries that end", async || (relay.stats().away >= 3).then_some(())).await;
    let rows = scene.outbox.list(&OutboxQuery::default()).await.expect("rows");
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row.state == OutboxState::Waiting && row.attempts == 0), "{rows:?}");
    let stats = relay.stats();
    assert!(stats.oldest > Some(Duration::ZERO) && stats.last_error.is_some(), "{stats:?}");
    until("rows that say why they wait", async || {
        let rows = scene.outbox.list(&OutboxQuery::default()).await.ok()?;
        let says_why = |row: &OutboxRow| !row.last_error.is_empty() && row.attempts == 0;
        (rows.iter().filter(|row| says_why(row)).count() >= 3).then_some(())
    })
    .await;
    scene.cluster.broker.start_again().await;
    scene.agreed().await;
    relay.shutdown().await;
}

async fn a_large_message_goes_with_small_ones<DB: Shop>(scene: Scene<DB>) {
    let sized = |name: &str| {
        let bytes = if name.ends_with('3') { 60_000 } else { 10 };
        Message::new(TOPIC, format!("{name}|{}", "x".repeat(bytes))).sharding_key("one")
    };
    let all = names("order", 30);
    scene.order(&all, sized).await;
    let relay = scene.relay("relay").await;
    scene.until_count(OutboxState::Waiting, 0).await;
    let bodies = scene.visible().await.concat();
    let read: Vec<&str> = bodies.iter().filter_map(|body| body.split('|').next()).collect();
    assert_eq!(read, all);
    relay.shutdown().await;
}
