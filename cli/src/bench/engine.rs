//! One thread that drives many connections.
//!
//! A turn waits until some connection is ready, reads it once, takes all answers that came, lets its peer write as many
//! new requests as there is room for, and hands these to the operating system in one write.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use escrowmq_common::clock;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::link::Link;
use super::puller::Puller;
use super::sender::Sender;
use super::tally::{Gauge, Tally, Timing};

/// Without any answer for so long a run is given up, in nanoseconds.
const STALL: u64 = 30_000_000_000;
/// How long what is under way at the end is waited for.
const DRAIN: u64 = 20_000_000_000;
/// Longest wait of a turn: a request to stop is seen by then.
const TURN: u64 = 50_000_000;
/// Connections handled per turn.
const EVENTS: usize = 128;

/// Nanoseconds of the process's monotonic clock.
pub(super) fn now() -> u64 {
    clock::monotonic().as_nanos() as u64
}

/// The purpose of a connection.
#[derive(Debug)]
pub(super) enum Peer {
    /// It sends.
    Sender(Sender),
    /// It reads.
    Puller(Puller),
}

/// The state that the peers of one thread share.
#[derive(Debug)]
pub(super) struct Run {
    /// The time of this turn.
    pub(super) now: u64,
    pub(super) timing: Timing,
    /// Messages that may still be sent.
    pub(super) budget: u64,
    pub(super) tally: Tally,
    /// Acknowledged or received, and not told to the gauge yet.
    untold: u64,
}

impl Run {
    /// A message that was to be sent at `since` is acknowledged.
    pub(super) fn acknowledge(&mut self, since: u64) {
        self.tally.acknowledged += 1;
        self.tally.last = self.now;
        self.untold += 1;
        self.tally.measured += u64::from(self.is_in_window(self.now));
        if self.is_in_window(since) {
            self.tally.latency.add(self.now.saturating_sub(since));
        }
    }

    /// A message was received; a live one tells when it was to be sent.
    pub(super) fn receive(&mut self, bytes: usize, since: Option<u64>) {
        self.tally.received += 1;
        self.tally.received_bytes += bytes as u64;
        self.tally.last = self.now;
        match since {
            None => self.untold += 1,
            Some(since) if self.is_in_window(since) => self.tally.receipts.add(self.now.saturating_sub(since)),
            Some(_) => {}
        }
    }

    fn is_in_window(&self, time: u64) -> bool {
        (self.timing.from..self.timing.to).contains(&time)
    }
}

#[derive(Debug)]
struct Member {
    link: Link,
    peer: Peer,
    is_open: bool,
}

/// The connections of one thread.
#[derive(Debug)]
pub(super) struct Engine {
    epoll: OwnedFd,
    members: Vec<Member>,
    run: Run,
    gauge: Arc<Gauge>,
    is_paced: bool,
    has_senders: bool,
    has_pullers: bool,
}

impl Engine {
    /// Drives these connections; `budget` is the number of messages to send.
    pub(super) fn new(
        links: Vec<(Link, Peer)>,
        timing: Timing,
        budget: Option<u64>,
        gauge: Arc<Gauge>,
    ) -> io::Result<Engine> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let members: Vec<Member> = links.into_iter().map(|(link, peer)| Member { link, peer, is_open: true }).collect();
        for (at, member) in members.iter().enumerate() {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&epoll, member.link.stream(), EventData::new_u64(at as u64), flags)?;
        }
        let is_sender = |member: &Member| matches!(member.peer, Peer::Sender(_));
        let is_paced = members.iter().any(|member| matches!(&member.peer, Peer::Sender(s) if s.next_due().is_some()));
        Ok(Engine {
            epoll,
            is_paced,
            has_senders: members.iter().any(is_sender),
            has_pullers: !members.iter().all(is_sender),
            members,
            run: Run { now: now(), timing, budget: budget.unwrap_or(u64::MAX), tally: Tally::default(), untold: 0 },
            gauge,
        })
    }

    /// Runs to the end, and counts.
    pub(super) fn run(mut self) -> io::Result<Tally> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        self.fill_all();
        let mut last_event = self.run.now;
        loop {
            self.run.now = now();
            if self.gauge.is_stopped() {
                self.run.timing.to = self.run.timing.to.min(self.run.now);
            }
            let is_given_up = self.run.now.saturating_sub(last_event) > STALL
                || self.run.now > self.run.timing.to.saturating_add(DRAIN);
            if is_given_up || self.is_finished() {
                break;
            }
            events.clear();
            self.wait(&mut events)?;
            if !events.is_empty() {
                last_event = self.run.now;
            }
            for event in &events {
                let at = event.data.u64() as usize;
                if self.members[at].is_open {
                    let handled = self.handle(at);
                    self.close_if_failed(at, handled);
                }
            }
            if self.is_paced {
                self.run.now = now();
                self.fill_all();
            }
            if self.run.untold > 0 {
                self.gauge.add(std::mem::take(&mut self.run.untold));
            }
        }
        for member in &mut self.members {
            self.run.tally.unanswered += member.peer.abandon();
        }
        Ok(self.run.tally)
    }

    /// Waits until a connection is ready, a message is due, or the turn is over.
    fn wait(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = TURN;
        if self.is_paced {
            let due = self.members.iter().filter_map(|member| match &member.peer {
                Peer::Sender(sender) if member.is_open => sender.next_due(),
                _ => None,
            });
            if let Some(due) = due.min().filter(|due| *due < self.run.timing.to) {
                timeout = due.saturating_sub(self.run.now).min(TURN);
            }
            // The wait of epoll itself counts in milliseconds.
            let mut ready = [PollFd::new(&self.epoll, PollFlags::IN)];
            poll_for(&mut ready, timeout)?;
            timeout = 0;
        }
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timespec(timeout))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers, then new requests, then one write.
    fn handle(&mut self, at: usize) -> io::Result<()> {
        let member = &mut self.members[at];
        loop {
            let may_be_more = member.link.receive()?;
            self.run.now = now();
            while let Some((answer, used)) =
                member.link.input.peek().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            {
                match &mut member.peer {
                    Peer::Sender(sender) => sender.answer(&answer, &mut member.link.out, &mut self.run),
                    Peer::Puller(puller) => puller.answer(&answer, &mut self.run),
                }
                member.link.input.consume(used);
            }
            member.peer.fill(&mut member.link.out, &mut self.run);
            member.link.flush()?;
            if !may_be_more {
                return Ok(());
            }
        }
    }

    fn fill_all(&mut self) {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if member.is_open {
                member.peer.fill(&mut member.link.out, &mut self.run);
                let flushed = member.link.flush();
                self.close_if_failed(at, flushed);
            }
        }
    }

    fn close_if_failed(&mut self, at: usize, result: io::Result<()>) {
        if let Err(error) = result {
            let member = &mut self.members[at];
            member.is_open = false;
            self.run.tally.lost += member.peer.abandon();
            self.run.tally.broken.get_or_insert_with(|| error.to_string());
            // The descriptor is closed with the engine; until then it must not be reported again.
            let _ = epoll::delete(&self.epoll, member.link.stream());
        }
    }

    /// Whether there is nothing left to do.
    fn is_finished(&self) -> bool {
        let mut open = self.members.iter().filter(|member| member.is_open).peekable();
        if open.peek().is_none() {
            return true;
        }
        if !self.has_senders {
            // Reads to the end of its queues.
            return self.run.now >= self.run.timing.to
                || open.all(|member| matches!(&member.peer, Peer::Puller(puller) if puller.is_done()));
        }
        if self.run.now < self.run.timing.to && self.run.budget > 0 {
            return false;
        }
        let all_sent = open.all(|member| match &member.peer {
            Peer::Sender(sender) => sender.is_done(&self.run),
            Peer::Puller(_) => true,
        });
        all_sent && (!self.has_pullers || self.run.tally.received >= self.run.tally.acknowledged)
    }
}

impl Peer {
    fn fill(&mut self, out: &mut Vec<u8>, run: &mut Run) {
        match self {
            Peer::Sender(sender) => sender.fill(out, run),
            Peer::Puller(puller) => puller.fill(out, run),
        }
    }

    fn abandon(&mut self) -> u64 {
        match self {
            Peer::Sender(sender) => sender.abandon(),
            Peer::Puller(puller) => puller.abandon(),
        }
    }
}

fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 }
}

fn poll_for(ready: &mut [PollFd<'_>], nanos: u64) -> io::Result<()> {
    match poll(ready, Some(&timespec(nanos))) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
