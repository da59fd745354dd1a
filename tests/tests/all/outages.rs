//! A group of three under load, while members are killed, stand still, lose what they have on disk or get no room there. Nothing
//! acknowledged is lost, nothing else appears, no message is there twice, every half is settled, order is kept, and no offset goes
//! back. While leaders are killed no send and no transaction ends with an error.
//!
//! `ESCROWMQ_FAILOVER_SECONDS` kills the leader every 20 s for so long, instead of three times. `ESCROWMQ_PAUSE_SECONDS` is how
//! long a leader stands still, if that is longer than another one needs to lead.

use std::fs;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::history::Level;
use escrowmq_tests::load::{Load, Meanwhile, Rate, Report};
use escrowmq_tests::small_disk::SmallDisk;
use escrowmq_tests::{Settings, since, until, until_within};

/// Acknowledgements after which a state has lasted.
const SOME: usize = 100;

/// For a send with all its attempts: several failovers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic that is not part of the load.
const ASIDE: &str = "Aside";

/// Between two kills of a leader in a long run, and what a lane waits there between two messages.
const KILL_EVERY: Duration = Duration::from_secs(20);
const LONG_RUN_PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn settings() -> Settings {
    Settings::default().with("transactionCheckMax", 1000).with("mappedFileSizeCommitLog", 1 << 20)
}

/// Starts a group and does something to it under load, after which all members must be there again, with the same on their disks.
pub(crate) async fn under_load(
    test: &str,
    plan: Plan,
    pause: Duration,
    faults: impl AsyncFnOnce(&mut Group, &Meanwhile),
) -> Report {
    let mut group = Group::start(plan).await;
    let leader = group.until_leader().await;
    group.wire(leader).create_topic(ASIDE, 1).await;
    let rate = Rate { pause, deadline: Some(PATIENCE), ..Rate::full(Level::Flushed) };
    let load = Load::start(|| group.client_builder(), vec![group.target()], rate).await;
    let report = load
        .run(async |load| {
            load.until_more(SOME).await;
            faults(&mut group, &load).await;
            load.until_more(SOME).await;
        })
        .await;
    report.assert_good(test, &format!("cargo test --release -p escrowmq-tests --test all {test}"));
    assert_eq!(report.duplicates, 0, "{test}: a message that was sent again is there twice");
    let applied = group.until_equal().await;
    group.assert_stored_alike(applied).await;
    report
}

fn seconds(name: &str) -> Option<Duration> {
    std::env::var(name).ok().map(|value| Duration::from_secs(value.parse().expect("a number of seconds")))
}

/// Waits until a member answers a send with a refusal, or says that nobody knows.
async fn until_refused(group: &Group, member: usize) {
    let wire = group.wire(member);
    until_within(Duration::from_secs(60), "a refusal", async || {
        let answer = wire.send(ASIDE, 0, vec![0; 100_000], &[]).await.ok()?;
        (answer.code != response::SUCCESS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_members_cost_nothing_acknowledged() {
    under_load("killed_members", Plan::new(settings()), Duration::ZERO, async |group, load| {
        let leader = group.until_leader().await;
        let [one, other] = group.followers(leader);
        group.kill(one);
        load.until_more(SOME).await;
        load.fault("kill -9 of a follower", group.process(one).ended().is_some());
        group.start_again(one).await;
        load.until_more(SOME).await;

        // Two of three: nothing is acknowledged until one of them is back.
        let leader = group.until_leader().await;
        let [dead, alone] = if leader == other { group.followers(leader) } else { [one, other] };
        group.kill(leader);
        group.kill(dead);
        until_refused(group, alone).await;
        let before = load.acknowledged();
        until_refused(group, alone).await;
        load.fault("kill -9 of two of three", load.acknowledged() == before);
        group.start_again(leader).await;
        load.until_more(SOME).await;
        group.start_again(dead).await;
        load.until_more(SOME).await;

        for member in 0..3 {
            group.kill(member);
        }
        load.fault("kill -9 of all", group.leader().await.is_none());
        for member in 0..3 {
            group.spawn_again(member);
        }
        for member in 0..3 {
            group.until_serving(member).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_are_killed_again_and_again() {
    let long = seconds("ESCROWMQ_FAILOVER_SECONDS");
    let pause = long.map_or(Duration::ZERO, |_| LONG_RUN_PAUSE);
    let report = under_load("leaders_that_are_killed", Plan::new(settings()), pause, async |group, load| {
        let started = clock::monotonic();
        let mut every = tokio::time::interval(KILL_EVERY);
        for kill in 0.. {
            match long {
                Some(long) if since(started) >= long => break,
                Some(_) => {
                    every.tick().await;
                }
                None if kill == 3 => break,
                None => {}
            }
            let leader = group.until_leader().await;
            group.kill(leader);
            group.until_other_leader(leader).await;
            load.until_more(SOME).await;
            load.fault("kill -9 of the leader", true);
            group.start_again(leader).await;
            load.until_more(SOME).await;
        }
    })
    .await;
    assert_eq!(report.failed, [0, 0], "the client hides failovers from its application");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stands_still_is_replaced_and_follows() {
    let at_least = seconds("ESCROWMQ_PAUSE_SECONDS").unwrap_or_default();
    under_load("a_leader_that_stands_still", Plan::new(settings()), Duration::ZERO, async |group, load| {
        for _ in 0..2 {
            let leader = group.until_leader().await;
            let began = clock::monotonic();
            group.pause(leader);
            group.until_other_leader(leader).await;
            load.until_more(SOME).await;
            tokio::time::sleep(at_least.saturating_sub(since(began))).await;
            group.resume(leader);
            let follows = async || {
                let standings = group.standings().await;
                let newest = standings.iter().flatten().map(|one| one.term).max()?;
                standings[leader].is_some_and(|one| one.term == newest).then_some(())
            };
            until("the term of others", follows).await;
            load.fault("SIGSTOP of the leader", true);
        }
    })
    .await;
}

/// A member whose folder is empty is there again when the group has taken it up as a voter: then another one may die.
async fn until_it_votes_again(group: &mut Group, load: &Meanwhile, member: usize) {
    // In the log of whoever leads.
    let changes = |group: &mut Group| -> usize {
        (0..3).map(|member| group.process(member).log().matches("changing the voters of the group").count()).sum()
    };
    let before = changes(group);
    group.wipe(member);
    group.start_again(member).await;
    until_within(Duration::from_secs(60), "a change of voters", async || (changes(group) > before).then_some(())).await;
    // Entries behind the change are acknowledged, so it is done.
    load.until_more(SOME).await;
    let leader = group.until_leader().await;
    let [one, other] = group.followers(leader);
    let third = if one == member { other } else { one };
    group.kill(third);
    load.until_more(SOME).await;
    group.start_again(third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wiped_and_damaged_members_come_back() {
    under_load("wiped_and_damaged_members", Plan::new(settings()), Duration::ZERO, async |group, load| {
        let leader = group.until_leader().await;
        let [wiped, damaged] = group.followers(leader);
        group.kill(wiped);
        load.until_more(SOME).await;
        until_it_votes_again(group, load, wiped).await;
        load.fault("an empty folder", true);

        group.kill(damaged);
        let (file, _) = group.flip_a_bit(damaged, 500);
        // Without its index a member reads all of its log.
        fs::remove_dir_all(group.data_folder(damaged).join("index")).expect("it is there");
        group.spawn_again(damaged);
        let status = group.process(damaged).wait(Duration::from_secs(20)).await;
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let log = group.process(damaged).log();
        let is_told = log.lines().any(|line| line.contains("ERROR") && line.contains(&name));
        load.fault("a flipped bit", !status.success() && is_told);
        until_it_votes_again(group, load, damaged).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_on_a_full_disk_costs_itself_alone() {
    let mut plan = Plan::new(
        settings()
            .with("diskMaxUsedSpaceRatio", 100)
            .with("diskSpaceCleanForciblyRatio", 100)
            .with("diskSpaceWarningLevelRatio", 100),
    );
    for member in 0..3 {
        let Some(disk) = SmallDisk::mount("a_follower_on_a_full_disk_costs_itself_alone") else { return };
        plan = plan.with_disk(member, disk);
    }
    under_load("a_follower_on_a_full_disk", plan, Duration::ZERO, async |group, load| {
        let leader = group.until_leader().await;
        let [full, other] = group.followers(leader);
        group.disk(full).fill(usize::MAX);
        // It goes on until its last segment is full.
        let wire = group.wire(leader);
        let is_told = async || {
            assert_eq!(wire.send(ASIDE, 0, vec![0; 100_000], &[]).await.ok()?.code, response::SUCCESS);
            group.process(full).log().contains("disk full").then_some(())
        };
        until_within(Duration::from_secs(60), "a word of the full member", is_told).await;
        load.until_more(SOME).await;
        load.fault("a full disk of a follower", true);

        // Two of three have no room: nothing can be acknowledged, and what a majority lacks is no loss.
        group.disk(other).fill(usize::MAX);
        until_refused(group, leader).await;
        load.fault("full disks of a majority", true);
        group.disk(full).empty();
        load.until_more(SOME).await;
        group.disk(other).empty();
    })
    .await;
}
