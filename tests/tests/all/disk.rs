//! The log is the truth: what is derived from it may be lost, and damage to it is told, not served.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_common::message::Message;
use escrowmq_tests::processes::{Process, spawn_broker_at};
use escrowmq_tests::{Broker, End, Half, Settings, Wire, until};

const TOPIC: &str = "Disk";
const GROUP: &str = "disk-producer";

/// Small, so that there are several.
const SEGMENT: u64 = 1 << 20;

fn settings() -> Settings {
    Settings::default().without_checks().with("mappedFileSizeCommitLog", SEGMENT)
}

struct Kept {
    messages: Vec<Message>,
    open: Half,
    committed: Half,
    rolled_back: Half,
}

/// Fills several segments with everything there is.
async fn fill(broker: &Broker) -> Kept {
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    let open = wire.half(GROUP, TOPIC, "open", "open").await;
    let committed = wire.half(GROUP, TOPIC, "committed", "committed").await;
    let rolled_back = wire.half(GROUP, TOPIC, "rolled-back", "rolled-back").await;
    for number in 0..100_u32 {
        let body = vec![number as u8; 40_000];
        let sent = wire.send(TOPIC, 0, body, &[("KEYS", &format!("key-{number}"))]).await.expect("an answer");
        assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
    }
    assert_eq!(wire.end(&committed, End::Commit).await.unwrap().code, response::SUCCESS);
    assert_eq!(wire.end(&rolled_back, End::Rollback).await.unwrap().code, response::SUCCESS);
    let messages = wire.read_queue(TOPIC, 0).await;
    assert_eq!(messages.len(), 101);
    Kept { messages, open, committed, rolled_back }
}

/// Everything is as it was, and what was undecided can be decided.
async fn assert_kept(wire: &Wire, kept: &Kept) {
    assert_eq!(wire.read_queue(TOPIC, 0).await, kept.messages);
    assert_eq!(wire.end(&kept.committed, End::Rollback).await.unwrap().code, response::ILLEGAL_OPERATION);
    assert_eq!(wire.end(&kept.rolled_back, End::Commit).await.unwrap().code, response::ILLEGAL_OPERATION);
    until("key index", async || (wire.query(TOPIC, "key-7", false).await.len() == 1).then_some(())).await;
    assert_eq!(wire.end(&kept.open, End::Commit).await.unwrap().code, response::SUCCESS);
    assert_eq!(wire.read_queue(TOPIC, 0).await.len(), kept.messages.len() + 1);
}

fn log_files(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("log")).expect("the log's folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    // Not the files that wait to become segments: a start removes them.
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_roll_over_and_a_crash_loses_nothing() {
    let mut broker = Broker::start(settings()).await;
    let kept = fill(&broker).await;
    assert!(log_files(&broker.data_folder()).len() >= 4, "{:?}", log_files(&broker.data_folder()));
    broker.crash().await;
    assert_kept(&broker.wire(), &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_indexes_are_built_again_from_the_log() {
    let mut broker = Broker::start(settings()).await;
    let kept = fill(&broker).await;
    broker.kill();
    for derived in ["index", "keys"] {
        fs::remove_dir_all(broker.data_folder().join(derived)).expect("it is there");
    }
    broker.start_again().await;
    assert_kept(&broker.wire(), &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_told_and_not_served() {
    let mut broker = Broker::start(settings()).await;
    let kept = fill(&broker).await;
    broker.kill();
    let data = broker.data_folder();
    let files = log_files(&data);
    for (file, part) in [(0, 10), (1, 50), (files.len() - 2, 90)] {
        let path = &files[file];
        let at = SEGMENT * part / 100;
        flip(path, at);
        // Without its index a broker reads all of its log; with it, at least what it has not applied.
        fs::remove_dir_all(data.join("index")).expect("it is there");
        // It wants the folder in which "data" lies.
        let (mut process, _) = spawn_broker_at(&settings(), data.parent().expect("a parent"));
        let status = process.wait(Duration::from_secs(20)).await;
        assert!(!status.success(), "started with a flipped bit at {at} of {}", path.display());
        assert_names(&process, path);
        flip(path, at);
    }
    broker.start_again().await;
    assert_kept(&broker.wire(), &kept).await;
}

fn assert_names(process: &Process, path: &Path) {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let log = process.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(told.iter().any(|line| line.contains(&name)), "nothing names {name}: {told:#?}");
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}
