//! Groups and their members: listings, progress, resets and what is relayed to consumers.

use bytes::Bytes;
use escrowmq_common::body::ResetOffsetBody;
use escrowmq_common::body::json::from_slice;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use futures_util::future::join_all;

use super::support::{Bench, of_topic};
use crate::tests::support::{messages, until};

fn of_group(code: i32, group: &str) -> Frame {
    Frame::request(code).with_field("consumerGroup", group)
}

fn queue(topic: &str, id: i32) -> String {
    format!(r#"{{"brokerName":"broker-a","queueId":{id},"topic":"{topic}"}}"#)
}

async fn commit(bench: &Bench, group: &str, topic: &str, offset: i64) {
    let request = of_group(request::UPDATE_CONSUMER_OFFSET, group)
        .with_field("topic", topic)
        .with_field("queueId", 0)
        .with_field("commitOffset", offset);
    bench.done(request).await;
}

async fn stored(bench: &Bench, group: &str, topic: &str) -> String {
    let request = of_group(request::QUERY_CONSUMER_OFFSET, group).with_field("topic", topic).with_field("queueId", 0);
    bench.done(request).await.fields.get("offset").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_connections_are_listed() {
    let bench = Bench::start().await;
    for n in 0..5 {
        bench.send("T", &[("UNIQ_KEY", &format!("u{n}"))]).await;
    }
    for (code, expected) in [
        (request::GET_CONSUMER_CONNECTION_LIST, response::CONSUMER_NOT_ONLINE),
        (request::GET_PRODUCER_CONNECTION_LIST, response::SYSTEM_ERROR),
    ] {
        let answer = bench.call(of_group(code, "G").with_field("producerGroup", "G")).await;
        assert_eq!(answer.code, expected);
    }
    bench.subscribe("G", "T", "CLUSTERING").await;
    commit(&bench, "G", "T", 3).await;

    let stats = bench.json(of_topic(request::GET_TOPIC_STATS_INFO, "T")).await;
    let offsets = &stats["offsetTable"][queue("T", 0)];
    assert_eq!((&offsets["minOffset"], &offsets["maxOffset"]), (&0.into(), &5.into()));
    assert!(offsets["lastUpdateTimestamp"].as_i64().unwrap() > 0);
    assert_eq!(stats["offsetTable"].as_object().unwrap().len(), 4);

    let progress = bench.json(of_group(request::GET_CONSUME_STATS, "G")).await;
    let offsets = &progress["offsetTable"][queue("T", 0)];
    assert_eq!((&offsets["brokerOffset"], &offsets["consumerOffset"]), (&5.into(), &3.into()));
    assert!(offsets["lastTimestamp"].as_i64().unwrap() > 0);

    // Between the two is what was handed out and not consumed.
    assert_eq!(offsets["pullOffset"], 3);
    let pull = of_topic(request::PULL_MESSAGE, "T")
        .with_field("consumerGroup", "G")
        .with_field("queueId", 0)
        .with_field("queueOffset", 4)
        .with_field("maxMsgNums", 32)
        .with_field("sysFlag", 0)
        .with_field("commitOffset", 0)
        .with_field("suspendTimeoutMillis", 0)
        .with_field("subVersion", 0);
    bench.call(pull).await;
    let progress = bench.json(of_group(request::GET_CONSUME_STATS, "G")).await;
    let offsets = &progress["offsetTable"][queue("T", 0)];
    assert_eq!((&offsets["pullOffset"], &offsets["consumerOffset"]), (&4.into(), &3.into()));

    let connections = bench.json(of_group(request::GET_CONSUMER_CONNECTION_LIST, "G")).await;
    assert_eq!(connections["connectionSet"][0]["clientId"], "me");
    assert_eq!(connections["consumeType"], "CONSUME_PASSIVELY");
    assert_eq!(connections["subscriptionTable"]["T"]["subString"], "*");
    let producers =
        bench.json(Frame::request(request::GET_PRODUCER_CONNECTION_LIST).with_field("producerGroup", "PG")).await;
    assert_eq!(producers["connectionSet"][0]["language"], "JAVA");
    let all = bench.json(Frame::request(request::GET_ALL_PRODUCER_INFO)).await;
    assert_eq!(all["data"]["PG"][0]["clientId"], "me");

    let groups = bench.json(of_topic(request::QUERY_TOPIC_CONSUME_BY_WHO, "T")).await;
    assert_eq!(groups["groupList"], serde_json::json!(["G"]));
    let topics = bench.json(Frame::request(request::QUERY_TOPICS_BY_CONSUMER).with_field("group", "G")).await;
    assert_eq!(topics["topicList"], serde_json::json!(["T"]));
    let subscription =
        bench.json(of_topic(request::QUERY_SUBSCRIPTION_BY_CONSUMER, "T").with_field("group", "G")).await;
    assert_eq!(subscription["subscriptionData"]["topic"], "T");
    let spans = bench.json(of_topic(request::QUERY_CONSUME_TIME_SPAN, "T").with_field("group", "G")).await;
    let span = &spans["consumeTimeSpanSet"][0];
    assert!(span["minTimeStamp"].as_i64() <= span["maxTimeStamp"].as_i64());
    let all = bench.json(Frame::request(request::GET_BROKER_CONSUME_STATS).with_field("isOrder", false)).await;
    assert_eq!(all["totalDiff"], 2);
    let entries = Frame::request(request::QUERY_CONSUME_QUEUE)
        .with_field("topic", "T")
        .with_field("queueId", 0)
        .with_field("index", 1)
        .with_field("count", 2)
        .with_field("consumerGroup", "G");
    let entries = bench.json(entries).await;
    assert_eq!(entries["maxQueueIndex"], 5);
    assert_eq!(entries["queueData"].as_array().unwrap().len(), 2);
    assert_eq!(entries["queueData"][0]["eval"], true);
    assert_eq!(bench.call(of_topic(request::GET_TOPIC_STATS_INFO, "none")).await.code, response::TOPIC_NOT_EXIST);
    bench.broker.stop().await.unwrap();
}

fn reset(group: &str, topic: &str, timestamp: i64, is_force: bool) -> Frame {
    of_topic(request::INVOKE_BROKER_TO_RESET_OFFSET, topic)
        .with_field("group", group)
        .with_field("timestamp", timestamp)
        .with_field("isForce", is_force)
        .with_field("queueId", -1)
        .with_field("offset", -1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_reset_to_a_time() {
    let bench = Bench::start().await;
    for n in 0..5 {
        bench.send("T", &[("UNIQ_KEY", &format!("u{n}"))]).await;
    }
    let unknown = bench.call(reset("G", "T", 0, true)).await;
    assert_eq!(unknown.remark.as_deref(), Some("THe consumer group <G> not exist"));
    // A group that nobody is connected to: its offset is set.
    bench.create_group("G").await;
    commit(&bench, "G", "T", 4).await;
    let answer = bench.done(reset("G", "T", 0, true)).await;
    let table = from_slice::<ResetOffsetBody>(&answer.body).unwrap().offset_table;
    assert_eq!(table.len(), 4);
    assert!(table.values().all(|&offset| offset == 0));
    assert_eq!(stored(&bench, "G", "T").await, "0");
    // Forward only by force.
    bench.done(reset("G", "T", -1, false)).await;
    assert_eq!(stored(&bench, "G", "T").await, "0");
    bench.done(reset("G", "T", -1, true)).await;
    assert_eq!(stored(&bench, "G", "T").await, "5");
    let outside = bench.call(reset("G", "T", 0, true).with_field("queueId", 0).with_field("offset", 6)).await;
    assert!(outside.remark.unwrap().contains("range [0-5]"));
    // A connected one hears of it at its next pull.
    bench.subscribe("G", "T", "CLUSTERING").await;
    bench.done(reset("G", "T", 0, true).with_field("queueId", 0).with_field("offset", 2)).await;
    let pull = of_group(request::PULL_MESSAGE, "G")
        .with_field("topic", "T")
        .with_field("queueId", 0)
        .with_field("queueOffset", 5)
        .with_field("maxMsgNums", 32)
        .with_field("sysFlag", 0)
        .with_field("commitOffset", 0)
        .with_field("suspendTimeoutMillis", 0)
        .with_field("subVersion", 1);
    let answer = bench.call(pull).await;
    assert_eq!((answer.code, answer.fields.get("nextBeginOffset")), (response::PULL_OFFSET_MOVED, Some("2")));
    assert!(bench.incoming.seen.lock().iter().all(|frame| frame.code != request::RESET_CONSUMER_CLIENT_OFFSET));
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_broadcast_group_are_told_of_a_reset() {
    let bench = Bench::start().await;
    bench.send("T", &[("UNIQ_KEY", "u")]).await;
    bench.subscribe("B", "T", "BROADCASTING").await;
    bench.done(reset("B", "T", -1, true)).await;
    until("the member is told", || async {
        bench.incoming.seen.lock().iter().any(|frame| {
            frame.code == request::RESET_CONSUMER_CLIENT_OFFSET
                && frame.is_oneway()
                && from_slice::<ResetOffsetBody>(&frame.body).unwrap().offset_table.values().sum::<i64>() == 1
        })
    })
    .await;
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_cloned() {
    let bench = Bench::start().await;
    bench.send("T", &[("UNIQ_KEY", "u")]).await;
    bench.create_group("G").await;
    bench.create_group("H").await;
    commit(&bench, "G", "T", 1).await;
    let clone = Frame::request(request::CLONE_GROUP_OFFSET)
        .with_field("srcGroup", "G")
        .with_field("destGroup", "H")
        .with_field("topic", "T")
        .with_field("offline", true);
    bench.done(clone).await;
    assert_eq!(stored(&bench, "H", "T").await, "1");
    let all = bench.json(Frame::request(request::GET_ALL_CONSUMER_OFFSET)).await;
    assert!(all["offsetTable"].is_object());
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_relayed_to_consumers() {
    let bench = Bench::start().await;
    let sent = bench.send("T", &[("UNIQ_KEY", "u")]).await;
    let running = of_group(request::GET_CONSUMER_RUNNING_INFO, "G").with_field("clientId", "me");
    let directly = of_group(request::CONSUME_MESSAGE_DIRECTLY, "G")
        .with_field("clientId", "me")
        .with_field("msgId", sent.id)
        .with_field("topic", "T");
    let status = of_topic(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, "T").with_field("group", "G");
    for request in [&running, &directly, &status] {
        assert_eq!(bench.call(request.clone()).await.code, response::CONSUMER_NOT_ONLINE);
    }
    bench.subscribe("G", "T", "CLUSTERING").await;
    *bench.incoming.answer.lock() = Some(Bytes::from_static(b"{\"whatever\":1}"));
    assert_eq!(bench.done(running).await.body, "{\"whatever\":1}");
    assert_eq!(bench.done(directly).await.body, "{\"whatever\":1}");
    let asked = bench.incoming.seen.lock().iter().find(|frame| frame.code == 309).cloned().unwrap();
    assert_eq!(asked.fields.get("brokerName"), Some("broker-a"));
    assert_eq!(messages(&asked)[0].body, "a body");

    let table = format!(r#"{{"consumerTable":{{}},"messageQueueTable":{{{}:7}}}}"#, queue("T", 0));
    *bench.incoming.answer.lock() = Some(table.into());
    let status = bench.json(status).await;
    assert_eq!(status["consumerTable"]["me"][queue("T", 0)], 7);

    let unknown = of_group(request::CONSUME_MESSAGE_DIRECTLY, "G").with_field("msgId", "no id");
    assert_eq!(bench.call(unknown).await.code, response::SYSTEM_ERROR);
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tool_does_not_take_all_room_for_questions_to_consumers() {
    const SHARE: usize = 8;
    let bench = Bench::start().await;
    bench.subscribe("G", "T", "CLUSTERING").await;
    let ask = || of_group(request::GET_CONSUMER_RUNNING_INFO, "G").with_field("clientId", "me");
    let asked = || bench.incoming.seen.lock().iter().filter(|frame| frame.code == ask().code).count();
    // The consumer answers none of them.
    let share = join_all((0..SHARE).map(|_| bench.call(ask())));
    let one_more = async {
        until("the consumer is asked", || async { asked() == SHARE }).await;
        bench.call(ask()).await
    };
    let refused = tokio::select! {
        _ = share => panic!("they wait for the consumer"),
        refused = one_more => refused,
    };
    assert_eq!(refused.code, response::SYSTEM_BUSY, "{:?}", refused.remark);
    assert_eq!(asked(), SHARE, "no consumer was asked");
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_a_tool_makes_has_its_retry_topic_at_once() {
    let bench = Bench::start().await;
    let put = async |body: &str| {
        bench.call(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body.to_owned())).await
    };
    let queues = || {
        let topic = bench.broker.broker().shard.topics().get("%RETRY%CG");
        topic.map(|topic| (topic.settings.read_queues, topic.settings.write_queues))
    };
    assert_eq!(put(r#"{"groupName":"CG","retryQueueNums":0}"#).await.code, 0);
    assert_eq!(queues(), None, "a group without retries");
    for (wanted, there) in [(1, 1), (3, 3), (2, 3)] {
        assert_eq!(put(&format!(r#"{{"groupName":"CG","retryQueueNums":{wanted}}}"#)).await.code, 0);
        assert_eq!(queues(), Some((there, there)), "{wanted} wanted");
    }
    let progress = bench.json(of_group(request::GET_CONSUME_STATS, "CG")).await;
    // Tools take a group without any queue for missing.
    let queues = progress["offsetTable"].as_object().unwrap();
    assert_eq!(queues.len(), 3);
    assert_eq!(queues[&queue("%RETRY%CG", 2)]["brokerOffset"], 0);
    for bad in [
        r#"{"groupName":"CG","retryQueueNums":-1}"#,
        r#"{"groupName":"CG","consumeTimeoutMinute":-1}"#,
        r#"{"groupName":"CG","attributes":{"+no.such":"1"}}"#,
    ] {
        assert_eq!(put(bad).await.code, 29, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_topics_are_kept_or_refused() {
    let bench = Bench::start().await;
    let create = |topic: &str, attributes: &str| {
        let header = CreateTopicHeader { attributes: Some(attributes), ..CreateTopicHeader::new(topic, 1) };
        Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)
    };
    for (change, expected) in [
        ("+message.type=FIFO", Some("FIFO")),
        ("", Some("FIFO")),
        ("+message.type=TRANSACTION", Some("TRANSACTION")),
        ("-message.type", None),
    ] {
        bench.done(create("T", change)).await;
        let shown = bench.json(of_topic(request::GET_TOPIC_CONFIG, "T")).await;
        assert_eq!(shown["attributes"]["message.type"].as_str(), expected, "{change}");
    }
    for bad in ["+message.type=BOGUS", "+no.such.attribute=1", "message.type=FIFO", "+queue.type=BatchCQ"] {
        let answer = bench.call(create("New", bad)).await;
        assert_eq!(answer.code, 29, "{bad}: {:?}", answer.remark);
    }
    let list = r#"{"topicConfigList":[{"topicName":"New","attributes":{"queue.type":"BatchCQ"}}]}"#;
    let answer = bench.call(Frame::request(request::UPDATE_AND_CREATE_TOPIC_LIST).with_body(list)).await;
    assert_eq!(answer.code, 29, "{:?}", answer.remark);
    let odd = create("New", "").with_field("topicFilterType", "BOTH_TAGS");
    assert_eq!(bench.call(odd).await.code, 29);
    assert!(bench.broker.broker().shard.topics().get("New").is_none());
}
