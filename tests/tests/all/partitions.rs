//! A group of three under load in a network that cuts members off from each other, one way or both, or a leader from its clients, or loses a fifth of what they
//! send below TCP. Judged as in [`outages`](crate::outages).

use std::time::Duration;

use escrowmq_tests::group::{Group, MEMBERS, Plan};
use escrowmq_tests::load::Meanwhile;

use crate::outages::{settings, under_load};

const SOME: usize = 100;

/// Segments of a thousand that are lost on a bad network.
const FIFTH: u32 = 200;

async fn partitions(test: &str, seed: u64, faults: impl AsyncFnOnce(&mut Group, &Meanwhile)) {
    under_load(test, Plan::new(settings()).with_network(seed), Duration::ZERO, faults).await;
}

/// Another member leads and takes messages; then the network is as before.
async fn assert_replaced(group: &Group, load: &Meanwhile, leader: usize, kind: &str) {
    group.until_other_leader(leader).await;
    load.until_more(SOME).await;
    let network = group.network();
    let lost = group.followers(leader).map(|one| network.counts(one, leader).lost + network.counts(leader, one).lost);
    load.fault(kind, lost.iter().sum::<u64>() > 0);
    network.heal();
    load.until_more(SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_its_followers_is_replaced() {
    partitions("a_leader_without_its_followers", 1, async |group, load| {
        for _ in 0..2 {
            let leader = group.until_leader().await;
            group.network().part(&[leader]);
            assert_replaced(group, load, leader, "a leader cut off from its followers").await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_only_heard_or_only_hears_is_replaced() {
    partitions("a_leader_that_is_only_heard", 2, async |group, load| {
        let leader = group.until_leader().await;
        for follower in group.followers(leader) {
            group.network().cut(leader, follower);
        }
        assert_replaced(group, load, leader, "a leader that nobody hears").await;

        let leader = group.until_leader().await;
        for follower in group.followers(leader) {
            group.network().cut(follower, leader);
        }
        assert_replaced(group, load, leader, "a leader that hears nobody").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_its_clients_goes_on_through_its_followers() {
    under_load(
        "a_leader_without_its_clients",
        Plan::new(settings()).with_doors(),
        Duration::ZERO,
        async |group, load| {
            let leader = group.until_leader().await;
            group.door(leader).shut();
            load.until_more(10 * SOME).await;
            assert_eq!(group.leader().await, Some(leader), "its followers hear it");
            load.fault("a leader cut off from its clients", group.door(leader).waited() > 0);
            group.door(leader).open();
            load.until_more(SOME).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_loses_a_fifth_costs_time_alone() {
    partitions("a_network_that_loses_a_fifth", 3, async |group, load| {
        let pairs =
            || (0..MEMBERS).flat_map(|from| (0..MEMBERS).map(move |to| (from, to))).filter(|(from, to)| from != to);
        for (from, to) in pairs() {
            group.network().lose_segments(from, to, FIFTH);
        }
        load.until_more(2 * SOME).await;
        let late: u64 = pairs().map(|(from, to)| group.network().counts(from, to).delayed).sum();
        load.fault("a network that loses a fifth", late > 100);
        group.network().heal();
    })
    .await;
}
