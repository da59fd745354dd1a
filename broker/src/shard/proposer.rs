//! From batches to entries: what a leader does between intake and log.
//!
//! Openraft takes any error of an append for the end of its storage. So nothing is proposed that cannot be stored: a batch is
//! read back first, and the log has set room aside for it. A disk without room refuses a batch, and nothing fails.

use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::applier::Applier;
use super::awaiting::Waiting;
use super::batch::{HEAD_BYTES, OpenBatch};
use super::completion::{Completions, SubmitError, fail_all};
use super::intake::{Full, Intake, ReadyBatch};
use super::shared::Shared;
use crate::latch::Failure;
use crate::log::{AppendError, NewRecord, Room, RoomClaim, RoomClaims};
use crate::raft::{Leadership, Member};
use crate::steady_clock::SteadyClock;

/// Callers wait this long for a majority. Clients give up after 3 seconds, and shall know the reason before.
const PATIENCE: Duration = Duration::from_millis(2250);
/// Between looks for callers that wait too long.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between looks at the newest stamp that was applied, and while nobody else can lead.
const HEAR_EVERY: Duration = Duration::from_secs(1);
const HEAR_ALONE_EVERY: Duration = Duration::from_secs(60);

/// Proposes the batches of a shard's intake while this member leads.
pub(crate) struct Proposer {
    shared: Arc<Shared>,
    member: Arc<Member<Applier>>,
    time: Arc<SteadyClock>,
}

impl Proposer {
    /// Stamps batches with `time`.
    pub(crate) fn new(shard: &Shard, member: Arc<Member<Applier>>, time: Arc<SteadyClock>) -> Self {
        Self { shared: Arc::clone(&shard.shared), member, time }
    }

    /// Proposes in each leadership, until the intake is stopped and drained or the latch is closed. Then ends the member, and
    /// tells those who still wait that the outcome is unknown.
    pub(crate) async fn run(self) {
        let intake = &self.shared.intake;
        let mut leadership = self.member.leadership();
        let leaderships = async {
            loop {
                let seen = *leadership.borrow_and_update();
                let Leadership::Leading { term } = seen else {
                    tokio::select! {
                        biased;
                        // There is nothing to drain.
                        () = intake.stopped() => return,
                        // An error: the member has ended.
                        changed = leadership.changed() => if changed.is_err() { return },
                    }
                    continue;
                };
                if self.member.has_peers() {
                    // Everything of earlier terms is applied, and nothing of this one is stamped yet.
                    self.time.lead(self.shared.counters.stamp());
                }
                intake.set_leading(true);
                tokio::select! {
                    biased;
                    () = self.propose(term) => return,
                    // Also when the member has ended.
                    _ = leadership.wait_for(|now| *now != seen) => intake.set_leading(false),
                }
            }
        };
        tokio::select! {
            biased;
            () = leaderships => {}
            () = intake.latch().closed() => {}
        }
        self.member.end().await;
        self.shared.awaiting.clear();
    }

    /// Tells those who wait too long that the outcome is unknown: openraft keeps what it accepted for as long as it takes to
    /// find a majority. Those of a broker alone wait for its disk.
    pub(crate) fn give_up_late(&self) -> impl Future<Output = ()> + Send + 'static {
        let (executor, awaiting) = (self.shared.executor.clone(), Arc::clone(&self.shared.awaiting));
        let member = Arc::clone(&self.member);
        async move {
            loop {
                awaiting.some().await;
                executor.sleep_until(executor.now() + LOOK_EVERY).await;
                if !member.has_peers() {
                    continue;
                }
                let late = awaiting.give_up_before(executor.now().saturating_sub(PATIENCE));
                if late > 0 {
                    tracing::warn!(
                        event = "no_majority",
                        entries = late,
                        "no majority of the group answers: callers are told that the outcome is unknown"
                    );
                }
            }
        }
    }

    /// Lets the broker's time hear how far that of the group is, in case that this member leads next.
    pub(crate) fn hear_stamps(&self) -> impl Future<Output = ()> + Send + 'static {
        let (shared, member, time) = (Arc::clone(&self.shared), Arc::clone(&self.member), Arc::clone(&self.time));
        async move {
            loop {
                let pause = if member.has_peers() { HEAR_EVERY } else { HEAR_ALONE_EVERY };
                shared.executor.sleep_until(shared.executor.now() + pause).await;
                time.hear(shared.counters.stamp());
            }
        }
    }

    /// Turns ready batches into entries until the intake is stopped and drained, or the member has ended.
    async fn propose(&self, term: u64) {
        let claims = self.member.claims();
        while let Some(ready) = self.shared.intake.next().await {
            let Some(ready) = self.read_back(ready) else { continue };
            let Some((ready, claim)) = self.make_room(claims, ready) else { continue };
            if !self.propose_one(term, ready, claim).await {
                return;
            }
        }
        // Everything taken was proposed; now it must be applied.
        self.shared.intake.drained().await;
    }

    async fn propose_one(&self, term: u64, ready: ReadyBatch, claim: RoomClaim) -> bool {
        let ReadyBatch { batch, completions, load, since } = ready;
        let bytes = batch.seal(self.time.now());
        let size = bytes.len() - HEAD_BYTES;
        let (awaiting, completions) = (Arc::clone(&self.shared.awaiting), Completions::new(completions));
        let (durations, count) = (&self.shared.durations, completions.len() as u64);
        let now = durations.now();
        durations.queued.record_many(now.saturating_sub(since), count);
        let on_append = Box::new(move |index| {
            // The room that it claimed is used now.
            drop(claim);
            awaiting.push(index, Waiting { completions, load, since, proposed: now });
        });
        let proposed = self.member.propose(term, bytes, on_append).await;
        if let Err(error) = proposed {
            tracing::error!(%error, bytes = size, "a batch was not proposed");
            self.shared.intake.latch().close(Failure::storage("a proposal", error));
            return false;
        }
        true
    }

    /// Reads a batch back. One that does not decode is not proposed: in the log it would stop every member at each start.
    fn read_back(&self, ready: ReadyBatch) -> Option<ReadyBatch> {
        let Err(error) = ready.batch.check() else { return Some(ready) };
        tracing::error!(%error, "a batch does not decode, which is a fault of the broker: nothing of it is stored");
        self.shared.intake.note_unencodable();
        fail_all(ready.completions, &SubmitError::Unencodable);
        None
    }

    /// Sets room aside for a batch. Without room its new messages are refused, and the rest may use the log's reserve;
    /// without even that all is refused.
    fn make_room(&self, claims: &RoomClaims, ready: ReadyBatch) -> Option<(ReadyBatch, RoomClaim)> {
        let (log, intake): (_, &Intake) = (&self.shared.log, &self.shared.intake);
        let room = if ready.batch.brings_messages() { Room::Common } else { Room::Reserve };
        let claim = |batch: &OpenBatch, room| {
            let mut claimed = claims.claim(log, &[NewRecord::bytes_with(batch.len())], room)?;
            Ok::<_, AppendError>(claimed.pop().expect("one record was claimed for"))
        };
        let error = match claim(&ready.batch, room) {
            Ok(claim) => return Some((ready, claim)),
            Err(error) => error,
        };
        if !matches!(error, AppendError::NoSpace { .. }) {
            intake.latch().close(Failure::storage("making room in the log", std::io::Error::other(error)));
            fail_all(ready.completions, &SubmitError::StoreFailed);
            return None;
        }
        if intake.set_full(Full::Log, true) {
            tracing::error!(%error, "disk full: new messages are refused until there is room; decisions and reads go on");
        }
        let (rest, stayed) = ready.batch.without_messages();
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (completion, stayed) in ready.completions.into_iter().zip(stayed) {
            if stayed { kept.push(completion) } else { refused.push(completion) }
        }
        let mut load = ready.load;
        load.shrink(rest.command_bytes(), refused.len() as u64);
        fail_all(refused, &SubmitError::DiskFull);
        if rest.is_empty() {
            return None;
        }
        if let Ok(claim) = claim(&rest, Room::Reserve) {
            return Some((ReadyBatch { batch: rest, completions: kept, load, since: ready.since }, claim));
        }
        fail_all(kept, &SubmitError::DiskFull);
        None
    }
}
