//! A name server that takes connections and never answers: what no broker was asked for has not happened.

mod fake;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{
    Checker, Client, Decision, Message, MessageExt, MessageQueue, RequestError, SendError, TransactionAction,
    TransactionError, TransactionProducer, TransactionQuery,
};
use escrowmq_common::code::request;
use escrowmq_common::task::{Shutdown, Tasks};
use fake::{Cluster, Hook, Kind};
use tokio::net::TcpListener;
use tokio::time::Instant;

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

async fn client(namesrv: &str) -> Client {
    Client::builder(namesrv).request_timeout(REQUEST).connect().await.expect("something listens")
}

async fn transactional(client: &Client) -> TransactionProducer {
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    client.transaction_producer("TP", checker).deadline(DEADLINE).start().await.expect("started")
}

#[tokio::test]
async fn a_send_whose_route_is_not_found_out_has_stored_nothing_and_ends_in_time() {
    let mute = Mute::start().await;
    let client = client(&mute.addr).await;
    let producer = client.producer("P").deadline(DEADLINE).start().await.expect("started");
    let began = Instant::now();
    let sent = producer.send(Message::new("T", "x")).await.expect_err("nobody says where");
    assert!(began.elapsed() < DEADLINE + 2 * REQUEST, "{:?}", began.elapsed());
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
    let producer = transactional(&client).await;
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
