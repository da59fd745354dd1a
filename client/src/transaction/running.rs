//! Transactions that run in this process right now: from before their half message leaves until their local part has ended.
//!
//! A check may come in between, for example when the answer to the half message was lost and the send is being repeated,
//! or when the local transaction takes long. The database does not know yet, and a listener that takes "not found" for
//! "rolled back" would roll back what is about to be committed. So the producer answers for it: in progress, ask again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The ids of running transactions, each with how many sends run under it. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    ids: Arc<Mutex<HashMap<String, usize>>>,
}

/// One running transaction; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Run {
    running: Running,
    transaction_id: String,
}

impl Running {
    /// A transaction begins.
    pub(super) fn begin(&self, transaction_id: &str) -> Run {
        *self.ids.lock().entry(transaction_id.to_owned()).or_default() += 1;
        Run { running: self.clone(), transaction_id: transaction_id.to_owned() }
    }

    /// Whether the transaction runs.
    pub(super) fn has(&self, transaction_id: &str) -> bool {
        self.ids.lock().contains_key(transaction_id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut ids = self.running.ids.lock();
        if let Some(count) = ids.get_mut(&self.transaction_id) {
            *count -= 1;
            if *count == 0 {
                ids.remove(&self.transaction_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_runs_until_its_last_send_has_ended() {
        let running = Running::default();
        let first = running.begin("t");
        let second = running.begin("t");
        drop(first);
        assert!(running.has("t") && !running.has("u"));
        drop(second);
        assert!(!running.has("t"));
        assert!(running.ids.lock().is_empty());
    }
}
