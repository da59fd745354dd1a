//! Endless load on a bounded disk: what is old goes, what is undecided or waits for its time stays, nothing goes early.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until, until_within};
use futures_util::future::join_all;

const TOPIC: &str = "Endless";
const GROUP: &str = "endless-producer";
const MIB: u64 = 1 << 20;
/// Bytes of log that the broker keeps.
const LIMIT: u64 = 8 * MIB;
/// Bytes of other files: the one that is written, the next one, the reserve, half-done moves; and the index twice.
const SLACK: u64 = 12 * MIB;
const BODY: usize = 64 << 10;
/// Messages between two looks: half the limit.
const ROUND: usize = (LIMIT / 2) as usize / BODY;
/// 20 times the limit in all.
const ROUNDS: usize = 40;

fn settings() -> Settings {
    Settings::default()
        .without_checks()
        .with("mappedFileSizeCommitLog", MIB)
        .with("maxStoreSize", LIMIT)
        // However full the machine's disk is.
        .with("diskMaxUsedSpaceRatio", 100)
        .with("diskSpaceCleanForciblyRatio", 100)
        .with("diskSpaceWarningLevelRatio", 100)
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
            Ok(metadata) => metadata.len(),
            // It went while we looked.
            Err(_) => 0,
        })
        .sum()
}

async fn until_bounded(broker: &Broker) {
    let data = broker.data_folder();
    until(&format!("at most {} bytes in the folder", LIMIT + SLACK), async || {
        (bytes_in(&data) <= LIMIT + SLACK).then_some(())
    })
    .await;
}

fn body(number: usize) -> Vec<u8> {
    let mut body = vec![number as u8; BODY];
    body[..8].copy_from_slice(&(number as u64).to_be_bytes());
    body
}

/// Sends one round over several connections; says the queue offset of each message.
async fn send_round(wires: &[Wire], first: usize) {
    join_all(wires.iter().enumerate().map(|(nth, wire)| async move {
        for number in (first + nth..first + ROUND).step_by(wires.len()) {
            let sent = wire.send(TOPIC, 0, body(number), &[]).await.expect("an answer");
            assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
        }
    }))
    .await;
}

/// Reads the messages that came into the queue of waiting ones since the last look. None of them may be gone by then.
async fn read_on(wire: &Wire, delivered: &mut Vec<String>) {
    let pulled = wire.pull("looker", "Waiting", 0, delivered.len() as i64, 32).await;
    for message in &pulled.messages {
        assert_eq!(message.queue_offset, delivered.len() as i64);
        delivered.push(String::from_utf8_lossy(&message.body).into());
    }
    assert!(pulled.next <= delivered.len() as i64, "went unseen: {} after {delivered:?}", pulled.next);
}

/// The first offset that is kept.
async fn min_offset(wire: &Wire) -> i64 {
    let pulled = wire.pull("looker", TOPIC, 0, 0, 1).await;
    match pulled.code {
        response::PULL_OFFSET_MOVED => pulled.next,
        code => {
            assert_eq!(code, response::SUCCESS, "{}", pulled.remark);
            0
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_times_the_limit_runs_through_and_nothing_is_lost_early() {
    let mut broker = Broker::start(settings()).await;
    let mut wires: Vec<Wire> = (0..4).map(|_| broker.wire()).collect();
    wires[0].create_topic(TOPIC, 1).await;
    wires[0].create_topic("Waiting", 1).await;
    let mut halves: Vec<Half> = Vec::new();
    let mut waiting = 0;
    let mut delivered: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        if round % 8 == 0 {
            for nth in 0..3 {
                let id = format!("half-{round}-{nth}");
                halves.push(wires[0].half(GROUP, TOPIC, &id, &format!("body of {id}")).await);
            }
            let body = format!("waiting-{waiting}");
            // Long enough that files go while it waits.
            let sent = wires[0].send("Waiting", 0, body, &[("TIMER_DELAY_SEC", "8")]).await.expect("an answer");
            assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
            waiting += 1;
        }
        send_round(&wires, round * ROUND).await;
        until_bounded(&broker).await;
        read_on(&wires[0], &mut delivered).await;
        // The newest half of the limit is there, whatever went.
        let max = wires[0].pull("looker", TOPIC, 0, ((round + 1) * ROUND) as i64, 1).await.max;
        assert_eq!(max, ((round + 1) * ROUND) as i64);
        let min = min_offset(&wires[0]).await;
        assert!(max - min >= ROUND as i64 / 2, "only {} messages are left in round {round}", max - min);
        let oldest = wires[0].pull("looker", TOPIC, 0, min, 1).await;
        assert_eq!((oldest.code, oldest.messages[0].queue_offset), (response::SUCCESS, min), "{}", oldest.remark);
        if round == ROUNDS / 3 || round == ROUNDS / 2 {
            broker.kill();
            if round == ROUNDS / 2 {
                fs::remove_dir_all(broker.data_folder().join("index")).expect("it is there");
            }
            broker.start_again().await;
            wires = (0..4).map(|_| broker.wire()).collect();
            assert_eq!(wires[0].pull("looker", TOPIC, 0, max, 1).await.max, max);
        }
    }
    let min = min_offset(&wires[0]).await;
    assert!(min as usize >= (ROUNDS - 4) * ROUND, "old messages are gone: the first one kept is {min}");
    // Every message that waited came once, although the files that it came with are gone.
    let wire = &wires[0];
    until_within(Duration::from_secs(30), "the waiting messages", async || {
        read_on(wire, &mut delivered).await;
        (delivered.len() >= waiting).then_some(())
    })
    .await;
    assert_eq!(delivered, (0..waiting).map(|nth| format!("waiting-{nth}")).collect::<Vec<_>>());

    // Every half can be decided, and a committed one is delivered from its commit on.
    let mut expected: HashMap<String, i64> = HashMap::new();
    let end = (ROUNDS * ROUND) as i64;
    for (nth, half) in halves.iter().enumerate() {
        let decision = if nth % 3 == 2 { End::Rollback } else { End::Commit };
        let answer = wire.end(half, decision).await.expect("an answer");
        assert_eq!(answer.code, response::SUCCESS, "{}: {:?}", half.unique_id, answer.remark);
        if decision == End::Commit {
            expected.insert(format!("body of {}", half.unique_id), half.position);
        }
    }
    // Two more rounds of the load: what became visible now stays although its first bytes are long gone.
    send_round(&wires, ROUNDS * ROUND).await;
    until_bounded(&broker).await;
    let mut next = end;
    while !expected.is_empty() {
        let pulled = wire.pull("looker", TOPIC, 0, next, 32).await;
        assert_eq!(pulled.code, response::SUCCESS, "{} at {next}, still missing {expected:?}", pulled.remark);
        for message in &pulled.messages {
            if let Some(position) = expected.remove(&*String::from_utf8_lossy(&message.body)) {
                assert_eq!(message.prepared_offset, position, "the half's id is its first position");
            }
        }
        next = pulled.next;
    }
    assert_eq!(wire.end(&halves[0], End::Rollback).await.unwrap().code, response::ILLEGAL_OPERATION);
}
