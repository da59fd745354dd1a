//! One half message that cannot be asked about stops no other: with bytes that rot on the disk while the broker runs, with
//! properties that leave no room for what a check adds, with a group that never comes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

use super::support::{Stage, create_topic, end, field, half_id, position, send, settings};
use crate::terms::ParkReason;

fn half(unique_id: &str) -> Frame {
    send("T", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", unique_id)])
}

/// Changes one byte of what follows the only place that holds `mark` in the files of the log.
fn rot(log: &Path, mark: &str) {
    for file in fs::read_dir(log).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()) {
            bytes[at + mark.len() - 1] ^= 1;
            return fs::write(&path, bytes).unwrap();
        }
    }
    panic!("{mark} is in no file of {}", log.display());
}

/// A half with properties as long as the store takes them: nothing can be added to them.
async fn overlong(stage: &Stage) -> Frame {
    for length in (1..=i16::MAX as usize).rev() {
        let filler = "x".repeat(length);
        let properties = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "long"), ("filler", filler.as_str())];
        let answer = stage.call(send("T", &properties)).await;
        if answer.code == response::SUCCESS {
            return answer;
        }
    }
    panic!("no length of properties is taken");
}

/// The halves that were asked about, by their ids.
fn asked(stage: &Stage) -> Vec<u64> {
    let seen = stage.incoming.seen.lock();
    let checks = seen.iter().filter(|frame| frame.code == request::CHECK_TRANSACTION_STATE);
    checks.map(|frame| field(frame, "commitLogOffset").unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn what_cannot_be_asked_about_is_parked_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(folder.path());
    config.transaction_time_out = Duration::from_millis(10);
    let stage = Stage::open(config.clone()).await;
    stage.done(create_topic("T", 1)).await;
    let first = stage.done(half("first")).await;
    let rotten = stage.done(half("rotten").with_body("this half will rot")).await;
    let second = stage.done(half("second")).await;
    let long = overlong(&stage).await;
    let lonely = Frame::request(request::SEND_MESSAGE_V2)
        .with_header(&escrowmq_common::header::SendMessageHeader {
            producer_group: "LONELY",
            ..super::support::header("T", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}LONELY\u{2}UNIQ_KEY\u{1}lonely\u{2}")
        })
        .with_body("a body");
    let lonely = stage.done(lonely).await;
    let third = stage.done(half("third")).await;
    stage.running.stop().await.unwrap();

    // After a restart the broker has nothing of them in memory.
    let stage = Stage::open(config).await;
    rot(&folder.path().join("log"), "this half will rot");
    stage.producer("client-1", "PG").await;
    let good = [&first, &second, &third].map(|half| position(half).cast_unsigned());
    stage.until("the good ones are asked about", |stage| good.iter().all(|half| asked(stage).contains(half))).await;
    let row = |stage: &Stage, half: &Frame| {
        let row = stage.running.broker().shard.half(half_id(half));
        row.unwrap().expect("it is not decided")
    };
    for bad in [&rotten, &long] {
        let is_parked = |stage: &Stage| row(stage, bad).parked.is_some();
        stage.until("a half of which no check can be made is parked", is_parked).await;
        assert_eq!(row(&stage, bad).parked.map(|(reason, _)| reason), Some(ParkReason::Unreadable));
    }
    for half in [&first, &second, &third] {
        stage.done(end(half, 8)).await;
    }
    assert_eq!(stage.stored("T", 0).len(), 3);
    let row = row(&stage, &lonely);
    assert_eq!((row.parked, row.checks), (None, 0), "it waits, and uses up no attempt");
    let transactions = &stage.running.broker().transactions;
    assert_eq!((transactions.waiting_for_checker("LONELY"), transactions.waiting_for_checker("PG")), (1, 0));
    assert_eq!(transactions.halves_without_checker(), 0, "nobody is alarmed in the first minute");
    // A half that cannot be read can still be rolled back.
    stage.done(end(&rotten, 12)).await;
    stage.done(end(&long, 12)).await;
}

/// More than one round parks at once.
const MANY: usize = 2_500;

#[tokio::test]
async fn all_halves_of_a_deleted_topic_are_parked_and_those_of_others_are_not() {
    let stage = Stage::with(|config| config.transaction_time_out = Duration::from_hours(1)).await;
    stage.done(create_topic("T", 1)).await;
    stage.done(create_topic("Other", 1)).await;
    let other = send("Other", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "other")]);
    let other = stage.done(other).await;
    let mut halves = Vec::with_capacity(MANY);
    for number in 0..MANY {
        halves.push(stage.done(half(&format!("id {number}"))).await);
    }
    stage.done(Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T")).await;
    let parked = |stage: &Stage| stage.running.broker().shard.counters().parked_halves();
    stage.until("all of them are parked", |stage| parked(stage) == MANY as u64).await;
    let shard = &stage.running.broker().shard;
    let reason = |half: &Frame| {
        let row = shard.half(half_id(half)).unwrap().expect("it is not decided");
        row.parked.map(|(reason, _)| reason)
    };
    assert!(halves.iter().all(|half| reason(half) == Some(ParkReason::TopicDeleted)));
    assert_eq!(reason(&other), None);
    let refused = stage.call(end(&halves[0], 8)).await;
    assert_ne!(refused.code, response::SUCCESS, "there is no queue that it could enter");
    stage.done(end(&halves[0], 12)).await;
    stage.done(end(&other, 8)).await;
}
