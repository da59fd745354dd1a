//! Name servers and brokers that answer garbage: it costs an error, never memory, a panic, or a place in a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use bytes::Bytes;
use escrowmq_client::{Client, ConsumeFrom, Message, MessageExt, MessageQueue, RequestError, SendError};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use tokio::time::Instant;

async fn client(cluster: &Cluster) -> Client {
    let client = Client::builder(&cluster.namesrv).heartbeat_interval(Duration::from_millis(100));
    client.connect().await.expect("a name server")
}

/// A route whose one broker has this many queues, as text: its size says nothing about what it stands for.
fn route(queues: &str, lines: usize) -> String {
    let line =
        format!(r#"{{"brokerName":"a","perm":6,"readQueueNums":{queues},"writeQueueNums":{queues},"topicSysFlag":0}}"#);
    let broker = r#"{"brokerAddrs":{"0":"127.0.0.1:1"},"brokerName":"a","cluster":"c"}"#;
    format!(r#"{{"brokerDatas":[{broker}],"queueDatas":[{}]}}"#, vec![line; lines].join(","))
}

#[tokio::test]
async fn a_route_that_no_cluster_has_is_an_error() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").deadline(Duration::from_millis(200)).start().await.expect("started");
    for lie in [
        route("2147483647", 1),
        route("16384", 2000),
        "[".to_owned(),
        "\u{0}".to_owned(),
        String::new(),
        r#"{"queueDatas":{"a":1},"brokerDatas":7}"#.to_owned(),
        "[".repeat(100_000),
        route("1", 1).replace("127.0.0.1:1", &"h".repeat(1_000_000)),
    ] {
        let shown: String = lie.chars().take(40).collect();
        cluster.lie(lie);
        let error = client.admin().queues("T").await.expect_err("no route");
        assert!(matches!(error, RequestError::NotSent { .. } | RequestError::NoRoute { .. }), "{shown}: {error}");
        let error = producer.send(Message::new("T", "x")).await.expect_err("no route");
        assert!(!error.outcome_unknown() && error.to_string().len() < 1000, "{shown}: {error}");
    }
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_unreadable_answer_to_a_send_leaves_its_outcome_open_and_any_other_code_is_the_brokers_word() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").deadline(Duration::from_millis(200)).start().await.expect("started");
    cluster.hook(|seen| match seen.frame.code {
        request::SEND_MESSAGE_V2 => Hook::Reply(|asked| {
            Frame::response(asked, response::SUCCESS).with_field("queueOffset", "many").with_field("msgId", "x")
        }),
        _ => Hook::Pass,
    });
    let error = producer.send(Message::new("T", "x")).await.expect_err("unreadable");
    assert!(matches!(error, SendError::OutcomeUnknown { last: RequestError::Malformed { .. }, .. }), "{error}");
    for code in [i32::MIN, -1, 9999, i32::MAX] {
        cluster.hook(move |seen| match seen.frame.code {
            request::SEND_MESSAGE_V2 => Hook::Answer(code, "what?"),
            _ => Hook::Pass,
        });
        let error = producer.send(Message::new("T", "x")).await.expect_err("refused");
        assert!(matches!(&error, SendError::NotStored { last, .. } if last.code() == Some(code)), "{error}");
    }
    client.shutdown().await;
    cluster.stop().await;
}

/// Answers pulls of the topic by `lie`, as long as `lies` says so; then as it is.
fn lying(
    lies: &Arc<AtomicUsize>,
    lie: fn(&Frame) -> Frame,
) -> impl Fn(&crate::fake::Seen) -> Hook + Send + Sync + 'static {
    let lies = Arc::clone(lies);
    move |seen| {
        let is_pull = seen.frame.code == request::PULL_MESSAGE && seen.field("topic").as_deref() == Some("T");
        let lie_now =
            is_pull && lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lie_now { Hook::Reply(lie) } else { Hook::Pass }
    }
}

#[tokio::test]
async fn a_pull_that_is_answered_with_garbage_moves_no_offset() {
    let lies: [fn(&Frame) -> Frame; 7] = [
        |asked| {
            Frame::response(asked, response::SUCCESS)
                .with_field("nextBeginOffset", 5)
                .with_body(Bytes::from_static(&[7; 90]))
        },
        |asked| Frame::response(asked, response::SUCCESS).with_field("nextBeginOffset", i64::MAX),
        |asked| Frame::response(asked, response::PULL_NOT_FOUND).with_field("nextBeginOffset", "far"),
        |asked| Frame::response(asked, response::PULL_NOT_FOUND).with_field("nextBeginOffset", i64::MAX),
        // An offset that is not named is not the queue's beginning.
        |asked| Frame::response(asked, response::PULL_OFFSET_MOVED),
        |asked| Frame::response(asked, response::PULL_OFFSET_MOVED).with_field("nextBeginOffset", -7),
        |asked| Frame::response(asked, i32::MIN),
    ];
    for lie in lies {
        let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
        let client = client(&cluster).await;
        let broker = Arc::clone(&cluster.brokers[0]);
        let left = Arc::new(AtomicUsize::new(1));
        broker.hook(lying(&left, lie));
        broker.store("T", 0, "first", "a");
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        let consumer = client
            .push_consumer("G")
            .subscribe("T", "*")
            .consume_from(ConsumeFrom::First)
            .commit_interval(Duration::from_millis(20))
            .start(move |_: MessageExt| {
                counted.fetch_add(1, Ordering::SeqCst);
                async { Ok::<(), String>(()) }
            })
            .await
            .expect("started");
        until("the message is consumed in spite of the lie", || seen.load(Ordering::SeqCst) == 1).await;
        until("its offset is stored", || broker.offset("G", "T", 0) == Some(1)).await;
        assert_eq!(left.load(Ordering::SeqCst), 0, "the lie was told");
        consumer.shutdown().await;
        client.shutdown().await;
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_message_behind_the_offset_to_go_on_from_is_garbage() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let broker = Arc::clone(&cluster.brokers[0]);
    broker.store("T", 0, "first", "a");
    let consumer = client.pull_consumer("G").start().await.expect("started");
    let queue = MessageQueue::new("T", "a", 0);
    consumer.assign([queue.clone()]).await.expect("assigned");
    broker.hook(|seen| match seen.frame.code {
        request::PULL_MESSAGE => Hook::Reply(|asked| {
            let mut unit = bytes::BytesMut::new();
            let host = "127.0.0.1:1".parse().expect("an address");
            let built = escrowmq_common::message::UnitBuilder {
                queue_offset: i64::MAX,
                born_timestamp: 1,
                store_timestamp: 2,
                ..escrowmq_common::message::UnitBuilder::to_store("T", 0, host, b"x", &[])
            };
            built.write(&mut unit).expect("a small unit");
            Frame::response(asked, response::SUCCESS).with_field("nextBeginOffset", 1).with_body(unit.freeze())
        }),
        _ => Hook::Pass,
    });
    let error = consumer.poll(Duration::from_millis(100)).await.expect_err("garbage");
    assert!(matches!(error, RequestError::Malformed { .. }), "{error}");
    assert_eq!(consumer.position(&queue), Some(0));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_that_holds_no_pull_is_not_asked_without_a_pause() {
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let broker = Arc::clone(&cluster.brokers[0]);
    broker.hook(|seen| match seen.frame.code {
        request::PULL_MESSAGE => {
            Hook::Reply(|asked| Frame::response(asked, response::PULL_NOT_FOUND).with_field("nextBeginOffset", 0))
        }
        _ => Hook::Pass,
    });
    let consumer = client.push_consumer("G").subscribe("T", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(|_: MessageExt| async { Ok::<(), String>(()) }).await.expect("started");
    let pulls = || broker.seen(request::PULL_MESSAGE).len();
    until("it is pulled", || pulls() > 0).await;
    let (began, before) = (Instant::now(), pulls());
    until("it is pulled again and again", || pulls() >= before + 10).await;
    // Two queues, the retry topic's among them: their pauses double from 20 ms, so the fifth pull of each comes after 300 ms.
    assert!(began.elapsed() > Duration::from_millis(150), "10 pulls within {:?}", began.elapsed());
    consumer.shutdown().await;
    client.shutdown().await;
    cluster.stop().await;
}
