//! Who may talk to this member, and what is done with what others ask: the side of a member that its port shows.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use escrowmq_common::clock::Clock;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::care::{of_seat, seat_of};
use super::identity::MemberFile;
use super::question::{Answer, Figures, Question, Status, decode, encode};
use crate::config::{CurrentConfig, GroupConfig, Seat};
use crate::log::format::FORMAT_VERSION;
use crate::peer::{Gate, Hello, Lane, Reason, Refusal, Serve};
use crate::raft::{Leadership, Member, Members};
use crate::shard::{Applier, Shard};
use crate::snapshot::Offers;

/// The version of this program.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Questions of others that wait to be answered.
pub(super) const ASKS_MAX: usize = 16;

/// A question that changes something, for the task that owns the identity.
pub(super) struct Ask {
    /// Who asks.
    pub(super) from: Hello,
    /// What.
    pub(super) question: Question,
    /// For the answer. Nobody listens any more if the connection has ended.
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What of the member runs.
pub(super) struct Running {
    /// The Raft member, which answers the requests of others.
    pub(super) member: Arc<Member<Applier>>,
    /// Who leads.
    pub(super) leadership: watch::Receiver<Leadership>,
    /// Who is in the group.
    pub(super) members: watch::Receiver<Members>,
    /// Copies of the state for members that lack entries.
    pub(super) offers: Offers,
}

/// See the module.
pub(super) struct Door {
    /// The group as it was configured.
    pub(super) config: GroupConfig,
    /// The seats of dLegerPeers in one order.
    pub(super) peers: String,
    shard: Shard,
    clock: Clock,
    settings: OnceLock<CurrentConfig>,
    file: Mutex<MemberFile>,
    /// The incarnation that this member speaks for: that of its Raft member.
    bound: Mutex<Option<u64>>,
    running: ArcSwapOption<Running>,
    asks: mpsc::Sender<Ask>,
}

impl Door {
    /// A member whose identity is on disk. The receiver gets what others ask.
    pub(super) fn new(
        config: GroupConfig,
        shard: Shard,
        clock: Clock,
        file: MemberFile,
    ) -> (Arc<Self>, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let door = Self {
            peers: super::founding::ordered(&config.seats),
            config,
            shard,
            clock,
            settings: OnceLock::new(),
            file: Mutex::new(file),
            bound: Mutex::new(None),
            running: ArcSwapOption::empty(),
            asks,
        };
        (Arc::new(door), asked)
    }

    /// The identity that is on disk.
    pub(super) fn file(&self) -> MemberFile {
        self.file.lock().clone()
    }

    /// Another identity is on disk.
    pub(super) fn set_file(&self, file: MemberFile) {
        *self.file.lock() = file;
    }

    /// From now on this member speaks for the incarnation that its file has.
    pub(super) fn bind(&self) {
        let incarnation = self.file.lock().incarnation;
        *self.bound.lock() = incarnation;
    }

    /// The incarnation that this member speaks for.
    pub(super) fn bound(&self) -> Option<u64> {
        *self.bound.lock()
    }

    /// The Raft member runs.
    pub(super) fn run(&self, running: Running) {
        self.running.store(Some(Arc::new(running)));
    }

    /// The Raft member has ended. What it held is let go: the folder may be opened again at once.
    pub(super) fn end(&self) {
        self.running.store(None);
    }

    /// The settings of this member are there.
    pub(super) fn set_settings(&self, settings: CurrentConfig) {
        // A second one would be another broker's; there is one.
        let _ = self.settings.set(settings);
    }

    /// The settings of this member, once they are there.
    pub(super) fn settings(&self) -> Option<&CurrentConfig> {
        self.settings.get()
    }

    /// What the group has agreed on, and how to propose more.
    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Whether anything was ever written to the log, a vote among it.
    pub(super) fn has_log(&self) -> bool {
        let log = self.shard.log();
        log.last().is_some() || log.purged().is_some() || log.vote().is_some()
    }

    /// How this member introduces itself.
    pub(super) fn hello(&self) -> Hello {
        let file = self.file.lock();
        Hello {
            group: file.group.clone(),
            node: file.node,
            seat: file.seat.clone(),
            incarnation: self.bound().unwrap_or_default(),
            build: BUILD.to_owned(),
            formats: FORMAT_VERSION..=FORMAT_VERSION,
            feature_level: self.shard.speaks(),
        }
    }

    fn figures(&self) -> Figures {
        let member = self.running.load_full().map(|running| Arc::clone(&running.member));
        let progress = member.as_ref().and_then(|member| member.progress());
        let millis = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let contacts = progress.into_iter().flat_map(|(_, all)| all);
        Figures {
            build: BUILD.to_owned(),
            last: self.shard.log().last().map_or((0, 0), |last| (last.term, last.index.get())),
            hears: member.is_some_and(|member| member.lease().holds() || member.server().hears_leader()),
            contacts: contacts.filter_map(|(node, one)| Some((node, millis(one.contact?)))).collect(),
        }
    }

    /// What this member knows.
    pub(super) fn status(&self) -> Status {
        let file = self.file();
        let (term, leader) = self.running.load_full().map_or((0, None), |running| {
            let seen = *running.leadership.borrow();
            let leader = match seen {
                Leadership::Leading { .. } => Some(file.node),
                Leadership::Following { leader, .. } => leader,
            };
            let address = |node| running.members.borrow().addresses.get(&node).cloned().map(|address| (node, address));
            (seen.term(), leader.and_then(address))
        });
        Status {
            node: file.node,
            seat: file.seat,
            peers: self.peers.clone(),
            incarnation: file.incarnation,
            founder: file.founder,
            has_log: self.has_log(),
            term,
            leader,
            figures: self.figures(),
        }
    }

    /// Whether a member is one of the incarnation that this one speaks for.
    fn is_of_us(&self, from: &Hello) -> bool {
        self.bound().is_some_and(|bound| bound == from.incarnation)
    }

    /// Hands a question on to the task that owns the identity.
    fn hand_on(&self, from: &Hello, question: Question) -> BoxFuture<'static, Option<Bytes>> {
        let (answer, answered) = oneshot::channel();
        let busy = || Answer::No("this member has too many questions unanswered, or stops; ask again".to_owned());
        if self.asks.try_send(Ask { from: from.clone(), question, answer }).is_err() {
            return std::future::ready(Some(encode(&busy()))).boxed();
        }
        async move { Some(encode(&answered.await.unwrap_or_else(|_| busy()))) }.boxed()
    }
}

impl Gate for Door {
    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let level = self.shard.agreed().level;
        if hello.feature_level < level {
            let text = format!(
                "the group '{}' is of feature level {level}, and '{}' ({}) speaks {}: install a version there that speaks {level}",
                hello.group, hello.seat, hello.build, hello.feature_level
            );
            return Err(Refusal::new(Reason::FeatureLevel, text));
        }
        // Without a group neither serves what is the group's, and they ask each other how it stands.
        let Some(bound) = self.bound().filter(|_| hello.incarnation != 0) else { return Ok(()) };
        let own = &self.config.own.name;
        if hello.incarnation != bound {
            let text = format!(
                "'{own}' and '{}' belong to two different foundings of the group '{}'. If one of the two has been recovered or \
                 restored, the other one is the old group: empty its folder, then it joins the new one",
                hello.seat, hello.group
            );
            return Err(Refusal::new(Reason::Incarnation, text));
        }
        if self.file.lock().removed.contains(&hello.node) {
            let text = format!(
                "node {} was at the seat '{}' and is no member any more: empty its folder, then it joins again under a new id. If the \
                 seat was removed from the group, `escrowmq group add` takes it in",
                hello.node, hello.seat
            );
            return Err(Refusal::new(Reason::Membership, text));
        }
        let Some(running) = self.running.load_full() else { return Ok(()) };
        let members = running.members.borrow();
        // A member that is new may be known to the others and not here: this one is behind, and it may be the leader.
        let has_seat =
            of_seat(&members, &hello.seat).next().is_some() || self.config.seats.named(&hello.seat).is_some();
        if members.addresses.contains_key(&hello.node) || has_seat {
            return Ok(());
        }
        let text = format!("'{}' (node {}) is no member of the group '{}'", hello.seat, hello.node, hello.group);
        Err(Refusal::new(Reason::Membership, text))
    }
}

impl Serve for Door {
    fn serve(&self, from: &Hello, lane: Lane, request: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let closes = || std::future::ready(None).boxed();
        // It was a member when it connected.
        if self.file.lock().removed.contains(&from.node) {
            return closes();
        }
        match lane {
            Lane::Group => match decode(&request) {
                Ok(Question::Status) => std::future::ready(Some(encode(&Answer::Status(self.status())))).boxed(),
                Ok(Question::Time) => {
                    std::future::ready(Some(encode(&Answer::Time { wall: self.clock.wall_ms() }))).boxed()
                }
                Ok(Question::Settings) => {
                    let differing = self.settings().map(CurrentConfig::differing).unwrap_or_default();
                    std::future::ready(Some(encode(&Answer::Settings(differing)))).boxed()
                }
                Ok(question) => self.hand_on(from, question),
                Err(_) => closes(),
            },
            Lane::Append | Lane::Pulse if self.is_of_us(from) => match self.running.load_full() {
                Some(running) => {
                    let answer = running.member.server().serve(request);
                    async move { answer.await.ok().and_then(Result::ok) }.boxed()
                }
                None => closes(),
            },
            Lane::Fetch if self.is_of_us(from) => match self.running.load_full() {
                Some(running) => running.offers.serve(from.node, &request).boxed(),
                None => closes(),
            },
            // Clients' streams are no requests.
            Lane::Append | Lane::Pulse | Lane::Forward | Lane::Fetch => closes(),
        }
    }
}

/// The seat of a member's address; its text if it is none.
pub(super) fn seat_name(address: &str) -> String {
    seat_of(address).map_or_else(|| address.to_owned(), |seat: Seat| seat.name)
}
