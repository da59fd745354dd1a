//! The line at which workers wait for queues that have something to consume.
//!
//! It holds queues, not messages, and each at most once, so it is bounded by the number of queues that this member
//! holds. A worker takes the first queue, takes a few of its messages, and puts the queue back at the end if it has more:
//! that is what makes the queues share the workers fairly.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Something that can stand in the line.
pub(crate) trait Queued {
    /// The mark that says whether it stands in the line already.
    fn in_line(&self) -> &AtomicBool;
}

/// The line.
#[derive(Debug)]
pub(crate) struct ReadyLine<Q> {
    line: Mutex<VecDeque<Arc<Q>>>,
    /// One permit per element; closed when no more shall be handed out.
    count: Semaphore,
}

impl<Q: Queued> ReadyLine<Q> {
    pub(crate) fn new() -> ReadyLine<Q> {
        ReadyLine { line: Mutex::new(VecDeque::new()), count: Semaphore::new(0) }
    }

    /// Puts the queue at the end, unless it stands somewhere already.
    pub(crate) fn push(&self, queue: &Arc<Q>) {
        if !queue.in_line().swap(true, Ordering::AcqRel) {
            self.line.lock().push_back(Arc::clone(queue));
            self.count.add_permits(1);
        }
    }

    /// The next queue; `None` once the line is closed. The caller must look for the queue's messages after
    /// this returns, because a push that comes from now on puts it into the line again.
    pub(crate) async fn next(&self) -> Option<Arc<Q>> {
        self.count.acquire().await.ok()?.forget();
        // One element per permit, except when the line was cleared in between.
        let queue = self.line.lock().pop_front()?;
        queue.in_line().store(false, Ordering::Release);
        Some(queue)
    }

    /// Hands out nothing any more.
    pub(crate) fn close(&self) {
        self.count.close();
        self.line.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Named(u32, AtomicBool);

    impl Queued for Named {
        fn in_line(&self) -> &AtomicBool {
            &self.1
        }
    }

    #[tokio::test]
    async fn each_stands_in_line_once_and_they_take_turns() {
        let line = ReadyLine::new();
        let (one, two) = (Arc::new(Named(1, AtomicBool::default())), Arc::new(Named(2, AtomicBool::default())));
        line.push(&one);
        line.push(&one);
        line.push(&two);
        let first = line.next().await.expect("open");
        assert_eq!(first.0, 1);
        line.push(&first);
        assert_eq!(line.next().await.expect("open").0, 2);
        assert_eq!(line.next().await.expect("open").0, 1);
        line.close();
        assert!(line.next().await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_worker_is_let_go_by_close() {
        let line = Arc::new(ReadyLine::<Named>::new());
        let waiting = {
            let line = Arc::clone(&line);
            async move { line.next().await.is_none() }
        };
        let closing = async { line.close() };
        assert!(tokio::join!(waiting, closing).0);
    }
}
