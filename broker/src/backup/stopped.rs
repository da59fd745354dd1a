//! The files to copy of a broker that does not run.

use std::fs;
use std::path::Path;

use super::target::write_whole;
use super::{BackupError, Prepared, PreparedFile, failed, new_id};
use crate::check::{Folder, Kind, Progress};
use crate::log::format::{SEGMENT_HEADER_BYTES, segment_start};
use crate::log::{LookingDisk, vote_for_copy};
use crate::shard::{QUARANTINE, Quarantine, find_base};
use crate::terms::{LogIndex, Position, Stamp};

/// Names the files of the store in `folder`, which must have nothing wrong but a torn tail. `scratch` is a folder for
/// files that the copy needs in another form. Blocks: reads the whole store.
pub fn prepare(
    folder: &Folder,
    scratch: &Path,
    now_ms: Stamp,
    progress: &mut dyn FnMut(Progress),
) -> Result<Prepared, BackupError> {
    let report = folder.check(false, progress)?;
    let harmless =
        [Kind::TornTail, Kind::StrayBytes, Kind::RecordNote, Kind::VoteCopy, Kind::BaseDamaged, Kind::KeysDamaged];
    if let Some(finding) = report.findings.iter().find(|finding| !harmless.contains(&finding.kind)) {
        return Err(BackupError::Findings(finding.to_string()));
    }
    let figures = &report.figures;
    let log = folder.dir().join("log");
    let mut files = Vec::new();
    let mut starts = Vec::new();
    for entry in fs::read_dir(&log).map_err(failed("list", &log))? {
        let name = entry.map_err(failed("list", &log))?.file_name().to_string_lossy().into_owned();
        starts.extend(segment_start(&name).map(|start| (start, name)));
    }
    starts.sort_unstable();
    for (nth, (start, name)) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).map_or(figures.log_end, |(next, _)| *next);
        if end > *start {
            let bytes = SEGMENT_HEADER_BYTES + end.since(*start);
            files.push(PreparedFile { name: format!("log/{name}"), path: log.join(name), bytes });
        }
    }
    let vote = vote_for_copy(&LookingDisk, &log, figures.log_end)?;
    let path = scratch.join("vote");
    write_whole(&path, &vote)?;
    files.push(PreparedFile { name: "log/vote".to_owned(), path, bytes: vote.len() as u64 });
    files.extend(quarantine_files(folder.dir())?);
    let index = folder.dir().join("index");
    if index.join("CURRENT").exists() {
        files.extend(index_files(&index)?);
    } else if figures.log_start > Position::ZERO {
        // The check found it whole: it is what a start would begin with.
        let base = find_base(folder.dir()).expect("a trimmed log without index and base is a finding");
        files.extend(index_files(&base)?);
    }
    Ok(Prepared {
        id: new_id(now_ms),
        created: now_ms,
        log_start: figures.log_start,
        log_end: figures.log_end,
        applied: figures.applied.or(figures.base).map_or(LogIndex::ZERO, |(index, _)| index),
        last: figures.last_term.zip(figures.last_index),
        files,
    })
}

/// The files that name the entries of the log which are set aside: a log that has one does not start without them.
pub(super) fn quarantine_files(shard: &Path) -> Result<Vec<PreparedFile>, BackupError> {
    let mut files = Vec::new();
    for path in Quarantine::files(shard).map_err(BackupError::Quarantine)? {
        let bytes = path.metadata().map_err(failed("measure", &path))?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push(PreparedFile { name: format!("{QUARANTINE}/{name}"), path: path.clone(), bytes });
    }
    Ok(files)
}

/// The files of an index that nobody has open, but for its lock and its own log texts.
pub(super) fn index_files(index: &Path) -> Result<Vec<PreparedFile>, BackupError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(index).map_err(failed("list", index))? {
        let entry = entry.map_err(failed("list", index))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata().map_err(failed("measure", index))?;
        if metadata.is_file() && name != "LOCK" && !name.starts_with("LOG") {
            files.push(PreparedFile { name: format!("index/{name}"), path: entry.path(), bytes: metadata.len() });
        }
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}
