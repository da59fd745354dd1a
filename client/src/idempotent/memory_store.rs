//! Marks in the memory of one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Begun, MarkStore, StoreError};

/// Marks that a store holds unless told otherwise.
const CAPACITY: usize = 65_536;

/// Marks in the memory of this process, for tests and for effects that end with it. Cheap to clone; clones share the marks.
///
/// It counts by Tokio's clock, so a test may pause that. A store that is full of marks which are still needed refuses new ones with
/// an error rather than forget one: the message comes again.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    marks: Arc<Mutex<HashMap<String, Mark>>>,
    capacity: usize,
}

#[derive(Debug)]
struct Mark {
    /// Who has leased it; `None`: done.
    token: Option<String>,
    until: Instant,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// No marks, and room for 65,536.
    pub fn new() -> MemoryStore {
        MemoryStore { marks: Arc::default(), capacity: CAPACITY }
    }

    /// Room for so many marks.
    #[must_use]
    pub fn capacity(mut self, marks: usize) -> MemoryStore {
        self.capacity = marks;
        self
    }

    /// Writes a mark if `may` allows it over the one that is there.
    fn write(&self, key: &str, mark: Mark, may: impl FnOnce(Option<&Mark>) -> bool) -> Result<Begun, StoreError> {
        let now = Instant::now();
        let mut marks = self.marks.lock();
        let there = marks.get(key).filter(|mark| mark.until > now);
        if !may(there) {
            return Ok(there.map_or(Begun::Leased, |there| match there.token {
                None => Begun::Done,
                Some(_) => Begun::Busy { left: there.until - now },
            }));
        }
        if marks.len() >= self.capacity && !marks.contains_key(key) {
            marks.retain(|_, mark| mark.until > now);
            if marks.len() >= self.capacity {
                return Err(format!("all {} marks are in use", self.capacity).into());
            }
        }
        marks.insert(key.to_owned(), mark);
        Ok(Begun::Leased)
    }
}

/// A time that is not beyond what a clock can tell.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}

impl MarkStore for MemoryStore {
    async fn begin(&self, key: &str, token: &str, lease: Duration) -> Result<Begun, StoreError> {
        let mark = Mark { token: Some(token.to_owned()), until: after(lease) };
        self.write(key, mark, |there| there.is_none_or(|there| there.token.as_deref() == Some(token)))
    }

    async fn done(&self, key: &str, token: &str, keep: Duration) -> Result<bool, StoreError> {
        let mut was_ours = true;
        self.write(key, Mark { token: None, until: after(keep) }, |there| {
            was_ours = there.is_none_or(|there| there.token.as_deref() == Some(token));
            true
        })?;
        Ok(was_ours)
    }

    async fn give_up(&self, key: &str, token: &str) -> Result<(), StoreError> {
        let mut marks = self.marks.lock();
        if marks.get(key).is_some_and(|mark| mark.token.as_deref() == Some(token)) {
            marks.remove(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_and_a_mark_stays_for_its_time() {
        let store = MemoryStore::new();
        assert_eq!(store.begin("k", "a", LEASE).await.expect("room"), Begun::Leased);
        tokio::time::advance(LEASE / 3).await;
        assert_eq!(store.begin("k", "b", LEASE).await.expect("room"), Begun::Busy { left: LEASE * 2 / 3 });
        assert_eq!(store.begin("k", "a", LEASE).await.expect("renewed"), Begun::Leased);
        store.give_up("k", "b").await.expect("no error");
        assert_eq!(store.begin("k", "b", LEASE).await.expect("room"), Begun::Busy { left: LEASE });
        tokio::time::advance(LEASE).await;
        assert_eq!(store.begin("k", "b", LEASE).await.expect("room"), Begun::Leased);
        assert!(!store.done("k", "a", LEASE).await.expect("marked"), "b had it");
        store.give_up("k", "b").await.expect("no error");
        assert_eq!(store.begin("k", "b", LEASE).await.expect("room"), Begun::Done);
        tokio::time::advance(LEASE).await;
        assert_eq!(store.begin("k", "b", LEASE).await.expect("room"), Begun::Leased);
        store.give_up("k", "b").await.expect("no error");
        assert_eq!(store.begin("k", "c", LEASE).await.expect("room"), Begun::Leased);
        assert!(store.done("k", "c", Duration::MAX).await.expect("marked"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_forgets_what_is_over_and_nothing_else() {
        let store = MemoryStore::new().capacity(2);
        store.done("a", "t", LEASE).await.expect("room");
        store.done("b", "t", LEASE * 2).await.expect("room");
        assert!(store.begin("c", "t", LEASE).await.is_err());
        assert_eq!(store.begin("a", "t", LEASE).await.expect("it is there"), Begun::Done);
        tokio::time::advance(LEASE).await;
        assert_eq!(store.begin("c", "t", LEASE).await.expect("room"), Begun::Leased);
        assert_eq!(store.begin("b", "t", LEASE).await.expect("it is there"), Begun::Done);
    }
}
