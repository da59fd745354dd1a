//! Half messages: kept out of sight, recognised when repeated, delivered when committed.

use escrowmq_common::clock;
use escrowmq_common::message::TransactionType;

use super::support::{Stage, create_topic, end, field, half_id, position, send};

const HALF: [(&str, &str); 4] = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "TX1"), ("TAGS", "t")];

#[tokio::test]
async fn a_half_is_seen_after_its_commit_and_not_before() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 4)).await;
    let half = stage.done(send("T", &HALF)).await;
    assert_eq!(field(&half, "transactionId"), Some("TX1"));
    assert_eq!(field(&half, "queueOffset"), Some("0"), "the dense counter");
    assert_eq!(field(&half, "queueId"), Some("0"));
    assert!(stage.stored("T", 0).is_empty());
    stage.done(send("T", &[("UNIQ_KEY", "plain")])).await;

    stage.done(end(&half, 8)).await;
    let stored = stage.stored("T", 0);
    let message = &stored[1];
    assert_eq!((message.position, message.prepared_offset), (position(&half), position(&half)));
    assert_eq!(message.sys_flag.transaction(), TransactionType::Commit);
    for (name, value) in [
        ("TRAN_MSG", "true"),
        ("PGROUP", "PG"),
        ("__transactionId__", "TX1"),
        ("REAL_TOPIC", "T"),
        ("REAL_QID", "0"),
        ("CLUSTER", "DefaultCluster"),
    ] {
        assert_eq!(message.property(name), Some(value), "{name}");
    }
    // Decided once: the opposite is refused, a repeat is not.
    assert_eq!(stage.call(end(&half, 12)).await.code, 604);
    assert_eq!(stage.call(end(&half, 8)).await.code, 0);
    assert_eq!(stage.stored("T", 0).len(), 2);
}

#[tokio::test]
async fn a_rolled_back_half_is_never_seen() {
    let stage = Stage::new().await;
    let half = stage.done(send("T", &HALF)).await;
    stage.done(end(&half, 12)).await;
    assert_eq!(stage.call(end(&half, 8)).await.code, 604);
    assert!(stage.stored("T", 0).is_empty());
}

#[tokio::test]
async fn a_repeated_half_gets_the_first_ones_identity() {
    let stage = Stage::new().await;
    let first = stage.done(send("T", &HALF)).await;
    let again = stage.done(send("T", &HALF)).await;
    assert_eq!(field(&again, "msgId"), field(&first, "msgId"));
    assert_eq!(field(&again, "queueOffset"), field(&first, "queueOffset"));
    // Another message whose sender made the same id: a transaction of its own.
    let other = stage.done(send("T", &HALF).with_body("another body")).await;
    assert_ne!(field(&other, "msgId"), field(&first, "msgId"));
    let keyed = stage.done(send("T", &[HALF[0], HALF[1], HALF[2], ("KEYS", "17")])).await;
    assert_ne!(field(&keyed, "msgId"), field(&first, "msgId"), "its properties are of the message, too");
    for half in [&other, &first, &keyed] {
        stage.done(end(half, 8)).await;
    }
    let bodies: Vec<_> = stage.stored("T", 0).into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, [&b"another body"[..], b"a body", b"a body"]);
}

#[tokio::test]
async fn the_sender_is_remembered_by_its_client_id() {
    let stage = Stage::new().await;
    stage.producer("client-1", "PG").await;
    let half = stage.done(send("T", &HALF)).await;
    let row = stage.running.broker().shard.half(half_id(&half)).unwrap().unwrap();
    assert_eq!((row.group.as_str(), row.client.as_str(), row.unique_id.as_str()), ("PG", "client-1", "TX1"));
    assert_eq!(row.immunity, None);
    let immune = [HALF[0], HALF[1], ("UNIQ_KEY", "TX2"), ("CHECK_IMMUNITY_TIME_IN_SECONDS", "90")];
    let half = stage.done(send("T", &immune)).await;
    let row = stage.running.broker().shard.half(half_id(&half)).unwrap().unwrap();
    assert_eq!(row.immunity, Some(90_000));
}

#[tokio::test]
async fn transactions_can_be_refused() {
    let stage = Stage::with(|config| config.reject_transaction_message = true).await;
    assert_eq!(stage.call(send("T", &HALF)).await.code, 16);
    // Not a half: a retry of a client that carries the property on.
    let retry = escrowmq_common::header::SendMessageHeader {
        reconsume_times: 1,
        ..super::support::header("T", "TRAN_MSG\u{1}true\u{2}DELAY\u{1}1\u{2}")
    };
    stage.done(super::support::of(&retry)).await;
}

#[tokio::test]
async fn a_committed_half_with_a_delay_waits_for_it() {
    let stage = Stage::new().await;
    let delayed = [HALF[0], HALF[1], ("UNIQ_KEY", "TX3"), ("DELAY", "1")];
    let half = stage.done(send("T", &delayed)).await;
    assert_eq!(field(&half, "recallHandle"), None);
    let before = clock::wall_ms();
    stage.done(end(&half, 8)).await;
    stage.until("it comes after its delay", |stage| stage.stored("T", 0).len() == 1).await;
    assert!(stage.stored("T", 0)[0].store_timestamp - before >= 900, "counted from the commit");
}
