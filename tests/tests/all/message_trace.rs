//! RocketMQ's message trace: what happened to a message can be read from the trace topic, under its id and its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use escrowmq_client::{Checker, ConsumeFrom, Decision, Message, MessageExt};
use escrowmq_common::name::TRACE_TOPIC;
use escrowmq_tests::{Cluster, Settings, until};
use parking_lot::Mutex;

const TOPIC: &str = "Orders";

/// What was read so far: the kinds of records of each message, sorted, and the keys under which they are found.
#[derive(Default)]
struct Traces {
    kinds: BTreeMap<String, Vec<String>>,
    keys: BTreeSet<String>,
}

impl Traces {
    fn add(&mut self, message: &MessageExt) {
        self.keys.extend(message.keys().map(str::to_owned));
        for record in String::from_utf8_lossy(message.body()).split_terminator('\u{2}') {
            let fields: Vec<&str> = record.split('\u{1}').collect();
            let place = if fields[0] == "SubAfter" { 2 } else { 5 };
            let kinds = self.kinds.entry(fields[place].to_owned()).or_default();
            kinds.push(fields[0].to_owned());
            kinds.sort();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_message_can_be_read() {
    let cluster = Cluster::start(Settings::default().with("traceTopicEnable", true)).await;
    let plain = cluster.client_with_topic(TOPIC, 2).await;
    let client = cluster.client_builder().message_trace(true).connect().await.expect("a client connects");
    let consumer = client.push_consumer("shipping").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(|_| async { Ok::<(), String>(()) }).await.expect("a consumer starts");
    let producer = client.producer("shop").start().await.expect("a producer starts");
    let sent = producer.send(Message::new(TOPIC, "sent").key("order-17")).await.expect("sent");
    let batch = producer.send_batch(vec![Message::new(TOPIC, "one"), Message::new(TOPIC, "two")]).await.expect("sent");
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let transactions = client.transaction_producer("bank", checker).start().await.expect("a producer starts");
    let committed = transactions.prepare(Message::new(TOPIC, "committed")).await.expect("prepared");
    let committed_id = committed.half().expect("a half").message_id;
    committed.commit().await.expect("committed");
    let rolled_back = transactions.prepare(Message::new(TOPIC, "rolled back")).await.expect("prepared");
    let rolled_back_id = rolled_back.half().expect("a half").message_id;
    rolled_back.rollback().await.expect("rolled back");

    // A pull consumer takes them, too: all but the one that is rolled back.
    let puller = client.pull_consumer("packing").consume_from(ConsumeFrom::First).start().await.expect("a reader");
    puller.assign(puller.queues(TOPIC).await.expect("two queues")).await.expect("assigned");
    let mut pulled = 0;
    while pulled < 4 {
        pulled += puller.poll(Duration::from_millis(300)).await.expect("read").len();
    }

    let plain_kinds = ["Pub", "SubAfter", "SubAfter", "SubBefore", "SubBefore"].map(str::to_owned).to_vec();
    let mut expected: BTreeMap<String, Vec<String>> = [&sent.message_id, &batch.message_ids[0], &batch.message_ids[1]]
        .map(|id| (id.clone(), plain_kinds.clone()))
        .into();
    expected.insert(committed_id, ["EndTransaction"].map(str::to_owned).into_iter().chain(plain_kinds).collect());
    expected.insert(rolled_back_id, ["EndTransaction", "Pub"].map(str::to_owned).to_vec());
    let reader = plain.pull_consumer("reader").consume_from(ConsumeFrom::First).start().await.expect("a reader");
    reader.assign(reader.queues(TRACE_TOPIC).await.expect("the broker has the topic")).await.expect("assigned");
    let traces = Mutex::new(Traces::default());
    until("all records", async || {
        let messages = reader.poll(Duration::from_millis(300)).await.expect("read");
        let mut traces = traces.lock();
        for message in &messages {
            traces.add(message);
        }
        (traces.kinds == expected).then_some(())
    })
    .await;
    let keys = traces.into_inner().keys;
    for key in expected.keys().map(String::as_str).chain(["order-17"]) {
        assert!(keys.contains(key), "{key} in {keys:?}");
    }
    assert_eq!(client.dropped_trace_records(), 0);
    client.shutdown().await;
}
