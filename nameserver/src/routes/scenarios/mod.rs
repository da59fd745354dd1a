//! The table's rules as little stories: what brokers do, and what a lookup then says.

mod claims;
mod limits;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{DataVersion, Form};

use super::answer::{self, RouteQuery};
use super::*;

/// A table with its published routes, and a clock that moves on request.
struct Stage {
    table: RouteTable,
    routes: Routes,
    now: Duration,
    closed: Vec<ConnectionId>,
    notified: Vec<MinBrokerChange>,
}

/// A broker that can be turned into a registration.
#[derive(Clone)]
struct Actor {
    address: &'static str,
    connection: u64,
    /// Its machine; each address has one of its own, unless a story says otherwise.
    host: IpAddr,
    id: i64,
    term: i64,
    counter: i64,
    acting: Option<bool>,
    zone: Option<&'static str>,
    silence_max: Duration,
    group: &'static str,
    cluster: &'static str,
}

fn actor(address: &'static str, connection: u64, id: i64) -> Actor {
    Actor {
        address,
        connection,
        host: host_of(address),
        id,
        term: 1,
        counter: 1,
        acting: Some(false),
        zone: None,
        silence_max: SILENCE_MAX,
        group: "a",
        cluster: "c",
    }
}

fn host_of(address: &str) -> IpAddr {
    let number = address.bytes().fold(0_u32, |number, byte| (number * 31 + u32::from(byte)) % 0xff_ffff);
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn topic(name: &str) -> TopicSettings {
    TopicSettings { name: name.to_owned(), read: 4, write: 4, perm: 6, sys_flag: 0 }
}

impl Actor {
    fn origin(&self) -> Origin {
        Origin { connection: ConnectionId(self.connection), host: self.host }
    }

    fn registration(&self, topics: &[TopicSettings]) -> Registration {
        Registration {
            origin: self.origin(),
            cluster: self.cluster.into(),
            group: self.group.into(),
            address: self.address.into(),
            id: BrokerId(self.id),
            ha_address: format!("ha-{}", self.address).into(),
            zone: self.zone.map(Arc::from),
            acting_master: self.acting,
            silence_max: self.silence_max,
            version: DataVersion { state_version: self.term, timestamp: 7, counter: self.counter },
            topics: topics.to_vec(),
            is_part: false,
            mappings: Vec::new(),
        }
    }
}

impl Stage {
    fn new(options: RouteTableOptions) -> Self {
        Stage {
            table: RouteTable::new(options),
            routes: Routes::default(),
            now: Duration::ZERO,
            closed: Vec::new(),
            notified: Vec::new(),
        }
    }

    fn plain() -> Self {
        Stage::new(RouteTableOptions::default())
    }

    fn step<T>(&mut self, event: impl FnOnce(&mut RouteTable, Duration, &mut Changes) -> T) -> T {
        let mut changes = Changes::default();
        let answer = event(&mut self.table, self.now, &mut changes);
        self.table.check();
        self.routes.publish(&mut changes);
        self.closed.append(&mut changes.close);
        self.notified.append(&mut changes.notify);
        answer
    }

    /// A full registration with topics T and U.
    fn register(&mut self, broker: &Actor) -> Registered {
        self.register_with(broker, &[topic("T"), topic("U")]).expect("a full registration is taken")
    }

    fn register_with(&mut self, broker: &Actor, topics: &[TopicSettings]) -> Result<Registered, Refused> {
        let registration = broker.registration(topics);
        self.step(|table, now, changes| table.register(now, registration, changes))
    }

    fn close(&mut self, connection: u64) {
        self.step(|table, _, changes| table.connection_closed(ConnectionId(connection), changes));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(RouteTable::tick);
    }

    fn route(&self, topic: &str) -> Option<String> {
        self.route_as(topic, true, None)
    }

    fn route_as(&self, topic: &str, acting_master: bool, zone: Option<&str>) -> Option<String> {
        let query = RouteQuery { form: Form::Loose, acting_master, zone, order: None };
        answer::route(&*self.routes.topic(topic)?, &self.routes.brokers(), query)
    }

    /// The members of group "a" as `id:address` pairs.
    fn members(&self) -> String {
        let brokers = self.routes.brokers();
        let Some(group) = brokers.group("a") else {
            return String::new();
        };
        let members: Vec<_> = group.addresses.iter().map(|(id, a)| format!("{id}:{a}")).collect();
        members.join(" ")
    }

    fn perm(&self, topic: &str) -> Option<i32> {
        Some(self.routes.topic(topic)?.at("a")?.perm)
    }
}

#[test]
fn a_registered_topic_is_found_in_both_spellings() {
    let mut stage = Stage::plain();
    assert_eq!(stage.route("T"), None);
    stage.register(&actor("h:1", 1, 0));
    assert_eq!(
        stage.route("T").unwrap(),
        r#"{"brokerDatas":[{"brokerAddrs":{0:"h:1"},"brokerName":"a","cluster":"c","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
    );
    let query = RouteQuery { form: Form::Strict, acting_master: false, zone: None, order: Some("é:4") };
    let standard = answer::route(&stage.routes.topic("T").unwrap(), &stage.routes.brokers(), query);
    let standard = standard.unwrap();
    assert!(standard.contains(r#"{"brokerAddrs":{"0":"h:1"}"#), "{standard}");
    assert!(standard.contains(r#""orderTopicConf":"\u00e9:4","queueDatas""#), "{standard}");
}

#[test]
fn a_closed_connection_takes_its_brokers_away_at_once() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&actor("h:2", 2, 1));
    stage.close(1);
    assert_eq!(stage.members(), "1:h:2");
    stage.close(2);
    assert_eq!(stage.members(), "");
    assert_eq!(stage.route("T"), None);
    assert_eq!(stage.routes.topic_count(), 0);
}

#[test]
fn a_broker_that_reconnected_survives_the_end_of_its_old_connection() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&actor("h:1", 9, 0));
    stage.close(1);
    assert_eq!(stage.members(), "0:h:1");
}

#[test]
fn a_silent_broker_expires_and_its_connection_is_closed() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.pass(Duration::from_secs(120));
    assert_eq!(stage.members(), "0:h:1");
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.members(), "");
    assert_eq!(stage.closed, [ConnectionId(1)]);
    assert_eq!(stage.route("T"), None);
}

#[test]
fn the_registration_says_how_long_silence_may_last() {
    let mut stage = Stage::plain();
    let quick = Actor { silence_max: Duration::from_secs(10), ..actor("h:1", 1, 0) };
    stage.register(&quick);
    stage.pass(Duration::from_secs(11));
    assert_eq!(stage.members(), "");
}

#[test]
fn heartbeats_and_version_queries_are_signs_of_life() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    stage.register(&broker);
    stage.pass(Duration::from_secs(100));
    stage.step(|table, now, _| table.heartbeat(now, broker.origin(), "h:1"));
    stage.pass(Duration::from_secs(100));
    let version = stage.step(|table, now, _| table.query_version(now, broker.origin(), "h:1"));
    assert_eq!(version, Some(broker.registration(&[]).version));
    stage.pass(Duration::from_secs(100));
    assert_eq!(stage.members(), "0:h:1");
    stage.step(|table, now, _| table.heartbeat(now, broker.origin(), "stranger:1"));
    let stranger = stage.step(|table, now, _| table.query_version(now, broker.origin(), "stranger:1"));
    assert_eq!(stranger, None);
}

#[test]
fn the_same_address_under_another_id_moves() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 2));
    stage.register(&actor("h:1", 1, 0));
    assert_eq!(stage.members(), "0:h:1");
    stage.register(&actor("h:1", 1, 2));
    assert_eq!(stage.members(), "2:h:1");
}

#[test]
fn an_address_that_changes_its_group_leaves_the_old_one() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&Actor { group: "b", ..actor("h:1", 1, 0) });
    assert_eq!(stage.members(), "");
    let route = stage.route("T").unwrap();
    assert!(!route.contains(r#""brokerName":"a""#) && route.contains(r#""brokerName":"b""#), "{route}");
}

#[test]
fn a_master_is_told_no_master() {
    let mut stage = Stage::plain();
    assert_eq!(stage.register(&actor("h:1", 1, 0)), Registered::default());
    assert_eq!(stage.register(&actor("h:1", 1, 0)), Registered::default());
}

#[test]
fn a_single_topic_needs_a_full_registration_first() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    assert_eq!(stage.register_with(&broker, &[topic("New")]), Err(Refused::NotYetRegistered));
    assert_eq!(stage.members(), "");
    stage.register(&broker);
    let broker = Actor { counter: 2, ..broker };
    stage.register_with(&broker, &[topic("New")]).unwrap();
    assert!(stage.route("New").is_some());
    assert!(stage.route("T").is_some());
}

#[test]
fn topics_follow_the_data_version() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    stage.register(&broker);
    let wider = TopicSettings { write: 8, ..topic("T") };
    stage.register_with(&broker, &[wider.clone(), topic("U")]).unwrap();
    assert_eq!(stage.routes.topic("T").unwrap().at("a").unwrap().write, 4);
    let broker = Actor { counter: 2, ..broker };
    stage.register_with(&broker, &[wider, topic("U")]).unwrap();
    assert_eq!(stage.routes.topic("T").unwrap().at("a").unwrap().write, 8);
}

#[test]
fn slaves_bring_no_topics_while_there_is_a_master() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register_with(&actor("h:2", 2, 1), &[topic("X"), topic("Y")]).unwrap();
    assert_eq!(stage.route("X"), None);
}

#[test]
fn missing_topics_go_only_if_the_operator_says_so() {
    for delete_missing_topics in [false, true] {
        let mut stage = Stage::new(RouteTableOptions { delete_missing_topics, ..RouteTableOptions::default() });
        let broker = actor("h:1", 1, 0);
        stage.register(&broker);
        stage.register_with(&broker, &[topic("T")]).unwrap();
        assert!(stage.route("U").is_some(), "one topic alone is an addition, not the whole");
        let next = Actor { counter: 2, ..broker };
        stage.register_with(&next, &[topic("T"), topic("V")]).unwrap();
        assert_eq!(stage.route("U").is_none(), delete_missing_topics);
        let mut part = Actor { counter: 3, ..next }.registration(&[topic("W"), topic("X")]);
        part.is_part = true;
        stage.step(|table, now, changes| table.register(now, part, changes)).unwrap();
        assert!(stage.route("T").is_some(), "a part says so, and misses nothing");
    }
}

#[test]
fn an_acting_master_is_shown_read_only() {
    let mut stage = Stage::plain();
    let master = Actor { acting: Some(true), ..actor("h:1", 1, 0) };
    let slave = Actor { acting: Some(true), ..actor("h:2", 2, 3) };
    stage.register(&master);
    stage.register(&slave);
    stage.close(1);
    assert_eq!(stage.perm("T"), Some(4));
    assert!(stage.route("T").unwrap().contains(r#""brokerAddrs":{0:"h:2"}"#));
    let honest = stage.route_as("T", false, None).unwrap();
    assert!(honest.contains(r#""brokerAddrs":{3:"h:2"}"#), "only if supportActingMaster: {honest}");
    // Its own registrations keep the queues read only.
    stage.register(&Actor { counter: 5, ..slave });
    assert_eq!(stage.perm("T"), Some(4));
    // The master is back.
    stage.register(&master);
    assert_eq!(stage.perm("T"), Some(6));
    assert!(stage.route("T").unwrap().contains(r#"{0:"h:1",3:"h:2"}"#));
}

#[test]
fn a_master_that_steps_down_leaves_an_acting_group_read_only() {
    let mut stage = Stage::plain();
    let master = Actor { acting: Some(true), ..actor("h:1", 1, 0) };
    stage.register(&master);
    stage.register(&Actor { acting: Some(true), ..actor("h:2", 2, 1) });
    stage.register(&Actor { id: 3, ..master });
    assert_eq!(stage.members(), "1:h:2 3:h:1");
    assert_eq!(stage.perm("T"), Some(4));
}

#[test]
fn without_acting_master_a_masterless_group_keeps_its_ids_and_permissions() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&actor("h:2", 2, 1));
    stage.close(1);
    assert_eq!(stage.perm("T"), Some(6));
    assert!(stage.route("T").unwrap().contains(r#""brokerAddrs":{1:"h:2"}"#));
}

#[test]
fn members_hear_of_a_new_smallest_id() {
    let mut stage = Stage::new(RouteTableOptions { notify_min_broker: true, ..RouteTableOptions::default() });
    let acting = |a, c, id| Actor { acting: Some(true), ..actor(a, c, id) };
    stage.register(&acting("h:1", 1, 1));
    stage.register(&acting("h:2", 2, 2));
    assert_eq!(stage.notified, [], "the smallest id did not change");
    stage.register(&acting("h:0", 3, 0));
    let came = stage.notified.pop().unwrap();
    let mut told = came.connections.clone();
    told.sort();
    assert_eq!(told, [ConnectionId(1), ConnectionId(2)], "who came is not told");
    assert_eq!(came.min_id, BrokerId(0));
    assert_eq!(came.ha_address.as_deref(), Some("ha-h:0"));
    assert_eq!(came.offline_address, None);
    stage.close(3);
    let went = stage.notified.pop().unwrap();
    assert_eq!(went.min_id, BrokerId(1));
    assert_eq!(went.offline_address.as_deref(), Some("h:0"));
    assert_eq!(went.connections.len(), 2);
}

#[test]
fn several_members_that_go_together_are_all_dropped() {
    let mut stage = Stage::new(RouteTableOptions { notify_min_broker: true, ..RouteTableOptions::default() });
    for (address, id) in [("h:0", 0), ("h:1", 1), ("h:2", 2)] {
        stage.register(&Actor { acting: Some(true), ..actor(address, 7, id) });
    }
    stage.close(7);
    assert_eq!(stage.members(), "");
    assert_eq!(stage.routes.topic_count(), 0);
}

#[test]
fn write_permission_is_wiped_and_given_back() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    let inherited = TopicSettings { perm: 7, ..topic("U") };
    stage.register_with(&broker, &[topic("T"), inherited]).unwrap();
    let wiped = stage.step(|t, _, c| t.wipe_write_permission("a", c));
    assert_eq!((wiped, stage.perm("T"), stage.perm("U")), (2, Some(4), Some(5)));
    // A registration that brings nothing new does not undo it.
    stage.register(&broker);
    assert_eq!(stage.perm("T"), Some(4));
    let added = stage.step(|t, _, c| t.add_write_permission("a", c));
    assert_eq!((added, stage.perm("T"), stage.perm("U")), (2, Some(6), Some(7)));
    assert_eq!(stage.step(|t, _, c| t.wipe_write_permission("nobody", c)), 0);
}

#[test]
fn topics_are_deleted_everywhere_or_in_one_cluster() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&Actor { group: "b", cluster: "d", ..actor("h:2", 2, 0) });
    stage.step(|t, _, c| t.delete_topic("T", Some("c"), c));
    assert_eq!(stage.perm("T"), None);
    assert!(stage.route("T").unwrap().contains(r#""brokerName":"b""#));
    stage.step(|t, _, c| t.delete_topic("U", None, c));
    assert_eq!(stage.route("U"), None);
    stage.step(|t, _, c| t.delete_topic("T", Some("d"), c));
    assert_eq!(stage.routes.topic_count(), 0);
    stage.step(|t, _, c| t.delete_topic("never heard of", None, c));
}

#[test]
fn an_operator_registers_a_topic_at_known_groups() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    let queues = |group: &str| Queues { group: group.into(), read: 2, write: 2, perm: 6, sys_flag: 0 };
    let put = stage.step(|t, _, c| t.register_topic("Hand", vec![queues("x"), queues("a")], c));
    assert_eq!(put, Ok(1));
    assert_eq!(stage.routes.topic("Hand").unwrap().queues(), [queues("a")]);
    let put = stage.step(|t, _, c| t.register_topic("Nowhere", vec![queues("x")], c));
    assert_eq!(put, Ok(0));
    assert_eq!(stage.route("Nowhere"), None);
}

#[test]
fn a_zone_keeps_its_own_brokers_and_masterless_groups() {
    let mut stage = Stage::plain();
    stage.register(&Actor { zone: Some("north"), ..actor("h:1", 1, 0) });
    stage.register(&Actor { group: "b", zone: Some("south"), ..actor("h:2", 2, 0) });
    let route = stage.route_as("T", false, Some("North")).unwrap();
    assert!(route.contains("h:1") && !route.contains("\"b\""), "{route}");
    assert!(route.contains(r#""zoneName":"north""#), "{route}");
    let nowhere = stage.route_as("T", false, Some("east")).unwrap();
    assert!(nowhere.starts_with(r#"{"brokerDatas":[],"#), "{nowhere}");
    // Its master is gone: those who look for neighbours may read from wherever they can.
    stage.register(&Actor { group: "b", zone: Some("south"), ..actor("h:3", 3, 1) });
    stage.close(2);
    let route = stage.route_as("T", false, Some("north")).unwrap();
    assert!(route.contains("h:1") && route.contains("h:3"), "{route}");
}

#[test]
fn a_static_topic_carries_its_mapping() {
    let mut stage = Stage::plain();
    let mut registration = actor("h:1", 1, 0).registration(&[topic("T"), topic("U")]);
    registration.mappings.push(QueueMapping {
        topic: "T".into(),
        scope: Some("__global__".into()),
        total_queues: 2,
        group: "a".into(),
        epoch: 3,
        dirty: false,
        current: [(1, 0)].into(),
    });
    stage.step(|t, now, c| t.register(now, registration, c)).unwrap();
    let route = stage.route("T").unwrap();
    assert!(
        route.ends_with(r#","topicQueueMappingByBroker":{"a":{"bname":"a","currIdMap":{1:0},"dirty":false,"epoch":3,"scope":"__global__","topic":"T","totalQueues":2}}}"#),
        "{route}"
    );
    assert!(!stage.route("U").unwrap().contains("topicQueueMapping"));
    stage.close(1);
    assert_eq!(stage.routes.topic_count(), 0);
}

#[test]
fn cluster_info_and_members_are_listed_with_bare_keys() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    stage.register(&Actor { acting: None, ..actor("h:2", 2, 1) });
    let brokers = stage.routes.brokers();
    assert_eq!(
        answer::cluster_info(&brokers),
        r#"{"brokerAddrTable":{"a":{"brokerAddrs":{0:"h:1",1:"h:2"},"brokerName":"a","cluster":"c","enableActingMaster":false}},"clusterAddrTable":{"c":["a"]}}"#
    );
    assert_eq!(
        answer::member_group(&brokers, "c", "a"),
        r#"{"brokerMemberGroup":{"brokerAddrs":{0:"h:1",1:"h:2"},"brokerName":"a","cluster":"c"}}"#
    );
    assert_eq!(
        answer::member_group(&brokers, "c", "x"),
        r#"{"brokerMemberGroup":{"brokerAddrs":{},"brokerName":"x","cluster":"c"}}"#
    );
}

#[test]
fn a_registration_that_says_nothing_new_changes_nothing() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    stage.register(&broker);
    let mut changes = Changes::default();
    stage.table.register(stage.now, broker.registration(&[topic("T"), topic("U")]), &mut changes).unwrap();
    assert!(changes.brokers.is_none() && changes.topics.is_empty());
    // A new version with the same topics only moves the version.
    let next = Actor { counter: 2, ..broker };
    stage.table.register(stage.now, next.registration(&[topic("T"), topic("U")]), &mut changes).unwrap();
    assert!(changes.brokers.is_none() && changes.topics.is_empty());
}
