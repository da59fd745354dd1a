//! The log: segments, records, what is in them, the vote.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CheckError, Kind, MalformedEntry, OnProgress, Progress, Report};
use crate::log::{LookingDisk, OpenError, SeenRecord, check_with};
use crate::raft::kind;
use crate::shard::{Batch, Command, Message, Quarantine, QuarantinedEntry, Unit};
use crate::terms::{FIRST_LEVEL, Malformed};

/// Bytes of the log between two reports of progress.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Checks the log in `dir`, of which the entries in `quarantine` are not applied.
pub(super) fn check(
    dir: &Path,
    quarantine: &Quarantine,
    report: &mut Report,
    progress: OnProgress<'_>,
) -> Result<(), CheckError> {
    let total = bytes_of(dir)?;
    let mut inside = Report::default();
    let mut read = 0;
    let mut shown = 0;
    let checked = check_with(&LookingDisk, dir, |record| {
        read += record.payload.len() as u64;
        if read >= shown + PROGRESS_BYTES {
            shown = read;
            progress(Progress { stage: "reading the log", done: read.min(total), total: Some(total) });
        }
        look_inside(&record, quarantine, &mut inside);
    })?;
    let figures = &mut report.figures;
    figures.segments = checked.segments.len() as u64;
    figures.messages = inside.figures.messages;
    figures.records = checked.segments.iter().map(|segment| segment.records).sum();
    if let (Some(first), Some(last)) = (checked.segments.first(), checked.segments.last()) {
        figures.log_start = first.start;
        figures.log_end = last.end;
        figures.last_index = last.last.map(|last| last.index);
        figures.last_term = last.last.map(|last| last.term);
    }
    let damage = checked.verdict.err();
    let newest = checked.segments.len().wrapping_sub(1);
    for (nth, segment) in checked.segments.iter().enumerate() {
        for position in &segment.damaged_locals {
            let what = format!("the note of the record at position {position} has a wrong checksum");
            report.find(Kind::RecordNote, &segment.path, Some(segment.offset_of(*position)), what);
        }
        let is_the_damage = matches!(&damage, Some(OpenError::Corrupt { file, .. }) if *file == segment.path)
            || matches!(&damage, Some(OpenError::NewerFormat { file, .. }) if *file == segment.path);
        if let Some(fault) = segment.fault.as_ref().filter(|_| !is_the_damage) {
            // Behind other damage the newest segment is not judged: what is torn there is cut with the rest.
            let kind = match segment.records {
                0 if segment.first_index.is_none() && segment.last.is_none() && nth > 0 => Kind::LogDamaged,
                _ if nth == newest => Kind::TornTail,
                _ if segment.end == checked.segments[nth + 1].start => Kind::StrayBytes,
                _ => Kind::LogDamaged,
            };
            let offset = segment.offset_of(segment.end);
            report.find(kind, &segment.path, Some(offset), format!("{fault} (log position {})", segment.end));
        }
    }
    match damage {
        None => {}
        Some(OpenError::Corrupt { file, offset, position, why }) => {
            let is_vote = file.file_name().is_some_and(|name| name == "vote") || why.contains("vote file");
            let kind = if is_vote { Kind::VoteLost } else { Kind::LogDamaged };
            report.find(kind, &file, Some(offset), format!("{why} (log position {position})"));
        }
        Some(OpenError::NewerFormat { file, found, known }) => {
            let what = format!("format version {found}, this program knows versions up to {known}");
            report.find(Kind::OtherFormat, &file, None, what);
        }
        Some(error) => return Err(error.into()),
    }
    if !report.has(Kind::VoteLost) {
        for slot in checked.votes {
            report.find(Kind::VoteCopy, &slot.path, Some(slot.offset), "its checksum is wrong");
        }
    }
    report.findings.append(&mut inside.findings);
    report.notes.append(&mut inside.notes);
    report.malformed.append(&mut inside.malformed);
    Ok(())
}

/// The size of all segments.
fn bytes_of(dir: &Path) -> Result<u64, CheckError> {
    let failed = |source| CheckError::Io { path: dir.to_owned(), source };
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(bytes)
}

/// Decodes a record's commands and verifies the messages in them.
fn look_inside(record: &SeenRecord<'_>, quarantine: &Quarantine, report: &mut Report) {
    if record.kind != kind::BATCH {
        return;
    }
    let mut each = |message: &Message<'_>| {
        report.figures.messages += 1;
        if let Unit::Stored { at, bytes, crc } = message.unit
            && crc32fast::hash(bytes) != crc
        {
            let what = format!("a message of record {} does not have its checksum", record.index);
            report.find(Kind::MessageDamaged, record.path, Some(record.payload_offset + at as u64), what);
        }
    };
    let read = messages(record.payload, &mut each);
    if let Ok(level) = read {
        report.find_level(record.path, Some(record.payload_offset), level);
    }
    if let Err(malformed) = read {
        let checksum = crc32fast::hash(record.payload);
        let (index, position) = (record.index, record.position);
        let what = format!("record {index} (log position {position}, checksum {checksum:08x}): {malformed}");
        if quarantine.holds(index, checksum) {
            report.notes.push(format!("{what}. It is in quarantine: what it held is lost"));
            return;
        }
        let place = (record.path.to_owned(), record.payload_offset + malformed.at as u64);
        report.find(Kind::CommandMalformed, &place.0, Some(place.1), what);
        let reason = malformed.to_string();
        let entry = QuarantinedEntry { index, term: record.term, checksum, bytes: record.payload.len(), reason };
        report.malformed.push(MalformedEntry { entry, place, lost: lost_with(record.payload) });
    }
}

/// Says in words which commands are lost with an entry that does not decode. Those in front of the fault are named, the others
/// can only be counted.
fn lost_with(payload: &[u8]) -> String {
    let Ok(batch) = Batch::decode(payload) else { return format!("all of its {} bytes", payload.len()) };
    let mut known: BTreeMap<&'static str, u32> = BTreeMap::new();
    for command in batch.readable() {
        *known.entry(command.name()).or_default() += 1;
    }
    let read: u32 = known.values().sum();
    let mut parts: Vec<String> = known.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    parts.push(format!("{} that cannot be read", batch.count().saturating_sub(read)));
    format!("its {} commands: {}", batch.count(), parts.join(", "))
}

/// Says the feature level of what is in the payload.
fn messages(payload: &[u8], each: &mut impl FnMut(&Message<'_>)) -> Result<u32, Malformed> {
    let mut level = FIRST_LEVEL;
    for command in Batch::decode(payload)?.commands()? {
        level = level.max(command.level());
        match command {
            Command::Publish(publish) => publish.messages.stored().for_each(|message| each(&message)),
            Command::Prepare(prepare) => each(&prepare.message),
            Command::Settle(settle) => settle.rewritten.iter().for_each(|(_, message)| each(message)),
            _ => {}
        }
    }
    Ok(level)
}
