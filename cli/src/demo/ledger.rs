//! Stands for the database of the application: what became of each local transaction.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use escrowmq_client::Decision;

/// A file that all processes of the producer group share: a line with transaction id and outcome for each local
/// transaction that ended.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger in this file, which need not exist yet.
    pub(super) fn at(path: &Path) -> Ledger {
        Ledger { path: path.to_owned() }
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends a local transaction. When this returns, every process finds the outcome.
    pub(super) fn write(&self, transaction_id: &str, decision: Decision) -> anyhow::Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        // One write: lines of several processes do not mix.
        file.write_all(format!("{transaction_id} {}\n", word(decision)).as_bytes())?;
        file.sync_data().context("the ledger")
    }

    /// The end of a local transaction; unknown if it has not ended.
    pub(super) fn look_up(&self, transaction_id: &str) -> Decision {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(id, _)| *id == transaction_id);
        match found {
            Some((_, "commit")) => Decision::Commit,
            Some((_, "rollback")) => Decision::Rollback,
            Some(_) | None => Decision::Unknown,
        }
    }
}

/// A decision in words.
pub(super) fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commit",
        Decision::Rollback => "rollback",
        Decision::Unknown => "unknown",
        Decision::InProgress { .. } => "in progress",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_finds_what_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (one, other) = (Ledger::at(&path), Ledger::at(&path));
        assert_eq!(other.look_up("a"), Decision::Unknown);
        one.write("a", Decision::Commit).unwrap();
        one.write("b", Decision::Rollback).unwrap();
        assert_eq!((other.look_up("a"), other.look_up("b")), (Decision::Commit, Decision::Rollback));
        assert_eq!(other.look_up("c"), Decision::Unknown);
    }
}
