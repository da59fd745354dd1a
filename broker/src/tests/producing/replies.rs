//! Request-reply: the answer finds the client that asked.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{Stage, field, header, text};

fn reply(properties: &[(&str, &str)]) -> Frame {
    Frame::request(request::SEND_REPLY_MESSAGE_V2)
        .with_header(&header("DefaultCluster_REPLY_TOPIC", &text(properties)))
        .with_body("the answer")
}

#[tokio::test]
async fn a_reply_is_pushed_to_who_asked_and_stored() {
    let stage = Stage::new().await;
    stage.producer("asker", "PG").await;
    let answer =
        stage.done(reply(&[("CORRELATION_ID", "c1"), ("REPLY_TO_CLIENT", "asker"), ("MSG_TYPE", "reply")])).await;
    assert_eq!(field(&answer, "queueOffset"), Some("0"));
    let pushed = stage.incoming.seen.lock().remove(0);
    assert_eq!(pushed.code, request::PUSH_REPLY_MESSAGE_TO_CLIENT);
    assert_eq!(pushed.body.as_ref(), b"the answer");
    let properties = pushed.fields.get("properties").unwrap();
    assert!(properties.contains("CORRELATION_ID\u{1}c1\u{2}") && properties.contains("PUSH_REPLY_TIME\u{1}"));
    assert_eq!(pushed.fields.get("storeHost"), Some(stage.address.as_str()));
    assert_eq!(stage.stored("DefaultCluster_REPLY_TOPIC", 0).len(), 1);
}

#[tokio::test]
async fn a_reply_that_finds_nobody_says_so() {
    let stage = Stage::new().await;
    let answer = stage.call(reply(&[("MSG_TYPE", "reply")])).await;
    assert_eq!(answer.remark.as_deref(), Some("reply message properties[REPLY_TO_CLIENT] is null"));
    assert_eq!((answer.code, field(&answer, "queueOffset")), (1, Some("0")), "it is stored all the same");
    let answer = stage.call(reply(&[("REPLY_TO_CLIENT", "gone")])).await;
    assert_eq!(answer.remark.as_deref(), Some("push reply message fail, channel of <gone> not found."));

    let without = Stage::with(|config| config.store_reply_message_enable = false).await;
    without.producer("asker", "PG").await;
    *without.incoming.code.lock() = 1;
    let answer = without.call(reply(&[("REPLY_TO_CLIENT", "asker")])).await;
    assert_eq!((answer.code, field(&answer, "msgId")), (1, None));
    assert!(field(&answer, "MSG_REGION").is_some());
    assert!(without.stored("DefaultCluster_REPLY_TOPIC", 0).is_empty());
}
