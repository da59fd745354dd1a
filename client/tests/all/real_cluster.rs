//! The whole SDK against a real cluster, EscrowMQ or Apache RocketMQ.
//!
//! Does nothing unless `ESCROWMQ_TEST_NAMESRV` names the name server of a cluster that creates topics on demand:
//!
//! ```text
//! ESCROWMQ_TEST_NAMESRV=127.0.0.1:9876 cargo test -p escrowmq-client --test all real_cluster -- --test-threads 1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Decision, Half, Message, MessageExt, Outcome, TransactionListener};
use escrowmq_common::message::unique_id;
use futures_util::future::join_all;
use tokio::time::Instant;

/// The cluster's name server, or `None` to skip.
fn namesrv() -> Option<String> {
    std::env::var("ESCROWMQ_TEST_NAMESRV").ok().filter(|namesrv| !namesrv.is_empty())
}

async fn client(namesrv: &str) -> Client {
    Client::builder(namesrv).connect().await.expect("a name server")
}

/// A name that no earlier run has used.
fn fresh(what: &str) -> String {
    format!("{what}_{}", unique_id())
}

async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let ends = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < ends, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that was handled: body to how often.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<BTreeMap<String, u32>>>);

impl Handled {
    fn note(&self, message: &MessageExt) {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        *self.0.lock().expect("no panic inside").entry(body).or_default() += 1;
    }

    fn bodies(&self) -> BTreeSet<String> {
        self.0.lock().expect("no panic inside").keys().cloned().collect()
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no panic inside").len()
    }

    fn handler(&self) -> impl Fn(MessageExt) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
        let handled = self.clone();
        move |message| {
            handled.note(&message);
            std::future::ready(Ok(()))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_consumed_with_all_that_belongs_to_it() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Sent");
    client.admin().create_topic(&topic, 4).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    let large = "x".repeat(100_000);
    let message =
        Message::new(topic.as_str(), large.clone()).tag("TagA").keys(["k1", "k2"]).property("colour", "red").flag(7);
    let sent = producer.send(message).await.expect("stored");
    let batch = (0..10).map(|number| Message::new(topic.as_str(), format!("batch {number}"))).collect();
    assert_eq!(producer.send_batch(batch).await.expect("stored").offset_message_ids.len(), 10);
    producer.send_oneway(Message::new(topic.as_str(), "oneway")).await.expect("on its way");

    let seen = client.admin().view_message(&topic, &sent.offset_message_id).await.expect("answered").expect("found");
    assert_eq!((seen.message_id(), seen.body().len()), (sent.message_id.clone(), 100_000));

    let got = Arc::new(Mutex::new(Vec::new()));
    let handled = Handled::default();
    let handler = {
        let (got, handled) = (Arc::clone(&got), handled.clone());
        move |message: MessageExt| {
            handled.note(&message);
            got.lock().expect("no panic inside").push(message);
            std::future::ready(Ok::<(), String>(()))
        }
    };
    let group = fresh("C");
    let consumer = client.push_consumer(&group).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(handler).await.expect("started");
    until("all are handled", Duration::from_secs(30), || handled.len() == 12).await;
    let got = got.lock().expect("no panic inside").clone();
    let first = got.iter().find(|message| message.message_id() == sent.message_id).expect("the large one");
    assert_eq!(first.body(), large.as_bytes());
    assert_eq!((first.tag(), first.flag(), first.property("colour")), (Some("TagA"), 7, Some("red")));
    assert_eq!(first.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!((first.queue(), first.queue_offset()), (&sent.queue, sent.queue_offset));
    consumer.shutdown().await;
    for queue in client.admin().queues(&topic).await.expect("a route") {
        let stored = client.admin().consumer_offset(&group, &queue).await.expect("answered");
        let max = client.admin().max_offset(&queue).await.expect("answered");
        assert_eq!(stored.unwrap_or(0), max, "{queue}");
    }
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_by_its_first_message() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Auto");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    producer.send(Message::new(topic.as_str(), "first")).await.expect("stored");
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(handled.handler()).await.expect("started");
    until("it is handled", Duration::from_secs(60), || handled.len() == 1).await;
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tags_asked_for_arrive() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Tags");
    client.admin().create_topic(&topic, 2).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    // "Aa" and "BB" share a hash.
    for tag in ["Aa", "BB", "C", "D"] {
        for number in 0..5 {
            producer.send(Message::new(topic.as_str(), format!("{tag}{number}")).tag(tag)).await.expect("stored");
        }
    }
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "Aa || D").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(handled.handler()).await.expect("started");
    until("ten are handled", Duration::from_secs(30), || handled.len() >= 10).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        handled.bodies().iter().all(|body| body.starts_with("Aa") || body.starts_with('D')),
        "{:?}",
        handled.bodies()
    );
    assert_eq!(handled.len(), 10);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_over_properties_is_the_brokers_business() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Sql");
    client.admin().create_topic(&topic, 2).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    for amount in 0..10 {
        let message = Message::new(topic.as_str(), format!("m{amount}")).property("amount", amount.to_string());
        producer.send(message).await.expect("stored");
    }
    let broken =
        client.push_consumer(fresh("C")).subscribe_sql(&topic, "amount >").start(|_| async { Ok::<(), String>(()) });
    let error = broken.await.expect_err("no condition");
    assert!(!error.is_retryable(), "{error}");
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe_sql(&topic, "amount BETWEEN 3 AND 5");
    let _consumer = consumer.consume_from(ConsumeFrom::First).start(handled.handler()).await.expect("started");
    until("three are handled", Duration::from_secs(30), || handled.len() >= 3).await;
    assert_eq!(handled.bodies().into_iter().collect::<Vec<_>>(), ["m3", "m4", "m5"]);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_delivered_again_and_a_hopeless_one_becomes_a_dead_letter() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let (topic, group) = (fresh("Retry"), fresh("C"));
    client.admin().create_topic(&topic, 1).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    producer.send(Message::new(topic.as_str(), "recovers")).await.expect("stored");
    producer.send(Message::new(topic.as_str(), "hopeless")).await.expect("stored");
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let attempts = Arc::clone(&attempts);
        move |message: MessageExt| {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            let times = message.reconsume_times();
            attempts.lock().expect("no panic inside").push((body.clone(), times, message.topic().to_owned()));
            std::future::ready(if body == "recovers" && times == 1 { Ok(()) } else { Err("not now") })
        }
    };
    let consumer = client.push_consumer(&group).subscribe(&topic, "*").consume_from(ConsumeFrom::First).attempts_max(1);
    let _consumer = consumer.start(handler).await.expect("started");
    until("both were tried twice", Duration::from_secs(90), || attempts.lock().expect("no panic inside").len() >= 4)
        .await;
    let mut seen = attempts.lock().expect("no panic inside").clone();
    seen.sort();
    let expected: Vec<_> = [("hopeless", 0), ("hopeless", 1), ("recovers", 0), ("recovers", 1)]
        .map(|(body, times)| (body.to_owned(), times, topic.clone()))
        .into();
    assert_eq!(seen, expected);
    // The dead letter is an ordinary message of its topic.
    let reader = client.pull_consumer(fresh("D")).start().await.expect("started");
    let dead_letters = format!("%DLQ%{group}");
    let ends = Instant::now() + Duration::from_secs(60);
    let letters = loop {
        if let Ok(queues) = reader.queues(&dead_letters).await {
            reader.assign(queues).await.expect("assigned");
            let letters = reader.poll(Duration::from_secs(5)).await.unwrap_or_default();
            if !letters.is_empty() {
                break letters;
            }
        }
        assert!(Instant::now() < ends, "no dead letter");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(letters.iter().map(|letter| &letter.body()[..]).collect::<Vec<_>>(), [b"hopeless"]);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_a_topic_and_loses_nothing_while_members_come_and_go() {
    let Some(namesrv) = namesrv() else { return };
    let first = client(&namesrv).await;
    let (topic, group) = (fresh("Shared"), fresh("C"));
    first.admin().create_topic(&topic, 8).await.expect("created");
    let producer = first.producer(fresh("P")).start().await.expect("started");
    let handled = Handled::default();
    let join = async |client: &Client| {
        let consumer = client.push_consumer(&group).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
        consumer.start(handled.handler()).await.expect("started")
    };
    let one = join(&first).await;
    let held = |consumer: &escrowmq_client::PushConsumer| {
        consumer.assignment().iter().filter(|queue| queue.topic() == topic).count()
    };
    let queues = first.admin().queues(&topic).await.expect("a route").len();
    until("the first holds all", Duration::from_secs(30), || held(&one) == queues).await;
    let second = client(&namesrv).await;
    let other = join(&second).await;
    until("both hold half", Duration::from_secs(60), || held(&one) == queues / 2 && held(&other) == queues / 2).await;
    let send = async |from: usize| {
        let sends =
            (from..from + 100).map(|number| producer.send(Message::new(topic.as_str(), format!("m{number:03}"))));
        for sent in join_all(sends).await {
            sent.expect("stored");
        }
    };
    send(0).await;
    other.shutdown().await;
    send(100).await;
    until("the first holds all again", Duration::from_secs(60), || held(&one) == queues).await;
    until("all are handled", Duration::from_secs(60), || handled.len() == 200).await;
    second.shutdown().await;
    first.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_consumer_sees_each_key_in_order() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Ordered");
    client.admin().create_topic(&topic, 4).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    for number in 0..40 {
        let key = format!("key{}", number % 4);
        producer
            .send(Message::new(topic.as_str(), format!("{key} {number:02}")).sharding_key(&key))
            .await
            .expect("stored");
    }
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let handler = {
        let (bodies, failed) = (Arc::clone(&bodies), Arc::clone(&failed));
        move |messages: Vec<MessageExt>| {
            let mut result = Ok(());
            for message in messages {
                let body = String::from_utf8_lossy(message.body()).into_owned();
                // Each tenth fails once, in the middle of its queue.
                if body.ends_with('5') && failed.lock().expect("no panic inside").insert(body.clone()) {
                    result = Err("once");
                    break;
                }
                bodies.lock().expect("no panic inside").push(body);
            }
            std::future::ready(result)
        }
    };
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start_ordered(handler).await.expect("started");
    until("all are handled", Duration::from_secs(60), || bodies.lock().expect("no panic inside").len() == 40).await;
    let bodies = bodies.lock().expect("no panic inside").clone();
    for key in 0..4 {
        let of_key: Vec<&String> = bodies.iter().filter(|body| body.starts_with(&format!("key{key}"))).collect();
        assert_eq!(of_key.len(), 10);
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    client.shutdown().await;
}

/// Decides by the body, and tells checks the truth.
#[derive(Clone, Default)]
struct Ledger {
    checked: Arc<Mutex<BTreeSet<String>>>,
}

impl Ledger {
    fn decide(body: &[u8]) -> Decision {
        if body.starts_with(b"commit") { Decision::Commit } else { Decision::Rollback }
    }
}

impl TransactionListener for Ledger {
    async fn execute_local_transaction(&self, message: &Message, _: &Half) -> Decision {
        if message.body().ends_with(b"later") { Decision::Unknown } else { Ledger::decide(message.body()) }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        self.checked.lock().expect("no panic inside").insert(body);
        Ledger::decide(message.body())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_settle_at_once_or_by_the_check() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Tx");
    client.admin().create_topic(&topic, 2).await.expect("created");
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(handled.handler()).await.expect("started");
    let ledger = Ledger::default();
    let producer =
        client.transaction_producer(fresh("P"), ledger.clone()).topics([&topic]).start().await.expect("started");
    let mut outcomes = Vec::new();
    for body in ["commit now", "rollback now", "commit later", "rollback later"] {
        let result = producer.send(Message::new(topic.as_str(), body).check_immunity(Duration::from_secs(1))).await;
        outcomes.push(result.expect("no error").outcome);
    }
    match &outcomes[0] {
        // EscrowMQ.
        Outcome::Committed { queue, queue_offset, .. } => {
            assert_eq!(queue.topic(), topic);
            assert!(matches!(outcomes[1], Outcome::RolledBack { .. }), "{outcomes:?}");
            assert!(queue_offset.is_some());
        }
        // Apache RocketMQ.
        other => assert_eq!((other, &outcomes[1]), (&Outcome::Unconfirmed, &Outcome::Unconfirmed)),
    }
    assert_eq!(outcomes[2..], [Outcome::Undecided, Outcome::Undecided]);
    until("the check commits", Duration::from_secs(120), || handled.len() == 2).await;
    // Apache's broker may ask about the settled ones too: its record of a decision is written with a delay.
    let asked = ["commit later", "rollback later"].map(str::to_owned);
    until("both were asked about", Duration::from_secs(120), || {
        let checked = ledger.checked.lock().expect("no panic inside");
        asked.iter().all(|body| checked.contains(body))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handled.bodies().into_iter().collect::<Vec<_>>(), ["commit later", "commit now"]);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_late() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Delay");
    client.admin().create_topic(&topic, 1).await.expect("created");
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(handled.handler()).await.expect("started");
    until("it holds the queue", Duration::from_secs(30), || {
        consumer.assignment().iter().any(|queue| queue.topic() == topic)
    })
    .await;
    let producer = client.producer(fresh("P")).start().await.expect("started");
    let began = Instant::now();
    producer.send(Message::new(topic.as_str(), "level").delay_level(2)).await.expect("stored");
    producer.send(Message::new(topic.as_str(), "timer").deliver_after(Duration::from_secs(4))).await.expect("stored");
    until("both are handled", Duration::from_secs(60), || handled.len() == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sends_at_once_all_arrive() {
    let Some(namesrv) = namesrv() else { return };
    let client = client(&namesrv).await;
    let topic = fresh("Many");
    client.admin().create_topic(&topic, 4).await.expect("created");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    let began = Instant::now();
    let sends = (0..1000).map(|number| producer.send(Message::new(topic.as_str(), format!("m{number:04}"))));
    let places: BTreeSet<_> = join_all(sends)
        .await
        .into_iter()
        .map(|sent| sent.expect("stored"))
        .map(|sent| (sent.queue, sent.queue_offset))
        .collect();
    assert_eq!(places.len(), 1000, "each has a place of its own");
    println!("1000 sends in {:?}", began.elapsed());
    let reader = client.pull_consumer(fresh("C")).start().await.expect("started");
    reader.assign(reader.queues(&topic).await.expect("a route")).await.expect("assigned");
    let mut bodies = BTreeSet::new();
    while bodies.len() < 1000 {
        let messages = reader.poll(Duration::from_secs(5)).await.expect("polled");
        assert!(!messages.is_empty(), "only {} arrived", bodies.len());
        bodies.extend(messages.into_iter().map(|message| message.message_id()));
    }
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_its_reply() {
    let Some(namesrv) = namesrv() else { return };
    let (asking, answering) = (client(&namesrv).await, client(&namesrv).await);
    let topic = fresh("Questions");
    asking.admin().create_topic(&topic, 2).await.expect("created");
    let replying = answering.producer(fresh("P")).start().await.expect("started");
    let consumer = answering.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |request: MessageExt| {
        let replying = replying.clone();
        async move { replying.reply(&request, format!("re: {}", String::from_utf8_lossy(request.body()))).await }
    });
    let _consumer = consumer.await.expect("started");
    let producer = asking.producer(fresh("P")).start().await.expect("started");
    for question in ["one", "two"] {
        let request = Message::new(topic.as_str(), question);
        let reply = producer.request(request, Duration::from_secs(30)).await.expect("a reply");
        assert_eq!(reply.body().as_ref(), format!("re: {question}").as_bytes());
    }
    asking.shutdown().await;
    answering.shutdown().await;
}

/// `mqadmin queryMsgTraceById -i ID` shows what this test prints the ids of.
#[tokio::test(flavor = "multi_thread")]
async fn the_message_trace_tells_each_step() {
    let Some(namesrv) = namesrv() else { return };
    let client = Client::builder(&namesrv).message_trace(true).connect().await.expect("a name server");
    let topic = fresh("Traced");
    client.admin().create_topic(&topic, 1).await.expect("created");
    let handled = Handled::default();
    let consumer = client.push_consumer(fresh("C")).subscribe(&topic, "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(handled.handler()).await.expect("started");
    let producer = client.producer(fresh("P")).start().await.expect("started");
    let sent = producer.send(Message::new(topic.as_str(), "plain").tag("t").key("k1").key("k2")).await.expect("stored");
    let checker = escrowmq_client::Checker::new(|_: MessageExt| async { Decision::Unknown });
    let transactions = client.transaction_producer(fresh("T"), checker).start().await.expect("started");
    let half = transactions.prepare(Message::new(topic.as_str(), "half")).await.expect("prepared");
    let half_id = half.half().expect("a half").message_id;
    half.commit().await.expect("committed");
    until("both are handled", Duration::from_secs(60), || handled.len() == 2).await;
    client.shutdown().await;

    let reader = Client::builder(&namesrv).connect().await.expect("a name server");
    let pull = reader.pull_consumer(fresh("R")).consume_from(ConsumeFrom::First).start().await.expect("started");
    pull.assign(pull.queues("RMQ_SYS_TRACE_TOPIC").await.expect("a route")).await.expect("assigned");
    let ends = Instant::now() + Duration::from_secs(30);
    let mut kinds = BTreeSet::new();
    while kinds.len() < 7 {
        assert!(Instant::now() < ends, "only {kinds:?}");
        for message in pull.poll(Duration::from_secs(1)).await.expect("polled") {
            for record in String::from_utf8_lossy(message.body()).split('\u{2}') {
                let kind = record.split('\u{1}').next().unwrap_or_default().to_owned();
                let id = [&sent.message_id, &half_id].into_iter().find(|id| record.contains(*id));
                kinds.extend(id.map(|id| (kind, id.clone())));
            }
        }
    }
    println!("{kinds:#?}");
    reader.shutdown().await;
}
