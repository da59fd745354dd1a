//! Disks without room, and disks that fail, under the real broker: a small file system of its own, a tracer that makes
//! calls fail. Both need privileges; elsewhere the tests say that they are skipped.

use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_tests::processes::{Process, spawn_broker_at};
use escrowmq_tests::small_disk::{DISK_MIB, SmallDisk};
use escrowmq_tests::tracer::Tracer;
use escrowmq_tests::{Broker, End, Settings, Wire, until};

const TOPIC: &str = "Full";
const GROUP: &str = "full-producer";
const MIB: usize = 1 << 20;

/// Smallest segments, and no mark but the last byte.
fn settings() -> Settings {
    Settings::default()
        .without_checks()
        .with("mappedFileSizeCommitLog", 1 << 20)
        .with("diskMaxUsedSpaceRatio", 100)
        .with("diskSpaceCleanForciblyRatio", 100)
        .with("diskSpaceWarningLevelRatio", 100)
}

async fn start(disk: &SmallDisk, settings: &Settings) -> (Process, Wire) {
    let (process, port) = spawn_broker_at(settings, disk.folder());
    let wire = Wire::to(format!("127.0.0.1:{port}"));
    let probe = || Wire::to(format!("127.0.0.1:{port}"));
    until("the broker", async || {
        let frame = escrowmq_common::frame::Frame::request(escrowmq_common::code::request::GET_BROKER_RUNTIME_INFO);
        probe().call(frame).await.ok()
    })
    .await;
    (process, wire)
}

async fn send(wire: &Wire, body: Vec<u8>) -> (i32, String) {
    let answer = wire.send(TOPIC, 0, body, &[]).await.expect("an answer");
    (answer.code, answer.remark.clone().unwrap_or_default())
}

/// Sends until a message is refused; says how many were taken and why not.
async fn send_until_refused(wire: &Wire) -> (usize, String) {
    for sent in 0..DISK_MIB * 20 {
        let (code, remark) = send(wire, vec![7; MIB / 10]).await;
        if code != response::SUCCESS {
            assert_eq!(code, response::SERVICE_NOT_AVAILABLE, "{remark}");
            return (sent, remark);
        }
    }
    panic!("a disk of {DISK_MIB} MiB took more than twice its size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_messages_takes_decisions_and_recovers() {
    let Some(disk) = SmallDisk::mount("a_full_disk_refuses_messages_takes_decisions_and_recovers") else { return };
    let (mut broker, mut wire) = start(&disk, &settings()).await;
    wire.create_topic(TOPIC, 1).await;
    let mut expected = 0;
    for round in 0..3 {
        let committed = wire.half(GROUP, TOPIC, &format!("c{round}"), "committed").await;
        let rolled_back = wire.half(GROUP, TOPIC, &format!("r{round}"), "rolled back").await;
        disk.fill(usize::MAX);
        let (sent, remark) = send_until_refused(&wire).await;
        assert!(remark.contains("disk full"), "{remark}");
        expected += sent;
        // It stays refused, decisions pass, and what is there can be read.
        assert_eq!(send(&wire, vec![7; 10]).await.0, response::SERVICE_NOT_AVAILABLE);
        assert_eq!(wire.end(&committed, End::Commit).await.unwrap().code, response::SUCCESS);
        assert_eq!(wire.end(&rolled_back, End::Rollback).await.unwrap().code, response::SUCCESS);
        expected += 1;
        assert_eq!(wire.read_queue(TOPIC, 0).await.len(), expected);
        if round == 2 {
            // An end in good order although the index finds no room.
            assert_ends_well(broker).await;
            disk.empty();
            let (again, wire) = start(&disk, &settings()).await;
            assert_eq!(wire.read_queue(TOPIC, 0).await.len(), expected);
            return assert_ends_well(again).await;
        }
        disk.empty();
        until("messages are taken again", async || {
            (send(&wire, vec![8; 10]).await.0 == response::SUCCESS).then_some(())
        })
        .await;
        expected += 1;
        if round == 1 {
            // A crash right after a full disk.
            broker.kill();
            (broker, wire) = start(&disk, &settings()).await;
            assert_eq!(wire.read_queue(TOPIC, 0).await.len(), expected);
        }
    }
}

async fn assert_ends_well(mut broker: Process) {
    broker.terminate();
    assert!(broker.wait(Duration::from_secs(20)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_refuses_messages_before_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount("the_mark_refuses_messages_before_the_disk_is_full") else { return };
    let settings = settings().with("diskMaxUsedSpaceRatio", 60).with("diskSpaceWarningLevelRatio", 60);
    let (broker, wire) = start(&disk, &settings).await;
    wire.create_topic(TOPIC, 1).await;
    let half = wire.half(GROUP, TOPIC, "h", "half").await;
    disk.fill(40 * MIB);
    let refused = until("a refusal", async || {
        let (code, remark) = send(&wire, vec![1; 10]).await;
        (code != response::SUCCESS).then_some((code, remark))
    })
    .await;
    assert_eq!(refused.0, response::SERVICE_NOT_AVAILABLE, "{}", refused.1);
    assert_eq!(wire.end(&half, End::Commit).await.unwrap().code, response::SUCCESS);
    disk.empty();
    until("messages are taken again", async || (send(&wire, vec![1; 10]).await.0 == response::SUCCESS).then_some(()))
        .await;
    assert_ends_well(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_stops_writes_until_a_restart_and_loses_nothing_acknowledged() {
    for (nth, inject) in ["fdatasync:error=EIO", "pwritev:error=EIO", "fdatasync:error=ENOSPC"].into_iter().enumerate()
    {
        let mut broker = Broker::start(settings()).await;
        let wire = broker.wire();
        wire.create_topic(TOPIC, 1).await;
        let half = wire.half(GROUP, TOPIC, "h", "half").await;
        for number in 0..20_u8 {
            assert_eq!(send(&wire, vec![number; 100]).await.0, response::SUCCESS);
        }
        let pid = broker.process().id();
        let output = broker.data_folder().join("trace");
        let Some(tracer) = Tracer::failing(pid, inject, &output).await else {
            eprintln!("SKIPPED {inject}: no tracer that may follow a process");
            return;
        };
        let (code, remark) = send(&wire, vec![100; 100]).await;
        assert_ne!(code, response::SUCCESS, "{inject}: {remark}");
        drop(tracer);
        // The device works again; what it lost nobody knows.
        for _ in 0..3 {
            let (code, remark) = send(&wire, vec![101; 100]).await;
            assert_eq!(code, response::SERVICE_NOT_AVAILABLE, "{inject}: {remark}");
            assert!(remark.contains("restart"), "{remark}");
        }
        assert_eq!(wire.end(&half, End::Commit).await.unwrap().code, response::SERVICE_NOT_AVAILABLE);
        assert_eq!(wire.read_queue(TOPIC, 0).await.len(), 20, "{inject}: reads go on");
        assert!(broker.process().log().contains("no writes until a restart"));
        if nth % 2 == 0 {
            broker.kill();
        } else {
            // An end in good order must not make things worse.
            broker.process().terminate();
            broker.process().wait(Duration::from_secs(20)).await;
        }
        broker.start_again().await;
        let wire = broker.wire();
        let bodies: Vec<u8> = wire.read_queue(TOPIC, 0).await.iter().map(|message| message.body[0]).collect();
        assert!(bodies.starts_with(&(0..20).collect::<Vec<u8>>()), "{inject}: {bodies:?}");
        assert!(bodies.len() <= 21 && !bodies.contains(&101), "{inject}: {bodies:?}");
        assert_eq!(wire.end(&half, End::Commit).await.unwrap().code, response::SUCCESS);
        assert_eq!(send(&wire, vec![102; 100]).await.0, response::SUCCESS);
    }
}
