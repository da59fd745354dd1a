//! Sends against brokers that misbehave on request: attempts, deadlines, codes, batches, shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use escrowmq_client::{Client, Message, RequestError, SendError, StartError, StoreLevel};
use escrowmq_common::code::{request, response};

async fn client(cluster: &Cluster) -> Client {
    Client::builder(&cluster.namesrv).connect().await.expect("a name server")
}

/// Misbehaves on the first `count` sends of the whole cluster.
fn first_sends(
    count: usize,
    hook: impl Fn() -> Hook + Send + Sync + 'static,
) -> impl Fn(&crate::fake::Seen) -> Hook + Send + Sync + Clone {
    let (left, hook) = (Arc::new(AtomicUsize::new(count)), Arc::new(hook));
    move |seen| {
        let is_send = [request::SEND_MESSAGE_V2, request::SEND_BATCH_MESSAGE].contains(&seen.frame.code);
        let counts =
            is_send && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if counts { hook() } else { Hook::Pass }
    }
}

#[tokio::test]
async fn a_message_goes_round_the_queues_and_names_its_place() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 4)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let mut places = Vec::new();
    for number in 0..8 {
        let sent = producer.send(Message::new("T", format!("m{number}"))).await.expect("stored");
        assert_eq!((sent.level, sent.attempts, sent.possible_duplicate), (StoreLevel::Full, 1, false));
        assert_eq!(sent.offset_message_id.len(), 32);
        places.push((sent.queue.id(), sent.queue_offset));
    }
    places.sort_unstable();
    let expected: Vec<_> = (0..4).flat_map(|queue| (0..2).map(move |offset| (queue, offset))).collect();
    assert_eq!(places, expected);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_retry_goes_to_the_other_broker_with_the_same_unique_id() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 2)]).await;
    cluster.hook(first_sends(1, || Hook::Answer(response::SYSTEM_BUSY, "busy")));
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let sent = producer.send(Message::new("T", "x")).await.expect("stored by the other");
    assert_eq!((sent.attempts, sent.possible_duplicate), (2, false));
    let seen = cluster.seen(request::SEND_MESSAGE_V2);
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].broker, seen[1].broker);
    let ids: Vec<_> = seen.iter().map(|seen| seen.property("UNIQ_KEY")).collect();
    assert_eq!(ids, vec![Some(sent.message_id.clone()); 2]);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_lost_answer_makes_a_success_a_possible_duplicate() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(first_sends(1, || Hook::SwallowAnswer));
    let client = client(&cluster).await;
    let producer = client.producer("P").attempt_timeout(Duration::from_millis(200)).start().await.expect("started");
    let sent = producer.send(Message::new("T", "x")).await.expect("stored by the other");
    assert!(sent.possible_duplicate);
    let copies: usize = cluster.brokers.iter().map(|broker| broker.bodies("T", 0).len()).sum();
    assert_eq!(copies, 2);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn silence_ends_with_an_unknown_outcome() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(first_sends(usize::MAX, || Hook::Silence));
    let client = client(&cluster).await;
    let builder = client.producer("P").attempt_timeout(Duration::from_millis(300)).deadline(Duration::from_millis(700));
    let producer = builder.start().await.expect("started");
    let error = producer.send(Message::new("T", "x").unique_id("mine")).await.expect_err("nobody answers");
    assert!(error.outcome_unknown() && error.is_retryable());
    let SendError::OutcomeUnknown { message_id, attempts, last } = error else { panic!("{error}") };
    assert_eq!(message_id, "mine");
    assert!((2..=3).contains(&attempts), "{attempts}");
    assert!(matches!(last, RequestError::TimedOut { .. }), "{last}");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_message_at_fault_is_refused_once_and_for_certain() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(first_sends(usize::MAX, || Hook::Answer(response::MESSAGE_ILLEGAL, "too long")));
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let error = producer.send(Message::new("T", "x")).await.expect_err("refused");
    assert!(!error.outcome_unknown() && !error.is_retryable(), "{error}");
    assert_eq!(cluster.seen(request::SEND_MESSAGE_V2).len(), 1);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn half_success_codes_are_successes_that_say_so() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    for (code, level) in [
        (response::FLUSH_DISK_TIMEOUT, StoreLevel::FlushTimedOut),
        (response::SLAVE_NOT_AVAILABLE, StoreLevel::NoReplica),
        (response::FLUSH_SLAVE_TIMEOUT, StoreLevel::ReplicaTimedOut),
    ] {
        cluster.brokers[0].lower_level(code);
        let sent = producer.send(Message::new("T", "x")).await.expect("stored");
        assert_eq!((sent.level, sent.attempts), (level, 1));
    }
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_success_that_cannot_be_read_does_not_pass_for_not_stored() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    cluster.hook(first_sends(1, || Hook::Answer(response::SUCCESS, "")));
    let error = producer.send(Message::new("T", "x")).await.expect_err("unreadable");
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(cluster.seen(request::SEND_MESSAGE_V2).len(), 1);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_dead_broker_is_left_for_the_living() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    producer.queues("T").await.expect("a route");
    cluster.brokers[0].kill();
    for number in 0..10 {
        producer.send(Message::new("T", format!("m{number}"))).await.expect("the other broker lives");
    }
    assert_eq!(cluster.brokers[1].bodies("T", 0).len() + cluster.brokers[0].bodies("T", 0).len(), 10);
    assert!(cluster.brokers[1].bodies("T", 0).len() >= 9);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_cluster_that_comes_back_within_the_deadline_gets_the_message() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(first_sends(5, || Hook::Answer(response::SERVICE_NOT_AVAILABLE, "no leader")));
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let sent = producer.send(Message::new("T", "x")).await.expect("stored at last");
    assert_eq!((sent.attempts, sent.possible_duplicate), (6, false));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_topic_that_does_not_exist_yet_is_sent_to_by_its_template() {
    let cluster = Cluster::start(1, Kind::Apache, &[("TBW102", 8)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    assert_eq!(producer.queues("New").await.expect("by template").len(), 4);
    producer.send(Message::new("New", "x")).await.expect("stored");
    let seen = cluster.seen(request::SEND_MESSAGE_V2);
    assert_eq!((seen[0].field("c").as_deref(), seen[0].field("d").as_deref()), (Some("TBW102"), Some("4")));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_topic_that_nobody_may_create_is_no_route() {
    let cluster = Cluster::start(1, Kind::Apache, &[]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").deadline(Duration::from_millis(300)).start().await.expect("started");
    let error = producer.send(Message::new("New", "x")).await.expect_err("no route");
    let SendError::NotStored { last: RequestError::NoRoute { topic }, .. } = &error else { panic!("{error}") };
    assert_eq!(topic, "New");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_sharding_key_keeps_its_queue() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 4)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let mut queues = std::collections::BTreeSet::new();
    for number in 0..10 {
        let message = Message::new("T", format!("m{number}")).sharding_key("order-17");
        queues.insert(producer.send(message).await.expect("stored").queue);
    }
    assert_eq!(queues.len(), 1);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_is_one_request() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    let messages = (0..3).map(|number| Message::new("T", format!("m{number}"))).collect();
    let sent = producer.send_batch(messages).await.expect("stored");
    assert_eq!((sent.message_ids.len(), sent.offset_message_ids.len(), sent.first_queue_offset), (3, 3, 0));
    assert_eq!(cluster.brokers[0].bodies("T", 0), ["m0", "m1", "m2"]);
    assert_eq!(cluster.seen(request::SEND_BATCH_MESSAGE).len(), 1);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_oneway_send_arrives_unanswered() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("started");
    producer.send_oneway(Message::new("T", "x")).await.expect("on its way");
    until("the message arrives", || cluster.brokers[0].bodies("T", 0) == ["x"]).await;
    assert!(cluster.seen(request::SEND_MESSAGE_V2)[0].frame.is_oneway());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_sends_in_flight_and_leaves_the_group() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").topics(["T"]).start().await.expect("started");
    assert_eq!(cluster.brokers[0].producers("P"), [client.id()]);
    // The first attempt is refused, so that the send still has to pause and repeat when the shutdown comes.
    cluster.hook(first_sends(3, || Hook::Answer(response::SYSTEM_BUSY, "busy")));
    let sender = producer.clone();
    let sending = tokio::task::JoinSet::from_iter([async move { sender.send(Message::new("T", "x")).await }]);
    until("the send is under way", || !cluster.seen(request::SEND_MESSAGE_V2).is_empty()).await;
    producer.shutdown().await;
    assert_eq!(cluster.brokers[0].bodies("T", 0), ["x"], "the send ended before the shutdown did");
    sending.join_all().await.remove(0).expect("stored");
    let error = producer.send(Message::new("T", "y")).await.expect_err("shut down");
    assert!(matches!(error, SendError::ShutDown));
    assert!(cluster.brokers[0].producers("P").is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_group_is_used_once_per_client() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let first = client.producer("P").start().await.expect("started");
    let error = client.producer("P").start().await.expect_err("in use");
    assert!(matches!(error, StartError::GroupInUse { .. }));
    drop(first);
    client.producer("P").start().await.expect("free again");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn no_name_server_is_an_error_of_the_start() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = Client::builder(addr).connect().await.expect_err("nobody there");
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn the_route_of_a_topic_that_is_no_longer_used_is_forgotten() {
    let cluster = Cluster::start(1, Kind::Apache, &[("Used", 1), ("Unused", 1)]).await;
    let client = Client::builder(&cluster.namesrv).route_interval(Duration::from_millis(5));
    let client = client.connect().await.expect("a name server");
    let producer = client.producer("P").start().await.expect("started");
    producer.send(Message::new("Unused", "once")).await.expect("stored");
    let first = cluster.look_ups("Unused");
    while cluster.look_ups("Used") < 5 {
        producer.send(Message::new("Used", "again and again")).await.expect("stored");
    }
    let since = cluster.look_ups("Unused") - first;
    assert!(since <= 2, "asked for {since} times after the last use");
    client.shutdown().await;
    cluster.stop().await;
}
