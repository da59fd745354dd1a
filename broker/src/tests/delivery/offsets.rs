//! How far groups have come.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;

use super::support::{Client, Node, number, pull, pull_request, until};
use crate::terms::QueueOffset;

fn of_queue(code: i32, topic: &str, queue: i32) -> Frame {
    Frame::request(code).with_field("topic", topic).with_field("queueId", queue)
}

fn query(group: &str, topic: &str) -> Frame {
    of_queue(request::QUERY_CONSUMER_OFFSET, topic, 0).with_field("consumerGroup", group)
}

fn commit(group: &str, topic: &str, offset: i64) -> Frame {
    of_queue(request::UPDATE_CONSUMER_OFFSET, topic, 0)
        .with_field("consumerGroup", group)
        .with_field("commitOffset", offset)
}

async fn filled(node: &Node) -> Client {
    let client = node.client("c");
    for _ in 0..10 {
        client.send("T", 0, b"x", &[]).await;
    }
    client.join("G", "T", "*").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_awaited_commit_survives_a_restart() {
    let mut node = Node::start().await;
    let client = filled(&node).await;
    let answer = client.call(commit("G", "T", 4)).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    // Stored, and not only seen.
    let broker = node.running().broker().clone();
    let queue = broker.shard.topics().get("T").unwrap().queues[0].id;
    assert_eq!(broker.shard.offset("G", queue).unwrap(), Some(QueueOffset(4)));
    drop(broker);
    client.oneway(commit("G", "T", 6)).await;
    until("the commit is seen", async || number(&client.call(query("G", "T")).await, "offset") == 6).await;
    client.close().await;
    node.restart().await;
    let client = node.client("c");
    assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 6);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oneway_commits_are_stored_within_seconds() {
    let node = Node::start().await;
    let client = filled(&node).await;
    client.oneway(commit("G", "T", 7)).await;
    let broker = node.running().broker();
    let queue = broker.shard.topics().get("T").unwrap().queues[0].id;
    until("the offset is stored", async || broker.shard.offset("G", queue).unwrap() == Some(QueueOffset(7))).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_have_their_codes() {
    let node = Node::start().await;
    let client = filled(&node).await;
    for (code, request) in [
        (26, commit("Nobody", "T", 1)),
        (17, commit("G", "NoSuchTopic", 1)),
        (29, commit("G", "T", 1).with_field("queueId", 77)),
        (29, commit("G", "T", -5)),
        (1, of_queue(request::UPDATE_CONSUMER_OFFSET, "T", 0).with_field("consumerGroup", "G")),
        (29, commit("G", "T", 1_000)),
        (0, commit("G", "T", 10)),
    ] {
        let answer = client.call(request).await;
        assert_eq!(answer.code, code, "{:?}", answer.remark);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_the_queue_does_not_take_it_back() {
    let node = Node::start().await;
    let old = filled(&node).await;
    let new = node.client("d");
    new.join("G", "T", "*").await;
    old.call(pull_request(&pull("G", "T", 0, 0))).await;
    // The queue goes over to the new member, which comes further.
    new.call(pull_request(&pull("G", "T", 0, 3))).await;
    assert_eq!(new.call(commit("G", "T", 8)).await.code, 0);
    assert_eq!(old.call(commit("G", "T", 3)).await.code, 1);
    assert_eq!(number(&old.call(query("G", "T")).await, "offset"), 8);
    // Forward is always right; the member that pulls may go back, and a connection that is no member may not.
    assert_eq!(old.call(commit("G", "T", 9)).await.code, 0);
    assert_eq!(new.call(commit("G", "T", 2)).await.code, 0);
    let stranger = node.client("stranger");
    stranger.call(pull_request(&pull("G", "T", 0, 3))).await;
    let refused = stranger.call(commit("G", "T", 1)).await;
    assert!(refused.code == 1 && refused.remark.unwrap().contains("reset the group's offset"));
    assert_eq!(number(&old.call(query("G", "T")).await, "offset"), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_has_not_registered_after_a_restart_takes_no_offset_back() {
    let mut node = Node::start().await;
    let client = filled(&node).await;
    assert_eq!(client.call(commit("G", "T", 8)).await.code, 0);
    client.close().await;
    node.restart().await;
    let client = node.client("c");
    client.oneway(commit("G", "T", 3)).await;
    assert_eq!(client.call(commit("G", "T", 3)).await.code, 1);
    assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 8);
    assert_eq!(client.call(commit("G", "T", 9)).await.code, 0, "forward it goes at once");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_begins_anew_whatever_is_on_its_way() {
    let node = Node::start().await;
    let client = filled(&node).await;
    let delete =
        Frame::request(request::DELETE_SUBSCRIPTIONGROUP).with_field("groupName", "G").with_field("cleanOffset", true);
    for round in 0..20 {
        client.join("G", "T", "*").await;
        for offset in 1..8 {
            client.oneway(commit("G", "T", offset)).await;
        }
        let (deleted, committed) = tokio::join!(client.call(delete.clone()), client.call(commit("G", "T", 9)));
        assert_eq!(deleted.code, 0);
        assert!(matches!(committed.code, 0 | 26), "{:?}", committed.remark);
        client.join("G", "T", "*").await;
        node.running().broker().delivery.flush_offsets().await;
        let stored = client.call(query("G", "T").with_field("setZeroIfNotFound", false)).await;
        assert_eq!(stored.code, 22, "round {round}: an offset of the deleted group is back");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_commit_on_the_way() {
    let node = Node::start().await;
    let client = filled(&node).await;
    let header = PullMessageHeader { sys_flag: 5, commit_offset: 5, ..pull("G", "T", 0, 5) };
    assert_eq!(client.call(pull_request(&header)).await.code, 0);
    assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 5);
    let header = PullMessageHeader { commit_offset: 9, ..pull("G", "T", 0, 5) };
    assert_eq!(client.call(pull_request(&header)).await.code, 0);
    assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 5);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_an_offset() {
    let node = Node::start().await;
    let client = filled(&node).await;
    // A young queue begins at 0, unless the client wants to decide.
    assert_eq!(number(&client.call(query("New", "T")).await, "offset"), 0);
    let decides = query("New", "T").with_field("setZeroIfNotFound", false);
    assert_eq!(client.call(decides).await.code, 22);
    let zero = query("New", "T").with_field("setZeroIfNotFound", true);
    assert_eq!(client.call(zero).await.code, 0);
    assert_eq!(client.call(query("New", "NoSuchTopic")).await.code, 22);
    // Sent to the end of a queue that never had a message, it would skip what is stored before it asks where that is.
    let empty = of_queue(request::QUERY_CONSUMER_OFFSET, "T", 1).with_field("consumerGroup", "New");
    assert_eq!(number(&client.call(empty.clone()).await, "offset"), 0);
    assert_eq!(client.call(empty.clone().with_field("setZeroIfNotFound", false)).await.code, 22);
    assert_eq!(client.call(empty.with_field("queueId", 99)).await.code, 22);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_times_of_queues() {
    let node = Node::start().await;
    let client = filled(&node).await;
    let offset = async |request| number(&client.call(request).await, "offset");
    assert_eq!(offset(of_queue(request::GET_MAX_OFFSET, "T", 0)).await, 10);
    assert_eq!(offset(of_queue(request::GET_MAX_OFFSET, "T", 1)).await, 0);
    assert_eq!(offset(of_queue(request::GET_MAX_OFFSET, "NoSuchTopic", 0)).await, 0);
    assert_eq!(offset(of_queue(request::GET_MIN_OFFSET, "T", 0)).await, 0);
    assert_eq!(offset(of_queue(request::GET_MIN_OFFSET, "NoSuchTopic", 0)).await, 0);
    let at = |time: i64, boundary: &str| {
        of_queue(request::SEARCH_OFFSET_BY_TIMESTAMP, "T", 0)
            .with_field("timestamp", time)
            .with_field("boundaryType", boundary)
    };
    assert_eq!(offset(at(-1, "LOWER")).await, 0);
    assert_eq!(offset(at(1, "LOWER")).await, 0);
    assert_eq!(offset(at(i64::MAX, "LOWER")).await, 10);
    assert_eq!(offset(at(1, "UPPER")).await, 0);
    assert_eq!(offset(at(i64::MAX, "UPPER")).await, 9);
    let unknown = of_queue(request::SEARCH_OFFSET_BY_TIMESTAMP, "NoSuchTopic", 0).with_field("timestamp", 1);
    assert_eq!(offset(unknown).await, 0);
    let time = async |request| number(&client.call(request).await, "timestamp");
    assert!(time(of_queue(request::GET_EARLIEST_MSG_STORETIME, "T", 0)).await > 1_600_000_000_000);
    assert_eq!(time(of_queue(request::GET_EARLIEST_MSG_STORETIME, "T", 1)).await, -1);
    assert_eq!(time(of_queue(request::GET_EARLIEST_MSG_STORETIME, "NoSuchTopic", 0)).await, -1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_no_consumer_can_have_reached_is_not_taken() {
    let node = Node::start().await;
    let client = filled(&node).await;
    assert_eq!(client.call(commit("G", "T", 3)).await.code, 0);
    for wrong in [11, 1000, -1, i64::MIN, i64::MAX] {
        let answer = client.call(commit("G", "T", wrong)).await;
        assert_ne!(answer.code, 0, "{wrong}");
        assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 3, "{wrong}");
        // Nor with a pull.
        let with_pull = PullMessageHeader { sys_flag: 5, commit_offset: wrong, ..pull("G", "T", 0, 3) };
        client.call(pull_request(&with_pull)).await;
        assert_eq!(number(&client.call(query("G", "T")).await, "offset"), 3, "{wrong}");
    }
    assert_eq!(client.call(commit("G", "T", 10)).await.code, 0, "the end itself");
    node.stop().await;
}
