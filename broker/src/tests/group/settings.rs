//! Settings of a group: founded by the leader, changed through any member, the same on all of them.

use escrowmq_common::code::response;

use super::support::Bench;
use crate::config::BrokerConfig;
use crate::shard::{Admission, Command, Outcome, Settings};
use crate::terms::FEATURE_LEVEL;
use crate::tests::support::{create_topic, until};

const SEATS: [usize; 3] = [0, 1, 2];

/// Each member's file has another value for one key.
fn each_its_own(at: usize, config: &mut BrokerConfig) {
    config.transaction_check_max = 11 + u32::try_from(at).unwrap();
    config.named.insert("transactionCheckMax");
}

/// By seat, in their order.
async fn differing(bench: &Bench, at: usize) -> Vec<Vec<String>> {
    let view = bench.at(at).broker().group.view().await.unwrap();
    view.members.into_iter().map(|member| member.differing.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_founders_settings_are_everybodys_through_changes_restarts_and_a_wiped_folder() {
    let mut bench = Bench::founded(each_its_own).await;
    let agreed = bench.at(0).broker().shard.agreed();
    let founded = agreed.settings["transactionCheckMax"].clone();
    assert_eq!((agreed.level, agreed.settings["maxMessageSize"].as_str()), (FEATURE_LEVEL, "4194304"), "defaults too");
    bench.until_shown("transactionCheckMax", &founded).await;
    let founder = SEATS.into_iter().find(|at| founded == (11 + at).to_string()).unwrap();
    for at in SEATS {
        for (seat, keys) in differing(&bench, at).await.into_iter().enumerate() {
            assert_eq!(keys.len(), usize::from(seat != founder), "n{at} of n{seat}: {keys:?}");
        }
    }

    // The one that was asked may lag behind the leader by a heartbeat.
    let leader = bench.leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    bench.updated(follower, "transactionCheckMax=20\nautoCreateTopicEnable=false\n").await;
    assert_eq!(bench.shown(leader, "transactionCheckMax").await, "20");
    bench.until_shown("transactionCheckMax", "20").await;
    bench.until_shown("autoCreateTopicEnable", "false").await;
    bench.updated(leader, "autoCreateTopicEnable=true").await;
    bench.until_shown("autoCreateTopicEnable", "true").await;
    for keys in differing(&bench, other).await {
        assert_eq!(keys, ["transactionCheckMax"]);
    }

    // What is local stays at the member that was asked.
    bench.updated(follower, "maxHeldPulls=77").await;
    assert_eq!(bench.shown(follower, "maxHeldPulls").await, "77");
    assert_eq!(bench.shown(leader, "maxHeldPulls").await, "100000");
    assert_eq!(bench.shown(follower, "transactionCheckMax").await, "20");

    bench.stop(other).await;
    std::fs::remove_dir_all(bench.data(other)).unwrap();
    bench.start(&[other], FEATURE_LEVEL, each_its_own).await;
    bench.until_shown("transactionCheckMax", "20").await;
    bench.stop_all().await;
    bench.start(&SEATS, FEATURE_LEVEL, each_its_own).await;
    // At once, before anybody leads.
    for at in SEATS {
        assert_eq!(bench.shown(at, "transactionCheckMax").await, "20");
    }
    bench.leader().await;
    bench.until_shown("transactionCheckMax", "20").await;
    bench.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_refused_changes_nothing_anywhere() {
    let mut bench = Bench::founded(|_, _| {}).await;
    let leader = bench.leader().await;
    for at in [leader, (leader + 1) % 3] {
        for (text, code, why) in [
            ("transactionCheckMax=20\nmaxHeldPulls=7\n", response::SYSTEM_ERROR, "two requests"),
            ("transactionCheckMax=20\nmaxMessageSize=x\n", response::SYSTEM_ERROR, "maxMessageSize"),
            ("transactionCheckMax=20\nbrokerClusterName=x\n", response::NO_PERMISSION, "first logged"),
            ("transactionCheckMax=20\nnoSuchKey=1\n", response::SYSTEM_ERROR, "noSuchKey"),
        ] {
            let answer = bench.update(at, text).await;
            assert_eq!(answer.code, code, "n{at}: {text}: {:?}", answer.remark);
            assert!(answer.remark.unwrap().contains(why), "n{at}: {text}");
        }
    }
    for at in SEATS {
        assert_eq!(bench.shown(at, "transactionCheckMax").await, "15");
        assert_eq!(bench.shown(at, "maxHeldPulls").await, "100000");
    }
    bench.stop_all().await;
}

/// A newer leader's value must not cost the group this voter: it keeps its own value, says so, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_a_member_cannot_take_is_named_and_harms_nothing() {
    let mut bench = Bench::founded(|_, _| {}).await;
    let leader = bench.leader().await;
    let values = vec![("aKeyOfALaterVersion", "1"), ("maxMessageSize", "vast"), ("transactionCheckMax", "30")];
    let command = Command::Settings(Settings { only_missing: false, values });
    let shard = &bench.at(leader).broker().shard;
    assert_eq!(shard.propose(&command, Admission::Reserved).await, Ok(Outcome::Done));
    bench.until_shown("transactionCheckMax", "30").await;
    for at in SEATS {
        assert_eq!(bench.shown(at, "maxMessageSize").await, "4194304");
        assert_eq!(differing(&bench, at).await, vec![["aKeyOfALaterVersion", "maxMessageSize"]; 3]);
    }
    let answer = bench.call(leader, create_topic("T", 1)).await.unwrap();
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let has = |at: usize| bench.at(at).broker().shard.topics().get("T").is_some();
    until("all go on", async || SEATS.into_iter().all(has)).await;
    bench.stop_all().await;
}
