//! Pulls that are answered at once.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use escrowmq_common::body::SubscriptionGroupConfig;
use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;

use super::support::{Node, messages, number, pull, pull_request};

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_order_with_their_fields() {
    let node = Node::start().await;
    let client = node.client("c");
    for n in 0..3 {
        assert_eq!(client.send("T", 1, format!("body {n}").as_bytes(), &[("TAGS", "A"), ("n", "x")]).await, n);
    }
    let answer = client.call(pull_request(&pull("G", "T", 1, 0))).await;
    assert_eq!((answer.code, answer.remark.as_deref()), (0, Some("FOUND")));
    for (field, value) in [
        ("suggestWhichBrokerId", 0),
        ("nextBeginOffset", 3),
        ("minOffset", 0),
        ("maxOffset", 3),
        ("topicSysFlag", 0),
        ("groupSysFlag", 0),
    ] {
        assert_eq!(number(&answer, field), value, "{field}");
    }
    let found = messages(&answer);
    assert_eq!(found.len(), 3);
    for (n, message) in found.iter().enumerate() {
        assert_eq!(message.queue_offset, n as i64);
        assert_eq!(message.queue_id, 1);
        assert_eq!(&message.body[..], format!("body {n}").as_bytes());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_request_hold() {
    let node = Node::start().await;
    let client = node.client("c");
    for _ in 0..5 {
        client.send("T", 0, &[7; 1000], &[]).await;
    }
    let two = PullMessageHeader { max_msg_nums: 2, ..pull("G", "T", 0, 1) };
    let answer = client.call(pull_request(&two)).await;
    assert_eq!((messages(&answer).len(), number(&answer, "nextBeginOffset")), (2, 3));
    let small = PullMessageHeader { max_msg_bytes: Some(2500), ..pull("G", "T", 0, 0) };
    let answer = client.call(pull_request(&small)).await;
    assert_eq!((messages(&answer).len(), number(&answer, "nextBeginOffset")), (2, 2));
    // One message always comes.
    let tiny = PullMessageHeader { max_msg_bytes: Some(1), ..pull("G", "T", 0, 4) };
    let answer = client.call(pull_request(&tiny)).await;
    assert_eq!((messages(&answer).len(), number(&answer, "nextBeginOffset")), (1, 5));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outside_are_answered_as_clients_expect() {
    let node = Node::start().await;
    let client = node.client("c");
    for _ in 0..5 {
        client.send("T", 0, b"x", &[]).await;
    }
    for (queue, offset, code, next, status) in [
        (0, 5, 19, 5, "OFFSET_OVERFLOW_ONE"),
        (0, 6, 21, 5, "OFFSET_OVERFLOW_BADLY"),
        (0, 10_000, 21, 5, "OFFSET_OVERFLOW_BADLY"),
        (0, -1, 21, 0, "OFFSET_TOO_SMALL"),
        (1, 0, 19, 0, "NO_MESSAGE_IN_QUEUE"),
        (1, 3, 21, 0, "NO_MESSAGE_IN_QUEUE"),
    ] {
        let answer = client.call(pull_request(&pull("G", "T", queue, offset))).await;
        let found = (answer.code, number(&answer, "nextBeginOffset"), answer.remark.as_deref());
        assert_eq!(found, (code, next, Some(status)), "offset {offset} of queue {queue}");
        assert!(answer.body.is_empty());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_codes() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[]).await;
    let cases = [
        (17, pull("G", "NoSuchTopic", 0, 0)),
        (16, pull("G", "RMQ_SYS_TRANS_HALF_TOPIC", 0, 0)),
        (29, pull("G", "T", 44, 0)),
        (29, pull("G", "T", -1, 0)),
        (26, pull("bad group", "T", 0, 0)),
        (24, PullMessageHeader { sys_flag: 0, ..pull("G", "T", 0, 0) }),
        (23, PullMessageHeader { subscription: Some("||"), ..pull("G", "T", 0, 0) }),
        (1, PullMessageHeader { subscription: Some("a = 1"), expression_type: Some("SQL92"), ..pull("G", "T", 0, 0) }),
    ];
    for (code, header) in cases {
        let answer = client.call(pull_request(&header)).await;
        assert_eq!(answer.code, code, "{header:?}: {:?}", answer.remark);
    }
    let missing = Frame::request(request::PULL_MESSAGE).with_field("topic", "T");
    assert_eq!(client.call(missing).await.code, 1);
    // With members, but for another topic or with an older subscription.
    client.join("G", "Other", "*").await;
    let heartbeats = |sub_version| PullMessageHeader { sys_flag: 0, sub_version, ..pull("G", "T", 0, 0) };
    assert_eq!(client.call(pull_request(&heartbeats(0))).await.code, 24);
    client.join("G", "T", "*").await;
    assert_eq!(client.call(pull_request(&heartbeats(11))).await.code, 25);
    assert_eq!(client.call(pull_request(&heartbeats(10))).await.code, 0);
    // A group that may not consume.
    let config = SubscriptionGroupConfig { consume_enable: false, ..SubscriptionGroupConfig::new("G") };
    let put = Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(to_bytes(&config, Form::Loose));
    assert_eq!(client.call(put).await.code, 0);
    assert_eq!(client.call(pull_request(&pull("G", "T", 0, 0))).await.code, 16);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lite_pulls_can_be_switched_off() {
    let node = Node::with(|config| config.lite_pull_message_enable = false).await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[]).await;
    let lite = Frame::request(request::LITE_PULL_MESSAGE).with_header(&pull("G", "T", 0, 0));
    assert_eq!(client.call(lite).await.code, 16);
    assert_eq!(client.call(pull_request(&pull("G", "T", 0, 0))).await.code, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_filtered() {
    let node = Node::start().await;
    let client = node.client("c");
    for n in 0..10 {
        let tag = if n % 5 == 3 { "B" } else { "A" };
        client.send("T", 0, b"x", &[("TAGS", tag)]).await;
    }
    let wanted = |subscription| PullMessageHeader { subscription: Some(subscription), ..pull("G", "T", 0, 0) };
    let answer = client.call(pull_request(&wanted("B || C"))).await;
    let offsets: Vec<i64> = messages(&answer).iter().map(|message| message.queue_offset).collect();
    assert_eq!((offsets, number(&answer, "nextBeginOffset")), (vec![3, 8], 10));
    let answer = client.call(pull_request(&wanted("C"))).await;
    assert_eq!((answer.code, answer.remark.as_deref()), (20, Some("NO_MATCHED_MESSAGE")));
    assert_eq!(number(&answer, "nextBeginOffset"), 10);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_filtered() {
    let node = Node::with(|config| config.enable_property_filter = true).await;
    let client = node.client("c");
    for n in 0..10 {
        let number = n.to_string();
        client.send("T", 0, b"x", &[("n", &number), ("color", if n < 5 { "red" } else { "blue" })]).await;
    }
    let wanted = |subscription| PullMessageHeader {
        subscription: Some(subscription),
        expression_type: Some("SQL92"),
        max_msg_nums: 3,
        ..pull("G", "T", 0, 0)
    };
    let answer = client.call(pull_request(&wanted("color = 'blue' AND n <> 6"))).await;
    let offsets: Vec<i64> = messages(&answer).iter().map(|message| message.queue_offset).collect();
    assert_eq!((offsets, number(&answer, "nextBeginOffset")), (vec![5, 7, 8], 9));
    let answer = client.call(pull_request(&wanted("color > 5"))).await;
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (20, 10));
    assert_eq!(client.call(pull_request(&wanted("color = "))).await.code, 23);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_memory_is_read_from_files() {
    let mut node = Node::with(|config| config.enable_property_filter = true).await;
    let client = node.client("c");
    for n in 0..40_u8 {
        let tag = if n % 2 == 0 { "even" } else { "odd" };
        client.send("T", 0, &vec![n; 100_000], &[("TAGS", tag)]).await;
    }
    client.close().await;
    // After a restart nothing is in memory.
    node.restart().await;
    let client = node.client("c");
    let mut next = 0;
    let mut seen = Vec::new();
    while next < 40 {
        let odd = PullMessageHeader { subscription: Some("odd"), ..pull("G", "T", 0, next) };
        let answer = client.call(pull_request(&odd)).await;
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        for message in messages(&answer) {
            assert_eq!(&message.body[..], vec![message.queue_offset as u8; 100_000]);
            seen.push(message.queue_offset);
        }
        next = number(&answer, "nextBeginOffset");
    }
    assert_eq!(seen, (0..40).filter(|n| n % 2 == 1).collect::<Vec<i64>>());
    let sql = PullMessageHeader {
        subscription: Some("TAGS = 'odd'"),
        expression_type: Some("SQL92"),
        ..pull("G", "T", 0, 0)
    };
    let answer = client.call(pull_request(&sql)).await;
    assert_eq!(messages(&answer)[0].queue_offset, 1);
    node.stop().await;
}

/// Flips a bit in the first place in the folder's files that holds `pattern`.
fn damage(folder: &Path, pattern: &[u8]) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(pattern.len()).position(|window| window == pattern) {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                return file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            }
        }
    }
    panic!("no file holds the pattern");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_message_is_an_error_and_is_not_skipped() {
    let mut node = Node::start().await;
    let client = node.client("c");
    for n in 0..40 {
        let body = format!("{:<50000}", format!("message number {n} of the test"));
        client.send("T", 0, body.as_bytes(), &[]).await;
    }
    client.close().await;
    // After a restart nothing is in memory; a start would refuse a damaged log.
    node.restart().await;
    damage(node.folder(), b"message number 2 of the test");
    let client = node.client("c");
    let answer = client.call(pull_request(&pull("G", "T", 0, 0))).await;
    assert_eq!((messages(&answer).len(), number(&answer, "nextBeginOffset")), (2, 2));
    let answer = client.call(pull_request(&pull("G", "T", 0, 2))).await;
    assert_eq!(answer.code, 1);
    let remark = answer.remark.unwrap();
    assert!(remark.contains("offset 2") && remark.contains("checksum"), "{remark}");
    assert!(answer.body.is_empty());
    // Messages after it are served to a consumer that asks for them.
    assert_eq!(messages(&client.call(pull_request(&pull("G", "T", 0, 3))).await)[0].queue_offset, 3);
    node.stop().await;
}
