//! Clients that know a single member of a group of three, which follows: the leader knows them, asks them and wakes their pulls
//! through that member.

use std::time::Duration;

use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{ConsumerConnections, ProducerConnections};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::wire::{end_request, messages};
use escrowmq_tests::{End, Settings, Wire, since, until};
use futures_util::future::join;

const TOPIC: &str = "Followed";
const PRODUCERS: &str = "followed-producer";
const CONSUMERS: &str = "followed-consumer";
/// How long a pull may be held. One that a message wakes is answered long before.
const HOLD: Duration = Duration::from_secs(15);

async fn start() -> (Group, usize, usize) {
    let group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    group.wire(leader).create_topic(TOPIC, 1).await;
    group.until_equal().await;
    let [follower, _] = group.followers(leader);
    (group, leader, follower)
}

/// Ids of the producers that the leader knows.
async fn producers(leader: &Wire) -> Vec<String> {
    let ask = Frame::request(request::GET_PRODUCER_CONNECTION_LIST).with_field("producerGroup", PRODUCERS);
    let answer = leader.call(ask).await.expect("answered");
    let known: ProducerConnections = from_slice(&answer.body).unwrap_or_default();
    known.connection_set.into_iter().map(|client| client.client_id).collect()
}

/// Ids of the consumers that the leader knows.
async fn consumers(leader: &Wire) -> Vec<String> {
    let ask = Frame::request(request::GET_CONSUMER_CONNECTION_LIST).with_field("consumerGroup", CONSUMERS);
    let answer = leader.call(ask).await.expect("answered");
    let known: ConsumerConnections = from_slice(&answer.body).unwrap_or_default();
    known.connection_set.into_iter().map(|client| client.client_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_at_a_follower_is_known_to_the_leader_and_asked_through_that_follower() {
    let (group, leader, follower) = start().await;
    let (to_leader, client) = (group.wire(leader), group.wire(follower));
    client.greet("producer-1", PRODUCERS, &[]).await;
    until("the leader knows it", async || (producers(&to_leader).await == ["producer-1"]).then_some(())).await;
    let decided = client.half(PRODUCERS, TOPIC, "decided", "decided").await;
    let asked = client.half(PRODUCERS, TOPIC, "asked", "asked").await;
    assert_eq!(client.end(&decided, End::Rollback).await.expect("answered").code, response::SUCCESS);

    let check = client.until_checked("asked").await;
    assert_eq!((check.position, check.counter), (asked.position, asked.counter));
    assert!(group.page(leader).await.expect("a page").value("forward_arrived_total") >= Some(4));
    let answer = client.call(end_request(&asked, End::Commit, true)).await.expect("answered");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    for wire in [&client, &to_leader] {
        let bodies: Vec<_> = wire.read_queue(TOPIC, 0).await.into_iter().map(|message| message.body).collect();
        assert_eq!(bodies, ["asked"], "committed, once, and nothing else");
    }
    assert!(client.checks().iter().all(|check| check.transaction_id == "asked"), "{:?}", client.checks());
    assert!(to_leader.checks().is_empty(), "who is no producer is asked nothing");
    assert_eq!(group.leader().await, Some(leader), "nothing of this went to another leader");

    client.close().await;
    until("the leader forgets it", async || producers(&to_leader).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_a_follower_passed_on_wakes_with_the_message() {
    let (group, leader, follower) = start().await;
    let (to_leader, client) = (group.wire(leader), group.wire(follower));
    client.greet("consumer-1", CONSUMERS, &[(TOPIC, "*")]).await;
    until("the leader knows it", async || (consumers(&to_leader).await == ["consumer-1"]).then_some(())).await;
    let mut header = PullMessageHeader::new(CONSUMERS, TOPIC, 0, 0, 32);
    header.sys_flag |= PullMessageHeader::MAY_HOLD;
    header.suspend_timeout_millis = HOLD.as_millis().try_into().expect("seconds");
    let pull = Frame::request(request::PULL_MESSAGE).with_header(&header);

    let send = async {
        until("the leader holds the pull", async || {
            (group.page(leader).await?.value("held_pulls") == Some(1)).then_some(())
        })
        .await;
        let follows = group.page(follower).await.expect("a page");
        assert_eq!(follows.value("held_pulls"), Some(0), "no follower holds pulls of its own");
        let began = clock::monotonic();
        let sent = to_leader.send(TOPIC, 0, "wakes it", &[]).await.expect("answered");
        assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
        began
    };
    let (pulled, sent) = join(client.call(pull), send).await;
    let (pulled, took) = (pulled.expect("a held pull is answered"), since(sent));
    assert_eq!(pulled.code, response::SUCCESS, "{:?}", pulled.remark);
    let bodies: Vec<_> = messages(pulled.body).into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, ["wakes it"]);
    println!("a pull at a follower had its message {took:?} after the send");
}
