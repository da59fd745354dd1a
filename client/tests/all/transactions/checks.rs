//! Checks: the instance that answers them, and its answers.

use std::time::Duration;

use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, Outcome, Router, TransactionError};
use escrowmq_common::code::request;

use super::{Obedient, Stage};
use crate::fake::{Cluster, Kind, until};

#[tokio::test]
async fn a_running_transaction_is_in_progress_and_its_listener_not_asked() {
    let stage = Stage::set(1, Kind::Ours).await;
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("0"), "not known yet");
    assert_eq!(answer.field("retryAfterMillis").as_deref(), Some("5000"));
    assert!(stage.listener.checked().is_empty());
    transaction.commit().await.expect("committed");
    assert_eq!(stage.visible(), ["x"]);
    stage.strike().await;
}

#[tokio::test]
async fn to_other_brokers_in_progress_is_unknown() {
    let stage = Stage::set(1, Kind::Confirming).await;
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("0"));
    assert_eq!(answer.field("retryAfterMillis"), None);
    drop(transaction);
    let later = Decision::InProgress { retry_after: Duration::from_secs(7) };
    stage.listener.answers.lock().expect("no panic inside").insert("x".into(), later);
    let answer = stage.check().await;
    assert_eq!(answer.field("retryAfterMillis"), None);
    assert_eq!(stage.cluster.brokers[0].open_halves().len(), 1);
    stage.strike().await;
}

#[tokio::test]
async fn a_listener_can_ask_for_time() {
    let stage = Stage::set(1, Kind::Ours).await;
    let later = Decision::InProgress { retry_after: Duration::from_millis(7_500) };
    stage.listener.answers.lock().expect("no panic inside").insert("slow".into(), later);
    let result = stage.producer.send(Message::new("T", "slow")).await.expect("undecided");
    assert_eq!((result.decision, result.outcome), (later, Outcome::Undecided));
    let broker = &stage.cluster.brokers[0];
    let half = broker.open_halves()[0];
    until("the keep-alive arrives", || broker.extensions(half) == [7_500]).await;
    assert!(stage.cluster.seen(request::END_TRANSACTION)[0].frame.is_oneway());
    let answer = stage.check().await;
    assert_eq!(answer.field("retryAfterMillis").as_deref(), Some("7500"));
    assert_eq!((broker.extensions(half), broker.open_halves()), (vec![7_500, 7_500], vec![half]));
    stage.listener.answers.lock().expect("no panic inside").insert("slow".into(), Decision::Commit);
    stage.check().await;
    assert_eq!(stage.visible(), ["slow"]);
    stage.strike().await;
}

#[tokio::test]
async fn what_another_process_answers_is_the_first_decision() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broker = &stage.cluster.brokers[0];
    // Another process of the group, the first one in the broker's order, so that it is asked.
    let other = Client::builder(&stage.cluster.namesrv).instance_name("0").connect().await.expect("a name server");
    let listener = Obedient::default();
    listener.answers.lock().expect("no panic inside").insert("x".into(), Decision::Rollback);
    let others = other.transaction_producer("P", listener.clone()).topics(["T"]).start().await.expect("started");
    let transaction = stage.producer.prepare(Message::new("T", "x")).await.expect("stored");
    stage.check().await;
    until("it is settled", || broker.open_halves().is_empty()).await;
    assert_eq!(listener.checked().len(), 1);
    let error = transaction.commit().await.expect_err("too late");
    let TransactionError::OppositeDecision { decision, settled, .. } = error else { panic!("{error}") };
    assert_eq!((decision, settled), (Decision::Commit, Some(Decision::Rollback)));
    assert!(stage.visible().is_empty());
    others.shutdown().await;
    other.shutdown().await;
    stage.strike().await;
}

/// Answers every check with this decision.
fn always(decision: Decision) -> impl escrowmq_client::TransactionListener {
    Checker::new(move |_: MessageExt| async move { decision })
}

#[tokio::test]
async fn a_checker_alone_settles_what_was_sent() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    let producer = client.transaction_producer("P", always(Decision::Commit)).start().await.expect("started");
    let result = producer.send(Message::new("T", "x")).await.expect("stored");
    assert_eq!(result.outcome, Outcome::Undecided, "there is nothing to run");
    let broker = &cluster.brokers[0];
    broker.check("P", broker.open_halves()[0]);
    until("the check commits", || broker.bodies("T", 0) == ["x"]).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_router_asks_the_listener_of_the_tag_then_of_the_topic() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1), ("U", 1), ("V", 1)]).await;
    let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    let (orders, refunds) = (Obedient::default(), Obedient::default());
    let router = Router::new().on("T", orders.clone()).on_tag("T", "refund", refunds.clone());
    let router = router.on("U", always(Decision::Rollback));
    let producer = client.transaction_producer("P", router).start().await.expect("started");
    let broker = &cluster.brokers[0];
    // Local transactions by topic and tag.
    producer.send(Message::new("T", "commit").tag("refund")).await.expect("committed");
    assert_eq!((orders.ran().len(), refunds.ran().len()), (0, 1));
    producer.send(Message::new("T", "commit").tag("other")).await.expect("committed");
    assert_eq!((orders.ran().len(), refunds.ran().len()), (1, 1));
    // And checks.
    for message in [
        Message::new("T", "later").tag("refund"),
        Message::new("T", "later"),
        Message::new("U", "later").tag("refund"),
        Message::new("V", "later"),
    ] {
        producer.send(message).await.expect("undecided");
    }
    let halves = broker.open_halves();
    for half in &halves {
        broker.check("P", *half);
    }
    until("all but the last are settled", || broker.open_halves() == halves[3..]).await;
    assert_eq!((orders.checked().len(), refunds.checked().len()), (1, 1));
    assert_eq!(broker.bodies("T", 0).len(), 4);
    assert!(broker.bodies("U", 0).is_empty());
    let answers = cluster.seen(request::END_TRANSACTION).into_iter();
    let of_last = answers.filter(|end| end.field("commitLogOffset") == Some(halves[3].to_string()));
    until("nobody's check is answered, too", || {
        let answers = cluster.seen(request::END_TRANSACTION).into_iter();
        let mut unknown = answers.filter(|end| end.field("fromTransactionCheck").as_deref() == Some("true"));
        unknown.any(|end| end.field("commitLogOffset") == Some(halves[3].to_string()))
    })
    .await;
    for end in of_last {
        assert_eq!(end.field("commitOrRollback").as_deref(), Some("0"));
    }
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn producers_of_several_groups_in_one_process_are_asked_each_about_its_own() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    let (ones, others) = (Obedient::default(), Obedient::default());
    let one = client.transaction_producer("P", ones.clone()).start().await.expect("started");
    let other = client.transaction_producer("Q", others.clone()).start().await.expect("started");
    let sent = one.send(Message::new("T", "one")).await.expect("undecided").half.message_id;
    let held = other.prepare(Message::new("T", "other")).await.expect("stored");
    let broker = &cluster.brokers[0];
    let [of_one, of_other] = broker.open_halves()[..] else { panic!("two halves") };
    broker.check("Q", of_other);
    broker.check("P", of_one);
    until("the first group commits", || broker.bodies("T", 0) == ["one"]).await;
    assert_eq!(ones.checked(), [sent]);
    let id = held.id().to_owned();
    drop(held);
    broker.check("Q", of_other);
    until("the second one, too", || broker.bodies("T", 0) == ["one", "other"]).await;
    assert_eq!(others.checked(), [id]);
    assert_eq!(ones.checked().len(), 1);
    // The end of one is not the end of the other.
    one.shutdown().await;
    other.prepare(Message::new("T", "last")).await.expect("stored").commit().await.expect("committed");
    client.shutdown().await;
    cluster.stop().await;
}
