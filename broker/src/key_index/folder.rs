//! The runs in a folder: a start keeps the usable ones and deletes the others.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io::ErrorKind};

use super::run::{Run, UNFINISHED};

/// The usable runs of `dir`, oldest first, without gaps and overlaps. Makes the folder if there is none, deletes what
/// was not finished, is damaged, or has been merged into another run.
pub(super) fn load(dir: &Path) -> io::Result<VecDeque<Arc<Run>>> {
    fs::create_dir_all(dir)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(&path)?;
        } else if Run::is_name(&path) {
            match Run::open(path.clone()) {
                Ok(run) => found.push(run),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    tracing::warn!(%error, "a file of the key index is damaged; its part of the log is read again");
                    fs::remove_file(&path)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    // Of runs that begin together the widest comes first: the others went into it before a crash.
    found.sort_by_key(|run| (run.coverage.first_index, std::cmp::Reverse(run.coverage.last_index)));
    let mut runs: VecDeque<Arc<Run>> = VecDeque::new();
    for run in found {
        match runs.back().map(|last| last.coverage.last_index) {
            Some(upto) if run.coverage.last_index <= upto => delete(&run),
            Some(upto) if run.coverage.first_index != upto.next() => {
                // Everything after a gap is read again, so that there is one point up to which all is known.
                delete(&run);
            }
            _ => runs.push_back(Arc::new(run)),
        }
    }
    Ok(runs)
}

/// Deletes the file of a run that is no longer used. If that fails it only takes room until the next start.
pub(super) fn delete(run: &Run) {
    if let Err(error) = run.delete() {
        tracing::warn!(%error, first_index = %run.coverage.first_index, "cannot delete a file of the key index");
    }
}
