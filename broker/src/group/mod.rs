//! The group that a broker is a member of: who it is, how the group is founded, how members join, and who is in it.
//!
//! ```text
//! identity (file) <- search (empty folder: asks the seats) -> Begin -> raft::Member
//!        ^            founding: decides                                   |
//!        '----------- keeper (cares for members; care: decides) <---------'
//! door: what other members may ask        links: Raft's requests over `peer`
//! carer: what care and orders decide, done by Raft alone: the simulation uses it, too
//! orders: what an operator may change (decides; the keeper does it)        view, clocks, figures: for tools and operators
//! agreeing: what a leader adds to level and settings
//! ```
//!
//! A broker without `dLegerPeers`, or with one seat, is alone: it has no port for members and waits for nobody.
//!
//! Promises:
//! * **An id is one folder.** An empty folder draws a random Raft id, which is on its disk before anybody hears of it. What a
//!   wiped member had promised nobody expects of its new id.
//! * **A group is founded once.** See below.
//! * A member answers Raft's requests only to members of its own incarnation, and only when that is on its disk.
//! * A wiped member comes back by itself: as a learner, then, caught up, in its seat's old id's place by one joint change. The
//!   decision needs the membership alone, so a new leader goes on where one stopped.
//! * A member that was replaced or removed is refused and told to empty its folder.
//! * The membership in the log counts, and `dLegerPeers` at a founding: a seat that is not in the group comes in by an operator's
//!   command alone. A broker that was alone is founding a group until all seats of its `dLegerPeers` are there: its address in the
//!   membership says so until then.
//! * The group runs at the lowest feature level of its voters, and the level never falls. A member that speaks less is refused by
//!   the others, and does not start on a log of a higher one.
//!
//! # Why a group is founded once
//!
//! A founding has a random number, the incarnation. The member at the first seat asks all others for a promise, each by its id, and
//! begins its Raft log when *all* have promised. A promise is on disk before it is given, a folder has one at a time, and one that
//! has a log or has voted gives none. Only the member that asked for a promise may replace it, and only while it has no log itself,
//! which it knows for certain: it alone begins the group's first log. So:
//!
//! * Two foundings would need promises of the same folders at the same time. There is one first seat by the list, and all lists must be
//!   equal; two processes at the first seat would both need all the other folders.
//! * The founder crashed before it wrote its own incarnation, or before its log began: nobody has been told anything. It asks all
//!   again, under a new number, and its old promises are replaced.
//! * The founder crashed after its log began: it has a log, so it never searches again. It starts as a member with its vote.
//! * A member that had promised was wiped before the log began: it answers under another id, is not the one that was meant, and all
//!   are asked again. If the founder had begun already, the wiped member finds the group and joins it.
//! * The founder was wiped while others had promised: they say so, and nobody founds. Nothing was stored; the log says that their
//!   folders are to be emptied, too. Guessing here could found beside a folder that comes back.
//! * A member that was wiped when the group is founded: any other member knows the group, so it neither votes nor founds. It joins.
//!
//! Leaves to others: agreement (`raft`), connections (`peer`), what is forwarded (`forward`), and copies of the state for members
//! that need entries which are gone (`snapshot`).

mod agreeing;
mod care;
mod carer;
mod catch_up;
mod clocks;
mod door;
mod figures;
mod founding;
mod identity;
mod keeper;
mod links;
mod orders;
mod question;
pub mod recover;
mod search;
mod status;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::{BrokerConfig, ConfigError, CurrentConfig, GroupConfig};
use crate::limits::{MEMBER, RECOVERING};
use crate::log::LogReader;
use crate::metrics::Waiting;
use crate::peer::{self, BYTES_MAX, HANDSHAKE_TIME, Peers, Secret, SecretError, Settings, Streams};
use crate::raft::{ALONE, Identity, Member};
use crate::shard::Applier;
use crate::snapshot::{self, Offers, Progress, SnapshotError};
use crate::storage::{Opened, Storage, StorageError, StorageSettings};
use crate::terms::TooLong;
#[cfg(test)]
pub(crate) use carer::Carer;
use catch_up::CatchUp;
use clocks::{Answers, Clocks};
use door::{Door, Running};
pub(crate) use figures::{Figures, OtherMember};
pub(crate) use identity::IdentityError;
use identity::MemberFile;
#[cfg(test)]
pub(crate) use identity::new_id;
use keeper::Keeper;
use links::PeerLinks;
pub(crate) use orders::{Changed, MemberChange, OrderError};
use orders::{ORDERS_MAX, Order};
use search::{Begin, Search, must_search};
pub(crate) use status::{GroupStatus, HandOverError, Leader, Role};
pub(crate) use transfer::{TransferError, Transferred};
pub(crate) use view::{GroupView, MemberView};

/// Why a member of a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Log, index or state.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A copy of the group's state.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The file that says who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The secret's file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret.
    #[error("groupSecretFile: {0}")]
    Secret(SecretError),
    /// The port for other members, or the thread behind it.
    #[error("{0} (dLegerPeers, groupListenAddress)")]
    Peers(peer::StartError),
    /// A name is too long for the others.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The system gave no random number.
    #[error("no random number for the id of this member: {0}")]
    Random(io::Error),
    /// The folder is another member's.
    #[error(
        "the data folder {} is that of the seat '{seat}' of the group '{group}', and this broker is set to be '{own_seat}' of '{own_group}': correct dLegerSelfId or dLegerGroup, or name another folder with storePathRootDir",
        folder.display()
    )]
    OtherMember {
        /// The folder.
        folder: PathBuf,
        /// The seat that it is of.
        seat: String,
        /// The group that it is of.
        group: String,
        /// The seat of the settings.
        own_seat: String,
        /// The group of the settings.
        own_group: String,
    },
    /// The folder is that of one of several members, and the settings name none.
    #[error(
        "the data folder {} is that of a member of the group '{group}', which has others ({members}): set dLegerGroup, dLegerPeers and dLegerSelfId as before",
        folder.display()
    )]
    NotAlone {
        /// The folder.
        folder: PathBuf,
        /// The group.
        group: String,
        /// All members.
        members: String,
    },
    /// The log uses more than this build speaks.
    #[error(
        "the log of this member, in {}, is of feature level {level}, and this build speaks {speaks}: install a version that speaks {level}; the data is whole",
        folder.display()
    )]
    TooNew {
        /// The folder.
        folder: PathBuf,
        /// The level of the log.
        level: u32,
        /// The level of this build.
        speaks: u32,
    },
    /// The log is a member's, and who it was is lost.
    #[error(
        "the data folder {} has the log of a member of a group, but not its file '{}', which says which one: empty the folder, then this member joins its group again",
        folder.display(), MEMBER
    )]
    IdentityLost {
        /// The folder.
        folder: PathBuf,
    },
    /// It was being recovered.
    #[error(
        "the data folder {} has an unfinished recovery: do `escrowmq group recover --force` on it again",
        folder.display()
    )]
    Recovering {
        /// The folder.
        folder: PathBuf,
    },
    /// The log is gone, and with it what the member had promised.
    #[error(
        "the log of this member is gone from {}: it must not answer under its old id. Empty the folder, its file '{}' too; then it joins its group again",
        folder.display(), MEMBER
    )]
    LogLost {
        /// The folder.
        folder: PathBuf,
    },
}

/// A member's identity and what shows it to others.
#[derive(Clone)]
struct Keys {
    folder: PathBuf,
    door: Arc<Door>,
    tasks: Tasks,
}

impl Keys {
    /// Writes the identity, then shows it.
    async fn persist(&self, file: MemberFile) -> Result<(), OpenError> {
        write(&self.tasks, &self.folder, &file).await?;
        self.door.set_file(file);
        Ok(())
    }
}

async fn write(tasks: &Tasks, folder: &Path, file: &MemberFile) -> Result<(), IdentityError> {
    let (writes, path) = (file.clone(), folder.to_owned());
    let written = tasks.spawn_blocking("identity", move || writes.write(&path)).await;
    let ended = || IdentityError::Io { path: folder.join(MEMBER), source: io::Error::other("its task panicked") };
    written.ok().flatten().unwrap_or_else(|| Err(ended()))
}

/// The group of a broker. Clones are the same.
#[derive(Clone)]
pub(crate) struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    seat: String,
    node: u64,
    member: Arc<Member<Applier>>,
    log: LogReader,
    several: Option<Several>,
    /// For looks at the whole group, and for hand-overs: whoever reaches the port may ask, and each asks other members.
    looks: Semaphore,
}

/// Looks at the whole group and hand-overs at a time.
const LOOKS: usize = 4;

/// What a member has that is not alone.
struct Several {
    door: Arc<Door>,
    peers: Peers,
    /// A copy of the state waits for the next start.
    fetched: Shutdown,
    progress: Arc<Progress>,
    /// To the keeper.
    orders: mpsc::Sender<Order>,
    /// What the others said last when they were asked for the time.
    asked: Answers,
    shutdown: Shutdown,
    tasks: Tasks,
}

/// Opens the storage of a broker as the settings say: alone, or as a member of a group. Returns when the member has started; a broker
/// alone leads then, a member of several may follow. An empty member first waits until its group is founded or takes it, and says so in
/// `waiting`.
pub(crate) async fn open(
    config: &BrokerConfig,
    settings: StorageSettings,
    clock: Clock,
    waiting: &Waiting,
) -> Result<(Storage, Group), OpenError> {
    let folder = settings.dir.clone();
    if folder.join(RECOVERING).exists() {
        return Err(OpenError::Recovering { folder });
    }
    settle(&settings).await?;
    let file = read(&folder).await?;
    let speaks = settings.log.feature_level;
    if let Some(MemberFile { feature_level: level, .. }) = file
        && level > speaks
    {
        return Err(OpenError::TooNew { folder, level, speaks });
    }
    if let (Some(group), Some(file)) = (config.group(), &file) {
        check_member(&folder, file, &group)?;
    }
    match config.group().filter(|group| group.seats.count() > 1) {
        None => open_alone(config, settings, clock, file).await,
        Some(group) => {
            let secret = config.read_group_secret()?;
            let secret = secret.map(|secret| Secret::new(secret.as_bytes())).transpose().map_err(OpenError::Secret)?;
            let opened = Opened::open(settings, clock.clone()).await?;
            match prepare(&opened, &folder, file, &group) {
                Ok(file) => open_several(opened, Place { folder, file, clock }, group, secret, waiting).await,
                Err(error) => {
                    opened.close().await;
                    Err(error)
                }
            }
        }
    }
}

/// A copy of the state that was fetched before this start takes its place.
async fn settle(settings: &StorageSettings) -> Result<(), SnapshotError> {
    let (folder, log) = (settings.dir.clone(), settings.log.clone());
    let settled = Tasks::new().spawn_blocking("snapshot", move || snapshot::settle(&folder, &log)).await;
    settled.ok().flatten().unwrap_or_else(|| Err(SnapshotError::No("its task panicked".to_owned())))
}

async fn read(folder: &Path) -> Result<Option<MemberFile>, IdentityError> {
    let path = folder.to_owned();
    let read = Tasks::new().spawn_blocking("identity", move || MemberFile::read(&path)).await;
    let ended = || IdentityError::Io { path: folder.join(MEMBER), source: io::Error::other("its task panicked") };
    read.ok().flatten().unwrap_or_else(|| Err(ended()))
}

fn check_member(folder: &Path, file: &MemberFile, group: &GroupConfig) -> Result<(), OpenError> {
    if file.group == group.name && file.seat == group.own.name {
        return Ok(());
    }
    Err(OpenError::OtherMember {
        folder: folder.to_owned(),
        seat: file.seat.clone(),
        group: file.group.clone(),
        own_seat: group.own.name.clone(),
        own_group: group.name.clone(),
    })
}

/// The identity to start with, which may not be on disk yet.
fn prepare(
    opened: &Opened,
    folder: &Path,
    file: Option<MemberFile>,
    group: &GroupConfig,
) -> Result<MemberFile, OpenError> {
    let new = || MemberFile::new(&group.name, &group.own.name).map_err(OpenError::Random);
    let has_log = opened.has_log();
    let mut file = match file {
        Some(file) => file,
        None if !has_log => new()?,
        // A broker that was alone until now.
        None => {
            if opened.members()?.is_none_or(|members| !members.is_sole(ALONE)) {
                return Err(OpenError::IdentityLost { folder: folder.to_owned() });
            }
            MemberFile { node: ALONE, ..new()? }
        }
    };
    if file.had_log && !has_log {
        return Err(OpenError::LogLost { folder: folder.to_owned() });
    }
    if has_log && file.incarnation.is_none() {
        file.incarnation = Some(identity::draw().map_err(OpenError::Random)?);
    }
    file.had_log = has_log;
    Ok(file)
}

async fn open_alone(
    config: &BrokerConfig,
    settings: StorageSettings,
    clock: Clock,
    file: Option<MemberFile>,
) -> Result<(Storage, Group), OpenError> {
    let folder = settings.dir.clone();
    let opened = Opened::open(settings, clock).await?;
    let node = file.as_ref().map_or(ALONE, |file| file.node);
    let settled = match file {
        Some(file) => settle_alone(&opened, &folder, file).await,
        None => check_alone(&opened, &folder),
    };
    if let Err(error) = settled {
        opened.close().await;
        return Err(error);
    }
    let storage = opened.start_alone(Identity::alone_as(node)).await?;
    let seat = config.group().map_or_else(|| "n0".to_owned(), |group| group.own.name);
    let member = Arc::clone(storage.member());
    let (name, log, looks) = (config.group_name().to_owned(), storage.shard.log().clone(), Semaphore::new(LOOKS));
    let inner = Inner { name, seat, node, member, log, several: None, looks };
    Ok((storage, Group { inner: Arc::new(inner) }))
}

/// A folder without an identity is that of a broker that has always been alone. Another member's would wait for the others for
/// ever, and nobody can tell them which one it is.
fn check_alone(opened: &Opened, folder: &Path) -> Result<(), OpenError> {
    match opened.members()? {
        Some(members) if !members.is_sole(ALONE) => Err(OpenError::IdentityLost { folder: folder.to_owned() }),
        _ => Ok(()),
    }
}

/// A folder that was a member's, and whose broker is alone now.
async fn settle_alone(opened: &Opened, folder: &Path, mut file: MemberFile) -> Result<(), OpenError> {
    let has_log = opened.has_log();
    if file.had_log && !has_log {
        return Err(OpenError::LogLost { folder: folder.to_owned() });
    }
    if let Some(members) = opened.members()?.filter(|members| !members.is_sole(file.node)) {
        let members = members.addresses.values().map(|address| care::shown(address)).collect::<Vec<_>>().join(";");
        return Err(OpenError::NotAlone { folder: folder.to_owned(), group: file.group, members });
    }
    let before = file.clone();
    if !has_log {
        // What it promised to others ends here: it begins a log of its own.
        file.incarnation = None;
        file.founder = None;
    }
    if file != before {
        write(&Tasks::new(), folder, &file).await?;
    }
    Ok(())
}

/// Where a member of several is, and who.
struct Place {
    folder: PathBuf,
    file: MemberFile,
    clock: Clock,
}

async fn open_several(
    opened: Opened,
    Place { folder, file, clock }: Place,
    group: GroupConfig,
    secret: Option<Secret>,
    waiting: &Waiting,
) -> Result<(Storage, Group), OpenError> {
    let tasks = Tasks::new();
    if let Err(error) = write(&tasks, &folder, &file).await {
        opened.close().await;
        return Err(error.into());
    }
    let (host, port) = &group.listen;
    let listen = host.as_ref().map_or_else(|| format!("0.0.0.0:{port}"), |host| host.with_port(*port));
    let (name, seat, node) = (group.name.clone(), group.own.name.clone(), file.node);
    let (door, mut asks) = Door::new(group, opened.shard().clone(), clock.clone(), file);
    let keys = Keys { folder: folder.clone(), door: Arc::clone(&door), tasks: tasks.clone() };
    let searches = must_search(&door.file(), door.has_log());
    if !searches {
        door.bind();
    }
    let settings = Settings {
        listen,
        hello: door.hello(),
        secret,
        bytes_max: BYTES_MAX,
        handshake_time: HANDSHAKE_TIME,
        gate: door.clone(),
        serve: door.clone(),
    };
    let peers = match Peers::start(settings, &tasks) {
        Ok(peers) => peers,
        Err(error) => {
            opened.close().await;
            return Err(OpenError::Peers(error));
        }
    };
    let begun =
        if searches { Search { keys: &keys, peers: &peers, waiting }.run(&mut asks).await } else { Ok(Begin::Member) };
    let begun = begun.and_then(|begin| {
        door.bind();
        peers.introduce(door.hello())?;
        Ok(begin)
    });
    let started = match begun {
        Ok(begin) => {
            let founders = match begin {
                Begin::Founder(members) => Some(members),
                Begin::Member => None,
            };
            opened.start(Identity { node, founders }, Arc::new(PeerLinks(peers.clone()))).await.map_err(OpenError::from)
        }
        Err(error) => {
            opened.close().await;
            Err(error)
        }
    };
    let storage = match started {
        Ok(storage) => storage,
        Err(error) => {
            peers.close().await;
            return Err(error);
        }
    };
    let member = Arc::clone(storage.member());
    let (leadership, members) = (member.leadership(), member.members());
    // Raft's links name ids. Those to seats would go on dialing members that are gone.
    peers.retain(|target| !matches!(target, peer::Target::Seat(_)));
    let shutdown = Shutdown::new();
    let offers = Offers::new(
        &folder,
        storage.shard.clone(),
        Arc::clone(storage.applier()),
        storage.purger().clone(),
        tasks.clone(),
    );
    tasks.spawn("snapshot", offers.clone().run(shutdown.clone()));
    door.run(Running { member: Arc::clone(&member), leadership, members, offers });
    let (fetched, progress) = (Shutdown::new(), Arc::default());
    let catch_up = CatchUp {
        store: folder,
        log: storage.shard.log().clone(),
        peers: peers.clone(),
        member: Arc::clone(&member),
        tasks: tasks.clone(),
        progress: Arc::clone(&progress),
        fetched: fetched.clone(),
    };
    tasks.spawn("catch up", catch_up.run(shutdown.clone()));
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let keeper = Keeper::new(keys, peers.clone(), Arc::clone(&member), asks, ordered);
    tasks.spawn("group", keeper.run(shutdown.clone()));
    let asked = Answers::default();
    let clocks =
        Clocks { own: node, clock, peers: peers.clone(), members: member.members(), answers: Arc::clone(&asked) };
    tasks.spawn("clocks", clocks.run(shutdown.clone()));
    let several = Some(Several { door, peers, fetched, progress, orders, asked, shutdown, tasks });
    let (log, looks) = (storage.shard.log().clone(), Semaphore::new(LOOKS));
    Ok((storage, Group { inner: Arc::new(Inner { name, seat, node, member, log, several, looks }) }))
}

impl Group {
    /// The Raft id of this member.
    #[cfg(test)]
    pub(crate) fn node(&self) -> u64 {
        self.inner.node
    }

    /// Whether this broker talks to no other members.
    pub(crate) fn is_alone(&self) -> bool {
        self.inner.several.is_none()
    }

    /// Whether other voters have what is acknowledged.
    pub(crate) fn is_replicated(&self) -> bool {
        self.inner.member.members().borrow().voters.len() > 1
    }

    /// Who leads, as far as this member knows.
    #[cfg(test)]
    pub(crate) fn leader(&self) -> Option<Leader> {
        status::leader(&self.inner)
    }

    /// Opens a stream to another member for a client's requests. `None` if it is no member, or the broker is alone.
    pub(crate) fn stream(
        &self,
        node: u64,
    ) -> Option<impl Future<Output = Result<TcpStream, peer::CallError>> + Send + use<>> {
        let several = self.inner.several.as_ref()?;
        let seat = self.inner.member.members().borrow().addresses.get(&node).and_then(|one| care::seat_of(one))?;
        (node != self.inner.node).then(|| several.peers.stream(peer::Target::Node(node), seat.address()))
    }

    /// From now on such streams of other members are taken so. Before, they are closed.
    pub(crate) fn take_streams(&self, streams: Arc<dyn Streams>) {
        if let Some(several) = &self.inner.several {
            several.peers.take_streams(streams);
        }
    }

    /// From now on a leader's settings are those of its group where that has none, and others are told how they differ.
    pub(crate) fn take_settings(&self, settings: CurrentConfig) {
        if let Some(several) = &self.inner.several {
            several.door.set_settings(settings);
        }
    }

    /// Whether this member hears from a leader. A leader does not hear itself.
    pub(crate) fn hears_leader(&self) -> bool {
        self.inner.member.server().hears_leader()
    }

    /// Returns when a copy of the state was fetched that the next start puts into the place of this member's own: end, and start
    /// again. Never, if this member lacks nothing.
    pub(crate) async fn must_restart(&self) {
        match &self.inner.several {
            Some(several) => several.fetched.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// How much of a copy of the state was fetched, and how long it is, in bytes; both 0 while none is fetched.
    pub(crate) fn fetched_bytes(&self) -> (u64, u64) {
        self.inner.several.as_ref().map_or((0, 0), |several| several.progress.bytes())
    }

    /// The group as this member sees it, for tools.
    pub(crate) fn status(&self) -> GroupStatus {
        status::status(&self.inner)
    }

    /// The group as all its members see it, those that answer within a second. For tools. `None` if too many look already.
    pub(crate) async fn view(&self) -> Option<GroupView> {
        let _look = self.inner.looks.try_acquire().ok()?;
        Some(view::view(&self.inner).await)
    }

    /// Changes the members, as an operator asks. Only the leader does.
    pub(crate) async fn change(&self, change: MemberChange) -> Result<Changed, OrderError> {
        let alone = || OrderError::Refused("this broker is alone: it needs dLegerPeers to have others".to_owned());
        let several = self.inner.several.as_ref().ok_or_else(alone)?;
        let (answer, answered) = oneshot::channel();
        several.orders.try_send(Order { change, answer }).map_err(|_| OrderError::Busy)?;
        // Without an answer the keeper has ended, and with it this member.
        answered.await.unwrap_or(Err(OrderError::NotLeading))
    }

    /// Hands the leadership over, as [`hand_over`](Self::hand_over) does, and waits until it is clear who leads.
    pub(crate) async fn transfer(&self, to: Option<&str>) -> Result<Transferred, TransferError> {
        let _look = self.inner.looks.try_acquire().map_err(|_| TransferError::Busy)?;
        transfer::transfer(&self.inner, to).await
    }

    /// How this member and its group do, in numbers. Blocks on the disk for members that are far behind.
    pub(crate) fn figures(&self) -> Figures {
        figures::figures(&self.inner)
    }

    /// Whether the last question to this member went unanswered: what is passed on to it would fail.
    pub(crate) fn is_silent(&self, node: u64) -> bool {
        let asked = |several: &Several| several.asked.lock().get(&node).copied();
        self.inner.several.as_ref().and_then(asked) == Some(clocks::Asked::Silent)
    }

    /// Hands the leadership to the member of a seat, or to the one that has most of the log. Says whom it asked: that one may
    /// not take over; look at the leadership.
    pub(crate) async fn hand_over(&self, to: Option<&str>) -> Result<Leader, HandOverError> {
        status::hand_over(&self.inner, to).await
    }

    /// Ends the connections to other members, and the care for them. After the storage is closed, which may need them.
    pub(crate) async fn close(&self) {
        if let Some(several) = &self.inner.several {
            several.shutdown.cancel();
            several.peers.close().await;
            several.tasks.join().await;
            several.door.end();
        }
    }
}
