//! Batching producers and profiles, against brokers that misbehave on request.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use escrowmq_client::{
    BatchingProducer, Client, Message, Profile, Receipt, SendError, Spill, SpillError, StartError, StoreLevel,
};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use futures_util::future::join_all;

async fn client(cluster: &Cluster) -> Client {
    Client::builder(&cluster.namesrv).connect().await.expect("a name server")
}

/// A batching producer that gives up soon.
async fn batching(client: &Client) -> BatchingProducer {
    let soon = Duration::from_millis(500);
    let producer = client.producer("P").attempts_max(1).attempt_timeout(soon).deadline(soon).start().await;
    producer.expect("a producer").batching().start().expect("good settings")
}

fn sends(cluster: &Cluster) -> usize {
    cluster.seen(request::SEND_MESSAGE_V2).len() + cluster.seen(request::SEND_BATCH_MESSAGE).len()
}

fn is_send(seen: &crate::fake::Seen) -> bool {
    [request::SEND_MESSAGE_V2, request::SEND_BATCH_MESSAGE].contains(&seen.frame.code)
}

#[tokio::test]
async fn each_message_of_a_batch_is_told_its_own_place() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 4)]).await;
    let client = client(&cluster).await;
    let batching = batching(&client).await;
    let mut receipts = Vec::new();
    for number in 0..1000 {
        let receipt = batching.enqueue(Message::new("T", format!("m{number}"))).await.expect("room");
        receipts.push((receipt.message_id().to_owned(), receipt));
    }
    let mut ids = HashSet::new();
    for (number, (id, receipt)) in receipts.into_iter().enumerate() {
        let sent = receipt.await.expect("stored");
        assert_eq!((&sent.message_id, sent.level), (&id, StoreLevel::Full));
        assert!(ids.insert(sent.offset_message_id), "each has a place of its own");
        let bodies = cluster.broker(sent.queue.broker()).bodies("T", sent.queue.id());
        assert_eq!(bodies[sent.queue_offset as usize], format!("m{number}"));
    }
    assert!(sends(&cluster) < 200, "{} requests", sends(&cluster));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn keys_keep_their_queue_and_order_and_delayed_messages_go_alone() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 4), ("U", 2)]).await;
    let client = client(&cluster).await;
    let batching = batching(&client).await;
    for number in 0..200 {
        let message =
            Message::new("T", format!("k{}-{number:03}", number % 7)).sharding_key(format!("k{}", number % 7));
        // Nobody awaits it, and it is sent.
        drop(batching.enqueue(message).await.expect("room"));
        if number % 50 == 0 {
            drop(batching.enqueue(Message::new("U", "later").delay_level(1)).await.expect("room"));
        }
    }
    batching.flush().await;
    let mut keys = HashSet::new();
    for queue in 0..4 {
        let bodies = cluster.brokers[0].bodies("T", queue);
        for key in bodies.iter().map(|body| body[..2].to_owned()).collect::<HashSet<_>>() {
            let of_key: Vec<_> = bodies.iter().filter(|body| body.starts_with(&key)).collect();
            assert!(of_key.is_sorted() && of_key.len() >= 28, "{of_key:?}");
            assert!(keys.insert(key), "a key is in one queue");
        }
    }
    assert_eq!(keys.len(), 7);
    let delayed = cluster.seen(request::SEND_MESSAGE_V2).iter().filter(|seen| seen.property("DELAY").is_some()).count();
    assert_eq!(delayed, 4);
    batching.shutdown().await;
    assert!(matches!(batching.enqueue(Message::new("T", "x")).await, Err(SendError::ShutDown)));
    let sent = batching.producer().send(Message::new("T", "x")).await;
    assert!(sent.is_ok(), "the producer inside goes on");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_full_window_makes_wait_and_takes_the_next_when_there_is_room() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    cluster.hook(move |seen| {
        if is_send(seen) && silent.load(Ordering::SeqCst) {
            Hook::Answer(response::SYSTEM_BUSY, "busy")
        } else {
            Hook::Pass
        }
    });
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("a producer");
    let batching = producer.batching().in_flight_messages(8).start().expect("good settings");
    let mut receipts = Vec::new();
    for number in 0..8 {
        receipts.push(batching.enqueue(Message::new("T", format!("{number}"))).await.expect("room"));
    }
    let mut ninth = Box::pin(batching.enqueue(Message::new("T", "8")));
    assert!(futures_util::poll!(&mut ninth).is_pending(), "there is no room");
    assert!(futures_util::poll!(&mut ninth).is_pending());
    is_silent.store(false, Ordering::SeqCst);
    receipts.push(ninth.await.expect("room"));
    for sent in join_all(receipts).await {
        sent.expect("stored");
    }
    assert_eq!(cluster.brokers[0].bodies("T", 0).len(), 9);
    let refused = producer.batching().in_flight_bytes(0).start().expect_err("no window");
    assert!(matches!(refused, StartError::Setting { setting: "in_flight_bytes", .. }));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_each_message_own() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let batching = batching(&client).await;
    batching.enqueue(Message::new("T", "first")).await.expect("room").await.expect("stored");
    cluster.hook(|seen| if is_send(seen) { Hook::SwallowAnswer } else { Hook::Pass });
    let mut receipts = Vec::new();
    for number in 0..20 {
        let message = Message::new("T", "x").unique_id(format!("id{number}")).sharding_key("k");
        receipts.push(batching.enqueue(message).await.expect("room"));
    }
    let (mut unknown, mut not_sent) = (0, 0);
    for (number, receipt) in receipts.into_iter().enumerate() {
        match receipt.await.expect_err("nobody answers") {
            SendError::OutcomeUnknown { message_id, .. } => {
                assert_eq!(message_id, format!("id{number}"));
                unknown += 1;
            }
            error => {
                assert!(error.is_retryable() && !error.outcome_unknown(), "{error}");
                not_sent += 1;
            }
        }
    }
    let stored = cluster.brokers[0].bodies("T", 0).len() - 1;
    assert!(unknown > 1 && unknown == stored, "{unknown} unknown, {not_sent} not sent, {stored} stored");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn one_message_at_fault_fails_alone() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(|seen| {
        let is_bad = seen.frame.body.windows(3).any(|part| part == b"bad");
        if is_send(seen) && is_bad { Hook::Answer(response::MESSAGE_ILLEGAL, "bad") } else { Hook::Pass }
    });
    let client = client(&cluster).await;
    let producer = client.producer("P").start().await.expect("a producer");
    let batching = producer.batching().linger(Duration::from_secs(60)).start().expect("good settings");
    let mut receipts = Vec::new();
    for body in ["a", "bad", "b"] {
        receipts.push(batching.enqueue(Message::new("T", body)).await.expect("room"));
    }
    // Long before anybody has lingered enough.
    batching.flush().await;
    let results = join_all(receipts).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(results[1].as_ref().is_err_and(|error| !error.is_retryable() && !error.outcome_unknown()));
    assert_eq!(cluster.seen(request::SEND_BATCH_MESSAGE).len(), 1, "they lingered");
    assert_eq!(cluster.brokers[0].bodies("T", 0), ["a", "b"]);
    assert!(batching.enqueue(Message::new("T", "")).await.is_err(), "no broker would take it");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn batches_that_could_not_be_sent_are_spilled_and_sent_later_in_order() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 2)]).await;
    let is_busy = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&is_busy);
    cluster.hook(move |seen| {
        if is_send(seen) && busy.load(Ordering::SeqCst) {
            Hook::Answer(response::SYSTEM_BUSY, "busy")
        } else {
            Hook::Pass
        }
    });
    let client = client(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let builder = || client.producer("P").deadline(Duration::from_millis(200));
    let producer = builder().spill(Spill::dir(folder.path())).start().await.expect("a producer");
    let in_use = client.producer("Q").spill(Spill::dir(folder.path())).start().await.expect_err("one at a time");
    assert!(matches!(in_use, StartError::SpillInUse { .. }) && in_use.is_retryable(), "{in_use}");
    let batching = producer.batching().start().expect("good settings");
    let mut receipts = Vec::new();
    for number in 0..100 {
        let message = Message::new("T", format!("{number:03}")).sharding_key("k");
        receipts.push(batching.enqueue(message).await.expect("room"));
    }
    for receipt in join_all(receipts).await {
        let receipt = receipt.expect("kept");
        let Receipt::Spilled(spilled) = receipt else { panic!("{receipt:?}") };
        assert!(spilled.is_synced && !spilled.possible_duplicate);
    }
    assert_eq!(producer.stats().waiting, 100);
    is_busy.store(false, Ordering::SeqCst);
    until("an empty spill", || producer.stats().waiting == 0).await;
    let bodies = [cluster.brokers[0].bodies("T", 0), cluster.brokers[0].bodies("T", 1)].concat();
    assert_eq!(bodies, (0..100).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    batching.shutdown().await;
    producer.shutdown().await;
    // The folder is free again, and strict producers do not take what is there for sent.
    is_busy.store(true, Ordering::SeqCst);
    let producer =
        builder().profile(Profile::Strict).spill(Spill::dir(folder.path())).start().await.expect("a producer");
    let error = producer.send(Message::new("T", "x")).await.expect_err("at no broker");
    assert!(matches!(&error, SpillError::Spilled(spilled) if spilled.cause.is_some()), "{error}");
    client.shutdown().await;
    // It is the end of the producer too, which lets go of the folder for the next one.
    let mut other = None;
    let next = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
    while other.is_none() {
        match next.producer("N").spill(Spill::dir(folder.path())).start().await {
            Ok(producer) => other = Some(producer),
            Err(error) => assert!(matches!(error, StartError::SpillInUse { .. }), "{error}"),
        }
    }
    assert_eq!(other.map(|producer| producer.stats().waiting), Some(1));
    next.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn strict_refuses_less_and_says_whether_the_message_is_stored() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("P").profile(Profile::Strict).start().await.expect("a producer");
    let invalid = producer.send(Message::new("T", "x").wait_stored(false)).await.expect_err("refused");
    assert!(matches!(&invalid, SendError::Invalid { reason } if reason.contains("Strict")), "{invalid}");
    assert!(matches!(producer.send_oneway(Message::new("T", "x")).await, Err(SendError::Invalid { .. })));
    assert!(matches!(
        producer.send_batch(vec![Message::new("T", "x"), Message::new("T", "y").wait_stored(false)]).await,
        Err(SendError::Invalid { .. })
    ));
    assert_eq!(sends(&cluster), 0);
    // A broker that does not tell its settings is taken at its word.
    assert_eq!(producer.send(Message::new("T", "x")).await.expect("stored").level, StoreLevel::Full);
    cluster.brokers[0].lower_level(response::FLUSH_DISK_TIMEOUT);
    for batch in [false, true] {
        let error = if batch {
            producer.send_batch(vec![Message::new("T", "y"), Message::new("T", "z")]).await.expect_err("too little")
        } else {
            producer.send(Message::new("T", "y")).await.expect_err("too little")
        };
        assert!(error.outcome_unknown() && error.is_retryable(), "{error}");
        assert!(matches!(error, SendError::BelowAsked { level: StoreLevel::FlushTimedOut, .. }));
    }
    assert_eq!(cluster.brokers[0].bodies("T", 0), ["x", "y", "y", "z"], "it is stored, and the error says so");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn strict_sends_nothing_to_a_broker_whose_settings_lose_it() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.hook(|seen| {
        let tell = |frame: &Frame| {
            Frame::response(frame, response::SUCCESS).with_body("brokerRole=ASYNC_MASTER\nflushDiskType=ASYNC_FLUSH\n")
        };
        if seen.frame.code == request::GET_BROKER_CONFIG { Hook::Reply(tell) } else { Hook::Pass }
    });
    let client = client(&cluster).await;
    let producer = client.producer("P").profile(Profile::Strict).start().await.expect("a producer");
    for _ in 0..2 {
        let error = producer.send(Message::new("T", "x")).await.expect_err("unsafe");
        assert!(matches!(error, SendError::UnsafeBroker { .. }) && !error.is_retryable() && !error.outcome_unknown());
        assert!(error.to_string().contains("flushDiskType=ASYNC_FLUSH"), "{error}");
    }
    assert_eq!((sends(&cluster), cluster.seen(request::GET_BROKER_CONFIG).len()), (0, 1));
    let fast = client.producer("F").profile(Profile::Fast).start().await.expect("a producer");
    fast.send(Message::new("T", "x")).await.expect("stored");
    fast.send(Message::new("T", "y").wait_stored(true)).await.expect("stored");
    let waits: Vec<_> = cluster.seen(request::SEND_MESSAGE_V2).iter().map(|seen| seen.property("WAIT")).collect();
    assert_eq!(waits, [Some("false".to_owned()), Some("true".to_owned())]);
    client.shutdown().await;
    cluster.stop().await;
}
