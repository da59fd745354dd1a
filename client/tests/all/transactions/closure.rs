//! A closure says yes or no.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use escrowmq_client::{Decision, Message, Outcome, TransactionError};
use escrowmq_common::code::{request, response};

use super::{Stage, first};
use crate::fake::{Hook, Kind, until};

#[tokio::test]
async fn yes_commits_and_hands_the_value_over() {
    let stage = Stage::set(1, Kind::Ours).await;
    let database = Arc::new(Mutex::new(Vec::new()));
    let rows = Arc::clone(&database);
    let committed = stage.producer.run(Message::new("T", "x"), |transaction| async move {
        rows.lock().expect("no panic inside").push(transaction.id().to_owned());
        Ok::<usize, String>(17)
    });
    let committed = committed.await.expect("committed");
    assert_eq!(committed.value, 17);
    assert!(matches!(committed.outcome, Outcome::Committed { .. }), "{committed:?}");
    assert_eq!(*database.lock().expect("no panic inside"), [committed.half.message_id]);
    assert_eq!(stage.visible(), ["x"]);
    assert!(stage.listener.ran().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn no_rolls_back_and_hands_the_reason_over() {
    let stage = Stage::set(1, Kind::Ours).await;
    let ran = stage.producer.run(Message::new("T", "x"), |_| async { Err::<(), &str>("no money") }).await;
    let error = ran.expect_err("aborted");
    assert!(!error.outcome_unknown(), "{error}");
    let TransactionError::Aborted { error: "no money", rollback, .. } = error else { panic!("{error}") };
    assert!(matches!(*rollback, Ok(Outcome::RolledBack { .. })), "{rollback:?}");
    assert!(stage.visible().is_empty() && stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn further_messages_share_the_fate_of_the_first() {
    let stage = Stage::set(1, Kind::Ours).await;
    for ends_well in [true, false] {
        let ran = stage.producer.run(Message::new("T", "x"), |transaction| async move {
            let sent = transaction.prepare(Message::new("U", "y")).await.map_err(|error| error.to_string())?;
            if ends_well { Ok(sent.message_id) } else { Err("no".to_owned()) }
        });
        match ran.await {
            Ok(committed) => {
                let Outcome::Committed { members, .. } = committed.outcome else { panic!("{committed:?}") };
                assert_eq!((members.len(), &members[0].message_id), (1, &committed.value));
            }
            Err(error) => assert!(matches!(error, TransactionError::Aborted { .. }), "{error}"),
        }
    }
    assert_eq!((stage.visible(), stage.visible_too()), (vec!["x".to_owned()], vec!["y".to_owned()]));
    assert!(stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_scope_is_of_no_use_after_its_closure() {
    let stage = Stage::set(1, Kind::Ours).await;
    let kept = stage.producer.run(Message::new("T", "x"), |scope| async move { Ok::<_, String>(scope) }).await;
    let scope = kept.expect("committed").value;
    let error = scope.prepare(Message::new("U", "late")).await.expect_err("too late");
    assert!(error.to_string().contains("has ended") && !error.outcome_unknown(), "{error}");
    assert!(stage.visible_too().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_panic_goes_on_and_leaves_the_rest_to_the_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    let producer = stage.producer.clone();
    let mut running = tokio::task::JoinSet::from_iter([async move {
        producer.run(Message::new("T", "x"), |_| async { panic!("on purpose") as Result<(), String> }).await
    }]);
    assert!(running.join_next().await.expect("one").expect_err("it panicked").is_panic());
    assert!(stage.cluster.seen(request::END_TRANSACTION).is_empty(), "nothing is decided here");
    stage.check().await;
    assert_eq!(stage.listener.checked().len(), 1);
    assert_eq!(stage.visible(), ["x"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_the_rest_to_the_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    let endless = stage.producer.run(Message::new("T", "x"), |_| std::future::pending::<Result<(), String>>());
    tokio::select! {
        _ = endless => panic!("it never ends"),
        () = until("the half is there", || stage.cluster.brokers[0].open_halves().len() == 1) => {}
    }
    stage.check().await;
    until("the check commits", || stage.visible() == ["x"]).await;
    assert_eq!(stage.listener.checked().len(), 1);
    stage.strike().await;
}

#[tokio::test]
async fn a_yes_that_nobody_confirms_is_never_an_abort() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::END_TRANSACTION, usize::MAX, || Hook::Silence));
    let ran = stage.producer.run(Message::new("T", "x"), |_| async { Ok::<(), String>(()) }).await;
    let error = ran.expect_err("never confirmed");
    assert!(error.outcome_unknown() && !error.is_retryable());
    assert!(matches!(error, TransactionError::Unresolved { decision: Decision::Commit, .. }), "{error}");
    stage.strike().await;
}

#[tokio::test]
async fn a_no_that_nobody_confirms_says_so_and_its_check_is_answered_here() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(|seen: &crate::fake::Seen| {
        let is_decision = seen.field("fromTransactionCheck").as_deref() == Some("false");
        if seen.frame.code == request::END_TRANSACTION && is_decision { Hook::Silence } else { Hook::Pass }
    });
    let ran = stage.producer.run(Message::new("T", "x"), |_| async { Err::<(), &str>("no money") }).await;
    let error = ran.expect_err("aborted");
    assert!(error.outcome_unknown(), "{error}");
    let TransactionError::Aborted { error: "no money", rollback, .. } = error else { panic!("{error}") };
    assert!(matches!(*rollback, Err(TransactionError::Unresolved { .. })), "{rollback:?}");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.listener.checked().is_empty(), "the listener would have said commit");
    assert!(stage.visible().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_no_after_somebody_elses_commit_names_it() {
    let stage = Stage::set(1, Kind::Ours).await;
    let broker = &stage.cluster.brokers[0];
    let ran = stage.producer.run(Message::new("T", "x"), |_| async {
        broker.decide(broker.open_halves()[0], true);
        Err::<(), &str>("no money")
    });
    let TransactionError::Aborted { rollback, .. } = ran.await.expect_err("aborted") else { panic!("aborted") };
    let Err(TransactionError::OppositeDecision { settled, decided_at, .. }) = *rollback else { panic!("{rollback:?}") };
    assert_eq!(settled, Some(Decision::Commit));
    assert_eq!(decided_at, Some(std::time::UNIX_EPOCH + Duration::from_secs(1)));
    stage.strike().await;
}

#[tokio::test]
async fn without_a_half_the_closure_does_not_run() {
    let stage = Stage::set(1, Kind::Ours).await;
    let ran = Arc::new(Mutex::new(0));
    let run = async || {
        let ran = Arc::clone(&ran);
        let run = stage.producer.run(Message::new("T", "x"), |_| async move {
            *ran.lock().expect("no panic inside") += 1;
            Ok::<(), String>(())
        });
        run.await.expect_err("no half")
    };
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, 1, || Hook::Answer(response::MESSAGE_ILLEGAL, "no")));
    let error = run().await;
    assert!(matches!(&error, TransactionError::Half(_)) && !error.outcome_unknown(), "{error}");
    stage.cluster.brokers[0].lower_level(response::FLUSH_DISK_TIMEOUT);
    let error = run().await;
    assert!(matches!(error, TransactionError::HalfNotSafe { code: response::FLUSH_DISK_TIMEOUT, .. }), "{error}");
    assert_eq!(*ran.lock().expect("no panic inside"), 0);
    assert!(stage.visible().is_empty() && stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_lost_answer_to_the_half_gets_its_identity_back() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, 1, || Hook::SwallowAnswer));
    let committed = stage.producer.run(Message::new("T", "x"), |_| async { Ok::<(), String>(()) }).await;
    let committed = committed.expect("committed");
    assert!(!committed.half.possible_duplicate, "the broker knows the first one");
    let sends = stage.cluster.seen(request::SEND_MESSAGE_V2);
    assert_eq!(sends.len(), 2);
    assert_eq!(sends[0].property("UNIQ_KEY"), sends[1].property("UNIQ_KEY"));
    assert_eq!(stage.visible(), ["x"]);
    assert!(stage.cluster.brokers[0].open_halves().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_half_that_may_be_stored_is_rolled_back_by_its_check() {
    let stage = Stage::set(1, Kind::Ours).await;
    stage.cluster.hook(first(request::SEND_MESSAGE_V2, usize::MAX, || Hook::SwallowAnswer));
    let ran = stage.producer.run(Message::new("T", "x"), |_| async { Ok::<(), String>(()) }).await;
    let error = ran.expect_err("no answer to the half");
    assert!(matches!(&error, TransactionError::Half(_)) && error.outcome_unknown(), "{error}");
    let answer = stage.check().await;
    assert_eq!(answer.field("commitOrRollback").as_deref(), Some("12"));
    assert!(stage.listener.checked().is_empty() && stage.visible().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn shutdown_lets_transactions_in_flight_settle() {
    let stage = Stage::set(1, Kind::Ours).await;
    let (started, is_started) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let producer = stage.producer.clone();
    let sending = tokio::task::JoinSet::from_iter([async move {
        let local = |_| async move {
            started.send(()).expect("somebody waits");
            finished.await.map_err(|error| error.to_string())
        };
        producer.run(Message::new("T", "x"), local).await
    }]);
    is_started.await.expect("it runs");
    let closing = stage.producer.clone();
    let mut closing = tokio::task::JoinSet::from_iter([async move { closing.shutdown().await }]);
    assert!(tokio::time::timeout(Duration::from_millis(100), closing.join_next()).await.is_err(), "one is in flight");
    finish.send(()).expect("it waits");
    closing.join_next().await.expect("one").expect("no panic");
    assert_eq!(stage.visible(), ["x"]);
    let committed = sending.join_all().await.remove(0).expect("committed");
    assert!(matches!(committed.outcome, Outcome::Committed { .. }));
    assert!(stage.cluster.brokers[0].producers("P").is_empty());
    stage.strike().await;
}
