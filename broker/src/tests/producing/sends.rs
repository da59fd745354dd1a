//! Plain messages and batches.

use bytes::BytesMut;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::message::OffsetMessageId;
use escrowmq_common::message::batch::BatchMessage;

use super::support::{Stage, create_topic, field, header, of, position, send, text};

#[tokio::test]
async fn a_message_is_stored_as_sent_with_the_brokers_own_properties() {
    let stage = Stage::new().await;
    let properties = [("TAGS", "TagA"), ("UNIQ_KEY", "KEY1"), ("POP_CK", "x"), ("color", "red")];
    let first = stage.done(send("T", &properties)).await;
    assert_eq!(field(&first, "queueId"), Some("0"));
    assert_eq!(field(&first, "queueOffset"), Some("0"));
    assert_eq!(field(&first, "transactionId"), Some("KEY1"));
    assert_eq!((field(&first, "MSG_REGION"), field(&first, "TRACE_ON")), (Some("DefaultRegion"), Some("true")));
    assert_eq!(field(&first, "recallHandle"), None);
    let second = stage.done(send("T", &[])).await;
    assert_eq!(field(&second, "queueOffset"), Some("1"));

    let stored = stage.stored("T", 0);
    assert_eq!(stored.len(), 2);
    let message = &stored[0];
    assert_eq!(message.position, position(&first));
    assert_eq!(message.store_host, stage.running.local_addr());
    assert_eq!((message.flag, message.born_timestamp), (7, 1_700_000_000_000));
    assert_eq!(message.body.as_ref(), b"a body");
    let mut names: Vec<_> = message.properties().iter().map(|(name, value)| format!("{name}={value}")).collect();
    names.sort();
    let expected =
        ["CLUSTER=DefaultCluster", "MSG_REGION=DefaultRegion", "TAGS=TagA", "TRACE_ON=true", "UNIQ_KEY=KEY1"];
    assert_eq!(names[..5], expected);
    assert_eq!(names[5..], ["color=red"]);
    // A message without a unique key gets one, and the sender is told.
    assert_eq!(stored[1].unique_id(), field(&second, "transactionId"));
    stage.running.stop().await.unwrap();
}

#[tokio::test]
async fn an_unknown_topic_is_created_after_its_template() {
    let stage = Stage::new().await;
    let many = (0..50).map(|_| stage.call(send("New", &[])));
    for answer in futures_util::future::join_all(many).await {
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
    }
    let settings = stage.running.broker().shard.topics().get("New").unwrap().settings.clone();
    assert_eq!((settings.write_queues, settings.read_queues, settings.perm), (4, 4, 6));
    assert_eq!(stage.stored("New", 0).len(), 50);

    let answer = stage
        .call(of(&escrowmq_common::header::SendMessageHeader { default_topic: "No", ..header("Other", "") }))
        .await;
    assert_eq!(answer.code, 17);
    let planned = Stage::with(|config| config.auto_create_topic_enable = false).await;
    assert_eq!(planned.call(send("New", &[])).await.code, 17);
}

#[tokio::test]
async fn queues_are_checked_and_chosen() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 2)).await;
    let to = |queue_id| of(&escrowmq_common::header::SendMessageHeader { queue_id, ..header("T", "") });
    assert_eq!(stage.call(to(2)).await.code, 29);
    assert_eq!(stage.call(to(i32::MAX)).await.code, 29);
    for _ in 0..4 {
        stage.done(to(-1)).await;
    }
    assert_eq!((stage.stored("T", 0).len(), stage.stored("T", 1).len()), (2, 2));
}

#[tokio::test]
async fn sizes_are_limited() {
    let stage = Stage::with(|config| config.max_message_size = 100).await;
    assert_eq!(stage.call(send("T", &[]).with_body(vec![0; 101])).await.code, 13);
    stage.done(send("T", &[]).with_body(vec![0; 100])).await;
    let long = "x".repeat(32_760);
    assert_eq!(stage.call(send("T", &[("K", &long)])).await.code, 13);
    assert_eq!(stage.call(send("T", &[]).with_body("")).await.code, 1);
    assert_eq!(stage.stored("T", 0).len(), 1);
}

#[tokio::test]
async fn a_oneway_send_is_stored_and_not_answered() {
    let stage = Stage::new().await;
    stage.remote.oneway(&stage.address, send("T", &[("UNIQ_KEY", "one")])).await.unwrap();
    stage.until("the message is stored", |stage| stage.stored("T", 0).len() == 1).await;
}

fn batch(members: &[&[(&str, &str)]]) -> Frame {
    let mut body = BytesMut::new();
    for properties in members {
        BatchMessage { flag: 3, body: b"inner", properties: &text(properties) }.write(&mut body).unwrap();
    }
    let properties = text(&[("UNIQ_KEY", "WHOLE"), ("WAIT", "true")]);
    let header = escrowmq_common::header::SendMessageHeader { batch: true, ..header("T", &properties) };
    Frame::request(request::SEND_BATCH_MESSAGE).with_header(&header).with_body(body.freeze())
}

#[tokio::test]
async fn members_of_a_batch_are_messages_of_their_own() {
    let stage = Stage::new().await;
    stage.done(send("T", &[])).await;
    let answer = stage.done(batch(&[&[("UNIQ_KEY", "A"), ("TAGS", "x")], &[("UNIQ_KEY", "B")], &[]])).await;
    assert_eq!(field(&answer, "queueOffset"), Some("1"));
    assert_eq!(field(&answer, "transactionId"), Some("WHOLE"));
    let ids: Vec<OffsetMessageId> = field(&answer, "msgId").unwrap().split(',').map(|id| id.parse().unwrap()).collect();
    let stored = stage.stored("T", 0);
    let positions: Vec<_> = stored[1..].iter().map(|message| message.position).collect();
    assert_eq!(ids.iter().map(|id| id.position).collect::<Vec<_>>(), positions);
    assert_eq!(stored[1].unique_id(), Some("A"));
    assert_eq!(stored[2].unique_id(), Some("B"));
    assert!(stored[3].unique_id().is_some_and(|id| id != "WHOLE"));
    assert_eq!((stored[1].flag, stored[1].queue_offset), (3, 1));

    assert_eq!(stage.call(batch(&[&[], &[("TRAN_MSG", "true")]])).await.code, 13);
    assert_eq!(stage.call(batch(&[&[("DELAY", "1")]])).await.code, 13);
    assert_eq!(stage.stored("T", 0).len(), 4, "a refused batch leaves nothing behind");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::open(super::support::settings(folder.path())).await;
    for n in 0..20 {
        stage.done(send("T", &[("UNIQ_KEY", &format!("K{n}"))])).await;
    }
    let before: Vec<_> = stage.stored("T", 0).iter().map(|message| message.position).collect();
    stage.running.stop().await.unwrap();
    let stage = Stage::open(super::support::settings(folder.path())).await;
    let after = stage.stored("T", 0);
    assert_eq!(after.iter().map(|message| message.position).collect::<Vec<_>>(), before);
    assert_eq!(after[19].unique_id(), Some("K19"));
    assert_eq!(field(&stage.done(send("T", &[])).await, "queueOffset"), Some("20"));
    stage.running.stop().await.unwrap();
}
