//! Bad input costs its sender an error, and nobody else anything.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{Stage, field, header, of, send};

#[tokio::test]
async fn every_send_request_without_its_fields_is_answered() {
    let stage = Stage::new().await;
    for code in [
        request::SEND_MESSAGE,
        request::SEND_MESSAGE_V2,
        request::SEND_BATCH_MESSAGE,
        request::SEND_REPLY_MESSAGE,
        request::SEND_REPLY_MESSAGE_V2,
    ] {
        let answer = stage.call(Frame::request(code)).await;
        assert_eq!(answer.code, 1, "{code}");
        assert!(field(&answer, "MSG_REGION").is_some(), "{code}");
    }
    for code in [
        request::CONSUMER_SEND_MSG_BACK,
        request::UPDATE_AND_CREATE_TOPIC,
        request::UPDATE_AND_CREATE_TOPIC_LIST,
        request::DELETE_TOPIC_IN_BROKER,
        request::GET_TOPIC_CONFIG,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        request::DELETE_SUBSCRIPTIONGROUP,
        request::GET_SUBSCRIPTIONGROUP_CONFIG,
    ] {
        assert_eq!(stage.call(Frame::request(code)).await.code, 1, "{code}");
    }
    stage.done(send("T", &[])).await;
}

#[tokio::test]
async fn strange_properties_and_bodies_are_stored_or_refused_but_never_fatal() {
    let stage = Stage::new().await;
    for properties in
        ["\u{1}\u{2}", "\u{2}\u{2}\u{2}", "UNIQ_KEY\u{1}\u{2}", "a", "TAGS\u{1}x\u{1}y", "ключ\u{1}ü\u{2}"]
    {
        stage.done(of(&header("T", properties))).await;
    }
    let stored = stage.stored("T", 0);
    assert_eq!(stored.len(), 6);
    assert!(stored.iter().all(|message| message.unique_id().is_some() && message.property("CLUSTER").is_some()));
    for body in [&b"\x00"[..], &[0xff; 64], &[0; 64], &[0, 0, 0, 22]] {
        let batch = Frame::request(request::SEND_BATCH_MESSAGE).with_header(&header("T", "")).with_body(body.to_vec());
        assert_eq!(stage.call(batch).await.code, 13, "{body:?}");
    }
    assert_eq!(stage.stored("T", 0).len(), 6);
}
