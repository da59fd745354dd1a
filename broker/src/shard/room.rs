//! Room in the log for entries that are on their way there.
//!
//! Entries are proposed while earlier ones are not appended yet. So each holds a claim until it is appended, and the log is
//! asked for the room of all of them together.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::{AppendError, Log, Room};

/// Claims of entries that are proposed and not yet appended, oldest first.
#[derive(Clone, Default)]
pub(super) struct Claims {
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    claims: VecDeque<(u64, u64)>,
}

impl Claims {
    /// Claims room for a record of `bytes`, after all that was claimed before.
    pub(super) fn claim(&self, log: &Log, bytes: u64, room: Room) -> Result<Claim, AppendError> {
        let mut open = self.open.lock();
        // The common case needs no memory of its own.
        if open.claims.is_empty() {
            log.reserve(&[bytes], room)?;
        } else {
            let records: Vec<u64> = open.claims.iter().map(|(_, bytes)| *bytes).chain([bytes]).collect();
            log.reserve(&records, room)?;
        }
        let id = open.next;
        open.next += 1;
        open.claims.push_back((id, bytes));
        Ok(Claim { id, open: Arc::clone(&self.open) })
    }
}

/// Room in the log for one record. Dropped when the record is appended, or will never be.
pub(super) struct Claim {
    id: u64,
    open: Arc<Mutex<Open>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let at = open.claims.iter().position(|(id, _)| *id == self.id);
        at.map(|at| open.claims.remove(at));
    }
}
