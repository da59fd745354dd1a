//! A table that is full: what was there stays.

use super::*;

fn limited(limits: RouteLimits) -> Stage {
    Stage::new(RouteTableOptions { limits, ..RouteTableOptions::default() })
}

fn topics(numbers: std::ops::Range<usize>) -> Vec<TopicSettings> {
    numbers.map(|n| topic(&format!("T{n:04}"))).collect()
}

/// The bytes of this many of these topics at one group.
fn weight(topics: usize) -> usize {
    let mut stage = Stage::plain();
    stage.register_with(&actor("h:1", 1, 0), &self::topics(0..topics)).unwrap();
    stage.table.weight()
}

#[test]
fn topics_beyond_the_limit_are_refused_and_the_broker_stays_in_its_routes() {
    let mut stage = limited(RouteLimits { route_bytes: weight(10), ..RouteLimits::default() });
    let broker = actor("h:1", 1, 0);
    stage.register_with(&broker, &topics(0..10)).unwrap();
    let next = Actor { counter: 2, connection: 2, ..broker.clone() };
    stage.pass(Duration::from_secs(119));
    let refused = stage.register_with(&next, &topics(0..11)).unwrap_err();
    assert!(matches!(refused, Refused::Full { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("routeBytesMax") && said.contains(&weight(10).to_string()), "{said}");
    // That was a sign of life, over the connection that it has now.
    stage.pass(Duration::from_secs(119));
    stage.close(1);
    assert_eq!(stage.members(), "0:h:1");
    assert!(stage.route("T0009").is_some());
    assert_eq!(stage.route("T0010"), None, "all or nothing");
    // The topics that it has already take no more room.
    stage.register_with(&next, &topics(0..10)).unwrap();
}

#[test]
fn room_that_a_broker_leaves_is_free() {
    let mut stage = limited(RouteLimits { route_bytes: weight(10), ..RouteLimits::default() });
    stage.register_with(&actor("h:1", 1, 0), &topics(0..10)).unwrap();
    let other = Actor { group: "b", ..actor("h:2", 2, 0) };
    assert!(stage.register_with(&other, &topics(20..22)).is_err());
    assert!(stage.register_with(&other, &topics(0..2)).is_err(), "the same topics at another group take some, too");
    stage.close(1);
    stage.register_with(&other, &topics(20..30)).unwrap();
    assert_eq!(stage.table.weight(), weight(10));
}

#[test]
fn topics_by_hand_and_mappings_count() {
    let mut stage = limited(RouteLimits { route_bytes: weight(3), ..RouteLimits::default() });
    let broker = actor("h:1", 1, 0);
    stage.register_with(&broker, &topics(0..2)).unwrap();
    let queues = || vec![Queues { group: "a".into(), read: 2, write: 2, perm: 6, sys_flag: 0 }];
    let by_hand = |stage: &mut Stage, name: &str| stage.step(|t, _, c| t.register_topic(name, queues(), c));
    assert!(by_hand(&mut stage, &"x".repeat(200)).is_err());
    assert_eq!(by_hand(&mut stage, "T0002"), Ok(1));
    assert!(by_hand(&mut stage, "T0003").is_err());
    assert_eq!(by_hand(&mut stage, "T0000"), Ok(1), "one that is there");
    for entries in [0, 1000] {
        let mut mapped = Actor { counter: 2, ..broker.clone() }.registration(&topics(0..2));
        let current = (0..entries).map(|n| (n, n)).collect();
        let mapping = QueueMapping { topic: "T0000".into(), group: "a".into(), current, ..QueueMapping::default() };
        mapped.mappings.push(mapping);
        assert!(matches!(stage.step(|t, now, c| t.register(now, mapped, c)), Err(Refused::Full { .. })), "{entries}");
    }
}

#[test]
fn brokers_are_bounded_in_all_and_by_group_and_connection() {
    let mut stage = limited(RouteLimits { brokers: 2, ..RouteLimits::default() });
    stage.register(&actor("h:1", 1, 0));
    stage.register(&actor("h:2", 2, 1));
    let refused = stage.register_with(&actor("h:3", 3, 2), &topics(0..2)).unwrap_err();
    assert!(refused.to_string().contains("brokersMax"), "{refused}");
    // One that takes another one's place needs none of its own.
    stage.register(&Actor { term: 2, ..actor("h:3", 3, 1) });
    assert_eq!(stage.members(), "0:h:1 1:h:3");

    let mut stage = Stage::plain();
    let register = |stage: &mut Stage, group: &str, n: i64, connection: u64| {
        let mut broker = actor("h:1", connection, n).registration(&topics(0..2));
        broker.group = group.into();
        broker.address = format!("{group}:{n}").into();
        let mut changes = Changes::default();
        stage.table.register(stage.now, broker, &mut changes)
    };
    let members = (0..1000).take_while(|n| register(&mut stage, "a", *n, *n as u64).is_ok()).count();
    assert_eq!(members, 128);
    let of_connection = (0..1000).take_while(|n| register(&mut stage, &format!("g{n}"), 0, 9999).is_ok()).count();
    assert_eq!(of_connection, 256);
}

#[test]
fn the_names_of_all_brokers_fit_into_a_frame() {
    let mut stage = limited(RouteLimits { brokers: usize::MAX, ..RouteLimits::default() });
    let long = |n: usize, fill: &str| -> Arc<str> { format!("{n}{}", fill.repeat(500)).into() };
    let mut registered = 0;
    loop {
        let mut broker = actor("h:1", registered as u64, 0).registration(&topics(0..2));
        broker.group = long(registered, "\"");
        broker.cluster = long(registered, "\\");
        broker.address = long(registered, "a");
        broker.zone = Some(long(registered, "z"));
        let mut changes = Changes::default();
        if stage.table.register(stage.now, broker, &mut changes).is_err() {
            break;
        }
        stage.routes.publish(&mut changes);
        registered += 1;
    }
    let info = answer::cluster_info(&stage.routes.brokers());
    assert!(registered > 1000 && info.len() < escrowmq_common::frame::MAX_FRAME_LEN - 1024, "{} bytes", info.len());
}
