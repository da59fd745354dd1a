//! Carries out the engine's plans: reads the halves that are due, records that they are asked about, asks.
//!
//! A round is planned, its checks are made from the halves' bytes, and one `Checked` for all of them is submitted. Only then
//! are the checks written to their connections, so that the command of an answer comes after its check in the log. If the
//! command is not taken, nobody is asked. A crash in between leaves a check that is counted and was not sent: an attempt
//! less, and the half is asked about when its next one is due. Nobody is asked without the office either: a command is taken by a
//! leader that was cut off, too, while another one leads and asks.

mod carry;
mod tables;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Shutdown;

use super::Transactions;
use super::engine::{CheckPolicy, Scheduler};
use super::round::{Walk, plan};
use crate::client_registry::ClientRegistry;
use crate::config::{BrokerConfig, CurrentConfig};
use crate::executor::Blocking;
use crate::planted::{Bug, planted};
use crate::raft::Office;
use crate::shard::Shard;
use crate::steady_clock::{Leap, SteadyClock};
use crate::terms::{HalfId, Stamp};
use carry::Carried;
use tables::Tables;

/// Pause between rounds: bounds the cost of looking while halves are prepared all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while halves are held back: each answer lets one go on.
const PAUSE_HELD: Duration = Duration::from_millis(2);
/// Pause after a round that could not read, or whose commands were refused, so that it is not repeated at once.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
/// Between looks whether the lease is back.
const PAUSE_WITHOUT_OFFICE: Duration = Duration::from_millis(100);
/// A look at least this often, even if nothing is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often, and after how many bytes of log, it is recorded how far first checks have come.
const RECORD_EVERY: Duration = Duration::from_secs(30);
const RECORD_BYTES: u64 = 1024 * 1024;

/// Checks the halves that nobody decides.
pub(crate) struct Runner {
    /// The halves, and where commands go.
    pub shard: Shard,
    /// The instances that can be asked.
    pub clients: Arc<ClientRegistry>,
    /// The scheduler, which handlers and rounds share.
    pub transactions: Arc<Transactions>,
    /// When and how often halves are checked.
    pub config: CurrentConfig,
    /// The time that due times are measured with.
    pub time: Arc<SteadyClock>,
    /// The machine's clock.
    pub clock: Clock,
    /// Without it nobody is asked: another leader may be asking.
    pub office: Arc<Office>,
    /// Where rounds run, which read files.
    pub blocking: Blocking,
    /// A part of the message ids that checks name.
    pub store_host: SocketAddr,
}

impl Runner {
    /// Runs check-backs until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let runner = Arc::new(self);
        {
            let mut scheduler = runner.transactions.scheduler.lock();
            // An earlier leadership's checks are not waited for: they are asked again in this one's order.
            *scheduler = Scheduler::default();
            scheduler.begin(runner.time.now());
        }
        let executor = runner.shard.executor();
        let mut progress = Progress::begin(&runner);
        loop {
            if !runner.may_ask() {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = executor.sleep(PAUSE_WITHOUT_OFFICE) => continue,
                }
            }
            // Registered before the look, so that what happens during it is seen.
            let joined = runner.clients.producer_joined().notified();
            let changed = runner.shard.signals().halves.notified();
            let attention = runner.transactions.attention.notified();
            let carried = {
                let worker = Arc::clone(&runner);
                let round = move || {
                    let carried = round(&worker, &mut progress);
                    Ok((carried, progress))
                };
                if let Ok((carried, returned)) = runner.blocking.run("check-back round", round).await {
                    progress = returned;
                    carried
                } else {
                    // The panic was logged with its place; it must not end all check-backs.
                    progress = Progress::begin(&runner);
                    Carried::failed()
                }
            };
            let (more, next, unread) = (carried.more, carried.next, carried.unread);
            let is_done = carried.wait(&runner).await;
            if is_done && !unread && !more {
                let looked_at = runner.transactions.looked_at.load(Ordering::Relaxed);
                runner.transactions.done_at.store(looked_at, Ordering::Relaxed);
            }
            if !is_done {
                // A command that is not in the log was not carried out. Its halves are looked at again, from the recorded place on.
                progress = Progress::begin(&runner);
            }
            let (pause, wait) = pauses(&runner, is_done && !unread, more, next);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = executor.sleep(pause) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = joined => {}
                () = changed => {}
                () = attention => {}
                () = executor.sleep(wait) => {}
            }
        }
    }
}

impl Runner {
    /// Whether no other member asks. One that was cut off takes itself for the leader for longer than it holds its lease.
    fn may_ask(&self) -> bool {
        self.office.is_held() || planted(Bug::TwoCheckers)
    }
}

/// The state that a round hands on to the next.
#[derive(Debug)]
struct Progress {
    walk: Walk,
    /// When it was last recorded how far first checks have come, on the monotonic clock.
    recorded: Duration,
}

impl Progress {
    /// Begins at the recorded place: all halves after it are looked at again.
    fn begin(runner: &Runner) -> Self {
        Self { walk: Walk::begin(runner.shard.counters().first_checked()), recorded: runner.clock.monotonic() }
    }

    /// Whether `first_checked` goes into the log now: with other changes always, else seldom enough to cost nothing. A
    /// start looks at a few more rows for it.
    fn is_record_due(&mut self, runner: &Runner, first_checked: HalfId, with_others: bool) -> bool {
        let now = runner.clock.monotonic();
        let known = runner.shard.counters().first_checked();
        let due =
            first_checked.position().since(known.position()) > RECORD_BYTES && now >= self.recorded + RECORD_EVERY;
        if with_others || due {
            self.recorded = now;
        }
        with_others || due
    }
}

/// How long nothing is looked at, and how long after it something must happen for the next look.
fn pauses(runner: &Runner, is_done: bool, more: bool, next: Option<Stamp>) -> (Duration, Duration) {
    if !is_done {
        return (PAUSE_FAILED, Duration::ZERO);
    }
    if more {
        return (Duration::ZERO, Duration::ZERO);
    }
    let pause = if runner.transactions.scheduler.lock().held() > 0 { PAUSE_HELD } else { PAUSE };
    (pause, next.map_or(LOOK_EVERY, |due| runner.time.until(due)).min(LOOK_EVERY).saturating_sub(pause))
}

/// Plans a round and carries it out. Reads files, so it runs where blocking is allowed.
fn round(runner: &Runner, progress: &mut Progress) -> Carried {
    // Read before all else: halves that come into being from here on are stamped later.
    let now = runner.time.now();
    let transactions = &runner.transactions;
    transactions.looked_at.store(now.get(), Ordering::Relaxed);
    {
        let mut scheduler = transactions.scheduler.lock();
        scheduler.set_policy(policy(&runner.config.load(), runner.time.leapt()));
        for group in runner.clients.take_joined_groups() {
            scheduler.joined(group);
        }
    }
    let tables = Tables::new(runner);
    let (round, error) = plan(&mut progress.walk, &tables, now);
    if let Some(error) = &error {
        tracing::error!(%error, "check-back: cannot read what is due; trying again");
    }
    let with_others = !(round.asks.is_empty() && round.moved.is_empty());
    let record = progress.is_record_due(runner, round.first_checked, with_others);
    carry::out(runner, &tables, round, record, now, error.is_some())
}

fn policy(config: &BrokerConfig, leapt: Option<Leap>) -> CheckPolicy {
    CheckPolicy {
        first_after: millis(config.transaction_time_out),
        interval: millis(config.transaction_check_interval),
        checks_max: config.transaction_check_max,
        park_after: millis(config.transaction_park_after),
        leapt,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
