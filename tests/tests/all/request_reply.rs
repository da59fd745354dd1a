//! Request-reply: who asks gets the answer, or is told what is known about it.

use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Message, MessageExt, NoReply, Producer, PushConsumer, ReplyError};
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::{Cluster, Settings, until};
use tokio::sync::mpsc;

const TOPIC: &str = "Questions";
/// Long enough for any reply that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);

async fn producer(client: &Client, group: &str) -> Producer {
    client.producer(group).start().await.expect("a producer starts")
}

/// Handles requests by replying with their body in capitals.
async fn shouting(client: &Client, group: &str) -> PushConsumer {
    let producer = producer(client, &format!("{group}-replies")).await;
    let consumer = client.push_consumer(group).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |request: MessageExt| {
        let producer = producer.clone();
        async move {
            assert!(request.wants_reply());
            let answer = String::from_utf8_lossy(request.body()).to_uppercase();
            let reply = request.reply(answer)?.tag("loud").property("tone", "sharp");
            producer.send_reply(&request, reply).await
        }
    });
    consumer.await.expect("a consumer starts")
}

/// Takes requests, and leaves the reply to the test.
async fn collecting(client: &Client, group: &str) -> (PushConsumer, mpsc::Receiver<MessageExt>) {
    let (sender, receiver) = mpsc::channel(16);
    let consumer = client.push_consumer(group).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |request| {
        let sender = sender.clone();
        async move { sender.send(request).await }
    });
    (consumer.await.expect("a consumer starts"), receiver)
}

fn text(message: &MessageExt) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_gets_the_reply() {
    let cluster = Cluster::start(Settings::default()).await;
    let asking = cluster.client_with_topic(TOPIC, 4).await;
    let answering = cluster.client().await;
    let consumer = shouting(&answering, "shouting").await;
    let producer = producer(&asking, "asking").await;

    let reply = producer.request(Message::new(TOPIC, "who is there"), PATIENCE).await.expect("a reply");
    assert_eq!(text(&reply), "WHO IS THERE");
    assert_eq!((reply.tag(), reply.property("tone")), (Some("loud"), Some("sharp")));
    // Compressed on the way there and back.
    let long = "abc".repeat(100_000);
    let reply = producer.request(Message::new(TOPIC, long.clone()), PATIENCE).await.expect("a reply");
    assert_eq!(text(&reply), long.to_uppercase());
    // Many at a time: each gets its own.
    let asked = (0..100).map(|number| {
        let producer = producer.clone();
        async move {
            let reply = producer.request(Message::new(TOPIC, format!("q{number}")), PATIENCE).await;
            assert_eq!(text(&reply.expect("a reply")), format!("Q{number}"));
        }
    });
    futures_util::future::join_all(asked).await;
    // One client may do both.
    let own = shouting(&asking, "own").await;
    let reply = producer.request(Message::new(TOPIC, "echo"), PATIENCE).await.expect("a reply");
    assert_eq!(text(&reply), "ECHO");
    own.shutdown().await;
    consumer.shutdown().await;
    asking.shutdown().await;
    answering.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_is_dropped_and_the_next_request_gets_its_own() {
    let cluster = Cluster::start(Settings::default()).await;
    let asking = cluster.client_with_topic(TOPIC, 1).await;
    let answering = cluster.client().await;
    let (_consumer, mut requests) = collecting(&answering, "late").await;
    let (producer, replying) = (producer(&asking, "asking").await, producer(&answering, "replying").await);

    let soon = Duration::from_millis(500);
    let error = producer.request(Message::new(TOPIC, "first").unique_id("first"), soon).await.expect_err("no reply");
    let NoReply::TimedOut { message_id, after, stored } = &error else { panic!("{error:?}") };
    assert_eq!((message_id.as_str(), *after, *stored), ("first", soon, true));
    assert!(error.outcome_unknown() && error.is_retryable(), "{error}");

    let late = requests.recv().await.expect("the request is handled all the same");
    assert_eq!(late.property("TTL"), Some("500"));
    replying.reply(&late, "too late").await.expect("the client is there, and drops it");
    let asked = producer.request(Message::new(TOPIC, "second"), PATIENCE);
    let replied = async {
        let second = requests.recv().await.expect("the second request");
        // The late one again, just before: its correlation id is another.
        replying.reply(&late, "too late").await.expect("dropped");
        replying.reply(&second, "in time").await.expect("delivered");
    };
    let (reply, ()) = tokio::join!(asked, replied);
    assert_eq!(text(&reply.expect("a reply")), "in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_replies_of_two_clients_the_first_counts() {
    let cluster = Cluster::start(Settings::default()).await;
    let asking = cluster.client_with_topic(TOPIC, 1).await;
    let (one, other) = (cluster.client().await, cluster.client().await);
    // Two groups: each gets the request.
    let (_one_consumer, mut one_requests) = collecting(&one, "one").await;
    let (_other_consumer, mut other_requests) = collecting(&other, "other").await;
    let (one, other) = (producer(&one, "one-replies").await, producer(&other, "other-replies").await);
    let producer = producer(&asking, "asking").await;

    let asked = producer.request(Message::new(TOPIC, "both"), PATIENCE);
    let replied = async {
        let (request, same) = (one_requests.recv().await.expect("asked"), other_requests.recv().await.expect("asked"));
        assert_eq!(request.message_id(), same.message_id());
        one.reply(&request, "one").await.expect("delivered");
        other.reply(&same, "other").await.expect("dropped without a fault of the replier");
    };
    let (reply, ()) = tokio::join!(asked, replied);
    assert_eq!(text(&reply.expect("a reply")), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_requester_that_is_gone_says_so() {
    let cluster = Cluster::start(Settings::default()).await;
    let asking = cluster.client_with_topic(TOPIC, 1).await;
    let answering = cluster.client().await;
    let (_consumer, mut requests) = collecting(&answering, "gone").await;
    let replying = producer(&answering, "replying").await;
    let plain = producer(&answering, "plain").await;

    let id = asking.id().to_owned();
    let producer = producer(&asking, "asking").await;
    let asked = async { producer.request(Message::new(TOPIC, "and gone"), PATIENCE).await };
    let request = tokio::select! {
        reply = asked => panic!("nobody replied: {reply:?}"),
        request = requests.recv() => request.expect("the request"),
    };
    asking.shutdown().await;
    let error = replying.reply(&request, "hello?").await.expect_err("nobody is there");
    let ReplyError::RequesterGone { client_id, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*client_id, id);
    assert!(!error.outcome_unknown(), "{error}");

    // What is no request cannot be replied to.
    plain.send(Message::new(TOPIC, "plain")).await.expect("sent");
    let message = requests.recv().await.expect("the message");
    let error = replying.reply(&message, "to whom").await.expect_err("no request");
    assert!(matches!(error, ReplyError::Invalid { .. }) && !message.wants_reply());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_not_sent_leaves_no_doubt() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let asking = cluster.client_with_topic(TOPIC, 1).await;
    let producer = producer(&asking, "asking").await;
    let empty = producer.request(Message::new(TOPIC, ""), PATIENCE).await.expect_err("an empty body");
    assert!(matches!(&empty, NoReply::NotSent(_)) && !empty.is_retryable(), "{empty}");
    let never = producer.request(Message::new(TOPIC, "x"), Duration::ZERO).await.expect_err("no time at all");
    assert!(matches!(&never, NoReply::NotSent(_)), "{never}");
    cluster.broker.kill();
    let error = producer.request(Message::new(TOPIC, "x"), Duration::from_secs(1)).await.expect_err("no broker");
    assert!(matches!(&error, NoReply::NotSent(_)), "{error:?}");
    assert!(error.is_retryable() && !error.outcome_unknown(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_finds_the_requester_at_the_next_leader() {
    let mut group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    group.wire(leader).create_topic(TOPIC, 1).await;
    let client = async || group.client_builder().connect().await.expect("a client connects");
    let (asking, answering) = (client().await, client().await);
    let (_consumer, mut requests) = collecting(&answering, "failover").await;
    let (producer, replying) = (producer(&asking, "asking").await, producer(&answering, "replying").await);
    until("a first send", async || producer.send(Message::new(TOPIC, "warm")).await.ok()).await;
    let asked = producer.request(Message::new(TOPIC, "across"), PATIENCE);
    let replied = async {
        let request = loop {
            let message = requests.recv().await.expect("the request");
            if message.wants_reply() {
                break message;
            }
        };
        group.kill(leader);
        replying.reply(&request, "found you").await
    };
    let (reply, replied) = tokio::join!(asked, replied);
    replied.expect("the reply is delivered");
    assert_eq!(text(&reply.expect("a reply")), "found you");
}
