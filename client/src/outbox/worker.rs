//! The work of a relay: it reads what waits, sends it, and settles it.
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
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::lease::Owned;
use super::relay::OnFailed;
use super::row::{OutboxState, SLOTS, Work};
use super::rows::{PAGE, Rows};
use super::sending::{self, Ready, Sent};
use crate::error::SendError;
use crate::producer::{Producer, Until};

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

/// What its user has set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) max_attempts: u32,
    pub(super) on_failed: OnFailed,
    pub(super) keep_sent: Duration,
    pub(super) alarm_after: Duration,
    pub(super) lease: Duration,
}

/// What it has done.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) away: AtomicU64,
    pub(super) last_error: Mutex<Option<String>>,
    /// The oldest row of each slot, as the time of the monotonic clock at which it was added.
    oldest: Mutex<HashMap<i64, Duration>>,
}

impl Counters {
    /// Age of the oldest row that waits.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.oldest.lock().values().min().map(|since| clock::monotonic().saturating_sub(*since))
    }
}

/// A page that came back.
pub(super) struct Report {
    slot: i64,
    bytes: i64,
    sent: Sent,
}

/// See the module.
pub(super) struct Worker<R> {
    rows: R,
    producer: Producer,
    settings: Settings,
    owned: Arc<Owned>,
    counters: Arc<Counters>,
    tasks: Tasks,
    done: mpsc::Sender<Report>,
    /// Keys of each slot of which nothing is sent: an earlier message has failed, or is held.
    blocked: HashMap<i64, HashSet<String>>,
    /// Rows of each slot that wait, with the cause that is noted with them, so that it is written only when it changes.
    noted: HashMap<i64, HashMap<i64, String>>,
    on_their_way: usize,
    bytes: i64,
}

impl<R: Rows> Worker<R> {
    /// It sends nothing before `owned` has slots. The other result is for [`run`](Self::run).
    pub(super) fn new(
        rows: R,
        producer: Producer,
        settings: Settings,
        owned: &Arc<Owned>,
        counters: &Arc<Counters>,
        tasks: &Tasks,
    ) -> (Worker<R>, mpsc::Receiver<Report>) {
        let (done, reports) = mpsc::channel(SLOTS.unsigned_abs() as usize);
        let worker = Worker {
            rows,
            producer,
            settings,
            owned: Arc::clone(owned),
            counters: Arc::clone(counters),
            tasks: tasks.clone(),
            done,
            blocked: HashMap::new(),
            noted: HashMap::new(),
            on_their_way: 0,
            bytes: 0,
        };
        (worker, reports)
    }

    /// Until shutdown, and until what was on its way then is settled.
    pub(super) async fn run(mut self, mut reports: mpsc::Receiver<Report>, wake: &Notify, shutdown: &Shutdown) {
        let mut poll = tokio::time::interval(POLL_EVERY);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut tidied, mut alarmed) = (clock::monotonic(), Duration::ZERO);
        let mut pause = PAUSE_MIN;
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
                () = wake.notified() => self.owned.each(|_, slot| slot.is_hungry = true),
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
    async fn round(&mut self) -> Result<(), R::Error> {
        let now = clock::monotonic();
        if now >= self.owned.until() || self.bytes >= ALL_BYTES {
            return Ok(());
        }
        let mut slots = Vec::new();
        self.owned.each(|number, slot| {
            if std::mem::take(&mut slot.is_new) {
                self.blocked.remove(&number);
            }
            if slot.is_hungry && !slot.is_busy && slot.not_before <= now {
                slots.push(number);
            }
        });
        if slots.is_empty() {
            return Ok(());
        }
        let mut pages: HashMap<i64, Vec<Work>> = HashMap::new();
        for row in self.rows.read(&slots).await? {
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
    async fn begin(&mut self, slot: i64, page: Vec<Work>) -> Result<(), R::Error> {
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
                body = self.rows.body(row.id).await?;
            }
            // One that is gone was sent by another relay.
            let Some(body) = body else { continue };
            bytes += row.bytes;
            ready.push(Ready { row, body });
        }
        let is_hungry = is_full || is_cut;
        if ready.is_empty() {
            self.owned.with(slot, |slot| slot.is_hungry = is_hungry);
            return Ok(());
        }
        if !self.owned.begin(slot, is_hungry) {
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
    async fn held_back(&mut self, slot: i64, page: Vec<Work>) -> Result<Vec<Work>, R::Error> {
        if self.settings.on_failed == OnFailed::Pass {
            return Ok(page);
        }
        let may_block = self.blocked.get(&slot).is_none_or(|keys| page.iter().any(|row| keys.contains(&row.key)));
        if may_block {
            // A person may have requeued it meanwhile.
            let keys = self.rows.blocked(slot).await?;
            self.blocked.insert(slot, keys.into_iter().collect());
        }
        let keys = &self.blocked[&slot];
        let (held, free): (Vec<Work>, Vec<Work>) = page.into_iter().partition(|row| keys.contains(&row.key));
        if !held.is_empty() {
            let ids: Vec<i64> = held.iter().map(|row| row.id).collect();
            self.rows.hold(&ids).await?;
        }
        Ok(free)
    }

    /// Writes down what became of pages. Goes on trying: what was sent would be sent again.
    async fn settle(&mut self, reports: Vec<Report>, shutdown: &Shutdown) {
        let stored: Vec<i64> = reports.iter().flat_map(|report| report.sent.stored.iter().copied()).collect();
        let refused: Vec<(Work, String)> =
            reports.iter().flat_map(|report| report.sent.refused.iter().cloned()).collect();
        let mut waiting = Vec::new();
        for Report { slot, sent, .. } in &reports {
            let why = |(id, error): &(i64, SendError)| (*id, cut(&sending::cause(error)));
            let why: HashMap<i64, String> = sent.away.iter().map(why).collect();
            let before = if why.is_empty() { self.noted.remove(slot) } else { self.noted.insert(*slot, why.clone()) };
            let before = before.unwrap_or_default();
            waiting.extend(why.into_iter().filter(|(id, said)| before.get(id) != Some(said)));
        }
        let mut pause = PAUSE_MIN;
        let mut tries = 0;
        while let Err(error) = self.write(&stored, &refused, &waiting).await {
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
            let is_trouble = !sent.away.is_empty() || !sent.refused.is_empty();
            let mut is_empty = !is_trouble;
            if let Some((_, error)) = sent.away.first() {
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

    async fn write(
        &mut self,
        stored: &[i64],
        refused: &[(Work, String)],
        waiting: &[(i64, String)],
    ) -> Result<(), R::Error> {
        self.rows.settle(stored, !self.settings.keep_sent.is_zero()).await?;
        for (row, error) in refused {
            let is_last = row.attempts + 1 >= i64::from(self.settings.max_attempts);
            let state = if is_last { OutboxState::Failed } else { OutboxState::Waiting };
            let said = cut(error);
            self.rows.refused(row, state, &said).await?;
            *self.counters.last_error.lock() = Some(said);
            if is_last {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                // They are looked for again.
                self.blocked.remove(&row.slot);
                tracing::error!(
                    id = row.id,
                    unique_id = row.unique_id,
                    topic = row.topic,
                    error,
                    "a message has failed: a person has to look at it"
                );
            }
        }
        for (id, said) in waiting {
            self.rows.note(*id, said).await?;
        }
        Ok(())
    }

    /// Lets keys go whose failed message is gone, and deletes sent rows that are old.
    async fn tidy(&mut self) -> Result<(), R::Error> {
        let mut slots = Vec::new();
        self.owned.each(|number, _| slots.push(number));
        self.blocked.retain(|slot, _| slots.contains(slot));
        self.noted.retain(|slot, _| slots.contains(slot));
        self.rows.tidy(&slots, self.settings.on_failed == OnFailed::Hold, self.settings.keep_sent).await
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

    fn failed(&self, what: &str, error: &R::Error) {
        tracing::warn!(%error, "outbox: {what}; it is tried again");
        *self.counters.last_error.lock() = Some(format!("{what}: {error}"));
    }
}

/// The beginning of an error, as it is kept with a row.
fn cut(error: &str) -> String {
    error.chars().take(ERROR_CHARS).collect()
}
