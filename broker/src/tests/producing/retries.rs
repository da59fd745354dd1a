//! Messages that consumers send back: by position, or themselves when that fails.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::SendMessageHeader;

use super::support::{Stage, end, field, header, of, position, send, text};
use crate::terms::QueueOffset;

fn back(position: i64, group: &str, delay_level: i32) -> Frame {
    Frame::request(request::CONSUMER_SEND_MSG_BACK)
        .with_field("offset", position)
        .with_field("group", group)
        .with_field("delayLevel", delay_level)
        .with_field("originMsgId", "whatever")
        .with_field("originTopic", "T")
        .with_field("maxReconsumeTimes", 3)
}

async fn fast() -> Stage {
    Stage::with(|config| config.delay_levels = "1s 1s 1s 1s".parse().unwrap()).await
}

#[tokio::test]
async fn a_message_that_was_sent_back_comes_again_in_the_retry_topic() {
    let stage = fast().await;
    let sent = stage.done(send("T", &[("UNIQ_KEY", "U"), ("TAGS", "a")])).await;
    stage.done(back(position(&sent), "CG", 0)).await;
    stage.until("the retry is due", |stage| stage.stored("%RETRY%CG", 0).len() == 1).await;
    let retry = stage.stored("%RETRY%CG", 0).remove(0);
    assert_eq!((retry.topic.as_str(), retry.reconsume_times), ("%RETRY%CG", 1));
    assert_eq!(retry.body.as_ref(), b"a body");
    assert_eq!(retry.born_timestamp, 1_700_000_000_000);
    assert_eq!(retry.unique_id(), Some("U"));
    assert_eq!(retry.property("RETRY_TOPIC"), Some("T"));
    assert_eq!(retry.property("ORIGIN_MESSAGE_ID"), field(&sent, "msgId"));
    assert_eq!((retry.property("DELAY"), retry.property("WAIT")), (Some("3"), Some("false")));

    // The next time it is the retry that is sent back, and it remembers the first message.
    stage.done(back(retry.position, "CG", 1)).await;
    stage.until("the second retry is due", |stage| stage.stored("%RETRY%CG", 0).len() == 2).await;
    let second = stage.stored("%RETRY%CG", 0).remove(1);
    assert_eq!(second.reconsume_times, 2);
    assert_eq!(second.property("RETRY_TOPIC"), Some("T"));
    assert_eq!(second.property("ORIGIN_MESSAGE_ID"), field(&sent, "msgId"));
}

#[tokio::test]
async fn a_message_that_is_given_up_becomes_a_dead_letter() {
    let stage = fast().await;
    let sent = stage.done(send("T", &[("UNIQ_KEY", "U")])).await;
    stage.done(back(position(&sent), "CG", -1)).await;
    let dead = stage.stored("%DLQ%CG", 0).remove(0);
    assert_eq!((dead.property("RETRY_TOPIC"), dead.property("DELAY")), (Some("T"), None));
    // After its third delivery.
    let worn = SendMessageHeader { reconsume_times: 3, ..header("T", "") };
    let sent = stage.done(of(&worn)).await;
    stage.done(back(position(&sent), "CG", 0)).await;
    assert_eq!(stage.stored("%DLQ%CG", 0).len(), 2);
    assert_eq!(stage.running.broker().metrics.dead_letters.get(), 2);
}

#[tokio::test]
async fn only_visible_messages_are_sent_back() {
    let stage = fast().await;
    let sent = stage.done(send("T", &[])).await;
    let half = stage.done(send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "TX")])).await;
    for bad in [position(&half), position(&sent) + 1, -1, 0, 3, i64::MAX] {
        assert_eq!(stage.call(back(bad, "CG", 0)).await.code, 1, "{bad}");
    }
    stage.done(end(&half, 8)).await;
    stage.done(back(position(&half), "CG", 0)).await;
}

#[tokio::test]
async fn a_message_inside_a_message_is_no_message() {
    let stage = fast().await;
    let sent = stage.done(send("T", &[("UNIQ_KEY", "U")])).await;
    // The body holds what looks like another message, with head and checksum as in the log.
    let shard = &stage.running.broker().shard;
    let topic = shard.topics().get("T").unwrap();
    let entry = shard.entry(topic.queue(0).unwrap(), QueueOffset::ZERO).unwrap().unwrap();
    let mut unit = bytes::BytesMut::new();
    shard.unit(topic.queue(0).unwrap(), &entry, &mut unit).unwrap();
    let mut body = vec![0; 8];
    body.extend_from_slice(&u32::try_from(unit.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&crc32fast::hash(&unit).to_be_bytes());
    body.extend_from_slice(&unit);
    let outer = stage.done(send("T", &[]).with_body(body)).await;
    let inside = position(&outer) + 84 + 16 + 4;
    for at in inside - 8..inside + 8 {
        assert_eq!(stage.call(back(at, "CG", 0)).await.code, 1, "{at}");
    }
    stage.done(back(position(&sent), "CG", 0)).await;
}

#[tokio::test]
async fn a_consumers_own_retry_goes_to_the_dead_letters_in_the_end() {
    let stage = fast().await;
    let properties = text(&[("RETRY_TOPIC", "T"), ("ORIGIN_MESSAGE_ID", "id"), ("DELAY", "1"), ("CLUSTER", "old")]);
    let retry = |times| SendMessageHeader {
        reconsume_times: times,
        max_reconsume_times: Some(2),
        ..header("%RETRY%CG", &properties)
    };
    stage.done(of(&retry(2))).await;
    stage.until("the retry is due", |stage| stage.stored("%RETRY%CG", 0).len() == 1).await;
    let message = stage.stored("%RETRY%CG", 0).remove(0);
    assert_eq!(message.reconsume_times, 2);
    assert_eq!(message.property_text.matches("CLUSTER").count(), 1, "{:?}", message.property_text);

    stage.done(of(&retry(3))).await;
    let dead = stage.stored("%DLQ%CG", 0).remove(0);
    assert_eq!((dead.topic.as_str(), dead.property("DELAY")), ("%DLQ%CG", None));

    let planned = Stage::with(|config| config.auto_create_subscription_group = false).await;
    assert_eq!(planned.call(of(&retry(1))).await.code, 26);
    assert_eq!(planned.call(back(0, "CG", 0)).await.code, 26);
}

#[tokio::test]
async fn what_an_ordered_consumer_sends_back_is_a_dead_letter() {
    let stage = fast().await;
    stage.done(send("T", &[])).await;
    let lock = r#"{"clientId":"c","consumerGroup":"CG","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}"#;
    stage.done(Frame::request(request::LOCK_BATCH_MQ).with_body(lock)).await;
    let properties = text(&[("RETRY_TOPIC", "T"), ("DELAY", "1")]);
    stage.done(of(&SendMessageHeader { reconsume_times: 1, ..header("%RETRY%CG", &properties) })).await;
    assert_eq!(stage.stored("%DLQ%CG", 0).len(), 1);
}
