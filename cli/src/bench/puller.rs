//! Reads queues over one connection, with one pull per queue under way.

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, HeaderEncoding};
use escrowmq_common::header::PullMessageHeader;
use escrowmq_common::message::{UnitLayout, field};

use super::answer::Answer;
use super::engine::Run;
use super::sender::{STAMP_BYTES, reason};
use super::template::{OFFSET, OPAQUE_BASE, OPAQUE_COUNT, Spot, Template};

/// How long a pull may be held, in ms.
const HOLD_MS: i64 = 15_000;
/// A queue that is refused so often in a row is given up.
const REFUSALS_MAX: u32 = 100;

/// The settings that all pullers of a run share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    pub(super) encoding: HeaderEncoding,
    /// Most messages per pull.
    pub(super) batch: i32,
    /// Only messages of this run are counted, and each tells when it was to be sent. Pulls are held at the end.
    pub(super) live_run: Option<u64>,
}

/// One queue.
#[derive(Debug)]
struct Reading {
    template: Template,
    offset: Spot,
    next: i64,
    /// Where to stop; `None` goes on.
    end: Option<i64>,
    /// The pull under way and when it was sent.
    pull: Option<(i32, u64)>,
    refusals: u32,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(super) struct Puller {
    queues: Vec<Reading>,
    generation: u64,
    live_run: Option<u64>,
}

impl Puller {
    /// Reads queues (their number, the first offset, and the offset to stop before).
    pub(super) fn new(asking: Asking<'_>, queues: &[(i32, i64, Option<i64>)]) -> Puller {
        let queues = queues.iter().map(|(queue, from, end)| {
            let template = Template::new(pull(asking, *queue), asking.encoding);
            Reading {
                offset: template.spot(&OFFSET.to_string()),
                template,
                next: *from,
                end: *end,
                pull: None,
                refusals: 0,
            }
        });
        Puller { queues: queues.collect(), generation: 0, live_run: asking.live_run }
    }

    /// Whether every queue has been read to its end.
    pub(super) fn is_done(&self) -> bool {
        self.queues.iter().all(Reading::is_done)
    }

    /// Asks for more of each queue that is not asked for.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, run: &Run) {
        let count = self.queues.len() as u64;
        let rounds = (OPAQUE_COUNT - 1) / count;
        for (at, queue) in self.queues.iter_mut().enumerate() {
            if queue.pull.is_some() || queue.is_done() {
                continue;
            }
            self.generation = (self.generation + 1) % rounds;
            let opaque = OPAQUE_BASE + (self.generation * count + at as u64) as i32;
            queue.pull = Some((opaque, run.now));
            queue.template.copy(out, opaque).number(queue.offset, queue.next);
        }
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, answer: &Answer<'_>, run: &mut Run) {
        if !answer.is_response {
            return;
        }
        let at = answer.opaque.checked_sub(OPAQUE_BASE).and_then(|number| usize::try_from(number).ok());
        let count = self.queues.len();
        let queue = at.and_then(|at| self.queues.get_mut(at % count));
        let Some((queue, since)) =
            queue.and_then(|queue| queue.pull.filter(|pull| pull.0 == answer.opaque).map(|pull| (queue, pull.1)))
        else {
            run.tally.strays += 1;
            return;
        };
        queue.pull = None;
        let next = answer.number("nextBeginOffset");
        match answer.code {
            response::SUCCESS => {
                queue.refusals = 0;
                run.tally.latency.add(run.now.saturating_sub(since));
                run.tally.pulls += 1;
                queue.take(answer.body, self.live_run, run);
            }
            response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => {
                // Also an end that is not reached is no reason to ask without pause for ever.
                queue.refusals += u32::from(queue.end.is_some());
                if let Some(next) = next {
                    queue.next = next.max(queue.next);
                }
            }
            code => {
                queue.refusals += 1;
                run.tally.refuse(code, || reason(answer));
            }
        }
    }

    /// Pulls without an answer; of a live run they are only held.
    pub(super) fn abandon(&mut self) -> u64 {
        let pulls = self.queues.iter_mut().filter_map(|queue| queue.pull.take()).count() as u64;
        if self.live_run.is_some() { 0 } else { pulls }
    }
}

impl Reading {
    fn is_done(&self) -> bool {
        self.refusals >= REFUSALS_MAX || self.end.is_some_and(|end| self.next >= end)
    }

    /// Counts the messages of an answer.
    fn take(&mut self, mut units: &[u8], live_run: Option<u64>, run: &mut Run) {
        while !units.is_empty() {
            let Ok(layout) = UnitLayout::of(units) else {
                run.tally.strays += 1;
                return;
            };
            let (unit, rest) = units.split_at(layout.total);
            units = rest;
            let at = &unit[field::QUEUE_OFFSET..field::QUEUE_OFFSET + 8];
            let offset = i64::from_be_bytes(at.try_into().expect("eight bytes"));
            run.tally.disordered += u64::from(offset != self.next);
            self.next = offset + 1;
            let body = &unit[layout.body];
            match live_run {
                None => run.receive(body.len(), None),
                Some(ours) => {
                    let Some((of, since)) = stamp(body) else { continue };
                    if of == ours {
                        run.receive(body.len(), Some(since));
                    }
                }
            }
        }
    }
}

/// The run that sent a body, and the time at which it was to be sent.
fn stamp(body: &[u8]) -> Option<(u64, u64)> {
    let (run, since) = body.get(..STAMP_BYTES)?.split_at(8);
    Some((u64::from_be_bytes(run.try_into().ok()?), u64::from_be_bytes(since.try_into().ok()?)))
}

fn pull(asking: Asking<'_>, queue: i32) -> Frame {
    let mut header = PullMessageHeader::new(asking.group, asking.topic, queue, OFFSET, asking.batch);
    if asking.live_run.is_some() {
        header.sys_flag |= PullMessageHeader::MAY_HOLD;
        header.suspend_timeout_millis = HOLD_MS;
    }
    Frame::request(request::PULL_MESSAGE).with_header(&header)
}
