//! One copy: clients that send, pull, decide and look at the same time, while the broker is killed, or the leader of a group,
//! are told nothing that a single queue and a single decision per half could not have told them, in an order that fits their
//! times; the same while the leader stands still, or is cut off from the others. The clients of a group are connected to all of its
//! members.
//!
//! `ESCROWMQ_LINEAR_OPERATIONS` is the number of operations.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{EndTransactionResponse, SendMessageResponse, ViewMessageHeader};
use escrowmq_common::remoting::CallError;
use escrowmq_tests::dice::Dice;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::history::Ending;
use escrowmq_tests::linear::{
    Answer, Append, Client, Decision, Found, Operation, Recording, Sent, Verdict, judge_appends, judge_decisions,
};
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until_within};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;

const TOPIC: &str = "Linear";
const HALVES: &str = "LinearHalves";
const GROUP: &str = "linear-producer";
const QUEUES: usize = 4;
const CLIENTS: usize = 8;
/// Halves that are decided and looked at at the same time, and operations on one half before the next one takes its
/// place.
const OPEN_HALVES: usize = 4;
const PER_HALF: u64 = 12;
const OPERATIONS: u64 = 10_000;
const KILLS: u64 = 3;
/// Operations while the former leader stands still or is cut off.
const AT_THE_NEXT_LEADER: u64 = 500;
/// The whole run of [`OPERATIONS`]; each thousand more has a second more.
const RUN: Duration = Duration::from_secs(120);

/// A half that clients decide on, with its number and how many operations it has had.
struct Shared {
    number: u64,
    half: Half,
    operations: u64,
}

/// What all clients share.
struct Load {
    /// The broker, or the members of a group.
    addresses: Vec<String>,
    operations: u64,
    done: AtomicU64,
    /// For each queue an offset that it has reached.
    ends: [AtomicU64; QUEUES],
    halves: Mutex<Vec<Shared>>,
    next_half: AtomicU64,
    appends: Recording<Append>,
    decisions: Recording<Decision>,
}

/// One client: one thing after the other.
struct Worker<'a> {
    load: &'a Load,
    /// The member that it is connected to.
    member: usize,
    wire: Wire,
    dice: Dice,
    appends: Client<Append>,
    decisions: Client<Decision>,
}

/// Whether it is certain that a request came to nothing. The code 1 leaves that open (docs/protocol.md).
fn came_to_nothing(answer: &Result<Frame, CallError>) -> bool {
    match answer {
        Ok(answer) => answer.code != response::SYSTEM_ERROR,
        Err(error) => !error.outcome_unknown(),
    }
}

impl Worker<'_> {
    async fn run(mut self, number: u64) {
        for value in (number << 32).. {
            if self.load.done.fetch_add(1, Ordering::Relaxed) >= self.load.operations {
                return;
            }
            let is_answered = match self.dice.below(4) {
                0 => self.send(value).await,
                1 => self.pull().await,
                2 => self.decide().await,
                _ => self.look().await,
            };
            if !is_answered {
                self.member = (self.member + 1) % self.load.addresses.len();
                self.wire = Wire::to(self.load.addresses[self.member].clone());
                // A broker that is down would be asked thousands of times.
                let probe = async || self.wire.try_pull(GROUP, TOPIC, 0, 0, 1).await.ok();
                until_within(RUN, "an answer after a kill", probe).await;
            }
        }
    }

    async fn send(&mut self, value: u64) -> bool {
        let queue = self.dice.below(QUEUES) as u32;
        let send = |outcome| Append::Send { queue, value, outcome };
        let ticket = self.appends.begin(send(Sent::Unknown));
        let answer = self.wire.send(TOPIC, queue.cast_signed(), value.to_string(), &[]).await;
        let outcome = match &answer {
            Ok(sent) if sent.code == response::SUCCESS => {
                let header: SendMessageResponse<'_> = sent.header().expect("the answer to a send is well-formed");
                let offset = header.queue_offset.cast_unsigned();
                self.load.ends[queue as usize].fetch_max(offset + 1, Ordering::Relaxed);
                Sent::Stored(offset)
            }
            answered if came_to_nothing(answered) => Sent::Refused,
            _ => Sent::Unknown,
        };
        self.appends.end(ticket, send(outcome));
        answer.is_ok()
    }

    async fn pull(&mut self) -> bool {
        let queue = self.dice.below(QUEUES);
        // Around the end, where what others do at the same time can be seen or not.
        let end = self.load.ends[queue].load(Ordering::Relaxed);
        let offset = (end + 2).saturating_sub(self.dice.below(5) as u64);
        let called = self.appends.now();
        let pulled = self.wire.try_pull(GROUP, TOPIC, queue as i32, offset.cast_signed(), 4).await;
        let Ok(pulled) = pulled else { return false };
        let queue = queue as u32;
        match pulled.code {
            response::SUCCESS => {
                for message in pulled.messages {
                    let value = String::from_utf8_lossy(&message.body).parse().expect("bodies are numbers");
                    let offset = message.queue_offset.cast_unsigned();
                    self.appends.note(called, Append::Pull { queue, offset, found: Found::Value(value) });
                }
            }
            response::PULL_NOT_FOUND | response::PULL_OFFSET_MOVED => {
                let end = if pulled.code == response::PULL_NOT_FOUND { offset } else { pulled.next.cast_unsigned() };
                self.appends.note(called, Append::Pull { queue, offset, found: Found::Nothing { end } });
            }
            // There is no leader, or the way to it broke: that says nothing of the queue.
            response::SERVICE_NOT_AVAILABLE | response::PULL_RETRY_IMMEDIATELY if self.load.addresses.len() > 1 => {}
            code => panic!("pull at {offset}: {code} {}", pulled.remark),
        }
        true
    }

    /// One of the halves that all work on; now and then another one takes its place.
    async fn half(&mut self) -> Option<(u64, Half)> {
        let place = self.dice.below(OPEN_HALVES);
        {
            let mut halves = self.load.halves.lock();
            if let Some(shared) = halves.get_mut(place)
                && shared.operations < PER_HALF
            {
                shared.operations += 1;
                return Some((shared.number, shared.half.clone()));
            }
        }
        let number = self.load.next_half.fetch_add(1, Ordering::Relaxed);
        let half = self.wire.try_half(GROUP, HALVES, &format!("linear-{number}"), "half").await.ok().flatten()?;
        let mut halves = self.load.halves.lock();
        let shared = Shared { number, half: half.clone(), operations: 1 };
        match halves.get_mut(place) {
            Some(old) => *old = shared,
            None => halves.push(shared),
        }
        Some((number, half))
    }

    async fn decide(&mut self) -> bool {
        let Some((number, half)) = self.half().await else { return false };
        let (ending, end) =
            if self.dice.one_in(2) { (Ending::Commit, End::Commit) } else { (Ending::Rollback, End::Rollback) };
        let decide = |answer| Decision::Decide { half: number, ending, answer };
        let ticket = self.decisions.begin(decide(Answer::Unknown));
        let answer = self.wire.end(&half, end).await;
        let outcome = match &answer {
            Ok(answer) if answer.code == response::SUCCESS => {
                let header: EndTransactionResponse<'_> = answer.header().expect("well-formed");
                if header.repeated { Answer::Already } else { Answer::First }
            }
            Ok(answer) if answer.code == response::ILLEGAL_OPERATION => Answer::Conflict,
            answered if came_to_nothing(answered) => Answer::Refused,
            _ => Answer::Unknown,
        };
        self.decisions.end(ticket, decide(outcome));
        answer.is_ok()
    }

    async fn look(&mut self) -> bool {
        let Some((number, half)) = self.half().await else { return false };
        let called = self.decisions.now();
        let header = ViewMessageHeader { offset: half.position, topic: Some(HALVES) };
        let answer = self.wire.call(Frame::request(request::VIEW_MESSAGE_BY_ID).with_header(&header)).await;
        let Ok(answer) = answer else { return false };
        let is_told = answer.code != response::SERVICE_NOT_AVAILABLE
            && !answer.remark.as_deref().is_some_and(|remark| remark.contains("outcome is unknown"));
        if is_told {
            self.decisions.note(called, Decision::See { half: number, is_visible: answer.code == response::SUCCESS });
        }
        true
    }
}

fn assert_good<W: Serialize>(name: &str, history: &[Operation<W>], verdict: &Verdict) {
    println!("{name}: {} operations, {} unknown, {} steps", verdict.operations, verdict.unknown, verdict.steps);
    if !verdict.is_good() {
        let path = std::env::temp_dir().join(format!("escrowmq-linear-{name}-{}.json", std::process::id()));
        let kept = serde_json::to_string(history).map_err(io::Error::from).and_then(|text| std::fs::write(&path, text));
        panic!("{verdict}the history is in {} ({kept:?})", path.display());
    }
}

impl Load {
    fn new(addresses: Vec<String>) -> Load {
        let asked = std::env::var("ESCROWMQ_LINEAR_OPERATIONS");
        let operations = asked.map_or(OPERATIONS, |number| number.parse().expect("a number"));
        Load {
            addresses,
            operations,
            done: AtomicU64::new(0),
            ends: Default::default(),
            halves: Mutex::default(),
            next_half: AtomicU64::new(0),
            appends: Recording::default(),
            decisions: Recording::default(),
        }
    }

    /// Does all operations while something is done to the broker, or the members.
    async fn run(&self, faults: impl Future<Output = ()>) {
        let within = RUN + Duration::from_secs(self.operations.saturating_sub(OPERATIONS) / 1_000);
        let both = async { tokio::join!(self.work(), faults) };
        tokio::time::timeout(within, both).await.expect("the run comes to its end");
    }

    async fn work(&self) {
        join_all((0..CLIENTS as u64).map(|number| {
            let (appends, decisions) = (self.appends.client(), self.decisions.client());
            let member = number as usize % self.addresses.len();
            let wire = Wire::to(self.addresses[member].clone());
            Worker { load: self, member, wire, dice: Dice::of_step(1, number), appends, decisions }.run(number)
        }))
        .await;
    }

    async fn until_part(&self, kill: u64) {
        self.until_done(self.operations * kill / (KILLS + 1)).await;
    }

    /// Waits for so many more operations, or for the last one.
    async fn until_more(&self, count: u64) {
        self.until_done((self.done.load(Ordering::Relaxed) + count).min(self.operations)).await;
    }

    async fn until_done(&self, due: u64) {
        let is_due = async || (self.done.load(Ordering::Relaxed) >= due).then_some(());
        until_within(RUN, "progress", is_due).await;
    }

    fn judge(&self) {
        let (appends, decisions) = (self.appends.take(), self.decisions.take());
        let (told, decided) = (judge_appends(&appends), judge_decisions(&decisions));
        assert_good("appends", &appends, &told);
        assert_good("decisions", &decisions, &decided);
        // Else the run says nothing.
        let all = (told.operations + decided.operations) as u64;
        assert!(all >= self.operations / 2 && told.unknown + decided.unknown >= 1, "{told}{decided}");
        let conflicts =
            decisions.iter().filter(|one| matches!(one.what, Decision::Decide { answer: Answer::Conflict, .. }));
        assert!(conflicts.count() as u64 >= self.operations / 100);
    }
}

async fn make_topics(wire: &Wire) {
    wire.create_topic(TOPIC, QUEUES as i32).await;
    wire.create_topic(HALVES, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_one_copy_over_kills() {
    let mut broker = Broker::start(settings()).await;
    make_topics(&broker.wire()).await;
    let load = Load::new(vec![broker.address()]);
    let killing = async {
        for kill in 1..=KILLS {
            load.until_part(kill).await;
            broker.crash().await;
        }
    };
    load.run(killing).await;
    load.judge();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_one_copy_over_failovers() {
    over_faults(Plan::new(settings()), async |group, leader, _| {
        group.kill(leader);
        group.until_other_leader(leader).await;
        group.start_again(leader).await;
    })
    .await;
}

/// What its clients asked a leader while it stood still it finds when it goes on, and takes itself for the leader still.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_one_copy_over_pauses() {
    over_faults(Plan::new(settings()), async |group, leader, load| {
        group.pause(leader);
        group.until_other_leader(leader).await;
        load.until_more(AT_THE_NEXT_LEADER).await;
        group.resume(leader);
    })
    .await;
}

/// The clients of a leader that is cut off go on asking it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_one_copy_over_partitions() {
    let mut kill = 0;
    over_faults(Plan::new(settings()).with_network(1), async |group, leader, load| {
        kill += 1;
        match kill {
            1 => group.network().part(&[leader]),
            2 => group.followers(leader).into_iter().for_each(|other| group.network().cut(leader, other)),
            _ => group.followers(leader).into_iter().for_each(|other| group.network().cut(other, leader)),
        }
        group.until_other_leader(leader).await;
        load.until_more(AT_THE_NEXT_LEADER).await;
        group.network().heal();
    })
    .await;
}

fn settings() -> Settings {
    Settings::default().without_checks()
}

/// Runs the load while something is done to the leader [`KILLS`] times.
async fn over_faults(plan: Plan, mut fault: impl AsyncFnMut(&mut Group, usize, &Load)) {
    let mut group = Group::start(plan).await;
    let leader = group.until_leader().await;
    make_topics(&group.wire(leader)).await;
    let load = Load::new((0..3).map(|member| group.address(member)).collect());
    let faults = async {
        for part in 1..=KILLS {
            load.until_part(part).await;
            let leader = group.until_leader().await;
            fault(&mut group, leader, &load).await;
        }
    };
    load.run(faults).await;
    load.judge();
    group.until_equal().await;
}
