//! A name server that takes connections and never answers: what no broker was asked for has not happened, and nobody
//! waits for it beyond a deadline.

use std::sync::Arc;
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use escrowmq_client::{
    Checker, Client, Decision, Message, MessageExt, MessageQueue, RequestError, SendError, StartError,
    TransactionAction, TransactionError, TransactionProducer, TransactionQuery,
};
use escrowmq_common::code::request;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::net::TcpListener;

/// A server that takes every connection, keeps it and never says a word.
struct Mute {
    addr: String,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Mute {
    async fn start() -> Mute {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound").to_string();
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let ended = shutdown.clone();
        tasks.spawn("mute server", async move {
            let mut kept = Vec::new();
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    accepted = listener.accept() => kept.push(accepted.expect("a connection")),
                }
            }
        });
        Mute { addr, shutdown, tasks }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

const REQUEST: Duration = Duration::from_millis(150);
const DEADLINE: Duration = Duration::from_millis(400);
/// For requests and attempts that only a deadline is to end.
const FOREVER: Duration = Duration::from_secs(3600);
/// Tells what a deadline ends from what nothing ends, on any machine: far longer than the former takes, far shorter
/// than the latter.
const BOUNDED: Duration = Duration::from_secs(60);

async fn client(namesrv: &str) -> Client {
    Client::builder(namesrv).request_timeout(REQUEST).connect().await.expect("something listens")
}

/// One that waits for the answer of a name server, and to a heartbeat, for as long as it is let.
async fn patient_client(namesrv: &str) -> Client {
    let builder = Client::builder(namesrv).request_timeout(FOREVER).route_interval(Duration::from_millis(20));
    // A heartbeat that is never answered holds up the farewell.
    builder.shutdown_timeout(Duration::from_millis(100)).connect().await.expect("something listens")
}

async fn transactional(client: &Client) -> TransactionProducer {
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    client.transaction_producer("TP", checker).deadline(DEADLINE).start().await.expect("started")
}

/// One whose decisions end by their deadline alone.
async fn decisive(client: &Client) -> TransactionProducer {
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let builder = client.transaction_producer("TP", checker).decision_timeout(FOREVER).decision_deadline(DEADLINE);
    builder.start().await.expect("started")
}

/// The result of `step`, which a deadline has to end.
async fn bounded<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUNDED, step).await.expect("a deadline of less than a second ends it")
}

/// How the decision failed that nobody confirmed.
fn last(error: TransactionError) -> RequestError {
    let TransactionError::Unresolved { last, .. } = error else { panic!("{error}") };
    last
}

#[tokio::test]
async fn a_send_waits_for_a_name_server_no_longer_than_its_deadline() {
    let mute = Mute::start().await;
    let client = patient_client(&mute.addr).await;
    let builder = client.producer("P").attempt_timeout(FOREVER).deadline(DEADLINE);
    let producer = builder.start().await.expect("started");
    let batch = vec![Message::new("T", "x")];
    let queue = MessageQueue::new("T", "a", 0);
    let errors = bounded(async {
        [
            producer.send(Message::new("T", "x")).await.expect_err("nobody says where"),
            producer.send_batch(batch).await.expect_err("nobody says where"),
            producer.send_oneway(Message::new("T", "x")).await.expect_err("nobody says where"),
            producer.send_to(Message::new("T", "x"), &queue).await.expect_err("nobody says where"),
        ]
    });
    for error in errors.await {
        assert!(matches!(error, SendError::NotStored { last: RequestError::NotSent { .. }, .. }), "{error}");
    }
    client.shutdown().await;
    mute.stop().await;
}

#[tokio::test]
async fn a_send_waits_for_a_broker_no_longer_than_its_deadline() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    cluster.hook(|seen| if seen.frame.code == request::SEND_MESSAGE_V2 { Hook::Silence } else { Hook::Pass });
    let client = client(&cluster.namesrv).await;
    let builder = client.producer("P").attempt_timeout(FOREVER).deadline(DEADLINE);
    let producer = builder.start().await.expect("started");
    let error = bounded(producer.send(Message::new("T", "x"))).await.expect_err("the broker says nothing");
    assert!(error.outcome_unknown(), "{error}");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_decision_waits_for_a_name_server_no_longer_than_its_deadline() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = patient_client(&cluster.namesrv).await;
    let producer = decisive(&client).await;
    let prepare = async || producer.prepare(Message::new("T", "x")).await.expect("stored");
    let (one, other) = (prepare().await, prepare().await);
    // The topic moves away, so that nobody but the name server could say where its old broker is.
    cluster.set_home("T", "elsewhere");
    let admin = client.admin();
    bounded(async {
        while !admin.queues("T").await.is_ok_and(|queues| queues.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    cluster.mute_names();
    // Before that an answer may still be young enough not to be asked for again.
    let asked = cluster.look_ups("T");
    until("the route is asked for in vain", || cluster.look_ups("T") > asked).await;
    let late = bounded(one.keep_alive(Duration::from_secs(60))).await.expect_err("nobody says where");
    assert!(late.is_retryable() && !late.outcome_unknown(), "no broker was asked for time: {late}");
    for unheard in [
        last(late),
        last(bounded(one.commit()).await.expect_err("nobody says where")),
        last(bounded(other.rollback()).await.expect_err("nobody says where")),
    ] {
        assert!(matches!(unheard, RequestError::NotSent { .. }) && !unheard.outcome_unknown(), "{unheard}");
    }
    assert!(cluster.seen(request::END_TRANSACTION).is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_decision_waits_for_a_greeting_no_longer_than_its_deadline() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = patient_client(&cluster.namesrv).await;
    let producer = decisive(&client).await;
    let transaction = producer.prepare(Message::new("T", "x")).await.expect("stored");
    cluster.hook(|seen| if seen.frame.code == request::HEART_BEAT { Hook::Silence } else { Hook::Pass });
    // Another group: the broker has to hear of it before anything else.
    let _other = client.producer("P").start().await.expect("started");
    let late = bounded(transaction.keep_alive(Duration::from_secs(60))).await.expect_err("not greeted");
    assert!(late.is_retryable() && !late.outcome_unknown(), "{late}");
    let unheard = last(bounded(transaction.commit()).await.expect_err("not greeted"));
    assert!(matches!(unheard, RequestError::NotSent { .. }), "{unheard}");
    assert!(cluster.seen(request::END_TRANSACTION).is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_decision_waits_for_its_answer_no_longer_than_its_deadline() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster.namesrv).await;
    let producer = decisive(&client).await;
    let transaction = producer.prepare(Message::new("T", "x")).await.expect("stored");
    cluster.hook(|seen| if seen.frame.code == request::END_TRANSACTION { Hook::Silence } else { Hook::Pass });
    let late = bounded(transaction.keep_alive(Duration::from_secs(60))).await.expect_err("no answer");
    assert!(late.is_retryable() && late.outcome_unknown(), "the broker may have granted it: {late}");
    let heard = last(bounded(transaction.commit()).await.expect_err("no answer"));
    assert!(matches!(heard, RequestError::TimedOut { .. }), "{heard}");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_decision_that_may_have_been_heard_once_is_told_as_such_whatever_came_later() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = patient_client(&cluster.namesrv).await;
    let producer = decisive(&client).await;
    let transaction = producer.prepare(Message::new("T", "x")).await.expect("stored");
    // The first attempt ends with its connection, and over the next one not even a greeting is answered.
    cluster.hook(|seen| match seen.frame.code {
        request::END_TRANSACTION => Hook::Cut,
        request::HEART_BEAT => Hook::Silence,
        _ => Hook::Pass,
    });
    let heard = last(bounded(transaction.commit()).await.expect_err("nobody confirms"));
    assert!(matches!(heard, RequestError::ConnectionLost { .. }) && heard.outcome_unknown(), "{heard}");
    assert_eq!(cluster.seen(request::END_TRANSACTION).len(), 1);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn decisions_without_any_time_are_refused_at_the_start() {
    let cluster = Cluster::start(1, Kind::Ours, &[]).await;
    let client = client(&cluster.namesrv).await;
    let builder = || client.transaction_producer("TP", Checker::new(|_: MessageExt| async { Decision::Unknown }));
    for builder in [builder().decision_deadline(Duration::ZERO), builder().decision_timeout(Duration::ZERO)] {
        let error = builder.start().await.expect_err("no time");
        assert!(matches!(error, StartError::Setting { setting: "decision_timeout", .. }), "{error}");
    }
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_send_whose_route_is_not_found_out_has_stored_nothing() {
    let mute = Mute::start().await;
    let client = client(&mute.addr).await;
    let producer = client.producer("P").deadline(DEADLINE).start().await.expect("started");
    let sent = producer.send(Message::new("T", "x")).await.expect_err("nobody says where");
    let batch = producer.send_batch(vec![Message::new("T", "x")]).await.expect_err("nobody says where");
    let oneway = producer.send_oneway(Message::new("T", "x")).await.expect_err("nobody says where");
    let queue = MessageQueue::new("T", "a", 0);
    let pinned = producer.send_to(Message::new("T", "x"), &queue).await.expect_err("nobody says where");
    for error in [sent, batch, oneway, pinned] {
        assert!(!error.outcome_unknown() && error.is_retryable(), "{error}");
        assert!(matches!(error, SendError::NotStored { last: RequestError::NotSent { .. }, .. }), "{error}");
        assert!(!error.to_string().contains("unknown"), "{error}");
    }
    client.shutdown().await;
    mute.stop().await;
}

#[tokio::test]
async fn a_half_whose_route_is_not_found_out_leaves_its_transaction_whole() {
    let mute = Mute::start().await;
    let client = client(&mute.addr).await;
    let producer = transactional(&client).await;
    let sent = producer.send(Message::new("T", "x")).await.expect_err("nobody says where");
    let run = producer.run(Message::new("T", "x"), |_| async { Ok::<(), String>(()) }).await.expect_err("nobody");
    let transaction = producer.begin();
    let prepared = transaction.prepare(Message::new("T", "x")).await.expect_err("nobody says where");
    for error in [&sent, &prepared] {
        assert!(matches!(error, TransactionError::Half(_)), "{error}");
        assert!(!error.outcome_unknown() && error.is_retryable(), "{error}");
    }
    assert!(!run.outcome_unknown() && run.is_retryable(), "{run}");
    transaction.keep_alive(Duration::from_secs(1)).await.expect("there is no half yet whose time could end");
    transaction.rollback().await.expect("nothing is stored, so there is nothing to ask a broker");
    client.shutdown().await;
    mute.stop().await;
}

#[tokio::test]
async fn no_question_and_no_command_of_a_tool_is_doubtful_before_a_broker_was_asked() {
    let mute = Mute::start().await;
    let client = client(&mute.addr).await;
    let (admin, queue) = (client.admin(), MessageQueue::new("T", "a", 0));
    let consumer = client.pull_consumer("G").start().await.expect("started");
    let errors = [
        admin.create_topic("T", 4).await.expect_err("nobody answers"),
        admin.queues("T").await.expect_err("nobody answers"),
        admin.min_offset(&queue).await.expect_err("nobody answers"),
        admin.max_offset(&queue).await.expect_err("nobody answers"),
        admin.consumer_offset("G", &queue).await.expect_err("nobody answers"),
        admin.set_consumer_offset("G", &queue, 7).await.expect_err("nobody answers"),
        admin.unregister("c", Some("P"), None).await.expect_err("nobody answers"),
        admin.masters().await.expect_err("nobody answers"),
        consumer.queues("T").await.expect_err("nobody answers"),
        consumer.assign([queue.clone()]).await.expect_err("nobody answers"),
    ];
    for error in errors {
        assert!(!error.outcome_unknown() && error.is_retryable(), "{error}");
        assert!(matches!(error, RequestError::NotSent { .. }), "{error}");
    }
    let sql = client.push_consumer("S").subscribe_sql("T", "a = 1");
    let started = sql.start(|_| async { Ok::<(), String>(()) }).await.expect_err("nobody answers");
    assert!(started.is_retryable(), "{started}");
    client.shutdown().await;
    mute.stop().await;
}

#[tokio::test]
async fn a_broker_that_was_asked_and_said_nothing_is_doubtful_as_before() {
    let mute = Mute::start().await;
    let client = client(&mute.addr).await;
    let admin = client.admin();
    let decided = admin.decide_transaction(&mute.addr, 1, TransactionAction::Commit, "me", "paid").await;
    assert!(decided.expect_err("no answer").outcome_unknown());
    let listed = admin.list_transactions(&mute.addr, &TransactionQuery::default()).await.expect_err("no answer");
    assert!(matches!(listed, RequestError::TimedOut { .. }), "{listed}");
    client.shutdown().await;
    mute.stop().await;
}

#[tokio::test]
async fn more_time_that_could_not_be_asked_for_is_certainly_not_given() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster.namesrv).await;
    let producer = decisive(&client).await;
    let transaction = producer.prepare(Message::new("T", "x")).await.expect("stored");
    // The broker is away from here on: its connection is cut, and the greeting before the request fails.
    let broker = Arc::clone(&cluster.brokers[0]);
    broker.hook(|_| Hook::Cut);
    broker.kill();
    let error = loop {
        let error = transaction.keep_alive(Duration::from_secs(60)).await.expect_err("nobody is there");
        // The first request may still have left by the old connection.
        if !error.outcome_unknown() {
            break error;
        }
    };
    assert!(error.is_retryable(), "{error}");
    assert!(broker.seen(request::SEND_MESSAGE_V2).len() == 1);
    drop(transaction);
    client.shutdown().await;
    cluster.stop().await;
}
