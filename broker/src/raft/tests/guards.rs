//! What openraft leaves to those who use it: see the table in `raft/mod.rs`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory as _, RaftNetworkV2 as _};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};

use super::super::contacts::Contacts;
use super::super::network::Network;
use super::super::state::StateMachine as _;
use super::super::timing::{HEARTBEAT_MS, LEASE};
use super::super::wire::{Answer, encode_vote};
use super::super::{Ground, Identity, Lane, Link, Links, Member, NoLinks, TypeConfig, Vote};
use super::stand::{Machine, Stand};
use crate::executor::{Blocking, Executor};
use crate::terms::LogIndex;

/// A member on a stand.
fn start(stand: &Stand, identity: Identity) -> (Member<Machine>, Arc<Machine>) {
    let machine = Arc::<Machine>::default();
    let ground = Ground {
        log: stand.log.clone(),
        executor: stand.executor.clone(),
        blocking: Blocking::inline(),
        machine: Arc::clone(&machine),
        latch: stand.latch.clone(),
    };
    let started = stand.drive(Member::start(identity, ground, Arc::new(NoLinks)));
    (started.expect("nothing hinders it").expect("it starts"), machine)
}

/// A member that is alone, and leads.
fn member(stand: &Stand) -> (Member<Machine>, Arc<Machine>) {
    let (member, machine) = start(stand, Identity::alone());
    let leadership = member.leadership();
    stand.run_until(|| leadership.borrow().led()).expect("it leads");
    (member, machine)
}

/// Proposes 1 KiB in a term. Says which index it got; none if it was dropped.
fn propose(stand: &Stand, member: &Member<Machine>, term: u64) -> Option<LogIndex> {
    let got = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&got);
    let on_append = Box::new(move |index: LogIndex| noted.store(index.get(), Ordering::Relaxed));
    let waiting = Arc::downgrade(&got);
    let raft = member.propose(term, Bytes::from(vec![7; 1024]), on_append);
    let mut raft = std::pin::pin!(raft);
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    stand.run_until(|| raft.as_mut().poll(&mut context).is_ready().then_some(())).expect("it is taken");
    // The callback is called, or dropped.
    stand.run_until(|| (waiting.strong_count() == 1).then_some(())).expect("no proposal is forgotten");
    Some(LogIndex(got.load(Ordering::Relaxed))).filter(|index| index.get() > 0)
}

/// Its caller learns of it by the callback that is dropped.
#[test]
fn a_proposal_of_a_leadership_that_is_over_is_dropped() {
    let stand = Stand::new();
    let (member, _) = member(&stand);
    let term = member.leadership().borrow().led().expect("it leads");
    assert!(propose(&stand, &member, term).is_some());
    assert_eq!((propose(&stand, &member, term + 1), propose(&stand, &member, term - 1)), (None, None));
    assert!(propose(&stand, &member, term).is_some(), "it leads on");
}

/// A purge beyond what is applied would take the ids of entries that are applied next, and openraft panics (its issue 2116). Ours
/// goes no further than the state, and waits if it is asked for more.
#[test]
fn a_purge_does_not_overtake_apply() {
    let stand = Stand::new();
    let (member, machine) = member(&stand);
    let term = member.leadership().borrow().led().expect("it leads");
    let applied = || machine.applied().map(|(_, index)| index);
    for _ in 0..30 {
        propose(&stand, &member, term);
    }
    stand.run_until(|| (applied() == stand.log.last().map(|last| last.index)).then_some(())).expect("it applies");
    machine.hold(true);
    let before = applied();
    for _ in 0..30 {
        propose(&stand, &member, term);
    }
    let last = stand.log.last().map(|last| last.index).expect("entries");
    assert!(applied() == before && Some(last) > before, "they are committed and not applied");
    member.purger().purge(last);
    // All work at hand, and the patience of the purge.
    stand.run_until(|| None::<()>);
    assert!(stand.log.purged().map(|purged| purged.index) <= before, "{:?}, applied {before:?}", stand.log.purged());
    machine.hold(false);
    stand.run_until(|| (applied() == Some(last)).then_some(())).expect("it goes on");
    assert!(!stand.latch.is_closed());
}

/// Another member, which takes its time.
#[derive(Clone)]
struct Slow(Executor);

impl Links for Slow {
    type Link = Self;

    fn link(&self, _to: u64, _address: &str, _lane: Lane) -> Self {
        self.clone()
    }
}

impl Link for Slow {
    fn call(&self, _request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        let sleep = self.0.sleep(Duration::from_secs(2));
        async move {
            sleep.await;
            Ok(Answer::Append(AppendEntriesResponse::Success).encode())
        }
    }
}

/// Before it ended it may have heard a leader, who counts on its not voting for a lease. Openraft forgets that at a restart.
#[test]
fn a_member_that_has_just_started_votes_for_nobody() {
    let stand = Stand::new();
    let (member, _) = start(&stand, Identity { node: 1, founders: None });
    let ask = || {
        let (server, request) = (member.server().clone(), VoteRequest::new(Vote::new(1, 2), None));
        let answer = stand.drive(async move { server.serve(encode_vote(&request, false)).await });
        let answer = answer.expect("it is not forgotten").expect("it is answered").expect("the member lives");
        Answer::decode(&answer).expect("an answer")
    };
    assert!(matches!(ask(), Answer::Failed(_)));
    stand.clock.advance(LEASE);
    assert!(matches!(ask(), Answer::Vote(answer) if answer.vote_granted));
}

/// Openraft gives a stream of appends as long as there is between heartbeats, and a disk may stall for longer.
#[test]
fn an_append_may_take_longer_than_there_is_between_heartbeats() {
    let stand = Stand::new();
    let slow = Arc::new(Slow(stand.executor.clone()));
    let mut network = Network::new(slow, stand.executor.clone(), Arc::new(Contacts::default()), Arc::default());
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(1, 1),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let appended = stand.drive(async move {
        let mut client = network.new_client(2, &BasicNode::default()).await;
        let option = RPCOption::new(Duration::from_millis(HEARTBEAT_MS));
        let responses = client.stream_append(stream::iter([request]), option).await;
        let mut responses = responses.map_err(|error| error.to_string())?;
        responses.next().await.ok_or("no answer")?.map_err(|error| error.to_string())
    });
    assert!(matches!(appended, Some(Ok(Ok(_)))), "{appended:?}");
}
