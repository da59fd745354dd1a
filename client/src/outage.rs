//! Servers that are away: one line in the log when one goes, one when it is back.
//!
//! Everything that a client does at the same time fails at the same time, once for each queue and again with each retry. The
//! outage is told here, where all of it passes; those who asked keep silent about errors that [`RequestError::is_outage`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::RequestError;
use crate::events::{Bell, ConnectionEvent, ServerKind};
use crate::stats::ServerAway;

/// The servers of one kind that are away.
#[derive(Debug)]
pub(crate) struct Outages {
    kind: ServerKind,
    bell: Bell,
    /// Since when. Bounded by the addresses in use: [`retain`](Outages::retain) forgets the others.
    since: Mutex<HashMap<Arc<str>, Instant>>,
    /// Length of `since`: answers of healthy servers need no lock.
    count: AtomicUsize,
}

impl Outages {
    pub(crate) fn new(kind: ServerKind, bell: Bell) -> Outages {
        Outages { kind, bell, since: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// A request to `addr` failed. Answers whether that is news.
    pub(crate) fn failed(&self, addr: &str, error: &RequestError) -> bool {
        if !error.is_outage() {
            return false;
        }
        let mut since = self.since.lock();
        if since.contains_key(addr) {
            return false;
        }
        since.insert(addr.into(), Instant::now());
        self.count.store(since.len(), Ordering::Release);
        drop(since);
        tracing::warn!(addr, %error, "{} is away; it is asked until it is back", self.kind.name());
        self.bell.ring(ConnectionEvent::Away { kind: self.kind, addr: addr.to_owned(), error: error.clone() });
        true
    }

    /// A request that left at `asked` was answered, with whatever code. Answers whether the server had been away. An answer
    /// that was under way when the outage began says nothing about its end.
    pub(crate) fn answered(&self, addr: &str, asked: Instant) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut all = self.since.lock();
        let Some(since) = all.get(addr).copied().filter(|since| *since <= asked) else {
            return false;
        };
        all.remove(addr);
        self.count.store(all.len(), Ordering::Release);
        drop(all);
        let after = since.elapsed();
        tracing::info!(addr, "{} is back after {:.1} s", self.kind.name(), after.as_secs_f64());
        self.bell.ring(ConnectionEvent::Back { kind: self.kind, addr: addr.to_owned(), after });
        true
    }

    /// Those that are away now.
    pub(crate) fn away(&self) -> Vec<ServerAway> {
        let since = self.since.lock();
        let away = since.iter();
        away.map(|(addr, since)| ServerAway { kind: self.kind, addr: addr.to_string(), duration: since.elapsed() })
            .collect()
    }

    /// Forgets the addresses that nobody asks any more.
    pub(crate) fn retain(&self, addrs: &HashSet<Arc<str>>) {
        let mut since = self.since.lock();
        since.retain(|addr, _| addrs.contains(addr));
        self.count.store(since.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lost() -> RequestError {
        RequestError::ConnectionLost { addr: "a:1".into(), reason: "closed".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_one_beginning_and_one_end() {
        let outages = Outages::new(ServerKind::Broker, Bell::new());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!outages.answered("a:1", asked), "it was never away");
        assert!(outages.failed("a:1", &lost()));
        assert!(!outages.failed("a:1", &lost()), "known");
        assert!(outages.failed("a:2", &lost()), "another one");
        assert!(!outages.answered("a:1", asked), "asked before it went");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(outages.answered("a:1", Instant::now()));
        assert!(!outages.answered("a:1", Instant::now()), "back already");
        assert!(outages.failed("a:1", &lost()), "away again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_no_outage_and_addresses_are_forgotten() {
        let outages = Outages::new(ServerKind::Broker, Bell::new());
        let refused = RequestError::Refused { addr: "a:1".into(), code: 2, remark: String::new() };
        assert!(!outages.failed("a:1", &refused));
        assert!(outages.failed("a:1", &lost()));
        outages.retain(&HashSet::from(["a:2".into()]));
        assert!(outages.since.lock().is_empty() && !outages.answered("a:1", Instant::now()));
    }
}
