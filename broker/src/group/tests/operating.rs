//! Members that operators look at, add, promote, remove, and hand the leadership to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::whole::{Bench, Running};
use crate::config::Seat;
use crate::group::{Changed, MemberChange, OrderError, TransferError};
use crate::tests::support::until;

/// The longest hand-over. It is some 50 ms on two busy cores; one that nobody takes costs an election.
const HAND_OVER_MAX: Duration = Duration::from_millis(2_500);

impl Bench {
    /// The seat of this number as all members know it.
    pub(super) fn seat(&self, at: usize) -> Seat {
        self.peers.split(';').nth(at).unwrap().parse().unwrap()
    }

    /// Asks the leader for a change, until none is under way that the care for the members has begun.
    async fn change(&self, change: MemberChange) -> Result<Changed, OrderError> {
        let leader = self.leader().await;
        until("no change is under way", async || {
            self.at(leader).group.view().await.is_some_and(|view| !view.is_changing)
        })
        .await;
        self.at(leader).group.change(change).await
    }

    async fn remove(&self, at: usize) -> Result<Changed, OrderError> {
        self.change(MemberChange::Remove(format!("n{at}"))).await
    }
}

fn refused(answer: Result<Changed, OrderError>, why: &str) {
    match answer {
        Err(OrderError::Refused(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_nobody_takes_costs_an_election_and_no_more() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let leader = bench.leader().await;
    let term = bench.at(leader).group.status().term;
    for at in (0..3).filter(|at| *at != leader) {
        bench.at(at).storage.member().stands(false);
    }
    // Nobody has this id. The others do not stand, so only the former leader can lead again.
    bench.at(leader).storage.member().hand_over(u64::MAX).await.unwrap();
    until("it leads a later term", async || bench.at(leader).group.status().term > term).await;
    bench.apply("afterwards").await;
    assert_eq!(bench.leader().await, leader);
    assert!(bench.at(leader).storage.lease().holds(), "it answers reads again");
    for at in 0..3 {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_seat_stays_out_until_it_is_added_whoever_leads() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let leader = bench.leader().await;
    let (out, other) = ((leader + 1) % 3, (leader + 2) % 3);
    refused(bench.remove(leader).await, "group transfer");
    refused(bench.remove(7).await, "no member of the group has the seat n7");
    refused(bench.change(MemberChange::Promote(format!("n{out}"))).await, "has a vote already");
    refused(bench.change(MemberChange::Add(bench.seat(out))).await, "is a member already");
    let nowhere = "n7-127.0.0.1:1".parse().unwrap();
    refused(bench.change(MemberChange::Add(nowhere)).await, "does not answer");
    let follower = bench.at(out).group.change(MemberChange::Remove(format!("n{other}"))).await;
    assert_eq!(follower, Err(OrderError::NotLeading));

    let removed = bench.remove(out).await.unwrap();
    assert!(removed.warning.is_some(), "two voters are worse than one: {removed:?}");
    bench.stop(out).await;
    let two: BTreeSet<u64> = [leader, other].iter().map(|at| bench.at(*at).group.node()).collect();
    assert_eq!(bench.voters(leader), two);
    // Its folder is no member's any more, and the leader is another one.
    std::fs::remove_dir_all(bench.data(out)).unwrap();
    let over = bench.at(leader).group.transfer(None).await.unwrap();
    assert_eq!(over.seat, format!("n{other}"));
    println!("the leadership went over in {:?}", over.took);
    assert!(bench.leader().await == other && over.took <= HAND_OVER_MAX, "{over:?}");

    let welcomed = |bench: &Bench| bench.at(other).group.inner.several.as_ref().unwrap().peers.counts().welcomed;
    let before = welcomed(&bench);
    let opened = {
        let mut coming = Box::pin(bench.open(out, "secret"));
        let stays_out = async {
            until("it asks", async || welcomed(&bench) > before).await;
            bench.apply("without it").await;
            assert!(bench.voters(other) == two && bench.at(other).group.status().members.len() == 2);
        };
        tokio::select! {
            biased;
            opened = &mut coming => panic!("it is in: {:?}", opened.map(drop)),
            () = stays_out => {}
        }
        let (opened, added) = tokio::join!(coming, bench.change(MemberChange::Add(bench.seat(out))));
        added.unwrap();
        opened.unwrap()
    };
    bench.running(out, opened);
    until("it votes again", async || (0..3).all(|at| bench.voters(at).len() == 3)).await;
    bench.apply("with it").await;
    for at in 0..3 {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shrinks_to_one_and_grows_again() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("three").await;
    let leader = bench.leader().await;
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    for at in &others {
        bench.remove(*at).await.unwrap();
        bench.stop(*at).await;
        std::fs::remove_dir_all(bench.data(*at)).unwrap();
    }
    bench.apply("one").await;
    refused(bench.remove(leader).await, "last voter");
    let alone = bench.at(leader).group.transfer(None).await;
    assert!(matches!(alone, Err(TransferError::Nobody(_))), "{alone:?}");
    // Two voters only by a command; the third makes them three by itself.
    for (number, at) in others.into_iter().enumerate() {
        bench.start_by_command(at).await;
        if number == 0 {
            until("it is promoted", async || {
                let promoted = bench.change(MemberChange::Promote(format!("n{at}"))).await;
                promoted.is_ok_and(|changed| changed.warning.is_some())
            })
            .await;
        }
    }
    until("all vote", async || (0..3).all(|at| bench.voters(at).len() == 3)).await;
    bench.apply("again").await;
    assert!((0..3).all(|at| bench.at(at).storage.shard.topics().get("one").is_some()));
    for at in 0..3 {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_voter_goes_on_answering_while_a_learner_is_dead() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("three").await;
    let leader = bench.leader().await;
    let learner = (leader + 1) % 3;
    for at in (0..3).filter(|at| *at != leader) {
        bench.remove(at).await.unwrap();
        bench.stop(at).await;
        std::fs::remove_dir_all(bench.data(at)).unwrap();
    }
    bench.start_by_command(learner).await;
    bench.stop(learner).await;
    // Four leases for reads, without a write or an answer that could renew one.
    let until_then = escrowmq_common::clock::monotonic() + std::time::Duration::from_secs(2);
    until("time goes by", async || {
        assert!(bench.at(leader).storage.lease().holds());
        escrowmq_common::clock::monotonic() > until_then
    })
    .await;
    bench.apply("alone").await;
    bench.stop(leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_shows_the_group_with_a_leader_and_without() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let leader = bench.leader().await;
    for at in 0..3 {
        until("all answer, and none lags", async || {
            let view = bench.at(at).group.view().await.unwrap();
            let is_known = view.leader == Some(format!("n{leader}")) && view.seat == format!("n{at}");
            is_known && view.members.iter().all(|one| one.lag == Some(0) && one.contact.is_some() && one.votes)
        })
        .await;
    }
    let away: Vec<usize> = (0..3).filter(|at| *at != 2).collect();
    for at in away {
        bench.stop(at).await;
    }
    let last = |view: &crate::group::GroupView| view.members.iter().filter(|one| one.last.is_some()).count();
    until("the one that is left says what it knows", async || {
        let view = bench.at(2).group.view().await.unwrap();
        let away = view.members.iter().filter(|one| one.problem.is_some()).count();
        view.leader.is_none() && away == 2 && last(&view) == 1 && view.term > 0
    })
    .await;
    bench.stop(2).await;
}

impl Bench {
    /// Starts an empty member, and adds it when it is there.
    async fn start_by_command(&mut self, at: usize) {
        let is_added = async || self.change(MemberChange::Add(self.seat(at))).await.is_ok();
        let (opened, ()) = tokio::join!(self.open(at, "secret"), until("it is added", is_added));
        self.running(at, opened.unwrap());
    }

    fn running(&mut self, at: usize, running: Running) {
        assert!(self.running[at].replace(running).is_none(), "it was stopped before");
    }
}
