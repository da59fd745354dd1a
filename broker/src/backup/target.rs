//! Writing a backup: files into `data`, each under its checksum and so once, and then the manifest.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{Manifest, ManifestFile};
use super::{BackupError, Copying, Prepared, PreparedFile, failed};
use crate::limits::{FolderError, LockedFolder, lock_folder};
use crate::log::{LookingDisk, format, verify_segment};

const BUFFER_BYTES: usize = 1 << 20;
const DATA: &str = "data";
const UNFINISHED: &str = ".unfinished";

/// SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The result of a backup.
#[derive(Debug)]
pub struct Written {
    /// The backup.
    pub manifest: Manifest,
    /// Bytes copied.
    pub copied: u64,
    /// Bytes that an earlier backup had already.
    pub kept: u64,
}

/// A folder with backups, locked.
#[derive(Debug)]
pub struct Target {
    out: PathBuf,
    _lock: LockedFolder,
}

impl Target {
    /// Takes the folder, making it if there is none.
    pub fn open(out: &Path) -> Result<Target, BackupError> {
        let lock = lock_folder(out).map_err(|error| match error {
            FolderError::InUse { folder, .. } => BackupError::Busy { path: folder },
            FolderError::Io { folder, source } => failed("use", &folder)(source),
            other @ FolderError::Restoring { .. } => failed("use", out)(io::Error::other(other)),
        })?;
        let data = out.join(DATA);
        fs::create_dir_all(&data).map_err(failed("create", &data))?;
        Ok(Target { out: out.to_owned(), _lock: lock })
    }

    /// Copies what is not there yet, reads everything back, and writes the manifest. Blocks.
    pub fn write(&self, prepared: &Prepared, progress: &mut dyn FnMut(Copying)) -> Result<Written, BackupError> {
        let data = self.out.join(DATA);
        let total: u64 = prepared.files.iter().map(|file| file.bytes).sum();
        let (mut copied, mut kept) = (0, 0);
        let mut files = Vec::with_capacity(prepared.files.len());
        for file in &prepared.files {
            let mut show =
                |bytes: u64| progress(Copying { stage: "copying", done: copied + kept + bytes, total: Some(total) });
            let sum = sum_of(&file.path, file.bytes, &mut show)?;
            let target = data.join(&sum);
            // Under its checksum it can only be the same file; unless it was damaged since.
            let is_there = target.exists() && sum_of(&target, file.bytes, &mut |_| ()).is_ok_and(|found| found == sum);
            if is_there {
                kept += file.bytes;
            } else {
                self.copy(file, &target, &sum)?;
                copied += file.bytes;
            }
            verify(file, &target)?;
            files.push(ManifestFile { name: file.name.clone(), bytes: file.bytes, sha256: sum });
        }
        sync_dir(&data)?;
        let manifest = Manifest {
            id: prepared.id.clone(),
            created: prepared.created,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            log_start: prepared.log_start,
            log_end: prepared.log_end,
            applied: prepared.applied,
            last_term: prepared.last.map(|(term, _)| term),
            last_index: prepared.last.map(|(_, index)| index),
            files,
        };
        let path = self.out.join(Manifest::file_name(&manifest.id));
        let unfinished = self.out.join(UNFINISHED);
        write_whole(&unfinished, &manifest.encode())?;
        fs::rename(&unfinished, &path).map_err(failed("rename", &path))?;
        sync_dir(&self.out)?;
        Ok(Written { manifest, copied, kept })
    }

    fn copy(&self, file: &PreparedFile, target: &Path, sum: &str) -> Result<(), BackupError> {
        let unfinished = self.out.join(UNFINISHED);
        let mut to = File::create(&unfinished).map_err(failed("create", &unfinished))?;
        let from = File::open(&file.path).map_err(failed("open", &file.path))?;
        io::copy(&mut from.take(file.bytes), &mut to).map_err(failed("copy to", &unfinished))?;
        to.sync_all().map_err(failed("flush", &unfinished))?;
        drop(to);
        if sum_of(&unfinished, file.bytes, &mut |_| ())? != *sum {
            let why = "it does not read as it was written".to_owned();
            return Err(BackupError::Damaged { path: unfinished, why });
        }
        fs::rename(&unfinished, target).map_err(failed("rename", target))
    }

    /// Removes all but the newest `keep` backups, and the files that no other one names. Returns the removed backups.
    pub fn keep(&self, keep: usize) -> Result<Vec<String>, BackupError> {
        let mut ids = Manifest::ids(&self.out)?;
        let newest = ids.split_off(ids.len().saturating_sub(keep.max(1)));
        let mut wanted = HashSet::new();
        for id in &newest {
            // A backup that cannot be read keeps everything: its files cannot be told.
            wanted.extend(Manifest::load(&self.out, Some(id))?.files.into_iter().map(|file| file.sha256));
        }
        // First the manifests: a backup without a file must not look like one.
        for id in &ids {
            let path = self.out.join(Manifest::file_name(id));
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        sync_dir(&self.out)?;
        let data = self.out.join(DATA);
        for entry in fs::read_dir(&data).map_err(failed("list", &data))? {
            let path = entry.map_err(failed("list", &data))?.path();
            if path.file_name().is_some_and(|name| !wanted.contains(&*name.to_string_lossy())) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(ids)
    }
}

/// Checks what was copied for what it is, beyond being a copy: a segment's records.
fn verify(file: &PreparedFile, target: &Path) -> Result<(), BackupError> {
    let start = file.name.strip_prefix("log/").and_then(format::segment_start);
    match start {
        Some(start) => Ok(verify_segment(&LookingDisk, target, start)?),
        None => Ok(()),
    }
}

/// SHA-256 of the first `bytes` of a file, in hexadecimal; fails if it has fewer.
pub(super) fn sum_of(path: &Path, bytes: u64, progress: &mut dyn FnMut(u64)) -> Result<String, BackupError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(bytes).unwrap_or(BUFFER_BYTES)).max(1)];
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut buffer[..wanted]).map_err(failed("read", path))?;
        if read == 0 {
            let why = format!("it has {} bytes instead of {bytes}", bytes - left);
            return Err(BackupError::Damaged { path: path.to_owned(), why });
        }
        hash.update(&buffer[..read]);
        left -= read as u64;
        progress(bytes - left);
    }
    Ok(hex(&hash.finalize()))
}

pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let mut file = File::create(path).map_err(failed("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("flush", path))
}

/// The path of a backed-up file.
pub(super) fn data_path(out: &Path, file: &ManifestFile) -> PathBuf {
    out.join(DATA).join(&file.sha256)
}
