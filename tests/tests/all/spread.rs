//! Two groups of three in one cluster with two nameservers, and topics that are spread over both: producers go on with the group
//! that lives when the other one has lost its majority, and with one nameserver of two.

use escrowmq_tests::Nameserver;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::history::Level;
use escrowmq_tests::load::{Load, Rate};

use crate::outages::settings;

const SOME: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn producers_go_on_with_the_group_that_lives() {
    let mut a = Group::start(Plan::new(settings().with("brokerName", "group-a"))).await;
    let names: Vec<String> = a.nameservers().iter().map(Nameserver::address).collect();
    let mut b = Group::start(Plan::new(settings().with("brokerName", "group-b")).in_cluster(names)).await;
    a.until_leader().await;
    b.until_leader().await;
    let rate = Rate::full(Level::Flushed);
    let load = Load::start(|| a.client_builder(), vec![a.target(), b.target()], rate).await;
    let report = load
        .run(async |load| {
            load.until_more(SOME).await;
            let leader = b.until_leader().await;
            let [one, _] = b.followers(leader);
            b.kill(leader);
            b.kill(one);
            load.until_more(SOME).await;
            load.fault("kill -9 of two of three of one group", true);
            b.start_again(one).await;
            b.start_again(leader).await;
            b.until_leader().await;
            load.until_more(SOME).await;

            a.nameservers()[0].process().kill();
            let leader = a.until_leader().await;
            a.kill(leader);
            a.until_other_leader(leader).await;
            load.until_more(SOME).await;
            load.fault("kill -9 of a nameserver and of a leader", true);
            a.nameservers()[0].crash().await;
            a.start_again(leader).await;
            load.until_more(SOME).await;
        })
        .await;
    report.assert_good("producers_go_on", "cargo test --release -p escrowmq-tests --test all spread::");
    a.until_equal().await;
    b.until_equal().await;
}
