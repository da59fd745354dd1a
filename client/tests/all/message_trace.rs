//! Records of RocketMQ's message trace: where they go, and that nothing waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, Seen, until};
use escrowmq_client::{Checker, Client, ConsumeFrom, Decision, Message, MessageExt};
use escrowmq_common::code::{request, response};
use escrowmq_common::message::CompressionType;

const TRACES: &str = "RMQ_SYS_TRACE_TOPIC";

async fn traced(cluster: &Cluster) -> Client {
    Client::builder(&cluster.namesrv).message_trace(true).connect().await.expect("a name server")
}

/// The fields of each record so far, and the keys of their messages.
fn records(cluster: &Cluster, topic: &str) -> (Vec<Vec<String>>, String) {
    let sends = cluster.seen(request::SEND_MESSAGE_V2).into_iter().filter(|seen| is_to(seen, topic));
    let (mut records, mut keys) = (Vec::new(), String::new());
    for seen in sends {
        // Long ones travel compressed, as other clients send theirs.
        let is_compressed = seen.field("f").is_some_and(|flag| flag != "0");
        let body = seen.frame.body.clone();
        let body = if is_compressed { CompressionType::Zlib.decompress(&body, 1 << 20).expect("zlib") } else { body };
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(text.ends_with('\u{2}'));
        let lines = text.trim_end_matches('\u{2}').split('\u{2}');
        records.extend(lines.map(|line| line.split('\u{1}').map(str::to_owned).collect()));
        keys = format!("{keys} {}", seen.property("KEYS").unwrap_or_default());
    }
    (records, keys)
}

fn is_to(seen: &Seen, topic: &str) -> bool {
    seen.field("b").as_deref() == Some(topic)
}

fn of_kind(records: &[Vec<String>], kind: &str) -> Vec<Vec<String>> {
    records.iter().filter(|record| record[0] == kind).cloned().collect()
}

#[tokio::test]
async fn each_step_of_a_message_leaves_its_record() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1), (TRACES, 1)]).await;
    let client = traced(&cluster).await;
    let consumer = client.push_consumer("CG").subscribe("T", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(|message: MessageExt| async move {
        if message.body().as_ref() == b"bad" { Err("bad") } else { Ok(()) }
    });
    let _consumer = consumer.await.expect("started");
    let producer = client.producer("PG").start().await.expect("started");
    let sent = producer.send(Message::new("T", "good").tag("t").keys(["k1", "k2"])).await.expect("stored");
    let bad = producer.send(Message::new("T", "bad")).await.expect("stored");
    let batch = producer.send_batch(vec![Message::new("T", "b1").key("kb"), Message::new("T", "b22")]).await;
    let batch = batch.expect("stored");
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let transactions = client.transaction_producer("TG", checker).start().await.expect("started");
    let half = transactions.prepare(Message::new("T", "half").tag("x")).await.expect("prepared");
    let half_id = half.half().expect("a half").message_id;
    half.commit().await.expect("committed");

    // Good, bad, two of the batch, the half: each sent and handled.
    until("all records", || of_kind(&records(&cluster, TRACES).0, "SubAfter").len() >= 5).await;
    client.shutdown().await;
    let (records, keys) = records(&cluster, TRACES);
    let host = cluster.brokers[0].addr.to_string();
    let published = of_kind(&records, "Pub");
    assert_eq!(published.len(), 5, "{published:?}");
    let expected = [
        (&sent.message_id, "t", "k1 k2", "4", "0", &sent.offset_message_id),
        (&bad.message_id, "null", "null", "3", "0", &bad.offset_message_id),
        (&batch.message_ids[0], "null", "kb", "2", "0", &batch.offset_message_ids[0]),
        (&batch.message_ids[1], "null", "null", "3", "0", &batch.offset_message_ids[1]),
    ];
    for (record, (id, tag, keys, bytes, kind, offset_id)) in published.iter().zip(expected) {
        assert_eq!(record.len(), 14, "{record:?}");
        assert_eq!(record[2..=9], ["DefaultRegion", "PG", "T", id, tag, keys, &host, bytes], "{record:?}");
        assert_eq!(record[11..], [kind, offset_id, "true"], "{record:?}");
        assert!(record[1].parse::<i64>().is_ok() && record[10].parse::<u32>().is_ok(), "{record:?}");
    }
    assert_eq!((published[4][3].as_str(), published[4][5].as_str(), published[4][11].as_str()), ("TG", &*half_id, "1"));
    let decided = of_kind(&records, "EndTransaction");
    let [decided] = &decided[..] else { panic!("one decision: {decided:?}") };
    assert_eq!(decided[3..], ["TG", "T", &half_id, "x", "null", &host, "2", &half_id, "COMMIT_MESSAGE", "false"]);

    let (began, handled) = (of_kind(&records, "SubBefore"), of_kind(&records, "SubAfter"));
    for (before, after) in began.iter().zip(&handled) {
        assert_eq!((before.len(), after.len()), (8, 9), "{before:?} {after:?}");
    }
    let of = |records: &[Vec<String>], place: usize, id: &str| {
        records.iter().find(|record| record[place] == id).cloned().expect("a record of the message")
    };
    let (before, after) = (of(&began, 5, &sent.message_id), of(&handled, 2, &sent.message_id));
    assert_eq!((before[3].as_str(), before[6].as_str(), before[7].as_str()), ("CG", "0", "k1 k2"));
    assert_eq!(before[4], after[1], "one request id");
    assert_eq!(
        (after[4].as_str(), after[5].as_str(), after[6].as_str(), after[8].as_str()),
        ("true", "k1 k2", "0", "CG")
    );
    let after = of(&handled, 2, &bad.message_id);
    assert_eq!((after[4].as_str(), after[6].as_str()), ("false", "4"));
    for key in [&sent.message_id, &bad.message_id, &batch.message_ids[1], &half_id, "k1", "k2", "kb"] {
        assert!(keys.split(' ').any(|other| other == key), "{key} in {keys}");
    }
    assert_eq!(client.dropped_trace_records(), 0);
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_is_written_unless_asked_for() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1), (TRACES, 1), ("Own", 1)]).await;
    let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    client.producer("PG").start().await.expect("started").send(Message::new("T", "x")).await.expect("stored");
    client.shutdown().await;
    assert!(records(&cluster, TRACES).0.is_empty());

    let client = Client::builder(&cluster.namesrv).message_trace(true).message_trace_topic("Own");
    let client = client.connect().await.expect("a name server");
    let producer = client.producer("PG").start().await.expect("started");
    producer.send(Message::new("T", "x")).await.expect("stored");
    // A message of the trace topic itself leaves none.
    producer.send(Message::new("Own", "Pub\u{2}")).await.expect("stored");
    client.shutdown().await;
    let own = cluster.seen(request::SEND_MESSAGE_V2).into_iter().filter(|seen| is_to(seen, "Own")).count();
    assert_eq!((records(&cluster, TRACES).0.len(), own), (0, 2), "the message, and one of records");
    cluster.stop().await;
}

#[tokio::test]
async fn a_send_never_waits_for_its_record() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 4), (TRACES, 1)]).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let away = Arc::clone(&is_away);
    cluster.hook(move |seen| {
        if is_to(seen, TRACES) && away.load(Ordering::Acquire) {
            Hook::Answer(response::SYSTEM_BUSY, "busy")
        } else {
            Hook::Pass
        }
    });
    let client = traced(&cluster).await;
    let producer = client.producer("PG").start().await.expect("started");
    // More than may wait.
    for _ in 0..30 {
        let sends = (0..100).map(|number| producer.send(Message::new("T", format!("m{number}"))));
        for sent in futures_util::future::join_all(sends).await {
            sent.expect("stored, whatever becomes of its record");
        }
    }
    let dropped = client.dropped_trace_records();
    assert!((1..=3000).contains(&dropped), "{dropped} of 3000 records dropped");
    is_away.store(false, Ordering::Release);
    until("records again", || !records(&cluster, TRACES).0.is_empty()).await;
    tokio::time::timeout(Duration::from_secs(20), client.shutdown()).await.expect("the end waits for a while at most");
    cluster.stop().await;
}
