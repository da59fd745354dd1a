//! The conclusions that a client draws from a topic's route. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use escrowmq_common::limits::{ADDRESS_BYTES_MAX, BROKER_NAME_BYTES_MAX};
use escrowmq_common::name::Perm;

use crate::queue::MessageQueue;

/// The id of the broker that takes writes.
pub(crate) const MASTER: i64 = 0;

/// Queues that a topic gets per broker when a send creates it, unless its template has fewer.
pub(crate) const NEW_TOPIC_QUEUES: i32 = 4;

/// The most queues of a route over all brokers, counted for reading and for writing each. An answer with more is corrupt.
const QUEUES_MAX: usize = 1 << 18;
/// Broker groups: as many as a name server lists unless configured otherwise.
const BROKERS_MAX: usize = 10_000;
/// Addresses of all of them together.
const ADDRS_MAX: usize = 4 * BROKERS_MAX;

/// Why the answer of a name server is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// There is more of something than a cluster has.
    #[error("it names {count} {what}, the limit is {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
    /// A name or an address is longer than any is.
    #[error("{what} has {length} bytes, the limit is {limit}")]
    TooLong { what: &'static str, length: usize, limit: usize },
}

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

impl RouteLines {
    /// Whether what the lines stand for is as large as a cluster is. They are short, however much that is.
    fn check(&self, count_max: i32) -> Result<(), RouteError> {
        let most =
            |what, count, limit| if count > limit { Err(RouteError::TooMany { what, count, limit }) } else { Ok(()) };
        let short = |what, text: &str, limit| match text.len() {
            length if length > limit => Err(RouteError::TooLong { what, length, limit }),
            _ => Ok(()),
        };
        let name = |text: &str| short("a broker's name", text, BROKER_NAME_BYTES_MAX);
        most("brokers", self.brokers.len().max(self.queues.len()), BROKERS_MAX)?;
        most("addresses", self.brokers.iter().map(|broker| broker.addrs.len()).sum(), ADDRS_MAX)?;
        for broker in &self.brokers {
            name(&broker.name)?;
            broker.addrs.values().try_for_each(|addr| short("an address", addr, ADDRESS_BYTES_MAX))?;
        }
        self.queues.iter().try_for_each(|line| name(&line.broker))?;
        let sum = |counts: &mut dyn Iterator<Item = i32>| {
            counts.map(|count| count.clamp(0, count_max) as usize).fold(0, usize::saturating_add)
        };
        most("queues to read", sum(&mut self.queues.iter().map(|line| line.read_count)), QUEUES_MAX)?;
        most("queues to write", sum(&mut self.queues.iter().map(|line| line.write_count)), QUEUES_MAX)?;
        if let Some(order) = &self.order {
            most("brokers in their order", order.split(';').count(), BROKERS_MAX)?;
            ordered(order).try_for_each(|(broker, _)| name(broker))?;
            most("queues in their order", sum(&mut ordered(order).map(|(_, count)| count)), QUEUES_MAX)?;
        }
        Ok(())
    }
}

/// `broker:count;broker:count`; what cannot be read is passed over.
fn ordered(order: &str) -> impl Iterator<Item = (&str, i32)> {
    order.split(';').filter_map(|item| {
        let (broker, count) = item.split_once(':')?;
        Some((broker.trim(), count.trim().parse().ok()?))
    })
}

/// A topic's queues and the brokers that hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Every broker of the topic: id to address.
    pub(crate) brokers: BTreeMap<Arc<str>, BTreeMap<i64, Arc<str>>>,
    /// Queues that take writes now: the broker allows it, and has a master or members that pass on to the next one.
    pub(crate) writable: Vec<MessageQueue>,
    /// Queues that can be read, also from a replica.
    pub(crate) readable: BTreeSet<MessageQueue>,
    /// The topic does not exist yet: these are the queues it will get when the first send creates it.
    pub(crate) is_template: bool,
}

impl Route {
    /// The route of an existing topic. `pass_on` says whether the members of a broker group pass requests on to their leader.
    pub(crate) fn of(topic: &str, lines: &RouteLines, pass_on: impl Fn(&str) -> bool) -> Result<Route, RouteError> {
        Route::build(topic, lines, i32::MAX, false, pass_on)
    }

    /// The route that a topic will have once a send has created it after the model of another.
    pub(crate) fn from_template(
        topic: &str,
        lines: &RouteLines,
        pass_on: impl Fn(&str) -> bool,
    ) -> Result<Route, RouteError> {
        Route::build(topic, lines, NEW_TOPIC_QUEUES, true, pass_on)
    }

    fn build(
        topic: &str,
        lines: &RouteLines,
        count_max: i32,
        is_template: bool,
        pass_on: impl Fn(&str) -> bool,
    ) -> Result<Route, RouteError> {
        lines.check(count_max)?;
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
            // A group that elects a leader keeps its queues: else keys would change theirs for that moment.
            if line.perm.is_writable() && (addrs.contains_key(&MASTER) || pass_on(&line.broker)) {
                route.writable.extend((0..line.write_count.min(count_max)).map(|id| queue(&line.broker, id)));
            }
            if line.perm.is_readable() {
                route.readable.extend((0..line.read_count.min(count_max)).map(|id| queue(&line.broker, id)));
            }
        }
        // An ordered topic has the queues that its configuration names, also while their broker is away: a key must not
        // change its queue because a broker restarts.
        if let Some(order) = lines.order.as_deref().filter(|order| !order.is_empty()) {
            route.writable = ordered(order)
                .flat_map(|(broker, count)| {
                    let broker = Arc::<str>::from(broker);
                    (0..count).map(|id| queue(&broker, id)).collect::<Vec<_>>()
                })
                .collect();
        }
        Ok(route)
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
        let route = Route::of("T", &lines(), |_| false).expect("a route");
        assert_eq!(shown(&route.writable), ["T@b:0"]);
        assert_eq!(shown(&route.readable), ["T@a:0", "T@b:0", "T@b:1"]);
        assert!(route.writable_elsewhere("a") && !route.writable_elsewhere("b"));
        assert_eq!(shown(&route.writable_on("b")), ["T@b:0"]);
        assert!(route.writable_on("a").is_empty());
    }

    #[test]
    fn a_group_that_elects_a_leader_keeps_its_queues() {
        let route = Route::of("T", &lines(), |broker| broker == "a").expect("a route");
        assert_eq!(shown(&route.writable), ["T@a:0", "T@b:0"]);
    }

    #[test]
    fn permissions_count() {
        let mut lines = lines();
        lines.queues[0].perm = Perm(4);
        lines.queues[1].perm = Perm(2);
        let route = Route::of("T", &lines, |_| false).expect("a route");
        assert_eq!(shown(&route.writable), [""; 0]);
        assert_eq!(shown(&route.readable), ["T@b:0", "T@b:1"]);
    }

    #[test]
    fn a_template_lends_at_most_four_queues() {
        let mut lines = lines();
        lines.queues[0].write_count = 8;
        let route = Route::from_template("New", &lines, |_| false).expect("a route");
        assert_eq!(route.writable.len(), 4);
        assert!(route.is_template);
    }

    #[test]
    fn a_route_that_no_cluster_has_is_refused_before_it_costs_memory() {
        let refused = |change: &dyn Fn(&mut RouteLines)| {
            let mut lines = lines();
            change(&mut lines);
            Route::of("T", &lines, |_| false).expect_err("no cluster is like that").to_string()
        };
        assert!(
            refused(&|lines| lines.queues[0].write_count = i32::MAX).contains("queues to write, the limit is 262144")
        );
        assert!(refused(&|lines| lines.queues[0].read_count = i32::MAX).contains("queues to read"));
        // None of many lines is absurd by itself.
        assert!(
            refused(&|lines| {
                let line = QueueLine { read_count: 16_384, ..lines.queues[0].clone() };
                lines.queues = vec![line; 17];
            })
            .contains("278528 queues to read")
        );
        assert!(refused(&|lines| lines.queues = vec![lines.queues[0].clone(); 10_001]).contains("10001 brokers"));
        assert!(refused(&|lines| lines.order = Some("a:2000000000".into())).contains("in their order"));
        assert!(refused(&|lines| lines.order = Some("a:1;".repeat(10_001))).contains("brokers in their order"));
        assert!(refused(&|lines| lines.queues[0].broker = "b".repeat(256).into()).contains("256 bytes"));
        assert!(
            refused(&|lines| {
                lines.brokers[0].addrs.insert(2, "h".repeat(1025).into());
            })
            .contains("an address has 1025 bytes")
        );
        assert!(
            refused(&|lines| {
                lines.brokers[0].addrs = (0..50_000).map(|id| (id, Arc::from("h:1"))).collect();
            })
            .contains("addresses")
        );
    }

    #[test]
    fn a_negative_count_is_no_queue() {
        let mut lines = lines();
        lines.queues[0].write_count = i32::MIN;
        assert_eq!(Route::of("T", &lines, |_| false).expect("a route").writable.len(), 0);
        lines.order = Some("a:-5;b:1".into());
        assert_eq!(shown(&Route::of("T", &lines, |_| false).expect("a route").writable), ["T@b:0"]);
    }

    #[test]
    fn an_ordered_topic_keeps_its_queues() {
        let mut lines = lines();
        lines.order = Some("a:1;b:2;junk".into());
        assert_eq!(shown(&Route::of("T", &lines, |_| false).expect("a route").writable), ["T@a:0", "T@b:0", "T@b:1"]);
    }
}
