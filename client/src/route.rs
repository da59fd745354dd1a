//! What a client concludes from a topic's route. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use escrowmq_common::name::Perm;

use crate::queue::MessageQueue;

/// The id of the broker that takes writes.
pub(crate) const MASTER: i64 = 0;

/// Queues that a topic gets per broker when a send creates it, unless its template has fewer.
pub(crate) const NEW_TOPIC_QUEUES: i32 = 4;

/// More queues of one topic on one broker than this are a corrupt answer, not a topic.
const QUEUES_MAX: i32 = 1 << 16;

/// A broker group as a route names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerLine {
    pub(crate) name: Arc<str>,
    /// Broker id to address.
    pub(crate) addrs: BTreeMap<i64, Arc<str>>,
}

/// A topic's share on one broker group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueLine {
    pub(crate) broker: Arc<str>,
    pub(crate) read_count: i32,
    pub(crate) write_count: i32,
    pub(crate) perm: Perm,
}

/// A route as the name server sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteLines {
    pub(crate) brokers: Vec<BrokerLine>,
    pub(crate) queues: Vec<QueueLine>,
    /// `broker:count;broker:count` of a topic that is ordered across the cluster.
    pub(crate) order: Option<String>,
}

/// A topic's queues and the brokers that hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Every broker of the topic: id to address.
    pub(crate) brokers: BTreeMap<Arc<str>, BTreeMap<i64, Arc<str>>>,
    /// Queues that take writes now: the broker allows it and has a master.
    pub(crate) writable: Vec<MessageQueue>,
    /// Queues that can be read, also from a replica.
    pub(crate) readable: BTreeSet<MessageQueue>,
    /// The topic does not exist yet: these are the queues it will get when the first send creates it.
    pub(crate) is_template: bool,
}

impl Route {
    /// The route of an existing topic.
    pub(crate) fn of(topic: &str, lines: &RouteLines) -> Route {
        Route::build(topic, lines, QUEUES_MAX, false)
    }

    /// The route that a topic will have once a send has created it after the model of another.
    pub(crate) fn from_template(topic: &str, lines: &RouteLines) -> Route {
        Route::build(topic, lines, NEW_TOPIC_QUEUES, true)
    }

    fn build(topic: &str, lines: &RouteLines, count_max: i32, is_template: bool) -> Route {
        let topic: Arc<str> = topic.into();
        let brokers: BTreeMap<_, _> =
            lines.brokers.iter().map(|broker| (Arc::clone(&broker.name), broker.addrs.clone())).collect();
        let mut route = Route { brokers, is_template, ..Route::default() };
        let queue = |broker: &Arc<str>, id| MessageQueue::new(Arc::clone(&topic), Arc::clone(broker), id);
        let mut lines_sorted: Vec<&QueueLine> = lines.queues.iter().collect();
        lines_sorted.sort_by(|one, other| one.broker.cmp(&other.broker));
        for line in lines_sorted {
            let Some(addrs) = route.brokers.get(&line.broker).filter(|addrs| !addrs.is_empty()) else {
                continue;
            };
            if line.perm.is_writable() && addrs.contains_key(&MASTER) {
                route.writable.extend((0..line.write_count.min(count_max)).map(|id| queue(&line.broker, id)));
            }
            if line.perm.is_readable() {
                route.readable.extend((0..line.read_count.min(count_max)).map(|id| queue(&line.broker, id)));
            }
        }
        // An ordered topic has the queues that its configuration names, also while their broker is away: a key must not
        // change its queue because a broker restarts.
        if let Some(order) = lines.order.as_deref().filter(|order| !order.is_empty()) {
            let ordered = order.split(';').filter_map(|item| {
                let (broker, count) = item.split_once(':')?;
                Some((Arc::<str>::from(broker.trim()), count.trim().parse::<i32>().ok()?.min(QUEUES_MAX)))
            });
            route.writable = ordered
                .flat_map(|(broker, count)| (0..count).map(|id| queue(&broker, id)).collect::<Vec<_>>())
                .collect();
        }
        route
    }

    /// Whether some broker other than `broker` takes writes.
    pub(crate) fn writable_elsewhere(&self, broker: &str) -> bool {
        self.writable.iter().any(|queue| queue.broker() != broker)
    }

    /// The queues on `broker` that take writes now, in order.
    pub(crate) fn writable_on(&self, broker: &str) -> Vec<MessageQueue> {
        self.writable.iter().filter(|queue| queue.broker() == broker).cloned().collect()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn lines() -> RouteLines {
        let addrs = |list: &[(i64, &str)]| list.iter().map(|(id, addr)| (*id, Arc::from(*addr))).collect();
        let queues = |broker: &str, read_count, write_count, perm| QueueLine {
            broker: broker.into(),
            read_count,
            write_count,
            perm: Perm(perm),
        };
        RouteLines {
            brokers: vec![
                BrokerLine { name: "b".into(), addrs: addrs(&[(0, "h:1"), (1, "h:2")]) },
                BrokerLine { name: "a".into(), addrs: addrs(&[(1, "h:3")]) },
            ],
            queues: vec![queues("b", 2, 1, 6), queues("a", 1, 1, 6), queues("ghost", 9, 9, 6)],
            order: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::lines;
    use super::*;

    fn shown<'q>(queues: impl IntoIterator<Item = &'q MessageQueue>) -> Vec<String> {
        queues.into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn writes_need_a_master_and_reads_any_replica() {
        let route = Route::of("T", &lines());
        assert_eq!(shown(&route.writable), ["T@b:0"]);
        assert_eq!(shown(&route.readable), ["T@a:0", "T@b:0", "T@b:1"]);
        assert!(route.writable_elsewhere("a") && !route.writable_elsewhere("b"));
        assert_eq!(shown(&route.writable_on("b")), ["T@b:0"]);
        assert!(route.writable_on("a").is_empty());
    }

    #[test]
    fn permissions_count() {
        let mut lines = lines();
        lines.queues[0].perm = Perm(4);
        lines.queues[1].perm = Perm(2);
        let route = Route::of("T", &lines);
        assert_eq!(shown(&route.writable), [""; 0]);
        assert_eq!(shown(&route.readable), ["T@b:0", "T@b:1"]);
    }

    #[test]
    fn a_template_lends_at_most_four_queues() {
        let mut lines = lines();
        lines.queues[0].write_count = 8;
        let route = Route::from_template("New", &lines);
        assert_eq!(route.writable.len(), 4);
        assert!(route.is_template);
    }

    #[test]
    fn an_absurd_queue_count_is_cut() {
        let mut lines = lines();
        lines.queues[0].write_count = i32::MAX;
        assert_eq!(Route::of("T", &lines).writable.len(), QUEUES_MAX as usize);
        lines.queues[0].write_count = i32::MIN;
        assert_eq!(Route::of("T", &lines).writable.len(), 0);
    }

    #[test]
    fn an_ordered_topic_keeps_its_queues() {
        let mut lines = lines();
        lines.order = Some("a:1;b:2;junk".into());
        assert_eq!(shown(&Route::of("T", &lines).writable), ["T@a:0", "T@b:0", "T@b:1"]);
    }
}
