//! A broker group whose leader goes: other members are the way to the next one, and what is in doubt is sent where it is
//! recognised. The members here keep messages of their own and do not agree; each carries out what the next leader would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::fake::{Broker, Cluster, Hook, Kind, Seen, until};
use escrowmq_client::{Checker, Client, ConsumeFrom, Decision, Message, MessageExt, Outcome};
use escrowmq_common::body::{BrokerData, Form, QueueData, TopicConfig, TopicRouteData, json};
use escrowmq_common::code::{remark, request, response};
use escrowmq_common::frame::Frame;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Nothing here waits for more than a few steps, each of which is a moment.
const SOON: Duration = Duration::from_secs(3);

/// Brokers that a route makes members of groups: name of the group, id, and the broker.
fn route(members: &[(&str, i64, &Broker)], queues: i32) -> Vec<u8> {
    let mut groups: BTreeMap<&str, BTreeMap<i64, String>> = BTreeMap::new();
    for (group, id, broker) in members {
        groups.entry(group).or_default().insert(*id, broker.addr.to_string());
    }
    let route = TopicRouteData {
        broker_datas: groups
            .iter()
            .map(|(group, addrs)| BrokerData {
                broker_addrs: addrs.clone(),
                broker_name: (*group).to_owned(),
                cluster: "DefaultCluster".to_owned(),
                ..BrokerData::default()
            })
            .collect(),
        queue_datas: groups
            .keys()
            .map(|group| QueueData {
                broker_name: (*group).to_owned(),
                perm: 6,
                read_queue_nums: queues,
                write_queue_nums: queues,
                ..QueueData::default()
            })
            .collect(),
        ..TopicRouteData::default()
    };
    route.encode(Form::Strict).to_vec()
}

/// Three members of one group, the first of which leads, and a client that has met them.
struct Stage {
    cluster: Cluster,
    client: Client,
}

impl Stage {
    async fn set() -> Stage {
        let cluster = Cluster::start(3, Kind::Ours, &[("T", 1)]).await;
        cluster.lie(route(
            &[("g", 0, cluster.broker("a")), ("g", 2, cluster.broker("b")), ("g", 3, cluster.broker("c"))],
            1,
        ));
        let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
        Stage { cluster, client }
    }

    fn member(&self, name: &str) -> &Arc<Broker> {
        self.cluster.broker(name)
    }

    async fn strike(self) {
        self.client.shutdown().await;
        self.cluster.stop().await;
    }
}

fn is_send(seen: &Seen) -> bool {
    seen.frame.code == request::SEND_MESSAGE_V2
}

/// The answer of a broker whose topic recognises repeats for a minute.
fn with_window(request: &Frame) -> Frame {
    let attributes = BTreeMap::from([("duplicate.window.seconds".to_owned(), "60".to_owned())]);
    let topic = TopicConfig { attributes, ..TopicConfig::new("T", 1) };
    Frame::response(request, response::SUCCESS).with_body(json::to_bytes(&topic, Form::Strict))
}

#[tokio::test]
async fn while_the_leader_is_away_a_member_takes_the_message() {
    let stage = Stage::set().await;
    let producer = stage.client.producer("P").topics(["T"]).start().await.expect("started");
    producer.send(Message::new("T", "one")).await.expect("stored by the leader");
    stage.member("a").kill();
    let started = Instant::now();
    producer.send(Message::new("T", "two")).await.expect("another member takes it");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(stage.member("b").bodies("T", 0), ["two"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_member_that_finds_no_leader_is_asked_after_the_others() {
    let stage = Stage::set().await;
    let producer = stage.client.producer("P").topics(["T"]).start().await.expect("started");
    for name in ["a", "b"] {
        stage.member(name).hook(|seen| {
            if is_send(seen) { Hook::Answer(response::SERVICE_NOT_AVAILABLE, "no leader") } else { Hook::Pass }
        });
    }
    let sent = producer.send(Message::new("T", "one")).await.expect("the third one takes it");
    assert_eq!((sent.attempts, sent.possible_duplicate), (3, false));
    producer.send(Message::new("T", "two")).await.expect("and is asked first now");
    assert_eq!(stage.member("c").bodies("T", 0), ["one", "two"]);
    assert_eq!(stage.cluster.seen(request::SEND_MESSAGE_V2).len(), 4);
    stage.strike().await;
}

#[tokio::test]
async fn a_send_in_doubt_goes_where_it_is_recognised_and_nowhere_else() {
    let stage = Stage::set().await;
    let brokers = &stage.cluster;
    brokers
        .lie(route(&[("g", 0, brokers.broker("a")), ("g", 2, brokers.broker("b")), ("h", 0, brokers.broker("c"))], 1));
    brokers.hook(
        |seen| {
            if seen.frame.code == request::GET_TOPIC_CONFIG { Hook::Reply(with_window) } else { Hook::Pass }
        },
    );
    let attempt = Duration::from_millis(100);
    let producer = stage.client.producer("P").topics(["T"]).attempt_timeout(attempt).attempts_max(1);
    let producer = producer.start().await.expect("started");
    let queue = producer.queues("T").await.expect("a route").into_iter().find(|queue| queue.broker() == "g");
    // The leader may have it, and stands still; so may the next one, which loses its place.
    stage.member("a").hook(|seen| if is_send(seen) { Hook::SwallowAnswer } else { Hook::Silence });
    let lost = Arc::new(Mutex::new(2));
    stage.member("b").hook(move |seen| {
        let mut lost = lost.lock();
        match seen.frame.code {
            request::GET_TOPIC_CONFIG => Hook::Reply(with_window),
            request::SEND_MESSAGE_V2 if *lost > 0 => {
                *lost -= 1;
                Hook::Answer(response::SYSTEM_ERROR, remark::OUTCOME_UNKNOWN)
            }
            _ => Hook::Pass,
        }
    });
    for number in 0..4 {
        let sent = producer.send(Message::new("T", number.to_string())).await.expect("stored in the end");
        assert!(!sent.possible_duplicate, "{sent:?}");
    }
    assert!(queue.is_some() && attempts_at_one_group_each(&stage, 4) > 6);
    stage.strike().await;
}

/// How many sends were tried of so many messages, where `c` is a group of its own. None may have been tried at two groups.
fn attempts_at_one_group_each(stage: &Stage, messages: usize) -> usize {
    let seen = stage.cluster.seen(request::SEND_MESSAGE_V2);
    let mut groups: BTreeMap<_, BTreeSet<bool>> = BTreeMap::new();
    for attempt in &seen {
        groups.entry(attempt.property("UNIQ_KEY")).or_default().insert(attempt.broker == "c");
    }
    assert_eq!(groups.len(), messages, "each attempt carries the id of its message");
    assert!(groups.values().all(|groups| groups.len() == 1), "sent to two groups: {groups:?}");
    seen.len()
}

#[tokio::test]
async fn a_half_in_doubt_has_no_twin_on_another_group() {
    let stage = Stage::set().await;
    let brokers = &stage.cluster;
    brokers
        .lie(route(&[("g", 0, brokers.broker("a")), ("g", 2, brokers.broker("b")), ("h", 0, brokers.broker("c"))], 1));
    let listener = Checker::new(|_: MessageExt| async { Decision::Commit });
    let producer = stage.client.transaction_producer("P", listener).topics(["T"]);
    let producer = producer.attempt_timeout(Duration::from_millis(100)).start().await.expect("started");
    stage.member("a").hook(|seen| if is_send(seen) { Hook::SwallowAnswer } else { Hook::Silence });
    for number in 0..4 {
        let half = producer.prepare(Message::new("T", number.to_string())).await.expect("stored in the end");
        half.rollback().await.expect("settled");
    }
    assert!(!stage.member("b").seen(request::SEND_MESSAGE_V2).is_empty(), "no half was ever in doubt");
    assert!(attempts_at_one_group_each(&stage, 4) > 4);
    stage.strike().await;
}

#[tokio::test]
async fn without_a_window_doubt_counts_and_is_told() {
    let stage = Stage::set().await;
    let attempt = Duration::from_millis(100);
    let producer = stage.client.producer("P").topics(["T"]).attempt_timeout(attempt);
    let producer = producer.start().await.expect("started");
    stage.member("a").hook(|seen| if is_send(seen) { Hook::SwallowAnswer } else { Hook::Silence });
    let sent = producer.send(Message::new("T", "x")).await.expect("stored by the next one");
    assert!(sent.possible_duplicate);
    stage.cluster.hook(|seen| if is_send(seen) { Hook::SwallowAnswer } else { Hook::Pass });
    let error = producer.send(Message::new("T", "y")).await.expect_err("nobody answers");
    assert!(error.outcome_unknown(), "{error}");
    stage.strike().await;
}

#[tokio::test]
async fn an_idle_producer_makes_itself_known_to_the_members_and_to_the_next_leader() {
    let stage = Stage::set().await;
    let listener = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let producer = stage.client.transaction_producer("P", listener).topics(["T"]).start().await.expect("started");
    assert_eq!(stage.member("a").producers("P").len(), 1);
    assert!(stage.member("b").producers("P").is_empty(), "producers greet leaders alone");
    let (a, b, c) = (stage.member("a"), stage.member("b"), stage.member("c"));
    a.kill();
    until("all members that are left know the producer", || {
        [b, c].iter().all(|member| member.producers("P").len() == 1)
    })
    .await;
    let before = c.seen(request::HEART_BEAT).len();
    stage.cluster.lie(route(&[("g", 0, c), ("g", 2, b)], 1));
    until("the next leader is greeted", || c.seen(request::HEART_BEAT).len() > before).await;
    drop(producer);
    stage.strike().await;
}

#[tokio::test]
async fn a_decision_and_more_time_are_asked_for_at_the_next_leader() {
    let stage = Stage::set().await;
    let listener = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let producer = stage.client.transaction_producer("P", listener).topics(["T"]).start().await.expect("started");
    let transaction = producer.prepare(Message::new("T", "x")).await.expect("stored");
    // What the next leader would answer: it has the half, too.
    let granted: fn(&Frame) -> Frame =
        |request| Frame::response(request, response::SUCCESS).with_field("queueOffset", 7);
    let lost = Arc::new(Mutex::new(1));
    stage.member("b").hook(move |seen| {
        if seen.frame.code != request::END_TRANSACTION {
            return Hook::Pass;
        }
        let mut lost = lost.lock();
        if *lost > 0 {
            *lost -= 1;
            return Hook::Answer(response::SYSTEM_ERROR, remark::OUTCOME_UNKNOWN);
        }
        Hook::Reply(granted)
    });
    stage.member("a").kill();
    transaction.keep_alive(Duration::from_secs(60)).await.expect("granted by the next leader");
    let outcome = transaction.commit().await.expect("confirmed by the next leader");
    assert!(matches!(outcome, Outcome::Committed { queue_offset: Some(7), .. }), "{outcome:?}");
    stage.strike().await;
}

#[tokio::test]
async fn a_consumer_goes_on_at_another_member() {
    let stage = Stage::set().await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    let consumer = stage.client.push_consumer("G").subscribe("T", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message: MessageExt| {
        seen.lock().push(String::from_utf8_lossy(message.body()).into_owned());
        async { Ok::<(), String>(()) }
    });
    let consumer = consumer.await.expect("started");
    for name in ["a", "b", "c"] {
        stage.member(name).store("T", 0, "one", "tag");
    }
    until("the first message", || *got.lock() == ["one"]).await;
    for name in ["b", "c"] {
        stage.member(name).store("T", 0, "two", "tag");
    }
    stage.member("a").kill();
    let started = Instant::now();
    until("the second message", || *got.lock() == ["one", "two"]).await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    until("its offset is stored there", || {
        ["b", "c"].iter().any(|name| stage.member(name).offset("G", "T", 0) == Some(2))
    })
    .await;
    consumer.shutdown().await;
    stage.strike().await;
}
