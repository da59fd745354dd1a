//! A failover at each step of a transaction of the Rust client: nobody leads for a while, and the application sees no error.
//! `outages.rs` kills leaders under load.

use std::time::Duration;

use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, Outcome, Transaction, TransactionProducer};
use escrowmq_common::body::TransactionCounts;
use escrowmq_common::body::json::from_slice;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::{End, Settings, until, until_within};

const TOPIC: &str = "Failover";
const QUEUES: i32 = 4;
const GROUP: &str = "failover-producer";
/// For a send with all its attempts: several failovers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A leader that is stopped answers nothing: a request that waits so long has reached it.
const UNANSWERED: Duration = Duration::from_millis(300);
/// Everything is decided so long after the last fault: two check intervals and time to reconnect.
const HEALING: Duration = Duration::from_secs(60);

async fn connected(group: &Group) -> Client {
    group.client_builder().connect().await.expect("a client connects")
}

/// A topic that recognises messages that are sent again.
async fn make_topic(group: &Group, client: &Client) {
    let leader = group.until_leader().await;
    group.wire(leader).create_topic_with(TOPIC, QUEUES, "+duplicate.window.seconds=600").await;
    until("route of the topic", async || {
        let queues = client.admin().queues(TOPIC).await.ok()?;
        (queues.len() == QUEUES as usize).then_some(())
    })
    .await;
}

async fn until_settled(group: &Group) {
    until_within(HEALING, "decisions on everything", async || {
        let count = Frame::request(request::COUNT_TRANSACTIONS);
        let answer = group.wire(group.leader().await?).call(count).await.ok()?;
        let counts: TransactionCounts = from_slice(&answer.body).ok()?;
        counts.groups.iter().all(|group| group.open == 0 && group.parked == 0).then_some(())
    })
    .await;
}

/// One transaction after the other, with a failover in each.
struct Steps {
    group: Group,
    producer: TransactionProducer,
    down: Option<usize>,
}

const CHECKED: &str = "left to the check";

impl Steps {
    async fn prepare(&self, body: &str) -> Transaction {
        self.producer.prepare(Message::new(TOPIC, body.to_owned())).await.expect("stored")
    }

    async fn pause(&mut self) -> usize {
        let leader = self.group.until_leader().await;
        self.group.pause(leader);
        leader
    }

    fn kill(&mut self, leader: usize) {
        self.group.kill(leader);
        self.down = Some(leader);
    }

    async fn kill_leader(&mut self) {
        let leader = self.group.until_leader().await;
        self.kill(leader);
    }

    /// Three members again, so that the next failover finds a majority.
    async fn heal(&mut self) {
        let down = self.down.take().expect("somebody was killed");
        self.group.until_other_leader(down).await;
        self.group.start_again(down).await;
    }

    /// Begins to ask a leader that answers nothing, kills it, and waits for what the next one makes of it.
    async fn over_a_kill<T>(&mut self, asking: impl Future<Output = T>) -> T {
        let leader = self.pause().await;
        let mut asking = Box::pin(asking);
        let early = tokio::time::timeout(UNANSWERED, &mut asking).await;
        assert!(early.is_err(), "a leader that is stopped has answered");
        self.kill(leader);
        asking.await
    }
}

fn assert_committed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Committed { queue_offset: Some(_), .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_survives_a_failover_at_each_step() {
    let group = Group::start(Plan::new(Settings::default())).await;
    let client = connected(&group).await;
    make_topic(&group, &client).await;
    let check = |message: MessageExt| async move {
        if message.body() == CHECKED.as_bytes() { Decision::Commit } else { Decision::Unknown }
    };
    let builder = client.transaction_producer(GROUP, Checker::new(check)).topics([TOPIC]).deadline(PATIENCE);
    let producer = builder.decision_deadline(PATIENCE).start().await.expect("a producer starts");
    let mut steps = Steps { group, producer, down: None };

    // While the half is on its way.
    let producer = steps.producer.clone();
    let preparing = async move { producer.prepare(Message::new(TOPIC, "half on its way")).await };
    let transaction = steps.over_a_kill(preparing).await.expect("stored by the next leader");
    assert_committed(&transaction.commit().await.expect("confirmed"));
    steps.heal().await;

    // During the local transaction, which asks for more time and goes on.
    let transaction = steps.prepare("during the local transaction").await;
    steps.kill_leader().await;
    transaction.keep_alive(Duration::from_secs(60)).await.expect("granted by the next leader");
    assert_committed(&transaction.commit().await.expect("confirmed"));
    steps.heal().await;

    // Right before the decision, while nobody leads.
    let transaction = steps.prepare("right before the decision").await;
    steps.kill_leader().await;
    assert_committed(&transaction.commit().await.expect("confirmed"));
    steps.heal().await;

    // While the decision is on its way.
    let transaction = steps.prepare("decision on its way").await;
    assert_committed(&steps.over_a_kill(transaction.commit()).await.expect("confirmed by the next leader"));
    steps.heal().await;

    // While a rollback is.
    let transaction = steps.prepare("rolled back").await;
    let outcome = steps.over_a_kill(transaction.rollback()).await.expect("confirmed by the next leader");
    assert!(matches!(outcome, Outcome::RolledBack { .. }), "{outcome:?}");
    steps.heal().await;

    // After the decision: it stands.
    let leader = steps.group.until_leader().await;
    let wire = steps.group.wire(leader);
    let half = wire.half(GROUP, TOPIC, "decided", "decided").await;
    assert_eq!(wire.end(&half, End::Commit).await.expect("answered").code, response::SUCCESS);
    steps.kill(leader);
    let wire = steps.group.wire(steps.group.until_other_leader(leader).await);
    let opposite = until("an answer of the next leader", async || {
        let answer = wire.end(&half, End::Rollback).await.ok()?;
        (answer.code != response::SERVICE_NOT_AVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(opposite.code, response::ILLEGAL_OPERATION, "{:?}", opposite.remark);
    steps.heal().await;

    // Without a decision: the next leader asks.
    drop(steps.prepare(CHECKED).await);
    steps.kill_leader().await;
    until_settled(&steps.group).await;
    steps.heal().await;

    let mut found = Vec::new();
    let wire = steps.group.wire(steps.group.until_leader().await);
    for queue in 0..QUEUES {
        let messages = wire.read_queue(TOPIC, queue).await.into_iter();
        found.extend(messages.map(|message| String::from_utf8_lossy(&message.body).into_owned()));
    }
    found.sort();
    let mut expected = vec![
        "half on its way",
        "during the local transaction",
        "right before the decision",
        "decision on its way",
        "decided",
        CHECKED,
    ];
    expected.sort_unstable();
    assert_eq!(found, expected, "each once, and nothing else");
    client.shutdown().await;
}
