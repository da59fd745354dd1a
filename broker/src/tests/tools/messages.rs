//! Messages by id and by key: what is in a queue is found, and nothing else.

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::OffsetMessageId;

use super::support::Bench;
use crate::tests::support::{messages, until};

fn view(position: i64) -> Frame {
    Frame::request(request::VIEW_MESSAGE_BY_ID).with_field("offset", position).with_field("topic", "T")
}

fn query(topic: &str, key: &str, is_unique: bool) -> Frame {
    query_between(topic, key, is_unique, 0, i64::MAX)
}

fn query_between(topic: &str, key: &str, is_unique: bool, begin: i64, end: i64) -> Frame {
    Frame::request(request::QUERY_MESSAGE)
        .with_field("topic", topic)
        .with_field("key", key)
        .with_field("maxNum", 32)
        .with_field("beginTimestamp", begin)
        .with_field("endTimestamp", end)
        .with_field("_UNIQUE_KEY_QUERY", is_unique)
}

async fn is_hidden(bench: &Bench, topic: &str, id: &OffsetMessageId, keys: &[&str]) {
    let answer = bench.call(view(id.position)).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    let remark = format!("can not find message by the offset, {}", id.position);
    assert_eq!(answer.remark.as_deref(), Some(remark.as_str()));
    for key in keys {
        for is_unique in [true, false] {
            let answer = bench.call(query(topic, key, is_unique)).await;
            assert_eq!(answer.code, response::QUERY_NOT_FOUND, "{key}");
            assert!(answer.body.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_by_id_key_and_unique_key() {
    let bench = Bench::start().await;
    let before = clock::wall_ms() - 1000;
    let first = bench.send("T", &[("KEYS", "order-1 customer-7"), ("UNIQ_KEY", "u1"), ("TAGS", "A")]).await;
    let second = bench.send("T", &[("KEYS", "order-2 customer-7"), ("UNIQ_KEY", "u2")]).await;
    bench.send("Other", &[("KEYS", "order-1"), ("UNIQ_KEY", "u1")]).await;

    let found = messages(&bench.done(view(first.id.position)).await);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].topic.as_str(), found[0].position, found[0].queue_offset), ("T", first.id.position, 0));
    assert_eq!(found[0].body, "a body");

    for (key, is_unique, expected) in [
        ("order-1", false, vec![first.id.position]),
        ("u2", true, vec![second.id.position]),
        ("u2", false, vec![second.id.position]),
        ("customer-7", false, vec![second.id.position, first.id.position]),
    ] {
        let answer = bench.done(query("T", key, is_unique)).await;
        let positions: Vec<i64> = messages(&answer).iter().map(|unit| unit.position).collect();
        assert_eq!(positions, expected, "{key}");
        assert!(answer.fields.get("indexLastUpdateTimestamp").unwrap().parse::<i64>().unwrap() > before);
        assert!(answer.fields.get("indexLastUpdatePhyoffset").unwrap().parse::<i64>().unwrap() > 0);
    }
    let now = clock::wall_ms() + 1000;
    assert_eq!(messages(&bench.done(query_between("T", "customer-7", false, before, now)).await).len(), 2);
    for (begin, end) in [(0, before), (now + 60_000, i64::MAX), (5, 1)] {
        let answer = bench.call(query_between("T", "customer-7", false, begin, end)).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND);
    }
    // A word of KEYS is no unique id, and a key of one topic is not one of another.
    for (topic, key, is_unique) in [("T", "order-1", true), ("T", "order", false), ("Nowhere", "order-1", false)] {
        assert_eq!(bench.call(query(topic, key, is_unique)).await.code, response::QUERY_NOT_FOUND);
    }
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_message_is_found_only_after_its_commit() {
    let bench = Bench::start().await;
    let half = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("KEYS", "k"), ("UNIQ_KEY", "h1")];
    let committed = bench.send("T", &half).await;
    let mut other = half;
    other[2].1 = "r";
    other[3].1 = "h2";
    let rolled_back = bench.send("T", &other).await;
    is_hidden(&bench, "T", &committed.id, &["k", "h1"]).await;
    is_hidden(&bench, "RMQ_SYS_TRANS_HALF_TOPIC", &committed.id, &["k", "h1"]).await;
    assert_eq!(bench.decide(&committed, 8).await.code, response::SUCCESS);
    assert_eq!(bench.decide(&rolled_back, 12).await.code, response::SUCCESS);
    is_hidden(&bench, "T", &rolled_back.id, &["r", "h2"]).await;
    for request in [view(committed.id.position), query("T", "k", false), query("T", "h1", true)] {
        let found = messages(&bench.done(request).await);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].property("UNIQ_KEY"), Some("h1"));
        assert_eq!(found[0].prepared_offset, committed.id.position);
    }
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_for_its_time_is_not_found_before() {
    let bench = Bench::start().await;
    let far = clock::wall_ms() + 3_600_000;
    let late = bench.send("T", &[("TIMER_DELIVER_MS", &far.to_string()), ("UNIQ_KEY", "late")]).await;
    let soon = bench.send("T", &[("DELAY", "1"), ("UNIQ_KEY", "soon"), ("KEYS", "s")]).await;
    is_hidden(&bench, "T", &late.id, &["late"]).await;
    until("the delayed message is visible", || async {
        bench.call(query("T", "soon", true)).await.code == response::SUCCESS
    })
    .await;
    let found = messages(&bench.done(view(soon.id.position)).await);
    assert_eq!(found[0].property("UNIQ_KEY"), Some("soon"));
    assert_eq!(messages(&bench.done(query("T", "s", false)).await).len(), 1);
    is_hidden(&bench, "T", &late.id, &["late"]).await;
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_position_may_be_asked_for() {
    let bench = Bench::start().await;
    let sent = bench.send("T", &[("KEYS", "k")]).await;
    let end = sent.id.position + 2000;
    let around = (0..end).step_by(7).filter(|&position| position != sent.id.position);
    for position in around.chain([-1, i64::MIN, i64::MAX, end * 1000]) {
        assert_eq!(bench.call(view(position)).await.code, response::SYSTEM_ERROR, "{position}");
    }
    let answer = bench.call(Frame::request(request::VIEW_MESSAGE_BY_ID).with_field("offset", "x")).await;
    assert_eq!(answer.remark.as_deref(), Some("offset: not a number: 'x'"));
    assert_eq!(bench.call(Frame::request(request::QUERY_MESSAGE)).await.code, response::SYSTEM_ERROR);
    bench.broker.stop().await.unwrap();
}
