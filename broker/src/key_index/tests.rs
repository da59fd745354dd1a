//! The index over a log that is a list.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use escrowmq_common::message::UnitBuilder;

use super::*;
use crate::shard::{Command, Message, MessageList, OpenBatch, Prepare, Publish, Settle};
use crate::terms::{Content, Decision, HalfId, LogIndex, Position, QueueId, When};

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A log of records, of which the first ones may be gone.
#[derive(Clone, Default)]
struct Records {
    all: Arc<Mutex<Vec<Record>>>,
    first: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    term: u64,
}

impl Records {
    /// Appends a batch and says where its payload begins.
    fn append(&self, stamp: u64, commands: &[Command<'_>]) -> Position {
        let mut batch = OpenBatch::with_capacity(1024);
        for command in commands {
            batch.push(command).unwrap();
        }
        self.append_record(1, batch.seal(Stamp(stamp)))
    }

    fn append_record(&self, kind: u8, payload: Bytes) -> Position {
        let mut records = self.all.lock();
        let position = records.last().map_or(Position::ZERO, Record::end);
        let record = Record { term: self.term, index: LogIndex(records.len() as u64), kind, position, crc: 0, payload };
        let at = record.payload_position();
        records.push(record);
        at
    }

    fn last(&self) -> LogIndex {
        LogIndex(self.all.lock().len() as u64 - 1)
    }
}

impl LogSource for Records {
    fn applied(&self) -> Option<LogIndex> {
        self.all.lock().last().map(|record| record.index)
    }

    fn first_index(&self) -> LogIndex {
        LogIndex(self.first.load(Ordering::SeqCst))
    }

    fn first_position(&self) -> Position {
        self.all.lock().get(self.first_index().0 as usize).map_or(Position::ZERO, |record| record.position)
    }

    fn term_of(&self, index: LogIndex) -> io::Result<Option<u64>> {
        let held = index >= self.first_index();
        Ok(self.all.lock().get(index.0 as usize).filter(|_| held).map(|record| record.term))
    }

    fn read(&self, from: LogIndex, to: LogIndex, _: u64) -> io::Result<Vec<Record>> {
        if from < self.first_index() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.all.lock()[from.0 as usize..to.0 as usize].iter().take(10).cloned().collect())
    }

    fn behind_lost(&self, _index: LogIndex) -> Option<LogIndex> {
        None
    }
}

fn unit(topic: &str, unique: &str, keys: &str) -> Bytes {
    let properties = format!("UNIQ_KEY\u{1}{unique}\u{2}KEYS\u{1}{keys}\u{2}");
    let host = "127.0.0.1:1".parse().unwrap();
    let mut out = BytesMut::new();
    UnitBuilder::to_store(topic, 0, host, b"body", &[&properties]).write(&mut out).unwrap();
    out.freeze()
}

fn publish(unit: &Bytes) -> Command<'_> {
    let messages = MessageList::One(Message::new(0, unit));
    Command::Publish(Publish { queue: QueueId(1), when: When::Now, messages, once: None })
}

/// An index that follows `records` until it is stopped.
struct Following {
    index: KeyIndex,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    #[expect(clippy::disallowed_methods, reason = "a test joins its thread itself")]
    fn start(dir: &std::path::Path, records: &Records, limits: Limits) -> Self {
        let index = KeyIndex::open(dir).unwrap();
        let shutdown = Shutdown::new();
        let (follower, source, stop) = (index.clone(), records.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || follower.follow_within(source, &stop, limits));
        Self { index, shutdown, thread: Some(thread) }
    }

    fn positions(&self, records: &Records, topic: &str, key: &str) -> Vec<Position> {
        assert!(self.index.catch_up(records.last(), PATIENCE));
        self.index.candidates(topic, key).map(|candidate| candidate.unwrap().position).collect()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.index.shared.wanted.notify_all();
        let ended = self.thread.take().expect("joined once").join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// Small runs, so that few messages make many files.
const SMALL: Limits = Limits { entries: 20, log_bytes: 1 << 20 };

#[test]
fn messages_of_all_commands_are_found_where_their_unit_is() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    let (one, two) = (unit("T", "u1", "a  b"), unit("T", "u2", "b"));
    let half = unit("T", "u3", "c");
    let payload = records.append(
        5_000,
        &[
            Command::Checked(crate::shard::Checked { first_checked_upto: None, halves: vec![] }),
            Command::Publish(Publish {
                queue: QueueId(1),
                when: When::At(Stamp(99)),
                messages: MessageList::Many(&[Message::new(0, &one), Message::new(0, &two)]),
                once: None,
            }),
            Command::Prepare(Prepare {
                queue: QueueId(1),
                when: When::Now,
                immunity: None,
                first_half: None,
                content: Content([0; 16]),
                duplicate_window: 0,
                group: "g",
                client: "c",
                unique_id: "u3",
                message: Message::new(0, &half),
            }),
        ],
    );
    let settled = records.append(
        6_000,
        &[Command::Settle(Settle {
            half: HalfId(1),
            counter: None,
            decision: Decision::Commit,
            group: None,
            by: "",
            reason: "",
            rewritten: vec![(HalfId(1), Message::new(0, &half))],
        })],
    );
    records.append_record(3, Bytes::from_static(b"a membership"));
    let following = Following::start(dir.path(), &records, Limits::default());
    let stored = records.all.lock().clone();
    let read_unit = |position: Position| {
        let base = if position >= settled { settled } else { payload };
        let record = &stored[usize::from(position >= settled)];
        record.payload[position.since(base) as usize..][..one.len().min(half.len())].to_vec()
    };
    let b = following.positions(&records, "T", "b");
    assert_eq!(b.len(), 2);
    assert!(b[0] > b[1]);
    assert_eq!(&read_unit(b[1])[..40], &one[..40]);
    assert_eq!(following.positions(&records, "T", "a"), [b[1]]);
    assert_eq!(following.positions(&records, "T", "u2"), [b[0]]);
    let halves = following.positions(&records, "T", "u3");
    assert_eq!(halves, following.positions(&records, "T", "c"));
    assert_eq!(halves.len(), 2);
    assert!(halves[0] > settled && halves[1] < settled);
    assert!(following.positions(&records, "T", "").is_empty());
    assert!(following.positions(&records, "other", "a").is_empty());
    let first = following.index.candidates("T", "a").next().unwrap().unwrap();
    assert_eq!(first.stored_seconds, 5);
    let reach = following.index.reach();
    assert_eq!(reach, Some(Reach { position: stored[2].end(), stamp: Stamp(6_000) }));
}

#[test]
fn every_word_of_a_message_finds_it_once_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    let keys: Vec<String> = (0..2_000).map(|n| format!("order-{n}")).collect();
    // As many as fit, and each twice; the unique id is one of them.
    let most = unit("T", "order-7", &format!("{}  again {}", keys.join(" "), keys[..800].join(" ")));
    records.append(1, &[publish(&most)]);
    let shortest = (0..16_000).map(|_| "k").collect::<Vec<_>>().join(" ");
    records.append(2, &[publish(&unit("T", "short", &shortest))]);
    let following = Following::start(dir.path(), &records, Limits::default());
    for key in ["order-0", "order-7", "order-63", "order-64", "order-65", "order-1999", "again", "k", "short"] {
        assert_eq!(following.positions(&records, "T", key).len(), 1, "{key}");
    }
    assert!(following.positions(&records, "T", "order-2000").is_empty());
    assert_eq!(following.index.shared.known.lock().fresh.entries.len(), 2_000 + 1 + 2, "repeated words cost nothing");
}

#[test]
fn restarts_go_on_where_the_files_end_and_runs_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    let mut expected: Vec<Position> = Vec::new();
    for round in 0..4_u64 {
        for n in 0..150 {
            let unit = unit("T", &format!("u{round}-{n}"), "every");
            expected.insert(0, records.append(round * 1000 + n, &[publish(&unit)]));
        }
        let following = Following::start(dir.path(), &records, SMALL);
        let found = following.positions(&records, "T", "every");
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(position, payload)| position > payload));
        assert!(found.is_sorted_by(|a, b| a > b));
        assert_eq!(following.positions(&records, "T", "u0-7").len(), 1);
        assert_eq!(following.positions(&records, "T", &format!("u{round}-149")).len(), 1);
    }
    // 1200 entries in runs of 20, each eight merged into one.
    let reads = records.reads.load(Ordering::SeqCst);
    let following = Following::start(dir.path(), &records, SMALL);
    assert_eq!(following.positions(&records, "T", "every").len(), 600);
    assert!(records.reads.load(Ordering::SeqCst) - reads <= 3, "only what is in no file is read again");
    drop(following);
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 25, "{files} files");
}

#[test]
fn a_missing_or_damaged_file_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    for n in 0..200 {
        let unit = unit("T", &format!("u{n}"), "every");
        records.append(n, &[publish(&unit)]);
    }
    drop({
        let following = Following::start(dir.path(), &records, SMALL);
        assert_eq!(following.positions(&records, "T", "every").len(), 200);
        following
    });
    let mut files: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    // One in the middle is missing, one has a flipped bit in its head, one is not finished.
    fs::remove_file(&files[2]).unwrap();
    let mut bytes = fs::read(&files[1]).unwrap();
    bytes[20] ^= 1;
    fs::write(&files[1], bytes).unwrap();
    fs::write(dir.path().join("merge.tmp"), b"half a file").unwrap();
    let following = Following::start(dir.path(), &records, SMALL);
    assert_eq!(following.positions(&records, "T", "every").len(), 200);
    for n in 0..200 {
        assert_eq!(following.positions(&records, "T", &format!("u{n}")).len(), 1);
    }
    assert!(!dir.path().join("merge.tmp").exists() || following.index.shared.known.lock().runs.len() > 8);
}

#[test]
fn damage_found_by_a_lookup_is_repaired_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    for n in 0..100 {
        let unit = unit("T", &format!("u{n}"), "every");
        records.append(n, &[publish(&unit)]);
    }
    drop({
        let following = Following::start(dir.path(), &records, SMALL);
        following.positions(&records, "T", "every");
        following
    });
    let mut files: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[4096 + 50] ^= 1;
    fs::write(&files[0], bytes).unwrap();
    let following = Following::start(dir.path(), &records, SMALL);
    // The damaged part is missing at first, and nothing wrong is said.
    let found = following.positions(&records, "T", "every");
    assert!(found.len() < 100 && found.is_sorted_by(|a, b| a > b));
    // The repair begins with forgetting, so wait until all is there again.
    let deadline = escrowmq_common::clock::monotonic() + PATIENCE;
    while following.positions(&records, "T", "every").len() < 100 {
        assert!(escrowmq_common::clock::monotonic() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn what_the_log_no_longer_has_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::default();
    for n in 0..100 {
        let unit = unit("T", &format!("u{n}"), "every");
        records.append(n, &[publish(&unit)]);
    }
    let following = Following::start(dir.path(), &records, SMALL);
    assert_eq!(following.positions(&records, "T", "u0").len(), 1);
    // Runs of the first 80 messages were merged into one.
    records.first.store(95, Ordering::SeqCst);
    let deadline = escrowmq_common::clock::monotonic() + PATIENCE;
    while !following.positions(&records, "T", "u0").is_empty() {
        following.index.shared.wanted.notify_one();
        assert!(escrowmq_common::clock::monotonic() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(following.positions(&records, "T", "u99").len(), 1);
    drop(following);
    // A log that begins after all that is known: nothing of it is kept.
    let later = Records { term: 1, ..Records::default() };
    for n in 0..300 {
        let unit = unit("T", &format!("v{n}"), "every");
        later.append(n, &[publish(&unit)]);
    }
    later.first.store(200, Ordering::SeqCst);
    let following = Following::start(dir.path(), &later, SMALL);
    assert_eq!(following.positions(&later, "T", "every").len(), 100);
    assert!(following.positions(&later, "T", "u99").is_empty());
}

#[test]
fn files_of_another_history_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let old = Records::default();
    for n in 0..60 {
        old.append(n, &[publish(&unit("T", &format!("old{n}"), ""))]);
    }
    Following::start(dir.path(), &old, SMALL).positions(&old, "T", "old0");
    // The log lost all of that, and something else was written in its place in a later term.
    let new = Records { term: 1, ..Records::default() };
    for n in 0..60 {
        new.append(n, &[publish(&unit("T", &format!("new{n}"), ""))]);
    }
    let following = Following::start(dir.path(), &new, SMALL);
    assert_eq!(following.positions(&new, "T", "new3").len(), 1);
    assert!(following.positions(&new, "T", "old3").is_empty());
}

#[test]
fn nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let index = KeyIndex::open(dir.path()).unwrap();
    // Nobody follows: the wait ends by itself.
    assert!(!index.catch_up(LogIndex(0), Duration::from_millis(1)));
}
