//! Reads what is due, asks, and records that it asked.
//!
//! A round looks at no more than `ROUND` halves, writes the checks to their connections and submits one command for
//! all of them. A crash between the two repeats a check, which producers answer again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::task::Shutdown;

use super::check::check_request;
use super::policy::{CheckPolicy, Step};
use crate::broker::Broker;
use crate::index::{self, HalfRow, IndexError};
use crate::shard::{Admission, Checked, CheckedHalf, Command, Park, ParkReason, ReadError, Resume};

/// Most halves looked at in one round.
const ROUND: usize = 1000;
/// Pause between rounds: bounds the cost of looking while halves are prepared all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// Pause after a round whose command was refused, so that its checks are not sent again at once.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);
/// A look at least this often, whatever the due times say.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often, and after how many bytes of log, it is recorded how far first checks have come.
const RECORD_EVERY: Duration = Duration::from_secs(30);
const RECORD_BYTES: u64 = 1024 * 1024;
/// Due times this far back are looked at again, in milliseconds: a command may be applied a little after its stamp.
const LOOK_BACK_MS: u64 = 10_000;

/// Where the runner is in the tables.
#[derive(Debug, Default)]
struct Place {
    /// Halves up to this id are decided, have had their first check, or have a due time of their own. Moving it on saves
    /// the next look from all the rows that are gone.
    first: u64,
    /// When `first` was last recorded, on the monotonic clock.
    recorded: Duration,
    /// Due times up to here were looked at.
    due: u64,
    /// Groups that have an instance now and may have halves waiting.
    joined: VecDeque<Arc<str>>,
}

/// What a round decided.
#[derive(Debug, Default)]
struct Round {
    checked: Vec<CheckedHalf<'static>>,
    parked: Vec<(u64, ParkReason)>,
    resumed: Vec<u64>,
    /// When something is due next, in milliseconds since 1970.
    next: Option<u64>,
    /// More is due now than one round takes.
    more: bool,
}

/// Runs check-backs until shutdown.
pub async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    let mut place = Place { first: broker.shard.counters().first_checked(), ..Place::default() };
    loop {
        // Registered before the look, so that what happens during it is seen.
        let joined = broker.clients.producer_joined().notified();
        let changed = broker.shard.signals().halves.notified();
        let attention = broker.transactions.attention.notified();
        place.joined.extend(broker.clients.take_joined_groups());
        let round = {
            let broker = Arc::clone(&broker);
            let tasks = broker.tasks.clone();
            let looking = tasks.spawn_blocking("check-back round", move || {
                let result = look(&broker, &mut place);
                (result, place)
            });
            let Ok(Some((result, returned))) = looking.await else {
                // The panic was logged with its place; a half that makes us panic must not end all check-backs.
                place = Place { first: 0, ..Place::default() };
                tokio::time::sleep(PAUSE_REFUSED).await;
                continue;
            };
            place = returned;
            result
        };
        let pause = match round {
            Ok(round) => {
                let more = round.more;
                let next = round.next;
                let first = place.due_for_record(&broker, !round.checked.is_empty());
                if submit(&broker, round, first).await {
                    wait_time(&broker, more, next)
                } else {
                    // What is not in the log was not done: it is looked at again.
                    place.first = place.first.min(broker.shard.counters().first_checked());
                    PAUSE_REFUSED
                }
            }
            Err(error) => {
                tracing::error!(%error, "check-back: cannot read what is due; trying again");
                PAUSE_REFUSED
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = joined => {}
            () = changed => {}
            () = attention => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn wait_time(broker: &Broker, more: bool, next: Option<u64>) -> Duration {
    if more {
        return Duration::ZERO;
    }
    next.map_or(LOOK_EVERY, |due| broker.time.until(due)).min(LOOK_EVERY)
}

impl Place {
    /// What of `first` goes into the log now: with checks always, else so rarely that it costs nothing. A start looks at
    /// a few more rows for it.
    fn due_for_record(&mut self, broker: &Broker, with_checks: bool) -> Option<u64> {
        let now = broker.clock.monotonic();
        let known = broker.shard.counters().first_checked();
        let due = self.first > known.saturating_add(RECORD_BYTES) && now >= self.recorded + RECORD_EVERY;
        if with_checks || due {
            self.recorded = now;
            return Some(self.first.max(known));
        }
        None
    }
}

/// Submits what a round decided; says whether all of it was taken.
async fn submit(broker: &Broker, round: Round, first_checked_upto: Option<u64>) -> bool {
    let mut taken = true;
    for (half, reason) in round.parked {
        tracing::warn!(half, reason = reason.name(), "half message parked: it waits for an operator or its producers");
        taken &= propose(broker, &Command::Park(Park { half, reason, by: "", why: "" })).await;
    }
    for half in round.resumed {
        let command = Command::Resume(Resume { half, by: "", why: "", only_if: Some(ParkReason::NoChecker) });
        if propose(broker, &command).await {
            broker.transactions.look_again(half);
        } else {
            taken = false;
        }
    }
    // Last: a start looks for first checks behind what this records, so a half that is to be parked must be parked by
    // then, or be looked at again.
    if let Some(first_checked_upto) = first_checked_upto {
        let known = broker.shard.counters().first_checked();
        let first_checked_upto = if taken { first_checked_upto } else { known };
        let command = Command::Checked(Checked { first_checked_upto, halves: round.checked });
        taken &= propose(broker, &command).await;
    }
    taken
}

async fn propose(broker: &Broker, command: &Command<'_>) -> bool {
    match broker.shard.propose(command, Admission::Reserved).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "check-back: a command was not taken; trying again");
            false
        }
    }
}

/// One round: reads files and writes to connections' buffers, so it runs where blocking is allowed.
fn look(broker: &Broker, place: &mut Place) -> Result<Round, IndexError> {
    let mut look = Look { broker, policy: policy(broker), now: broker.now(), round: Round::default(), left: ROUND };
    look.held_back()?;
    look.joined(place)?;
    look.waited_too_long()?;
    look.due(place)?;
    look.first_checks(place)?;
    let round = &mut look.round;
    let waiting = broker.transactions.waiting.lock().next_over();
    round.next = [round.next, waiting].into_iter().flatten().min();
    round.more = look.left == 0;
    Ok(look.round)
}

fn policy(broker: &Broker) -> CheckPolicy {
    let config = broker.config();
    CheckPolicy {
        first_after: millis(config.transaction_time_out),
        interval: millis(config.transaction_check_interval),
        checks_max: config.transaction_check_max,
        park_after: millis(config.transaction_park_after),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Look<'a> {
    broker: &'a Broker,
    policy: CheckPolicy,
    now: u64,
    round: Round,
    left: usize,
}

impl Look<'_> {
    /// Halves that an operator resumed, or that had no room in a window.
    fn held_back(&mut self) -> Result<(), IndexError> {
        let again = std::mem::take(&mut *self.broker.transactions.again.lock());
        for half in again {
            if let Some(row) = self.broker.shard.half(half)? {
                self.handle(&row);
            }
        }
        Ok(())
    }

    /// Halves that waited for a group that has an instance now.
    fn joined(&mut self, place: &mut Place) -> Result<(), IndexError> {
        while self.left > 0
            && let Some(group) = place.joined.front().cloned()
        {
            let halves = self.broker.transactions.waiting.lock().take(&group, self.left);
            if halves.is_empty() {
                place.joined.pop_front();
                self.resume_parked(&group)?;
            }
            for half in halves {
                if let Some(row) = self.broker.shard.half(half)? {
                    self.handle(&row);
                }
            }
        }
        Ok(())
    }

    /// Halves of a group that were parked only because nobody could be asked.
    fn resume_parked(&mut self, group: &str) -> Result<(), IndexError> {
        if self.broker.shard.counters().parked_halves() == 0 {
            return Ok(());
        }
        let resumed = &mut self.round.resumed;
        index::half::scan(self.broker.shard.index(), 0, |row| {
            let parked = row.parked.is_some_and(|(reason, _)| reason == ParkReason::NoChecker);
            if parked && row.group == group {
                resumed.push(row.half);
            }
            resumed.len() < ROUND
        })
    }

    fn waited_too_long(&mut self) -> Result<(), IndexError> {
        let over = self.broker.transactions.waiting.lock().take_over(self.now, self.left);
        for half in over {
            if let Some(row) = self.broker.shard.half(half)? {
                self.handle(&row);
            }
        }
        Ok(())
    }

    /// Halves with a due time of their own.
    fn due(&mut self, place: &mut Place) -> Result<(), IndexError> {
        let broker = self.broker;
        let index = broker.shard.index();
        let from = place.due.saturating_sub(LOOK_BACK_MS);
        let mut seen = place.due;
        index::half::scan_due(index, from, self.now, |due, half| {
            if self.left == 0 {
                return Ok(false);
            }
            seen = seen.max(due);
            if let Some(row) = index::half::get(index, half)?
                && !self.is_waiting(&row)
            {
                self.handle(&row);
            }
            Ok(true)
        })?;
        place.due = seen;
        let next = index::half::next_due(index, self.now.saturating_add(1))?;
        self.next_at(next);
        Ok(())
    }

    /// Halves whose first check comes in the order in which they were prepared: no row of their own is needed.
    fn first_checks(&mut self, place: &mut Place) -> Result<(), IndexError> {
        // Read before the look: halves of later entries have later ids.
        let applied_end = self.broker.shard.counters().applied_end();
        let mut first = place.first.max(applied_end.saturating_sub(1));
        index::half::scan(self.broker.shard.index(), place.first + 1, |row| {
            if row.next_due == 0 && row.parked.is_none() && row.first_half.is_none() {
                let step = if self.left == 0 { Step::Nothing } else { self.handle(&row) };
                if let Step::NotDue(_) | Step::Nothing = step {
                    // Looked at again the next time: nothing is left below it.
                    first = row.half.saturating_sub(1);
                    return false;
                }
            }
            first = first.max(row.half);
            true
        })?;
        place.first = first;
        Ok(())
    }

    fn next_at(&mut self, due: Option<u64>) {
        self.round.next = [self.round.next, due].into_iter().flatten().min();
    }

    fn is_waiting(&self, row: &HalfRow) -> bool {
        let until = row.prepared_at.saturating_add(self.policy.park_after);
        self.broker.transactions.waiting.lock().contains(&row.group, until, row.half)
    }

    /// Does what the engine says with one half.
    fn handle(&mut self, row: &HalfRow) -> Step {
        let checker = self.broker.clients.pick_checker(&row.group, &row.client);
        let step = self.policy.step(row, self.now, checker.is_some());
        match step {
            Step::NotDue(due) => self.next_at(Some(due)),
            Step::Nothing => {}
            Step::Park(reason) => self.park(row, reason),
            Step::Wait { until } => {
                self.left = self.left.saturating_sub(1);
                self.broker.transactions.waiting.lock().add(&row.group, until, row.half);
                if row.next_due == 0 {
                    // Gives it a row of its own, so that it is found again after a restart.
                    self.round.checked.push(CheckedHalf {
                        half: row.half,
                        next_due: self.now,
                        counts: false,
                        asked: "",
                    });
                }
            }
            Step::Check { next_due, number } => {
                self.left = self.left.saturating_sub(1);
                if let Some(connection) = checker {
                    self.check(row, &connection, next_due, number);
                }
            }
        }
        step
    }

    fn park(&mut self, row: &HalfRow, reason: ParkReason) {
        self.left = self.left.saturating_sub(1);
        self.round.parked.push((row.half, reason));
    }

    fn check(
        &mut self,
        row: &HalfRow,
        connection: &Arc<escrowmq_common::remoting::Connection>,
        next_due: u64,
        number: u32,
    ) {
        let transactions = &self.broker.transactions;
        if !transactions.windows.lock().has_room(connection.id(), self.now, self.policy.interval) {
            self.hold_back(row);
            return;
        }
        let mut unit = BytesMut::with_capacity(row.length as usize);
        if let Err(error) = self.broker.shard.half_unit(row, &mut unit) {
            match error {
                // The disk may answer the next time; what is wrong with the bytes stays wrong.
                ReadError::Log { .. } | ReadError::Index(_) => self.later(row, next_due),
                ReadError::Corrupt { .. } => self.park(row, ParkReason::Unreadable),
            }
            tracing::error!(half = row.half, %error, "check-back: the half message cannot be read");
            return;
        }
        let name = &self.broker.config().broker_name;
        let request = match check_request(row, &unit, number, self.broker.store_host, name) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(half = row.half, %error, "check-back: no check can be made of the half message");
                self.park(row, ParkReason::Unreadable);
                return;
            }
        };
        if connection.send_oneway(request).is_err() {
            // The connection closed meanwhile; another one, or the next round.
            self.hold_back(row);
            return;
        }
        transactions.windows.lock().sent(connection.id(), row.half, self.now);
        transactions.checks_sent.fetch_add(1, Ordering::Relaxed);
        self.round.checked.push(CheckedHalf { half: row.half, next_due, counts: true, asked: "" });
    }

    /// No attempt is used up: the half is due again soon, with a row of its own.
    fn hold_back(&mut self, row: &HalfRow) {
        self.later(row, self.now.saturating_add(1000));
    }

    fn later(&mut self, row: &HalfRow, next_due: u64) {
        self.round.checked.push(CheckedHalf { half: row.half, next_due, counts: false, asked: "" });
    }
}
