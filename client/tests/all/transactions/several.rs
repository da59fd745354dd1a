//! Several messages in one transaction.

use std::sync::Arc;

use escrowmq_client::{Message, Outcome, SendError, TransactionError};
use escrowmq_common::code::{request, response};

use super::Stage;
use crate::fake::{Hook, Kind, Seen, until};

/// Misbehaves on the first `count` halves that join a transaction.
fn first_members(
    count: usize,
    hook: impl Fn() -> Hook + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Hook + Clone + Send {
    let hook = Arc::new(super::first(request::SEND_MESSAGE_V2, count, hook));
    move |seen: &Seen| if seen.field("transactionFirst").is_some() { hook(seen) } else { Hook::Pass }
}

fn joins(stage: &Stage) -> Vec<Seen> {
    let sends = stage.cluster.seen(request::SEND_MESSAGE_V2).into_iter();
    sends.filter(|seen| seen.field("transactionFirst").is_some()).collect()
}

#[tokio::test]
async fn one_commit_settles_all_and_names_each_place() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin();
    let first = transaction.prepare(Message::new("T", "x")).await.expect("stored");
    assert_eq!(first.message_id, transaction.id());
    let others = [
        transaction.prepare(Message::new("U", "y").unique_id("y")).await.expect("joined"),
        transaction.prepare(Message::new("T", "z").unique_id("z")).await.expect("joined"),
    ];
    let position = transaction.half().expect("prepared");
    assert_eq!(position.message_id, first.message_id);
    assert!(stage.visible().is_empty() && stage.visible_too().is_empty());
    let Outcome::Committed { queue, queue_offset, members, .. } = transaction.commit().await.expect("committed") else {
        panic!("confirmed")
    };
    assert_eq!((queue, queue_offset), (first.queue, Some(0)));
    let told: Vec<_> = members.iter().map(|member| (member.message_id.as_str(), &member.queue)).collect();
    assert_eq!(told, [("y", &others[0].queue), ("z", &others[1].queue)]);
    assert_eq!(members.iter().map(|member| member.queue_offset).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned(), "z".into()], vec!["y".to_owned()]));
    assert_eq!(stage.cluster.seen(request::END_TRANSACTION).len(), 1);
    stage.strike().await;
}

#[tokio::test]
async fn one_rollback_settles_all() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    transaction.prepare(Message::new("U", "y")).await.expect("joined");
    assert!(matches!(transaction.rollback().await, Ok(Outcome::RolledBack { .. })));
    assert!(stage.cluster.brokers[0].open_halves().is_empty());
    assert!(stage.visible().is_empty() && stage.visible_too().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn the_listener_is_asked_once_for_the_whole() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin_with_id("whole");
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    transaction.prepare(Message::new("U", "y")).await.expect("joined");
    drop(transaction);
    stage.check().await;
    assert_eq!(stage.listener.checked(), ["whole"]);
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned()], vec!["y".to_owned()]));
    assert!(stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn members_go_to_the_broker_of_the_first() {
    let stage = Stage::set(3, Kind::Ours).await;
    for round in 0..6 {
        let transaction = stage.producer.begin();
        let first = transaction.prepare(Message::new("T", "x")).await.expect("stored");
        for key in ["a", "b", "c"] {
            let keyed = transaction.prepare(Message::new("U", "y").sharding_key(key)).await.expect("joined");
            let again = transaction.prepare(Message::new("U", "y").sharding_key(key)).await.expect("joined");
            assert_eq!(keyed.queue, again.queue, "a key keeps its queue");
            assert_eq!(keyed.queue.broker(), first.queue.broker(), "round {round}");
        }
        transaction.commit().await.expect("committed");
    }
    assert_eq!((stage.visible().len(), stage.visible_too().len()), (6, 36));
    stage.strike().await;
}

#[tokio::test]
async fn a_topic_on_another_broker_group_is_told_and_the_rest_stays_open() {
    let stage = Stage::set(2, Kind::Ours).await;
    for (topic, home) in [("OnA", "a"), ("OnB", "b")] {
        stage.cluster.set_topic(topic, 1);
        stage.cluster.set_home(topic, home);
    }
    let transaction = stage.producer.begin();
    let first = transaction.prepare(Message::new("T", "x")).await.expect("stored");
    let elsewhere = if first.queue.broker() == "a" { "OnB" } else { "OnA" };
    let error = transaction.prepare(Message::new(elsewhere, "y")).await.expect_err("elsewhere");
    assert!(!error.outcome_unknown() && !error.is_retryable(), "{error}");
    let TransactionError::OtherBrokerGroup { topic, broker, .. } = error else { panic!("{error}") };
    assert_eq!((topic.as_str(), broker.as_str()), (elsewhere, first.queue.broker()));
    assert!(joins(&stage).is_empty(), "nothing was sent");
    transaction.prepare(Message::new("U", "z")).await.expect("this one is there");
    transaction.commit().await.expect("still open");
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned()], vec!["z".to_owned()]));
    stage.strike().await;
}

#[tokio::test]
async fn a_lost_answer_to_a_member_is_asked_for_again() {
    let stage = Stage::set(2, Kind::Ours).await;
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    stage.cluster.hook(first_members(1, || Hook::SwallowAnswer));
    let member = transaction.prepare(Message::new("U", "y")).await.expect("found again");
    assert!(!member.possible_duplicate, "the broker knows the first one");
    let joins = joins(&stage);
    assert_eq!(joins.len(), 2);
    assert_eq!(joins[0].field("transactionFirst"), joins[1].field("transactionFirst"));
    assert_eq!(joins[0].property("UNIQ_KEY"), joins[1].property("UNIQ_KEY"));
    transaction.commit().await.expect("whole");
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned()], vec!["y".to_owned()]));
    stage.strike().await;
}

#[tokio::test]
async fn a_member_that_may_be_missing_forbids_the_commit() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broken = async || {
        let transaction = stage.producer.begin();
        transaction.prepare(Message::new("T", "x")).await.expect("stored");
        stage.cluster.hook(first_members(usize::MAX, || Hook::Silence));
        let error = transaction.prepare(Message::new("U", "y").unique_id("y")).await.expect_err("no answer");
        assert!(matches!(&error, TransactionError::Half(SendError::OutcomeUnknown { .. })), "{error}");
        let error = transaction.prepare(Message::new("T", "z")).await.expect_err("not before the other is known");
        assert!(matches!(error, TransactionError::Incomplete { .. }), "{error}");
        stage.cluster.hook(|_: &Seen| Hook::Pass);
        transaction
    };
    // Found again by whoever cares to ask.
    let transaction = broken().await;
    transaction.prepare(Message::new("U", "y").unique_id("y")).await.expect("stored after all");
    transaction.commit().await.expect("whole");
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned()], vec!["y".to_owned()]));
    // Rolled back.
    broken().await.rollback().await.expect("rolled back");
    assert!(stage.cluster.brokers[0].open_halves().is_empty());
    // Committed in spite of it, and then the check would be answered with a commit by the listener.
    let error = broken().await.commit().await.expect_err("incomplete");
    assert!(!error.outcome_unknown() && !error.is_retryable(), "{error}");
    let TransactionError::Incomplete { message_id, .. } = error else { panic!("{error}") };
    assert_eq!(message_id, "y");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.listener.checked().is_empty());
    assert_eq!((stage.visible().len(), stage.visible_too().len()), (1, 1));
    stage.strike().await;
}

#[tokio::test]
async fn a_member_that_is_refused_for_certain_does_not_break_the_rest() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    stage.cluster.hook(first_members(1, || Hook::Answer(response::ILLEGAL_OPERATION, "too many")));
    let error = transaction.prepare(Message::new("U", "y")).await.expect_err("refused");
    assert!(matches!(&error, TransactionError::Half(SendError::NotStored { .. })), "{error}");
    transaction.commit().await.expect("without it");
    assert_eq!(stage.visible(), ["x"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_certain_refusal_does_not_heal_an_uncertain_attempt() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    let again = || Message::new("U", "y").unique_id("y");
    stage.cluster.hook(first_members(usize::MAX, || Hook::SwallowAnswer));
    transaction.prepare(again()).await.expect_err("no answer");
    stage.cluster.hook(first_members(usize::MAX, || Hook::Answer(response::MESSAGE_ILLEGAL, "no")));
    transaction.prepare(again()).await.expect_err("refused");
    let error = transaction.commit().await.expect_err("the first attempt may have joined");
    assert!(matches!(error, TransactionError::Incomplete { .. }), "{error}");
    stage.strike().await;
}

#[tokio::test]
async fn a_member_that_is_given_up_forbids_the_commit() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    stage.cluster.hook(first_members(usize::MAX, || Hook::SwallowAnswer));
    tokio::select! {
        _ = transaction.prepare(Message::new("U", "y")) => panic!("the answer is lost"),
        () = until("it joins", || stage.cluster.brokers[0].open_halves().len() == 2) => {}
    }
    let error = transaction.commit().await.expect_err("incomplete");
    assert!(matches!(error, TransactionError::Incomplete { .. }), "{error}");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.cluster.brokers[0].open_halves().is_empty(), "one answer settles both");
    stage.strike().await;
}

#[tokio::test]
async fn a_member_that_is_not_safe_forbids_the_commit() {
    let stage = Stage::set(1, Kind::Ours).await;
    for rolls_back in [true, false] {
        let transaction = stage.producer.begin();
        transaction.prepare(Message::new("T", "x")).await.expect("stored");
        stage.cluster.brokers[0].lower_level(response::FLUSH_SLAVE_TIMEOUT);
        let error = transaction.prepare(Message::new("U", "y")).await.expect_err("not safe");
        assert!(matches!(error, TransactionError::HalfNotSafe { code: response::FLUSH_SLAVE_TIMEOUT, .. }), "{error}");
        stage.cluster.brokers[0].lower_level(response::SUCCESS);
        if rolls_back {
            transaction.rollback().await.expect("rolled back");
        } else {
            let error = transaction.commit().await.expect_err("incomplete");
            assert!(matches!(error, TransactionError::Incomplete { .. }), "{error}");
            stage.check().await;
        }
        assert!(stage.cluster.brokers[0].open_halves().is_empty());
    }
    assert!(stage.visible().is_empty() && stage.visible_too().is_empty() && stage.listener.checked().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_decided_transaction_takes_no_more() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broker = &stage.cluster.brokers[0];
    let transaction = stage.producer.begin();
    transaction.prepare(Message::new("T", "x")).await.expect("stored");
    broker.decide(broker.open_halves()[0], false);
    let error = transaction.prepare(Message::new("U", "y")).await.expect_err("too late");
    assert!(matches!(error, TransactionError::AlreadyDecided { .. }) && !error.outcome_unknown(), "{error}");
    let error = transaction.commit().await.expect_err("the opposite");
    assert!(matches!(error, TransactionError::OppositeDecision { .. }), "{error}");
    assert!(broker.open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn brokers_that_cannot_join_get_nothing() {
    for kind in [Kind::Apache, Kind::Confirming] {
        let stage = Stage::set(1, kind).await;
        let error = stage.producer.begin().prepare(Message::new("T", "x")).await.expect_err("unsupported");
        assert!(matches!(error, TransactionError::Unsupported { .. }) && !error.outcome_unknown(), "{error}");
        assert!(stage.cluster.seen(request::SEND_MESSAGE_V2).is_empty());
        // One that began with one message is left as it is.
        let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
        let error = transaction.prepare(Message::new("U", "y")).await.expect_err("unsupported");
        assert!(matches!(error, TransactionError::Unsupported { .. }), "{error}");
        assert_eq!(stage.cluster.seen(request::SEND_MESSAGE_V2).len(), 1);
        transaction.commit().await.expect("of one message");
        until("it arrives", || stage.visible() == ["x"]).await;
        stage.strike().await;
    }
}

#[tokio::test]
async fn an_empty_one_cannot_be_committed_and_need_not_be_rolled_back() {
    let stage = Stage::set(1, Kind::Ours).await;
    let error = stage.producer.begin().commit().await.expect_err("nothing to commit");
    assert!(error.to_string().contains("no message"), "{error}");
    assert!(matches!(stage.producer.begin().rollback().await, Ok(Outcome::RolledBack { .. })));
    assert!(stage.cluster.seen(request::END_TRANSACTION).is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn the_id_is_the_first_messages_and_no_message_comes_twice() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.begin_with_id("mine");
    let error = transaction.prepare(Message::new("T", "x").unique_id("other")).await.expect_err("two ids");
    assert!(error.to_string().contains("another unique id"), "{error}");
    transaction.prepare(Message::new("T", "x").unique_id("mine")).await.expect("stored");
    let error = transaction.prepare(Message::new("T", "x").unique_id("mine")).await.expect_err("twice");
    assert!(error.to_string().contains("already"), "{error}");
    transaction.commit().await.expect("committed");
    assert_eq!(stage.visible(), ["x"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_first_message_that_may_be_stored_is_found_again_or_left_to_the_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    let lost = async |id: &str| {
        stage.cluster.hook(super::first(request::SEND_MESSAGE_V2, usize::MAX, || Hook::SwallowAnswer));
        let transaction = stage.producer.begin_with_id(id);
        let error = transaction.prepare(Message::new("T", id.to_owned())).await.expect_err("no answer");
        assert!(error.outcome_unknown(), "{error}");
        stage.cluster.hook(|_: &Seen| Hook::Pass);
        // Another message with the id that it would get is not mistaken for the lost one.
        let error = transaction.prepare(Message::new("T", "another")).await.expect_err("not before the lost one");
        assert!(matches!(error, TransactionError::Incomplete { .. }), "{error}");
        transaction
    };
    let transaction = lost("found").await;
    transaction.prepare(Message::new("T", "found").unique_id("found")).await.expect("found");
    transaction.commit().await.expect("committed");
    let error = lost("left").await.rollback().await.expect_err("nobody knows where it lies");
    assert!(matches!(error, TransactionError::Unresolved { .. }), "{error}");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert_eq!(stage.visible(), ["found"]);
    assert!(stage.listener.checked().is_empty());
    stage.strike().await;
}
