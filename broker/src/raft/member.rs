//! A member of the group: its core, its leadership, what it answers to others, and the loop that purges.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::VoteRequest;
use openraft::{Config, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::contacts::Contacts;
use super::counts::Counts;
use super::entry::{OnAppend, Proposal};
use super::leadership::Leadership;
use super::lease::Lease;
use super::links::Links;
use super::log_store::LogStore;
use super::members::{self, Members};
use super::network::Network;
use super::serve::{Server, leadership_bytes};
use super::state::{State, StateMachine};
use super::timing::{ELECTION_MAX_MS, ELECTION_MIN_MS, HAND_OVER_PATIENCE, HEARTBEAT_MS, PROBE_MS, READ_LEASE};
use super::{CommittedLeader, TypeConfig, Vote, index_of, log_id};
use crate::executor::{Blocking, Executor, JoinHandle};
use crate::latch::{Failure, FailureLatch};
use crate::log::{self, Log, RoomClaims};
use crate::planted::{Bug, planted};
use crate::terms::LogIndex;

/// How long openraft may take for a snapshot: it asks the state machine how far it is.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// Between looks for room on a full disk.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);

/// The Raft id of a broker that has always been alone.
pub(crate) const ALONE: u64 = 1;

/// Who a member is, and how its group begins.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its Raft id. Never used again for another folder.
    pub node: u64,
    /// The founders by id, with their addresses, if this member founds the group when its log is empty. The log has the
    /// members from then on.
    pub founders: Option<BTreeMap<u64, String>>,
}

impl Identity {
    /// The only member of its group.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::alone_as(ALONE)
    }

    /// The only member of its group, under this id.
    pub(crate) fn alone_as(node: u64) -> Self {
        Self { node, founders: Some(BTreeMap::from([(node, String::new())])) }
    }

    fn has_peers(&self) -> bool {
        self.founders.as_ref().is_none_or(|founders| founders.len() > 1)
    }
}

/// What a member runs on.
pub(crate) struct Ground<M> {
    /// It alone writes to the log from now on.
    pub log: Log,
    /// Runs.
    pub executor: Executor,
    /// Reads and deletes old files.
    pub blocking: Blocking,
    /// Gets the entries that are committed.
    pub machine: Arc<M>,
    /// Closed when the member cannot go on.
    pub latch: FailureLatch,
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Raft's settings contradict each other.
    #[error("raft settings: {0}")]
    Settings(String),
    /// The core did not start.
    #[error("raft: {0}")]
    Raft(String),
    /// The executor ended first.
    #[error("the shard's thread ended before raft was ready")]
    Executor,
}

/// A running member of the group, with the state machine `M`. Dropping it does not end it; [`end`](Self::end) does.
pub(crate) struct Member<M: StateMachine> {
    node: u64,
    pub(super) log: Log,
    /// Room for what this member proposes as the leader.
    claims: RoomClaims,
    pub(super) raft: Raft<TypeConfig, State<M>>,
    pub(super) executor: Executor,
    pub(super) members: watch::Receiver<Members>,
    pub(super) contacts: Arc<Contacts>,
    pub(super) counts: Arc<Counts>,
    leadership: watch::Receiver<Leadership>,
    lease: Arc<Lease>,
    has_peers: Arc<AtomicBool>,
    server: Server<M>,
    purger: Purger,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Asks for records to leave the log.
#[derive(Clone, Default)]
pub(crate) struct Purger {
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    upto: AtomicU64,
    /// What is held, by the number of its hold.
    held: Mutex<BTreeMap<u64, LogIndex>>,
    ended: AtomicBool,
    changed: Notify,
}

impl Wanted {
    /// What may go now.
    fn upto(&self) -> LogIndex {
        let wanted = LogIndex(self.upto.load(Ordering::Acquire));
        self.held.lock().values().fold(wanted, |upto, held| upto.min(*held))
    }
}

/// Records above an index stay in the log as long as this lives.
pub(crate) struct Hold {
    wanted: Arc<Wanted>,
    number: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.wanted.held.lock().remove(&self.number);
        self.wanted.changed.notify_one();
    }
}

impl Purger {
    /// Lets whole files go whose records all have an index of at most `upto`. The caller knows that the state which
    /// follows from them is on disk. Happens later.
    pub(crate) fn purge(&self, upto: LogIndex) {
        if LogIndex(self.wanted.upto.fetch_max(upto.get(), Ordering::AcqRel)) < upto {
            self.wanted.changed.notify_one();
        }
    }

    /// Keeps the records above `index` in the log from now on. A purge that was begun may take some of them still: look
    /// whether the log begins below.
    pub(crate) fn hold(&self, index: LogIndex) -> Hold {
        let mut held = self.wanted.held.lock();
        let number = held.last_key_value().map_or(0, |(number, _)| number + 1);
        held.insert(number, index);
        drop(held);
        Hold { wanted: Arc::clone(&self.wanted), number }
    }

    fn end(&self) {
        self.wanted.ended.store(true, Ordering::Release);
        self.wanted.changed.notify_one();
    }
}

impl<M: StateMachine> Member<M> {
    /// Starts the member. If it is alone it asks for an election at once; else it waits for its leader, or for its time.
    pub(crate) async fn start(
        identity: Identity,
        ground: Ground<M>,
        links: Arc<impl Links>,
    ) -> Result<Self, MemberError> {
        let (executor, latch) = (ground.executor.clone(), ground.latch.clone());
        let (log, machine) = (ground.log.clone(), Arc::clone(&ground.machine));
        let has_peers = Arc::new(AtomicBool::new(identity.has_peers()));
        let (node, peers) = (identity.node, Arc::clone(&has_peers));
        let (contacts, counts) = (Arc::new(Contacts::default()), Arc::new(Counts::default()));
        let noted = (Arc::clone(&contacts), Arc::clone(&counts));
        let raft = executor.spawn(async move { open(identity, ground, links, noted, &peers).await });
        let raft = raft.await.map_err(|_| MemberError::Executor)??;
        let (sender, leadership) = watch::channel(Leadership::Following { term: 0, leader: None });
        let lease = Arc::new(Lease::new(log.clock().clone()));
        let purger = Purger::default();
        let own_log = log.clone();
        let weak = Arc::downgrade(&machine);
        let server = Server::new(raft.clone(), weak, executor.clone(), log.clone(), Arc::clone(&counts));
        let alone = Arc::clone(&has_peers);
        let watcher = Watcher {
            node,
            raft: raft.clone(),
            log,
            has_peers: alone,
            contacts: Arc::clone(&contacts),
            counts: Arc::clone(&counts),
            lease: Arc::clone(&lease),
            sender,
            latch,
        };
        let watching = executor.spawn(watcher.run());
        let purging = executor.spawn(purge(raft.clone(), machine, purger.clone()));
        let (members, telling) = members::watch(&raft, &executor, Arc::clone(&counts));
        let tasks = Mutex::new(vec![watching, purging, telling]);
        Ok(Self {
            node,
            log: own_log,
            claims: RoomClaims::default(),
            raft,
            executor,
            members,
            contacts,
            counts,
            leadership,
            lease,
            has_peers,
            server,
            purger,
            tasks,
        })
    }

    /// Proposes bytes for the log, as the leader of this term. `on_append` is called with their index when they are about to
    /// enter it; if it is dropped, this member does not lead in that term, or hears from no majority. An error says that the
    /// member has ended.
    pub(crate) async fn propose(&self, term: u64, payload: Bytes, on_append: OnAppend) -> io::Result<()> {
        let proposal = Proposal::new(payload, on_append);
        self.raft.write(proposal).with_leader(CommittedLeader::new(term)).await.map_err(io::Error::other)
    }

    /// Whether this member leads, now and at each change. The channel closes when the member ends.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Whether this member may answer reads.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Whether others are, or may soon be, members of the group.
    pub(crate) fn has_peers(&self) -> bool {
        self.has_peers.load(Ordering::Relaxed)
    }

    /// Claims of room in the log for all that is proposed here.
    pub(crate) fn claims(&self) -> &RoomClaims {
        &self.claims
    }

    /// Answers other members.
    pub(crate) fn server(&self) -> &Server<M> {
        &self.server
    }

    /// Asks for records to leave the log.
    pub(crate) fn purger(&self) -> &Purger {
        &self.purger
    }

    /// Hands the leadership to another voter, if this member leads. Says only that it was asked; nobody may take over. Then this
    /// member lays its term down after [`HAND_OVER_PATIENCE`], and somebody is elected, perhaps this member again.
    pub(crate) async fn hand_over(&self, to: u64) -> io::Result<()> {
        let Some(term) = self.leadership.borrow().led() else { return Ok(()) };
        self.lease.give_up(term);
        self.raft.trigger().transfer_leader(to).await.map_err(io::Error::other)?;
        let (raft, executor, log, node) = (self.raft.clone(), self.executor.clone(), self.log.clone(), self.node);
        drop(self.executor.spawn(async move {
            executor.sleep_until(executor.now() + HAND_OVER_PATIENCE).await;
            // An error says that the core has ended.
            let _ = lay_down(&raft, &log, term, node, to).await;
        }));
        Ok(())
    }

    /// Whether this member stands for election by itself.
    #[cfg(test)]
    pub(crate) fn stands(&self, stands: bool) {
        self.raft.runtime_config().elect(stands);
    }

    /// Ends the member; returns when its core and its tasks have ended.
    pub(crate) async fn end(&self) {
        // Alone, this member goes on answering reads: the store may have failed, and nobody else has what it has.
        if self.has_peers() {
            self.lease.end();
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "raft did not end cleanly");
        }
        self.purger.end();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // One that panicked has ended as well.
            let _ = task.await;
        }
    }
}

/// Ends the leadership of this term, if it has not ended. After a hand-over openraft takes no proposals and sends no heartbeats any
/// more, and it has no other way back than an election. This member gives its vote for the next term to the one that was asked:
/// a vote that it would have got. So this member leads no more, and stands for election like any other.
async fn lay_down<M: StateMachine>(
    raft: &Raft<TypeConfig, State<M>>,
    log: &Log,
    term: u64,
    node: u64,
    to: u64,
) -> Result<(), openraft::errors::Fatal<TypeConfig>> {
    let vote = raft.with_raft_state(|state| *state.vote_ref()).await?;
    if vote != Vote::new_committed(term, node) {
        return Ok(());
    }
    tracing::warn!(to, term, "nobody took the leadership over; this member lays it down, so that there is an election");
    let last_log_id = log.last().map(|last| log_id(last.term, last.index));
    let request = VoteRequest { vote: Vote::new(term + 1, to), last_log_id, leadership_transfer: true };
    match raft.vote(request).await {
        Err(RaftError::Fatal(error)) => Err(error),
        Ok(_) | Err(RaftError::APIError(_)) => Ok(()),
    }
}

/// Opens the core. On the executor: openraft spawns its tasks where it is opened.
async fn open<M: StateMachine>(
    identity: Identity,
    ground: Ground<M>,
    links: Arc<impl Links>,
    (contacts, counts): (Arc<Contacts>, Arc<Counts>),
    has_peers: &Arc<AtomicBool>,
) -> Result<Raft<TypeConfig, State<M>>, MemberError> {
    let config = Config {
        cluster_name: "escrowmq".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        // Files go by retention alone.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A resumed leader would use a lost term and index again.
        enable_leader_restore: Some(false),
        // A member without its log has forgotten what it promised. It comes back under another id.
        allow_log_reversion: Some(false),
        // A member that was cut off does not disturb the leader when it is back.
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(PROBE_MS),
        // Nobody to beat for while this is the only member; without ticks an idle broker costs nothing.
        enable_heartbeat: true,
        enable_tick: has_peers.load(Ordering::Relaxed),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| MemberError::Settings(error.to_string()))?;
    let fail = |error: &dyn std::fmt::Display| MemberError::Raft(error.to_string());
    let Ground { log, executor, blocking, machine, latch } = ground;
    let network = Network::new(links, executor.clone(), contacts, counts);
    // With others, an answer to an append is a vote on what a majority has. It must not be forgotten at a power cut.
    log.ack_after_sync(has_peers.load(Ordering::Relaxed));
    let state = State::new(Arc::clone(&machine), log.clone(), latch.clone());
    let store = LogStore::new(log, executor, blocking, machine, latch, Arc::clone(has_peers));
    let opened = Raft::new(identity.node, Arc::new(config), network, store, state).await;
    let raft = opened.map_err(|error| fail(&error))?;
    let node = identity.node;
    let Some(founders) = identity.founders else {
        // Nobody else would begin, and without others there are no time-outs.
        let voters = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>());
        if voters.await.map_err(|error| fail(&error))? == [node] {
            raft.trigger().elect(false).await.map_err(|error| fail(&error))?;
        }
        return Ok(raft);
    };
    let alone = founders.len() == 1;
    let members: BTreeMap<u64, BasicNode> =
        founders.into_iter().map(|(id, address)| (id, BasicNode { addr: address })).collect();
    let is_first_start = match raft.initialize(members).await {
        Ok(()) => true,
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => false,
        Err(error) => return Err(fail(&error)),
    };
    if alone && !is_first_start {
        // An election now, instead of after a time-out.
        raft.trigger().elect(false).await.map_err(|error| fail(&error))?;
    }
    Ok(raft)
}

/// Whether this member stands for election, and when it looks for room again.
struct Room {
    stands: bool,
    look_again: Duration,
}

/// Looks at the core: tells when this member begins and ceases to lead, keeps its lease, and sees whether it is alone.
struct Watcher<M: StateMachine> {
    node: u64,
    raft: Raft<TypeConfig, State<M>>,
    log: Log,
    has_peers: Arc<AtomicBool>,
    contacts: Arc<Contacts>,
    counts: Arc<Counts>,
    lease: Arc<Lease>,
    sender: watch::Sender<Leadership>,
    latch: FailureLatch,
}

impl<M: StateMachine> Watcher<M> {
    /// Until the core ends.
    async fn run(self) {
        let mut metrics = self.raft.metrics();
        let (mut leads, mut term_of_leader) = (None, 0);
        let mut room = Room { stands: true, look_again: Duration::ZERO };
        let ended = loop {
            let (leader, term, voters, members, running) = {
                let seen = metrics.borrow_watched();
                let membership = seen.membership_config.membership();
                let (voters, members) = (membership.get_joint_config().clone(), membership.nodes().count());
                (seen.current_leader, seen.current_term, voters, members, seen.running_state.clone())
            };
            if let Err(error) = running {
                break error;
            }
            self.note_members(members);
            if self.has_peers.load(Ordering::Relaxed) {
                self.note_room(&mut room);
            }
            if leader.is_some() && term > term_of_leader {
                term_of_leader = term;
                self.counts.leaders.add_one();
            }
            let leading = (leader == Some(self.node)).then_some(term);
            if leading.is_some() && !voters.last().is_some_and(|last| last.contains(&self.node)) {
                // It is on its way out. Once that is committed openraft hands over, and others may vote at once.
                self.lease.give_up(term);
            }
            if leads != leading {
                self.lease.end();
                let now = self.log.clock().monotonic();
                if let Some(heard) = leads.and_then(|led| self.contacts.majority_since(led, self.node, &voters, now)) {
                    self.counts.ceased(heard);
                }
                leads = None;
            }
            if leads.is_none() {
                // A leader that has not applied everything yet leads nobody.
                self.follow(term, leader.filter(|leader| *leader != self.node));
            }
            if let Some(term) = leads {
                self.renew(term, &voters, members);
            }
            if let (Some(term), None) = (leading, leads) {
                // An entry of the own term is applied after everything that was committed before.
                match self.raft.write_blank().await {
                    Ok(written) if written.log_id.committed_leader_id().term == term => {
                        self.renew(term, &voters, members);
                        self.sender.send_replace(Leadership::Leading { term });
                        leads = leading;
                        continue;
                    }
                    // Lost already (an entry of another leader may have come in the place of ours), or no majority answers yet; the
                    // metrics will say so.
                    Ok(_) | Err(RaftError::APIError(_)) => {}
                    Err(RaftError::Fatal(error)) => break error,
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        };
        // Alone, this member goes on answering reads: nobody else can have newer ones.
        if self.has_peers.load(Ordering::Acquire) {
            self.lease.end();
        }
        let term = self.sender.borrow().term();
        self.follow(term, None);
        if !matches!(ended, openraft::errors::Fatal::Stopped) {
            self.latch.close(Failure::storage("agreement on the log", io::Error::other(ended)));
        }
    }

    fn follow(&self, term: u64, leader: Option<u64>) {
        let follows = Leadership::Following { term, leader };
        self.sender.send_if_modified(|seen| std::mem::replace(seen, follows) != follows);
    }

    /// A leader begins with entries of its own. A member whose disk has no room for them does not stand for election: the append
    /// would fail, and with it the member. What it appends as a follower leaves that room (`serve.rs`).
    fn note_room(&self, room: &mut Room) {
        let (entries, now) = (leadership_bytes(), self.log.clock().monotonic());
        let stands = self.log.has_room(&entries)
            || now >= room.look_again && self.log.reserve(&entries, log::Room::Reserve).is_ok();
        if !stands && now >= room.look_again {
            room.look_again = now + LOOK_FOR_ROOM_EVERY;
        }
        if std::mem::replace(&mut room.stands, stands) != stands {
            self.raft.runtime_config().elect(stands);
            if !stands {
                tracing::error!("disk full: this member does not stand for election until there is room");
            }
        }
    }

    fn note_members(&self, members: usize) {
        // A founder of several is not alone before the group is founded either.
        if members == 0 {
            return;
        }
        let has_peers = members > 1;
        if self.has_peers.swap(has_peers, Ordering::AcqRel) != has_peers {
            self.log.ack_after_sync(has_peers);
            self.raft.runtime_config().tick(has_peers);
        }
    }

    fn renew(&self, term: u64, voters: &[BTreeSet<u64>], members: usize) {
        // The only member is its own majority. Among others there is none before the first of them has answered.
        let now = self.log.clock().monotonic();
        let heard = self.contacts.majority_since(term, self.node, voters, now).filter(|_| members > 1);
        if heard.is_some() || members == 1 {
            self.lease.renew(term, heard.map(|heard| heard + READ_LEASE));
        }
    }
}

/// Purges up to where retention asks for, until the core ends.
async fn purge<M: StateMachine>(raft: Raft<TypeConfig, State<M>>, machine: Arc<M>, purger: Purger) {
    let mut asked = LogIndex::ZERO;
    loop {
        purger.wanted.changed.notified().await;
        if purger.wanted.ended.load(Ordering::Acquire) {
            return;
        }
        let upto = purger.wanted.upto();
        let applied = machine.applied().filter(|_| planted(Bug::PurgedBeyondBase));
        let upto = applied.map_or(upto, |(_, index)| index);
        if upto <= asked {
            continue;
        }
        asked = upto;
        // Openraft purges below a snapshot only; ours is the state machine's own disk, wherever it is.
        let covered = async {
            raft.trigger().snapshot().await?;
            let covers = "a snapshot that covers the purge";
            let waiting = raft.wait(Some(SNAPSHOT_PATIENCE));
            let covered = waiting.metrics(|metrics| metrics.snapshot.is_some_and(|id| index_of(&id) >= upto), covers);
            if let Err(error) = covered.await {
                tracing::warn!(%error, %upto, "old records stay for now");
                asked = LogIndex::ZERO;
                return Ok(());
            }
            raft.trigger().purge_log(upto.get()).await
        };
        if covered.await.is_err() {
            // The core has ended; whoever saw why has closed the latch.
            return;
        }
    }
}
