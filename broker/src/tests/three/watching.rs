//! What operators see of a group while it is founded, serves, and loses members.

use escrowmq_common::code::request;
use serde_json::{Value, json};

use super::support::{Three, get_when_open, send};
use crate::start::start;
use crate::tests::support::{create_topic, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_waits_for_its_group_is_live_and_says_why_it_is_not_ready() {
    let mut three = Three::new();
    let config = three.config(0);
    let port = config.metrics_port.unwrap();
    let watching = async {
        assert_eq!(get_when_open(port, "/live").await, (200, "live\n".to_owned()));
        until("the reason names the others", async || {
            let (status, why) = three.get(0, "/ready").await;
            assert_eq!(status, 503, "{why}");
            why.contains("the group is not there yet") && why.contains("n1") && why.contains("n2")
        })
        .await;
        assert_eq!(three.page(0).await.get("ready"), Some(&0.0));
        three.start(&[1, 2]).await;
    };
    let (first, ()) = tokio::join!(start(config), watching);
    three.took(0, first.unwrap());
    for at in 0..3 {
        until("all are ready", async || three.get(at, "/ready").await.0 == 200).await;
        three.until(at, "ready", |ready| ready > 0.5).await;
    }
    three.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_name_lag_silence_and_what_only_a_minority_has() {
    let mut three = Three::new();
    three.start(&[0, 1, 2]).await;
    let leader = three.leader().await;
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    for follower in [one, other] {
        until("a follower is ready", async || three.get(follower, "/ready").await.0 == 200).await;
    }
    three.done(one, create_topic("T", 1)).await;
    three.done(one, send("T")).await;
    let page = three.page(one).await;
    assert!(page["forward_requests_total"] >= 2.0 && page["forward_tunnels_opened_total"] >= 1.0, "{page:?}");
    assert!(!page.contains_key("group_voters_out_of_reach"), "only a leader knows");
    let page = three.page(leader).await;
    assert!(page["forward_arrived_total"] >= 2.0, "{page:?}");
    assert_eq!((page["group_voters"], page["group_learners"]), (3.0, 0.0));
    let of = |name: &str, seat: usize| {
        let label = format!("{name}{{seat=\"n{seat}\",");
        let found: Vec<f64> = page.iter().filter(|(key, _)| key.starts_with(&label)).map(|(_, value)| *value).collect();
        assert_eq!(found.len(), 1, "{label} in {page:?}");
        found[0]
    };
    for follower in [one, other] {
        assert!(of("group_append_seconds_count", follower) >= 1.0 && of("group_append_seconds_sum", follower) > 0.0);
        assert!(of("group_member_lag_entries", follower) <= 10.0);
    }
    assert!(page["log_flush_seconds_count"] >= 1.0);
    three.until(leader, "group_voters_out_of_reach", |lost| lost < 0.5).await;
    // Clocks of one machine.
    until("each has asked the others for the time", async || {
        let page = three.page(one).await;
        let offsets: Vec<f64> =
            page.iter().filter(|(name, _)| name.starts_with("group_clock_offset_seconds")).map(|(_, at)| *at).collect();
        assert!(offsets.iter().all(|offset| offset.abs() < 5.0), "{offsets:?}");
        offsets.len() == 2
    })
    .await;

    three.stop(other).await;
    three.until(leader, "group_voters_out_of_reach", |lost| (0.5..1.5).contains(&lost)).await;
    three.done(leader, send("T")).await;
    let lag = |name: &'static str| {
        let (three, label) = (&three, format!("{name}{{seat=\"n{other}\","));
        async move { three.page(leader).await.iter().find(|(key, _)| key.starts_with(&label)).map(|(_, lag)| *lag) }
    };
    until("the one that is gone lacks the message", async || lag("group_member_lag_bytes").await > Some(100.0)).await;
    assert!(lag("group_member_lag_entries").await >= Some(1.0));

    // Sent without a pause: once its lease is over, a leader takes nothing that could wait for a majority.
    let stopping = three.stopping(one);
    let sent = async { while three.call(leader, send("T")).await.code == 0 {} };
    tokio::join!(stopping, sent);
    until("nobody is ready without a majority", async || three.get(leader, "/ready").await.0 == 503).await;
    three.until(leader, "group_majority_silence_seconds", |seconds| seconds > 1.0).await;
    three.until(leader, "group_uncommitted_entries", |entries| entries >= 1.0).await;
    three.until(leader, "group_uncommitted_bytes", |bytes| bytes >= 100.0).await;
    three.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_rocketmq_see_a_master_its_slaves_and_the_terms() {
    let mut three = Three::new();
    three.start(&[0, 1, 2]).await;
    let leader = three.leader().await;
    let follower = (leader + 1) % 3;
    three.done(leader, create_topic("T", 1)).await;
    until("the followers have all of it", async || {
        let status = three.ask(leader, request::GET_BROKER_HA_STATUS).await;
        assert_eq!(status["master"], json!(true));
        let slaves = status["haConnectionInfo"].as_array().unwrap();
        let has_all =
            |slave: &Value| slave["diff"] == json!(0) && slave["slaveAckOffset"] == status["masterCommitLogMaxOffset"];
        slaves.len() == 2 && slaves.iter().all(has_all) && status["inSyncSlaveNums"] == json!(2)
    })
    .await;
    let own = three.ask(follower, request::GET_BROKER_HA_STATUS).await;
    assert_eq!((&own["master"], &own["haConnectionInfo"]), (&json!(false), &json!([])));
    let client = &own["haClientRuntimeInfo"];
    assert!(client["masterAddr"].as_str().unwrap().starts_with("127.0.0.1:"), "{own}");
    assert!(client["lastReadTimestamp"].as_i64().unwrap() > 1_600_000_000_000, "{own}");
    until("the follower knows that all of its log is committed", async || {
        let own = three.ask(follower, request::GET_BROKER_HA_STATUS).await;
        let client = &own["haClientRuntimeInfo"];
        client["maxOffset"].as_u64() > Some(0) && client["masterFlushOffset"] == client["maxOffset"]
    })
    .await;
    let runtime = three.ask(follower, request::GET_BROKER_RUNTIME_INFO).await;
    assert_eq!((&runtime["table"]["groupRole"], &runtime["table"]["putTps"].is_string()), (&json!("voter"), &true));

    three.stop(leader).await;
    let leader = three.leader().await;
    three.done(leader, create_topic("U", 1)).await;
    let epochs = three.ask(leader, request::GET_BROKER_EPOCH_CACHE).await;
    assert_eq!((&epochs["brokerId"], &epochs["brokerName"]), (&json!(0), &json!("broker-a")));
    let list = epochs["epochList"].as_array().unwrap();
    let field = |epoch: &Value, name: &str| epoch[name].as_u64().unwrap();
    assert!(list.len() >= 2, "the founding, and each leader: {epochs}");
    for pair in list.windows(2) {
        assert!(field(&pair[0], "epoch") < field(&pair[1], "epoch"), "{epochs}");
        assert_eq!(field(&pair[0], "endOffset"), field(&pair[1], "startOffset"), "{epochs}");
    }
    assert_eq!(list.last().unwrap()["endOffset"], epochs["maxOffset"]);
    let term = three.page(leader).await["group_term"];
    assert_eq!(field(list.last().unwrap(), "epoch").to_string(), term.to_string());
    let other = (0..3).find(|at| *at != leader && three.runs(*at)).unwrap();
    let same = three.ask(other, request::GET_BROKER_EPOCH_CACHE).await;
    assert_eq!(same["epochList"][0], epochs["epochList"][0], "logs are equal");
    assert_eq!(same["brokerId"], json!(other + 1));
    three.end().await;
}
