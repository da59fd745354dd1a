//! The index compared with one that is made from the log alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CheckError, Kind, OnProgress, Progress, Report};
use crate::index::format::FORMAT_ROW;
use crate::index::{IndexError, IndexReader, QueueEntry, decision, meta, open_read_only, table, verify};
use crate::index::{Row, after_prefix};
use crate::log::{Log, LogSettings, LookingDisk};
use crate::shard::{Quarantine, find_base, rebuild_index};
use crate::terms::{HalfId, LogIndex, Position, QueueId, QueueOffset, Stamp};

/// Tables whose rows are equal byte by byte. Entries of queues and decisions are packed into pages as they came, so what is
/// in the pages is; and of repeated halves those are that can still be seen.
const TABLES: [(u8, &str); 8] = [
    (table::HALF, "half"),
    (table::DUE, "due"),
    (table::TIMER, "timer"),
    (table::FIRED, "fired"),
    (table::PIN, "pin"),
    (table::OFFSET, "offset"),
    (table::LOCK, "lock"),
    (table::META, "meta"),
];

/// Numbers the temporary folders: one process may look at several stores at once.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Compares the index of the store in `dir` with one made from its log, if that can be done.
pub(super) fn check(dir: &Path, report: &mut Report, progress: OnProgress<'_>) -> Result<(), CheckError> {
    let figures = &report.figures;
    let Some((applied, _)) = figures.applied else {
        report.notes.push("not compared with the log: there is no index, or it cannot be read".to_owned());
        return Ok(());
    };
    if !figures.is_complete {
        let start = figures.log_start;
        report.notes.push(format!(
            "not compared with the log: the log begins at position {start}, what came before was trimmed and is only in the index"
        ));
        return Ok(());
    }
    if [Kind::LogDamaged, Kind::VoteLost, Kind::OtherFormat, Kind::IndexAhead, Kind::IndexUnreadable]
        .into_iter()
        .any(|kind| report.has(kind))
    {
        report.notes.push("not compared with the log: first repair what is damaged".to_owned());
        return Ok(());
    }
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = std::env::temp_dir().join(format!("escrowmq-fsck-{}-{nth}", std::process::id()));
    let failed = |source| CheckError::Io { path: temporary.clone(), source };
    std::fs::create_dir_all(&temporary).map_err(failed)?;
    let compared = compare(dir, &temporary, applied, report, progress);
    std::fs::remove_dir_all(&temporary).map_err(failed)?;
    compared
}

fn compare(
    dir: &Path,
    temporary: &Path,
    applied: LogIndex,
    report: &mut Report,
    progress: OnProgress<'_>,
) -> Result<(), CheckError> {
    let total = report.figures.log_end.get();
    let path = dir.join("index");
    let log = Log::open(Arc::new(LookingDisk), &dir.join("log"), LogSettings::default())?;
    let quarantine = Quarantine::read(dir)?;
    let made =
        rebuild_index(&log, quarantine, find_base(dir).as_deref(), &temporary.join("index"), Some(applied), |done| {
            progress(Progress { stage: "making an index from the log", done: done.get(), total: Some(total) });
        });
    if let Err(error) = made {
        report.find(Kind::IndexDiffers, &path, None, format!("no index can be made from the log: {error}"));
        return Ok(());
    }
    progress(Progress { stage: "comparing", done: 0, total: None });
    let differences = open_read_only(&path).and_then(|stored| {
        let made = open_read_only(&temporary.join("index"))?;
        let mut differences = Vec::new();
        for (letter, name) in TABLES {
            let difference = first_difference(rows(&stored, letter), rows(&made, letter))?;
            differences.extend(difference.map(|why| format!("table {name}: {why}")));
        }
        let difference = first_difference(entries(&stored), entries(&made))?;
        differences.extend(difference.map(|why| format!("table queue: {why}")));
        let difference = first_difference(decisions(&stored)?, decisions(&made)?)?;
        differences.extend(difference.map(|why| format!("table decision: {why}")));
        let difference = first_difference(repeats(&stored)?, repeats(&made)?)?;
        differences.extend(difference.map(|why| format!("table repeat: {why}")));
        Ok(differences)
    });
    match differences {
        Ok(differences) => {
            report.figures.is_compared = true;
            for what in differences {
                report.find(Kind::IndexDiffers, &path, None, what);
            }
        }
        Err(error) => report.find(Kind::IndexUnreadable, &path, None, error.to_string()),
    }
    Ok(())
}

/// The first place where two ordered lists are not equal, and how many there are.
fn first_difference<T: PartialEq + Ord + std::fmt::Debug>(
    stored: impl Iterator<Item = Result<T, IndexError>>,
    made: impl Iterator<Item = Result<T, IndexError>>,
) -> Result<Option<String>, IndexError> {
    let (mut stored, mut made) = (stored, made);
    let (mut left, mut right) = (stored.next().transpose()?, made.next().transpose()?);
    let mut first = None;
    let mut count = 0u64;
    loop {
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => left.cmp(right),
        };
        if order.is_ne() {
            count += 1;
            first.get_or_insert_with(|| match order {
                std::cmp::Ordering::Less => format!("the log does not lead to {left:?}"),
                _ => format!("the log leads to {right:?}, which is not there"),
            });
        }
        if order.is_le() {
            left = stored.next().transpose()?;
        }
        if order.is_ge() {
            right = made.next().transpose()?;
        }
    }
    Ok(first.map(|first| format!("{count} rows differ; {first}")))
}

fn rows(index: &IndexReader, letter: u8) -> impl Iterator<Item = Result<Row, IndexError>> + use<'_> {
    let format_row = [&[table::META], FORMAT_ROW.as_bytes()].concat();
    index
        .scan(&[letter], &after_prefix(&[letter]))
        .filter(move |row| row.as_ref().map_or(true, |(key, _)| **key != *format_row))
}

fn repeats(index: &IndexReader) -> Result<impl Iterator<Item = Result<Row, IndexError>> + use<'_>, IndexError> {
    let now = meta::applied(index)?.map_or(Stamp::ZERO, |applied| applied.stamp);
    let is_seen = move |(_, value): &Row| !verify::is_ended_repeat(value, now);
    Ok(rows(index, table::REPEAT).filter(move |row| row.as_ref().map_or(true, is_seen)))
}

/// The decisions that are remembered, each as a text.
fn decisions(
    index: &IndexReader,
) -> Result<impl Iterator<Item = Result<(HalfId, String), IndexError>> + use<>, IndexError> {
    let mut all = Vec::new();
    decision::for_all(index, |half, row| all.push(Ok((half, format!("{row:?}")))))?;
    Ok(all.into_iter())
}

/// An entry of a queue, for comparison.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    queue: u32,
    offset: QueueOffset,
    position: Position,
    length: u32,
    tag_hash: i32,
    store_time: Stamp,
    flags: u8,
    half: HalfId,
}

fn entry(queue: QueueId, entry: QueueEntry) -> Entry {
    Entry {
        queue: queue.0,
        offset: entry.offset,
        position: entry.position,
        length: entry.length,
        tag_hash: entry.tag_hash,
        store_time: entry.store_time,
        flags: entry.flags.bits(),
        half: entry.half,
    }
}

fn entries(index: &IndexReader) -> impl Iterator<Item = Result<Entry, IndexError>> + use<'_> {
    rows(index, table::QUEUE).flat_map(|row| {
        let mut found = Vec::new();
        let result = row
            .and_then(|(key, value)| verify::entries(&key, &value, |queue, each| found.push(Ok(entry(queue, each)))));
        found.extend(result.err().map(Err));
        found
    })
}
