//! The listener runs the local transaction.

use escrowmq_client::{Client, Decision, Durability, Message, Outcome, TransactionError};
use escrowmq_common::code::{request, response};

use super::{Obedient, Stage, first};
use crate::fake::{Cluster, Hook, Kind, until};

#[tokio::test]
async fn a_commit_is_awaited_and_names_its_place() {
    let stage = Stage::set(1, Kind::Ours).await;
    let result = stage.producer.send(Message::new("T", "commit")).await.expect("committed");
    let Outcome::Committed { queue, queue_offset, level, repeated, members, .. } = &result.outcome else {
        panic!("{result:?}")
    };
    assert_eq!((queue.topic(), *queue_offset, *level), ("T", Some(0), Some(Durability::Flushed)));
    assert!(!repeated && members.is_empty());
    assert_eq!(stage.visible(), ["commit"]);
    let half = &stage.cluster.seen(request::SEND_MESSAGE_V2)[0];
    assert_eq!(half.field("f").as_deref(), Some("4"));
    assert_eq!(half.property("TRAN_MSG").as_deref(), Some("true"));
    assert_eq!(half.property("PGROUP").as_deref(), Some("P"));
    let end = &stage.cluster.seen(request::END_TRANSACTION)[0];
    assert!(!end.frame.is_oneway());
    assert_eq!(end.field("msgId"), half.property("UNIQ_KEY"));
    assert_eq!(end.field("topic").as_deref(), Some("T"));
    stage.strike().await;
}

#[tokio::test]
async fn a_rollback_is_awaited_and_nothing_appears() {
    let stage = Stage::set(1, Kind::Ours).await;
    let result = stage.producer.send(Message::new("T", "rollback")).await.expect("rolled back");
    assert!(matches!(result.outcome, Outcome::RolledBack { repeated: false, .. }), "{result:?}");
    assert!(stage.visible().is_empty() && stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn other_brokers_get_the_decision_one_way() {
    let stage = Stage::set(1, Kind::Apache).await;
    let result = stage.producer.send(Message::new("T", "commit")).await.expect("sent");
    assert_eq!(result.outcome, Outcome::Unconfirmed);
    until("the commit arrives", || stage.visible() == ["commit"]).await;
    assert!(stage.cluster.seen(request::END_TRANSACTION)[0].frame.is_oneway());
    stage.strike().await;
}

#[tokio::test]
async fn who_insists_on_confirmation_sends_other_brokers_nothing() {
    let stage = Stage::set(1, Kind::Apache).await;
    let builder = stage.client.transaction_producer("Q", Obedient::default()).require_confirmation(true);
    let producer = builder.start().await.expect("started");
    let error = producer.send(Message::new("T", "commit")).await.expect_err("unconfirmable");
    assert!(matches!(error, TransactionError::Unconfirmable { .. }), "{error}");
    let delayed = stage.producer.send(Message::new("T", "commit").delay_level(3)).await.expect_err("would be lost");
    assert!(matches!(&delayed, TransactionError::Half(error) if !error.outcome_unknown()), "{delayed}");
    assert!(stage.cluster.seen(request::SEND_MESSAGE_V2).is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_lost_answer_to_the_decision_is_asked_for_again() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::END_TRANSACTION, 1, || Hook::SwallowAnswer));
    let result = stage.producer.send(Message::new("T", "commit")).await.expect("confirmed by the repeat");
    assert!(matches!(result.outcome, Outcome::Committed { repeated: true, .. }), "{result:?}");
    assert_eq!(stage.cluster.seen(request::END_TRANSACTION).len(), 2);
    assert_eq!(stage.visible(), ["commit"], "once");
    stage.strike().await;
}

#[tokio::test]
async fn a_decision_that_nobody_confirms_is_unknown_and_not_a_failure() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::END_TRANSACTION, usize::MAX, || Hook::Silence));
    let error = stage.producer.send(Message::new("T", "commit")).await.expect_err("never confirmed");
    assert!(error.outcome_unknown() && !error.is_retryable());
    let TransactionError::Unresolved { decision, .. } = error else { panic!("{error}") };
    assert_eq!(decision, Decision::Commit);
    stage.strike().await;
}

#[tokio::test]
async fn unknown_is_settled_by_the_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    let result = stage.producer.send(Message::new("T", "later")).await.expect("undecided");
    assert_eq!(result.outcome, Outcome::Undecided);
    let broker = &stage.cluster.brokers[0];
    broker.check("P", broker.open_halves()[0]);
    until("the check commits", || stage.visible() == ["later"]).await;
    assert_eq!(stage.listener.checked(), std::slice::from_ref(&result.half.message_id));
    let answer = stage.cluster.seen(request::END_TRANSACTION).pop().expect("the check's answer");
    assert_eq!(answer.field("fromTransactionCheck").as_deref(), Some("true"));
    assert_eq!(answer.field("topic").as_deref(), Some("RMQ_SYS_TRANS_HALF_TOPIC"), "echoed");
    assert_eq!(answer.field("msgId"), Some(result.half.message_id));
    stage.strike().await;
}

#[tokio::test]
async fn a_panic_means_unknown_and_the_producer_lives_on() {
    let stage = Stage::set(1, Kind::Ours).await;
    let result = stage.producer.send(Message::new("T", "panic")).await.expect("undecided");
    assert_eq!((result.decision, result.outcome), (Decision::Unknown, Outcome::Undecided));
    let broker = &stage.cluster.brokers[0];
    broker.check("P", broker.open_halves()[0]);
    until("the check is answered too", || stage.cluster.seen(request::END_TRANSACTION).len() == 2).await;
    let answers = stage.cluster.seen(request::END_TRANSACTION);
    for answer in &answers {
        assert_eq!(answer.field("commitOrRollback").as_deref(), Some("0"));
        assert!(answer.frame.remark.as_deref().is_some_and(|remark| remark.contains("on purpose")), "{answer:?}");
    }
    assert_eq!(broker.open_halves().len(), 1);
    stage.producer.send(Message::new("T", "commit")).await.expect("the next one is fine");
    stage.strike().await;
}

#[tokio::test]
async fn a_half_that_is_not_safe_is_rolled_back_without_a_local_transaction() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.brokers[0].lower_level(response::FLUSH_DISK_TIMEOUT);
    let error = stage.producer.send(Message::new("T", "commit")).await.expect_err("not safe");
    assert!(matches!(error, TransactionError::HalfNotSafe { code: response::FLUSH_DISK_TIMEOUT, .. }), "{error}");
    assert!(stage.listener.ran().is_empty());
    let ends = stage.cluster.seen(request::END_TRANSACTION);
    assert_eq!(ends[0].field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.cluster.brokers[0].open_halves().is_empty() && stage.visible().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_half_that_was_refused_runs_nothing() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, usize::MAX, || Hook::Answer(response::MESSAGE_ILLEGAL, "no")));
    let error = stage.producer.send(Message::new("T", "commit")).await.expect_err("refused");
    assert!(matches!(&error, TransactionError::Half(_)) && !error.outcome_unknown(), "{error}");
    assert!(stage.listener.ran().is_empty() && stage.cluster.seen(request::END_TRANSACTION).is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_stray_half_is_rolled_back_without_asking_the_listener() {
    // Ours would get it again, and recognise it.
    let stage = Stage::set(2, Kind::Apache).await;
    // The first broker stores the half and its answer is lost; the second one's half is the one that counts.
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, 1, || Hook::SwallowAnswer));
    let result = stage.producer.send(Message::new("T", "commit")).await.expect("committed on the second broker");
    assert!(result.half.possible_duplicate);
    until("the decision has arrived", || stage.visible() == ["commit"]).await;
    let stray = stage.cluster.brokers.iter().find(|broker| !broker.open_halves().is_empty()).expect("the stray half");
    stray.check("P", stray.open_halves()[0]);
    until("the stray half is settled", || stray.open_halves().is_empty()).await;
    assert_eq!(stage.visible(), ["commit"], "not delivered twice");
    assert!(stage.listener.checked().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_producer_with_topics_can_be_asked_before_it_sends() {
    let stage = Stage::set(1, Kind::Ours).await;
    assert_eq!(stage.cluster.brokers[0].producers("P"), [stage.client.id()]);
    assert!(stage.cluster.seen(request::SEND_MESSAGE_V2).is_empty());
    // A half of an earlier process of the group.
    let earlier = Client::builder(&stage.cluster.namesrv).connect().await.expect("a name server");
    let crashed = earlier.transaction_producer("P", Obedient::default()).start().await.expect("started");
    crashed.send(Message::new("T", "later")).await.expect("undecided");
    crashed.shutdown().await;
    let broker = &stage.cluster.brokers[0];
    broker.check("P", broker.open_halves()[0]);
    until("the survivor commits", || stage.visible() == ["later"]).await;
    assert_eq!(stage.listener.checked().len(), 1);
    earlier.shutdown().await;
    stage.strike().await;
}

#[tokio::test]
async fn the_group_is_known_to_a_broker_before_its_first_half() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    let producer = client.transaction_producer("P", Obedient::default()).start().await.expect("started");
    producer.send(Message::new("T", "commit")).await.expect("committed");
    let codes: Vec<i32> = cluster.brokers[0].codes();
    let heartbeat = codes.iter().position(|code| *code == request::HEART_BEAT).expect("a heartbeat");
    let half = codes.iter().position(|code| *code == request::SEND_MESSAGE_V2).expect("a half");
    assert!(heartbeat < half, "{codes:?}");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broken_connection_is_greeted_again_before_the_next_half() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.producer.send(Message::new("T", "commit")).await.expect("committed");
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, 1, || Hook::Cut));
    stage.producer.send(Message::new("T", "commit")).await.expect("committed over a new connection");
    let seen = stage.cluster.seen(request::SEND_MESSAGE_V2);
    let last = seen.last().expect("sends").connection;
    let greeted = stage.cluster.seen(request::HEART_BEAT).iter().any(|seen| seen.connection == last);
    assert!(greeted, "the new connection carried a heartbeat");
    assert_eq!(stage.cluster.brokers[0].producers("P"), [stage.client.id()]);
    stage.strike().await;
}
