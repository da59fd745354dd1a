//! Which slots are this relay's: taken, renewed and given up where the rows are, by the clock there.
//!
//! Relays that are alive share the slots evenly. One that hears nothing from the database for the time of its lease sends
//! nothing any more; it measures that time from before it asked, so that its lease ends earlier for itself than for others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::task::Shutdown;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[cfg(any(feature = "sql", test))]
use super::row::mixed;
use super::worker::Counters;

/// The least and the most time between a failure and the next try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A slot of this relay.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Its rows are being sent.
    pub(super) is_busy: bool,
    /// Somebody else may have owned it since it was looked at last.
    pub(super) is_new: bool,
    /// There may be rows that were not read.
    pub(super) is_hungry: bool,
    /// Nothing is sent before this time of the monotonic clock.
    pub(super) not_before: Duration,
    /// The wait before this one's next try, if one fails again.
    pub(super) pause: Duration,
}

/// The slots of this relay.
#[derive(Debug, Default)]
pub(super) struct Owned {
    state: Mutex<State>,
    /// Told when slots came.
    pub(super) came: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<i64, Slot>,
    until: Duration,
}

impl Owned {
    /// When the lease ends, by the monotonic clock.
    pub(super) fn until(&self) -> Duration {
        self.state.lock().until
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> usize {
        self.state.lock().slots.len()
    }

    /// Looks at, or changes, each slot.
    pub(super) fn each(&self, mut look: impl FnMut(i64, &mut Slot)) {
        self.state.lock().slots.iter_mut().for_each(|(number, slot)| look(*number, slot));
    }

    /// Changes one slot, if it is still there.
    pub(super) fn with(&self, number: i64, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.state.lock().slots.get_mut(&number) {
            change(slot);
        }
    }

    /// Says whether a page that was read from a slot may be sent, and then counts it as on its way. Not if the slot was given up
    /// since it was looked at, or was somebody else's for a while: that one may have sent the page, or have failed a message of it.
    pub(super) fn begin(&self, number: i64, is_hungry: bool) -> bool {
        let mut state = self.state.lock();
        let Some(slot) = state.slots.get_mut(&number).filter(|slot| !slot.is_new) else { return false };
        slot.is_hungry = is_hungry;
        slot.is_busy = true;
        true
    }

    /// The slots are these now, until then.
    pub(super) fn set(&self, numbers: &[i64], until: Duration) {
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.slots);
        if clock::monotonic() >= state.until {
            for slot in before.values_mut() {
                slot.is_new = true;
            }
        }
        let new = || Slot { is_new: true, is_hungry: true, ..Slot::default() };
        state.slots = numbers.iter().map(|number| (*number, before.remove(number).unwrap_or_else(new))).collect();
        state.until = until;
        drop(state);
        self.came.notify_one();
    }

    /// Takes up to `count` slots away that nobody works on.
    #[cfg(any(feature = "sql", test))]
    pub(super) fn remove_idle(&self, count: usize) -> Vec<i64> {
        let mut state = self.state.lock();
        let idle = state.slots.iter().filter(|(_, slot)| !slot.is_busy).map(|(number, _)| *number);
        let mut idle: Vec<i64> = idle.collect();
        idle.sort_unstable_by_key(|number| mixed(*number));
        idle.truncate(count);
        for number in &idle {
            state.slots.remove(number);
        }
        idle
    }
}

/// The leases of one relay, where the rows are.
pub(super) trait Leases: Send + Sync + 'static {
    /// Why it did not answer.
    type Error: fmt::Display + Send;

    /// Renews the relay's leases for so many milliseconds, takes what it should have, and tells `owned`. `until` is when this relay
    /// is to take them for ended.
    fn turn(
        &self,
        owned: &Owned,
        lease_ms: i64,
        until: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Gives up everything, so that others need not wait for the end of the lease.
    fn leave(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Keeps the leases of one relay.
pub(super) struct Keeper<L> {
    pub(super) leases: L,
    pub(super) owned: Arc<Owned>,
    pub(super) counters: Arc<Counters>,
    pub(super) lease: Duration,
}

impl<L: Leases> Keeper<L> {
    /// Until shutdown. Then what is owned stays so until [`leave`](Self::leave).
    pub(super) async fn run(&self, shutdown: &Shutdown) {
        let mut pause = PAUSE_MIN;
        loop {
            let wait = match self.turn().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    self.lease / 3
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox's leases are not renewed; it is tried again");
                    *self.counters.last_error.lock() = Some(format!("the leases are not renewed: {error}"));
                    pause = (pause * 2).min(PAUSE_MAX).min(self.lease / 3);
                    pause
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn turn(&self) -> Result<(), L::Error> {
        let lease_ms = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
        // Its own end comes before the other one.
        let until = clock::monotonic() + self.lease * 9 / 10;
        self.leases.turn(&self.owned, lease_ms, until).await
    }

    /// See [`Leases::leave`].
    pub(super) async fn leave(&self) {
        if let Err(error) = self.leases.leave().await {
            tracing::warn!(%error, "the outbox's slots are not given up; others take them when the lease is over");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_sent_only_by_who_owned_its_slot_all_the_while() {
        let owned = Owned::default();
        let looked_at = || owned.each(|_, slot| slot.is_new = false);
        let hour = || clock::monotonic() + Duration::from_secs(3600);
        owned.set(&[1, 2], hour());
        assert!(!owned.begin(1, false), "held keys of it are not known yet");
        looked_at();
        owned.set(&[1, 2], hour());
        assert!(owned.begin(1, false), "it was renewed in time");
        assert_eq!(owned.remove_idle(2), [2], "the other one is busy");
        assert!(!owned.begin(2, false), "given up");
        owned.set(&[1, 2], clock::monotonic());
        assert!(!owned.begin(2, false), "taken again");
        looked_at();
        assert!(owned.begin(2, false));
        owned.set(&[1, 2], hour());
        assert!(!owned.begin(1, false) && !owned.begin(2, false), "the lease had ended");
    }
}
