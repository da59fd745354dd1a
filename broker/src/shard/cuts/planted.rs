//! Each planted failure is found: the searches of this folder, and those of the log alone, run once more in processes of
//! their own with one failure planted, and must fail.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use escrowmq_common::clock;

use crate::planted::Bug;

/// How long a search goes on from seed to seed.
const SEARCH_SECONDS: u64 = 250;
/// A search that has not found anything by then has not found it.
const PATIENCE: Duration = Duration::from_secs(SEARCH_SECONDS + 60);

/// Groups of nodes under faults.
const GROUPS: &str = "shard::cluster::campaign::three_nodes_under_faults";
/// Failures of one node that also break the promises of its group: found there as well.
const OF_GROUPS_TOO: [Bug; 2] = [Bug::AckBeforeFlush, Bug::VoteUnsynced];

/// The test that is meant to find it: a part of its name.
fn finder(bug: Bug) -> &'static str {
    match bug {
        Bug::SuffixRevived => "log::tests::crash::acknowledged_records",
        Bug::FailedFlushIgnored => "shard::cuts::faults::a_disk_that_fails",
        Bug::ChecksumUnread => "shard::cuts::faults::a_flipped_bit",
        Bug::AckBeforeMajority
        | Bug::PositionOffByOne
        | Bug::AnsweredAfterTruncation
        | Bug::LoadLeaked
        | Bug::ReadWithoutLease
        | Bug::ClockTaken
        | Bug::LeasesLeap
        | Bug::OfficeWithoutLease
        | Bug::OffsetsKept
        | Bug::TwoCheckers
        | Bug::AppliedUncommitted
        | Bug::IdUsedAgain => GROUPS,
        Bug::VotesAtOnce => "raft::tests::guards::a_member_that_has_just_started",
        Bug::VoteLostInSnapshot => "snapshot::tests::a_copy_serves",
        Bug::ForwardingLoop => "forward::tests::what_arrives_is_not_passed_on",
        Bug::IndexAhead => "shard::cuts::campaign::power_cuts_with_asynchronous",
        _ => "shard::cuts::campaign::power_cuts_with_synchronous",
    }
}

/// Starts the search with the failure planted.
fn start(bug: Option<Bug>, test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args([test, "--test-threads=1", "--nocapture"]);
    command.env("ESCROWMQ_PLANT", bug.map(Bug::name).unwrap_or_default()).env("RUST_BACKTRACE", "0");
    command.env_remove("ESCROWMQ_CUT_SECONDS").env("ESCROWMQ_CUT_SEED", "1");
    if bug.is_some() {
        // Which seed finds it changes with every change of the workload.
        command.env("ESCROWMQ_CUT_SECONDS", SEARCH_SECONDS.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the search starts")
}

/// The finding of the search, or `None` if it was content.
#[expect(clippy::disallowed_methods, reason = "the end of a child cannot be awaited with a deadline")]
fn finding(mut child: Child) -> Option<String> {
    let mut told = String::new();
    let mut errors = child.stderr.take().expect("it is piped");
    let reading = std::thread::scope(|scope| {
        let reading = scope.spawn(|| errors.read_to_string(&mut told));
        let deadline = clock::monotonic() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break Some(status);
            }
            if clock::monotonic() > deadline {
                child.kill().expect("a child can be killed");
                child.wait().expect("a killed child ends");
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        reading.join().expect("reading does not panic").expect("it is text");
        status
    });
    let failed = reading.is_some_and(|status| !status.success());
    let is_reason = |line: &&str| {
        !line.is_empty() && !line.starts_with("thread") && !line.starts_with("note:") && !line.starts_with("\nthread")
    };
    failed.then(|| told.lines().find(is_reason).unwrap_or("it failed").chars().take(180).collect())
}

#[test]
fn each_planted_failure_is_found() {
    let mut missed = Vec::new();
    let searches: Vec<_> =
        Bug::ALL.map(|bug| (bug, finder(bug))).into_iter().chain(OF_GROUPS_TOO.map(|bug| (bug, GROUPS))).collect();
    // Two at a time: most of a search is one thread.
    for pair in searches.chunks(2) {
        let children: Vec<_> = pair.iter().map(|(bug, test)| (*bug, *test, start(Some(*bug), test))).collect();
        for (bug, test, child) in children {
            match finding(child) {
                Some(why) => println!("{bug:?} is found by {test}: {why}"),
                None => missed.push((bug, test)),
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    // The other half of the proof: the same way of looking, without a failure.
    assert_eq!(finding(start(None, finder(Bug::VoteUnsynced))), None);
}
