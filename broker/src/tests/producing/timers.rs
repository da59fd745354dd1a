//! Delay levels and times of delivery.

use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::RecallHandle;

use super::support::{Stage, field, send};

#[tokio::test]
async fn a_delayed_message_comes_after_its_level() {
    let stage = Stage::with(|config| config.delay_levels = "1s 2s".parse().unwrap()).await;
    let sent = clock::wall_ms();
    let answer = stage.done(send("T", &[("DELAY", "1"), ("TAGS", "a")])).await;
    assert_eq!(field(&answer, "recallHandle"), None);
    stage.until("it is due", |stage| stage.stored("T", 0).len() == 1).await;
    let message = stage.stored("T", 0).remove(0);
    assert!(message.store_timestamp - sent >= 900, "{}", message.store_timestamp - sent);
    assert_eq!((message.property("REAL_TOPIC"), message.property("REAL_QID")), (Some("T"), Some("0")));
    assert_eq!(message.property("DELAY"), Some("1"));
}

#[tokio::test]
async fn a_timer_names_its_time_and_can_be_called_back_by_its_handle() {
    let stage = Stage::new().await;
    let due = clock::wall_ms() + 1_500;
    let answer = stage.done(send("T", &[("TIMER_DELIVER_MS", &due.to_string()), ("UNIQ_KEY", "U")])).await;
    let handle: RecallHandle = field(&answer, "recallHandle").unwrap().parse().unwrap();
    assert_eq!((handle.topic.as_str(), handle.broker.as_str(), handle.unique_key.as_str()), ("T", "broker-a", "U"));
    assert_eq!(handle.deliver_timestamp, due);
    stage.until("it is due", |stage| stage.stored("T", 0).len() == 1).await;
    let message = stage.stored("T", 0).remove(0);
    assert_eq!(message.property("TIMER_OUT_MS"), Some(due.to_string().as_str()));
    assert!(message.property("TIMER_ENQUEUE_MS").is_some());
    assert!(message.store_timestamp >= due - 100, "{} before its time", due - message.store_timestamp);
}

#[tokio::test]
async fn times_are_limited_and_may_have_passed() {
    let stage = Stage::new().await;
    assert_eq!(stage.call(send("T", &[("TIMER_DELAY_SEC", "259201")])).await.code, 13);
    assert_eq!(stage.call(send("T", &[("TIMER_DELAY_MS", "soon")])).await.code, 13);
    let passed = stage.done(send("T", &[("TIMER_DELIVER_MS", "1000")])).await;
    assert_eq!(field(&passed, "recallHandle"), None);
    assert_eq!(stage.stored("T", 0).len(), 1);
    let without = Stage::with(|config| config.timer_enable = false).await;
    assert_eq!(without.call(send("T", &[("TIMER_DELAY_SEC", "5")])).await.code, 1);
}

#[tokio::test]
async fn a_timer_message_is_taken_back_before_its_time() {
    let recall = |handle: &str| {
        Frame::request(request::RECALL_MESSAGE).with_field("topic", "T").with_field("recallHandle", handle)
    };
    let stage = Stage::with(|config| config.recall_message_enable = true).await;
    let soon = (clock::wall_ms() + 3_600_000).to_string();
    let waiting = |stage: &Stage| stage.running.broker().shard.counters().timers();
    let first = stage.done(send("T", &[("TIMER_DELIVER_MS", &soon), ("UNIQ_KEY", "one")])).await;
    stage.done(send("T", &[("TIMER_DELIVER_MS", &soon), ("UNIQ_KEY", "two")])).await;
    let handle = field(&first, "recallHandle").unwrap();
    assert_eq!(field(&stage.done(recall(handle)).await, "msgId"), Some("one"));
    // The answer may have been lost: taking back what is taken back is a success.
    assert_eq!(field(&stage.done(recall(handle)).await, "msgId"), Some("one"));
    assert_eq!(stage.call(recall("junk")).await.code, 604);
    assert_eq!(waiting(&stage), 1, "the other one of the same time still waits");

    let plain = Stage::new().await;
    assert_eq!(plain.call(recall(handle)).await.code, 16);
}

#[tokio::test]
async fn a_recall_is_a_success_only_if_the_message_does_not_come() {
    let recall = |handle: &str| {
        Frame::request(request::RECALL_MESSAGE).with_field("topic", "T").with_field("recallHandle", handle)
    };
    let stage = Stage::with(|config| config.recall_message_enable = true).await;
    let waiting = |stage: &Stage| stage.running.broker().shard.counters().timers();
    let later = (clock::wall_ms() + 3_600_000).to_string();
    let at = |unique: &'static str, body: &'static str| {
        send("T", &[("TIMER_DELIVER_MS", &later), ("UNIQ_KEY", unique)]).with_body(body)
    };
    // Copies that a retry made are one message.
    let copies = stage.done(at("copies", "same")).await;
    stage.done(at("copies", "same")).await;
    stage.done(recall(field(&copies, "recallHandle").unwrap())).await;
    assert_eq!(waiting(&stage), 0);
    // Two messages under one id: nobody can say which one is meant.
    let twins = stage.done(at("twins", "one")).await;
    stage.done(at("twins", "two")).await;
    let refused = stage.call(recall(field(&twins, "recallHandle").unwrap())).await;
    assert!(refused.code == 604 && refused.remark.as_deref().unwrap().contains("different messages"), "{refused:?}");
    assert_eq!(waiting(&stage), 2);
    // Too late.
    let soon = (clock::wall_ms() + 300).to_string();
    let sent = stage.done(send("T", &[("TIMER_DELIVER_MS", &soon), ("UNIQ_KEY", "soon")])).await;
    stage.until("it is there", |stage| stage.stored("T", 0).len() == 1).await;
    assert_eq!(stage.call(recall(field(&sent, "recallHandle").unwrap())).await.code, 604);
}
