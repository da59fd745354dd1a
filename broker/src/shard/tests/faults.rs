//! Disks that are full and disks that fail, simulated, under a whole shard.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::crash::copy_folder;
use super::*;
use crate::log::sim_disk::{Faults, SimDisk};
use crate::log::{Disk, DiskFile};
use crate::raft::Leadership;
use crate::shard::{Full, Settings, SubmitError};

fn small(dir: &Path, flush: Flush) -> StorageSettings {
    let log = LogSettings { segment_bytes: 64 << 10, flush, reserve_bytes: 16 << 10, ..LogSettings::default() };
    StorageSettings { dir: dir.to_owned(), log }
}

async fn open_on(disk: &SimDisk, dir: &Path, flush: Flush) -> Storage {
    Storage::open_on(Arc::new(disk.clone()), small(dir, flush), Clock::system()).await.expect("opens")
}

/// A disk whose folder `from` is found under another name.
struct Moved {
    disk: SimDisk,
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    fn path(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.to).map_or_else(|_| path.to_owned(), |rest| self.from.join(rest))
    }
}

impl Disk for Moved {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(&self.path(dir))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path(path))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(&self.path(path))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(&self.path(dir))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(&self.path(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.path(from), &self.path(to))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(&self.path(dir))
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(&self.path(path))
    }
}

/// Opens the rest after a power cut: of the log the bytes that were flushed, of the index its files.
async fn open_after_power_cut(disk: &SimDisk, dir: &Path) -> (Storage, tempfile::TempDir) {
    let copy = tempfile::tempdir().expect("a folder");
    copy_folder(dir, copy.path());
    let moved = Moved { disk: disk.crash(0), from: dir.to_owned(), to: copy.path().to_owned() };
    let opened = Storage::open_on(Arc::new(moved), small(copy.path(), Flush::Sync), Clock::system()).await;
    (opened.expect("opens"), copy)
}

async fn try_publish(shard: &Shard, queue: &Queue, body: &str) -> Result<Outcome, SubmitError> {
    let unit = unit(&queue.topic, body).to_vec();
    let messages = [Message::new(7, &unit)];
    let publish = Publish { queue: queue.id, when: When::Now, messages: MessageList::Many(&messages), once: None };
    shard.propose(&Command::Publish(publish), Admission::Normal).await
}

fn settle_command(half: &Prepared, decision: Decision) -> Command<'static> {
    let (half, counter) = (half.half, Some(half.counter));
    Command::Settle(Settle { half, counter, decision, group: None, by: "", reason: "", rewritten: Vec::new() })
}

#[tokio::test]
async fn a_full_disk_refuses_messages_and_takes_decisions() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let opened = open_on(&disk, dir.path(), Flush::Sync).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let mut halves = Vec::new();
    for nth in 0..20 {
        halves.push(prepare(shard, &queue_now, &format!("u{nth}"), &format!("h{nth}")).await);
    }
    shard.shared.log.replenish().expect("room");
    let used: usize = disk.image().values().map(Vec::len).sum();
    disk.set_faults(Faults { capacity: Some(used as u64), ..Faults::default() });
    let mut expected = Vec::new();
    let body = "x".repeat(5000);
    loop {
        match try_publish(shard, &queue_now, &body).await {
            Ok(_) => expected.push(body.clone()),
            Err(error) => {
                assert_eq!(error, SubmitError::DiskFull);
                break;
            }
        }
        assert!(expected.len() < 100, "a full disk takes message after message");
    }
    assert!(shard.intake().is_full(Full::Log) && shard.log().failure().is_none());
    // In one batch or in several: messages are refused, what settles passes.
    shard.intake().set_full(Full::Log, false);
    let (first, decided, second) = tokio::join!(
        try_publish(shard, &queue_now, &body),
        shard.propose(&settle_command(&halves[0], Decision::Commit), Admission::Reserved),
        try_publish(shard, &queue_now, &body),
    );
    assert_eq!((first, second), (Err(SubmitError::DiskFull), Err(SubmitError::DiskFull)));
    assert!(matches!(decided, Ok(Outcome::Settled(_))), "{decided:?}");
    expected.push("h0".to_owned());
    for (nth, half) in halves.iter().enumerate().skip(1) {
        let decision = if nth % 2 == 0 { Decision::Commit } else { Decision::Rollback };
        let decided = shard.propose(&settle_command(half, decision), Admission::Reserved).await;
        assert!(matches!(decided, Ok(Outcome::Settled(_))), "{decided:?}");
        if decision == Decision::Commit {
            expected.push(format!("h{nth}"));
        }
    }
    assert_eq!(bodies(shard, &queue_now), expected);
    assert!(shard.intake().refused_full() >= 3);
    // A refused command is not counted as on its way; the count goes down right after the answer.
    let counted_off = async {
        while shard.intake().bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted_off).await.expect("no byte stays counted");

    // Room again: the look that the broker takes each second.
    assert!(shard.shared.log.replenish().is_err());
    disk.set_faults(Faults::default());
    shard.shared.log.replenish().expect("room");
    shard.intake().set_full(Full::Log, false);
    publish(shard, &queue_now, When::Now, &["again"]).await;
    expected.push("again".to_owned());
    let (after, _folder) = open_after_power_cut(&disk, dir.path()).await;
    assert_eq!(bodies(&after.shard, &queue(&after.shard, "T", 0)), expected);
    after.close().await.expect("closes");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn even_the_reserve_ends_and_then_all_is_refused_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let opened = open_on(&disk, dir.path(), Flush::Sync).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let half = prepare(shard, &queue_now, "u", "half").await;
    shard.shared.log.replenish().expect("room");
    let used: usize = disk.image().values().map(Vec::len).sum();
    disk.set_faults(Faults { capacity: Some(used as u64), ..Faults::default() });
    let value = "v".repeat(2000);
    let setting = Command::Settings(Settings { only_missing: false, values: vec![("k", &value)] });
    let mut taken = 0;
    while shard.propose(&setting, Admission::Reserved).await.is_ok() {
        taken += 1;
        assert!(taken < 1000, "a full disk takes command after command");
    }
    assert_eq!(shard.propose(&setting, Admission::Reserved).await, Err(SubmitError::DiskFull));
    assert!(shard.log().failure().is_none());
    disk.set_faults(Faults::default());
    let decided = shard.propose(&settle_command(&half, Decision::Commit), Admission::Reserved).await;
    assert!(matches!(decided, Ok(Outcome::Settled(_))), "{decided:?}");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_failed_flush_stops_writes_at_once_and_reads_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let opened = open_on(&disk, dir.path(), Flush::Sync).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let half = prepare(shard, &queue_now, "u", "half").await;
    publish(shard, &queue_now, When::Now, &["kept"]).await;
    disk.set_faults(Faults { fail_sync_at: Some(disk.syncs() + 1), ..Faults::default() });
    // Answered although nothing else comes that could find out.
    let lost = try_publish(shard, &queue_now, "lost").await;
    assert_eq!(lost, Err(SubmitError::OutcomeUnknown));
    disk.set_faults(Faults::default());
    tokio::time::timeout(Duration::from_secs(20), async {
        while !shard.intake().latch().is_closed() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it is told");
    let mut leadership = opened.leadership();
    let follows = leadership.wait_for(|seen| matches!(seen, Leadership::Following { .. }));
    tokio::time::timeout(Duration::from_secs(20), follows).await.expect("the leader's work stops").expect("told");
    assert_eq!(try_publish(shard, &queue_now, "no").await, Err(SubmitError::StoreFailed));
    let decided = shard.propose(&settle_command(&half, Decision::Commit), Admission::Reserved).await;
    assert_eq!(decided, Err(SubmitError::StoreFailed));
    assert_eq!(bodies(shard, &queue_now), ["kept"]);
    opened.close().await.expect_err("it has failed");
    let (after, _folder) = open_after_power_cut(&disk, dir.path()).await;
    assert_eq!(bodies(&after.shard, &queue(&after.shard, "T", 0)), ["kept"]);
    assert_eq!(after.shard.counters().open_halves(), 1);
    after.close().await.expect("closes");
}

#[tokio::test]
async fn an_index_whose_log_was_not_flushed_stays_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let opened = open_on(&disk, dir.path(), Flush::Async { interval: Duration::from_secs(3600) }).await;
    make_topic(&opened.shard, "T", 1).await;
    opened.applier().flush().expect("log and index are flushed");
    let queue_now = queue(&opened.shard, "T", 0);
    publish(&opened.shard, &queue_now, When::Now, &["applied, not flushed"]).await;
    disk.set_faults(Faults { fail_sync_at: Some(disk.syncs() + 1), ..Faults::default() });
    opened.close().await.expect_err("the last flush fails");
    // Closing the index would have written what the log has lost.
    let (after, _folder) = open_after_power_cut(&disk, dir.path()).await;
    assert!(bodies(&after.shard, &queue(&after.shard, "T", 0)).is_empty());
    after.close().await.expect("closes");
}
