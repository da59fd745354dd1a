//! A message that must be refused is refused whichever way it comes, with words, and nothing of it is stored.

use bytes::BytesMut;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::message::batch::BatchMessage;
use escrowmq_common::name;

use super::support::{Stage, create_topic, end, field, header, of, position, send, text};
use crate::config::BrokerConfig;

/// The same properties in each way in which a message comes: alone, as a member, on a batch, as a half, as a reply, as a retry.
fn ways(topic: &str, own: &[(&str, &str)]) -> Vec<(&'static str, Frame)> {
    let half = [&[("PGROUP", "PG"), ("TRAN_MSG", "true")][..], own].concat();
    let reply = [&[("REPLY_TO_CLIENT", "me")][..], own].concat();
    let member = batch(topic, &[], &[("x", &[]), ("x", own)]);
    vec![
        ("alone", send(topic, own)),
        ("as a member", member),
        ("on a batch", batch(topic, own, &[("x", &[])])),
        ("as a half", send(topic, &half)),
        ("as a reply", as_reply(send(topic, &reply))),
        ("as a retry", of(&SendMessageHeader { reconsume_times: 1, ..header("%RETRY%CG", &text(own)) })),
    ]
}

fn batch(topic: &str, own: &[(&str, &str)], members: &[(&str, &[(&str, &str)])]) -> Frame {
    let mut body = BytesMut::new();
    for (text_of, properties) in members {
        let properties = text(properties);
        BatchMessage { flag: 0, body: text_of.as_bytes(), properties: &properties }.write(&mut body).unwrap();
    }
    Frame::request(request::SEND_BATCH_MESSAGE).with_header(&header(topic, &text(own))).with_body(body.freeze())
}

fn as_reply(mut send: Frame) -> Frame {
    send.code = request::SEND_REPLY_MESSAGE_V2;
    send
}

fn exists(stage: &Stage, topic: &str) -> bool {
    stage.running.broker().shard.topics().get(topic).is_some()
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_refused_and_never_taken_for_absent() {
    let stage = Stage::new().await;
    for (name, value) in [
        ("DELAY", "abc"),
        ("DELAY", "3sw81-abc"),
        ("DELAY", "99999999999"),
        ("TIMER_DELAY_SEC", "9223372036854775807"),
        ("TIMER_DELAY_MS", "soon"),
        ("TIMER_DELIVER_MS", "18446744073709551616"),
        ("CHECK_IMMUNITY_TIME_IN_SECONDS", "long"),
        ("INNER_NUM", "3"),
        ("INNER_MULTI_DISPATCH", "%LMQ%a"),
        ("TIMER_DEL_UNIQKEY", "U"),
    ] {
        for (way, request) in ways("New", &[(name, value)]) {
            let answer = stage.call(request).await;
            let remark = answer.remark.as_deref().unwrap_or_default();
            assert_eq!(answer.code, 13, "{name}={value} {way}: {remark}");
            assert!(remark.contains(name), "{way}: {remark}");
        }
    }
    let batch = as_reply(of(&SendMessageHeader { batch: true, ..header("New", "REPLY_TO_CLIENT\u{1}me\u{2}") }));
    assert_eq!(stage.call(batch).await.code, 13, "a batch of replies");
    let maybe = stage.call(send("New", &[("TRAN_MSG", "yes"), ("PGROUP", "PG")])).await;
    assert_eq!(maybe.code, 13, "a half that cannot be told from a message is neither");
    let flagged = stage.call(of(&SendMessageHeader { sys_flag: 4, ..header("New", "") })).await;
    assert_eq!(flagged.code, 13, "{:?}", flagged.remark);
    let far = stage.call(send("New", &[("TIMER_DELAY_SEC", "99999999")])).await;
    assert_eq!(far.code, 13, "{:?}", far.remark);
    let joins = send("New", &[("TRAN_MSG", "true"), ("PGROUP", "PG")]).with_field("transactionFirst", "first");
    assert_eq!(stage.call(joins).await.code, 1, "a half that joins nothing readable is no transaction of its own");
    assert!(!exists(&stage, "New") && !exists(&stage, "%RETRY%CG"), "what is refused makes no topic");
    assert_eq!(stage.running.broker().shard.counters().open_halves(), 0);
}

#[tokio::test]
async fn a_message_without_a_body_is_refused_however_it_comes() {
    let stage = Stage::new().await;
    for (way, request) in ways("New", &[]) {
        let request = if way == "as a member" || way == "on a batch" {
            batch("New", &[], &[("full", &[]), ("", &[])])
        } else {
            request.with_body("")
        };
        let answer = stage.call(request).await;
        assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("the message body is empty")), "{way}");
    }
    assert!(!exists(&stage, "New"));
}

#[tokio::test]
async fn a_half_without_a_producer_group_is_refused() {
    let stage = Stage::new().await;
    for group in ["", " ", &"g".repeat(256)] {
        let by_header = SendMessageHeader { producer_group: group, ..header("New", "TRAN_MSG\u{1}true\u{2}") };
        let answer = stage.call(of(&by_header)).await;
        let remark = answer.remark.as_deref().unwrap_or_default();
        assert_eq!(answer.code, 13, "{group:?}: {remark}");
        assert!(remark.contains("producer group") || remark.contains("producerGroup"), "{group:?}: {remark}");
        if !group.is_empty() {
            let by_property = send("New", &[("TRAN_MSG", "true"), ("PGROUP", group)]);
            assert_eq!(stage.call(by_property).await.code, 13, "{group:?}");
        }
    }
    assert!(!exists(&stage, "New"));
}

async fn no_topic_by_sends(change: impl FnOnce(&mut BrokerConfig), ways_in: &[&str]) {
    let stage = Stage::with(change).await;
    for template in ways_in {
        let header = SendMessageHeader { default_topic: template, ..header("New", "") };
        let plain = stage.call(of(&header)).await;
        assert_eq!(plain.code, 17, "{template}: {:?}", plain.remark);
        for (way, request) in ways("New", &[]).into_iter().filter(|(way, _)| *way != "as a retry") {
            let request = request.with_field("c", *template);
            assert_eq!(stage.call(request).await.code, 17, "{template}, {way}");
        }
    }
    assert!(!exists(&stage, "New"));
}

#[tokio::test]
async fn no_send_creates_a_topic_where_that_is_switched_off() {
    let templates = ["TBW102", "broker-a", "DefaultCluster", "SELF_TEST_TOPIC", "New", ""];
    no_topic_by_sends(|config| config.auto_create_topic_enable = false, &templates).await;
}

#[tokio::test]
async fn no_send_creates_a_group_where_that_is_switched_off() {
    let stage = Stage::with(|config| config.auto_create_subscription_group = false).await;
    let retry = SendMessageHeader { reconsume_times: 1, ..header("%RETRY%CG", "DELAY\u{1}1\u{2}") };
    assert_eq!(stage.call(of(&retry)).await.code, 26);
    let beat = r#"{"clientID":"c","consumerDataSet":[{"groupName":"CG"}]}"#;
    stage.done(Frame::request(request::HEART_BEAT).with_body(beat)).await;
    let back = Frame::request(request::CONSUMER_SEND_MSG_BACK).with_field("offset", 0).with_field("group", "CG");
    assert_eq!(stage.call(back).await.code, 26);
    assert!(!exists(&stage, "%RETRY%CG"), "nor its retry topic");
    assert!(stage.running.broker().shard.groups().get("CG").is_none());
}

#[tokio::test]
async fn without_write_permission_nothing_is_written_whichever_way() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 1)).await;
    let sent = stage.done(send("T", &[])).await;
    let half = stage.done(send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG")])).await;
    stage.done(create_topic("T", 1).with_field("perm", 4)).await;
    for (way, request) in ways("T", &[]).into_iter().filter(|(way, _)| *way != "as a retry") {
        let answer = stage.call(request).await;
        assert_eq!(answer.code, 16, "{way}: {:?}", answer.remark);
    }
    // Decisions are always taken.
    stage.done(end(&half, 8)).await;
    let group = r#"{"groupName":"CG"}"#;
    stage.done(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group)).await;
    stage.done(create_topic("%RETRY%CG", 1).with_field("perm", 4)).await;
    let back = |level: i32| {
        Frame::request(request::CONSUMER_SEND_MSG_BACK)
            .with_field("offset", position(&sent))
            .with_field("group", "CG")
            .with_field("delayLevel", level)
    };
    assert_eq!(stage.call(back(1)).await.code, 16);
    let retry = SendMessageHeader { reconsume_times: 1, ..header("%RETRY%CG", "DELAY\u{1}1\u{2}") };
    assert_eq!(stage.call(of(&retry)).await.code, 16);
    stage.done(back(-1)).await;
    assert_eq!(stage.stored(&name::dead_letter_topic("CG"), 0).len(), 1);

    let drained = Stage::with(|config| config.broker_permission = 4).await;
    for (way, request) in ways("New", &[]) {
        let answer = drained.call(request).await;
        assert_eq!(answer.code, 16, "{way}: {:?}", answer.remark);
    }
    assert!(!exists(&drained, "New"));
}

#[tokio::test]
async fn members_of_a_batch_have_what_a_hook_put_on_the_batch() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 1)).await;
    let own = [("trace", "0af7"), ("UNIQ_KEY", "WHOLE"), ("WAIT", "true")];
    let members: [(&str, &[(&str, &str)]); 3] =
        [("a", &[("name", "value0"), ("UNIQ_KEY", "A")]), ("b", &[("trace", "own")]), ("c", &[])];
    stage.done(batch("T", &own, &members)).await;
    let stored = stage.stored("T", 0);
    let get = |nth: usize, name: &str| stored[nth].property(name).map(str::to_owned);
    assert_eq!((get(0, "name").as_deref(), get(0, "trace").as_deref()), (Some("value0"), Some("0af7")));
    assert_eq!((get(1, "trace").as_deref(), get(2, "trace").as_deref()), (Some("own"), Some("0af7")));
    assert_eq!(stored[0].unique_id(), Some("A"));
    assert!(stored.iter().all(|message| message.unique_id() != Some("WHOLE")));
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_recognised_as_a_whole() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 1).with_field("attributes", "+duplicate.window.seconds=60")).await;
    let members: [(&str, &[(&str, &str)]); 2] = [("a", &[("UNIQ_KEY", "A")]), ("b", &[("UNIQ_KEY", "B")])];
    let first = stage.done(batch("T", &[], &members)).await;
    let again = stage.done(batch("T", &[], &members)).await;
    assert_eq!(field(&again, "queueOffset"), field(&first, "queueOffset"));
    assert_eq!(stage.stored("T", 0).len(), 2);
    stage.done(batch("T", &[], &[members[0], ("another", &[("UNIQ_KEY", "B")])])).await;
    assert_eq!(stage.stored("T", 0).len(), 4);
}
