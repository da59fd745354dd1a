//! Carries out what the engine plans: reads what is due, records that it is asked about, asks.
//!
//! A round is planned, its checks are made from the halves' bytes, and one `Checked` for all of them is submitted. Only then
//! are the checks written to their connections: whatever an answer brings about comes behind its check in the log. If the
//! command is not taken, nobody is asked. A crash in between leaves a check that is counted and was not sent: an attempt
//! less, and the half is asked about when its next one is due.

mod around;
mod carry;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use super::engine::{CheckPolicy, Walk, plan};
use crate::broker::Broker;
use crate::terms::{HalfId, Stamp};
use around::Around;
use carry::Carried;

/// Pause between rounds: bounds the cost of looking while halves are prepared all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while halves are held back: each answer lets one go on.
const PAUSE_HELD: Duration = Duration::from_millis(2);
/// Pause after a round that could not read, or whose commands were refused, so that it is not repeated at once.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
/// A look at least this often, whatever the due times say.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often, and after how many bytes of log, it is recorded how far first checks have come.
const RECORD_EVERY: Duration = Duration::from_secs(30);
const RECORD_BYTES: u64 = 1024 * 1024;

/// What rounds hand on to the next.
#[derive(Debug)]
struct Course {
    walk: Walk,
    /// When it was last recorded how far first checks have come, on the monotonic clock.
    recorded: Duration,
}

impl Course {
    /// Begins with what is recorded: everything else is looked at again.
    fn begin(broker: &Broker) -> Self {
        Self { walk: Walk::begin(broker.shard.counters().first_checked()), recorded: broker.clock.monotonic() }
    }

    /// Whether `first_checked` goes into the log now: with other changes always, else so rarely that it costs nothing. A
    /// start looks at a few more rows for it.
    fn is_record_due(&mut self, broker: &Broker, first_checked: HalfId, with_others: bool) -> bool {
        let now = broker.clock.monotonic();
        let known = broker.shard.counters().first_checked();
        let due = first_checked.get() > known.get().saturating_add(RECORD_BYTES) && now >= self.recorded + RECORD_EVERY;
        if with_others || due {
            self.recorded = now;
        }
        with_others || due
    }
}

/// Runs check-backs until shutdown.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    broker.transactions.scheduler.lock().begin(broker.now());
    let mut course = Course::begin(&broker);
    loop {
        // Registered before the look, so that what happens during it is seen.
        let joined = broker.clients.producer_joined().notified();
        let changed = broker.shard.signals().halves.notified();
        let attention = broker.transactions.attention.notified();
        let carried = {
            let worker = Arc::clone(&broker);
            let round = move || {
                let carried = round(&worker, &mut course);
                (carried, course)
            };
            if let Ok(Some((carried, returned))) = broker.tasks.spawn_blocking("check-back round", round).await {
                course = returned;
                carried
            } else {
                // The panic was logged with its place; it must not end all check-backs.
                course = Course::begin(&broker);
                Carried::failed()
            }
        };
        let (more, next, unread) = (carried.more, carried.next, carried.unread);
        let is_done = carried.wait(&broker).await;
        if !is_done {
            // What is not in the log was not done: it is looked at again, from what is recorded.
            course = Course::begin(&broker);
        }
        let (pause, wait) = pauses(&broker, is_done && !unread, more, next);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = joined => {}
            () = changed => {}
            () = attention => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How long nothing is looked at, and how long after it something must happen for the next look.
fn pauses(broker: &Broker, is_done: bool, more: bool, next: Option<Stamp>) -> (Duration, Duration) {
    if !is_done {
        return (PAUSE_FAILED, Duration::ZERO);
    }
    if more {
        return (Duration::ZERO, Duration::ZERO);
    }
    let pause = if broker.transactions.scheduler.lock().held() > 0 { PAUSE_HELD } else { PAUSE };
    (pause, next.map_or(LOOK_EVERY, |due| broker.time.until(due)).min(LOOK_EVERY).saturating_sub(pause))
}

/// Plans a round and carries it out. Reads files, so it runs where blocking is allowed.
fn round(broker: &Arc<Broker>, course: &mut Course) -> Carried {
    // Read before all else: what comes into being from here on is stamped later.
    let now = broker.now();
    let transactions = &broker.transactions;
    transactions.looked_at.store(now.get(), Ordering::Relaxed);
    {
        let mut scheduler = transactions.scheduler.lock();
        scheduler.set_policy(policy(broker));
        for group in broker.clients.take_joined_groups() {
            scheduler.joined(group);
        }
    }
    let around = Around::new(broker);
    let (round, error) = plan(&mut course.walk, &around, now);
    if let Some(error) = &error {
        tracing::error!(%error, "check-back: cannot read what is due; trying again");
    }
    let with_others = !(round.asks.is_empty() && round.moved.is_empty());
    let record = course.is_record_due(broker, round.first_checked, with_others);
    carry::out(broker, &around, round, record, now, error.is_some())
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
