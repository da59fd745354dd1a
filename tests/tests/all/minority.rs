//! The last live member of a group of three. It answers each request in time and says why it carries nothing out, its clients stay
//! known, and it asks nobody about a half. When a majority is back, the group goes on with all of that.

use std::collections::BTreeSet;
use std::time::Duration;

use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{HeartbeatData, ProducerData, TopicRouteData, json};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::wire::{end_request, pull_request, send_request};
use escrowmq_tests::{End, Half, Settings, Wire, since, until};
use futures_util::future::{join, join_all, join3};
use parking_lot::Mutex;

const TOPIC: &str = "Minority";
const NAME: &str = "broker-minority";
const PRODUCERS: &str = "minority-producer";
const CLIENT: &str = "minority-client";
const READERS: &str = "minority-reader";
/// Each answer comes within this time.
const ANSWERED: Duration = Duration::from_secs(3);
/// Longest time of an answer that any member gives by itself. It is well below that of answers that wait for a leader.
const AT_ONCE: Duration = Duration::from_secs(1);
/// When the first check of a half is due, and between two checks.
const DUE: Duration = Duration::from_secs(3);
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// Connections that send all the time while the majority dies.
const LANES: usize = 4;
/// How long a pull may be held.
const HOLD: Duration = Duration::from_secs(15);

/// The answer to a request.
#[derive(Debug)]
struct Told {
    what: &'static str,
    code: i32,
    remark: String,
    took: Duration,
}

impl Told {
    async fn by(what: &'static str, wire: &Wire, frame: Frame) -> Told {
        let began = clock::monotonic();
        let answer = wire.call(frame).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let remark = answer.remark.unwrap_or_default();
        Told { what, code: answer.code, remark, took: since(began) }
    }

    /// It is one of these refusals, says why, and was in time.
    fn assert_refused(&self, codes: &[i32]) {
        let is_good = codes.contains(&self.code) && !self.remark.is_empty() && self.took < ANSWERED;
        assert!(is_good, "{}: {self:?}", self.what);
    }
}

fn heartbeat() -> Frame {
    let data = HeartbeatData {
        client_id: CLIENT.to_owned(),
        producer_data_set: vec![ProducerData { group_name: PRODUCERS.to_owned() }],
        ..HeartbeatData::default()
    };
    Frame::request(request::HEART_BEAT).with_body(json::to_bytes(&data, json::Form::Strict))
}

fn send(body: String) -> Frame {
    send_request("minority-sender", TOPIC, 0, body, &[])
}

fn max_offset() -> Frame {
    Frame::request(request::GET_MAX_OFFSET).with_field("topic", TOPIC).with_field("queueId", 0)
}

/// A pull of the queue in which nothing ever comes.
fn held_pull() -> Frame {
    let mut header = PullMessageHeader::new(READERS, TOPIC, 1, 0, 1);
    header.sys_flag |= PullMessageHeader::MAY_HOLD;
    header.suspend_timeout_millis = HOLD.as_millis().try_into().expect("seconds");
    Frame::request(request::PULL_MESSAGE).with_header(&header)
}

/// The addresses of the group, as a nameserver knows them.
async fn route(names: &Wire) -> Option<BTreeSet<String>> {
    let ask = Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", TOPIC);
    let route: TopicRouteData = from_slice(&names.call(ask).await.ok()?.body).ok()?;
    let group = route.broker_datas.into_iter().find(|broker| broker.broker_name == NAME)?;
    Some(group.broker_addrs.into_values().collect())
}

/// Sends one message after the other until one is refused: that answer.
async fn lane(wire: Wire, lane: usize, acknowledged: &Mutex<BTreeSet<String>>) -> Told {
    let mut number = 0;
    loop {
        let body = format!("{lane} {number}");
        let told = Told::by("a send on its way", &wire, send(body.clone())).await;
        if told.code != response::SUCCESS {
            return told;
        }
        acknowledged.lock().insert(body);
        number += 1;
    }
}

/// Kills all but one member while clients of that one send, decide and pull. Says what the writes on their way were told.
async fn fall(group: &mut Group, last: usize, decided: &Half, acknowledged: &Mutex<BTreeSet<String>>) -> Vec<Told> {
    let lanes: Vec<Wire> = (0..LANES).map(|_| group.wire(last)).collect();
    let (pulling, deciding) = (group.wire(last), group.wire(last));
    let lanes = join_all(lanes.into_iter().enumerate().map(|(number, wire)| lane(wire, number, acknowledged)));
    let pull = async {
        let told = Told::by("a held pull", &pulling, held_pull()).await;
        (told, clock::monotonic())
    };
    let kill = async {
        until("load", async || (acknowledged.lock().len() > 10 * LANES).then_some(())).await;
        until("a held pull", async || {
            let pages = [group.page(0).await?, group.page(1).await?, group.page(2).await?];
            pages.iter().any(|page| page.value("held_pulls") == Some(1)).then_some(())
        })
        .await;
        // The leader at last: what its members have, it has from it.
        let leader = group.leader().await;
        let mut others = group.followers(last);
        others.sort_by_key(|member| Some(*member) == leader);
        for member in others {
            group.kill(member);
        }
        let killed = clock::monotonic();
        let decision = end_request(decided, End::Commit, false);
        (killed, Told::by("a decision on its way", &deciding, decision).await)
    };
    let (mut told, (pull, pulled), (killed, decision)) = join3(lanes, pull, kill).await;
    assert!(pull.code != response::SUCCESS && pulled < killed + ANSWERED, "{pull:?}");
    told.push(decision);
    told
}

/// Asks for everything at once, and looks at the answers.
async fn ask_all(wire: &Wire, names: &Wire, address: &str, decided: &Half) {
    let refused = [
        ("a send", send("without a majority".to_owned())),
        ("a decision", end_request(decided, End::Commit, false)),
        ("a pull", pull_request(READERS, TOPIC, 0, 0, 1)),
        ("a pull that may be held", held_pull()),
        ("the end of a queue", max_offset()),
    ];
    let refused = join_all(refused.into_iter().map(|(what, frame)| Told::by(what, wire, frame)));
    let others = async {
        let told = Told::by("a heartbeat", wire, heartbeat()).await;
        assert!(told.code == response::SUCCESS && told.took < AT_ONCE, "{told:?}");
        let known = route(names).await.expect("the nameserver knows the group");
        assert!(known.contains(address), "{address} is not among {known:?}");
    };
    let (refused, ()) = join(refused, others).await;
    for told in refused {
        told.assert_refused(&[response::SERVICE_NOT_AVAILABLE]);
    }
}

/// Goes through all of it; how many writes on their way were of unknown outcome.
async fn a_last_member(group: &mut Group, last: usize) -> usize {
    let (wire, address) = (group.wire(last), group.address(last));
    let names = Wire::to(group.nameservers()[0].address());
    wire.ask(heartbeat()).await;
    // The first pull of a group makes it.
    wire.pull(READERS, TOPIC, 0, 0, 1).await;
    until("the route", async || route(&names).await.filter(|known| known.contains(&address))).await;
    let id = format!("open-{last}");
    let decided = wire.half(PRODUCERS, TOPIC, &format!("decided-{last}"), "decided").await;
    let open = wire.half(PRODUCERS, TOPIC, &id, &id).await;
    let stored = clock::monotonic();
    let acknowledged = Mutex::new(BTreeSet::new());

    let told = fall(group, last, &decided, &acknowledged).await;
    for one in &told {
        one.assert_refused(&[response::SYSTEM_ERROR, response::SERVICE_NOT_AVAILABLE]);
    }
    let unknown = told.iter().filter(|one| one.code == response::SYSTEM_ERROR);
    let count = unknown.inspect(|one| assert!(one.remark.contains("unknown"), "{one:?}")).count();

    let asked = |wire: &Wire| wire.checks().iter().filter(|check| check.transaction_id == id).count();
    let before = asked(&wire);
    let mut rounds = 0;
    while rounds == 0 || since(stored) < DUE + 2 * CHECK_AGAIN {
        ask_all(&wire, &names, &address, &decided).await;
        rounds += 1;
    }
    assert_eq!(asked(&wire), before, "a member that does not lead has asked about a half");

    let [back, _] = group.followers(last);
    group.start_again(back).await;
    until("a check", async || (asked(&wire) > before).then_some(())).await;
    let answer = wire.call(end_request(&open, End::Commit, true)).await.expect("answered");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let found = wire.read_queue(TOPIC, 0).await;
    let found: BTreeSet<_> = found.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect();
    let acknowledged = acknowledged.into_inner();
    assert!(acknowledged.is_subset(&found), "lost: {:?}", acknowledged.difference(&found));
    assert!(found.contains(&id), "the half that was asked about is committed");
    println!(
        "{count} of {} writes on their way were of unknown outcome; {rounds} rounds without a majority",
        told.len()
    );
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_without_a_majority_says_so_in_time_and_asks_nobody() {
    let mut group = group().await;
    let leader = group.until_leader().await;
    let unknown = a_last_member(&mut group, leader).await;
    assert!(unknown > 0, "it had proposed what its clients had sent at the moment of the kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_a_majority_says_so_in_time_and_asks_nobody() {
    let mut group = group().await;
    let [follower, _] = group.followers(group.until_leader().await);
    a_last_member(&mut group, follower).await;
}

async fn group() -> Group {
    let settings = Settings::default()
        .with("brokerName", NAME)
        .with("transactionTimeOut", DUE.as_millis())
        .with("transactionCheckInterval", CHECK_AGAIN.as_millis());
    let group = Group::start(Plan::new(settings)).await;
    let leader = group.until_leader().await;
    group.wire(leader).create_topic(TOPIC, 2).await;
    group.until_equal().await;
    group
}
