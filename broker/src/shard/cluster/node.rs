//! One node: a machine with a disk and a clock, and the shard that runs on it, or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock::Clock;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use super::super::cuts::life::{Rows, index_of, rows_of};
use super::copies::Copy;
use super::desk::Desk;
use super::keeper::Keeper;
use super::net::{Net, Seat, SimLinks, id_of};
use crate::latch::Failure;
use crate::log::format::{SEGMENT_HEADER_BYTES, segment_start};
use crate::log::sim_disk::{Faults, Random, SimDisk};
use crate::log::{Drive, Flush, LogSettings, RecordId, saved_vote};
use crate::raft::{Hold, Identity, Lack, Members};
use crate::retention::last_index_below;
use crate::shard::{Full, Shard};
use crate::snapshot::{Cut, carried_vote, may_replace};
use crate::storage::{Parts, Storage, StorageError, StorageSettings};
use crate::terms::{LogIndex, Position};
use tokio::sync::watch;

/// The data folder.
const DIR: &str = "/shard";

/// Polls of the executor at most while one flush of the disk is under way.
const OVERTAKING: u64 = 24;

type Starting = Pin<Box<dyn Future<Output = Result<Storage, StorageError>> + Send>>;

/// A shard that runs.
struct Running {
    parts: Parts,
    starting: Option<Starting>,
    storage: Option<Storage>,
    lacks: Option<watch::Receiver<Option<Lack>>>,
    desk: Option<Desk>,
    keeper: Option<Keeper>,
    may_overtake: Arc<AtomicBool>,
}

/// See the module.
pub(super) struct Node {
    pub(super) seat: Seat,
    pub(super) clock: Clock,
    pub(super) disk: SimDisk,
    /// The index as its last flush left it.
    rows: Option<Rows>,
    running: Option<Running>,
    random: Random,
    net: Net,
    flush: Flush,
    founders: BTreeMap<u64, String>,
    /// Its disk was emptied so many times.
    wiped: u64,
    /// It cares for the members of the group when it leads.
    pub(super) cares: bool,
    /// Started so many times; what an earlier life answers does not count.
    pub(super) life: u64,
    /// The process stands still until then.
    pub(super) paused_until: Duration,
    /// The disk is busy until then.
    disk_busy_until: Duration,
    /// The next power cut leaves nothing that was not flushed.
    keeps_nothing: bool,
    /// A flush of the disk takes up to so many milliseconds.
    pub(super) disk_ms: u64,
}

impl Node {
    pub(super) fn new(
        seat: Seat,
        founders: BTreeMap<u64, String>,
        flush: Flush,
        net: Net,
        clock: Clock,
        seed: u64,
    ) -> Self {
        Self {
            seat,
            clock,
            disk: SimDisk::new(),
            rows: None,
            running: None,
            random: Random::new(seed),
            net,
            flush,
            founders,
            wiped: 0,
            cares: false,
            life: 0,
            paused_until: Duration::ZERO,
            disk_busy_until: Duration::ZERO,
            keeps_nothing: false,
            disk_ms: 2,
        }
    }

    /// Its Raft id: another one each time that its disk was emptied.
    pub(super) fn id(&self) -> u64 {
        id_of(self.seat, self.wiped)
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn shard(&self) -> Option<&Shard> {
        self.running.as_ref().map(|running| &running.parts.shard)
    }

    pub(super) fn storage(&self) -> Option<&Storage> {
        self.running.as_ref().and_then(|running| running.storage.as_ref())
    }

    /// The parts that it uses when it leads.
    pub(super) fn desk(&self) -> Option<&Desk> {
        self.running.as_ref().and_then(|running| running.desk.as_ref())
    }

    /// The keeper of the members, if this run has keepers.
    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.running.as_ref().and_then(|running| running.keeper.as_ref())
    }

    /// The members of the group, as its log has them.
    pub(super) fn members(&self) -> Option<Members> {
        Some(self.storage()?.member().members().borrow().clone())
    }

    pub(super) fn term_led(&self) -> Option<u64> {
        self.storage()?.leadership().borrow().led()
    }

    /// The term of the last entry that it has applied.
    pub(super) fn applied_term(&self) -> Option<u64> {
        Some(self.running.as_ref()?.parts.applier.applied()?.term)
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.running.as_ref().and_then(|running| running.parts.log.latch().failure().cloned())
    }

    /// Starts the process on what is on the disk.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let why = |error: &dyn std::fmt::Display| format!("node {} does not start: {error}", self.seat);
        let log = LogSettings {
            segment_bytes: 8 << 10,
            flush: self.flush,
            tail_cache_bytes: 4 << 10,
            zero_ahead_bytes: 4 << 10,
            reserve_bytes: 4 << 10,
            drive: Drive::Step { seed: self.random.draw() },
            ..LogSettings::default()
        };
        let settings = StorageSettings { dir: DIR.into(), log };
        let index = index_of(self.rows.as_ref()).map_err(|error| why(&error))?;
        let disk = Arc::new(self.disk.clone());
        let parts = Parts::open(disk, index, settings, self.clock.clone()).map_err(|error| why(&error))?;
        let may_overtake = Arc::new(AtomicBool::new(false));
        let (allowed, random) = (Arc::downgrade(&may_overtake), Mutex::new(Random::new(self.random.draw())));
        let executor = parts.shard.executor().clone();
        self.disk.while_syncing(move || {
            // Weak: copies of the disk outlive the shard.
            if let Some(allowed) = Weak::upgrade(&allowed)
                && allowed.swap(false, Ordering::Relaxed)
            {
                let polls = random.lock().below(OVERTAKING);
                for _ in 0..polls {
                    executor.step();
                }
                allowed.store(true, Ordering::Relaxed);
            }
        });
        // The first seat founds the group, once.
        let founders = (self.seat == 0 && self.wiped == 0).then(|| self.founders.clone());
        let identity = Identity { node: self.id(), founders };
        let links = Arc::new(SimLinks { net: self.net.clone(), seat: self.seat });
        let (tasks, starter) = (Tasks::new(), parts.clone());
        let starting: Starting = Box::pin(async move { starter.start(&tasks, identity, links).await });
        let starting = Some(starting);
        self.running =
            Some(Running { parts, starting, storage: None, lacks: None, desk: None, keeper: None, may_overtake });
        self.net.node_up(self.seat);
        self.life += 1;
        Ok(())
    }

    /// The process ends. With the power only a part of what was not flushed is kept.
    pub(super) fn crash(&mut self, power: bool) {
        let Some(running) = self.running.take() else { return };
        self.net.node_down(self.seat);
        let seed = if std::mem::take(&mut self.keeps_nothing) { 0 } else { self.random.draw() };
        let left = if power || self.disk.is_off() { self.disk.crash(seed) } else { self.disk.fork() };
        // What is told from now on is told by the dead; the disk that they write to is none.
        let old = std::mem::replace(&mut self.disk, left);
        old.set_faults(Faults { power_off_at: Some(old.operations() + 1), ..Faults::default() });
        running.parts.log.latch().close(Failure::storage("everything", std::io::Error::other("the process has ended")));
        let executor = running.parts.shard.executor().clone();
        drop(running);
        executor.drop_tasks();
        self.paused_until = Duration::ZERO;
    }

    /// The process ends, and its disk is lost. What starts next is an empty member of the same seat.
    pub(super) fn wipe(&mut self) {
        self.crash(false);
        (self.disk, self.rows) = (SimDisk::new(), None);
        self.wiped += 1;
    }

    /// The power of this machine goes off during one of the next operations of its disk. Perhaps nothing is kept then of what
    /// was not flushed.
    pub(super) fn plan_power_cut(&mut self, keeps_nothing: bool) {
        if !self.is_up() {
            return;
        }
        self.keeps_nothing = keeps_nothing;
        let at = self.disk.operations() + 1 + self.random.below(4);
        self.disk.set_faults(Faults { power_off_at: Some(at), ..Faults::default() });
    }

    /// The disk takes nothing more, or as much as it wants.
    pub(super) fn set_full(&mut self, full: bool) {
        let used: usize = self.disk.image().values().map(Vec::len).sum();
        let capacity = full.then_some(used as u64);
        self.disk.set_faults(Faults { capacity, ..Faults::default() });
    }

    fn is_paused(&self) -> bool {
        self.clock.monotonic() < self.paused_until
    }

    /// Lets one part work, the next one that has anything to do. Says whether there was one.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        if self.is_paused() {
            return Ok(false);
        }
        let (now, id) = (self.clock.monotonic(), self.id());
        let Some(running) = &mut self.running else { return Ok(false) };
        if let Some(starting) = &mut running.starting
            && let Poll::Ready(started) = starting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            running.starting = None;
            if started.is_err() && self.disk.is_off() {
                return Ok(true);
            }
            let started = started.map_err(|error| format!("node {} does not start: {error}", self.seat))?;
            running.lacks = Some(started.server().lacks());
            running.desk = Some(Desk::open(&started, &self.clock));
            if self.cares {
                let addresses: Vec<String> = self.founders.values().cloned().collect();
                running.keeper = Some(Keeper::open(&started, id, self.seat, &addresses));
            }
            running.storage = Some(started);
            return Ok(true);
        }
        if let (Some(desk), Some(storage)) = (&running.desk, &running.storage) {
            desk.tell(*storage.leadership().borrow());
        }
        let first = self.random.below(3);
        for nth in 0..3 {
            let worked = match (first + nth) % 3 {
                0 => running.parts.shard.executor().step(),
                1 if now >= self.disk_busy_until => {
                    let syncs = self.disk.syncs();
                    running.may_overtake.store(true, Ordering::Relaxed);
                    let worked = running.parts.log.step();
                    running.may_overtake.store(false, Ordering::Relaxed);
                    if self.disk.syncs() > syncs {
                        self.disk_busy_until = now + Duration::from_millis(self.random.below(self.disk_ms + 1));
                    }
                    worked
                }
                1 => false,
                _ => running.parts.applier.step(),
            };
            if worked {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When this node has something to do, if nothing comes from outside.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let running = self.running.as_ref()?;
        if self.is_paused() {
            return Some(self.paused_until);
        }
        let timer = running.parts.shard.executor().next_timer();
        let disk = Some(self.disk_busy_until).filter(|until| *until > self.clock.monotonic());
        [timer, disk].into_iter().flatten().min()
    }

    /// A request of another node has arrived. Which id is here the handshake says, before anything is answered.
    pub(super) fn serve(&self, node: u64, call: u64, request: Bytes) {
        let Some(storage) = self.storage().filter(|_| node == self.id()) else {
            self.net.answer(call, Err(std::io::ErrorKind::NotConnected.into()));
            return;
        };
        let (answer, net) = (storage.server().serve(request), self.net.clone());
        drop(storage.shard.executor().spawn(async move {
            let answer = answer.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            net.answer(call, answer);
        }));
    }

    /// What the broker's keeper of room does now and then, and a flush of the index. What is on disk then is there at the next
    /// start.
    pub(super) fn keep_room(&mut self) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        let (shard, intake) = (&running.parts.shard, running.parts.shard.intake());
        if intake.is_full(Full::Log) && shard.replenish_log() {
            intake.set_full(Full::Log, false);
        }
        let mut rows = Ok(Rows::default());
        let copied = running.parts.applier.copy(|index| {
            rows = rows_of(index);
            Ok(())
        });
        // An error: the node has failed, or its disk is full; others say so.
        if let Ok(Some(applied)) = copied {
            self.rows = Some(rows?);
            // As retention does it: files go below the trim, when the index is on disk beyond them.
            let last = last_index_below(&shard.log().segments(), shard.counters().trimmed());
            if let (Some(last), Some(storage)) = (last.filter(|last| *last <= applied.index), &running.storage) {
                storage.purger().purge(last);
            }
        }
        Ok(())
    }

    /// What its leader says it lacks, if that is news.
    pub(super) fn lack(&mut self) -> Option<Lack> {
        let lacks = self.running.as_mut()?.lacks.as_mut()?;
        lacks.has_changed().is_ok_and(|changed| changed).then(|| lacks.borrow_and_update().clone()).flatten()
    }

    /// A copy of its state, and what keeps the entries behind it in the log. `None` if it has none now.
    pub(super) fn copy(&self) -> Result<Option<(Copy, Hold)>, String> {
        let Some(storage) = self.storage() else { return Ok(None) };
        let hold = storage.purger().hold(storage.shard.counters().applied_index().unwrap_or(LogIndex::ZERO));
        let mut rows = Ok(Rows::default());
        let copied = storage.applier().copy(|index| {
            rows = rows_of(index);
            Ok(())
        });
        let Ok(Some(applied)) = copied else { return Ok(None) };
        let cut = Cut { term: applied.term, index: applied.index, end: applied.end };
        let segments: BTreeMap<Position, (PathBuf, Vec<u8>)> =
            self.disk.image().into_iter().filter_map(segment).collect();
        let starts: Vec<Position> = segments.keys().copied().filter(|start| *start < cut.end).collect();
        let mut files = BTreeMap::new();
        for (nth, (start, (path, mut content))) in
            segments.into_iter().filter(|(start, _)| *start < cut.end).enumerate()
        {
            let end = starts.get(nth + 1).copied().unwrap_or(cut.end);
            content.truncate((SEGMENT_HEADER_BYTES + end.since(start)) as usize);
            files.insert(path, content);
        }
        Ok(Some((Copy { cut, rows: rows?, files }, hold)))
    }

    /// Ends, and starts again with a copy in the place of its state. Says whether it did: its own log may be newer.
    pub(super) fn take(&mut self, copy: Copy) -> Result<bool, String> {
        let own: Option<RecordId> = self.shard().and_then(|shard| shard.log().last().or(shard.log().purged()));
        if !may_replace(own, &copy.cut) {
            return Ok(false);
        }
        self.crash(false);
        let (log, end) = (Path::new(DIR).join("log"), copy.cut.end);
        let vote = saved_vote(&self.disk, &log).map_err(|error| error.to_string())?;
        let mut files = copy.files;
        files.insert(log.join("vote"), carried_vote(vote, end));
        self.disk = SimDisk::with(files);
        self.rows = Some(copy.rows);
        self.start().map(|()| true)
    }
}

/// A file of a disk, if it is a segment of the log, by the place of its first record.
fn segment((path, content): (PathBuf, Vec<u8>)) -> Option<(Position, (PathBuf, Vec<u8>))> {
    let start = segment_start(path.file_name()?.to_str()?)?;
    Some((start, (path, content)))
}
