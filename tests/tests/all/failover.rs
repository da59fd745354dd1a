//! Failovers as applications of the Rust client see them: the leader of a group is killed again and again under transactions,
//! plain sends and consumers. Nothing acknowledged is lost, nothing is there twice, nothing is shown that was not committed, no
//! offset goes back, and no send and no transaction ends with an error. Then a kill at each step of one transaction.
//!
//! `ESCROWMQ_FAILOVERS` is the number of kills per campaign (3), `ESCROWMQ_KILL_SECONDS` goes on with campaigns for so long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_client::{
    Checker, Client, ConsumeFrom, Decision, Message, MessageExt, Outcome, PullConsumer, Transaction,
    TransactionProducer,
};
use escrowmq_common::body::TransactionCounts;
use escrowmq_common::body::json::from_slice;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CreateTopicHeader, OffsetResponse, QueryConsumerOffsetHeader};
use escrowmq_tests::checker::{Terms, Verdict, judge};
use escrowmq_tests::group::{Group, MEMBERS, Plan};
use escrowmq_tests::history::{Event, Level, Recorder, What};
use escrowmq_tests::{End, Settings, Wire, since, until, until_within};
use futures_util::future::join_all;

use super::kills::{
    Application, BETWEEN_KILLS, GROUP, HEALING, LANES, QUEUES, READERS, SENDERS, TOPIC, number, place, reader, send,
    take_stock, told, transact,
};

const KILLS: u64 = 3;
const COMMITTERS: &str = "failover-committer";
/// For a send with all its attempts: several failovers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A leader that is stopped answers nothing: a request that waits so long has reached it.
const UNANSWERED: Duration = Duration::from_millis(300);

async fn connected(group: &Group) -> Client {
    group.client_builder().connect().await.expect("a client connects")
}

/// A topic that recognises messages that are sent again.
async fn make_topic(group: &Group, client: &Client) {
    let leader = group.until_leader().await;
    let header = CreateTopicHeader::new(TOPIC, QUEUES.cast_signed());
    let create = Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header);
    group.wire(leader).ask(create.with_field("attributes", "+duplicate.window.seconds=600")).await;
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

/// Reads everything, stores its offsets, and asks a member for them before it stores the next, until it is told to stop.
async fn commit(consumer: &PullConsumer, wires: &[Wire], history: &Recorder, stop: &AtomicBool) {
    let queues = consumer.queues(TOPIC).await.expect("a route");
    consumer.assign(queues.clone()).await.expect("offsets to begin at");
    // Of a commit that failed a leader may show more than the next one will have.
    let mut is_stored = true;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for queue in queues.iter().filter(|_| is_stored) {
            let header = QueryConsumerOffsetHeader {
                consumer_group: COMMITTERS,
                topic: TOPIC,
                queue_id: queue.id(),
                set_zero_if_not_found: None,
            };
            let ask = Frame::request(request::QUERY_CONSUMER_OFFSET).with_header(&header);
            let Ok(answer) = wires[turn % wires.len()].call(ask).await else { break };
            if answer.code == response::SUCCESS {
                let told: OffsetResponse = answer.header().expect("an offset");
                let place = place(queue.id(), told.offset);
                history.note("committer", What::OffsetSeen { group: COMMITTERS.to_owned(), place });
            }
        }
        // Without a leader there is an error, and another turn.
        let _ = consumer.poll(Duration::from_millis(50)).await;
        let positions: Vec<(i32, i64)> =
            queues.iter().filter_map(|queue| Some((queue.id(), consumer.position(queue)?))).collect();
        is_stored = consumer.commit().await.is_ok();
        for (queue, offset) in positions.into_iter().filter(|_| is_stored) {
            let place = place(queue, offset);
            history.note("committer", What::OffsetCommitted { group: COMMITTERS.to_owned(), place });
        }
    }
}

/// Kills leaders, each once there was progress under the last, and starts them again.
async fn kill_leaders(group: &mut Group, kills: u64, application: &Application) {
    let progress = async || {
        let enough = application.answers.load(Ordering::Relaxed) + BETWEEN_KILLS;
        until_within(Duration::from_secs(60), "answers between two kills", async || {
            (application.answers.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    };
    for _ in 0..kills {
        progress().await;
        let leader = group.until_leader().await;
        let fired = group.process(leader).ended().is_none();
        group.kill(leader);
        application.history.note("killer", What::Fault { kind: "kill -9 of the leader".to_owned(), fired });
        group.until_other_leader(leader).await;
        progress().await;
        group.start_again(leader).await;
    }
}

async fn campaign(kills: u64) -> (Verdict, Vec<Event>) {
    let mut group = Group::start(Plan::new(Settings::default().with("transactionCheckMax", 1000))).await;
    let clients = [connected(&group).await, connected(&group).await];
    make_topic(&group, &clients[0]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let application = Application::new(folder.path());
    let history = application.history.clone();
    let reader = reader(&clients[0], &history).await;
    let committer = clients[1].pull_consumer(COMMITTERS).consume_from(ConsumeFrom::First);
    let committer = committer.start().await.expect("a consumer starts");
    let mut producers = Vec::new();
    for client in &clients {
        let builder = client.transaction_producer(GROUP, application.clone()).topics([TOPIC]);
        producers
            .push(builder.deadline(PATIENCE).decision_deadline(PATIENCE).start().await.expect("a producer starts"));
    }
    let plain = clients[1].producer("failover-plain").deadline(PATIENCE).start().await.expect("a producer starts");

    let stop = AtomicBool::new(false);
    let wires: Vec<Wire> = (0..MEMBERS).map(|member| group.wire(member)).collect();
    let lanes = (0..LANES).map(|lane| transact(producers[lane % 2].clone(), format!("t{lane}"), &application, &stop));
    let senders = (0..SENDERS).map(|lane| send(plain.clone(), format!("p{lane}"), Level::Flushed, &application, &stop));
    let killing = async {
        kill_leaders(&mut group, kills, &application).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(lanes), join_all(senders), commit(&committer, &wires, &history, &stop), killing);
    history.note("killer", What::Healed);
    until_settled(&group).await;
    take_stock(&group.wire(group.until_leader().await), &history).await;
    reader.shutdown().await;
    for client in &clients {
        client.shutdown().await;
    }
    group.until_equal().await;
    let errors = application.errors.lock();
    assert!(errors.is_empty(), "{} errors, such as {:#?}", errors.len(), &errors[..errors.len().min(5)]);
    let events = history.events();
    assert_no_copies(&events);
    let looks = events.iter().filter(|event| matches!(event.what, What::OffsetSeen { .. })).count();
    assert!(looks >= 10, "{looks} looks at offsets show nothing");
    (judge(&events, &Terms { groups: vec![READERS.to_owned()], acknowledged_min: 100 }), events)
}

/// The checker forgives copies of a message whose answer was lost. A topic with a duplicate window has none.
fn assert_no_copies(events: &[Event]) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        if let What::Stored { key, .. } = &event.what {
            *places.entry(key).or_default() += 1;
        }
    }
    let copies: Vec<_> = places.into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(copies.is_empty(), "stored more than once: {copies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_go_on_over_failovers() {
    let kills = number("ESCROWMQ_FAILOVERS").unwrap_or(KILLS);
    let seconds = number("ESCROWMQ_KILL_SECONDS").unwrap_or(0);
    let started = clock::monotonic();
    let (mut killed, mut acknowledged) = (0, 0);
    loop {
        let (verdict, events) = campaign(kills).await;
        (killed, acknowledged) = (killed + verdict.faults, acknowledged + verdict.acknowledged);
        assert!(verdict.is_good(), "{}", told(&verdict, &events, 0));
        eprintln!("failovers: {killed} leaders killed, {acknowledged} acknowledged operations, {:?}", since(started));
        if since(started) >= Duration::from_secs(seconds) {
            return;
        }
    }
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
    for queue in 0..QUEUES.cast_signed() {
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
