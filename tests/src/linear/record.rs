//! Records operations of concurrent clients. Each client writes to a buffer of its own, so that recording does not put
//! their operations in an order that they would not have had; the buffers come together when the clients end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::Mutex;

use super::Operation;

/// A history that is being recorded. Clones share it. Times are nanoseconds since it began, by the monotonic clock that
/// all threads of the process share.
#[derive(Debug)]
pub struct Recording<W> {
    began: Duration,
    clients: Arc<AtomicU32>,
    ended: Arc<Mutex<Vec<Operation<W>>>>,
}

impl<W> Clone for Recording<W> {
    fn clone(&self) -> Recording<W> {
        Recording { began: self.began, clients: Arc::clone(&self.clients), ended: Arc::clone(&self.ended) }
    }
}

impl<W> Default for Recording<W> {
    fn default() -> Recording<W> {
        Recording { began: clock::monotonic(), clients: Arc::default(), ended: Arc::default() }
    }
}

impl<W> Recording<W> {
    /// A client more, with the next number.
    pub fn client(&self) -> Client<W> {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        Client { number, began: self.began, buffer: Vec::new(), ended: Arc::clone(&self.ended) }
    }

    /// The operations of all clients that have ended, by the time of their call. A later call gives those that ended
    /// since.
    pub fn take(&self) -> Vec<Operation<W>> {
        let mut operations = std::mem::take(&mut *self.ended.lock());
        operations.sort_by_key(|operation| operation.called);
        operations
    }
}

/// An operation that has begun.
#[derive(Debug)]
#[must_use = "its outcome stays unknown until `end` says it"]
pub struct Ticket(usize);

/// A client's own buffer. Dropping it ends the client: its operations go to the recording.
#[derive(Debug)]
pub struct Client<W> {
    number: u32,
    began: Duration,
    buffer: Vec<Operation<W>>,
    ended: Arc<Mutex<Vec<Operation<W>>>>,
}

impl<W> Client<W> {
    /// The time, for [`note`](Client::note).
    pub fn now(&self) -> u64 {
        clock::monotonic().saturating_sub(self.began).as_nanos() as u64
    }

    /// An operation that changes something is about to be called. `unknown` is the operation with an unknown outcome:
    /// that is what it stays if this client is dropped, its task cancelled or in panic, before [`end`](Client::end).
    pub fn begin(&mut self, unknown: W) -> Ticket {
        let now = self.now();
        self.buffer.push(Operation { client: self.number, called: now, returned: now, what: unknown });
        Ticket(self.buffer.len() - 1)
    }

    /// It has come to its end, with this outcome, or the client gives up waiting and says once more that it is unknown.
    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    pub fn end(&mut self, ticket: Ticket, outcome: W) {
        let returned = self.now();
        let operation = &mut self.buffer[ticket.0];
        operation.returned = returned;
        operation.what = outcome;
    }

    /// An operation that only reads was called at `called` and has its answer now.
    pub fn note(&mut self, called: u64, answered: W) {
        let returned = self.now();
        self.buffer.push(Operation { client: self.number, called, returned, what: answered });
    }
}

impl<W> Drop for Client<W> {
    fn drop(&mut self) {
        self.ended.lock().append(&mut self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Append, Found, Sent, judge_appends};
    use super::*;
    use escrowmq_common::task::Tasks;

    fn send(value: u64, outcome: Sent) -> Append {
        Append::Send { queue: 0, value, outcome }
    }

    /// Clients of a list behind a lock: what threads really did is linearizable, whatever the threads' order was.
    #[test]
    fn threads_record_what_they_did() {
        let recording = Recording::default();
        let list: Arc<Mutex<Vec<u64>>> = Arc::default();
        let tasks = Tasks::new();
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (mut client, list) = (recording.client(), Arc::clone(&list));
                let work = move || {
                    for number in 0..100 {
                        let value = thread * 1_000 + number;
                        let ticket = client.begin(send(value, Sent::Unknown));
                        let offset = {
                            let mut list = list.lock();
                            list.push(value);
                            list.len() as u64 - 1
                        };
                        // Some answers are lost.
                        if number % 10 != 0 {
                            client.end(ticket, send(value, Sent::Stored(offset)));
                        }
                        let called = client.now();
                        let seen = list.lock().get(offset as usize + 1).copied();
                        if let Some(seen) = seen {
                            client
                                .note(called, Append::Pull { queue: 0, offset: offset + 1, found: Found::Value(seen) });
                        }
                    }
                };
                tasks.spawn_thread("recorder", work).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut history = recording.take();
        assert!(recording.take().is_empty());
        let verdict = judge_appends(&history);
        assert!(verdict.is_good() && verdict.unknown == 40 && verdict.operations >= 400, "{verdict}");
        let clients: std::collections::BTreeSet<u32> = history.iter().map(|operation| operation.client).collect();
        assert_eq!(clients.len(), 4);

        // The same with an answer that cannot be.
        let is_known = |operation: &&mut Operation<Append>| {
            matches!(operation.what, Append::Send { outcome: Sent::Stored(_), .. })
        };
        let first = history.iter_mut().find(is_known).unwrap();
        first.what = send(1, Sent::Stored(399));
        assert!(!judge_appends(&history).is_good());
    }

    #[test]
    fn a_client_that_ends_early_leaves_an_unknown_outcome() {
        let recording = Recording::default();
        let mut client = recording.client();
        let _ticket = client.begin(send(1, Sent::Unknown));
        assert!(recording.take().is_empty());
        drop(client);
        assert_eq!(recording.take()[0].what, send(1, Sent::Unknown));
    }
}
