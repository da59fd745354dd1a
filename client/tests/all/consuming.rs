//! Push and pull consumers: offsets only after success, retries, rebalance, order, shutdown.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use escrowmq_client::{Client, ConsumeFrom, MessageExt, MessageQueue, PushConsumerBuilder};
use escrowmq_common::body::{ConsumeDirectlyResult, ConsumeResult, ConsumerRunningInfo, json};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

const GROUP: &str = "G";

async fn client(cluster: &Cluster) -> Client {
    Client::builder(&cluster.namesrv).connect().await.expect("a name server")
}

/// Bodies in the order handled.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, message: &MessageExt) -> String {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        self.0.lock().expect("no panic inside").push(body.clone());
        body
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic inside").clone()
    }

    fn sorted(&self) -> Vec<String> {
        let mut all = self.all();
        all.sort();
        all
    }
}

/// A consumer from the first message on that commits quickly.
fn consumer(client: &Client) -> PushConsumerBuilder {
    client
        .push_consumer(GROUP)
        .subscribe("T", "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(20))
        .hold(Duration::from_millis(500))
}

/// A handler that notes and succeeds.
fn noting(journal: &Journal) -> impl Fn(MessageExt) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let journal = journal.clone();
    move |message| {
        journal.note(&message);
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn messages_are_handled_once_and_their_offsets_stored() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 2)]).await;
    for number in 0..20 {
        cluster.brokers[number % 2].store("T", (number / 2 % 2) as i32, &format!("m{number:02}"), "x");
    }
    let client = client(&cluster).await;
    let journal = Journal::default();
    let consumer = consumer(&client).start(noting(&journal)).await.expect("started");
    until("all are handled", || journal.all().len() == 20).await;
    let expected: Vec<String> = (0..20).map(|number| format!("m{number:02}")).collect();
    assert_eq!(journal.sorted(), expected);
    assert_eq!(consumer.assignment().iter().filter(|queue| queue.topic() == "T").count(), 4);
    for broker in &cluster.brokers {
        until("offsets are stored", || (0..2).all(|queue| broker.offset(GROUP, "T", queue) == Some(5))).await;
    }
    // One that arrives while the broker holds the pull is delivered at once.
    cluster.brokers[0].store("T", 0, "late", "x");
    until("the late one is handled", || journal.all().len() == 21).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_offset_never_passes_a_message_that_is_not_done() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    for number in 0..5 {
        cluster.brokers[0].store("T", 0, &format!("m{number}"), "x");
    }
    let client = client(&cluster).await;
    let journal = Journal::default();
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let handler = {
        let (journal, open) = (journal.clone(), Arc::clone(&open));
        move |message: MessageExt| {
            let (journal, open) = (journal.clone(), Arc::clone(&open));
            async move {
                if message.queue_offset() == 2 {
                    let _ = open.acquire().await;
                }
                journal.note(&message);
                Ok::<(), String>(())
            }
        }
    };
    let _consumer = consumer(&client).start(handler).await.expect("started");
    until("all but one are done", || journal.all().len() == 4).await;
    until("the offset is stored", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(2)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.brokers[0].offset(GROUP, "T", 0), Some(2), "several commits later");
    open.add_permits(1);
    until("the offset moves on", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(5)).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_failed_message_comes_back_through_the_retry_topic_and_ends_as_a_dead_letter() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "bad", "x");
    cluster.brokers[0].store("T", 0, "panics", "x");
    cluster.brokers[0].store("T", 0, "good", "x");
    let client = client(&cluster).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let attempts = Arc::clone(&attempts);
        move |message: MessageExt| {
            let attempts = Arc::clone(&attempts);
            async move {
                let body = String::from_utf8_lossy(message.body()).into_owned();
                assert_eq!(message.topic(), "T", "the original topic is shown");
                attempts.lock().expect("no panic inside").push((body.clone(), message.reconsume_times()));
                assert!(body != "panics" || message.reconsume_times() > 0, "on purpose");
                if body == "bad" { Err("refused") } else { Ok(()) }
            }
        }
    };
    let consumer = consumer(&client).attempts_max(2).rebalance_interval(Duration::from_millis(300));
    let _consumer = consumer.start(handler).await.expect("started");
    until("it is a dead letter", || cluster.brokers[0].bodies("%DLQ%G", 0) == ["bad"]).await;
    let all = attempts.lock().expect("no panic inside").clone();
    let tries = |body: &str| all.iter().filter(|(other, _)| other == body).map(|(_, times)| *times).collect::<Vec<_>>();
    assert_eq!(tries("bad"), [0, 1, 2]);
    assert_eq!(tries("panics"), [0, 1]);
    assert_eq!(tries("good"), [0]);
    until("the offset passes what the broker took over", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(3)).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_that_refuses_to_take_back_gets_an_ordinary_send() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "bad", "x");
    cluster.hook(|seen| match seen.frame.code {
        request::CONSUMER_SEND_MSG_BACK => Hook::Answer(response::SYSTEM_ERROR, "no"),
        _ => Hook::Pass,
    });
    let client = client(&cluster).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        move |message: MessageExt| {
            let times = message.reconsume_times();
            seen.lock().expect("no panic inside").push((message.topic().to_owned(), times));
            std::future::ready(if times == 0 { Err("not yet") } else { Ok(()) })
        }
    };
    let consumer = consumer(&client).rebalance_interval(Duration::from_millis(300));
    let _consumer = consumer.start(handler).await.expect("started");
    until("it comes back", || seen.lock().expect("no panic inside").len() == 2).await;
    assert_eq!(*seen.lock().expect("no panic inside"), [("T".to_owned(), 0), ("T".to_owned(), 1)]);
    let sent = &cluster.seen(request::SEND_MESSAGE_V2)[0];
    assert_eq!(
        (sent.field("a").as_deref(), sent.field("b").as_deref()),
        (Some("CLIENT_INNER_PRODUCER"), Some("%RETRY%G"))
    );
    assert_eq!((sent.field("j").as_deref(), sent.field("l").as_deref()), (Some("1"), Some("16")));
    assert_eq!(sent.property("DELAY").as_deref(), Some("3"));
    assert_eq!(sent.property("ORIGIN_MESSAGE_ID").as_deref(), Some("bad"));
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_message_that_nobody_takes_back_is_neither_lost_nor_passed() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "bad", "x");
    cluster.brokers[0].store("T", 0, "good", "x");
    cluster.hook(|seen| match seen.frame.code {
        request::CONSUMER_SEND_MSG_BACK | request::SEND_MESSAGE_V2 => Hook::Answer(response::MESSAGE_ILLEGAL, "no"),
        _ => Hook::Pass,
    });
    let client = client(&cluster).await;
    let failed = Arc::new(AtomicBool::new(false));
    let journal = Journal::default();
    let handler = {
        let (failed, journal) = (Arc::clone(&failed), journal.clone());
        move |message: MessageExt| {
            let body = journal.note(&message);
            let fails = body == "bad" && !failed.swap(true, Ordering::SeqCst);
            std::future::ready(if fails { Err("not yet") } else { Ok(()) })
        }
    };
    let _consumer = consumer(&client).start(handler).await.expect("started");
    until("the good one is handled", || journal.all().contains(&"good".to_owned())).await;
    assert_eq!(cluster.brokers[0].offset(GROUP, "T", 0).unwrap_or(0), 0);
    until("the bad one is tried again here", || journal.all().len() == 3).await;
    until("the offset passes both", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(2)).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn tags_are_compared_exactly() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    // The two tags share a hash; the fake filters nothing at all.
    cluster.brokers[0].store("T", 0, "wanted", "Aa");
    cluster.brokers[0].store("T", 0, "not wanted", "BB");
    let client = client(&cluster).await;
    let journal = Journal::default();
    let builder = client
        .push_consumer(GROUP)
        .subscribe("T", "Aa || C")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(20));
    let _consumer = builder.start(noting(&journal)).await.expect("started");
    until("both are passed", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(2)).await;
    assert_eq!(journal.all(), ["wanted"]);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn two_members_share_the_queues_and_one_takes_over() {
    let cluster = Cluster::start(2, Kind::Apache, &[("T", 4)]).await;
    let (one, other) = (client(&cluster).await, client(&cluster).await);
    let journal = Journal::default();
    let first = consumer(&one).start(noting(&journal)).await.expect("started");
    let topic_queues = |queues: Vec<MessageQueue>| -> BTreeSet<MessageQueue> {
        queues.into_iter().filter(|queue| queue.topic() == "T").collect()
    };
    until("the first has all", || topic_queues(first.assignment()).len() == 8).await;
    let second = consumer(&other).start(noting(&journal)).await.expect("started");
    until("each has half", || {
        topic_queues(first.assignment()).len() == 4 && topic_queues(second.assignment()).len() == 4
    })
    .await;
    assert!(topic_queues(first.assignment()).is_disjoint(&topic_queues(second.assignment())));
    for number in 0..16 {
        cluster.brokers[number % 2].store("T", (number / 2 % 4) as i32, &format!("m{number:02}"), "x");
    }
    until("all are handled", || journal.all().len() == 16).await;
    second.shutdown().await;
    until("the first takes over", || topic_queues(first.assignment()).len() == 8).await;
    cluster.brokers[1].store("T", 3, "after", "x");
    until("the message of a queue taken over is handled", || journal.all().len() == 17).await;
    assert_eq!(journal.all().iter().collect::<BTreeSet<_>>().len(), 17, "none twice");
    one.shutdown().await;
    other.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_stored_offset_is_gone_on_from_and_last_means_from_now_on() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "old", "x");
    let journal = Journal::default();
    for round in ["new", "newer"] {
        let client = client(&cluster).await;
        let builder = client.push_consumer(GROUP).subscribe("T", "*").commit_interval(Duration::from_millis(20));
        let consumer = builder.start(noting(&journal)).await.expect("started");
        until("it holds the queue", || consumer.assignment().iter().any(|queue| queue.topic() == "T")).await;
        cluster.brokers[0].store("T", 0, round, "x");
        until("it is handled", || journal.all().last().is_some_and(|last| last == round)).await;
        client.shutdown().await;
        // Missed by nobody: stored while no member is there.
        cluster.brokers[0].store("T", 0, &format!("after {round}"), "x");
    }
    assert_eq!(journal.all(), ["new", "after new", "newer"]);
    cluster.stop().await;
}

#[tokio::test]
async fn shutdown_lets_handlers_finish_and_stores_what_they_earned() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    for number in 0..40 {
        cluster.brokers[0].store("T", 0, &format!("m{number:02}"), "x");
    }
    let client = client(&cluster).await;
    let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (begun, done) = (Arc::clone(&begun), Arc::clone(&done));
        move |_: MessageExt| {
            let (begun, done) = (Arc::clone(&begun), Arc::clone(&done));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                done.fetch_add(1, Ordering::SeqCst);
                Ok::<(), String>(())
            }
        }
    };
    let builder = consumer(&client).concurrency(4).commit_interval(Duration::from_secs(60));
    let consumer = builder.start(handler).await.expect("started");
    until("handlers are at work", || begun.load(Ordering::SeqCst) >= 4).await;
    consumer.shutdown().await;
    let (begun, done) = (begun.load(Ordering::SeqCst), done.load(Ordering::SeqCst));
    assert_eq!(begun, done, "every handler that began has ended");
    assert!(done < 40, "and what waited was left");
    assert_eq!(cluster.brokers[0].offset(GROUP, "T", 0), Some(done as i64));
    assert!(cluster.brokers[0].consumers(GROUP).is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_buffer_is_bounded() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    for number in 0..200 {
        cluster.brokers[0].store("T", 0, &format!("m{number}"), "x");
    }
    let client = client(&cluster).await;
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let handled = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (open, handled) = (Arc::clone(&open), Arc::clone(&handled));
        move |_: MessageExt| {
            let (open, handled) = (Arc::clone(&open), Arc::clone(&handled));
            async move {
                open.acquire().await.expect("open").forget();
                handled.fetch_add(1, Ordering::SeqCst);
                Ok::<(), String>(())
            }
        }
    };
    let builder = consumer(&client).buffer(20, 1 << 20).pull_max(10).concurrency(2);
    let consumer = builder.start(handler).await.expect("started");
    until("the buffer is full", || consumer.in_hand() >= 20).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(consumer.in_hand() < 30, "{}", consumer.in_hand());
    open.add_permits(200);
    until("all are handled", || handled.load(Ordering::SeqCst) == 200).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_pull_that_fails_is_repeated_and_an_unknown_group_is_introduced_again() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "m", "x");
    let refusals = Arc::new(AtomicUsize::new(1));
    cluster.hook(move |seen| {
        let refuse = seen.frame.code == request::PULL_MESSAGE
            && refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refuse { Hook::Answer(response::SUBSCRIPTION_NOT_EXIST, "who?") } else { Hook::Pass }
    });
    let client = client(&cluster).await;
    let journal = Journal::default();
    let _consumer = consumer(&client).start(noting(&journal)).await.expect("started");
    until("it is handled all the same", || journal.all() == ["m"]).await;
    let codes = cluster.brokers[0].codes();
    let refused = codes.iter().position(|code| *code == request::PULL_MESSAGE).expect("a pull");
    assert!(codes[refused..].contains(&request::HEART_BEAT), "{codes:?}");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_corrected_by_the_broker() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "m0", "x");
    let client = client(&cluster).await;
    let queue = MessageQueue::new("T", "a", 0);
    client.admin().set_consumer_offset(GROUP, &queue, 100).await.expect("stored");
    let journal = Journal::default();
    let _consumer = consumer(&client).start(noting(&journal)).await.expect("started");
    until("the offset is corrected", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(1)).await;
    cluster.brokers[0].store("T", 0, "m1", "x");
    until("the next one is handled", || journal.all() == ["m1"]).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_ordered_consumer_keeps_the_order_through_failures() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 2)]).await;
    for number in 0..6 {
        cluster.brokers[0].store("T", number % 2, &format!("q{} m{}", number % 2, number / 2), "x");
    }
    let client = client(&cluster).await;
    let journal = Journal::default();
    let failed = Arc::new(AtomicBool::new(false));
    let handler = {
        let (journal, failed) = (journal.clone(), Arc::clone(&failed));
        move |messages: Vec<MessageExt>| {
            let body = String::from_utf8_lossy(messages[0].body()).into_owned();
            let fails = body == "q0 m1" && !failed.swap(true, Ordering::SeqCst);
            if !fails {
                journal.note(&messages[0]);
            }
            std::future::ready(if fails { Err("not yet") } else { Ok(()) })
        }
    };
    let _consumer = consumer(&client).start_ordered(handler).await.expect("started");
    until("all are handled", || journal.all().len() == 6).await;
    for queue in ["q0", "q1"] {
        let of_queue: Vec<String> = journal.all().into_iter().filter(|body| body.starts_with(queue)).collect();
        let expected: Vec<String> = (0..3).map(|number| format!("{queue} m{number}")).collect();
        assert_eq!(of_queue, expected);
    }
    assert!(cluster.seen(request::CONSUMER_SEND_MSG_BACK).is_empty());
    assert!(!cluster.seen(request::LOCK_BATCH_MQ).is_empty());
    client.shutdown().await;
    assert!(!cluster.seen(request::UNLOCK_BATCH_MQ).is_empty());
    cluster.stop().await;
}

#[tokio::test]
async fn an_ordered_message_that_fails_for_good_becomes_a_dead_letter() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    cluster.brokers[0].store("T", 0, "bad", "x");
    cluster.brokers[0].store("T", 0, "good", "x");
    let client = client(&cluster).await;
    let journal = Journal::default();
    let handler = {
        let journal = journal.clone();
        move |messages: Vec<MessageExt>| {
            let body = journal.note(&messages[0]);
            std::future::ready(if body == "bad" { Err("never") } else { Ok(()) })
        }
    };
    let consumer = consumer(&client).attempts_max(2).rebalance_interval(Duration::from_millis(300));
    let _consumer = consumer.start_ordered(handler).await.expect("started");
    until("the good one is handled", || journal.all().last().is_some_and(|last| last == "good")).await;
    assert_eq!(journal.all(), ["bad", "bad", "good"]);
    assert_eq!(cluster.brokers[0].bodies("%DLQ%G", 0), ["bad"]);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_new_queue_is_found_and_consumed() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = Client::builder(&cluster.namesrv).route_interval(Duration::from_millis(50)).connect().await;
    let client = client.expect("a name server");
    let journal = Journal::default();
    let consumer = consumer(&client).start(noting(&journal)).await.expect("started");
    until("it holds the queue", || consumer.assignment().iter().any(|queue| queue.topic() == "T")).await;
    cluster.set_topic("T", 2);
    cluster.brokers[0].store("T", 1, "m", "x");
    until("it is handled", || journal.all() == ["m"]).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_pull_consumer_reads_seeks_and_commits() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 2)]).await;
    for number in 0..4 {
        cluster.brokers[0].store("T", number % 2, &format!("m{number}"), "x");
    }
    let client = client(&cluster).await;
    let consumer = client.pull_consumer(GROUP).start().await.expect("started");
    let queues = consumer.queues("T").await.expect("a route");
    consumer.assign(queues.clone()).await.expect("assigned");
    let mut bodies = Vec::new();
    while bodies.len() < 4 {
        let messages = consumer.poll(Duration::from_secs(5)).await.expect("polled");
        assert!(!messages.is_empty(), "after {bodies:?}");
        bodies.extend(messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()));
    }
    bodies.sort();
    assert_eq!(bodies, ["m0", "m1", "m2", "m3"]);
    assert!(consumer.poll(Duration::from_millis(100)).await.expect("polled").is_empty());
    assert_eq!(cluster.brokers[0].offset(GROUP, "T", 0), None, "nothing is stored unasked");
    consumer.commit().await.expect("committed");
    assert_eq!(
        (cluster.brokers[0].offset(GROUP, "T", 0), cluster.brokers[0].offset(GROUP, "T", 1)),
        (Some(2), Some(2))
    );
    assert!(consumer.seek(&queues[1], 1));
    let again = consumer.poll(Duration::from_secs(5)).await.expect("polled");
    assert_eq!(again.iter().map(|message| &message.body()[..]).collect::<Vec<_>>(), [b"m3"]);
    consumer.shutdown().await;
    assert!(cluster.brokers[0].consumers(GROUP).is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_operator_resets_an_offset() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    for number in 0..3 {
        cluster.brokers[0].store("T", 0, &format!("m{number}"), "x");
    }
    let client = client(&cluster).await;
    let journal = Journal::default();
    let _consumer = consumer(&client).start(noting(&journal)).await.expect("started");
    until("all are handled", || journal.all().len() == 3).await;
    until("the offset is stored", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(3)).await;
    let body = r#"{"offsetTable":{{"brokerName":"a","queueId":0,"topic":"T"}:1}}"#;
    let reset = Frame::request(request::RESET_CONSUMER_CLIENT_OFFSET)
        .with_field("topic", "T")
        .with_field("group", GROUP)
        .with_field("timestamp", 0)
        .with_field("isForce", true)
        .with_body(body);
    cluster.brokers[0].consumer(GROUP).send_oneway(reset).expect("an open connection");
    until("it consumes from there again", || journal.all().len() == 5).await;
    assert_eq!(journal.all()[3..], ["m1", "m2"]);
    until("the offset is stored again", || cluster.brokers[0].offset(GROUP, "T", 0) == Some(3)).await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_tool_asks_what_the_consumer_does_and_has_it_handle_a_message() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 2)]).await;
    let client = client(&cluster).await;
    let consumer = consumer(&client)
        .start(|message| async move { if message.body().starts_with(b"bad") { Err("refused") } else { Ok(()) } })
        .await
        .expect("started");
    until("it holds the queues", || consumer.assignment().iter().filter(|queue| queue.topic() == "T").count() == 2)
        .await;
    let connection = cluster.brokers[0].consumer(GROUP);
    let ask = |code| {
        let request = Frame::request(code).with_field("consumerGroup", GROUP).with_field("clientId", client.id());
        request.with_field("msgId", "x").with_field("brokerName", "a")
    };
    let answer =
        connection.call(ask(request::GET_CONSUMER_RUNNING_INFO), Duration::from_secs(5)).await.expect("answered");
    let info: ConsumerRunningInfo = json::from_slice(&answer.body).expect("readable");
    assert!(info.topics().contains("T"));
    assert!(info.mq_table.iter().any(|(queue, _)| queue.topic == "T" && queue.queue_id == 1));
    for (body, expected) in [("good", ConsumeResult::Success), ("bad", ConsumeResult::Later)] {
        let unit = cluster.brokers[0].loose_unit("T", body);
        let request = ask(request::CONSUME_MESSAGE_DIRECTLY).with_body(unit);
        let answer = connection.call(request, Duration::from_secs(5)).await.expect("answered");
        let result: ConsumeDirectlyResult = json::from_slice(&answer.body).expect("readable");
        assert_eq!(result.consume_result, expected);
    }
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broadcast_gives_every_member_everything_and_keeps_offsets_in_a_file() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 2)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    for number in 0..4 {
        cluster.brokers[0].store("T", number % 2, &format!("m{number}"), "x");
    }
    let (one, other) = (client(&cluster).await, client(&cluster).await);
    let (first, second) = (Journal::default(), Journal::default());
    let failing = {
        let first = first.clone();
        move |message: MessageExt| {
            let body = first.note(&message);
            std::future::ready(if body == "m1" { Err("passed over") } else { Ok(()) })
        }
    };
    let _one = consumer(&one).broadcast(file("one")).start(failing).await.expect("started");
    let _other = consumer(&other).broadcast(file("other")).start(noting(&second)).await.expect("started");
    until("both have all", || first.all().len() == 4 && second.all().len() == 4).await;
    assert_eq!(first.sorted(), second.sorted());
    one.shutdown().await;
    other.shutdown().await;
    assert_eq!(cluster.brokers[0].offset(GROUP, "T", 0), None, "the broker keeps no offsets");
    assert!(cluster.seen(request::CONSUMER_SEND_MSG_BACK).is_empty());
    cluster.brokers[0].store("T", 0, "m4", "x");
    let again = client(&cluster).await;
    let _again = consumer(&again).broadcast(file("other")).start(noting(&second)).await.expect("started");
    until("only the new one comes", || second.all().len() == 5).await;
    assert_eq!(second.all()[4], "m4");
    again.shutdown().await;
    cluster.stop().await;
}
