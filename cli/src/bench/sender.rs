//! Sends messages over one connection: plain ones, half messages, or whole transactions.

use std::sync::Arc;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, HeaderEncoding};
use escrowmq_common::header::{EndTransactionHeader, SendMessageHeader};
use escrowmq_common::message::properties::{self, name};

use super::answer::Answer;
use super::engine::Run;
use super::pace::Pace;
use super::template::{
    OFFSET, OPAQUE_BASE, OPAQUE_COUNT, OTHER_OFFSET, Spot, TIME_MS, Template, UNIQUE_ID, hexadecimal,
};

/// The flag of a half message.
const PREPARED: i32 = 4;
/// One-way requests share an opaque that no awaited one has.
const ONEWAY_OPAQUE: i32 = i32::MAX;
/// Bytes at the start of each body: the run's number and the intended time.
pub(super) const STAMP_BYTES: usize = 16;

/// The treatment of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It is sent.
    Send,
    /// It is sent as a half message and left undecided.
    Half,
    /// It is sent as a half message and committed.
    Transaction {
        /// Whether the commit is answered, or one-way as Java sends it.
        is_awaited: bool,
    },
}

/// The state that all senders of a run share.
#[derive(Debug)]
pub(super) struct Letters {
    work: Work,
    run: u64,
    queues: Vec<Letter>,
    commit: Option<Commit>,
}

/// A message to one queue.
#[derive(Debug)]
struct Letter {
    template: Template,
    unique_id: Spot,
    time: Spot,
}

#[derive(Debug)]
struct Commit {
    template: Template,
    unique_ids: Vec<Spot>,
    position: Spot,
    counter: Spot,
}

impl Letters {
    /// Messages of `size` bytes for these queues of a topic. `run` tells this run's messages from others'.
    pub(super) fn new(
        work: Work,
        (group, topic): (&str, &str),
        queues: &[i32],
        size: usize,
        encoding: HeaderEncoding,
        run: u64,
    ) -> Letters {
        let commit = match work {
            Work::Transaction { is_awaited } => Some(Commit::new(group, topic, is_awaited, encoding)),
            Work::Send | Work::Half => None,
        };
        let mut body = filler(size);
        for (to, from) in body.iter_mut().zip(run.to_be_bytes()) {
            *to = from;
        }
        let queues = queues.iter().map(|queue| Letter::new(work, group, topic, *queue, &body, encoding)).collect();
        Letters { work, run, queues, commit }
    }
}

/// Text of moderate entropy, the same in each run.
fn filler(size: usize) -> Vec<u8> {
    let mut state: u64 = 0x853c_49e6_748f_ea9b;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'0' + (state >> 58) as u8
        })
        .collect()
}

impl Letter {
    fn new(work: Work, group: &str, topic: &str, queue: i32, body: &[u8], encoding: HeaderEncoding) -> Letter {
        // The properties that a Java producer sets.
        let mut text = String::new();
        properties::append(&mut text, name::UNIQUE_KEY, UNIQUE_ID);
        properties::append(&mut text, name::WAIT, "true");
        if work != Work::Send {
            properties::append(&mut text, name::TRANSACTION_PREPARED, "true");
            properties::append(&mut text, name::PRODUCER_GROUP, group);
        }
        let header = SendMessageHeader {
            sys_flag: if work == Work::Send { 0 } else { PREPARED },
            ..SendMessageHeader::new(group, topic, queue, TIME_MS, &text)
        };
        let frame = Frame::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(body.to_vec());
        let template = Template::new(frame, encoding);
        Letter { unique_id: template.spot(UNIQUE_ID), time: template.spot(&TIME_MS.to_string()), template }
    }
}

impl Commit {
    fn new(group: &str, topic: &str, is_awaited: bool, encoding: HeaderEncoding) -> Commit {
        let mut frame = Frame::request(request::END_TRANSACTION).with_header(&EndTransactionHeader {
            producer_group: group,
            tran_state_table_offset: OTHER_OFFSET,
            commit_log_offset: OFFSET,
            commit_or_rollback: EndTransactionHeader::COMMIT,
            from_transaction_check: false,
            msg_id: Some(UNIQUE_ID),
            transaction_id: Some(UNIQUE_ID),
            topic: Some(topic),
            broker_name: None,
        });
        if !is_awaited {
            frame.set_oneway();
        }
        let template = Template::new(frame, encoding);
        Commit {
            unique_ids: template.spots(UNIQUE_ID),
            position: template.spot(&OFFSET.to_string()),
            counter: template.spot(&OTHER_OFFSET.to_string()),
            template,
        }
    }
}

/// The unique ids of one connection: sixteen digits of the run and of the connection, then a running number.
#[derive(Debug)]
struct UniqueIds {
    prefix: u64,
    next: u64,
}

impl UniqueIds {
    fn text(&self, number: u64) -> [u8; 32] {
        let mut text = [0; 32];
        hexadecimal(&mut text[..16], self.prefix);
        hexadecimal(&mut text[16..], number);
        text
    }
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Slot {
    opaque: i32,
    is_used: bool,
    is_ending: bool,
    /// The time from which its latency counts.
    since: u64,
    unique: u64,
}

/// The sending side of one connection.
#[derive(Debug)]
pub(super) struct Sender {
    letters: Arc<Letters>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    generation: u64,
    next_queue: usize,
    ids: UniqueIds,
    pace: Option<Pace>,
    /// When there was room for a message again.
    free_since: u64,
}

impl Sender {
    /// Number `nth` of a run, with `in_flight` requests in flight.
    pub(super) fn new(letters: Arc<Letters>, nth: usize, in_flight: usize, pace: Option<Pace>) -> Sender {
        let empty = Slot { opaque: 0, is_used: false, is_ending: false, since: 0, unique: 0 };
        // A million ids for each millisecond: the next run of this process begins after those of this one.
        let next = (clock::wall_ms() as u64) << 20;
        Sender {
            ids: UniqueIds { prefix: letters.run ^ ((nth as u64) << 32), next },
            next_queue: nth % letters.queues.len(),
            letters,
            slots: vec![empty; in_flight],
            free: (0..in_flight).rev().collect(),
            generation: 0,
            pace,
            free_since: 0,
        }
    }

    /// When the next message is due, if it could be sent then.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.pace.as_ref().filter(|_| !self.free.is_empty()).map(Pace::next)
    }

    /// Whether nothing is in flight, and nothing is to be sent any more.
    pub(super) fn is_done(&self, run: &Run) -> bool {
        let is_over = match &self.pace {
            Some(pace) => pace.next() >= run.timing.to,
            None => run.now >= run.timing.to,
        };
        self.in_flight() == 0 && (is_over || run.budget == 0)
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Writes as many messages as there are free places.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, run: &mut Run) {
        while !self.free.is_empty() && run.budget > 0 {
            let since = match &mut self.pace {
                None => run.now,
                Some(pace) => {
                    let due = pace.next();
                    if due > run.now {
                        return;
                    }
                    if due < run.timing.to {
                        pace.take();
                        run.tally.lag.add(run.now - due.max(self.free_since).min(run.now));
                    }
                    due
                }
            };
            if since >= run.timing.to {
                return;
            }
            run.budget -= 1;
            run.tally.sent += 1;
            self.write(out, since);
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, since: u64) {
        let at = self.free.pop().expect("a free place");
        let unique = self.ids.next;
        self.ids.next += 1;
        let opaque = self.opaque(at);
        self.slots[at] = Slot { opaque, is_used: true, is_ending: false, since, unique };
        let letter = &self.letters.queues[self.next_queue];
        self.next_queue = (self.next_queue + 1) % self.letters.queues.len();
        let mut copy = letter.template.copy(out, opaque);
        copy.text(letter.unique_id, &self.ids.text(unique));
        // The broker's own clock tells more; what counts here is that the field changes as a client's does.
        copy.number(letter.time, clock::wall_ms());
        if let Some(stamp) = copy.body().get_mut(8..STAMP_BYTES) {
            stamp.copy_from_slice(&since.to_be_bytes());
        }
    }

    /// An opaque that leads back to its slot and comes again after a billion requests.
    fn opaque(&mut self, slot: usize) -> i32 {
        let slots = self.slots.len() as u64;
        let rounds = (OPAQUE_COUNT - 1) / slots;
        self.generation = (self.generation + 1) % rounds;
        OPAQUE_BASE + (self.generation * slots + slot as u64) as i32
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, answer: &Answer<'_>, out: &mut Vec<u8>, run: &mut Run) {
        if !answer.is_response {
            run.tally.checks += u64::from(answer.code == request::CHECK_TRANSACTION_STATE);
            return;
        }
        let Some(at) = self.slot_of(answer.opaque) else {
            run.tally.strays += 1;
            return;
        };
        let slot = self.slots[at];
        if answer.code != response::SUCCESS {
            run.tally.refuse(answer.code, || reason(answer));
            self.release(at, run.now);
            return;
        }
        let Some(commit) = self.letters.commit.as_ref().filter(|_| !slot.is_ending) else {
            run.acknowledge(slot.since);
            self.release(at, run.now);
            return;
        };
        let Some((position, counter)) = half_of(answer) else {
            run.tally.refuse(response::SYSTEM_ERROR, || "an answer to a half message without its position".to_owned());
            self.release(at, run.now);
            return;
        };
        let is_awaited = self.letters.work == Work::Transaction { is_awaited: true };
        let mut copy = commit.template.copy(out, if is_awaited { slot.opaque } else { ONEWAY_OPAQUE });
        let id = self.ids.text(slot.unique);
        for spot in &commit.unique_ids {
            copy.text(*spot, &id);
        }
        copy.number(commit.position, position);
        copy.number(commit.counter, counter);
        if is_awaited {
            self.slots[at].is_ending = true;
        } else {
            run.acknowledge(slot.since);
            self.release(at, run.now);
        }
    }

    fn slot_of(&self, opaque: i32) -> Option<usize> {
        let at = usize::try_from(opaque.checked_sub(OPAQUE_BASE)?).ok()? % self.slots.len();
        (self.slots[at].is_used && self.slots[at].opaque == opaque).then_some(at)
    }

    fn release(&mut self, at: usize, now: u64) {
        if self.free.is_empty() {
            self.free_since = now;
        }
        self.slots[at].is_used = false;
        self.free.push(at);
    }

    /// Requests without an answer; they are not waited for any more.
    pub(super) fn abandon(&mut self) -> u64 {
        let abandoned = self.in_flight() as u64;
        for at in 0..self.slots.len() {
            if self.slots[at].is_used {
                self.release(at, 0);
            }
        }
        abandoned
    }
}

/// Position and counter of a half message, from the answer to it. The position is the end of the message id.
fn half_of(answer: &Answer<'_>) -> Option<(i64, i64)> {
    let position = answer.with_text("msgId", |id| {
        let digits = id.get(id.len().checked_sub(16)?..)?;
        u64::from_str_radix(digits, 16).ok().map(|position| position as i64)
    });
    position.zip(answer.number("queueOffset"))
}

/// The broker's words about a refusal.
pub(super) fn reason(answer: &Answer<'_>) -> String {
    answer.frame().ok().and_then(|frame| frame.remark).unwrap_or_default()
}
