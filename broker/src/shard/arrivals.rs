//! The waiters for a queue's next message.
//!
//! A pull that found nothing registers here and then looks once more; apply makes the message visible and then wakes.
//! So each side writes, passes a fence, and then reads what the other side writes. One of the two fences is the later
//! one, and its side sees the other's write: no message arrives unseen between a look and a registration.
//!
//! ```text
//! the pull's fence is first              apply's fence is first
//!
//! pull             apply                 pull                apply
//! sets `waiting`                                             makes the message visible
//! fence                                                      fence
//!                  makes it visible                          reads `waiting`: false, wakes nobody
//!                  fence                 sets `waiting`
//!                  reads `waiting`:      fence
//!                    true, wakes         looks: the message is there
//! ```
//!
//! Without the fences each side could read before its own write is seen, and the pull would wait beside its message.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// Called once, on the apply thread: must only hand over, never read or wait.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// Names one registration, to cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// The waiters of one queue.
#[derive(Default)]
pub struct Arrivals {
    waiting: AtomicBool,
    waiters: Mutex<Vec<(Ticket, Wake)>>,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrivals(waiting: {})", self.waiting.load(Ordering::Relaxed))
    }
}

impl Arrivals {
    /// Registers a waiter. The caller looks at the queue again afterwards, and [cancels](Self::cancel) when it stops
    /// waiting for another reason, so that an idle queue collects no dead waiters.
    pub fn register(&self, wake: Wake) -> Ticket {
        let ticket = Ticket(NEXT_TICKET.fetch_add(1, Ordering::Relaxed));
        let mut waiters = self.waiters.lock();
        waiters.push((ticket, wake));
        self.waiting.store(true, Ordering::Release);
        drop(waiters);
        // Pairs with the fence in `wake`, see the module: the caller's next look sees the new message, or `wake` sees
        // the waiter.
        fence(Ordering::SeqCst);
        ticket
    }

    /// Takes a waiter back. Says whether it was still waiting; if not, it was or is being woken.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        let mut waiters = self.waiters.lock();
        let found = waiters.iter().position(|(each, _)| *each == ticket);
        if let Some(at) = found {
            drop(waiters.swap_remove(at));
        }
        if waiters.is_empty() {
            self.waiting.store(false, Ordering::Release);
        }
        found.is_some()
    }

    /// Wakes all waiters. Cheap when there is none.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let waiters = {
            let mut waiters = self.waiters.lock();
            self.waiting.store(false, Ordering::Release);
            std::mem::take(&mut *waiters)
        };
        for (_, wake) in waiters {
            wake();
        }
    }
}
