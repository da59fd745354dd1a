//! Members that lack entries which retention has deleted from their leader's log.

use std::time::Duration;

use tokio::time::timeout;

use super::whole::{Bench, Running};
use crate::check::tests::{propose, served, unit};
use crate::retention::last_index_below;
use crate::shard::{Command, Message, MessageList, Publish};
use crate::terms::{LogIndex, Position, When};
use crate::tests::support::until;

/// Far more than a copy of a few segments takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn publish(leader: &Running, name: &str, count: usize) {
    let shard = &leader.storage.shard;
    let queue = shard.topics().get("first").unwrap().queues[0].id;
    for nth in 0..count {
        let bytes = unit(&format!("{name}{nth:0>1000}"));
        let messages = MessageList::One(Message::new(7, &bytes));
        propose(shard, Command::Publish(Publish { queue, when: When::Now, messages, once: None })).await;
    }
}

/// Lets the files go that retention may delete now, as it does itself.
async fn purge(member: &Running) -> LogIndex {
    let Running { storage, .. } = member;
    let log = storage.shard.log();
    let last = last_index_below(&log.segments(), storage.shard.counters().trimmed()).unwrap();
    storage.applier().keep_base(last).unwrap();
    storage.purger().purge(last);
    until("old files go", async || log.purged().is_some_and(|purged| purged.index >= last)).await;
    last
}

/// Messages until old ones go, from every log that is there. Says how far.
async fn trim(bench: &Bench) -> LogIndex {
    let leader = bench.at(bench.leader().await);
    publish(leader, "message", 300).await;
    let segments = leader.storage.shard.log().segments();
    propose(&leader.storage.shard, Command::Trim { upto: segments[segments.len() - 2].start }).await;
    let trimmed = leader.storage.shard.counters().trimmed();
    assert!(trimmed > Position::ZERO);
    let mut gone = LogIndex::ZERO;
    for (_, member) in bench.alive() {
        until("it is trimmed", async || member.storage.shard.counters().trimmed() == trimmed).await;
        gone = gone.max(purge(member).await);
    }
    gone
}

/// Waits until a member has fetched a copy of the state, and starts it again.
async fn catch_up(bench: &mut Bench, at: usize) {
    timeout(PATIENCE, bench.at(at).group.must_restart()).await.unwrap();
    bench.stop(at).await;
    bench.start(&[at]).await;
}

/// A member serves what the leader serves, from a log that begins no earlier.
async fn is_like_the_leader(bench: &Bench, at: usize) {
    let (leader, member) = (bench.at(bench.leader().await), bench.at(at));
    let end = leader.storage.shard.counters().applied_index();
    until("it has applied all", async || member.storage.shard.counters().applied_index() >= end).await;
    assert!(served(&member.storage.shard) == served(&leader.storage.shard), "the states differ");
    assert!(member.storage.shard.log().first_position() >= leader.storage.shard.log().first_position());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_was_away_too_long_and_a_wiped_member_come_back_by_a_copy_of_the_state() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let away = (bench.leader().await + 1) % 3;
    let id = bench.at(away).group.node();
    bench.stop(away).await;
    let gone = trim(&bench).await;
    bench.start(&[away]).await;
    assert!(bench.at(away).storage.shard.log().last().unwrap().index < gone);
    catch_up(&mut bench, away).await;
    bench.apply("again").await;
    is_like_the_leader(&bench, away).await;
    assert_eq!(bench.at(away).group.node(), id, "it is the same member, with its vote");

    let wiped = (bench.leader().await + 1) % 3;
    bench.stop(wiped).await;
    std::fs::remove_dir_all(bench.data(wiped)).unwrap();
    bench.start(&[wiped]).await;
    catch_up(&mut bench, wiped).await;
    let new = bench.at(wiped).group.node();
    until("it votes again", async || bench.voters(bench.leader().await).contains(&new)).await;
    until("its old id is gone", async || (0..3).all(|at| bench.at(at).group.status().members.len() == 3)).await;
    is_like_the_leader(&bench, wiped).await;
    // Its vote and its log are needed now.
    let other = (0..3).find(|at| *at != wiped).unwrap();
    bench.stop(other).await;
    bench.apply("by the new one").await;
    for at in (0..3).filter(|at| *at != other) {
        bench.stop(at).await;
    }
}
