//! The relay: reads what waits, sends it, and settles it.
//!
//! ```text
//!  wake, NOTIFY, every second
//!            |
//!            v                      one task for each slot
//!   read a page of each slot ----> send in order ----> settle: deleted, or marked
//!            ^                                            |
//!            `---------- there may be more --------------'
//! ```
//!
//! A slot has one page on its way at a time. What was sent is settled before the slot is read again, so that it is not read twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::message::unique_id;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use tokio::sync::mpsc;

use super::lease::{Keeper, Owned};
use super::row::{OutboxState, SLOTS, Work};
use super::sending::{self, Ready, Sent, Until};
use super::store::PAGE;
use super::{Outbox, OutboxDatabase, Shared};
use crate::error::{SendError, StartError};
use crate::producer::Producer;

/// Between looks for rows that nobody told of.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Between looks for keys that need not be held any more, and for sent rows that are old.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Between two lines about rows that are older than they should be.
const ALARM_EVERY: Duration = Duration::from_secs(60);
/// The least and the most time between a failure and the next try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of one slot, and of all of them, on their way; a single larger row passes alone.
const SLOT_BYTES: i64 = 1 << 20;
const ALL_BYTES: i64 = 32 << 20;
/// Characters of an error that are kept with its row.
const ERROR_CHARS: usize = 500;

/// What becomes of the other messages of a key when one of them has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailed {
    /// They wait, as [`OutboxState::Held`], until a person has requeued or discarded the failed one.
    Hold,
    /// They are sent. The failed one comes after them, if ever.
    Pass,
}

#[derive(Clone, Debug)]
struct Settings {
    max_attempts: u32,
    on_failed: OnFailed,
    keep_sent: Duration,
    alarm_after: Duration,
    lease: Duration,
}

/// Collects the settings of a [`Relay`]. Made by [`Outbox::relay`].
#[must_use = "a builder does nothing until `start`"]
#[derive(Debug)]
pub struct RelayBuilder<DB: OutboxDatabase> {
    outbox: Outbox<DB>,
    producer: Producer,
    settings: Settings,
}

impl<DB: OutboxDatabase> RelayBuilder<DB> {
    pub(super) fn new(outbox: Outbox<DB>, producer: Producer) -> Self {
        let settings = Settings {
            max_attempts: 3,
            on_failed: OnFailed::Hold,
            keep_sent: Duration::ZERO,
            alarm_after: Duration::from_secs(60),
            lease: Duration::from_secs(15),
        };
        RelayBuilder { outbox, producer, settings }
    }

    /// How often a message may be refused for what it is (too large, illegal, no permission, no such topic) until its row has
    /// failed. Default 3. Brokers that are away, busy or without a route do not count.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts;
        self
    }

    /// What becomes of the other messages of a failed one's sharding key. Default [`OnFailed::Hold`].
    pub fn on_failed(mut self, on_failed: OnFailed) -> Self {
        self.settings.on_failed = on_failed;
        self
    }

    /// How long rows stay as `sent` that a broker has. Default 0: they are deleted at once.
    pub fn keep_sent(mut self, time: Duration) -> Self {
        self.settings.keep_sent = time;
        self
    }

    /// From which age of a waiting row on there is an alarm: an error in the log once a minute, and [`RelayStats::alarm`]. Default
    /// one minute.
    pub fn alarm_after(mut self, age: Duration) -> Self {
        self.settings.alarm_after = age;
        self
    }

    /// How long a relay that is gone keeps its part of the work from others. Default 15 s.
    pub fn lease(mut self, time: Duration) -> Self {
        self.settings.lease = time;
        self
    }

    /// Starts it, within a Tokio runtime. It works until [`Relay::shutdown`], whatever fails meanwhile.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for settings that cannot be.
    pub fn start(self) -> Result<Relay, StartError> {
        let settings = &self.settings;
        if settings.max_attempts == 0 {
            return Err(StartError::setting("max_attempts", "must be at least 1"));
        }
        if settings.lease < Duration::from_secs(1) {
            return Err(StartError::setting("lease", "must be at least a second"));
        }
        Ok(Relay::start(&self))
    }
}

/// How a relay does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Slots that are this relay's, of 128.
    pub slots: usize,
    /// Rows that a broker took.
    pub sent: u64,
    /// Answers that refused a row for what it is.
    pub refused: u64,
    /// Rows that have failed.
    pub failed: u64,
    /// Tries that ended because brokers were away or busy, or without an answer.
    pub away: u64,
    /// Age of the oldest row that waits here; `None` if none does.
    pub oldest: Option<Duration>,
    /// Whether that is older than [`alarm_after`](RelayBuilder::alarm_after).
    pub alarm: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    away: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// The oldest row of each slot, as the time of the monotonic clock at which it was added.
    oldest: Mutex<HashMap<i64, Duration>>,
}

impl Counters {
    fn oldest(&self) -> Option<Duration> {
        self.oldest.lock().values().min().map(|since| clock::monotonic().saturating_sub(*since))
    }
}

/// Sends what an outbox holds. Several may run, in one process or in many: they share the work.
#[derive(Debug)]
pub struct Relay {
    owned: Arc<Owned>,
    counters: Arc<Counters>,
    alarm_after: Duration,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Relay {
    fn start<DB: OutboxDatabase>(builder: &RelayBuilder<DB>) -> Relay {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (owned, counters) = (Arc::<Owned>::default(), Arc::<Counters>::default());
        let shared = Arc::clone(&builder.outbox.shared);
        let settings = builder.settings.clone();
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            owned: Arc::clone(&owned),
            relay: unique_id().to_string(),
            lease: settings.lease,
        };
        let (done, reports) = mpsc::channel(SLOTS.unsigned_abs() as usize);
        let worker = Worker {
            shared: Arc::clone(&shared),
            producer: builder.producer.clone(),
            settings,
            owned: Arc::clone(&owned),
            counters: Arc::clone(&counters),
            tasks: tasks.clone(),
            done,
            blocked: HashMap::new(),
            connection: None,
            on_their_way: 0,
            bytes: 0,
        };
        let stop = shutdown.clone();
        tasks.spawn("outbox relay", async move {
            let leases = Shutdown::new();
            let work = async {
                worker.run(reports, &stop).await;
                leases.cancel();
            };
            tokio::join!(work, keeper.run(&leases));
            keeper.leave().await;
        });
        let (hearing, stop) = (shared, shutdown.clone());
        tasks.spawn("outbox listener", async move {
            loop {
                let heard = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    heard = DB::listen(&hearing.own, &hearing.channel, &hearing.wake) => heard,
                };
                // Looking each second finds the same.
                tracing::debug!(error = ?heard.err(), "the outbox is not told of new rows; it listens again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE_MAX / 6) => {}
                }
            }
        });
        Relay { owned, counters, alarm_after: builder.settings.alarm_after, shutdown, tasks }
    }

    /// How it does now.
    pub fn stats(&self) -> RelayStats {
        let counters = &*self.counters;
        let oldest = counters.oldest();
        RelayStats {
            slots: self.owned.count(),
            sent: counters.sent.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            away: counters.away.load(Ordering::Relaxed),
            oldest,
            alarm: oldest.is_some_and(|age| age > self.alarm_after),
            last_error: counters.last_error.lock().clone(),
        }
    }

    /// Reads no more, waits for what is on its way, and leaves the rest to others.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A page that came back.
struct Report {
    slot: i64,
    bytes: i64,
    sent: Sent,
}

struct Worker<DB: OutboxDatabase> {
    shared: Arc<Shared<DB>>,
    producer: Producer,
    settings: Settings,
    owned: Arc<Owned>,
    counters: Arc<Counters>,
    tasks: Tasks,
    done: mpsc::Sender<Report>,
    /// Keys of each slot of which nothing is sent: an earlier message has failed, or is held.
    blocked: HashMap<i64, HashSet<String>>,
    connection: Option<PoolConnection<DB>>,
    on_their_way: usize,
    bytes: i64,
}

impl<DB: OutboxDatabase> Worker<DB> {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>, shutdown: &Shutdown) {
        let mut poll = tokio::time::interval(POLL_EVERY);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut tidied, mut alarmed) = (clock::monotonic(), Duration::ZERO);
        let mut pause = PAUSE_MIN;
        let shared = Arc::clone(&self.shared);
        loop {
            match self.round().await {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    self.failed("the database does not answer", &error);
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX / 6);
                    continue;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(report) = reports.recv() => {
                    let mut all = vec![report];
                    while let Ok(more) = reports.try_recv() {
                        all.push(more);
                    }
                    self.settle(all, shutdown).await;
                }
                () = shared.wake.notified() => self.owned.each(|_, slot| slot.is_hungry = true),
                () = self.owned.came.notified() => {}
                _ = poll.tick() => {
                    self.owned.each(|_, slot| slot.is_hungry = true);
                    self.alarm(&mut alarmed);
                    if clock::monotonic().saturating_sub(tidied) >= TIDY_EVERY {
                        tidied = clock::monotonic();
                        if let Err(error) = self.tidy().await {
                            self.failed("the database does not answer", &error);
                        }
                    }
                }
            }
        }
        while self.on_their_way > 0 {
            let Some(report) = reports.recv().await else { break };
            self.settle(vec![report], shutdown).await;
        }
    }

    /// Reads what may be sent now, and starts to send it.
    async fn round(&mut self) -> Result<(), sqlx::Error> {
        let now = clock::monotonic();
        if now >= self.owned.until() || self.bytes >= ALL_BYTES {
            return Ok(());
        }
        let mut slots = Vec::new();
        self.owned.each(|number, slot| {
            if slot.is_hungry && !slot.is_busy && slot.not_before <= now {
                slots.push(number);
            }
        });
        if slots.is_empty() {
            return Ok(());
        }
        let statements = &self.shared.statements;
        let connection = connected(&self.shared, &mut self.connection).await?;
        let read = statements.read::<DB>(connection, &slots).await;
        let rows = kept(&mut self.connection, read)?;
        let mut pages: HashMap<i64, Vec<Work>> = HashMap::new();
        for row in rows {
            pages.entry(row.slot).or_default().push(row);
        }
        for slot in slots {
            let Some(page) = pages.remove(&slot) else {
                self.owned.with(slot, |slot| slot.is_hungry = false);
                self.counters.oldest.lock().remove(&slot);
                continue;
            };
            if self.bytes >= ALL_BYTES {
                // The rest comes when something has been sent.
                break;
            }
            let added = clock::monotonic().saturating_sub(Duration::from_millis(page[0].age_ms.max(0).unsigned_abs()));
            self.counters.oldest.lock().insert(slot, added);
            self.begin(slot, page).await?;
        }
        Ok(())
    }

    /// Sends a page of a slot, but what has to be held.
    async fn begin(&mut self, slot: i64, page: Vec<Work>) -> Result<(), sqlx::Error> {
        let is_full = page.len() as i64 >= PAGE;
        let page = self.held_back(slot, page).await?;
        let (mut ready, mut bytes, mut is_cut) = (Vec::new(), 0, false);
        for row in page {
            if !ready.is_empty() && bytes + row.bytes > SLOT_BYTES {
                is_cut = true;
                break;
            }
            let mut body = row.body.clone();
            if body.is_none() {
                let connection = connected(&self.shared, &mut self.connection).await?;
                let read = self.shared.statements.body::<DB>(connection, row.id).await;
                body = kept(&mut self.connection, read)?;
            }
            // One that is gone was sent by another relay.
            let Some(body) = body else { continue };
            bytes += row.bytes;
            ready.push(Ready { row, body });
        }
        let is_hungry = is_full || is_cut;
        self.owned.with(slot, |slot| {
            slot.is_hungry = is_hungry;
            slot.is_busy = !ready.is_empty();
        });
        if ready.is_empty() {
            return Ok(());
        }
        self.on_their_way += 1;
        self.bytes += bytes;
        let (producer, done, owned) = (self.producer.clone(), self.done.clone(), Arc::clone(&self.owned));
        self.tasks.spawn("outbox slot", async move {
            let until: Until = Arc::new(move || owned.until());
            let sent = sending::send(&producer, ready, &until).await;
            // The relay waits for all of them.
            let _ = done.send(Report { slot, bytes, sent }).await;
        });
        Ok(())
    }

    /// Takes out what waits behind a failed message.
    async fn held_back(&mut self, slot: i64, page: Vec<Work>) -> Result<Vec<Work>, sqlx::Error> {
        if self.settings.on_failed == OnFailed::Pass {
            return Ok(page);
        }
        let may_block = self.blocked.get(&slot).is_none_or(|keys| page.iter().any(|row| keys.contains(&row.key)));
        if may_block {
            // A person may have requeued it meanwhile.
            self.look_for_blocked(slot).await?;
        }
        let keys = &self.blocked[&slot];
        let (held, free): (Vec<Work>, Vec<Work>) = page.into_iter().partition(|row| keys.contains(&row.key));
        if !held.is_empty() {
            let ids: Vec<i64> = held.iter().map(|row| row.id).collect();
            let connection = connected(&self.shared, &mut self.connection).await?;
            let hold = self.shared.statements.hold::<DB>(connection, &ids).await;
            kept(&mut self.connection, hold)?;
        }
        Ok(free)
    }

    async fn look_for_blocked(&mut self, slot: i64) -> Result<(), sqlx::Error> {
        let statements = &self.shared.statements;
        let connection = connected(&self.shared, &mut self.connection).await?;
        let looked = async {
            let mut keys = statements.keys::<DB>(connection, OutboxState::Failed, slot).await?;
            keys.extend(statements.keys::<DB>(connection, OutboxState::Held, slot).await?);
            Ok(keys)
        };
        let looked = looked.await;
        let keys = kept(&mut self.connection, looked)?;
        self.blocked.insert(slot, keys.into_iter().collect());
        Ok(())
    }

    /// Writes down what became of pages. Goes on trying: what was sent would be sent again.
    async fn settle(&mut self, reports: Vec<Report>, shutdown: &Shutdown) {
        let stored: Vec<i64> = reports.iter().flat_map(|report| report.sent.stored.iter().copied()).collect();
        let refused: Vec<(Work, String)> =
            reports.iter().flat_map(|report| report.sent.refused.iter().cloned()).collect();
        let mut pause = PAUSE_MIN;
        let mut tries = 0;
        while let Err(error) = self.write(&stored, &refused).await {
            self.failed("what was sent is not settled", &error);
            tries += 1;
            if shutdown.is_cancelled() && tries >= 3 {
                tracing::error!(
                    rows = stored.len(),
                    "they will be sent again, under their ids: the database does not answer"
                );
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX / 6);
        }
        let counters = &*self.counters;
        counters.sent.fetch_add(stored.len() as u64, Ordering::Relaxed);
        counters.refused.fetch_add(refused.len() as u64, Ordering::Relaxed);
        let now = clock::monotonic();
        for Report { slot, bytes, sent } in reports {
            self.on_their_way -= 1;
            self.bytes -= bytes;
            let is_trouble = sent.away.is_some() || !sent.refused.is_empty();
            let mut is_empty = !is_trouble;
            if let Some(error) = &sent.away {
                self.away(error);
            }
            self.owned.with(slot, |slot| {
                slot.is_busy = false;
                slot.is_hungry |= is_trouble;
                is_empty &= !slot.is_hungry;
                if is_trouble {
                    slot.pause = (slot.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    slot.not_before = now + slot.pause;
                } else {
                    slot.pause = Duration::ZERO;
                }
            });
            if is_empty {
                counters.oldest.lock().remove(&slot);
            }
        }
    }

    async fn write(&mut self, stored: &[i64], refused: &[(Work, String)]) -> Result<(), sqlx::Error> {
        let statements = &self.shared.statements;
        let keeps = !self.settings.keep_sent.is_zero();
        let connection = connected(&self.shared, &mut self.connection).await?;
        let settled = statements.settle::<DB>(connection, stored, keeps).await;
        kept(&mut self.connection, settled)?;
        for (row, error) in refused {
            let is_last = row.attempts + 1 >= i64::from(self.settings.max_attempts);
            let state = if is_last { OutboxState::Failed } else { OutboxState::Waiting };
            let said: String = error.chars().take(ERROR_CHARS).collect();
            let connection = connected(&self.shared, &mut self.connection).await?;
            let written = statements.refused::<DB>(connection, row.id, state, &said).await;
            kept(&mut self.connection, written)?;
            *self.counters.last_error.lock() = Some(said);
            if is_last {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                if !row.key.is_empty() {
                    self.blocked.entry(row.slot).or_default().insert(row.key.clone());
                }
                tracing::error!(
                    id = row.id,
                    unique_id = row.unique_id,
                    topic = row.topic,
                    error,
                    "a message has failed: a person has to look at it"
                );
            }
        }
        Ok(())
    }

    /// Lets keys go whose failed message is gone, and deletes sent rows that are old.
    async fn tidy(&mut self) -> Result<(), sqlx::Error> {
        let mut slots = Vec::new();
        self.owned.each(|number, _| slots.push(number));
        self.blocked.retain(|slot, _| slots.contains(slot));
        let statements = self.shared.statements.clone();
        let age_ms = i64::try_from(self.settings.keep_sent.as_millis()).unwrap_or(i64::MAX);
        let holds = self.settings.on_failed == OnFailed::Hold;
        let connection = connected(&self.shared, &mut self.connection).await?;
        let tidied = async {
            let has_held = statements.has::<DB>(connection, OutboxState::Held).await?;
            let has_sent = statements.has::<DB>(connection, OutboxState::Sent).await?;
            for slot in slots {
                while has_sent && statements.forget::<DB>(connection, slot, age_ms).await? {}
                if !has_held {
                    continue;
                }
                let failed =
                    if holds { statements.keys::<DB>(connection, OutboxState::Failed, slot).await? } else { vec![] };
                for key in statements.keys::<DB>(connection, OutboxState::Held, slot).await? {
                    if !failed.contains(&key) {
                        statements.let_go::<DB>(connection, slot, &key).await?;
                    }
                }
            }
            Ok(())
        };
        let tidied = tidied.await;
        kept(&mut self.connection, tidied)
    }

    fn alarm(&self, alarmed: &mut Duration) {
        let now = clock::monotonic();
        let Some(age) = self.counters.oldest().filter(|age| *age > self.settings.alarm_after) else { return };
        if alarmed.is_zero() || now.saturating_sub(*alarmed) >= ALARM_EVERY {
            *alarmed = now;
            let last = self.counters.last_error.lock().clone().unwrap_or_default();
            tracing::error!(?age, last, "a message waits in the outbox for longer than it should");
        }
    }

    fn away(&self, error: &SendError) {
        self.counters.away.fetch_add(1, Ordering::Relaxed);
        let said = error.to_string();
        tracing::debug!(error = said, "messages of the outbox are not sent; it is tried again");
        *self.counters.last_error.lock() = Some(said);
    }

    fn failed(&self, what: &str, error: &sqlx::Error) {
        tracing::warn!(%error, "outbox: {what}; it is tried again");
        *self.counters.last_error.lock() = Some(format!("{what}: {error}"));
    }
}

/// The worker's connection, made if there is none.
async fn connected<'a, DB: OutboxDatabase>(
    shared: &Shared<DB>,
    connection: &'a mut Option<PoolConnection<DB>>,
) -> Result<&'a mut DB::Connection, sqlx::Error> {
    if connection.is_none() {
        *connection = Some(shared.connection().await?);
    }
    Ok(&mut **connection.as_mut().expect("it was just made"))
}

/// After a failure the next try has a connection of its own.
fn kept<DB: OutboxDatabase, T>(
    connection: &mut Option<PoolConnection<DB>>,
    result: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    if result.is_err()
        && let Some(connection) = connection.take()
    {
        // Not back into the pool: it may be broken.
        drop(connection.detach());
    }
    result
}
