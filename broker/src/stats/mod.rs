//! How much goes through topics and groups, minute by minute.
//!
//! The messages that enter a topic are counted by the ends of its queues, so sending pays nothing for it: commits, retries and
//! messages whose time has come count, half messages do not. Reads of groups are counted by the pulls: a look into a map and two
//! atomics. A task takes samples every ten seconds, and what tools ask for is computed from the samples.
//!
//! Promises: counting waits for nobody; memory is bounded, also against clients that invent names ([`SERIES_MAX`]); a name that
//! was quiet for a day is forgotten. All of it is in memory and begins at zero with each start.
//!
//! Left to others: totals since the start (`metrics`), and the messages in the queues (`shard`).

mod sampler;
mod window;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use escrowmq_common::body::BrokerStatsData;
use escrowmq_common::code::response;
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::shard::{Topic, Topics};
use crate::terms::Stamp;
use window::{STEP, Sample, Spans, Window};

pub(crate) use sampler::Sampler;

/// Most names that are counted per family; further ones are not counted alone.
pub(crate) const SERIES_MAX: usize = 50_000;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// A count with its history.
#[derive(Debug)]
struct Series {
    sum: AtomicU64,
    times: AtomicU64,
    spans: Mutex<Spans>,
}

impl Series {
    fn new(at: Stamp) -> Self {
        let spans = Mutex::new(Spans::new(Sample { at, sum: 0, times: 0 }));
        Self { sum: AtomicU64::new(0), times: AtomicU64::new(0), spans }
    }

    fn add(&self, sum: u64) {
        self.sum.fetch_add(sum, Ordering::Relaxed);
        self.times.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self, at: Stamp) -> Sample {
        Sample { at, sum: self.sum.load(Ordering::Relaxed), times: self.times.load(Ordering::Relaxed) }
    }

    fn look(&self, at: Stamp) -> BrokerStatsData {
        self.spans.lock().look(self.now(at))
    }
}

/// Counts of one kind by name.
#[derive(Debug, Default)]
struct Family {
    by_key: DashMap<Box<str>, Arc<Series>>,
}

impl Family {
    fn add(&self, key: &str, sum: u64, at: Stamp) {
        if let Some(series) = self.by_key.get(key) {
            return series.add(sum);
        }
        if self.by_key.len() < SERIES_MAX {
            self.by_key.entry(key.into()).or_insert_with(|| Arc::new(Series::new(at))).add(sum);
        }
    }

    fn look(&self, key: &str, at: Stamp) -> Option<BrokerStatsData> {
        self.by_key.get(key).map(|series| series.look(at))
    }

    fn tick(&self, at: Stamp) {
        self.by_key.retain(|_, series| {
            let now = series.now(at);
            let mut spans = series.spans.lock();
            let is_quiet = spans.is_quiet(now);
            spans.offer(now);
            !is_quiet
        });
    }
}

/// The messages that entered the topics, by the ends of their queues.
#[derive(Debug, Default)]
struct TopicPuts {
    by_topic: HashMap<Box<str>, TopicPut>,
    /// Topics were looked at before: one that appears from now on is new, and all of its messages are.
    is_warm: bool,
}

#[derive(Debug)]
struct TopicPut {
    /// The sum at the last look.
    last: u64,
    /// `None` until something comes in.
    spans: Option<Box<Spans>>,
}

impl TopicPuts {
    /// Takes samples of all topics, given with the messages that ever entered them. `before` is the time of the last
    /// samples.
    fn tick<'a>(&mut self, before: Stamp, at: Stamp, topics: impl Iterator<Item = (&'a str, u64)>) {
        let mut seen = HashMap::with_capacity(self.by_topic.len());
        for (topic, sum) in topics.take(SERIES_MAX) {
            let known = self.by_topic.remove_entry(topic);
            let base = if self.is_warm { 0 } else { sum };
            let (name, mut put) = known.unwrap_or_else(|| (topic.into(), TopicPut { last: base, spans: None }));
            if sum != put.last && put.spans.is_none() {
                let first = Sample { at: before, sum: put.last, times: put.last };
                put.spans = Some(Box::new(Spans::new(first)));
            }
            if let Some(spans) = &mut put.spans {
                let now = Sample { at, sum, times: sum };
                if spans.is_quiet(now) {
                    put.spans = None;
                } else {
                    spans.offer(now);
                }
            }
            put.last = sum;
            seen.insert(name, put);
        }
        self.by_topic = seen;
        self.is_warm = true;
    }

    /// Over the last minute, hour and day, if `sum` messages ever entered the topic.
    fn look(&self, topic: &str, sum: u64, now: Stamp) -> Option<BrokerStatsData> {
        let put = self.by_topic.get(topic);
        let sample = Sample { at: now, sum, times: sum };
        match put {
            Some(TopicPut { spans: Some(spans), .. }) => Some(spans.look(sample)),
            Some(TopicPut { spans: None, last }) if *last == sum => None,
            _ => {
                let base = put.map_or(0, |put| put.last);
                Some(Spans::new(Sample { at: now, sum: base, times: base }).look(sample))
            }
        }
    }
}

/// How many messages ever entered a topic.
pub(crate) fn entered(topic: &Topic) -> u64 {
    topic.queues.iter().map(|queue| queue.max_offset().get()).sum()
}

/// Counts of the whole broker since its start; `metrics` keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Messages stored.
    pub put: u64,
    /// Messages handed out.
    pub got: u64,
    /// Pulls that found something.
    pub pulls_found: u64,
    /// Pulls that found nothing.
    pub pulls_missed: u64,
}

impl Totals {
    /// The counts at this moment.
    pub(crate) fn of(metrics: &Metrics) -> Self {
        Self {
            put: metrics.messages_in.get(),
            got: metrics.messages_out.get(),
            pulls_found: metrics.pulls.count(response::SUCCESS),
            pulls_missed: metrics.pulls.count(response::PULL_NOT_FOUND),
        }
    }
}

/// Rates per second over the last ten seconds, minute and ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates(pub [f64; 3]);

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [short, middle, long] = self.0;
        write!(f, "{short} {middle} {long}")
    }
}

/// Rates of the whole broker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BrokerRates {
    /// Messages stored.
    pub put: Rates,
    /// Messages handed out.
    pub got: Rates,
    /// Pulls that found something.
    pub found: Rates,
    /// Pulls that found nothing.
    pub missed: Rates,
    /// Messages stored and handed out before this day began (UTC), since the start.
    pub this_morning: (u64, u64),
    /// The same of the day before.
    pub yesterday_morning: (u64, u64),
}

#[derive(Debug)]
struct Whole {
    put: (Spans, Window),
    got: (Spans, Window),
    found: Window,
    missed: Window,
    day: u64,
    this_morning: (u64, u64),
    yesterday_morning: (u64, u64),
    last: Totals,
}

impl Whole {
    fn new(at: Stamp) -> Self {
        let first = Sample { at, sum: 0, times: 0 };
        let window = || Window::new(STEP, 60, first);
        Self {
            put: (Spans::new(first), window()),
            got: (Spans::new(first), window()),
            found: window(),
            missed: window(),
            day: at.get() / DAY,
            this_morning: (0, 0),
            yesterday_morning: (0, 0),
            last: Totals::default(),
        }
    }

    fn tick(&mut self, at: Stamp, totals: Totals) {
        let day = at.get() / DAY;
        if day > self.day {
            self.day = day;
            self.yesterday_morning = self.this_morning;
            self.this_morning = (self.last.put, self.last.got);
        }
        self.last = totals;
        let sample = |sum| Sample { at, sum, times: sum };
        self.put.0.offer(sample(totals.put));
        self.put.1.offer(sample(totals.put));
        self.got.0.offer(sample(totals.got));
        self.got.1.offer(sample(totals.got));
        self.found.offer(sample(totals.pulls_found));
        self.missed.offer(sample(totals.pulls_missed));
    }
}

/// A figure that tools can ask for by name and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Messages that entered a topic, by topic.
    TopicPutNums,
    /// Messages handed out, by `topic@group`.
    GroupGetNums,
    /// Bytes handed out, by `topic@group`.
    GroupGetSize,
    /// Messages stored, by cluster.
    BrokerPutNums,
    /// Messages handed out, by cluster.
    BrokerGetNums,
}

impl Figure {
    /// The figure with this wire name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "TOPIC_PUT_NUMS" => Self::TopicPutNums,
            "GROUP_GET_NUMS" => Self::GroupGetNums,
            "GROUP_GET_SIZE" => Self::GroupGetSize,
            "BROKER_PUT_NUMS" => Self::BrokerPutNums,
            "BROKER_GET_NUMS" => Self::BrokerGetNums,
            _ => return None,
        })
    }
}

/// The counts of topics and groups. Shared by all connections.
#[derive(Debug)]
pub(crate) struct Stats {
    topics: Mutex<TopicPuts>,
    group_get: Family,
    group_get_bytes: Family,
    whole: Mutex<Whole>,
    /// When the last samples were taken.
    sampled: AtomicU64,
    /// When counting began.
    began: Stamp,
}

thread_local! {
    /// `topic@group`, put together without an allocation.
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

fn with_key(topic: &str, group: &str, then: impl FnOnce(&str)) {
    KEY.with_borrow_mut(|key| {
        key.clear();
        write!(key, "{topic}@{group}").expect("a String takes everything");
        then(key);
    });
}

impl Stats {
    /// Counting begins at `now`.
    pub(crate) fn new(now: Stamp) -> Self {
        Self {
            topics: Mutex::default(),
            group_get: Family::default(),
            group_get_bytes: Family::default(),
            whole: Mutex::new(Whole::new(now)),
            sampled: AtomicU64::new(now.get()),
            began: now,
        }
    }

    /// Messages of a topic were handed to a group.
    pub(crate) fn group_get(&self, group: &str, topic: &str, messages: u64, bytes: u64) {
        let at = Stamp(self.sampled.load(Ordering::Relaxed));
        with_key(topic, group, |key| {
            self.group_get.add(key, messages, at);
            self.group_get_bytes.add(key, bytes, at);
        });
    }

    /// For each topic and group what was handed out since the start, or since the pair was quiet for a day: topic, group, messages,
    /// bytes.
    pub(crate) fn each_group_get(&self, mut take: impl FnMut(&str, &str, u64, u64)) {
        for series in &self.group_get.by_key {
            let (key, messages) = (series.key(), series.sum.load(Ordering::Relaxed));
            // Neither name may have an `@`.
            let Some((topic, group)) = key.split_once('@') else { continue };
            let bytes = self.group_get_bytes.by_key.get(key).map_or(0, |series| series.sum.load(Ordering::Relaxed));
            take(topic, group, messages, bytes);
        }
    }

    /// When counting began: the start of the broker.
    pub(crate) fn began(&self) -> Stamp {
        self.began
    }

    /// Messages per second that entered a topic, over the last minute.
    pub(crate) fn topic_put_rate(&self, topic: &Topic, now: Stamp) -> f64 {
        self.topic_put(topic, now).map_or(0.0, |data| data.stats_minute.tps)
    }

    /// The messages that entered a topic over the last minute, hour and day; `None` if none did.
    pub(crate) fn topic_put(&self, topic: &Topic, now: Stamp) -> Option<BrokerStatsData> {
        self.topics.lock().look(&topic.settings.name, entered(topic), now)
    }

    /// Messages per second of a topic handed to a group, over the last minute.
    pub(crate) fn group_get_rate(&self, group: &str, topic: &str, now: Stamp) -> f64 {
        let mut rate = 0.0;
        with_key(topic, group, |key| rate = self.group_get.look(key, now).map_or(0.0, |data| data.stats_minute.tps));
        rate
    }

    /// A figure over the last minute, hour and day; `None` if nothing of that name was counted.
    pub(crate) fn look(&self, figure: Figure, key: &str, topics: &Topics, now: Stamp) -> Option<BrokerStatsData> {
        match figure {
            Figure::TopicPutNums => self.topic_put(&*topics.get(key)?, now),
            Figure::GroupGetNums => self.group_get.look(key, now),
            Figure::GroupGetSize => self.group_get_bytes.look(key, now),
            Figure::BrokerPutNums => {
                let whole = self.whole.lock();
                Some(whole.put.0.look(Sample { at: now, sum: whole.last.put, times: whole.last.put }))
            }
            Figure::BrokerGetNums => {
                let whole = self.whole.lock();
                Some(whole.got.0.look(Sample { at: now, sum: whole.last.got, times: whole.last.got }))
            }
        }
    }

    /// The rates of the whole broker, whose counts are `totals` now.
    pub(crate) fn rates(&self, now: Stamp, totals: Totals) -> BrokerRates {
        let whole = self.whole.lock();
        let rates = |window: &Window, sum| {
            Rates([1, 6, 60].map(|steps| window.over(steps, Sample { at: now, sum, times: sum }).tps))
        };
        BrokerRates {
            put: rates(&whole.put.1, totals.put),
            got: rates(&whole.got.1, totals.got),
            found: rates(&whole.found, totals.pulls_found),
            missed: rates(&whole.missed, totals.pulls_missed),
            this_morning: whole.this_morning,
            yesterday_morning: whole.yesterday_morning,
        }
    }

    /// Takes samples; every ten seconds.
    pub(crate) fn tick(&self, now: Stamp, totals: Totals, topics: &[Arc<Topic>]) {
        let before = Stamp(self.sampled.swap(now.get(), Ordering::Relaxed));
        self.whole.lock().tick(now, totals);
        let entered = topics.iter().map(|topic| (topic.settings.name.as_str(), entered(topic)));
        self.topics.lock().tick(before, now, entered);
        self.group_get.tick(now);
        self.group_get_bytes.tick(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn look(stats: &Stats, key: &str, now: u64) -> Option<BrokerStatsData> {
        stats.look(Figure::GroupGetNums, key, &Topics::default(), Stamp(now))
    }

    #[test]
    fn reads_are_counted_by_topic_and_group() {
        let stats = Stats::new(Stamp(START));
        stats.group_get("G", "T", 2, 600);
        stats.group_get("G", "T", 4, 100);
        stats.group_get("H", "T", 5, 50);
        let now = START + 60_000;
        let data = look(&stats, "T@G", now).unwrap();
        assert_eq!((data.stats_minute.sum, data.stats_day.sum), (6, 6));
        assert!((data.stats_minute.avgpt - 3.0).abs() < 1e-9);
        assert!((stats.group_get_rate("G", "T", Stamp(now)) - 0.1).abs() < 1e-9);
        let bytes = stats.look(Figure::GroupGetSize, "T@G", &Topics::default(), Stamp(now)).unwrap();
        assert_eq!(bytes.stats_minute.sum, 700);
        assert!(look(&stats, "T@other", now).is_none());
        for step in 1..=10 {
            stats.tick(Stamp(START + step * STEP), Totals::default(), &[]);
        }
        let later = look(&stats, "T@G", START + 10 * STEP).unwrap();
        assert_eq!((later.stats_minute.sum, later.stats_hour.sum), (0, 6));
    }

    #[test]
    fn what_entered_a_topic_is_counted_since_the_start() {
        let mut puts = TopicPuts::default();
        puts.tick(Stamp(START), Stamp(START), [("old", 1000)].into_iter());
        assert!(puts.look("old", 1000, Stamp(START)).is_none());
        assert_eq!(puts.look("old", 1007, Stamp(START + 5)).unwrap().stats_minute.sum, 7);
        // A topic that came later is new with all of its messages.
        assert_eq!(puts.look("new", 5, Stamp(START + 5)).unwrap().stats_minute.sum, 5);
        puts.tick(Stamp(START), Stamp(START + STEP), [("old", 1010), ("new", 5)].into_iter());
        let now = START + STEP;
        assert_eq!(puts.look("old", 1012, Stamp(now)).unwrap().stats_minute.sum, 12);
        assert_eq!(puts.look("new", 5, Stamp(now)).unwrap().stats_minute.sum, 5);
        // A deleted topic is forgotten, and a new one of its name starts at zero.
        puts.tick(Stamp(now), Stamp(now + STEP), [("old", 1012)].into_iter());
        puts.tick(Stamp(now), Stamp(now + 2 * STEP), [("old", 1012), ("new", 1)].into_iter());
        assert_eq!(puts.look("new", 1, Stamp(now + 2 * STEP)).unwrap().stats_minute.sum, 1);
        for hour in 1..=26 {
            let at = now + hour * 3_600_000;
            puts.tick(Stamp(at), Stamp(at), [("old", 1012)].into_iter());
        }
        assert!(puts.look("old", 1012, Stamp(now + 26 * 3_600_000)).is_none());
    }

    #[test]
    fn names_that_are_quiet_for_a_day_are_forgotten() {
        let stats = Stats::new(Stamp(START));
        stats.group_get("quiet", "T", 1, 1);
        for hour in 1..=30 {
            stats.group_get("busy", "T", 1, 1);
            stats.tick(Stamp(START + hour * 3_600_000), Totals::default(), &[]);
        }
        let now = START + 30 * 3_600_000;
        assert!(look(&stats, "T@quiet", now).is_none());
        assert_eq!(look(&stats, "T@busy", now).unwrap().stats_day.sum, 24);
    }

    #[test]
    fn invented_names_cost_a_bounded_amount() {
        let family = Family::default();
        for n in 0..SERIES_MAX + 10 {
            family.add(&n.to_string(), 1, Stamp(START));
        }
        assert_eq!(family.by_key.len(), SERIES_MAX);
        family.add("0", 1, Stamp(START));
        assert_eq!(family.look("0", Stamp(START)).unwrap().stats_minute.sum, 2);
    }

    #[test]
    fn the_whole_broker_has_rates_and_mornings() {
        let stats = Stats::new(Stamp(START));
        let totals = |put| Totals { put, ..Totals::default() };
        for step in 1..=60 {
            stats.tick(Stamp(START + step * STEP), totals(step * 50), &[]);
        }
        let rates = stats.rates(Stamp(START + 60 * STEP), totals(3_000));
        assert_eq!(rates.put.to_string(), "5 5 5");
        let rates = stats.rates(Stamp(START + 61 * STEP), totals(3_100));
        assert!((rates.put.0[0] - 7.5).abs() < 1e-9);
        assert_eq!(rates.this_morning, (0, 0));
        stats.tick(Stamp(START + DAY), totals(4_000), &[]);
        assert_eq!(stats.rates(Stamp(START + DAY), totals(4_000)).this_morning, (3_000, 0));
        let day = stats.look(Figure::BrokerPutNums, "any", &Topics::default(), Stamp(START + DAY)).unwrap();
        assert_eq!(day.stats_day.sum, 4_000);
    }
}
