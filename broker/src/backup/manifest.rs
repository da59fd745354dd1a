//! The manifest of a backup: which files, how long, with which checksums.
//!
//! Three lines of text: `ESCROWMQ-BACKUP <format version>`, one JSON object, `sha256 <hex of all before>`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::target::{hex, sha256};
use super::{BackupError, failed};
use crate::shard::QUARANTINE;
use crate::terms::{LogIndex, Position, Stamp};

/// The version that this program writes, and the newest one that it reads.
pub const MANIFEST_FORMAT: u32 = 1;

const MAGIC: &str = "ESCROWMQ-BACKUP ";
const PREFIX: &str = "backup-";
const SUFFIX: &str = ".manifest";

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its name.
    pub id: String,
    /// When it was prepared.
    pub created: Stamp,
    /// The version of the program that made it.
    pub program: String,
    /// Log position of the oldest record.
    pub log_start: Position,
    /// Log position where it ends.
    pub log_end: Position,
    /// Raft index that its index has applied. One without an index says 0.
    pub applied: LogIndex,
    /// Raft term of its last record. Backups of earlier versions say neither this nor the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_term: Option<u64>,
    /// Raft index of its last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_index: Option<LogIndex>,
    /// Its files.
    pub files: Vec<ManifestFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the store.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal, and its name in the folder `data`.
    pub sha256: String,
}

impl Manifest {
    /// The name of its file.
    pub fn file_name(id: &str) -> String {
        format!("{PREFIX}{id}{SUFFIX}")
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("texts and numbers are JSON");
        let text = format!("{MAGIC}{MANIFEST_FORMAT}\n{json}\n");
        let sum = hex(&sha256(text.as_bytes()));
        format!("{text}sha256 {sum}\n").into_bytes()
    }

    /// Reads a manifest; `path` is for errors.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Manifest, BackupError> {
        let damaged = |why: &str| BackupError::Damaged { path: path.to_owned(), why: why.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let version = text.lines().next().and_then(|line| line.strip_prefix(MAGIC));
        let version: u32 = version
            .and_then(|version| version.parse().ok())
            .ok_or_else(|| damaged("it does not begin as a manifest"))?;
        let (body, sum) = text.rsplit_once("sha256 ").ok_or_else(|| damaged("its checksum is missing"))?;
        if sum.trim_end() != hex(&sha256(body.as_bytes())) {
            return Err(damaged("its checksum is wrong"));
        }
        if version > MANIFEST_FORMAT {
            return Err(BackupError::NewerFormat { path: path.to_owned(), found: version, known: MANIFEST_FORMAT });
        }
        let json = body.lines().nth(1).unwrap_or_default();
        let manifest: Manifest = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
        // Names lead into the store and nowhere else.
        if manifest.files.iter().any(|file| !is_name(&file.name) || !is_sum(&file.sha256)) {
            return Err(damaged("it names a file that no store has"));
        }
        Ok(manifest)
    }

    /// The names of the backups in a folder, oldest first. Nothing is known of their content.
    pub fn ids(out: &Path) -> Result<Vec<String>, BackupError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(out).map_err(failed("list", out))? {
            let name = entry.map_err(failed("list", out))?.file_name();
            let name = name.to_string_lossy();
            ids.extend(name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).map(str::to_owned));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The backup of this name, or the newest one.
    pub fn load(out: &Path, id: Option<&str>) -> Result<Manifest, BackupError> {
        let none = || BackupError::None { path: out.to_owned(), id: id.map(str::to_owned) };
        let known = Self::ids(out)?;
        let id = match id {
            Some(id) => known.into_iter().find(|known| known == id),
            None => known.into_iter().next_back(),
        };
        let path: PathBuf = out.join(Self::file_name(&id.ok_or_else(none)?));
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        Self::decode(&path, &bytes)
    }
}

fn is_name(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    matches!(folder, "log" | "index" | QUARANTINE) && !file.is_empty() && !file.contains('/') && !file.starts_with('.')
}

fn is_sum(sum: &str) -> bool {
    sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())
}
