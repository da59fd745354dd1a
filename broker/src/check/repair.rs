//! Repairing what a check found.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Finding, Kind, MalformedEntry, OnProgress, Progress, Report};
use crate::limits::{MEMBER, RECOVERING, mark_recovering};
use crate::log::{Log, LogSettings, OpenError, RealDisk, SEGMENT_BYTES_MIN, make_good, salvage, salvage_end};
use crate::shard::{Quarantine, QuarantineError, RebuildError, find_base, make_base, rebuild_index, remove_base};
use crate::terms::{LogIndex, Position};

/// The unsafe steps that a repair may take.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// The file and the byte of a [`Kind::LogDamaged`] or [`Kind::IndexAhead`] finding: **acknowledged bytes from there
    /// on are given up**.
    pub drop_acknowledged_after: Option<(PathBuf, u64)>,
    /// Gives up bytes of a member of a group, too, which goes on alone then: **what only the others have is lost**. The
    /// folder is marked as one that is being recovered.
    pub others_are_lost: bool,
    /// The index of a record of a [`Kind::CommandMalformed`] finding: it is set aside, and **what it held is lost**.
    pub quarantine: Option<LogIndex>,
}

/// A step of a repair that was done, or was not and why, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something was changed.
    Done(String),
    /// Something that was found stays as it is.
    Left(String),
}

/// Why a repair stopped. The steps that were done until then are good and stay.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The place to give up bytes from is none that was found.
    #[error("{} at byte {offset} is none of the places that were found damaged; nothing was changed", file.display())]
    NoSuchPlace {
        /// The file that was named.
        file: PathBuf,
        /// The byte that was named.
        offset: u64,
    },
    /// The log is that of a member of a group, which must not forget what it told the others.
    #[error(
        "{} is the folder of a member of a group, which counts on every byte that this member acknowledged: bytes that are \
         given up might be lost everywhere. Empty the folder and start the member: it joins again under a new id and gets \
         everything from the others. If there are no others any more, add --others-are-lost, and end with \
         `escrowmq group recover --force`. Nothing was changed",
        dir.display()
    )]
    OfGroup {
        /// The folder.
        dir: PathBuf,
    },
    /// The record to set aside is none that was found malformed.
    #[error("record {0} is none of those that do not decode; nothing was changed")]
    NoSuchEntry(LogIndex),
    /// The record cannot be set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// Giving up bytes would leave an index that cannot be made again.
    #[error(
        "the log begins at position {start} and would end at {cut}: no index can be made from that, since {why}; restore \
         a backup. Nothing was changed"
    )]
    NoWayBack {
        /// Where the log begins.
        start: Position,
        /// Where it would end.
        cut: Position,
        /// The fault of the copy of the index.
        why: String,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A new index.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// A file.
    #[error("cannot change {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Kinds that a new index cures.
const CURED_BY_REBUILD: [Kind; 3] = [Kind::IndexUnreadable, Kind::IndexRow, Kind::IndexDiffers];
/// The name of an index while it is made.
const UNFINISHED: &str = "index.rebuilding";

pub(super) fn repair(
    dir: &Path,
    report: &Report,
    options: &RepairOptions,
    progress: OnProgress<'_>,
) -> Result<Vec<Action>, RepairError> {
    let mut actions = Vec::new();
    let log = dir.join("log");
    let dropped = options.drop_acknowledged_after.as_ref();
    let lost: Vec<&Finding> =
        report.findings.iter().filter(|finding| matches!(finding.kind, Kind::LogDamaged | Kind::IndexAhead)).collect();
    if let Some((file, offset)) = dropped {
        let named = |finding: &&&Finding| finding.offset == Some(*offset) && is_same(&finding.file, file);
        if lost.iter().find(named).is_none() {
            return Err(RepairError::NoSuchPlace { file: file.clone(), offset: *offset });
        }
    }
    let aside = match options.quarantine {
        Some(index) => {
            let named = report.malformed.iter().find(|malformed| malformed.entry.index == index);
            Some(named.ok_or(RepairError::NoSuchEntry(index))?)
        }
        None => None,
    };
    for finding in &report.findings {
        if finding.kind == Kind::OtherFormat {
            actions.push(Action::Left(format!("{finding}. It is not touched, and nothing else is")));
            return Ok(actions);
        }
    }
    if dropped.is_some() && dir.join(MEMBER).exists() && !options.others_are_lost {
        return Err(RepairError::OfGroup { dir: dir.to_owned() });
    }
    if dropped.is_none() && !lost.is_empty() || report.has(Kind::VoteLost) {
        let left = report
            .findings
            .iter()
            .filter(|finding| matches!(finding.kind, Kind::LogDamaged | Kind::IndexAhead | Kind::VoteLost));
        actions.extend(left.map(|finding| Action::Left(format!("{finding}. To {}", finding.kind.advice()))));
        return Ok(actions);
    }
    if let Some(MalformedEntry { entry, lost, .. }) = aside {
        let path = entry.write(dir)?;
        actions.push(Action::Done(format!(
            "set record {} aside, checksum {:08x}: {}. LOST is {lost}. In a group copy {} to every member",
            entry.index,
            entry.checksum,
            entry.reason,
            path.display()
        )));
    }
    let mut rebuild = report.findings.iter().any(|finding| CURED_BY_REBUILD.contains(&finding.kind));
    if dropped.is_some() {
        rebuild |= give_up(dir, rebuild, report, &mut actions)?;
    }
    if report.has(Kind::TornTail) || report.has(Kind::VoteCopy) {
        // Recovery does exactly this.
        drop(open_log(&log)?);
        actions.push(Action::Done("cut the torn tail and wrote both copies of the vote, as a start would".to_owned()));
    }
    if report.has(Kind::StrayBytes) || report.has(Kind::RecordNote) {
        for path in make_good(&RealDisk, &log)? {
            actions.push(Action::Done(format!("made good what nobody reads in {}", path.display())));
        }
    }
    if rebuild {
        if report.figures.is_complete {
            rebuild_here(dir, progress)?;
            let from =
                if report.figures.log_start == Position::ZERO { "the log" } else { "the copy `base` and the log" };
            actions.push(Action::Done(format!("made the index anew from {from}")));
        } else {
            actions.push(Action::Left(
                "the index stays: the log does not begin at its first record, and there is no whole copy `base` of an \
                 index, so none can be made; restore a backup"
                    .to_owned(),
            ));
        }
    }
    if report.has(Kind::BaseDamaged) {
        actions.push(repair_base(dir, rebuild, report)?);
    }
    for finding in &report.findings {
        match finding.kind {
            Kind::KeysDamaged => {
                let failed = |source| RepairError::Io { path: finding.file.clone(), source };
                fs::remove_file(&finding.file).map_err(failed)?;
                let what = format!("removed {}; the next start builds it anew", finding.file.display());
                actions.push(Action::Done(what));
            }
            Kind::CommandMalformed if aside.is_some_and(|aside| aside.is_of(finding)) => {}
            Kind::MessageDamaged | Kind::CommandMalformed | Kind::IndexBehind => {
                actions.push(Action::Left(format!("{finding}. {}", finding.kind.advice())));
            }
            _ => {}
        }
    }
    Ok(actions)
}

/// Opens the log as a start would, but prepares no large file for what comes next.
fn open_log(dir: &Path) -> Result<Log, OpenError> {
    Log::open(Arc::new(RealDisk), dir, LogSettings { segment_bytes: SEGMENT_BYTES_MIN, ..LogSettings::default() })
}

fn is_same(left: &Path, right: &Path) -> bool {
    left == right || left.canonicalize().ok().is_some_and(|left| right.canonicalize().ok() == Some(left))
}

/// Gives up acknowledged bytes, and says whether a new index must be made. `rebuild` says that it must be anyway.
fn give_up(dir: &Path, rebuild: bool, report: &Report, actions: &mut Vec<Action>) -> Result<bool, RepairError> {
    let (log, figures) = (dir.join("log"), &report.figures);
    let cut = salvage_end(&RealDisk, &log)?;
    let is_ahead = figures.applied.is_none_or(|(_, end)| end > cut);
    let base = figures.base.filter(|_| !report.has(Kind::BaseDamaged));
    if figures.log_start > Position::ZERO && (is_ahead || rebuild) {
        let why = match base {
            None => Some("there is no whole copy `base` of an index".to_owned()),
            Some((_, end)) if end > cut => Some(format!("the copy `base` has applied the log up to {end}")),
            Some((_, end)) if end < figures.log_start => Some("the copy `base` is too old".to_owned()),
            Some(_) => None,
        };
        if let Some(why) = why {
            return Err(RepairError::NoWayBack { start: figures.log_start, cut, why });
        }
    }
    if dir.join(MEMBER).exists() {
        // Whatever happens from here on, no broker starts under the old id.
        mark_recovering(dir).map_err(|source| RepairError::Io { path: dir.join(RECOVERING), source })?;
        actions.push(Action::Done(
            "marked the folder: no broker starts here until `escrowmq group recover --force` has made it the only member \
             of its group"
                .to_owned(),
        ));
    }
    // The positions that are given up will be written differently: no later start may take them from a copy.
    if find_base(dir).is_some() && base.is_none_or(|(_, end)| end > cut) {
        let failed = |source| RepairError::Io { path: dir.join("base"), source };
        remove_base(dir).map_err(failed)?;
        actions.push(Action::Done("removed the copy `base` of the index, which holds what is given up".to_owned()));
    }
    let kept = salvage(&RealDisk, &log)?;
    let last = kept.last.map_or("none".to_owned(), |last| last.index.to_string());
    actions.push(Action::Done(format!(
        "gave up everything in the log from position {} on; the last record kept is {last}",
        kept.end
    )));
    actions.extend(kept.set_aside.iter().map(|path| {
        Action::Done(format!("kept a copy of what was there in {}; remove it when nobody needs it", path.display()))
    }));
    Ok(is_ahead)
}

/// Makes a new copy of the index from an index that is whole, or removes it where the log alone will do.
fn repair_base(dir: &Path, rebuilt: bool, report: &Report) -> Result<Action, RepairError> {
    let failed = |source| RepairError::Io { path: dir.join("base"), source };
    if report.figures.log_start == Position::ZERO {
        remove_base(dir).map_err(failed)?;
        return Ok(Action::Done("removed the copy `base` of the index: the log has everything".to_owned()));
    }
    let is_index_whole = report.figures.applied.is_some() && !rebuilt && !report.has(Kind::IndexBehind);
    if !is_index_whole {
        let finding = report.findings.iter().find(|finding| finding.kind == Kind::BaseDamaged);
        let what = finding.map_or(String::new(), ToString::to_string);
        return Ok(Action::Left(format!("{what}. The index is not whole either: restore a backup")));
    }
    make_base(dir).map_err(failed)?;
    Ok(Action::Done("made the copy `base` anew from the index".to_owned()))
}

/// Makes an index beside the old one and puts it in its place. Interrupted at any point, the next start or the next
/// repair goes on from the log, which has everything.
fn rebuild_here(dir: &Path, progress: OnProgress<'_>) -> Result<(), RepairError> {
    let (path, unfinished) = (dir.join("index"), dir.join(UNFINISHED));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RepairError::Io { path, source }
    };
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(failed(&unfinished))?;
    }
    let log = open_log(&dir.join("log"))?;
    let total = log.end().get();
    // Later entries are applied by the next start, when it knows that they are committed.
    let committed = log.committed();
    let quarantine = Quarantine::read(dir)?;
    rebuild_index(&log, quarantine, find_base(dir).as_deref(), &unfinished, committed, |done| {
        progress(Progress { stage: "making the index from the log", done: done.get(), total: Some(total) });
    })?;
    if path.exists() {
        fs::remove_dir_all(&path).map_err(failed(&path))?;
    }
    fs::rename(&unfinished, &path).map_err(failed(&unfinished))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}
