//! RocketMQ's message trace: what happened to a message can be read from the trace topic, under its id and its keys.

use std::collections::BTreeMap;
use std::time::Duration;

use escrowmq_client::{Checker, Client, ConsumeFrom, Decision, Message, MessageExt};
use escrowmq_common::name::TRACE_TOPIC;
use escrowmq_tests::{Cluster, Settings, until};

const TOPIC: &str = "Orders";

/// The kinds of records of each message, and the keys under which they are found.
async fn traces(client: &Client) -> (BTreeMap<String, Vec<String>>, String) {
    let reader = client.pull_consumer("reader").consume_from(ConsumeFrom::First).start().await.expect("a reader");
    reader.assign(reader.queues(TRACE_TOPIC).await.expect("the broker has the topic")).await.expect("assigned");
    let (mut kinds, mut keys): (BTreeMap<String, Vec<String>>, String) = Default::default();
    loop {
        let messages = reader.poll(Duration::from_millis(300)).await.expect("read");
        if messages.is_empty() {
            reader.shutdown().await;
            return (kinds, keys);
        }
        for message in messages {
            keys.extend(message.keys().flat_map(|key| [key, " "]));
            for record in String::from_utf8_lossy(message.body()).split_terminator('\u{2}') {
                let fields: Vec<&str> = record.split('\u{1}').collect();
                let place = if fields[0] == "SubAfter" { 2 } else { 5 };
                kinds.entry(fields[place].to_owned()).or_default().push(fields[0].to_owned());
            }
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

    let handled = ["Pub", "SubBefore", "SubAfter"].map(str::to_owned);
    let (kinds, keys) = until("all records", async || {
        let (kinds, keys) = traces(&plain).await;
        let is_whole = kinds.get(&committed_id).is_some_and(|kinds| kinds.len() == 4)
            && [&sent.message_id, &batch.message_ids[1]]
                .iter()
                .all(|id| kinds.get(*id).is_some_and(|kinds| kinds.len() == 3));
        is_whole.then_some((kinds, keys))
    })
    .await;
    for id in [&sent.message_id, &batch.message_ids[0], &batch.message_ids[1]] {
        assert_eq!(kinds[id], handled, "{id}");
    }
    assert_eq!(kinds[&committed_id][..2], ["Pub", "EndTransaction"]);
    assert_eq!(kinds[&rolled_back_id], ["Pub", "EndTransaction"]);
    for key in [&sent.message_id, &batch.message_ids[1], &committed_id, "order-17"] {
        assert!(keys.split(' ').any(|other| other == key), "{key} in {keys}");
    }
    assert_eq!(client.dropped_trace_records(), 0);
    client.shutdown().await;
}
