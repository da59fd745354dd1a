//! A topic that has fewer queues than when its messages were sent: what becomes visible later is in a queue that consumers read.

use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::message::decode_units;

use super::support::{Stage, create_topic, end, field, header, of, position, settings, text};

fn to(queue_id: i32, properties: &[(&str, &str)]) -> Frame {
    of(&SendMessageHeader { queue_id, ..header("T", &text(properties)) })
}

fn half(queue_id: i32, unique: &str) -> Frame {
    to(queue_id, &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique)])
}

/// The unique ids in the queues, one list for each.
fn queues(stage: &Stage, count: i32) -> Vec<Vec<String>> {
    let of_queue = |queue| {
        let stored = stage.stored("T", queue);
        stored.iter().map(|message| message.unique_id().unwrap().to_owned()).collect()
    };
    (0..count).map(of_queue).collect()
}

async fn visible(stage: &Stage, count: usize) {
    stage.until("all are visible", |stage| queues(stage, 2).concat().len() == count).await;
}

async fn by_key(stage: &Stage, key: &str) -> Vec<i32> {
    let query = Frame::request(request::QUERY_MESSAGE)
        .with_field("topic", "T")
        .with_field("key", key)
        .with_field("maxNum", 32)
        .with_field("beginTimestamp", 0)
        .with_field("endTimestamp", i64::MAX);
    let found = stage.done(query.with_field("_UNIQUE_KEY_QUERY", true)).await;
    decode_units(found.body).map(|unit| unit.unwrap().queue_id).collect()
}

#[tokio::test]
async fn what_waited_for_a_queue_that_is_gone_enters_one_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = |folder: &std::path::Path| {
        let mut config = settings(folder);
        config.delay_levels = "1s 2s".parse().unwrap();
        config
    };
    let stage = Stage::open(config(folder.path())).await;
    stage.done(create_topic("T", 8)).await;
    let committed = stage.done(half(7, "half")).await;
    let delayed_half = stage
        .done(to(5, &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "delayed half"), ("DELAY", "1")]))
        .await;
    let joined = stage.done(half(4, "member").with_field("transactionFirst", position(&committed))).await;
    stage.done(to(6, &[("DELAY", "2"), ("UNIQ_KEY", "delayed")])).await;
    let due = (clock::wall_ms() + 1_500).to_string();
    stage.done(to(3, &[("TIMER_DELIVER_MS", &due), ("UNIQ_KEY", "timer")])).await;
    stage.done(create_topic("T", 2)).await;
    let answer = stage.done(end(&committed, 8)).await;
    assert_eq!(
        (field(&answer, "queueId"), field(&answer, "queueOffset")),
        (Some("1"), Some("0")),
        "it names the place"
    );
    assert_eq!(field(&answer, "members"), Some(format!("{}:T:0:0", position(&joined)).as_str()));
    stage.done(end(&delayed_half, 8)).await;
    visible(&stage, 5).await;
    let mut found = queues(&stage, 2);
    for queue in &mut found {
        queue.sort();
    }
    // Each by its old number modulo two: messages of one queue stay together.
    assert_eq!(found, [vec!["delayed", "member"], vec!["delayed half", "half", "timer"]]);
    for (key, queue) in [("half", 1), ("member", 0), ("delayed half", 1), ("delayed", 0), ("timer", 1)] {
        assert_eq!(by_key(&stage, key).await, [queue], "{key}");
    }
    let view = Frame::request(request::VIEW_MESSAGE_BY_ID).with_field("offset", position(&committed));
    let seen: Vec<_> = decode_units(stage.done(view).await.body).map(|unit| unit.unwrap()).collect();
    assert_eq!((seen[0].queue_id, seen[0].unique_id()), (1, Some("half")));
    assert_eq!(stage.call(to(7, &[])).await.code, 29, "nothing new goes there");
    let before: Vec<_> = (0..2).map(|queue| stage.stored("T", queue)).collect();
    stage.running.stop().await.unwrap();

    // The log alone says the same.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let again = Stage::open(config(folder.path())).await;
    let after: Vec<_> = (0..2).map(|queue| again.stored("T", queue)).collect();
    let places = |stored: &[Vec<escrowmq_common::message::Message>]| -> Vec<(i32, i64, i64)> {
        stored.iter().flatten().map(|message| (message.queue_id, message.queue_offset, message.position)).collect()
    };
    assert_eq!(places(&after), places(&before));
    again.running.stop().await.unwrap();
}

#[tokio::test]
async fn queues_that_are_only_written_or_only_read_take_nothing_that_waited() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 8)).await;
    let halves = [stage.done(half(7, "a")).await, stage.done(half(6, "b")).await, stage.done(half(5, "c")).await];
    // Being drained: read still, written no more.
    stage.done(create_topic("T", 8).with_field("writeQueueNums", 2)).await;
    stage.done(end(&halves[0], 8)).await;
    // Written already, read by nobody yet.
    stage.done(create_topic("T", 8).with_field("readQueueNums", 2)).await;
    stage.done(end(&halves[1], 8)).await;
    // Not written at all.
    stage.done(create_topic("T", 8).with_field("writeQueueNums", 0).with_field("readQueueNums", 3)).await;
    stage.done(end(&halves[2], 8)).await;
    assert_eq!(queues(&stage, 3), [vec!["b"], vec!["a"], vec!["c"]]);
}

#[tokio::test]
async fn a_topic_that_was_made_again_has_nothing_of_the_old_one() {
    let stage = Stage::with(|config| config.delay_levels = "1s 2s".parse().unwrap()).await;
    stage.done(create_topic("T", 2)).await;
    let old = stage.done(half(1, "same")).await;
    stage.done(to(0, &[("DELAY", "1"), ("UNIQ_KEY", "delayed")])).await;
    stage.done(Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T")).await;
    stage.done(create_topic("T", 2)).await;
    // Sent again, it is a half of the new topic, and the old one's decision is refused.
    let new = stage.done(half(1, "same")).await;
    assert_ne!(position(&new), position(&old));
    assert_ne!(stage.call(end(&old, 8)).await.code, 0);
    stage.done(end(&new, 8)).await;
    stage.done(to(0, &[("DELAY", "2"), ("UNIQ_KEY", "last")])).await;
    visible(&stage, 2).await;
    assert_eq!(queues(&stage, 2), [vec!["last"], vec!["same"]]);
}
