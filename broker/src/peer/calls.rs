//! The calls of one connection: those that wait to be sent and those that wait for their answer. Pure: takes time,
//! gives what to do.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::CallError;

/// Most calls in flight on a connection.
pub(super) const CALLS_MAX: usize = 4096;

/// What a caller waits for.
pub(super) type Answer = oneshot::Receiver<Result<Bytes, CallError>>;

/// Calls in their order, until they are answered, expire or lose their connection.
#[derive(Debug)]
pub(super) struct Calls {
    /// The other side, for errors.
    member: String,
    /// Calls that are to be sent, in the order in which they were made. All of them are in `waiting`.
    queue: VecDeque<i32>,
    waiting: HashMap<i32, Waiting>,
    by_deadline: BTreeSet<(Instant, i32)>,
    /// Bytes of all requests in `waiting`.
    bytes: usize,
    bytes_max: usize,
    next: i32,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Bytes, CallError>>,
    /// The request, until it is handed to the connection.
    unsent: Option<Bytes>,
    bytes: usize,
    deadline: Instant,
    after: Duration,
}

impl Calls {
    /// No calls yet; requests of at most `bytes_max` bytes will be in flight, or a single larger one.
    pub(super) fn new(member: String, bytes_max: usize) -> Calls {
        Calls {
            member,
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            by_deadline: BTreeSet::new(),
            bytes: 0,
            bytes_max,
            next: 0,
        }
    }

    /// How many are in flight, and their bytes.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    /// Takes a call in, to be sent after those before it.
    pub(super) fn add(&mut self, request: Bytes, now: Instant, after: Duration) -> Result<Answer, CallError> {
        let bytes = request.len();
        let is_too_much = self.bytes.saturating_add(bytes) > self.bytes_max && !self.waiting.is_empty();
        if is_too_much || self.waiting.len() >= CALLS_MAX {
            return Err(CallError::Busy { member: self.member.clone() });
        }
        // After a wrap a number may still belong to a call that waits.
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let deadline = now + after;
        let (answer, receiver) = oneshot::channel();
        self.waiting.insert(id, Waiting { answer, unsent: Some(request), bytes, deadline, after });
        self.by_deadline.insert((deadline, id));
        self.queue.push_back(id);
        self.bytes += bytes;
        Ok(receiver)
    }

    /// The next request to send, with its id. From now on it counts as sent.
    pub(super) fn next_to_send(&mut self) -> Option<(i32, Bytes)> {
        let id = self.queue.pop_front()?;
        let waiting = self.waiting.get_mut(&id).expect("what is queued waits");
        Some((id, waiting.unsent.take().expect("what is queued was not sent")))
    }

    /// Hands an answer to its caller. One that nobody waits for came late, and is dropped.
    pub(super) fn answer(&mut self, id: i32, answer: Bytes) {
        if let Some(waiting) = self.remove(id) {
            // A caller that has gone needs no answer.
            let _ = waiting.answer.send(Ok(answer));
        }
    }

    /// When the next call expires.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Ends the calls whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut was_unsent = false;
        while let Some((deadline, id)) = self.by_deadline.first().copied() {
            if deadline > now {
                break;
            }
            let waiting = self.remove(id).expect("what has a deadline waits");
            was_unsent |= waiting.unsent.is_some();
            let member = self.member.clone();
            let error = if waiting.unsent.is_some() {
                CallError::Unreachable { member, why: "those before it took all of its time".to_owned() }
            } else {
                CallError::TimedOut { member, after: waiting.after }
            };
            let _ = waiting.answer.send(Err(error));
        }
        if was_unsent {
            self.queue.retain(|id| self.waiting.contains_key(id));
        }
    }

    /// The connection has ended: ends all calls, those that were not sent as such.
    pub(super) fn end(self, why: &str) {
        for waiting in self.waiting.into_values() {
            let member = self.member.clone();
            let error = match waiting.unsent {
                Some(_) => CallError::Unreachable { member, why: why.to_owned() },
                None => CallError::Broken { member },
            };
            let _ = waiting.answer.send(Err(error));
        }
    }

    fn remove(&mut self, id: i32) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.by_deadline.remove(&(waiting.deadline, id));
        self.bytes -= waiting.bytes;
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn calls(bytes_max: usize) -> (Calls, Instant) {
        (Calls::new("n1".to_owned(), bytes_max), Instant::now())
    }

    fn ended(mut answer: Answer) -> Result<Bytes, CallError> {
        answer.try_recv().expect("it has ended")
    }

    fn bytes(count: usize) -> Bytes {
        vec![0; count].into()
    }

    #[test]
    fn calls_go_in_their_order_and_answers_come_in_any() {
        let (mut calls, now) = calls(100);
        let first = calls.add(Bytes::from_static(b"a"), now, SECOND).unwrap();
        let second = calls.add(Bytes::from_static(b"b"), now, SECOND).unwrap();
        let (a, b) = (calls.next_to_send().unwrap(), calls.next_to_send().unwrap());
        assert_eq!((&a.1[..], &b.1[..], calls.next_to_send()), (&b"a"[..], &b"b"[..], None));
        calls.answer(b.0, Bytes::from_static(b"B"));
        calls.answer(a.0, Bytes::from_static(b"A"));
        calls.answer(99, Bytes::new());
        assert_eq!((&ended(first).unwrap()[..], &ended(second).unwrap()[..]), (&b"A"[..], &b"B"[..]));
        assert_eq!((calls.in_flight(), calls.next_deadline()), ((0, 0), None));
    }

    #[test]
    fn bytes_and_number_in_flight_are_bounded() {
        let (mut calls, now) = calls(100);
        let _large = calls.add(bytes(1000), now, SECOND).expect("a large one passes alone");
        assert!(matches!(calls.add(bytes(0), now, SECOND), Err(CallError::Busy { .. })));
        let (id, _) = calls.next_to_send().unwrap();
        calls.answer(id, Bytes::new());
        let _small = calls.add(bytes(60), now, SECOND).unwrap();
        assert!(matches!(calls.add(bytes(41), now, SECOND), Err(CallError::Busy { .. })));
        let _fits = calls.add(bytes(40), now, SECOND).unwrap();
        assert_eq!(calls.in_flight(), (2, 100));
        let mut waiting: Vec<_> = (2..CALLS_MAX).map(|_| calls.add(bytes(0), now, SECOND).unwrap()).collect();
        assert!(matches!(calls.add(bytes(0), now, SECOND), Err(CallError::Busy { .. })));
        calls.expire(now + SECOND);
        assert_eq!(calls.in_flight(), (0, 0));
        assert!(ended(waiting.pop().unwrap()).is_err());
    }

    #[test]
    fn what_expires_says_whether_it_was_sent() {
        let (mut calls, now) = calls(100);
        let sent = calls.add(bytes(1), now, 2 * SECOND).unwrap();
        calls.next_to_send().unwrap();
        let unsent = calls.add(bytes(1), now, SECOND).unwrap();
        let later = calls.add(Bytes::from_static(b"z"), now, 3 * SECOND).unwrap();
        assert_eq!(calls.next_deadline(), Some(now + SECOND));
        calls.expire(now + 2 * SECOND);
        assert_eq!(ended(sent), Err(CallError::TimedOut { member: "n1".to_owned(), after: 2 * SECOND }));
        let unsent = ended(unsent).unwrap_err();
        assert!(matches!(&unsent, CallError::Unreachable { .. }) && !unsent.outcome_unknown(), "{unsent}");
        let (id, request) = calls.next_to_send().unwrap();
        assert_eq!(&request[..], b"z", "what expired is not sent any more");
        calls.answer(id, request);
        assert!(ended(later).is_ok());
    }

    #[test]
    fn the_end_of_a_connection_says_what_was_sent() {
        let (mut calls, now) = calls(100);
        let sent = calls.add(bytes(1), now, SECOND).unwrap();
        calls.next_to_send().unwrap();
        let unsent = calls.add(bytes(1), now, SECOND).unwrap();
        calls.end("closed by peer");
        assert_eq!(ended(sent), Err(CallError::Broken { member: "n1".to_owned() }));
        let why = "closed by peer".to_owned();
        assert_eq!(ended(unsent), Err(CallError::Unreachable { member: "n1".to_owned(), why }));
    }

    #[test]
    fn a_number_is_not_given_out_twice() {
        let (mut calls, now) = calls(100);
        let _old = calls.add(bytes(0), now, SECOND).unwrap();
        calls.next = i32::MAX;
        let _last = calls.add(bytes(0), now, SECOND).unwrap();
        calls.next = 0;
        let _new = calls.add(bytes(0), now, SECOND).unwrap();
        assert_eq!(calls.waiting.len(), 3);
        assert_eq!(calls.queue, [0, i32::MAX, 1]);
    }
}
