//! Lanes of attackers: each sends the requests with its numbers, on connections that it opens, fills and leaves.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use tokio::sync::mpsc::Sender;

use super::line::{Common, Line};
use super::ring::Ring;
use super::{Only, Target, shot};
use crate::dice::Dice;

/// Attackers that send at the same time.
pub(super) const LANES: usize = 6;

/// Most unanswered requests of one connection.
const UNANSWERED: usize = 24;

/// Requests for each of which the good client does a thing.
const STEP_EVERY: u64 = 4;

/// Things that the good client may be behind before attackers wait for it.
pub(super) const STEPS_BEHIND: usize = 16;

/// An attack on one broker and one nameserver.
#[derive(Debug)]
pub(super) struct Attack {
    pub(super) seed: u64,
    /// Codes that are sent.
    pub(super) only: Only,
    pub(super) broker: String,
    /// An address of this machine by which a server takes whoever comes from it for a stranger, if there is one.
    pub(super) far: Option<Ipv4Addr>,
    pub(super) nameserver: String,
    pub(super) common: Arc<Common>,
    pub(super) ring: Ring,
    /// The number of the next request.
    pub(super) next: AtomicU64,
}

impl Attack {
    /// Sends all requests with numbers below `end`, and waits for their answers: with `strict`, also for those that may be
    /// held, for so long. `steps` gets something whenever the good client is to do a thing, and ends with the window.
    pub(super) async fn window(self: &Arc<Self>, end: u64, strict: Option<Duration>, steps: Sender<()>) {
        let lanes = (0..LANES).map(|lane| {
            let (attack, steps) = (Arc::clone(self), steps.clone());
            self.common.tasks.spawn("attacker", async move { attack.lane(lane, end, strict, &steps).await })
        });
        for lane in lanes.collect::<Vec<_>>() {
            let _ = lane.await;
        }
    }

    async fn lane(&self, lane: usize, end: u64, strict: Option<Duration>, steps: &Sender<()>) {
        let from = self.far.filter(|_| lane % 2 == 1);
        let mut lines: [Option<Line>; 2] = [None, None];
        let mut left = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::AcqRel);
            if number >= end || self.common.is_over.load(Ordering::Acquire) {
                break;
            }
            if number.is_multiple_of(STEP_EVERY) {
                // Fails where the good client does nothing more in this window.
                let _ = steps.send(()).await;
            }
            // Chance of the way is another than that of the request, which must not depend on it.
            let mut dice = Dice::of_step(!self.seed, number);
            let shot = {
                let known = self.common.known.lock();
                shot(self.seed, number, &known, from.is_some(), &self.only, clock::wall_ms())
            };
            let (slot, address) = match shot.target {
                Target::Broker => (&mut lines[0], &self.broker),
                Target::Nameserver => (&mut lines[1], &self.nameserver),
            };
            if slot.as_ref().is_none_or(|line| !line.is_open()) {
                *slot = Line::open(&self.common, address, from, dice.clone()).await;
            }
            let Some(line) = slot else { break };
            self.ring.add(number, line.id, &shot);
            let cut = dice.one_in(100);
            let is_usable = line.send(&self.common, number, &shot, &mut dice, cut).await;
            let patience = *dice.pick(&[0, 1, UNANSWERED, UNANSWERED]);
            match dice.below(40) {
                _ if !is_usable => *slot = None,
                // In the middle of everything.
                0 => *slot = None,
                1 => left.extend(slot.take()),
                _ => line.answered(&self.common, patience, None).await,
            }
        }
        left.extend(lines.into_iter().flatten());
        for line in left {
            line.answered(&self.common, 0, strict).await;
        }
    }
}
