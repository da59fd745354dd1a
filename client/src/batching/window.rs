//! The bound of what is in flight, in messages and bytes.

use std::sync::Arc;

use escrowmq_common::task::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many messages and bytes in at a time until it is closed.
#[derive(Debug)]
pub(super) struct Window {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    messages_max: u32,
    bytes_max: u32,
    closing: Shutdown,
}

/// A message's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Window {
    pub(super) fn new(messages: u32, bytes: u32) -> Window {
        Window {
            messages: Arc::new(Semaphore::new(messages as usize)),
            bytes: Arc::new(Semaphore::new(bytes as usize)),
            messages_max: messages,
            bytes_max: bytes,
            closing: Shutdown::new(),
        }
    }

    /// Waits for room, first come first served. A message that is larger than the window has all of it. `None` once closing has begun.
    pub(super) async fn enter(&self, bytes: usize) -> Option<Place> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let place = |message, bytes| Place { _message: message, _bytes: bytes };
        // The usual case, which costs no look at a list of those that wait. Room that somebody waits for is never free here.
        if !self.closing.is_cancelled()
            && let Ok(message) = Arc::clone(&self.messages).try_acquire_owned()
            && let Ok(bytes) = Arc::clone(&self.bytes).try_acquire_many_owned(bytes)
        {
            return Some(place(message, bytes));
        }
        let entered = async {
            let message = Arc::clone(&self.messages).acquire_owned().await.ok()?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?;
            Some(place(message, bytes))
        };
        let entered = tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            entered = entered => entered,
        };
        entered.filter(|_| !self.closing.is_cancelled())
    }

    /// Waits until those that are inside now are out. Newcomers wait meanwhile.
    pub(super) async fn drained(&self) {
        // Fails only when it is closed, and then all are out.
        drop(self.messages.acquire_many(self.messages_max).await);
    }

    /// Lets nobody in any more and waits until all are out.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.drained().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits(window: &Window, bytes: usize) -> bool {
        tokio::time::timeout(Duration::from_secs(1), window.enter(bytes)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_and_bytes_are_bounded_and_a_large_one_goes_alone() {
        let window = Window::new(2, 100);
        let first = window.enter(60).await.expect("room");
        assert!(waits(&window, 60).await, "too many bytes");
        let second = window.enter(40).await.expect("room");
        assert!(waits(&window, 0).await, "too many messages");
        drop((first, second));
        let large = window.enter(1000).await.expect("it has all of it");
        assert!(waits(&window, 1).await);
        drop(large);
        window.enter(1).await.expect("room");
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_those_inside_and_sends_newcomers_away() {
        let window = Window::new(1, 100);
        let inside = window.enter(1).await.expect("room");
        let waiting = window.enter(1);
        let closing = async {
            let mut close = Box::pin(window.close());
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut close).await.is_err());
            drop(inside);
            close.await;
        };
        let (place, ()) = tokio::join!(waiting, closing);
        assert!(place.is_none());
        assert!(window.enter(1).await.is_none());
    }
}
