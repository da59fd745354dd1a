//! Half messages that this producer knows nobody will decide: pure memory of them, bounded.
//!
//! An attempt whose answer was lost may have stored a half message. At brokers that are not ours the next attempt then makes
//! another one with the same transaction id, on another broker. Only one of them belongs to the local transaction. Asked about the other,
//! a listener that looks for the transaction id would say commit, and the message would be delivered twice. So the
//! producer remembers where the one that counts lies and answers for the others itself: rollback.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Transactions remembered; the oldest are forgotten first. Checks stop long before this many attempts have failed.
const REMEMBERED_MAX: usize = 10_000;

/// Where the half message that counts lies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// On this broker.
    Broker(Arc<str>),
    /// Nowhere: the local transaction did not run.
    Nowhere,
}

/// Transactions of which a stray half message may exist.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    homes: HashMap<String, Home>,
    /// In the order in which they were remembered.
    order: VecDeque<String>,
}

impl Orphans {
    /// The half message on `broker` counts. It needs to be remembered if earlier attempts `may_have_left` others
    /// elsewhere, or if an earlier send with the same id ended without a local transaction.
    pub(crate) fn lives_on(&mut self, transaction_id: &str, broker: Arc<str>, may_have_left: bool) {
        if may_have_left || self.homes.contains_key(transaction_id) {
            self.remember(transaction_id, Home::Broker(broker));
        }
    }

    /// The local transaction did not run, and yet a half message may exist.
    pub(crate) fn never_ran(&mut self, transaction_id: &str) {
        self.remember(transaction_id, Home::Nowhere);
    }

    /// Whether a half message on `broker` is known to be a stray one. Without the broker's name nothing is certain.
    pub(crate) fn is_stray(&self, transaction_id: &str, broker: Option<&str>) -> bool {
        match self.homes.get(transaction_id) {
            Some(Home::Nowhere) => true,
            Some(Home::Broker(home)) => broker.is_some_and(|broker| broker != &**home),
            None => false,
        }
    }

    fn remember(&mut self, transaction_id: &str, home: Home) {
        if self.homes.insert(transaction_id.to_owned(), home).is_none() {
            self.order.push_back(transaction_id.to_owned());
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.homes.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_half_is_stray() {
        let mut orphans = Orphans::default();
        assert!(!orphans.is_stray("t", Some("a")), "never heard of");
        orphans.lives_on("t", "a".into(), false);
        assert!(orphans.homes.is_empty(), "the usual case needs no memory");
        orphans.lives_on("t", "a".into(), true);
        assert!(!orphans.is_stray("t", Some("a")));
        assert!(orphans.is_stray("t", Some("b")));
        assert!(!orphans.is_stray("t", None));
    }

    #[test]
    fn a_transaction_that_never_ran_is_stray_until_it_runs() {
        let mut orphans = Orphans::default();
        orphans.never_ran("t");
        assert!(orphans.is_stray("t", Some("a")) && orphans.is_stray("t", None));
        orphans.lives_on("t", "a".into(), false);
        assert!(!orphans.is_stray("t", Some("a")));
    }

    #[test]
    fn memory_is_bounded() {
        let mut orphans = Orphans::default();
        for n in 0..=REMEMBERED_MAX {
            orphans.never_ran(&n.to_string());
        }
        assert_eq!((orphans.homes.len(), orphans.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!orphans.is_stray("0", None) && orphans.is_stray("1", None));
    }
}
