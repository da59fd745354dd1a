//! The end of a load: everything is decided and delivered, what is stored is read, and all of it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::clock;

use super::{PRODUCERS, QUEUES, READERS, Shared, TOPIC, Target, WALKERS, key_of, place};
use crate::checker::{Terms, Verdict, judge};
use crate::group::{Role, Standing};
use crate::history::{self, Ending, Event, What, hash};
use crate::metrics::Page;
use crate::wait::{since, until_within};
use crate::wire::{End, Wire};

/// Everything is decided and delivered so long after the last fault: two check intervals and time to reconnect.
const HEALING: Duration = Duration::from_secs(60);

/// With fewer acknowledged operations a run says nothing.
const ACKNOWLEDGED_MIN: usize = 100;

/// What became of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// The judgement of the checker.
    pub verdict: Verdict,
    /// Copies of plain messages beyond the first one.
    pub duplicates: usize,
    /// Calls that had no effect, and calls of which nobody knows.
    pub failed: [usize; 2],
    /// Checks of transactions that were answered.
    pub checks: usize,
    /// The longest time without an acknowledgement, before the load was over.
    pub longest_silence: Duration,
    events: Vec<Event>,
}

impl Report {
    pub(super) fn of(shared: &Shared) -> Report {
        let events = shared.history.events();
        let groups = vec![READERS.to_owned(), WALKERS.to_owned()];
        let verdict = judge(&events, &Terms { groups, acknowledged_min: ACKNOWLEDGED_MIN });
        Report {
            verdict,
            duplicates: duplicates(&events),
            failed: [&shared.refused, &shared.unknown].map(|count| count.load(Ordering::Relaxed)),
            checks: shared.checks.load(Ordering::Relaxed),
            longest_silence: longest_silence(&events),
            events,
        }
    }

    /// Prints the counts.
    ///
    /// # Panics
    ///
    /// If the run shows nothing, or something bad. Its history is kept in a file then, and `again` is told as the command that
    /// tries it once more.
    pub fn assert_good(&self, name: &str, again: &str) {
        println!("{name}: {self}");
        if !self.verdict.is_good() {
            let path = std::env::temp_dir().join(format!("escrowmq-{name}.jsonl"));
            let kept = history::save(&self.events, &path);
            panic!("{name}: {}the history is in {} ({kept:?})\nagain: {again}", self.verdict, path.display());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [refused, unknown] = self.failed;
        write!(
            f,
            "{} acknowledged operations over {} faults, {refused} refused, {unknown} unknown, {} duplicates, {} checks, \
             at most {:?} without an acknowledgement",
            self.verdict.acknowledged, self.verdict.faults, self.duplicates, self.checks, self.longest_silence
        )
    }
}

fn duplicates(events: &[Event]) -> usize {
    let plain: BTreeSet<&String> = events
        .iter()
        .filter_map(|event| if let What::Send { key, .. } = &event.what { Some(key) } else { None })
        .collect();
    let mut copies: BTreeMap<&String, usize> = BTreeMap::new();
    for event in events {
        if let What::Stored { key, .. } = &event.what
            && plain.contains(key)
        {
            *copies.entry(key).or_default() += 1;
        }
    }
    copies.values().map(|count| count - 1).sum()
}

fn longest_silence(events: &[Event]) -> Duration {
    let mut last = 0;
    let mut longest = 0;
    for event in events {
        match event.what {
            What::Sent { .. } | What::Decided { .. } | What::HalfStored { .. } => {
                longest = longest.max(event.at - last);
                last = event.at;
            }
            What::Healed => break,
            _ => {}
        }
    }
    Duration::from_micros(longest)
}

/// Waits until everything has come to its end, and takes down what there is then.
pub(super) async fn finish(shared: &Shared) {
    let mut stored = BTreeSet::new();
    let mut sums = [0; 5];
    for target in &shared.targets {
        let counted = decided(shared, target).await;
        for (sum, count) in sums.iter_mut().zip(counted) {
            *sum += count;
        }
        let (address, _) = leader(target).await;
        let wire = Wire::to(address);
        for queue in 0..QUEUES {
            for message in wire.read_queue(TOPIC, queue).await {
                let (key, place) = (key_of(&message.body), place(&target.name, queue, message.queue_offset));
                stored.insert(place.clone());
                shared.history.note("end", What::Stored { key, place, hash: hash(&message.body) });
            }
        }
    }
    let [halves, committed, rolled_back, pending, parked] = sums;
    shared.history.note("end", What::Counted { halves, committed, rolled_back, pending, parked });
    // A message that is still missing then is missing for good, and the checker says which.
    let started = clock::monotonic();
    let mut missing = [READERS, WALKERS].map(|_| stored.clone());
    let mut looked = 0;
    while since(started) < HEALING && missing.iter().any(|missing| !missing.is_empty()) {
        let events = shared.history.since(looked);
        looked += events.len();
        for event in events {
            if let What::Delivered { group, place, .. } = event.what {
                missing[usize::from(group == WALKERS)].remove(&place);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The address of the member that leads, and its port of metrics.
async fn leader(target: &Target) -> (String, u16) {
    until_within(HEALING, &format!("a leader of {}", target.name), async || {
        for (address, metrics) in &target.members {
            let leads = async || Some(Standing::read(&Page::of(*metrics).await?)?.role == Role::Leader);
            if leads().await == Some(true) {
                return Some((address.clone(), *metrics));
            }
        }
        None
    })
    .await
}

/// Waits for a decision on every half: how many there were, and how they ended.
async fn decided(shared: &Shared, target: &Target) -> [u64; 5] {
    let history = &shared.history;
    // The last half of all: its counter says how many there were. One whose answer was lost is settled by a check.
    let mut attempts = 0..;
    let half = until_within(HEALING, "the last half", async || {
        let key = format!("last/{}/{}", target.name, attempts.next()?);
        history.note("last", What::Half { key: key.clone(), hash: hash(key.as_bytes()) });
        let (address, _) = leader(target).await;
        let half = Wire::to(address).try_half(PRODUCERS, TOPIC, &key, &key).await.ok()??;
        shared.settle(&key, Ending::Commit);
        Some(half)
    })
    .await;
    until_within(HEALING, "the last decision", async || {
        let (address, _) = leader(target).await;
        let answer = Wire::to(address).end(&half, End::Commit).await.ok()?;
        (answer.code == escrowmq_common::code::response::SUCCESS).then_some(())
    })
    .await;
    until_within(HEALING, "decisions on everything", async || {
        let (_, metrics) = leader(target).await;
        let page = Page::of(metrics).await?;
        let [committed, rolled_back] =
            [page.value("transactions_committed_ever_total")?, page.value("transactions_rolled_back_ever_total")?];
        let [open, parked] = [page.value("halves_open")?, page.value("halves_parked")?];
        (open == 0).then_some([half.counter.cast_unsigned() + 1, committed, rolled_back, open, parked])
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Level;

    fn event(at: u64, what: What) -> Event {
        Event { at, client: "c".into(), what }
    }

    #[test]
    fn copies_and_silence_are_counted() {
        let sent = |key: &str| What::Sent { key: key.into(), level: Level::Flushed, place: None };
        let stored = |key: &str, offset| What::Stored { key: key.into(), place: place("b", 0, offset), hash: 0 };
        let events = [
            event(0, What::Send { key: "a".into(), hash: 0 }),
            event(10, sent("a")),
            event(700, sent("b")),
            event(750, What::Healed),
            event(9_000, sent("c")),
            event(9_001, stored("a", 0)),
            event(9_002, stored("a", 1)),
            event(9_003, stored("a", 2)),
            event(9_004, stored("half", 3)),
            event(9_005, stored("half", 4)),
        ];
        assert_eq!(duplicates(&events), 2, "halves are the checker's");
        assert_eq!(longest_silence(&events), Duration::from_micros(690));
    }
}
