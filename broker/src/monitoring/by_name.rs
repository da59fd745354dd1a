//! Figures by topic, by consumer group, by both, and by producer group. Names are clients' choice, so no more than
//! `metricsSeriesMax` of each kind have figures of their own ([`Bounded`]).
//!
//! On the leader's page alone: the others know neither consumers nor the newest offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::monitoring::{Families, OTHER, Samples};
use escrowmq_common::name::{DLQ_PREFIX, RETRY_PREFIX, dead_letter_topic, retry_topic};
use parking_lot::Mutex;

use super::Monitor;
use super::bounded::{Bounded, Gauges, Row, Told};
use super::lag::{Lag, Lags, Reader};
use super::transactions::oldest;
use crate::shard::Topic;
use crate::terms::Stamp;

/// A group and a topic.
type Pair = (Arc<str>, Arc<str>);

/// Remembers from one scrape to the next which names have figures of their own, and how far groups were behind.
pub(crate) struct ByName(Mutex<State>);

struct State {
    topics: Bounded<Arc<str>, 2>,
    groups: Bounded<Arc<str>, 2>,
    consumption: Bounded<Pair, 2>,
    producers: Bounded<Arc<str>, 0>,
    lags: Lags,
}

impl ByName {
    /// At most `max` names of each kind have figures of their own.
    pub(crate) fn new(max: usize) -> Self {
        Self(Mutex::new(State {
            topics: Bounded::new(max),
            groups: Bounded::new(max),
            consumption: Bounded::new(max),
            producers: Bounded::new(max),
            lags: Lags::default(),
        }))
    }
}

/// Consumers and dead letters of a consumer group.
#[derive(Debug, Default)]
struct GroupGauges {
    consumers: u64,
    dead_letters: u64,
}

impl Gauges for GroupGauges {
    fn add(&mut self, more: Self) {
        self.consumers += more.consumers;
        self.dead_letters += more.dead_letters;
    }
}

impl Gauges for Lag {
    fn add(&mut self, more: Self) {
        self.messages += more.messages;
        // A time is above none; the older one counts.
        self.oldest = self.oldest.into_iter().chain(more.oldest).min();
    }
}

/// Undecided halves of a producer group.
#[derive(Debug, Default)]
struct Halves {
    open: u64,
    parked: u64,
}

impl Gauges for Halves {
    fn add(&mut self, more: Self) {
        self.open += more.open;
        self.parked += more.parked;
    }
}

pub(super) fn collect(families: &mut Families<'_>, monitor: &Monitor) {
    let state = &mut *monitor.by_name.0.lock();
    let now = monitor.time.now();
    let leads = monitor.office.is_held();
    if leads {
        let reader = Reader { shard: &monitor.shard, delivery: &monitor.delivery, clients: &monitor.clients };
        state.lags.look(&reader, now, escrowmq_common::clock::monotonic);
    } else {
        state.lags.clear();
    }
    // A member that does not lead looks at nothing, and has the same families.
    let topics = state.topics.look(if leads { topics(monitor) } else { BTreeMap::new() });
    let groups = state.groups.look(if leads { groups(monitor) } else { BTreeMap::new() });
    let consumption = state.consumption.look(if leads { consumption(monitor, &state.lags) } else { BTreeMap::new() });
    let producers = state.producers.look(if leads { producers(monitor) } else { BTreeMap::new() });
    write_topics(families, &topics);
    write_groups(families, &groups);
    write_consumption(families, &consumption, now);
    write_producers(families, &producers, monitor, now);
    let help = "Topics, groups, pairs of both, and producer groups that have no figures of their own, but are summed.";
    families.gauges("escrowmq_metrics_summed", help, |samples| {
        for (by, summed) in [
            ("topic", topics.summed),
            ("group", groups.summed),
            ("group_topic", consumption.summed),
            ("producer_group", producers.summed),
        ] {
            samples.gauge(&[("by", by)], summed as u64);
        }
    });
    families.gauge(
        "escrowmq_consumer_lag_age_seconds",
        "Age of the oldest figure of lag: above 0 if there are more groups than a scrape has time for.",
        state.lags.age(now) as f64 / 1e3,
    );
}

/// Messages that entered a topic since the start, with their bytes.
fn entered(topic: &Topic) -> [u64; 2] {
    topic.queues.iter().fold([0, 0], |[messages, bytes], queue| {
        let (more, their) = queue.entered();
        [messages + more, bytes + their]
    })
}

fn topics(monitor: &Monitor) -> BTreeMap<Arc<str>, ([u64; 2], ())> {
    let all = monitor.shard.topics().all().into_iter();
    let is_shown = |name: &str| !name.starts_with(RETRY_PREFIX) && !name.starts_with(DLQ_PREFIX);
    let shown = all.filter(|topic| is_shown(&topic.settings.name));
    shown.map(|topic| (Arc::from(topic.settings.name.as_str()), (entered(&topic), ()))).collect()
}

fn groups(monitor: &Monitor) -> BTreeMap<Arc<str>, ([u64; 2], GroupGauges)> {
    let row = |name: &str| {
        let topics = monitor.shard.topics();
        let retries = topics.get(&retry_topic(name)).map_or(0, |topic| entered(&topic)[0]);
        let dead = topics.get(&dead_letter_topic(name));
        let (dead_letters, kept) = dead.map_or((0, 0), |topic| {
            let kept = topic.queues.iter().map(|queue| queue.max_offset().get() - queue.min_offset().get());
            (entered(&topic)[0], kept.sum())
        });
        let consumers = monitor.clients.consumer_count(name) as u64;
        ([retries, dead_letters], GroupGauges { consumers, dead_letters: kept })
    };
    let all = monitor.shard.groups().all().into_iter();
    all.map(|group| (Arc::from(group.name.as_str()), row(&group.name))).collect()
}

fn consumption(monitor: &Monitor, lags: &Lags) -> BTreeMap<Pair, Row<Lag, 2>> {
    let lags = lags.each().map(|(group, topic, lag)| ((Arc::clone(group), Arc::clone(topic)), ([0, 0], lag)));
    let mut rows: BTreeMap<_, _> = lags.collect();
    monitor.stats.each_group_get(|topic, group, messages, bytes| {
        // The statistics remember deleted groups and topics for a while.
        if monitor.shard.groups().get(group).is_some() && monitor.shard.topics().get(topic).is_some() {
            let row = rows.entry((Arc::from(group), Arc::from(topic))).or_insert(([0, 0], Lag::default()));
            row.0 = [messages, bytes];
        }
    });
    rows
}

fn producers(monitor: &Monitor) -> BTreeMap<Arc<str>, ([u64; 0], Halves)> {
    let all = monitor.shard.producers().all().into_iter();
    all.map(|group| (Arc::clone(&group.name), ([], Halves { open: group.open(), parked: group.parked() }))).collect()
}

fn write_topics(families: &mut Families<'_>, told: &Told<Arc<str>, (), 2>) {
    for (name, help, which) in [
        (
            "escrowmq_topic_messages_in_total",
            "Messages that entered a topic's queues: halves when they are committed, delayed ones when it is their time.",
            0,
        ),
        ("escrowmq_topic_bytes_in_total", "Bytes of these messages as they are stored.", 1),
    ] {
        families.counters(name, help, |samples| {
            each(told, |topic, (counters, ())| samples.counter(&[("topic", topic)], counters[which]));
        });
    }
}

/// Calls `write` for each name, and for what is summed.
fn each<G, const N: usize>(told: &Told<Arc<str>, G, N>, mut write: impl FnMut(&str, &([u64; N], G))) {
    told.own.iter().for_each(|(name, row)| write(name, row));
    told.other.iter().for_each(|row| write(OTHER, row));
}

fn write_groups(families: &mut Families<'_>, told: &Told<Arc<str>, GroupGauges, 2>) {
    for (name, help, which) in [
        ("escrowmq_consumer_retries_total", "Messages that a group got again: they entered its retry topic.", 0),
        ("escrowmq_consumer_dead_letters_total", "Messages that entered a group's dead-letter topic.", 1),
    ] {
        families.counters(name, help, |samples| {
            each(told, |group, (counters, _)| samples.counter(&[("group", group)], counters[which]));
        });
    }
    families.gauges("escrowmq_consumer_dead_letters", "Messages kept in a group's dead-letter topic.", |samples| {
        each(told, |group, (_, gauges)| samples.gauge(&[("group", group)], gauges.dead_letters));
    });
    families.gauges("escrowmq_consumers", "Connected members of a consumer group.", |samples| {
        each(told, |group, (_, gauges)| samples.gauge(&[("group", group)], gauges.consumers));
    });
}

/// Writes the samples of a group and a topic, which have these labels.
type WritePair<'a> = dyn Fn(&mut Samples<'_>, &[(&str, &str)], &Row<Lag, 2>) + 'a;

fn write_consumption(families: &mut Families<'_>, told: &Told<Pair, Lag, 2>, now: Stamp) {
    let each = |samples: &mut Samples<'_>, write: &WritePair<'_>| {
        for ((group, topic), row) in &told.own {
            write(samples, &[("group", group), ("topic", topic)], row);
        }
        if let Some(row) = &told.other {
            write(samples, &[("group", OTHER), ("topic", OTHER)], row);
        }
    };
    for (name, help, which) in [
        ("escrowmq_consumer_messages_out_total", "Messages of a topic handed to a group.", 0),
        ("escrowmq_consumer_bytes_out_total", "Bytes of these messages as they are stored.", 1),
    ] {
        families.counters(name, help, |samples| {
            each(samples, &|samples, labels, (counters, _)| samples.counter(labels, counters[which]));
        });
    }
    families.gauges(
        "escrowmq_consumer_lag_messages",
        "Messages of a topic that a group has not consumed.",
        |samples| {
            each(samples, &|samples, labels, (_, lag)| samples.gauge(labels, lag.messages));
        },
    );
    let help = "Time since the oldest of these messages entered its queue; 0 if there is none.";
    families.gauges("escrowmq_consumer_lag_seconds", help, |samples| {
        each(samples, &|samples, labels, (_, lag)| {
            samples.gauge(labels, lag.oldest.map_or(0, |oldest| now.since(oldest)) as f64 / 1e3);
        });
    });
}

fn write_producers(families: &mut Families<'_>, told: &Told<Arc<str>, Halves, 0>, monitor: &Monitor, now: Stamp) {
    let states = |halves: &Halves| [("open", halves.open), ("parked", halves.parked)];
    let help = "Half messages of a producer group without a decision: still checked, or waiting for an operator.";
    families.gauges("escrowmq_producer_halves", help, |samples| {
        each(told, |group, (_, halves)| {
            for (state, count) in states(halves) {
                samples.gauge(&[("producer_group", group), ("state", state)], count);
            }
        });
    });
    let help = "Age of the oldest of these half messages; 0 if there is none. Groups that are summed have no age.";
    families.gauges("escrowmq_producer_halves_oldest_seconds", help, |samples| {
        for (group, (_, halves)) in &told.own {
            for (state, count) in states(halves) {
                // Reads a row for those that have some.
                let since = (count > 0).then(|| oldest(monitor, Some(group), state == "parked")).flatten();
                let age = since.map_or(0, |since| now.since(since)) as f64 / 1e3;
                samples.gauge(&[("producer_group", group), ("state", state)], age);
            }
        }
    });
}
