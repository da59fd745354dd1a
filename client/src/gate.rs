//! The in-flight bound and the drain of a producer in one: it lets calls in, and tells when the last one is out.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a bounded number of calls in at a time until it is closed; closing waits for those inside.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Semaphore,
    count: u32,
    /// Closed for newcomers while those inside finish.
    closing: tokio_util::sync::CancellationToken,
}

impl Gate {
    /// At most `count` inside, at least one.
    pub(crate) fn new(count: u32) -> Gate {
        let count = count.max(1);
        Gate { places: Semaphore::new(count as usize), count, closing: tokio_util::sync::CancellationToken::new() }
    }

    /// Waits for a place; `None` once closing has begun.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if self.closing.is_cancelled() {
            return None;
        }
        // The common case takes no timer and no list.
        let place = if let Ok(place) = self.places.try_acquire() {
            place
        } else {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                place = self.places.acquire() => place.ok()?,
            }
        };
        // Seen again with the place in hand: from here on `close` waits for it.
        (!self.closing.is_cancelled()).then_some(place)
    }

    /// A place if there is one now; `None` too once closing has begun.
    pub(crate) fn enter_if_free(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.places.try_acquire().ok()?;
        (!self.closing.is_cancelled()).then_some(place)
    }

    /// How many are inside, or the bound once closing has ended.
    pub(crate) fn inside(&self) -> usize {
        (self.count as usize).saturating_sub(self.places.available_permits())
    }

    /// Waits until closing begins.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Lets nobody in any more and waits until all are out.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        if let Ok(all) = self.places.acquire_many(self.count).await {
            drop(all);
        }
        self.places.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_those_inside_and_refuses_newcomers() {
        let gate = Gate::new(2);
        let inside = gate.enter_if_free().expect("open");
        let other = gate.enter().await.expect("open");
        assert!(gate.enter_if_free().is_none(), "full");
        drop(other);
        let mut closing = Box::pin(gate.close());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut closing).await.is_err(), "somebody is inside");
        assert!(gate.enter().await.is_none() && gate.enter_if_free().is_none());
        drop(inside);
        closing.await;
        assert!(gate.enter().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_gate_makes_wait_and_closing_sends_the_waiting_away() {
        let gate = Gate::new(1);
        let inside = gate.enter().await.expect("open");
        let mut waiting = Box::pin(gate.enter());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "the gate is full");
        let closing = async {
            let close = gate.close();
            tokio::pin!(close);
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut close).await.is_err());
            drop(inside);
            close.await;
        };
        let (place, ()) = tokio::join!(waiting, closing);
        assert!(place.is_none());
    }
}
