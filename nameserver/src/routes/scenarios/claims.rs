//! The right to speak for a broker, and to take another one's place.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

impl Stage {
    fn try_register(&mut self, broker: &Actor) -> Result<Registered, Refused> {
        self.register_with(broker, &[topic("T"), topic("U")])
    }

    fn goodbye(&mut self, from: Origin, address: &str, id: i64) -> Goodbye {
        self.goodbye_of_term(from, address, id, None)
    }

    fn goodbye_of_term(&mut self, from: Origin, address: &str, id: i64, term: Option<i64>) -> Goodbye {
        self.step(|table, _, changes| table.unregister(from, "a", address, BrokerId(id), term, changes))
    }

    fn heartbeat(&mut self, from: Origin, address: &str) {
        self.step(|table, now, _| table.heartbeat(now, from, address));
    }
}

#[test]
fn a_newer_leader_takes_the_id_over_and_the_older_one_is_refused() {
    let mut stage = Stage::plain();
    let old = Actor { term: 4, ..actor("h:1", 1, 0) };
    let new = Actor { term: 5, ..actor("h:2", 2, 0) };
    stage.register(&old);
    stage.register(&new);
    assert_eq!(stage.members(), "0:h:2");
    let refused = stage.try_register(&old).unwrap_err();
    assert!(matches!(refused, Refused::Older { newest: 5, version: 4, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("h:1") && said.contains("h:2") && said.contains("stateVersion 5"), "{said}");
    assert_eq!(stage.members(), "0:h:2");
    // Neither its silence nor its end concerns the route any more.
    stage.close(1);
    assert_eq!(stage.members(), "0:h:2");
    // It comes back as a slave.
    let follower = Actor { id: 1, ..old };
    let answer = stage.register(&follower);
    assert_eq!(stage.members(), "0:h:2 1:h:1");
    assert_eq!(answer.master_address.as_deref(), Some("h:2"));
    assert_eq!(answer.ha_address.as_deref(), Some("ha-h:2"));
    // A late echo of its leadership does not take it away from there, and shows that it is alive.
    stage.pass(100 * SECOND);
    stage.heartbeat(new.origin(), "h:2");
    assert!(stage.try_register(&Actor { id: 0, ..follower }).is_err());
    stage.pass(100 * SECOND);
    assert_eq!(stage.members(), "0:h:2 1:h:1");
}

#[test]
fn an_older_leader_is_refused_however_long_the_newer_one_is_silent() {
    let mut stage = Stage::plain();
    stage.register(&Actor { term: 5, ..actor("h:2", 2, 0) });
    stage.pass(119 * SECOND);
    assert!(matches!(stage.try_register(&actor("h:1", 1, 0)), Err(Refused::Older { .. })));
    // As long as it is listed.
    stage.close(2);
    stage.register(&actor("h:1", 1, 0));
    assert_eq!(stage.members(), "0:h:1");
}

#[test]
fn a_follower_that_knows_a_newer_leader_keeps_an_older_one_out() {
    let mut stage = Stage::plain();
    let old = Actor { term: 4, ..actor("h:1", 1, 0) };
    let new = Actor { term: 5, ..actor("h:2", 2, 0) };
    let follower = Actor { term: 5, ..actor("h:3", 3, 3) };
    stage.register(&old);
    stage.register(&new);
    stage.register(&follower);
    // The new leader's connection breaks for a moment, and a registration of the old one arrives late.
    stage.close(1);
    stage.close(2);
    assert_eq!(stage.members(), "3:h:3");
    let refused = stage.try_register(&Actor { connection: 4, ..old.clone() }).unwrap_err();
    assert!(matches!(&refused, Refused::Older { id: BrokerId(3), newest: 5, version: 4, .. }), "{refused}");
    assert!(refused.to_string().contains("h:3"), "{refused}");
    assert_eq!(stage.members(), "3:h:3");
    stage.register(&Actor { connection: 5, ..new });
    assert_eq!(stage.members(), "0:h:2 3:h:3");
    // It comes back as a follower, with the term it knows, and leads again in a later one.
    stage.register(&Actor { id: 1, connection: 4, ..old.clone() });
    assert_eq!(stage.members(), "0:h:2 1:h:1 3:h:3");
    stage.register(&Actor { term: 6, connection: 4, ..old });
    assert_eq!(stage.members(), "0:h:1 3:h:3");
}

#[test]
fn a_listed_leader_goes_on_until_the_newer_one_comes() {
    let mut stage = Stage::plain();
    let old = Actor { term: 4, ..actor("h:1", 1, 0) };
    let follower = Actor { term: 5, ..actor("h:3", 3, 3) };
    stage.register(&old);
    stage.register(&follower);
    // The old one does not know yet. Clients have nobody else, and it refuses them when its lease is over.
    stage.register(&Actor { counter: 2, ..old.clone() });
    assert_eq!(stage.members(), "0:h:1 3:h:3");
    stage.register(&Actor { term: 5, ..actor("h:2", 2, 0) });
    assert_eq!(stage.members(), "0:h:2 3:h:3");
    assert!(matches!(stage.try_register(&old), Err(Refused::Older { .. })));
}

#[test]
fn brokers_without_terms_keep_nobody_out() {
    let mut stage = Stage::plain();
    let master = Actor { term: 0, ..actor("h:1", 1, 0) };
    stage.register(&master);
    stage.register(&Actor { term: 0, ..actor("h:2", 2, 1) });
    stage.close(1);
    // Back under another address, and then under the first one again.
    let moved = Actor { term: 0, ..actor("h:9", 3, 0) };
    stage.register(&moved);
    assert_eq!(stage.members(), "0:h:9 1:h:2");
    stage.close(3);
    stage.register(&Actor { connection: 4, ..master });
    assert_eq!(stage.members(), "0:h:1 1:h:2");
}

#[test]
fn a_shared_address_goes_to_the_newer_leader_and_not_back() {
    let mut stage = Stage::plain();
    // One address of the whole group, which moves with the leader.
    let old = Actor { term: 4, host: host_of("machine 1"), ..actor("vip:1", 1, 0) };
    let new = Actor { term: 5, host: host_of("machine 2"), connection: 2, counter: 2, ..old.clone() };
    stage.register(&old);
    stage.register(&new);
    assert!(matches!(stage.try_register(&old), Err(Refused::Older { newest: 5, version: 4, .. })));
    assert_eq!(stage.goodbye_of_term(old.origin(), "vip:1", 0, Some(4)), Goodbye::ForSomebodyElse);
    stage.close(1);
    assert_eq!(stage.members(), "0:vip:1");
}

#[test]
fn a_goodbye_that_was_overtaken_takes_nobody_with_it() {
    let mut stage = Stage::plain();
    let old = Actor { term: 4, ..actor("h:1", 1, 0) };
    stage.register(&old);
    // The broker was restarted; what its last process said at its end arrives after the new one's registration.
    let restarted = Actor { connection: 2, term: 5, ..old.clone() };
    stage.register(&restarted);
    assert_eq!(stage.goodbye_of_term(old.origin(), "h:1", 0, Some(4)), Goodbye::ForSomebodyElse);
    assert_eq!(stage.members(), "0:h:1");
    assert_eq!(stage.goodbye_of_term(restarted.origin(), "h:1", 0, Some(5)), Goodbye::Heard);
    assert_eq!(stage.members(), "");
    // Brokers of Apache say no term.
    stage.register(&restarted);
    assert_eq!(stage.goodbye(restarted.origin(), "h:1", 0), Goodbye::Heard);
    assert_eq!(stage.members(), "");
}

#[test]
fn at_equal_versions_another_address_waits_for_the_end_of_the_connection() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    let restarted = actor("h:2", 2, 0);
    let refused = stage.try_register(&restarted).unwrap_err();
    assert!(matches!(refused, Refused::Taken { patience_seconds: 60, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("h:1") && said.contains("h:2") && said.contains("broker a id 0"), "{said}");
    assert_eq!(stage.members(), "0:h:1");
    assert!(stage.route("T").unwrap().contains("h:1"));
    stage.close(1);
    stage.register(&restarted);
    assert_eq!(stage.members(), "0:h:2");
}

#[test]
fn that_it_is_the_same_machine_or_connection_makes_no_difference_to_another_address() {
    let mut stage = Stage::plain();
    let first = actor("h:1", 1, 0);
    stage.register(&first);
    for connection in [1, 2] {
        let second = Actor { host: first.host, ..actor("h:2", connection, 0) };
        assert!(matches!(stage.try_register(&second), Err(Refused::Taken { .. })));
    }
    assert_eq!(stage.members(), "0:h:1");
}

#[test]
fn a_holder_that_was_silent_for_two_heartbeats_is_replaced() {
    let mut stage = Stage::plain();
    let first = actor("h:1", 1, 0);
    stage.register(&first);
    for _ in 0..10 {
        stage.pass(30 * SECOND);
        stage.register(&first);
    }
    stage.pass(MINUTE);
    assert!(matches!(stage.try_register(&actor("h:2", 2, 0)), Err(Refused::Taken { silent_seconds: 60, .. })));
    stage.pass(SECOND);
    stage.register(&actor("h:2", 2, 0));
    assert_eq!(stage.members(), "0:h:2");
    // The old one was only slow: now it waits for the new one.
    assert!(matches!(stage.try_register(&first), Err(Refused::Taken { .. })));
}

#[test]
fn a_broker_with_slow_heartbeats_is_not_replaced_between_them() {
    let mut stage = Stage::plain();
    let slow = actor("h:1", 1, 0);
    stage.register(&slow);
    stage.pass(MINUTE);
    stage.register(&slow);
    stage.pass(MINUTE + SECOND);
    assert!(matches!(stage.try_register(&actor("h:2", 2, 0)), Err(Refused::Taken { patience_seconds: 120, .. })));
}

#[test]
fn a_broker_with_quick_heartbeats_is_replaced_quickly() {
    let mut stage = Stage::plain();
    let quick = Actor { silence_max: 10 * SECOND, ..actor("h:1", 1, 0) };
    stage.register(&quick);
    stage.pass(6 * SECOND);
    stage.register(&Actor { silence_max: 10 * SECOND, ..actor("h:2", 2, 0) });
    assert_eq!(stage.members(), "0:h:2");
}

#[test]
fn a_restarted_broker_with_its_old_address_is_back_at_once() {
    let mut stage = Stage::plain();
    let broker = Actor { term: 9, ..actor("h:1", 1, 0) };
    stage.register(&broker);
    // Its old connection's end has not been seen yet; its data were lost, and its terms begin again at one.
    stage.register(&Actor { connection: 2, term: 1, ..broker });
    stage.close(1);
    assert_eq!(stage.members(), "0:h:1");
}

#[test]
fn another_machine_does_not_register_under_a_listed_address() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    stage.register(&broker);
    let stranger = Actor { host: host_of("evil"), counter: 9, ..actor("h:1", 2, 0) };
    let nothing = TopicSettings { read: 0, write: 0, perm: 0, ..topic("T") };
    assert!(matches!(stage.register_with(&stranger, &[nothing, topic("U")]), Err(Refused::Taken { .. })));
    // Nor does it take the address into a group of its own.
    let elsewhere = Actor { group: "b", term: 100, ..stranger.clone() };
    assert!(matches!(stage.try_register(&elsewhere), Err(Refused::Taken { .. })));
    stage.close(2);
    assert_eq!((stage.members().as_str(), stage.perm("T")), ("0:h:1", Some(6)));
    // Without the old one's connection the address is free: a machine that was replaced, with a name that stayed.
    stage.close(1);
    stage.register(&Actor { connection: 3, ..stranger });
    assert_eq!(stage.members(), "0:h:1");
}

#[test]
fn only_the_registered_process_says_goodbye() {
    let mut stage = Stage::plain();
    let broker = actor("h:1", 1, 0);
    stage.register(&broker);
    let stranger = Origin { connection: ConnectionId(2), host: host_of("evil") };
    assert_eq!(stage.goodbye(stranger, "h:1", 0), Goodbye::ForSomebodyElse);
    assert_eq!(stage.goodbye(stranger, "h:2", 0), Goodbye::Heard, "an address that is not listed");
    assert_eq!(stage.goodbye(broker.origin(), "h:2", 0), Goodbye::Heard, "not even by the right one");
    let other_group = stage.step(|t, _, c| t.unregister(broker.origin(), "b", "h:1", BrokerId(0), None, c));
    assert_eq!((other_group, stage.members().as_str()), (Goodbye::Heard, "0:h:1"));
    // Over a new connection of the same machine.
    let again = Origin { connection: ConnectionId(3), ..broker.origin() };
    assert_eq!(stage.goodbye(again, "h:1", 0), Goodbye::Heard);
    assert_eq!((stage.members().as_str(), stage.route("T")), ("", None));
}

#[test]
fn goodbye_for_an_id_that_is_no_longer_its_own_is_not_heard() {
    let mut stage = Stage::plain();
    let broker = actor("vip:1", 1, 0);
    stage.register(&broker);
    let other = Origin { connection: ConnectionId(5), ..broker.origin() };
    assert_eq!(stage.goodbye(other, "vip:1", 2), Goodbye::ForSomebodyElse);
    assert_eq!(stage.members(), "0:vip:1");
    assert_eq!(stage.goodbye(other, "vip:1", 0), Goodbye::Heard);
    assert_eq!(stage.members(), "");
}

#[test]
fn a_replaced_broker_that_says_goodbye_takes_nobody_with_it() {
    let mut stage = Stage::plain();
    let old = Actor { term: 4, ..actor("h:1", 1, 0) };
    stage.register(&old);
    stage.register(&Actor { term: 5, ..actor("h:2", 2, 0) });
    assert_eq!(stage.goodbye(old.origin(), "h:1", 0), Goodbye::Heard);
    assert_eq!(stage.goodbye(old.origin(), "h:2", 0), Goodbye::ForSomebodyElse);
    assert_eq!(stage.members(), "0:h:2");
}

#[test]
fn nobody_else_keeps_a_dead_broker_in_the_routes() {
    let mut stage = Stage::plain();
    stage.register(&actor("h:1", 1, 0));
    let stranger = Origin { connection: ConnectionId(2), host: host_of("evil") };
    for _ in 0..13 {
        stage.pass(10 * SECOND);
        stage.heartbeat(stranger, "h:1");
        stage.step(|table, now, _| table.query_version(now, stranger, "h:1"));
    }
    assert_eq!(stage.members(), "");
}

#[test]
fn a_member_does_not_move_its_group() {
    let mut stage = Stage::plain();
    stage.register(&Actor { zone: Some("north"), ..actor("h:1", 1, 0) });
    stage.register(&Actor { cluster: "elsewhere", zone: Some("x"), acting: Some(true), ..actor("h:2", 2, 7) });
    let brokers = stage.routes.brokers();
    let group = brokers.group("a").unwrap();
    assert_eq!((&*group.cluster, group.zone.as_deref(), group.acting_master), ("c", Some("north"), false));
}
