//! Measures for how long a group of three takes no writes when its leader goes: from that moment to the first acknowledged send
//! of the Rust client that began after it. Prints numbers; judges nothing. Run it by `tests/bench/failover`.

use std::time::Duration;

use escrowmq_client::{Message, Producer};
use escrowmq_common::clock;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::{Settings, since, until};

const TOPIC: &str = "Failover";
/// Sends between two failovers.
const BETWEEN: usize = 100;
/// For one send with all its attempts.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum End {
    /// `kill -9`.
    Kill,
    /// SIGTERM: the leader hands over before it stops.
    Terminate,
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().nth(1).map_or(50, |text| text.parse().expect("a number of rounds"));
    let mut group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    group.wire(leader).create_topic(TOPIC, 4).await;
    let client = group.client_builder().connect().await.expect("a client connects");
    until("route of the topic", async || client.admin().queues(TOPIC).await.ok().filter(|queues| queues.len() == 4))
        .await;
    let producer = client.producer("failover").topics([TOPIC]).deadline(PATIENCE).start().await.expect("it starts");
    println!("from the end of the leader to the first acknowledged send, {rounds} rounds each:");
    for (name, end) in [("kill -9", End::Kill), ("SIGTERM", End::Terminate)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(round(&mut group, &producer, end).await);
        }
        tell(name, &mut times);
    }
    client.shutdown().await;
}

async fn send(producer: &Producer) -> usize {
    let sent = producer.send(Message::new(TOPIC, "body")).await;
    sent.expect("a send ends well in a minute").attempts as usize
}

async fn round(group: &mut Group, producer: &Producer, end: End) -> (Duration, usize) {
    for _ in 0..BETWEEN {
        send(producer).await;
    }
    let leader = group.until_leader().await;
    let started = clock::monotonic();
    match end {
        End::Kill => group.kill(leader),
        End::Terminate => group.process(leader).terminate(),
    }
    let attempts = send(producer).await;
    let time = since(started);
    if matches!(end, End::Terminate) {
        // The old one may still have taken that send: what counts is the longest time without one, until it has ended.
        return terminated(group, leader, producer, time, attempts).await;
    }
    heal(group, leader).await;
    (time, attempts)
}

async fn terminated(
    group: &mut Group,
    leader: usize,
    producer: &Producer,
    mut longest: Duration,
    mut attempts: usize,
) -> (Duration, usize) {
    while group.process(leader).ended().is_none() {
        let started = clock::monotonic();
        let made = send(producer).await;
        if since(started) > longest {
            (longest, attempts) = (since(started), made);
        }
    }
    heal(group, leader).await;
    (longest, attempts)
}

/// Three members again.
async fn heal(group: &mut Group, leader: usize) {
    group.until_other_leader(leader).await;
    group.start_again(leader).await;
    group.until_equal().await;
}

fn tell(what: &str, times: &mut [(Duration, usize)]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).max(1) - 1];
    let millis = |(time, attempts): (Duration, usize)| format!("{} ms ({attempts} attempts)", time.as_millis());
    println!("{what:<8} p50 {}, p99 {}, longest {}", millis(at(50)), millis(at(99)), millis(times[times.len() - 1]));
}
