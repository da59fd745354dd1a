//! What waits, by topic, and when it is tried again. Pure: time comes in as an argument.
//!
//! A topic has two lanes: messages with a sharding key, in order, and messages without one. A lane has one page on its way at a
//! time, and a page is the beginning of its lane: so the messages of a key go in their order, and a key that is stuck holds up
//! nothing but its own lane.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::message::properties::name;

use super::record::Kept;
use super::store::Place;
use crate::message::Message;

/// A page has no more messages and bytes than these; a single larger message passes alone.
const PAGE_MESSAGES: usize = 256;
const PAGE_BYTES: u64 = 1 << 20;
/// Pages on their way at the same time.
const PAGES: usize = 16;
/// The least and the most time between a failure and the next try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Refusals after which a message is given up whose cause may pass: permission, a topic that is not there.
const REFUSALS_MAX: u32 = 3;

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) place: Place,
    pub(super) topic: Arc<str>,
    pub(super) key: Option<Arc<str>>,
    pub(super) since_ms: i64,
    /// A broker may have it all the same.
    pub(super) possible_duplicate: bool,
    /// How often a broker refused it.
    refusals: u32,
}

impl Entry {
    pub(super) fn of(kept: &Kept, place: Place) -> Entry {
        Entry {
            number: kept.number,
            place,
            topic: kept.message.topic_shared(),
            key: key(&kept.message).map(Into::into),
            since_ms: kept.since_ms,
            possible_duplicate: kept.possible_duplicate,
            refusals: 0,
        }
    }
}

/// The sharding key of a message.
pub(super) fn key(message: &Message) -> Option<&str> {
    message.get(name::SHARDING_KEY)
}

/// The lane of a topic: that of messages with a key, or the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneId {
    topic: Arc<str>,
    has_key: bool,
}

#[derive(Debug, Default)]
struct Lane {
    entries: BTreeMap<u64, Entry>,
    is_on_its_way: bool,
    /// Nothing of the last page was sent.
    is_away: bool,
    pause: Duration,
    /// Not before this time.
    again_at: Duration,
}

/// What became of a page.
#[derive(Debug, Default)]
pub(super) struct PageResult {
    pub(super) stored: Vec<u64>,
    /// Refused for what they are, and whether that can pass.
    pub(super) refused: Vec<(u64, String, bool)>,
    /// The others wait; whether a broker may have them.
    pub(super) maybe_stored: bool,
    /// Some others wait for a broker.
    pub(super) is_away: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lanes: HashMap<LaneId, Lane>,
    /// Messages of a key that wait, or are about to.
    keys: HashMap<(Arc<str>, Arc<str>), usize>,
    count: usize,
    bytes: u64,
    pages: usize,
}

impl Waiting {
    /// Those that an earlier process has left.
    pub(super) fn of(entries: Vec<Entry>) -> Waiting {
        let mut waiting = Waiting::default();
        for entry in entries {
            if let Some(key) = &entry.key {
                waiting.reserve(&entry.topic, key);
            }
            waiting.insert(entry);
        }
        waiting
    }

    /// Whether a new message goes behind those that wait: one of its key does, or brokers were away a moment ago.
    pub(super) fn must_wait(&self, topic: &Arc<str>, key: Option<&str>) -> bool {
        // Nearly always nothing waits: that costs a send no more than this look.
        if self.keys.is_empty() && self.lanes.is_empty() {
            return false;
        }
        let is_behind = key.is_some_and(|key| self.keys.contains_key(&(Arc::clone(topic), Arc::from(key))));
        let lane = LaneId { topic: Arc::clone(topic), has_key: key.is_some() };
        is_behind || self.lanes.get(&lane).is_some_and(|lane| lane.is_away && !lane.entries.is_empty())
    }

    /// A message of this key is about to wait: others go behind it from now on.
    pub(super) fn reserve(&mut self, topic: &Arc<str>, key: &Arc<str>) {
        *self.keys.entry((Arc::clone(topic), Arc::clone(key))).or_default() += 1;
    }

    /// It does not wait, or not any more.
    pub(super) fn release(&mut self, topic: &Arc<str>, key: &Arc<str>) {
        let place = (Arc::clone(topic), Arc::clone(key));
        if let Some(count) = self.keys.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&place);
            }
        }
    }

    /// It waits. Its key was reserved.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.count += 1;
        self.bytes += u64::from(entry.place.length);
        let lane = LaneId { topic: Arc::clone(&entry.topic), has_key: entry.key.is_some() };
        self.lanes.entry(lane).or_default().entries.insert(entry.number, entry);
    }

    /// The beginning of a lane that is due.
    pub(super) fn page(&mut self, now: Duration) -> Option<(LaneId, Vec<Entry>)> {
        if self.pages >= PAGES {
            return None;
        }
        let is_due = |lane: &Lane| !lane.is_on_its_way && !lane.entries.is_empty() && lane.again_at <= now;
        // The one with the oldest message first, so that none is forgotten.
        let due = self.lanes.iter_mut().filter(|(_, lane)| is_due(lane));
        let (id, lane) = due.min_by_key(|(_, lane)| lane.entries.keys().next().copied())?;
        let mut bytes = 0;
        let page = lane.entries.values().take(PAGE_MESSAGES).take_while(|entry| {
            bytes += u64::from(entry.place.length);
            bytes <= PAGE_BYTES || bytes == u64::from(entry.place.length)
        });
        let page = page.cloned().collect();
        lane.is_on_its_way = true;
        self.pages += 1;
        Some((id.clone(), page))
    }

    /// When the next lane is due that is not yet.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let waits = self.lanes.values().filter(|lane| !lane.is_on_its_way && !lane.entries.is_empty());
        waits.map(|lane| lane.again_at).min().filter(|_| self.pages < PAGES)
    }

    /// Takes out what is done, and says what is to be given up, with its reason.
    pub(super) fn settle(
        &mut self,
        id: &LaneId,
        result: PageResult,
        now: Duration,
    ) -> (Vec<Place>, Vec<(Entry, String)>) {
        self.pages -= 1;
        let (mut done, mut given_up, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let lane = self.lanes.get_mut(id).expect("a lane with a page on its way stays");
        lane.is_on_its_way = false;
        let has_sent = !result.stored.is_empty();
        for number in result.stored {
            if let Some(entry) = lane.entries.remove(&number) {
                done.push(entry.place);
                gone.push(entry);
            }
        }
        let mut may_pass = false;
        for (number, reason, is_passing) in result.refused {
            let Some(entry) = lane.entries.get_mut(&number) else { continue };
            entry.refusals += 1;
            if is_passing && entry.refusals < REFUSALS_MAX {
                may_pass = true;
            } else {
                // It stays until the failure log has it.
                given_up.push((entry.clone(), reason));
            }
        }
        if result.maybe_stored {
            for entry in lane.entries.values_mut().take(PAGE_MESSAGES) {
                entry.possible_duplicate = true;
            }
        }
        let has_failed = result.is_away || may_pass;
        lane.is_away = result.is_away && !has_sent;
        lane.pause = match has_failed {
            true if has_sent => PAUSE_MIN,
            true => (lane.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX),
            false => Duration::ZERO,
        };
        lane.again_at = now + lane.pause;
        let is_empty = lane.entries.is_empty();
        if is_empty {
            self.lanes.remove(id);
        }
        for entry in &gone {
            self.gone(entry);
        }
        (done, given_up)
    }

    /// A message that was given up is in the failure log, or is not because that cannot be written.
    pub(super) fn given_up(&mut self, entry: &Entry, is_written: bool, now: Duration) {
        let id = LaneId { topic: Arc::clone(&entry.topic), has_key: entry.key.is_some() };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !is_written {
            lane.again_at = now + PAUSE_MAX;
            return;
        }
        let was_there = lane.entries.remove(&entry.number).is_some();
        if lane.entries.is_empty() && !lane.is_on_its_way {
            self.lanes.remove(&id);
        }
        if was_there {
            self.gone(entry);
        }
    }

    fn gone(&mut self, entry: &Entry) {
        self.count -= 1;
        self.bytes -= u64::from(entry.place.length);
        if let Some(key) = &entry.key {
            self.release(&entry.topic, key);
        }
    }

    /// Messages and their bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.count, self.bytes)
    }

    /// When the oldest was spilled, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let firsts = self.lanes.values().filter_map(|lane| lane.entries.values().next());
        firsts.map(|entry| entry.since_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, topic: &str, key: Option<&str>) -> Entry {
        Entry {
            number,
            place: Place { segment: 1, offset: number as u32, length: 100 },
            topic: topic.into(),
            key: key.map(Into::into),
            since_ms: number as i64,
            possible_duplicate: false,
            refusals: 0,
        }
    }

    fn numbers(page: &[Entry]) -> Vec<u64> {
        page.iter().map(|entry| entry.number).collect()
    }

    fn away() -> PageResult {
        PageResult { is_away: true, ..PageResult::default() }
    }

    #[test]
    fn a_new_message_waits_behind_those_of_its_key_alone() {
        let mut waiting = Waiting::of(vec![entry(1, "T", Some("a"))]);
        let (topic, other): (Arc<str>, Arc<str>) = ("T".into(), "U".into());
        assert!(waiting.must_wait(&topic, Some("a")));
        assert!(!waiting.must_wait(&topic, Some("b")) && !waiting.must_wait(&topic, None));
        assert!(!waiting.must_wait(&other, Some("a")), "a key is one of its topic");
        let (id, page) = waiting.page(Duration::ZERO).expect("due");
        assert_eq!(numbers(&page), [1]);
        assert!(waiting.page(Duration::ZERO).is_none(), "one page of a lane at a time");
        assert!(waiting.must_wait(&topic, Some("a")), "until it is settled");
        waiting.settle(&id, PageResult { stored: vec![1], ..PageResult::default() }, Duration::ZERO);
        assert!(!waiting.must_wait(&topic, Some("a")));
        assert_eq!((waiting.size(), waiting.oldest_ms()), ((0, 0), None));
        assert!(waiting.keys.is_empty() && waiting.lanes.is_empty());
    }

    #[test]
    fn while_brokers_are_away_pauses_grow_and_new_messages_wait_at_once() {
        let mut waiting = Waiting::of(vec![entry(1, "T", None)]);
        let topic: Arc<str> = "T".into();
        assert!(!waiting.must_wait(&topic, None), "nobody has tried yet");
        let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
        for _ in 0..12 {
            let (id, _) = waiting.page(now).expect("due");
            waiting.settle(&id, away(), now);
            assert!(waiting.must_wait(&topic, None) && !waiting.must_wait(&topic, Some("k")));
            assert!(waiting.page(now).is_none());
            let due = waiting.next_due().expect("it waits");
            pauses.push(due.saturating_sub(now));
            now = due;
        }
        assert_eq!((pauses[0], pauses[1], pauses[11]), (PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MAX));
        let (id, _) = waiting.page(now).expect("due");
        waiting.insert(entry(2, "T", None));
        waiting.settle(&id, PageResult { stored: vec![1], ..PageResult::default() }, now);
        assert!(!waiting.must_wait(&topic, None), "they are back");
        assert_eq!(numbers(&waiting.page(now).expect("at once").1), [2]);
    }

    #[test]
    fn a_refused_message_is_given_up_at_once_or_after_three_tries_and_stays_until_it_is_written_down() {
        let mut waiting = Waiting::of(vec![entry(1, "T", Some("a")), entry(2, "T", Some("a"))]);
        let mut now = Duration::ZERO;
        for round in 1..=3 {
            let (id, page) = waiting.page(now).expect("due");
            assert_eq!(numbers(&page), [1, 2]);
            let refused = vec![(1, "no permission".to_owned(), true)];
            let (_, given_up) = waiting.settle(&id, PageResult { refused, ..PageResult::default() }, now);
            assert_eq!(given_up.len(), usize::from(round == 3), "round {round}");
            if let Some((entry, reason)) = given_up.first() {
                assert_eq!((entry.number, reason.as_str()), (1, "no permission"));
                waiting.given_up(entry, false, now);
                assert_eq!(waiting.size().0, 2, "the log cannot be written");
                waiting.given_up(entry, true, now);
                assert_eq!(waiting.size().0, 1);
            }
            now += PAUSE_MAX;
        }
        let (id, page) = waiting.page(now).expect("due");
        assert_eq!(numbers(&page), [2]);
        let refused = vec![(2, "too large".to_owned(), false)];
        let (_, given_up) = waiting.settle(&id, PageResult { refused, ..PageResult::default() }, now);
        waiting.given_up(&given_up[0].0, true, now);
        assert_eq!(waiting.size(), (0, 0));
        assert!(waiting.keys.is_empty() && waiting.lanes.is_empty());
    }

    #[test]
    fn pages_are_bounded_and_the_oldest_lane_goes_first() {
        let mut waiting = Waiting::default();
        for number in 1..=600 {
            waiting.insert(entry(number, if number % 2 == 0 { "T" } else { "U" }, None));
        }
        let mut large = entry(0, "L", None);
        large.place.length = 4 << 20;
        waiting.insert(large.clone());
        waiting.insert(Entry { number: 601, ..large });
        let pages: Vec<Vec<u64>> =
            std::iter::from_fn(|| waiting.page(Duration::ZERO)).map(|(_, page)| numbers(&page)).collect();
        assert_eq!(pages.len(), 3);
        assert_eq!(pages[0], [0], "a large one goes alone");
        assert_eq!((pages[1].len(), pages[1][..3].to_vec()), (PAGE_MESSAGES, vec![1, 3, 5]));
        let mut many =
            Waiting::of((0..2 * PAGES as u64).map(|number| entry(number, &format!("T{number}"), None)).collect());
        assert_eq!(std::iter::from_fn(|| many.page(Duration::ZERO)).count(), PAGES);
    }
}
