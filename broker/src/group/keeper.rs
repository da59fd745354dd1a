//! The task that keeps a member's identity and, where it leads, cares for the members of its group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;
use tokio::sync::{mpsc, watch};

use super::Keys;
use super::agreeing::{missing, next_level};
use super::care::{seat_of, shown};
use super::carer::Carer;
use super::door::Ask;
use super::founding::promise;
use super::identity::MemberFile;
use super::orders::{self, Changed, MemberChange, Order, OrderError};
use super::question::{ANSWER_TIME, Answer, Question, reach};
use crate::config::Seat;
use crate::peer::{Hello, Lane, Peers, Target};
use crate::raft::{Leadership, Member, Members};
use crate::shard::{self, Agreed, Applier, Command, Settings};

/// Between looks at learners that catch up, and before a change that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Keeper {
    keys: Keys,
    peers: Peers,
    member: Arc<Member<Applier>>,
    members: watch::Receiver<Members>,
    leadership: watch::Receiver<Leadership>,
    agreement: watch::Receiver<Arc<Agreed>>,
    asks: mpsc::Receiver<Ask>,
    orders: mpsc::Receiver<Order>,
    /// The newest members that a majority agreed on.
    agreed: Members,
    has_warned: bool,
}

impl Keeper {
    pub(super) fn new(
        keys: Keys,
        peers: Peers,
        member: Arc<Member<Applier>>,
        asks: mpsc::Receiver<Ask>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let (members, leadership) = (member.members(), member.leadership());
        let agreement = keys.door.shard().watch_agreed();
        Self {
            keys,
            peers,
            member,
            members,
            leadership,
            agreement,
            asks,
            orders,
            agreed: Members::default(),
            has_warned: false,
        }
    }

    /// Until shutdown, or until the Raft member has ended.
    pub(super) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(mut self) {
        loop {
            self.note_members().await;
            self.note_level().await;
            let looks_again = self.care().await | self.agree().await;
            tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => self.answer(ask).await,
                Some(Order { change, answer }) = self.orders.recv() => {
                    let done = self.obey(&change).await;
                    // The operator may be gone.
                    let _ = answer.send(done);
                }
                changed = self.members.changed() => if changed.is_err() { return },
                changed = self.leadership.changed() => if changed.is_err() { return },
                changed = self.agreement.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if looks_again => {}
            }
        }
    }

    /// Writes down what the newest membership says of this member and of those that are gone.
    async fn note_members(&mut self) {
        let members = self.members.borrow_and_update().clone();
        if members.is_empty() {
            return;
        }
        let mut file = self.keys.door.file();
        self.open_ways(file.node, &members);
        let before = file.clone();
        file.had_log = true;
        let mut gone = BTreeSet::new();
        if members.is_committed {
            gone.extend(self.agreed.addresses.keys().filter(|node| !members.addresses.contains_key(node)).copied());
            for node in &gone {
                file.remove(*node);
            }
            self.warn_of_difference(&members);
            self.agreed = members;
        }
        if file != before && !self.persist(file).await {
            return;
        }
        if gone.contains(&before.node) {
            tracing::error!(
                "this member was replaced in its group, or removed: empty its folder if it is to join again under a new id"
            );
        }
        if !gone.is_empty() {
            self.peers.retain(|target| !matches!(target, Target::Node(node) if gone.contains(node)));
        }
    }

    /// A vote that has to dial first comes too late for the hand-over or the election that it is for.
    fn open_ways(&self, own: u64, members: &Members) {
        for (node, address) in members.addresses.iter().filter(|(node, _)| **node != own) {
            if let Some(seat) = seat_of(address) {
                self.peers.link(&Target::Node(*node), &seat.address(), Lane::Pulse).open();
            }
        }
    }

    /// Writes down which feature level the log is of: a build that speaks less does not open it then.
    async fn note_level(&self) {
        let (level, file) = (self.agreement.borrow().level, self.keys.door.file());
        if file.feature_level < level {
            self.persist(MemberFile { feature_level: level, ..file }).await;
        }
    }

    /// Lets the group agree on more, if this member leads; says whether there may be more to agree on soon.
    async fn agree(&mut self) -> bool {
        let agreed = Arc::clone(&self.agreement.borrow_and_update());
        let members = self.members.borrow().clone();
        if self.led().is_none() {
            return false;
        }
        if members.is_joint || !members.is_committed {
            // Those who leave still have a say.
            return true;
        }
        let door = &self.keys.door;
        let shard = door.shard();
        let spoken = |node: u64| {
            let heard = || self.peers.introduced(node).map(|hello| hello.feature_level);
            if node == door.file().node { Some(shard.speaks()) } else { heard() }
        };
        let next = next_level(agreed.level, members.voters.iter().map(|node| spoken(*node)));
        let proposed = match (next, door.settings()) {
            (Some(level), _) => {
                tracing::info!(
                    level,
                    before = agreed.level,
                    "all voters speak a higher feature level: the group gets it"
                );
                shard.propose(&Command::Feature(level), shard::Admission::Reserved)
            }
            (None, Some(settings)) => {
                // A change by a tool that is under way is in them, or finds a group that has settings.
                let _turn = settings.turn();
                let missing = missing(&agreed, &settings.own());
                if missing.is_empty() {
                    return agreed.level < shard.speaks();
                }
                tracing::info!(
                    keys = missing.len(),
                    "settings of this member become the group's, whose log lacks these keys"
                );
                let values = missing.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let command = Command::Settings(Settings { only_missing: true, values });
                shard.propose(&command, shard::Admission::Reserved)
            }
            (None, None) => return true,
        };
        if let Err(error) = proposed.await {
            tracing::warn!(%error, "what the group agrees on was not changed; it is tried again");
        }
        true
    }

    /// `dLegerPeers` counts when a group is founded. What it says otherwise later may be an error, or just old.
    fn warn_of_difference(&mut self, members: &Members) {
        let differs = |seat: &Seat| !members.addresses.values().any(|address| seat_of(address).as_ref() == Some(seat));
        let seats = &self.keys.door.config.seats;
        // A group that waits for members to join has fewer.
        let is_whole = members.addresses.len() >= seats.count();
        if is_whole && !self.has_warned && seats.all().iter().any(differs) {
            self.has_warned = true;
            let logged: Vec<_> = members.addresses.values().map(|address| shown(address)).collect();
            tracing::warn!(
                dleger_peers = %seats, members = logged.join(";"),
                "dLegerPeers differs from the members of the group, which count"
            );
        }
    }

    async fn persist(&self, file: MemberFile) -> bool {
        let written = self.keys.persist(file).await;
        if let Err(error) = &written {
            tracing::error!(%error, "the identity of this member could not be written; it is tried again at the next change");
        }
        written.is_ok()
    }

    /// The term in which this member leads.
    fn led(&self) -> Option<u64> {
        self.leadership.borrow().led()
    }

    fn carer(&self) -> Carer<'_> {
        let (door, member) = (&self.keys.door, &*self.member);
        Carer { own: door.file().node, own_seat: &door.config.own, seats: &door.config.seats, member }
    }

    /// Does what a leader has to do; says whether there is more to do soon.
    async fn care(&mut self) -> bool {
        self.leadership.mark_unchanged();
        self.carer().care().await
    }

    async fn answer(&mut self, ask: Ask) {
        let Ask { from, question, answer } = ask;
        let said = match question {
            Question::Promise(asked) => match promise(&self.keys.door.file(), self.keys.door.has_log(), &asked) {
                Ok(file) => self.promised(file).await,
                Err(why) => Answer::No(why),
            },
            Question::Join { address } => self.join(&from, &address).await,
            Question::Status | Question::Time | Question::Settings => {
                Answer::No("the port answers this itself".to_owned())
            }
        };
        // The asker may be gone; it asks again.
        let _ = answer.send(said);
    }

    /// Another founding by the founder of before, which did not carry that out.
    async fn promised(&self, file: MemberFile) -> Answer {
        if file == self.keys.door.file() {
            return Answer::Promised;
        }
        if !self.persist(file).await {
            return Answer::No("this member cannot write its identity".to_owned());
        }
        self.keys.door.bind();
        match self.peers.introduce(self.keys.door.hello()) {
            Ok(()) => Answer::Promised,
            Err(error) => Answer::No(error.to_string()),
        }
    }

    /// Does what an operator asks for, if this member leads.
    async fn obey(&self, change: &MemberChange) -> Result<Changed, OrderError> {
        let (true, Some((last, progress))) = (self.led().is_some(), self.member.progress()) else {
            return Err(OrderError::NotLeading);
        };
        let members = self.members.borrow().clone();
        let changed = match change {
            MemberChange::Add(seat) => self.add(seat, &members).await,
            MemberChange::Promote(seat) => {
                let voters = orders::promote(seat, &members, last, &progress)?;
                let warning = orders::warning(&voters);
                self.member.replace_voters(voters).await?;
                Ok(Changed { done: format!("{seat} has a vote now"), warning })
            }
            MemberChange::Remove(seat) => {
                let stay = self.carer().remove(seat).await?;
                Ok(Changed {
                    done: format!(
                        "{seat} is no member any more: stop it, and empty its folder before it is used again"
                    ),
                    warning: stay.as_ref().and_then(orders::warning),
                })
            }
        }?;
        tracing::warn!(?change, warning = changed.warning, "an operator has changed the members of the group");
        Ok(changed)
    }

    async fn add(&self, seat: &Seat, members: &Members) -> Result<Changed, OrderError> {
        orders::add(seat, members)?;
        let target = Target::Seat(seat.name.clone());
        let answered = {
            let link = self.peers.link(&target, &seat.address(), Lane::Group);
            reach(&link, &Question::Status, ANSWER_TIME).await
        };
        // From now on it is reached by its id.
        self.peers.retain(|other| *other != target);
        let status = match answered {
            Ok(Answer::Status(status)) => status,
            Ok(_) => return Err(OrderError::Refused(format!("{seat} gave an answer to another question"))),
            Err(why) => {
                let hint = "start the member there with an empty folder, its dLegerPeers naming itself and a member of the group";
                return Err(OrderError::Refused(format!("{seat} does not answer ({why}): {hint}")));
            }
        };
        orders::can_join(seat, &status)?;
        self.carer().add(status.node, seat).await?;
        let done = format!("{seat} is a member without a vote (node {}) and gets the log", status.node);
        Ok(Changed { done, warning: None })
    }

    async fn join(&self, from: &Hello, address: &str) -> Answer {
        let no = |why: &str| Answer::No(why.to_owned());
        let Some(seat) = seat_of(address).filter(|seat| seat.name == from.seat) else {
            return no("its address is not that of its seat");
        };
        let Some(incarnation) = self.keys.door.bound() else { return no("this member is in no group") };
        let removed = self.keys.door.file().removed;
        match self.carer().take(from.node, &seat, address, &removed).await {
            Ok(()) => Answer::Taken { incarnation },
            Err(why) => Answer::No(why),
        }
    }
}
