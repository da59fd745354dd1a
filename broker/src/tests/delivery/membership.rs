//! Heartbeats and what they cause.

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{CheckClientBody, ConsumerIdList, MessageModel, ProducerData, SubscriptionData};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;

use super::support::{Client, Node, PATIENCE, heartbeat, messages, pull, pull_request, until};

const NOTICE: i32 = request::NOTIFY_CONSUMER_IDS_CHANGED;

fn list(group: &str) -> Frame {
    Frame::request(request::GET_CONSUMER_LIST_BY_GROUP).with_field("consumerGroup", group)
}

async fn members(client: &Client, group: &str) -> Vec<String> {
    let answer = client.call(list(group)).await;
    if answer.code != 0 {
        return Vec::new();
    }
    from_slice::<ConsumerIdList>(&answer.body).unwrap().consumer_id_list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_makes_the_group_and_a_member() {
    let node = Node::start().await;
    let mut client = node.client("c1");
    let answer = client.join("G", "T", "*").await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    assert!(answer.body.is_empty());
    assert!(answer.version >= 232);
    assert_eq!(answer.fields.get("ESCROWMQ"), Some("1"));
    assert_eq!(answer.fields.get("IS_SUPPORT_HEART_BEAT_V2"), None);
    let notice = client.incoming(NOTICE).await;
    assert!(notice.is_oneway());
    assert_eq!(notice.fields.get("consumerGroup"), Some("G"));
    let shard = &node.running().broker().shard;
    assert!(shard.groups().get("G").is_some());
    assert_eq!(shard.topics().get("%RETRY%G").unwrap().settings.read_queues, 1);
    assert_eq!(members(&client, "G").await, ["c1"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_hear_of_each_other() {
    let node = Node::start().await;
    let (mut a, b, observer) = (node.client("a"), node.client("b"), node.client("o"));
    a.join("G", "T", "*").await;
    a.incoming(NOTICE).await;
    b.join("G", "T", "*").await;
    a.incoming(NOTICE).await;
    assert_eq!(members(&observer, "G").await, ["a", "b"]);
    b.close().await;
    a.incoming(NOTICE).await;
    assert_eq!(members(&observer, "G").await, ["a"]);
    let leave = Frame::request(request::UNREGISTER_CLIENT).with_field("clientID", "a").with_field("consumerGroup", "G");
    assert_eq!(a.call(leave).await.code, 0);
    let answer = observer.call(list("G")).await;
    assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("no consumer for this group, G")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_and_odd_heartbeats() {
    let node = Node::start().await;
    let client = node.client("c");
    let beat = |body: &str| Frame::request(request::HEART_BEAT).with_body(body.to_owned());
    for (code, body) in [
        (1, "{bad"),
        (1, ""),
        (1, r#"{"producerDataSet":[]}"#),
        (0, r#"{"clientID":"raw@1","producerDataSet":[{"groupName":"PG_raw"}],"consumerDataSet":[]}"#),
        (0, r#"{"clientID":"raw@1","consumerDataSet":[{"groupName":"bad group"}]}"#),
        (0, r#"{"clientID":"raw@1","consumerDataSet":null,"new":[{}]}"#),
    ] {
        let answer = client.call(beat(body)).await;
        assert_eq!(answer.code, code, "{body}: {:?}", answer.remark);
    }
    assert!(members(&client, "bad group").await.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_not_made_where_that_is_switched_off() {
    let node = Node::with(|config| config.auto_create_subscription_group = false).await;
    let client = node.client("c");
    assert_eq!(client.join("G", "T", "*").await.code, 0);
    assert!(members(&client, "G").await.is_empty());
    assert!(node.running().broker().shard.groups().get("G").is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_are_known_until_they_go() {
    let node = Node::start().await;
    let clients = &node.running().broker().clients;
    let mut connected = Vec::new();
    for id in ["a", "b", "c"] {
        let client = node.client(id);
        let mut data = heartbeat(id, "G", "T", "*");
        data.producer_data_set = vec![ProducerData { group_name: "PG".to_owned() }];
        assert_eq!(client.heartbeat(&data).await.code, 0);
        connected.push(client);
    }
    assert!(clients.take_joined_groups().iter().any(|group| &**group == "PG"));
    assert!(clients.take_joined_groups().is_empty());
    let b = clients.producer_connection("b").unwrap();
    assert_eq!(clients.client_id_of(b.id(), "PG").as_deref(), Some("b"));
    connected.remove(1).close().await;
    until("b is gone", async || clients.producer_connection("b").is_none()).await;
    for client in connected {
        client.close().await;
    }
    until("all are gone", async || clients.all_producers().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_checked_before_a_consumer_starts() {
    let check = |expression: &str| {
        let body = CheckClientBody {
            client_id: "c".to_owned(),
            group: "G".to_owned(),
            subscription_data: SubscriptionData {
                topic: "T".to_owned(),
                expression_type: Some("SQL92".to_owned()),
                sub_string: expression.to_owned(),
                ..SubscriptionData::default()
            },
            ..CheckClientBody::default()
        };
        Frame::request(request::CHECK_CLIENT_CONFIG).with_body(to_bytes(&body, Form::Loose))
    };
    let node = Node::with(|config| config.enable_property_filter = true).await;
    let client = node.client("c");
    assert_eq!(client.call(check("color = 'red' AND TAGS is not null")).await.code, 0);
    assert_eq!(client.call(check("color === red")).await.code, 23);
    node.stop().await;
    let node = Node::start().await;
    let client = node.client("c");
    assert_eq!(client.call(check("color = 'red'")).await.code, 1);
    let ask = Frame::request(request::QUERY_ASSIGNMENT).with_body("{}");
    assert_eq!(client.call(ask).await.code, 3);
    node.stop().await;
}

/// A consumer whose clock was ahead is followed by one with the right clock, or a slow one, and another filter.
#[tokio::test(flavor = "multi_thread")]
async fn what_members_subscribe_to_now_counts_whatever_their_clocks_say() {
    let node = Node::start().await;
    let (stays, comes) = (node.client("stays"), node.client("comes"));
    stays.send("T", 0, b"one", &[("TAGS", "one"), ("n", "1")]).await;
    stays.send("T", 0, b"two", &[("TAGS", "two"), ("n", "2")]).await;
    let beat = |client: &Client, group: &str, expression: &str, version: i64| {
        let mut beat = heartbeat(&client.id, group, "T", expression);
        beat.consumer_data_set[0].subscription_data_set[0].sub_version = version;
        beat
    };
    let pulled = async |client: &Client, group: &str, version: i64| {
        let header =
            PullMessageHeader { sys_flag: 0, sub_version: version, subscription: None, ..pull(group, "T", 0, 0) };
        let answer = client.call(pull_request(&header)).await;
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        messages(&answer).into_iter().map(|message| message.body).collect::<Vec<_>>()
    };
    let now = node.running().broker().clock.wall_ms();
    let ahead = now + 86_400_000;
    for (group, right) in [("G0", now), ("G1", now - 3_600_000), ("G2", 0)] {
        stays.heartbeat(&beat(&stays, group, "one", ahead)).await;
        assert_eq!(pulled(&stays, group, ahead).await, ["one"], "{group}");
        comes.heartbeat(&beat(&comes, group, "two", right)).await;
        assert_eq!(pulled(&comes, group, right).await, ["two"], "{group}");
        // A member that has not followed yet changes nothing, and still gets answers.
        stays.heartbeat(&beat(&stays, group, "one", ahead)).await;
        assert_eq!(pulled(&comes, group, right).await, ["two"], "{group}");
        assert_eq!(pulled(&stays, group, ahead).await, ["two"], "{group}");
    }
    // A subscription that no heartbeat has named yet is not served with another filter.
    let unheard = PullMessageHeader { sys_flag: 0, sub_version: ahead + 77, ..pull("G0", "T", 0, 0) };
    assert_eq!(comes.call(pull_request(&unheard)).await.code, 25);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_may_not_broadcast_or_consume_does_not_by_any_way() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[]).await;
    let group = |body: &str| Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body.to_owned());
    assert_eq!(client.call(group(r#"{"groupName":"B","consumeBroadcastEnable":false}"#)).await.code, 0);
    let mut beat = heartbeat("c", "B", "T", "*");
    beat.consumer_data_set[0].message_model = MessageModel::Broadcasting;
    client.heartbeat(&beat).await;
    for flags in [0, 4] {
        for code in [request::PULL_MESSAGE, request::LITE_PULL_MESSAGE] {
            let header = PullMessageHeader { sys_flag: flags, ..pull("B", "T", 0, 0) };
            let answer = client.call(Frame::request(code).with_header(&header)).await;
            assert_eq!(answer.code, 16, "flags {flags}: {:?}", answer.remark);
        }
    }
    // A pull that is held when its group loses the right gets nothing any more.
    assert_eq!(client.call(group(r#"{"groupName":"H"}"#)).await.code, 0);
    let held = PullMessageHeader { sys_flag: 6, suspend_timeout_millis: 20_000, ..pull("H", "T", 0, 1) };
    let (remote, address) = client.remote();
    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    let waiting = tokio::spawn(async move { remote.call(&address, pull_request(&held), PATIENCE).await.unwrap() });
    until("the pull is held", async || node.running().broker().delivery.holds.len() > 0).await;
    assert_eq!(client.call(group(r#"{"groupName":"H","consumeEnable":false}"#)).await.code, 0);
    client.send("T", 0, b"y", &[]).await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.code, answer.body.len()), (19, 0), "{:?}", answer.remark);
    assert_eq!(client.call(pull_request(&pull("H", "T", 0, 1))).await.code, 16);
    node.stop().await;
}
