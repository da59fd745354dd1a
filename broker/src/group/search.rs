//! How a member without a log comes to a group: it asks all seats how they stand, and founds, promises or joins.

use std::collections::BTreeMap;
use std::time::Duration;

use escrowmq_common::clock;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::care::seat_of;
use super::door::Ask;
use super::founding::{Answered, Next, decide, is_unfinished_founder, promise};
use super::identity::{self, MemberFile};
use super::question::{ANSWER_TIME, Answer, Founding, Question, ask};
use super::{Keys, OpenError};
use crate::config::Seat;
use crate::metrics::Waiting;
use crate::peer::{Lane, Link, Peers, Target};

/// Between rounds of questions.
const RETRY: Duration = Duration::from_millis(500);
/// The time for the answer to a member that wants to join: two changes of the membership.
const JOIN_TIME: Duration = Duration::from_secs(25);
/// The log is told for the first time after this what is waited for; members that start together find each other sooner.
const FIRST_TOLD: Duration = Duration::from_secs(2);
/// Then at most once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How the Raft member begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It founds the group with these members, all of which have promised.
    Founder(BTreeMap<u64, String>),
    /// It waits for its leader.
    Member,
}

/// Whether a member has to search: it has no log, and nobody who founds or leads counts on it.
pub(super) fn must_search(file: &MemberFile, has_log: bool) -> bool {
    !has_log && (file.incarnation.is_none() || is_unfinished_founder(file))
}

/// A member that searches.
pub(super) struct Search<'a> {
    pub(super) keys: &'a Keys,
    pub(super) peers: &'a Peers,
    pub(super) waiting: &'a Waiting,
}

/// What a round of questions came to.
enum Came {
    /// All have promised this founding.
    Promised(Founding),
    /// The group has taken this member.
    Taken(u64),
    /// Nothing yet.
    Nothing(Vec<String>),
}

impl Search<'_> {
    /// Until this member belongs to a group, which is on its disk then.
    pub(super) async fn run(self, asks: &mut mpsc::Receiver<Ask>) -> Result<Begin, OpenError> {
        let mut tell_at = clock::monotonic() + FIRST_TOLD;
        let mut attempt: Option<Founding> = None;
        loop {
            let came = {
                let round = self.round(&mut attempt);
                tokio::select! {
                    biased;
                    came = round => Some(came?),
                    ask = asks.recv() => match self.answer(ask).await? {
                        Some(begin) => return Ok(begin),
                        None => None,
                    },
                }
            };
            match came {
                Some(Came::Promised(founding)) => {
                    let incarnation = Some(founding.incarnation);
                    let file = self.keys.door.file();
                    let file = MemberFile { incarnation, founder: Some(founding.founder), ..file };
                    self.keys.persist(file).await?;
                    return Ok(Begin::Founder(founding.members));
                }
                Some(Came::Taken(incarnation)) => {
                    let file = self.keys.door.file();
                    self.keys.persist(MemberFile { incarnation: Some(incarnation), founder: None, ..file }).await?;
                    return Ok(Begin::Member);
                }
                Some(Came::Nothing(reasons)) => {
                    let reasons = reasons.join("; ");
                    self.waiting.tell(format!("the group is not there yet: {reasons}"));
                    if clock::monotonic() >= tell_at {
                        tell_at = clock::monotonic() + TOLD_EVERY;
                        let group = &self.keys.door.config.name;
                        tracing::info!(group, "waiting for the group: {reasons}");
                    }
                }
                None => continue,
            }
            tokio::select! {
                biased;
                ask = asks.recv() => if let Some(begin) = self.answer(ask).await? {
                    return Ok(begin);
                },
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Answers another member; says how to begin if this one has promised.
    async fn answer(&self, ask: Option<Ask>) -> Result<Option<Begin>, OpenError> {
        // The door lives as long as this.
        let Some(Ask { question, answer, .. }) = ask else { return Ok(None) };
        let (said, begin) = match question {
            Question::Promise(asked) => match promise(&self.keys.door.file(), self.keys.door.has_log(), &asked) {
                Ok(file) => {
                    self.keys.persist(file).await?;
                    (Answer::Promised, Some(Begin::Member))
                }
                Err(why) => (Answer::No(why), None),
            },
            Question::Join { .. } | Question::Status | Question::Time | Question::Settings => {
                (Answer::No("this member is in no group yet".to_owned()), None)
            }
        };
        // The asker may be gone; it asks again.
        let _ = answer.send(said);
        Ok(begin)
    }

    async fn round(&self, attempt: &mut Option<Founding>) -> Result<Came, OpenError> {
        let door = &self.keys.door;
        let (file, config) = (door.file(), &door.config);
        let others: Vec<&Seat> = config.seats.all().iter().filter(|seat| seat.name != config.own.name).collect();
        let statuses = others.iter().map(|seat| async move {
            let said = match ask(&self.link(seat), &Question::Status, ANSWER_TIME).await {
                Ok(Answer::Status(status)) => Ok(status),
                Ok(_) => Err("an answer to another question".to_owned()),
                Err(why) => Err(why),
            };
            (seat.name.clone(), said)
        });
        let answered: Answered = join_all(statuses).await.into_iter().collect();
        match decide(&file, &config.own, &config.seats, &answered) {
            Next::Wait(reasons) => Ok(Came::Nothing(reasons)),
            Next::Join(address) => Ok(self.join(&address).await),
            Next::Found(members) => {
                let founding = match attempt.take() {
                    Some(before) if before.members == members => before,
                    _ => Founding {
                        incarnation: identity::draw().map_err(OpenError::Random)?,
                        founder: file.node,
                        members,
                    },
                };
                let founding = &*attempt.insert(founding);
                let promises = others.iter().map(|seat| async move {
                    match ask(&self.link(seat), &Question::Promise(founding.clone()), ANSWER_TIME).await {
                        Ok(Answer::Promised) => Ok(()),
                        Ok(Answer::No(why)) | Err(why) => Err(format!("{seat}: {why}")),
                        Ok(_) => Err(format!("{seat}: an answer to another question")),
                    }
                });
                let refusals: Vec<_> = join_all(promises).await.into_iter().filter_map(Result::err).collect();
                if refusals.is_empty() { Ok(Came::Promised(founding.clone())) } else { Ok(Came::Nothing(refusals)) }
            }
        }
    }

    async fn join(&self, address: &str) -> Came {
        let nothing = |why: String| Came::Nothing(vec![why]);
        let Some(leader) = seat_of(address) else { return nothing(format!("the leader has no address: '{address}'")) };
        let own = self.keys.door.config.own.to_string();
        match ask(&self.link(&leader), &Question::Join { address: own }, JOIN_TIME).await {
            Ok(Answer::Taken { incarnation }) => Came::Taken(incarnation),
            Ok(Answer::No(why)) | Err(why) => {
                nothing(format!("{leader}, which leads, has not taken this member: {why}"))
            }
            Ok(_) => nothing(format!("{leader}: an answer to another question")),
        }
    }

    fn link(&self, seat: &Seat) -> Link {
        self.peers.link(&Target::Seat(seat.name.clone()), &seat.address(), Lane::Group)
    }
}
