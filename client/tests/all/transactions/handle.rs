//! A transaction in the user's hands.

use std::time::{Duration, UNIX_EPOCH};

use escrowmq_client::{Decision, Message, Outcome, TransactionError};
use escrowmq_common::code::request;

use super::{Stage, first};
use crate::fake::{Hook, Kind, until};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_is_decided_when_its_holder_decides() {
    let stage = Stage::set(1, Kind::Ours).await;
    let one = stage.producer.prepare(Message::new("T", "one")).await.expect("stored");
    let other = stage.producer.prepare(Message::new("T", "other").unique_id("mine")).await.expect("stored");
    assert_eq!(other.id(), "mine");
    assert_eq!(one.half().expect("prepared").transaction_id, one.id());
    assert!(stage.visible().is_empty() && stage.cluster.seen(request::END_TRANSACTION).is_empty());
    assert!(matches!(other.rollback().await, Ok(Outcome::RolledBack { repeated: false, .. })));
    assert!(matches!(one.commit().await, Ok(Outcome::Committed { repeated: false, .. })));
    assert_eq!(stage.visible(), ["one"]);
    assert!(stage.listener.checked().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn dropping_it_decides_nothing() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    let id = transaction.id().to_owned();
    drop(transaction);
    stage.check().await;
    assert_eq!(stage.listener.checked(), [id]);
    assert_eq!(stage.visible(), ["x"]);
    assert_eq!(stage.cluster.seen(request::END_TRANSACTION).len(), 1, "the answer to the check");
    stage.strike().await;
}

#[tokio::test]
async fn a_prepare_that_is_given_up_is_rolled_back_by_its_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, 1, || Hook::SwallowAnswer));
    tokio::select! {
        _ = stage.producer.prepare(Message::new("T", "x")) => panic!("the answer is lost"),
        () = until("the half is there", || stage.cluster.brokers[0].open_halves().len() == 1) => {}
    }
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.listener.checked().is_empty() && stage.visible().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn the_first_decision_wins() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broker = &stage.cluster.brokers[0];
    let decided = async |commit: bool| {
        let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
        broker.decide(broker.open_halves()[0], commit);
        transaction
    };
    let repeated = decided(true).await.commit().await.expect("the same");
    let Outcome::Committed { repeated: true, queue_offset: Some(0), .. } = repeated else { panic!("{repeated:?}") };
    let repeated = decided(false).await.rollback().await.expect("the same");
    assert!(matches!(repeated, Outcome::RolledBack { repeated: true, .. }), "{repeated:?}");
    let opposite = decided(true).await.rollback().await.expect_err("the opposite");
    assert!(!opposite.is_retryable() && !opposite.outcome_unknown(), "{opposite}");
    let TransactionError::OppositeDecision { settled, decided_at, .. } = opposite else { panic!("{opposite}") };
    assert_eq!((settled, decided_at), (Some(Decision::Commit), Some(UNIX_EPOCH + Duration::from_secs(1))));
    let opposite = decided(false).await.commit().await.expect_err("the opposite");
    let TransactionError::OppositeDecision { settled, .. } = opposite else { panic!("{opposite}") };
    assert_eq!(settled, Some(Decision::Rollback));
    assert_eq!(stage.visible(), ["x", "x"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_confirmed_by_its_repeat() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::END_TRANSACTION, 1, || Hook::SwallowAnswer));
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    let outcome = transaction.commit().await.expect("confirmed");
    assert!(matches!(outcome, Outcome::Committed { repeated: true, queue_offset: Some(0), .. }), "{outcome:?}");
    assert_eq!(stage.visible(), ["x"], "once");
    stage.strike().await;
}

#[tokio::test]
async fn a_rollback_that_nobody_confirms_is_repeated_by_the_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    stage.cluster.hook(first(request::END_TRANSACTION, usize::MAX, || Hook::Silence));
    let error = transaction.rollback().await.expect_err("never confirmed");
    assert!(matches!(error, TransactionError::Unresolved { decision: Decision::Rollback, .. }), "{error}");
    stage.cluster.hook(|_: &crate::fake::Seen| Hook::Pass);
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.listener.checked().is_empty() && stage.visible().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn it_can_ask_for_more_time() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broker = &stage.cluster.brokers[0];
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    transaction.keep_alive(MINUTE).await.expect("granted");
    assert_eq!(broker.extensions(broker.open_halves()[0]), [60_000]);
    let asked = &stage.cluster.seen(request::END_TRANSACTION)[0];
    assert!(!asked.frame.is_oneway());
    assert_eq!(asked.field("fromTransactionCheck").as_deref(), Some("false"));
    assert_eq!(asked.field("commitOrRollback").as_deref(), Some("0"));

    stage.cluster.hook(first(request::END_TRANSACTION, 1, || Hook::Silence));
    transaction.keep_alive(MINUTE).await.expect("granted the second time");
    assert_eq!(stage.cluster.seen(request::END_TRANSACTION).len(), 3);

    broker.decide(broker.open_halves()[0], false);
    let error = transaction.keep_alive(MINUTE).await.expect_err("decided");
    assert!(matches!(error, TransactionError::AlreadyDecided { settled: Decision::Rollback, .. }), "{error}");
    stage.strike().await;
}

#[tokio::test]
async fn brokers_that_cannot_give_time_are_not_asked() {
    for kind in [Kind::Apache, Kind::Confirming] {
        let stage = Stage::set(1, kind).await;
        let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
        let error = transaction.keep_alive(MINUTE).await.expect_err("unsupported");
        assert!(matches!(error, TransactionError::Unsupported { .. }) && !error.is_retryable(), "{error}");
        assert!(stage.cluster.seen(request::END_TRANSACTION).is_empty());
        transaction.commit().await.expect("no less a transaction");
        until("the commit arrives", || stage.visible() == ["x"]).await;
        stage.strike().await;
    }
}

#[tokio::test]
async fn it_does_not_hold_up_a_shutdown_and_is_decided_after_it() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    stage.producer.shutdown().await;
    let error = transaction.prepare(Message::new("U", "y")).await.expect_err("shut down");
    assert!(matches!(&error, TransactionError::Half(_)) && !error.outcome_unknown(), "{error}");
    transaction.commit().await.expect("the client is still there");
    assert_eq!(stage.visible(), ["x"]);
    stage.strike().await;
}
