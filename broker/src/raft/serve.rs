//! What a member answers to others.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{EntryPayload, Raft};
use tokio::sync::watch;

use super::counts::Counts;
use super::entry::LogEntry;
use super::state::{State, StateMachine};
use super::timing::{ELECTION_MAX_MS, LEASE};
use super::wire::{self, Answer, Request};
use super::{LogId, TypeConfig, Vote, index_of};
use crate::executor::{Executor, JoinHandle};
use crate::log::{AppendError, Log, NewRecord, Room, RoomClaims};
use crate::planted::{Bug, planted};
use crate::terms::LogIndex;

/// A leader that was heard of so long ago may be gone: nine heartbeats.
const HEARD_WITHIN: Duration = Duration::from_millis(3 * ELECTION_MAX_MS);

/// A member lacks entries that its leader's log has lost: it needs a copy of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    /// The leader, which has such a copy.
    pub(crate) leader: u64,
    /// Its address, as the membership has it.
    pub(crate) address: String,
    /// The copy must have applied this.
    pub(crate) upto: LogIndex,
}

/// Answers requests of other members. Clones are the same one.
pub(crate) struct Server<M: StateMachine> {
    inner: Arc<Inner<M>>,
}

impl<M: StateMachine> Clone for Server<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<M: StateMachine> {
    raft: Raft<TypeConfig, State<M>>,
    /// Weak: whoever keeps this must not keep the store open.
    machine: Weak<M>,
    executor: Executor,
    log: Log,
    claims: RoomClaims,
    started: Duration,
    /// When a leader was last heard of, in milliseconds of the executor's clock.
    heard: AtomicU64,
    lacks: watch::Sender<Option<Lack>>,
    counts: Arc<Counts>,
    /// Entries were refused for want of room, and none of their kind was taken since.
    is_full: AtomicBool,
}

impl<M: StateMachine> Server<M> {
    pub(super) fn new(
        raft: Raft<TypeConfig, State<M>>,
        machine: Weak<M>,
        executor: Executor,
        log: Log,
        counts: Arc<Counts>,
    ) -> Self {
        let (started, claims, heard) = (executor.now(), RoomClaims::default(), AtomicU64::new(0));
        let (lacks, is_full) = (watch::Sender::new(None), AtomicBool::new(false));
        let inner = Inner { raft, machine, executor, log, claims, started, heard, lacks, counts, is_full };
        Self { inner: Arc::new(inner) }
    }

    /// The copy of the state that a leader said this member needs; told again each time that it is asked.
    pub(crate) fn lacks(&self) -> watch::Receiver<Option<Lack>> {
        self.inner.lacks.subscribe()
    }

    /// Whether a leader was heard of just now.
    pub(crate) fn hears_leader(&self) -> bool {
        let heard = Duration::from_millis(self.inner.heard.load(Ordering::Relaxed));
        heard > Duration::ZERO && self.inner.executor.now() < heard + HEARD_WITHIN
    }

    /// When a leader was last heard of, on the executor's clock; before that, when this member started.
    pub(super) fn heard(&self) -> Duration {
        Duration::from_millis(self.inner.heard.load(Ordering::Relaxed)).max(self.inner.started)
    }

    /// Answers a request; requests are handled in the order of these calls. An error says that the request is malformed, or
    /// that this member has ended: the connection is of no use any more.
    pub(crate) fn serve(&self, request: Bytes) -> JoinHandle<io::Result<Bytes>> {
        let inner = Arc::clone(&self.inner);
        // On the executor, where the core runs: the order is that of being spawned.
        self.inner.executor.spawn(async move { Ok(inner.answer(&request).await?.encode()) })
    }
}

impl<M: StateMachine> Inner<M> {
    async fn answer(&self, request: &[u8]) -> io::Result<Answer> {
        let bytes = request.len() as u64;
        let request = wire::decode(request).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match request {
            Request::Append(request) => {
                self.counts.received.add(bytes, self.executor.now());
                self.append(request).await
            }
            Request::Vote(request) if self.may_vote(request.leadership_transfer) => {
                self.raft.vote(request).await.map(Answer::Vote).map_err(io::Error::other)
            }
            Request::PreVote(request) if self.may_vote(request.leadership_transfer) => {
                self.raft.pre_vote(request).await.map(Answer::Vote).map_err(io::Error::other)
            }
            Request::Vote(_) | Request::PreVote(_) => Ok(Answer::Failed("started just now".to_owned())),
            Request::Transfer(request) => {
                let answer = self.raft.handle_transfer_leader(request).await;
                answer.map(wire::transfer_answer).map_err(io::Error::other)
            }
            Request::State { vote, upto, address } => self.state(vote, upto, address).await,
        }
    }

    /// The log of the leader begins after `upto`. What a member has applied a majority has committed, so it is what the leader
    /// had there. A member that has applied less is told to get a copy of the state; it is no part of Raft how.
    async fn state(&self, vote: Vote, upto: LogId, address: String) -> io::Result<Answer> {
        let own = self.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(io::Error::other)?;
        let applied = self.machine.upgrade().and_then(|machine| machine.applied()).map(|(_, index)| index);
        if own > vote || applied >= Some(index_of(&upto)) {
            return Ok(Answer::State(own));
        }
        self.lacks.send_replace(Some(Lack { leader: vote.leader_id.voted_for, address, upto: index_of(&upto) }));
        Ok(Answer::Failed("it gets a copy of the state first".to_owned()))
    }

    /// Before it ended it may have heard from a leader, who counts on its not voting for a lease. It has forgotten that.
    fn may_vote(&self, leader_asks: bool) -> bool {
        leader_asks || self.executor.now() >= self.started + LEASE || planted(Bug::VotesAtOnce)
    }

    /// Openraft takes an append that fails for the end of its storage. So room is claimed first: a member whose disk is full
    /// says so, and goes on when there is room. The reserve is for what makes room, for decisions, and for a leader's own
    /// first entry.
    async fn append(&self, mut request: AppendEntriesRequest<TypeConfig>) -> io::Result<Answer> {
        let mut bytes: Vec<u64> = request.entries.iter().map(entry_bytes).collect();
        let entries = request.entries.len();
        // Entries of another leader may have to go first. What comes in their place begins a segment.
        let may_truncate = request.entries.first().map(LogEntry::index) <= self.log.last().map(|last| last.index);
        if may_truncate && !bytes.is_empty() {
            bytes.push(self.log.segment_capacity());
        }
        // Behind them there must be room for what this member needs if it leads next.
        if entries > 0 {
            bytes.extend(leadership_bytes());
        }
        // Those beyond the entries are held until the entries are stored.
        let mut others = Vec::new();
        if !bytes.is_empty() {
            let claimed = self.claims.claim(&self.log, &bytes, Room::Common);
            self.note_room(claimed.as_ref().err());
            let claimed = match claimed {
                Err(AppendError::NoSpace { .. }) if request.entries.iter().all(is_vital::<M>) => {
                    self.claims.claim(&self.log, &bytes, Room::Reserve)
                }
                claimed => claimed,
            };
            match claimed {
                Ok(mut claims) => {
                    others = claims.split_off(entries);
                    for (entry, claim) in request.entries.iter_mut().zip(claims) {
                        entry.room = Some(claim);
                    }
                }
                Err(error @ AppendError::NoSpace { .. }) => return Ok(Answer::Failed(error.to_string())),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let appended = self.raft.append_entries(request).await;
        drop(others);
        if matches!(appended, Ok(AppendEntriesResponse::Success)) {
            let now = u64::try_from(self.executor.now().as_millis()).unwrap_or(u64::MAX);
            self.heard.store(now, Ordering::Relaxed);
        }
        appended.map(Answer::Append).map_err(io::Error::other)
    }

    /// Says once that there is no room, and once that there is some again: the leader goes on asking.
    fn note_room(&self, refused: Option<&AppendError>) {
        let is_full = match refused {
            None => false,
            Some(AppendError::NoSpace { .. }) => true,
            Some(_) => return,
        };
        if self.is_full.swap(is_full, Ordering::Relaxed) == is_full {
            return;
        }
        if let Some(error) = refused {
            tracing::error!(%error, "disk full: the leader's entries are not taken until there is room");
        } else {
            tracing::info!("there is room again: the leader's entries are taken");
        }
    }
}

/// Bytes of the entries with which a leadership begins: the one of the election, and the one that shows that everything before
/// is applied (`member.rs`).
pub(super) fn leadership_bytes() -> [u64; 2] {
    [NewRecord::bytes_with(0); 2]
}

fn is_vital<M: StateMachine>(entry: &LogEntry) -> bool {
    match &entry.payload {
        EntryPayload::Normal(proposal) => M::is_vital(&proposal.payload),
        EntryPayload::Blank | EntryPayload::Membership(_) => true,
    }
}

/// Bytes that an entry takes in the log.
fn entry_bytes(entry: &LogEntry) -> u64 {
    entry.place.map_or(NewRecord::bytes_with(0), |place| place.end.since(place.position))
}
