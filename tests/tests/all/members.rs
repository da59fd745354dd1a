//! What operators do to a group of brokers, by the commands, with real processes: a broker becomes the first of three under load and
//! is alone again, one of three goes on when the others are lost for good, and a backup of a follower becomes a new group.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::task::Tasks;
use escrowmq_tests::group::{Group, MEMBERS, Plan, Role};
use escrowmq_tests::processes::binary;
use escrowmq_tests::{End, Settings, Wire, until};
use parking_lot::Mutex;
use serde_json::Value;

const TOPIC: &str = "Members";
const QUEUES: i32 = 4;
/// The longest time without an acknowledgement for a change of the group. It is some 50 ms on two busy cores.
const GAP_MAX: Duration = Duration::from_secs(1);
/// A machine that stands still for once may cost an election. Changes that stop writes would do so six times.
const ELECTION_MAX: Duration = Duration::from_secs(3);
/// The longest hand-over. It is some 50 ms on two busy cores; of two the quicker one counts, as the machine may stand still.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Runs a command, and reads the JSON that it prints; the error is what it says on stderr.
fn escrowmq(arguments: &[&str]) -> Result<Value, String> {
    tokio::task::block_in_place(|| {
        let output = Command::new(binary("escrowmq")).args(arguments).arg("--json").output().expect("the command runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(errors);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{arguments:?}: {error}: {errors}"))
    })
}

/// `escrowmq group ...` at a member.
fn group_command(group: &Group, member: usize, arguments: &[&str]) -> Result<Value, String> {
    escrowmq(&[&["group", "--broker", &group.address(member)], arguments].concat())
}

fn status(group: &Group, member: usize) -> Value {
    group_command(group, member, &["status"]).expect("any member shows the group")
}

/// How long a hand-over took, as the command says it.
fn took(over: &Value) -> Duration {
    let told = over["done"].as_str().and_then(|done| done.split("it took ").nth(1)?.strip_suffix(" ms"));
    Duration::from_millis(told.and_then(|number| number.parse().ok()).expect("a number of milliseconds"))
}

/// Waits until a member sees so many voters that all answer and lack nothing much.
async fn until_voters(group: &Group, member: usize, count: usize) -> Value {
    until("voters", async || {
        let status = status(group, member);
        let members = status["members"].as_array().expect("a list").clone();
        let votes =
            |one: &&Value| one["role"] != "learner" && one["reachable"] == true && one["lag"].as_i64() < Some(1000);
        let is_settled = status["changing"] == false && members.len() == count;
        (is_settled && members.iter().filter(votes).count() == count).then_some(status)
    })
    .await
}

/// A client at one member that sends without a pause, one message after the other in each queue.
struct Load {
    goes_on: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(i32, u64, Duration)>>>,
    refused: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl Load {
    fn start(address: &str) -> Load {
        let load = Load {
            goes_on: Arc::new(AtomicBool::new(true)),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            tasks: Tasks::new(),
        };
        for queue in 0..QUEUES {
            let wire = Wire::to(address.to_owned());
            let (goes_on, acknowledged, refused) =
                (Arc::clone(&load.goes_on), Arc::clone(&load.acknowledged), Arc::clone(&load.refused));
            load.tasks.spawn("load", async move {
                let mut number = 0_u64;
                while goes_on.load(Ordering::Acquire) {
                    match wire.send(TOPIC, queue, number.to_string(), &[]).await {
                        Ok(answer) if answer.code == response::SUCCESS => {
                            acknowledged.lock().push((queue, number, clock::monotonic()));
                        }
                        Ok(answer) => refused.lock().push(format!("{} {:?}", answer.code, answer.remark)),
                        Err(error) => refused.lock().push(error.to_string()),
                    }
                    number += 1;
                }
            });
        }
        load
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// Ends it: the two longest times without an acknowledgement, the longest first, and all of them by queue and number.
    async fn end(self) -> (Vec<Duration>, Vec<(i32, u64)>) {
        self.goes_on.store(false, Ordering::Release);
        self.tasks.join().await;
        let refused = self.refused.lock().clone();
        assert!(refused.is_empty(), "{} sends were refused: {:?}", refused.len(), refused.first());
        let mut acknowledged = self.acknowledged.lock().clone();
        acknowledged.sort_by_key(|(_, _, at)| *at);
        let mut gaps: Vec<Duration> = acknowledged.windows(2).map(|two| two[1].2.saturating_sub(two[0].2)).collect();
        gaps.sort_unstable_by(|one, other| other.cmp(one));
        gaps.truncate(2);
        (gaps, acknowledged.into_iter().map(|(queue, number, _)| (queue, number)).collect())
    }
}

/// What was acknowledged is there, as a member shows it that leads.
async fn assert_there(wire: &Wire, acknowledged: &[(i32, u64)]) {
    for queue in 0..QUEUES {
        let found: Vec<u64> = wire.read_queue(TOPIC, queue).await.iter().map(number).collect();
        let expected: Vec<u64> =
            acknowledged.iter().filter(|(of, _)| *of == queue).map(|(_, number)| *number).collect();
        assert_eq!(found, expected, "queue {queue}");
    }
}

fn number(message: &escrowmq_common::message::Message) -> u64 {
    std::str::from_utf8(&message.body).expect("text").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_becomes_three_and_one_again_under_load() {
    let settings = Settings::default().with("brokerName", "broker-members");
    let mut group = Group::start_around_one(Plan::new(settings)).await;
    assert_eq!(group.until_leader().await, 0);
    group.wire(0).create_topic(TOPIC, QUEUES).await;
    let load = Load::start(&group.address(0));
    until("some load", async || (load.count() > 200).then_some(())).await;

    // The others of dLegerPeers join by themselves.
    group.resume(1);
    group.resume(2);
    until_voters(&group, 0, 3).await;
    let after_three = load.count();
    until("load on three", async || (load.count() > after_three + 200).then_some(())).await;

    // And go by commands. What was removed does not come back by itself.
    let refused = group_command(&group, 1, &["remove", "n0", "--yes"]).expect_err("the leader stays");
    assert!(refused.contains("group transfer"), "{refused}");
    for member in [2, 1] {
        group_command(&group, 0, &["remove", &format!("n{member}"), "--yes"]).expect("it is removed");
        group.kill(member);
        group.wipe(member);
    }
    until_voters(&group, 0, 1).await;
    group.spawn_again(1);
    let back = until("n1 can be added", async || group_command(&group, 0, &["add", &group.seat(1)]).ok()).await;
    assert!(back["done"].as_str().is_some_and(|done| done.contains("without a vote")), "{back}");
    until("n1 is promoted", async || group_command(&group, 0, &["promote", "n1"]).ok()).await;
    group.spawn_again(2);
    until("n2 can be added", async || group_command(&group, 0, &["add", &group.seat(2)]).ok()).await;
    until_voters(&group, 0, 3).await;
    let again_three = load.count();
    until("load on three", async || (load.count() > again_three + 200).then_some(())).await;
    let (gaps, acknowledged) = load.end().await;
    eprintln!(
        "{} acknowledgements while one became three, one and three again; longest gaps {gaps:?}",
        acknowledged.len()
    );
    assert!(gaps[0] < ELECTION_MAX && gaps[1] < GAP_MAX, "writes stopped for {gaps:?}");

    // The leadership goes to each member in turn, and the data with it.
    let mut quickest = Duration::MAX;
    for member in [1, 2] {
        let over = group_command(&group, 0, &["transfer", &format!("n{member}")]).expect("the leadership goes over");
        eprintln!("{}", over["done"]);
        quickest = quickest.min(took(&over));
        assert_eq!(group.until_other_leader(0).await, member);
    }
    assert!(quickest <= HAND_OVER_MAX, "{quickest:?}");
    assert_there(&group.wire(2), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_goes_on_when_two_are_lost_for_good() {
    let settings = Settings::default().with("brokerName", "broker-recover");
    let mut group = Group::start(Plan::new(settings)).await;
    let leader = group.until_leader().await;
    until_voters(&group, leader, 3).await;
    let wire = group.wire(leader);
    wire.create_topic(TOPIC, QUEUES).await;
    let load = Load::start(&group.address(leader));
    until("some load", async || (load.count() > 500).then_some(())).await;
    let open = wire.half("members-producer", TOPIC, "open", "100000").await;
    let (_, acknowledged) = load.end().await;
    // So that the member that stays has all of it: a majority has what was acknowledged, and this one may be outside of it.
    group.until_equal().await;
    let kept = (leader + 1) % MEMBERS;
    for member in 0..MEMBERS {
        group.kill(member);
    }

    let data = group.data_folder(kept);
    let seen = escrowmq(&["group", "recover", text(&data)]).expect("it is shown");
    assert!(seen["incarnation"].is_null() && seen["votes"] == true, "{seen}");
    let asked = escrowmq(&["group", "recover", text(&data), "--force"]).expect_err("nobody can be asked");
    assert!(asked.contains("--yes"), "{asked}");
    let done = escrowmq(&["group", "recover", text(&data), "--force", "--yes"]).expect("it is recovered");
    assert_ne!(done["incarnation"], done["oldIncarnation"]);
    group.start_again(kept).await;
    assert_eq!(group.until_leader().await, kept);
    let wire = group.wire(kept);
    assert_there(&wire, &acknowledged).await;
    wire.end(&open, End::Commit).await.expect("an open half is decided");

    // A member of before is not let in, and its voice counts nowhere.
    group.spawn_again(leader);
    until("the old member is refused", async || {
        let log = group.process(leader).log();
        log.contains("two different foundings").then_some(())
    })
    .await;
    assert_eq!(until_voters(&group, kept, 1).await["leader"], format!("n{kept}"));
    group.kill(leader);
    for member in (0..MEMBERS).filter(|member| *member != kept) {
        group.wipe(member);
        group.spawn_again(member);
    }
    until_voters(&group, kept, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_follower_becomes_a_new_group() {
    let settings = Settings::default().with("brokerName", "broker-restore");
    let mut group = Group::start(Plan::new(settings)).await;
    let leader = group.until_leader().await;
    until_voters(&group, leader, 3).await;
    group.wire(leader).create_topic(TOPIC, QUEUES).await;
    let load = Load::start(&group.address(leader));
    until("some load", async || (load.count() > 500).then_some(())).await;
    let (_, acknowledged) = load.end().await;
    group.until_equal().await;

    // A prepared backup outlives the leadership of its member.
    let prepared = group.wire(leader).ask(Frame::request(request::PREPARE_BACKUP)).await;
    let prepared: Value = serde_json::from_slice(&prepared.body).expect("a backup is prepared");
    group_command(&group, leader, &["transfer"]).expect("the leadership goes over");
    let follower = leader;
    assert_ne!(group.until_other_leader(leader).await, follower);
    for code in [request::RENEW_BACKUP, request::RELEASE_BACKUP] {
        group
            .wire(follower)
            .ask(Frame::request(code).with_field("backupId", prepared["id"].as_str().expect("an id")))
            .await;
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("backups");
    let made = escrowmq(&["backup", "--out", text(&out), "--broker", &group.address(follower)]).expect("a backup");
    assert!(made["lastTerm"].as_u64() > Some(0) && made["lastIndex"].as_u64() > Some(0), "{made}");
    for member in 0..MEMBERS {
        group.kill(member);
        group.wipe(member);
    }
    // At another seat than the backup's: it is nobody's identity.
    let first = (follower + 1) % MEMBERS;
    escrowmq(&["restore", "--from", text(&out), "--to", text(&group.data_folder(first))]).expect("a restore");
    group.start_again(first).await;
    assert_eq!(group.until_leader().await, first);
    assert_there(&group.wire(first), &acknowledged).await;
    for member in (0..MEMBERS).filter(|member| *member != first) {
        group.spawn_again(member);
    }
    until_voters(&group, first, 3).await;
    let standings = until("all follow", async || group.standings().await.into_iter().collect::<Option<Vec<_>>>()).await;
    assert_eq!(standings.iter().filter(|one| one.role == Role::Leader).count(), 1);
    group_command(&group, first, &["transfer"]).expect("another one leads");
    let other = group.until_other_leader(first).await;
    assert_there(&group.wire(other), &acknowledged).await;
}
