//! What openraft leaves to those who use it, in small worlds of three (the table is in `raft/mod.rs`): each caller is told, in
//! time, and a disk without room costs its member alone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::cuts::act::Act;
use super::faults::Faults;
use super::net::address;
use super::node::Node;
use super::world::World;
use crate::log::Flush;
use crate::raft::ChangeError;
use crate::shard::{Admission, Outcome, SubmitError};

/// Callers are told within this time: the patience of the proposer, and a look at who waits.
const TOLD_WITHIN: Duration = Duration::from_millis(2600);
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Arc<Mutex<Option<Result<Outcome, SubmitError>>>>;

/// A group of three that leads, without clients and faults.
fn group(seed: u64) -> World {
    group_of(3, seed)
}

fn group_of(size: usize, seed: u64) -> World {
    let mut world = World::new(seed, size, Flush::Sync);
    (world.clients.active, world.faults) = (false, Faults::none());
    for node in &mut world.nodes {
        node.start().expect("an empty disk");
    }
    lead(&mut world);
    world
}

/// Waits for a leader whose office is held. Says which node it is.
fn lead(world: &mut World) -> usize {
    let holds =
        |world: &mut World| Ok(world.nodes.iter().any(|node| node.desk().is_some_and(|desk| desk.office.is_held())));
    world.run_until("a leader", PATIENCE, holds).expect("nothing hinders it");
    world.leader().expect("it holds its lease").seat
}

/// Submits a command to a node.
fn submit(world: &World, seat: usize, name: &str) -> Answer {
    let answer = Answer::default();
    let (completed, refused) = (Arc::clone(&answer), Arc::clone(&answer));
    let completion = Box::new(move |result| *completed.lock() = Some(result));
    let shard = world.nodes[seat].shard().expect("it runs");
    Act::PutTopic { name: name.to_owned(), queues: 1 }.with_command(|command| {
        if let Err((error, _)) = shard.submit(command, Admission::Reserved, completion) {
            *refused.lock() = Some(Err(error));
        }
    });
    answer
}

/// Waits for the answer to a command.
fn answer(world: &mut World, answer: &Answer, within: Duration) -> Result<Outcome, SubmitError> {
    world.run_until("an answer", within, |_| Ok(answer.lock().is_some())).expect("each caller is told");
    answer.lock().take().expect("it was there")
}

fn cut(world: &World, seat: usize) {
    for other in (0..world.nodes.len()).filter(|other| *other != seat) {
        world.net.cut(seat, other);
        world.net.cut(other, seat);
    }
}

#[test]
fn a_member_that_does_not_lead_says_so() {
    let mut world = group(1);
    let leader = world.leader().expect("there is one").seat;
    let refused = submit(&world, (leader + 1) % 3, "t");
    assert!(matches!(answer(&mut world, &refused, Duration::ZERO), Err(SubmitError::NotLeader)));
}

/// Openraft keeps what it took until there is a majority again.
#[test]
fn what_was_taken_before_the_lease_was_lost_is_answered_in_time() {
    let mut world = group(2);
    let leader = world.leader().expect("there is one").seat;
    let first = submit(&world, leader, "first");
    assert_eq!(answer(&mut world, &first, PATIENCE).expect("a majority"), Outcome::Done);
    cut(&world, leader);
    let lost = submit(&world, leader, "lost");
    assert!(matches!(answer(&mut world, &lost, TOLD_WITHIN), Err(SubmitError::OutcomeUnknown)));
    // And so is what it takes while it does not know that another one leads.
    let later = submit(&world, leader, "later");
    assert!(answer(&mut world, &later, TOLD_WITHIN).is_err());
    world.net.heal();
    let leader = lead(&mut world);
    let next = submit(&world, leader, "next");
    assert_eq!(answer(&mut world, &next, PATIENCE).expect("a majority"), Outcome::Done);
    let are_idle = |world: &mut World| {
        let mut intakes = world.nodes.iter().filter_map(|node| Some(node.shard()?.intake()));
        Ok(intakes.all(|intake| (intake.entries(), intake.bytes()) == (0, 0)))
    };
    world.run_until("nothing is on its way", PATIENCE, are_idle).expect("what is lost is counted no more");
}

/// There is nobody else to ask: a disk that stands still is no doubt, and clients end their own patience.
#[test]
fn a_broker_alone_waits_for_its_disk() {
    let mut world = group_of(1, 5);
    world.nodes[0].disk_ms = 4_000;
    let put = submit(&world, 0, "slow");
    assert_eq!(answer(&mut world, &put, PATIENCE).expect("it comes to the disk"), Outcome::Done);
}

/// Openraft takes an append that fails for the end of its storage.
#[test]
fn a_follower_without_room_goes_on_when_there_is_room() {
    let mut world = group(3);
    let leader = world.leader().expect("there is one").seat;
    let full = (leader + 1) % 3;
    world.nodes[full].set_full(true);
    // More than all its room: segments of 8 KiB, and a reserve.
    for nth in 0..200 {
        let put = submit(&world, leader, &format!("{nth}-{}", "x".repeat(100)));
        assert_eq!(answer(&mut world, &put, PATIENCE).expect("two have room"), Outcome::Done);
    }
    let end = |world: &World, seat: usize| world.nodes[seat].shard().and_then(|shard| shard.log().last());
    assert!(end(&world, full).map(|last| last.index) < end(&world, leader).map(|last| last.index), "it took all of it");
    assert!(world.nodes[full].failure().is_none());
    world.nodes[full].set_full(false);
    let are_equal =
        |world: &mut World| Ok(end(world, full).map(|last| last.index) == end(world, leader).map(|last| last.index));
    world.run_until("it catches up", Duration::from_secs(30), are_equal).expect("it has room again");
}

/// A change of the members is an append, too.
#[test]
fn a_leader_without_room_goes_on_and_changes_no_members() {
    let mut world = group(6);
    let leader = world.leader().expect("there is one").seat;
    world.nodes[leader].set_full(true);
    let member = Arc::clone(world.nodes[leader].storage().expect("it runs").member());
    let mut node = 100;
    let mut add = |world: &mut World| {
        let (member, done, told) = (Arc::clone(&member), Arc::new(Mutex::new(None)), address((leader + 1) % 3));
        node += 1;
        let (id, slot) = (node, Arc::clone(&done));
        let adding = async move {
            let added = member.add_learner(id, &told).await;
            *slot.lock() = Some(added);
        };
        drop(world.nodes[leader].shard().expect("it runs").executor().spawn(adding));
        world.run_until("an answer", PATIENCE, |_| Ok(done.lock().is_some())).expect("the leader goes on");
        let added = done.lock().take();
        added.expect("it was there")
    };
    let refused = (0..200).find_map(|_| add(&mut world).err()).expect("all its room is used up");
    assert!(matches!(&refused, ChangeError::Refused(why) if why.contains("no room")), "{refused}");
    assert!(world.nodes[leader].failure().is_none());
    world.nodes[leader].set_full(false);
    lead(&mut world);
    assert_eq!(add(&mut world), Ok(()), "it has room again");
}

/// Openraft ends a leader that has no snapshot for a member which needs one.
#[test]
fn a_leader_survives_a_member_that_needs_what_is_gone() {
    let mut world = group(4);
    let leader = world.leader().expect("there is one").seat;
    let behind = (leader + 1) % 3;
    cut(&world, behind);
    for nth in 0..200 {
        let put = submit(&world, leader, &format!("{nth}-{}", "x".repeat(100)));
        assert_eq!(answer(&mut world, &put, PATIENCE).expect("two have it"), Outcome::Done);
    }
    let node = &mut world.nodes[leader];
    node.keep_room().expect("the index is flushed");
    let upto = node.shard().and_then(|shard| shard.counters().applied_index()).expect("entries");
    node.storage().expect("it runs").purger().purge(upto);
    let purged = |world: &World| world.nodes[leader].shard().and_then(|shard| shard.log().purged());
    world.run_until("old files go", PATIENCE, |world| Ok(purged(world).is_some())).expect("they are asked to");
    let needs = world.nodes[behind].shard().and_then(|shard| shard.log().last());
    assert!(needs.map(|last| last.index) < purged(&world).map(|purged| purged.index), "what it needs is gone");
    world.net.heal();
    let later = world.now() + Duration::from_secs(5);
    world.run_until("time passes", PATIENCE, |world| Ok(world.now() > later)).expect("nobody fails");
    let next = submit(&world, leader, "next");
    assert_eq!(answer(&mut world, &next, PATIENCE).expect("it leads on"), Outcome::Done);
}

/// Openraft hands over for a leader that is no voter any more, and lets others vote at once.
#[test]
fn a_leader_that_is_let_go_answers_no_reads_beside_the_next_one() {
    let mut world = group(7);
    let leader = world.leader().expect("there is one").seat;
    let others = world.nodes.iter().filter(|node| node.seat != leader).map(Node::id).collect();
    let member = Arc::clone(world.nodes[leader].storage().expect("it runs").member());
    let changing = async move { drop(member.replace_voters(others).await) };
    drop(world.nodes[leader].shard().expect("it runs").executor().spawn(changing));
    // At each step the world looks whether two hold the lease.
    let next = |world: &mut World| Ok(world.leader().is_some_and(|next| next.seat != leader));
    world.run_until("another one leads", PATIENCE, next).expect("one at a time");
}
