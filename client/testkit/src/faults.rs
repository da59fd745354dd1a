//! Which frames do not arrive: pure decisions, apart from the connections.
//!
//! A fault waits until a request comes that it is about, and then counts once.

use std::collections::{HashMap, HashSet};

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::EndTransactionHeader;
use tokio::sync::watch;

/// A request whose answer can be [lost](crate::Kit::lose_next_answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// A message is sent, a half message or a batch among them.
    Send,
    /// A transaction is decided, by a producer that waits for the confirmation.
    EndTransaction,
    /// A consumer hands a message back, to get it again later.
    SendBack,
}

impl Call {
    fn of(code: i32) -> Option<Call> {
        match code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => Some(Call::Send),
            request::END_TRANSACTION => Some(Call::EndTransaction),
            request::CONSUMER_SEND_MSG_BACK => Some(Call::SendBack),
            _ => None,
        }
    }
}

/// What waits for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Decision,
    Answer(Call),
}

/// The end of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Pass,
    /// It is lost, and nobody is told.
    Drop,
    /// It is lost because its connection breaks.
    Break,
}

/// All faults of a kit.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Vec<(Waiting, watch::Sender<bool>)>,
    /// Halves whose decisions are lost until their producer has answered a check with one.
    unheard: HashSet<i64>,
    /// Requests whose answers will be lost, by connection and number.
    unanswered: HashMap<(u64, i32), watch::Sender<bool>>,
}

impl Faults {
    /// The next decision will be lost. The receiver hears when it is.
    pub(crate) fn drop_decision(&mut self) -> watch::Receiver<bool> {
        self.arm(Waiting::Decision)
    }

    /// The next answer to such a request will be lost.
    pub(crate) fn lose_answer(&mut self, call: Call) -> watch::Receiver<bool> {
        self.arm(Waiting::Answer(call))
    }

    fn arm(&mut self, what: Waiting) -> watch::Receiver<bool> {
        let (hit, hears) = watch::channel(false);
        self.waiting.push((what, hit));
        hears
    }

    fn take(&mut self, what: Waiting) -> Option<watch::Sender<bool>> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == what)?;
        Some(self.waiting.remove(at).1)
    }

    /// Whether there is nothing that a frame could be subject to.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unheard.is_empty() && self.unanswered.is_empty()
    }

    /// A client sent this on a connection.
    pub(crate) fn sent(&mut self, connection: u64, frame: &Frame) -> Fate {
        if frame.is_response() {
            return Fate::Pass;
        }
        if frame.code == request::END_TRANSACTION && self.is_dropped(frame) {
            return Fate::Drop;
        }
        let lost = if frame.is_oneway() { None } else { Call::of(frame.code) };
        if let Some(hit) = lost.and_then(|call| self.take(Waiting::Answer(call))) {
            self.unanswered.insert((connection, frame.opaque), hit);
        }
        Fate::Pass
    }

    /// The broker sent this on a connection.
    pub(crate) fn answered(&mut self, connection: u64, frame: &Frame) -> Fate {
        let lost = if frame.is_response() { self.unanswered.remove(&(connection, frame.opaque)) } else { None };
        match lost {
            Some(hit) => {
                hit.send_replace(true);
                Fate::Break
            }
            None => Fate::Pass,
        }
    }

    /// A connection has ended, and with it went the answers that were to be lost.
    pub(crate) fn ended(&mut self, connection: u64) {
        for (_, hit) in self.unanswered.extract_if(|(of, _), _| *of == connection) {
            hit.send_replace(true);
        }
    }

    fn is_dropped(&mut self, frame: &Frame) -> bool {
        let Ok(end) = frame.header::<EndTransactionHeader<'_>>() else { return false };
        let half = end.commit_log_offset;
        if end.from_transaction_check {
            if matches!(end.commit_or_rollback, EndTransactionHeader::COMMIT | EndTransactionHeader::ROLLBACK) {
                self.unheard.remove(&half);
            }
            return false;
        }
        if !self.unheard.contains(&half)
            && let Some(hit) = self.take(Waiting::Decision)
        {
            self.unheard.insert(half);
            hit.send_replace(true);
        }
        self.unheard.contains(&half)
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_common::code::response;

    use super::*;

    fn end(half: i64, decision: i32, is_checked: bool) -> Frame {
        Frame::request(request::END_TRANSACTION)
            .with_field("producerGroup", "PG")
            .with_field("tranStateTableOffset", 1)
            .with_field("commitLogOffset", half)
            .with_field("commitOrRollback", decision)
            .with_field("fromTransactionCheck", is_checked)
    }

    const COMMIT: i32 = EndTransactionHeader::COMMIT;

    #[test]
    fn a_decision_is_lost_with_its_repeats_until_a_check_is_answered() {
        let mut faults = Faults::default();
        let hit = faults.drop_decision();
        assert_eq!(faults.sent(1, &Frame::request(request::HEART_BEAT)), Fate::Pass);
        assert!(!*hit.borrow());
        assert_eq!(faults.sent(1, &end(7, COMMIT, false)), Fate::Drop);
        assert!(*hit.borrow());
        assert_eq!(faults.sent(2, &end(7, COMMIT, false)), Fate::Drop, "again, on another connection");
        assert_eq!(faults.sent(1, &end(8, COMMIT, false)), Fate::Pass, "another half");
        assert_eq!(faults.sent(1, &end(7, EndTransactionHeader::UNKNOWN, true)), Fate::Pass);
        assert_eq!(faults.sent(1, &end(7, COMMIT, false)), Fate::Drop, "the check was not answered with a decision");
        assert_eq!(faults.sent(1, &end(7, COMMIT, true)), Fate::Pass);
        assert_eq!(faults.sent(1, &end(7, COMMIT, false)), Fate::Pass);
        assert!(faults.is_idle());
    }

    #[test]
    fn an_answer_is_lost_with_its_connection() {
        let mut faults = Faults::default();
        let hit = faults.lose_answer(Call::Send);
        let mut oneway = Frame::request(request::SEND_MESSAGE_V2);
        oneway.set_oneway();
        assert_eq!(faults.sent(1, &oneway), Fate::Pass);
        let (send, other) = (Frame::request(request::SEND_MESSAGE_V2), Frame::request(request::HEART_BEAT));
        assert_eq!((faults.sent(1, &send), faults.sent(1, &other)), (Fate::Pass, Fate::Pass));
        assert_eq!(faults.answered(2, &Frame::response(&send, response::SUCCESS)), Fate::Pass);
        assert!(!*hit.borrow());
        assert_eq!(faults.answered(1, &Frame::response(&send, response::SUCCESS)), Fate::Break);
        assert!(*hit.borrow() && faults.is_idle());
    }

    #[test]
    fn a_connection_that_ends_takes_its_answers_along() {
        let mut faults = Faults::default();
        let hit = faults.lose_answer(Call::SendBack);
        assert_eq!(faults.sent(3, &Frame::request(request::CONSUMER_SEND_MSG_BACK)), Fate::Pass);
        faults.ended(2);
        assert!(!*hit.borrow() && !faults.is_idle());
        faults.ended(3);
        assert!(*hit.borrow() && faults.is_idle());
    }
}
