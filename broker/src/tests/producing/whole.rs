//! The features that only EscrowMQ has: transactions of several messages, leases, outcomes in answers, quotas, and
//! plain messages that are recognised when they are sent again.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{PATIENCE, Stage, create_topic, end, field, half_id, position, send};

fn half(topic: &str, unique_id: &str) -> Frame {
    send(topic, &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique_id)])
}

fn joining(topic: &str, unique_id: &str, first: &Frame) -> Frame {
    half(topic, unique_id).with_field("transactionFirst", position(first))
}

#[tokio::test]
async fn several_messages_are_settled_by_one_decision_that_names_their_places() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 1)).await;
    stage.done(create_topic("U", 1)).await;
    let greeting = Frame::request(request::HEART_BEAT).with_body(r#"{"clientID":"c"}"#);
    assert_eq!(field(&stage.done(greeting).await, "ESCROWMQ_TXN"), Some("1"));
    let first = stage.done(half("T", "a")).await;
    let second = stage.done(joining("U", "b", &first)).await;
    let again = stage.done(joining("U", "b", &first)).await;
    assert_eq!(position(&again), position(&second), "a repeated send joins once");

    let committed = stage.done(end(&second, 8)).await;
    assert_eq!((field(&committed, "outcome"), field(&committed, "repeated")), (Some("committed"), Some("false")));
    assert_eq!((field(&committed, "topic"), field(&committed, "queueOffset")), (Some("T"), Some("0")));
    assert_eq!(field(&committed, "storeLevel"), Some("flushed"));
    assert_eq!(field(&committed, "members"), Some(format!("{}:U:0:0", position(&second)).as_str()));
    assert_eq!((stage.stored("T", 0).len(), stage.stored("U", 0).len()), (1, 1));

    let repeat = stage.done(end(&first, 8)).await;
    assert_eq!((field(&repeat, "repeated"), field(&repeat, "queueOffset")), (Some("true"), Some("0")));
    let opposite = stage.call(end(&first, 12)).await;
    assert_eq!((opposite.code, field(&opposite, "decision")), (604, Some("commit")));
    assert_eq!(field(&opposite, "decidedAt"), field(&committed, "decidedAt"));
    let late = stage.call(joining("U", "c", &first)).await;
    assert_eq!((late.code, field(&late, "decision")), (604, Some("commit")), "{:?}", late.remark);
    let nothing = stage.call(half("U", "d").with_field("transactionFirst", 1)).await;
    assert_eq!(nothing.code, 604, "nothing is stored, for certain: {:?}", nothing.remark);
}

#[tokio::test]
async fn a_check_asks_once_for_a_whole_transaction() {
    let stage = Stage::with(|config| config.transaction_time_out = std::time::Duration::from_millis(50)).await;
    stage.done(create_topic("T", 1)).await;
    stage.producer("client-1", "PG").await;
    let first = stage.done(half("T", "a")).await;
    stage.done(joining("T", "b", &first)).await;
    let later = stage.done(half("T", "c")).await;
    let asked = |stage: &Stage| {
        let seen = stage.incoming.seen.lock();
        let checks = seen.iter().filter(|frame| frame.code == request::CHECK_TRANSACTION_STATE);
        checks.map(|frame| field(frame, "commitLogOffset").unwrap().parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    // Checks come in the order of halves: the check of a half after the further one shows that the further one was
    // passed over.
    stage.until("checks", |stage| asked(stage).contains(&position(&later))).await;
    assert_eq!(asked(&stage), [position(&first), position(&later)]);
}

#[tokio::test]
async fn a_lease_moves_the_next_check() {
    let stage = Stage::new().await;
    let half = stage.done(half("T", "a")).await;
    let shard = stage.running.broker().shard.clone();
    let row = || shard.half(half_id(&half)).unwrap().unwrap();
    let before = stage.running.broker().now();
    stage.done(end(&half, 0)).await;
    assert_eq!(row().next_due, None, "no answer changes nothing");
    stage.done(end(&half, 0).with_field("retryAfterMillis", 60_000)).await;
    let due = row().next_due.expect("the lease");
    assert!(due >= before + 60_000, "{due}");
    stage.done(end(&half, 0).with_field("retryAfterMillis", i64::MAX)).await;
    let limit = stage.running.broker().now() + 60 * 60 * 1000;
    assert!((due..=limit).contains(&row().next_due.expect("the lease")), "an hour at most");
    let stranger = end(&half, 0).with_field("producerGroup", "other").with_field("retryAfterMillis", 1);
    assert_eq!(stage.call(stranger).await.code, 1);
    stage.done(end(&half, 12)).await;
    let late = stage.call(end(&half, 0).with_field("retryAfterMillis", 1)).await;
    assert_eq!((late.code, field(&late, "decision")), (604, Some("rollback")));
}

#[tokio::test]
async fn a_group_has_a_quota_of_undecided_transactions() {
    let stage = Stage::with(|config| config.transaction_open_max = 2).await;
    let first = stage.done(half("T", "a")).await;
    stage.done(half("T", "b")).await;
    let refused = stage.call(half("T", "c")).await;
    assert_eq!(refused.code, 2, "busy: clients try again");
    let remark = refused.remark.as_deref().unwrap_or_default();
    assert!(remark.contains("transactionOpenMax") && remark.contains("nothing was stored"), "{remark}");
    // Others are not affected, nor are plain messages and decisions.
    stage.done(send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG2"), ("UNIQ_KEY", "d")])).await;
    stage.done(send("T", &[])).await;
    stage.done(end(&first, 8)).await;
    stage.done(half("T", "c")).await;
}

#[tokio::test]
async fn a_topic_may_ask_for_a_duplicate_window() {
    let stage = Stage::new().await;
    let wrong = create_topic("T", 2).with_field("attributes", "+duplicate.window.seconds=soon");
    assert_eq!(stage.call(wrong).await.code, 29);
    stage.done(create_topic("T", 2).with_field("attributes", "+duplicate.window.seconds=60")).await;
    let first = stage.done(send("T", &[("UNIQ_KEY", "u")])).await;
    let again = stage.done(send("T", &[("UNIQ_KEY", "u")])).await;
    for name in ["msgId", "queueId", "queueOffset"] {
        assert_eq!(field(&again, name), field(&first, name), "{name}");
    }
    stage.done(send("T", &[("UNIQ_KEY", "u")]).with_body("another body")).await;
    stage.done(send("T", &[("UNIQ_KEY", "u")]).with_body("another body")).await;
    assert_eq!(stage.stored("T", 0).len(), 2, "one id and two messages, each stored once");
    // The default is off, as producers of other brokers expect.
    stage.done(create_topic("U", 1)).await;
    stage.done(send("U", &[("UNIQ_KEY", "u")])).await;
    stage.done(send("U", &[("UNIQ_KEY", "u")])).await;
    assert_eq!(stage.stored("U", 0).len(), 2);
}

#[tokio::test]
async fn decisions_are_taken_while_halves_are_refused() {
    let stage = Stage::with(|config| config.transaction_open_max = 1).await;
    let held = stage.done(half("T", "held")).await;
    // A flood of halves that are all refused, and of plain messages; the decision's answer comes among theirs.
    let flood = (0..500).map(|nth| stage.remote.call(&stage.address, half("T", &format!("flood {nth}")), PATIENCE));
    let flood = futures_util::future::join_all(flood);
    let (refused, decided) = tokio::join!(flood, stage.done(end(&held, 8)));
    assert!(refused.iter().filter(|answer| answer.as_ref().unwrap().code == 2).count() > 0);
    assert_eq!(field(&decided, "outcome"), Some("committed"));
}
