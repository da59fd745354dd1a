//! The folder that a copy is fetched into, and its way to the place of the old state.
//!
//! ```text
//! <store>/fetched/log, index, base, quarantine   the copy; names that end in `.part` did not come whole
//! <store>/fetched/complete                       it is whole and was checked: names the entry that it ends with
//! <store>/fetched/switch                         was `complete`: the copy counts from now on
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Cut, SnapshotError, failed, offer};
use crate::latch::FailureLatch;
use crate::limits::{FETCHED, SWITCH};
use crate::log::{Log, LogSettings, RealDisk, RecordId, encode_vote_file};
use crate::planted::{Bug, planted};
use crate::shard::{INDEX, QUARANTINE};
use crate::terms::{Position, decode_cold, encode_cold};

const LOG: &str = "log";
const BASE: &str = "base";
/// The folders that a copy has files of.
pub(super) const FOLDERS: [&str; 3] = [LOG, INDEX, QUARANTINE];
/// The file that is never fetched.
pub(super) const VOTE: &str = "log/vote";
/// Made from the state, and wrong beside another one.
const DERIVED: [&str; 4] = ["base.new", "base.old", "index.new", "keys"];

const COMPLETE: &str = "complete";

/// Whether a log that ends with `own` may be replaced by a copy that ends with `cut`. What this member has acknowledged
/// may be part of a majority, so it must not lose any of it that others may need. An entry of the copy's last term or an
/// older one, which the copy does not have, was not committed: the leader of that term, whose log the copy is, did not have
/// it. Entries behind the copy's end in its own term, or of a newer term, may be committed.
pub(crate) fn may_replace(own: Option<RecordId>, cut: &Cut) -> bool {
    own.is_none_or(|own| (own.term, own.index) <= (cut.term, cut.index))
}

/// The vote file of a copy: this member's own vote, beside the end of the copy's log.
pub(crate) fn carried_vote(own: Option<Vec<u8>>, end: Position) -> Vec<u8> {
    encode_vote_file(own.filter(|_| !planted(Bug::VoteLostInSnapshot)), end)
}

/// Where a copy is fetched to.
pub(super) fn folder(store: &Path) -> PathBuf {
    store.join(FETCHED)
}

/// Writes that the copy is whole. Everything of it is durable.
pub(super) fn complete(store: &Path, cut: &Cut) -> Result<(), SnapshotError> {
    let folder = folder(store);
    let body = encode_cold(cut);
    let content = [crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat();
    let (new, path) = (folder.join("complete.new"), folder.join(COMPLETE));
    write_durably(&new, &content).map_err(failed("write", &new))?;
    fs::rename(&new, &path).and_then(|()| sync(&folder)).map_err(failed("write", &path))
}

/// The entry that a whole copy ends with. A damaged file says that there is none.
fn completed(folder: &Path) -> Result<Option<Cut>, SnapshotError> {
    let path = folder.join(COMPLETE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let body = bytes.split_at_checked(4).filter(|(sum, body)| *sum == crc32fast::hash(body).to_be_bytes());
    Ok(body.and_then(|(_, body)| decode_cold(body).ok()))
}

/// Puts a copy that is whole into the place of the state, before anything of it is open. Blocks.
///
/// # Errors
/// The files cannot be moved, or the own log cannot be opened. The old state counts, or the next try goes on.
pub(crate) fn settle(store: &Path, settings: &LogSettings) -> Result<(), SnapshotError> {
    settle_with(store, settings, &mut || Ok(()))
}

/// Like [`settle`]; `step` is called before each thing that is done, and may end it there.
pub(super) fn settle_with(
    store: &Path,
    settings: &LogSettings,
    step: &mut dyn FnMut() -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    // Links that an earlier process offered.
    remove(&store.join(offer::FOLDER))?;
    let folder = folder(store);
    if folder.join(SWITCH).exists() {
        return switch(store, step);
    }
    let Some(cut) = completed(&folder)? else { return Ok(()) };
    let (last, vote) = own(store, settings)?;
    if !may_replace(last, &cut) {
        tracing::warn!(?last, upto = %cut.index, "the fetched copy of the state is older than this member's log, and is dropped");
        return discard(store);
    }
    step()?;
    let path = folder.join(VOTE);
    write_durably(&path, &carried_vote(vote, cut.end)).map_err(failed("write", &path))?;
    let log = folder.join(LOG);
    sync(&log).map_err(failed("flush", &log))?;
    step()?;
    // From here on the copy counts.
    fs::rename(folder.join(COMPLETE), folder.join(SWITCH))
        .and_then(|()| sync(&folder))
        .map_err(failed("write", &folder.join(SWITCH)))?;
    tracing::info!(upto = %cut.index, "this member goes on with a copy of the group's state");
    switch(store, step)
}

/// The last entry and the vote of the own log.
fn own(store: &Path, settings: &LogSettings) -> Result<(Option<RecordId>, Option<Vec<u8>>), SnapshotError> {
    let settings = LogSettings { latch: FailureLatch::default(), ..settings.clone() };
    let log = Log::open(Arc::new(RealDisk), &store.join(LOG), settings)?;
    let own = (log.last().or(log.purged()), log.vote());
    // Nothing was written: there is nothing that could fail.
    let _ = log.close();
    Ok(own)
}

/// Moves what was not moved yet. Each step can be done again.
fn switch(store: &Path, step: &mut dyn FnMut() -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
    let folder = folder(store);
    for name in DERIVED {
        step()?;
        remove(&store.join(name))?;
    }
    for name in [QUARANTINE, BASE, INDEX, LOG] {
        let (new, own) = (folder.join(name), store.join(name));
        if new.exists() {
            step()?;
            remove(&own)?;
            step()?;
            fs::rename(&new, &own).map_err(failed("rename", &new))?;
        }
    }
    sync(store).map_err(failed("flush", store))?;
    step()?;
    remove(&folder)
}

/// Says durably that there is no whole copy, before anything of one goes: a crash must not leave the word without the files.
pub(super) fn revoke(store: &Path) -> Result<(), SnapshotError> {
    let folder = folder(store);
    let path = folder.join(COMPLETE);
    match fs::remove_file(&path) {
        Ok(()) => sync(&folder).map_err(failed("flush", &folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", &path)(error)),
    }
}

/// Drops what was fetched, whole or not.
pub(super) fn discard(store: &Path) -> Result<(), SnapshotError> {
    revoke(store)?;
    remove(&folder(store))
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", folder)(error)),
        _ => Ok(()),
    }
}

pub(super) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Flushes the names in a folder.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
