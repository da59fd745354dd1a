//! Room in the log for entries that are on their way there.
//!
//! Entries are proposed while earlier ones are not appended yet. So each holds a claim until it is appended, and the log is
//! asked for the room of all of them together.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Log;
use super::error::AppendError;
use super::settings::Room;

/// Claims of entries that are proposed and not yet appended, oldest first.
#[derive(Clone, Debug, Default)]
pub struct RoomClaims {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    claims: VecDeque<(u64, u64)>,
}

impl RoomClaims {
    /// Claims room for records that take these numbers of bytes, after all that was claimed before.
    pub fn claim(&self, log: &Log, records: &[u64], room: Room) -> Result<Vec<RoomClaim>, AppendError> {
        let mut open = self.open.lock();
        // The common case needs no memory of its own.
        if open.claims.is_empty() {
            log.reserve(records, room)?;
        } else {
            let all: Vec<u64> = open.claims.iter().map(|(_, bytes)| bytes).chain(records).copied().collect();
            log.reserve(&all, room)?;
        }
        let claim = |bytes: &u64| {
            let id = open.next;
            open.next += 1;
            open.claims.push_back((id, *bytes));
            RoomClaim { id, open: Arc::clone(&self.open) }
        };
        Ok(records.iter().map(claim).collect())
    }
}

/// Room in the log for one record. Dropped when the record is appended, or will never be.
#[derive(Debug)]
pub struct RoomClaim {
    id: u64,
    open: Arc<Mutex<Open>>,
}

impl Drop for RoomClaim {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let at = open.claims.iter().position(|(id, _)| *id == self.id);
        at.map(|at| open.claims.remove(at));
    }
}
