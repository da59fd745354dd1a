//! Making a store out of a backup.
//!
//! Everything is copied into a folder `restoring` inside the new store, verified, and checked as `escrowmq fsck` does;
//! only then index and log get their places. Where the log does not begin at its first record, the copy of the index that
//! a lost one would be made from is made as well: it is in no backup. A backup of one of several members becomes a broker
//! alone, as the others are not there. A broker does not start on a folder that has `restoring` in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::manifest::Manifest;
use super::target::{data_path, sum_of, sync_dir};
use super::{BackupError, Copying, failed};
use crate::check::{Folder, Report};
use crate::limits::{FolderError, LockedFolder, RESTORING, lock_folder_for_restore};
use crate::shard::{QUARANTINE, make_base};
use crate::storage::make_alone;
use crate::terms::Position;

/// Makes the store `to`, which must be empty or missing, out of the backup `id`, or the newest one, in `from`. Blocks.
/// Returns the backup and what the check of the new store saw.
pub fn restore(
    from: &Path,
    id: Option<&str>,
    to: &Path,
    progress: &mut dyn FnMut(Copying),
) -> Result<(Manifest, Report), BackupError> {
    let manifest = Manifest::load(from, id)?;
    let is_empty = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed("list", to)(error)),
    };
    if !is_empty {
        return Err(BackupError::NotEmpty { path: to.to_owned() });
    }
    let restoring = to.join(RESTORING);
    for folder in ["log", "index", QUARANTINE] {
        let path = restoring.join(folder);
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
    }
    // Behind the folder that keeps brokers away.
    let _lock = take(to)?;
    match fill(&manifest, from, &restoring, progress) {
        Ok(report) => {
            for folder in [QUARANTINE, "base", "index", "log"] {
                let (from, to) = (restoring.join(folder), to.join(folder));
                if !from.exists() {
                    continue;
                }
                fs::rename(&from, &to).map_err(failed("rename", &to))?;
            }
            sync_dir(to)?;
            fs::remove_dir_all(&restoring).map_err(failed("remove", &restoring))?;
            sync_dir(to)?;
            Ok((manifest, report))
        }
        Err(error) => {
            // A restore makes a whole store or none. The reason is the error, whether this removal works or not.
            let _ = fs::remove_dir_all(&restoring);
            let _ = fs::remove_file(to.join("lock"));
            Err(error)
        }
    }
}

fn take(to: &Path) -> Result<LockedFolder, BackupError> {
    match lock_folder_for_restore(to) {
        Ok(lock) => Ok(lock),
        Err(FolderError::InUse { folder, .. }) => Err(BackupError::Busy { path: folder }),
        Err(error) => Err(failed("use", to)(io::Error::other(error))),
    }
}

fn fill(
    manifest: &Manifest,
    from: &Path,
    restoring: &Path,
    progress: &mut dyn FnMut(Copying),
) -> Result<Report, BackupError> {
    let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    for file in &manifest.files {
        let source = data_path(from, file);
        let target = restoring.join(&file.name);
        progress(Copying { stage: "restoring", done, total: Some(total) });
        let mut to = File::create(&target).map_err(failed("create", &target))?;
        let mut bytes = File::open(&source).map_err(failed("open", &source))?;
        io::copy(&mut bytes, &mut to).map_err(failed("copy to", &target))?;
        to.flush().and_then(|()| to.sync_all()).map_err(failed("flush", &target))?;
        let length = to.metadata().map_err(failed("measure", &target))?.len();
        if length != file.bytes || sum_of(&target, file.bytes, &mut |_| ())? != file.sha256 {
            let why = format!("{} does not have its checksum", file.name);
            return Err(BackupError::Damaged { path: source, why });
        }
        done += file.bytes;
    }
    for folder in ["log", "index", QUARANTINE] {
        sync_dir(&restoring.join(folder))?;
    }
    if manifest.log_start > Position::ZERO {
        make_base(restoring).map_err(failed("copy", &restoring.join("index")))?;
    }
    let folder = Folder::take(restoring)?;
    let report = folder.check(false, &mut |step| {
        progress(Copying { stage: step.stage, done: step.done, total: step.total });
    })?;
    if let Some(finding) = report.findings.first() {
        return Err(BackupError::Findings(finding.to_string()));
    }
    drop(folder);
    make_alone(restoring)?;
    Ok(report)
}
