//! Damaged bytes of the log and of the index are refused, or read as something else, by all that reads them: nothing
//! panics, and nothing takes memory for what a length only claims. The damaged bytes were written by a shard that did a
//! bit of everything.

use super::*;
use crate::index::verify;
use crate::log::sim_disk::Random;
use crate::shard::batch::Batch;
use crate::shard::{Checked, CheckedHalf, Lock, OffsetCommit, Once, Park, Resume, Settings};
use crate::terms::{Content, Cursor, FEATURE_LEVEL, GroupSettings, ParkReason, QueueOffset, Stamp};

/// Damaged copies of each batch and row.
const DAMAGED: usize = 2_000;

/// The bytes that a shard wrote: payloads of log records, and rows of the index.
struct Written {
    payloads: Vec<Vec<u8>>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

async fn done(shard: &Shard, command: Command<'_>) {
    let outcome = shard.propose(&command, Admission::Reserved).await.expect("taken");
    assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
}

async fn a_bit_of_everything() -> Written {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 2).await;
    let topic = encode_cold(&TopicSettings {
        attributes: vec![("message.type".to_owned(), "NORMAL".to_owned())],
        ..TopicSettings::new("Attributed", 3)
    });
    done(shard, Command::PutTopic(&topic)).await;
    done(shard, Command::PutGroup(&encode_cold(&GroupSettings::new("G")))).await;
    let queue = queue(shard, "T", 0);
    publish(shard, &queue, When::Now, &["a", "b", "c"]).await;
    publish(shard, &queue, When::After(3_600_000), &["delayed"]).await;
    publish(shard, &queue, When::At(Stamp(i64::MAX as u64)), &["timed"]).await;
    let unit = unit("T", "once").to_vec();
    let once = Some(Once { unique_id: "once-1", content: Content::of(b"once", ""), window: 60_000 });
    let messages = MessageList::One(Message::new(7, &unit));
    done(shard, Command::Publish(Publish { queue: queue.id, when: When::Now, messages, once })).await;
    let halves = [
        prepare(shard, &queue, "u1", "one").await,
        prepare(shard, &queue, "u2", "two").await,
        prepare(shard, &queue, "u3", "three").await,
    ];
    let checked =
        |half: &Prepared| CheckedHalf { half: half.half, next_due: Stamp(5_000), counts: true, asked: "client-2" };
    let all = halves.iter().map(checked).collect();
    done(shard, Command::Checked(Checked { first_checked_upto: Some(halves[2].half), halves: all })).await;
    let park = |half: &Prepared| Park { half: half.half, reason: ParkReason::Operator, by: "ann", why: "look" };
    done(shard, Command::Park(park(&halves[0]))).await;
    done(shard, Command::Park(park(&halves[1]))).await;
    done(shard, Command::Resume(Resume { half: halves[1].half, by: "ben", why: "seen", only_if: None })).await;
    settle(shard, halves[1].half, halves[1].counter, Decision::Commit).await;
    settle(shard, halves[2].half, halves[2].counter, Decision::Rollback).await;
    let lock = || Lock { group: "G", client: "client-1", life: 60_000, queues: vec![queue.id] };
    done(shard, Command::Lock(lock())).await;
    let commits = vec![OffsetCommit { group: "G", queue: queue.id, offset: QueueOffset(2) }];
    done(shard, Command::CommitOffsets(commits)).await;
    done(shard, Command::Feature(FEATURE_LEVEL)).await;
    done(shard, Command::Settings(Settings { only_missing: true, values: vec![("k", "v"), ("l", "")] })).await;
    let rows = shard.index().scan(&[0], &[0xff]).map(|row| row.expect("readable"));
    let rows = rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let last = shard.log().last().expect("records").index;
    let records = shard.log().read_entries(shard.log().first_index(), last + 1, u64::MAX).expect("readable");
    let payloads = records.iter().map(|record| record.payload.to_vec()).collect();
    opened.close().await.expect("closes");
    Written { payloads, rows }
}

/// Changes bytes in one to six places: single ones, numbers that claim much, what is cut off, doubled or put in.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = (at + random.below(20) as usize).min(bytes.len());
        match random.below(6) {
            0 if at < end => bytes[at] = random.draw() as u8,
            1 => {
                let width = [1, 2, 4, 8][random.below(4) as usize].min(bytes.len() - at);
                let claim = [0xff, 0x7f, 0, 0x80][random.below(4) as usize];
                bytes[at..at + width].fill(claim);
            }
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => drop(bytes.splice(at..at, random.draw().to_be_bytes())),
            _ => bytes.truncate(at),
        }
    }
}

/// Reads a payload as apply and all others that go through the log do: all of its commands, or none.
fn read_batch(payload: &[u8]) -> usize {
    let Ok(batch) = Batch::decode(payload) else { return 0 };
    let Ok(commands) = batch.commands() else { return 0 };
    // Each holds what its bytes say: it can be shown, and is no longer than its bytes and their names.
    for command in &commands {
        assert!(format!("{command:?}").len() <= 512 + 64 * payload.len());
    }
    assert!(commands.len() * 5 <= payload.len(), "each command has a head");
    commands.len()
}

#[tokio::test]
async fn damaged_batches_and_rows_are_refused_or_read() {
    let Written { payloads, rows } = a_bit_of_everything().await;
    let commands: usize = payloads.iter().map(|payload| read_batch(payload)).sum();
    assert!(commands > 15, "only {commands} commands in the log");
    let letters: std::collections::BTreeSet<u8> = rows.iter().map(|(key, _)| key[0]).collect();
    assert!(letters.len() > 8, "only rows of {letters:?}");
    let mut random = Random::new(12);
    for payload in payloads.iter().filter(|payload| read_batch(payload) > 0) {
        for cut in 0..payload.len() {
            read_batch(&payload[..cut]);
            // A claim at each place, as a length or count would be.
            let mut claims = payload.clone();
            let end = (cut + 4).min(claims.len());
            claims[cut..end].fill(0xff);
            read_batch(&claims);
        }
        for _ in 0..DAMAGED {
            let mut damaged = payload.clone();
            damage(&mut damaged, &mut random);
            read_batch(&damaged);
            drop(Command::decode(&mut Cursor::new(&damaged[damaged.len().min(16)..])));
        }
    }
    for (key, value) in &rows {
        verify::row(key, value, |_| {}).expect("what was written is readable");
        for cut in 0..value.len() {
            drop(verify::row(key, &value[..cut], |_| {}));
        }
        for _ in 0..DAMAGED / 10 {
            let (mut bad_key, mut bad_value) = (key.clone(), value.clone());
            damage(&mut bad_value, &mut random);
            let mut extents = 0;
            drop(verify::row(key, &bad_value, |_| extents += 1));
            assert!(extents <= 1 + bad_value.len() / 8, "each points somewhere with its own bytes");
            damage(&mut bad_key, &mut random);
            drop(verify::row(&bad_key, &bad_value, |_| {}));
            verify::is_ended_repeat(&bad_value, Stamp(1));
        }
    }
    // And what never was anything.
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.below(120)).map(|_| random.draw() as u8).collect();
        read_batch(&bytes);
        drop(Command::decode(&mut Cursor::new(&bytes)));
        let letter = bytes.first().copied().unwrap_or_default();
        for key in [vec![letter], [&[letter][..], &bytes[..bytes.len().min(17)]].concat()] {
            drop(verify::row(&key, &bytes, |_| {}));
        }
    }
}
