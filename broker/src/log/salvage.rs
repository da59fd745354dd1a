//! Saving what is left of a damaged log: what `escrowmq fsck --repair --drop-acknowledged-after` does.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{id_of, lock, open_found};
use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::format::{Claim, LOCAL_BYTES, Link, SEGMENT_HEADER_BYTES, segment_path};
use super::record::RecordId;
use super::recovery::{io_error, judge, segment_starts};
use super::scan::{Found, SCAN_BYTES, scan};
use super::settings::LogSettings;
use super::vote::VoteFile;
use crate::terms::Position;

/// The result of [`salvage`].
#[derive(Debug)]
pub struct Salvage {
    /// Where the log ends now.
    pub end: Position,
    /// The last record kept.
    pub last: Option<RecordId>,
    /// Copies of what did not stay, for an expert to look at.
    pub set_aside: Vec<PathBuf>,
}

/// Cuts a damaged log after its last good record before the damage, so that it can be opened. **This gives up records
/// that had been acknowledged.** It is for a broker without replicas, when the disk has lost them anyway. The bytes
/// that do not stay are kept beside the log in files that end in `.damaged`. State derived from the lost records must
/// be rebuilt by the caller.
///
/// A log that can be opened is left as it is. Fails if the vote file is missing or unreadable: a replica
/// without its vote must not come back by itself.
pub fn salvage(disk: &dyn Disk, dir: &Path) -> Result<Salvage, OpenError> {
    let _lock = lock(disk, dir)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let starts = segment_starts(&names);
    let settings = LogSettings { verify_all: true, ..LogSettings::default() };
    let sound = match judge(disk, dir, &settings) {
        Ok(()) => true,
        Err(OpenError::Corrupt { .. }) if VoteFile::exists(&names) => false,
        Err(error) => return Err(error),
    };
    let mut good = good_prefix(disk, dir, &starts)?;
    if good.segments == 0 {
        // Nothing is left, so the log begins at zero again.
        good.end = Position::ZERO;
    }
    let mut set_aside = Vec::new();
    let outcome = |set_aside| Salvage { end: good.end, last: good.last.map(id_of), set_aside };
    if sound {
        return Ok(outcome(set_aside));
    }
    // First the claim, then from the newest file on: after a crash this can simply be run again.
    let mut vote = VoteFile::load(disk, dir, VoteFile::exists(&names))?.open(disk, dir)?;
    vote.lower_durable_end(good.end).map_err(io_error("write the vote file in", dir))?;
    for &start in starts[good.segments..].iter().rev() {
        let path = segment_path(dir, start);
        let aside = aside(&path);
        disk.rename(&path, &aside).map_err(io_error("set aside", &path))?;
        disk.sync_dir(dir).map_err(io_error("flush the folder", dir))?;
        set_aside.push(aside);
    }
    if let Some(newest) = good.newest {
        let aside = aside(&newest.path);
        copy(disk, &*newest.file, &aside).map_err(io_error("copy to", &aside))?;
        disk.sync_dir(dir).map_err(io_error("flush the folder", dir))?;
        set_aside.push(aside);
        let len = SEGMENT_HEADER_BYTES + good.end.since(newest.header.start);
        newest.file.set_len(len).and_then(|()| newest.file.sync_data()).map_err(io_error("cut", &newest.path))?;
    }
    Ok(outcome(set_aside))
}

/// Where [`salvage`] would cut: after the last good record before any damage. Changes nothing.
pub fn salvage_end(disk: &dyn Disk, dir: &Path) -> Result<Position, OpenError> {
    let _lock = lock(disk, dir)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let good = good_prefix(disk, dir, &segment_starts(&names))?;
    Ok(if good.segments == 0 { Position::ZERO } else { good.end })
}

/// Blanks the free space of finished segments and gives records whose note is damaged a new one that claims nothing.
/// Answers the files that were changed. No byte that anybody reads is touched.
pub fn make_good(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let _lock = lock(disk, dir)?;
    judge(disk, dir, &LogSettings::default())?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let starts = segment_starts(&names);
    let mut changed = Vec::new();
    for (nth, &start) in starts.iter().enumerate() {
        let path = segment_path(dir, start);
        let found = open_found(disk, &path, start)?;
        let scan = scan(&found)?;
        let is_newest = nth + 1 == starts.len();
        for &position in &scan.damaged_locals {
            let header = found.header_at(position).map_err(io_error("read", &path))?;
            let Some(header) = header else { continue };
            let mut note = Vec::new();
            Claim { durable_end: Position::ZERO, committed: None }.encode_local(found.header.salt, position, &mut note);
            let at = found.offset_of(position) + u64::from(header.length) - LOCAL_BYTES;
            found.file.write_vectored_at(&[IoSlice::new(&note)], at).map_err(io_error("write", &path))?;
        }
        // Only where all records up to the next segment are good is what follows of no use.
        let stray = scan.fault.is_some() && !is_newest && scan.end == starts[nth + 1];
        if stray {
            found.file.set_len(found.offset_of(scan.end)).map_err(io_error("cut", &path))?;
        }
        if stray || !scan.damaged_locals.is_empty() {
            found.file.sync_data().map_err(io_error("flush", &path))?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// The segments from the oldest on as far as all is well.
struct GoodPrefix {
    /// How many segments have something to keep.
    segments: usize,
    /// The last of these.
    newest: Option<Found>,
    end: Position,
    last: Option<Link>,
}

fn good_prefix(disk: &dyn Disk, dir: &Path, starts: &[Position]) -> Result<GoodPrefix, OpenError> {
    let first = starts.first().copied().unwrap_or(Position::ZERO);
    let mut good = GoodPrefix { segments: 0, newest: None, end: first, last: None };
    for &start in starts {
        let found = match open_found(disk, &segment_path(dir, start), start) {
            Ok(found) => found,
            Err(error @ (OpenError::Io { .. } | OpenError::NewerFormat { .. })) => return Err(error),
            Err(_) => break,
        };
        // Records before the first segment have been purged; all other segments continue their predecessor.
        if good.segments > 0 && (start != good.end || found.header.previous != good.last) {
            break;
        }
        let scan = scan(&found)?;
        good.segments += 1;
        good.newest = Some(found);
        good.end = scan.end;
        good.last = scan.last;
        if scan.fault.is_some() {
            break;
        }
    }
    Ok(good)
}

fn copy(disk: &dyn Disk, from: &dyn DiskFile, to: &Path) -> io::Result<()> {
    let to: Arc<dyn DiskFile> = disk.create(to)?;
    let mut buffer = vec![0; SCAN_BYTES];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut buffer, offset)?;
        if read == 0 {
            return to.sync_data();
        }
        to.write_vectored_at(&[IoSlice::new(&buffer[..read])], offset)?;
        offset += read as u64;
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}
