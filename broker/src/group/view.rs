//! The whole group, for tools: what this member knows, and what the others say of themselves when they are asked now.
//!
//! Any member makes it, with a leader or without: an operator looks when something is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join, join_all};

use super::care::seat_of;
use super::door::{BUILD, seat_name};
use super::question::{Answer, Figures, Question, Status, reach};
use super::{Inner, Several, status};
use crate::config::CurrentConfig;
use crate::peer::{Lane, Target};
use crate::raft::Members;
use crate::terms::LogIndex;

/// The time that another member has. One that is there answers within two round trips.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberView {
    /// Its Raft id.
    pub(crate) node: u64,
    /// Its seat.
    pub(crate) seat: String,
    /// Where other members reach it; empty for a broker alone.
    pub(crate) address: String,
    /// Whether it has a vote.
    pub(crate) votes: bool,
    /// Term and index of the last entry of its log, if it answered.
    pub(crate) last: Option<(u64, LogIndex)>,
    /// How many entries of the leader's log it lacks, if both answered.
    pub(crate) lag: Option<u64>,
    /// How long ago the leader sent what this member has answered, if the leader answered.
    pub(crate) contact: Option<Duration>,
    /// The version of its program, if it answered.
    pub(crate) build: Option<String>,
    /// The keys of the group's settings to which its own file gives another value, if it said.
    pub(crate) differing: Option<Vec<String>>,
    /// Why it did not answer this member.
    pub(crate) problem: Option<String>,
}

/// The group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupView {
    /// Its name.
    pub(crate) name: String,
    /// The seat of the member that says this.
    pub(crate) seat: String,
    /// The group's incarnation; none for a broker that has always been alone.
    pub(crate) incarnation: Option<u64>,
    /// The newest term that anybody knows.
    pub(crate) term: u64,
    /// The seat of the leader of that term, if somebody hears from it.
    pub(crate) leader: Option<String>,
    /// Whether a change of the members is under way.
    pub(crate) is_changing: bool,
    /// All members, in the order of their seats.
    pub(crate) members: Vec<MemberView>,
}

/// What members have said, by their ids: of themselves, and if they spoke of their settings, which of them differ.
type Said = BTreeMap<u64, (Result<Status, String>, Option<Vec<String>>)>;

pub(super) async fn view(inner: &Inner) -> GroupView {
    let members = inner.member.members().borrow().clone();
    let mut said = match &inner.several {
        Some(several) => ask_others(several, inner.node, &members).await,
        None => Said::new(),
    };
    let settings = inner.several.as_ref().and_then(|several| several.door.settings());
    said.insert(inner.node, (Ok(own(inner)), Some(settings.map(CurrentConfig::differing).unwrap_or_default())));
    let incarnation = inner.several.as_ref().and_then(|several| several.door.bound());
    assemble(&inner.name, &inner.seat, incarnation, &members, &said)
}

async fn ask_others(several: &Several, own: u64, members: &Members) -> Said {
    let others = members.addresses.iter().filter(|(node, _)| **node != own);
    let asked = others.map(|(node, address)| async move {
        let Some(seat) = seat_of(address) else { return (*node, (Err("has no address".to_owned()), None)) };
        let link = several.peers.link(&Target::Node(*node), &seat.address(), Lane::Group);
        let (status, settings) =
            join(reach(&link, &Question::Status, ANSWER_TIME), reach(&link, &Question::Settings, ANSWER_TIME)).await;
        let status = match status {
            Ok(Answer::Status(status)) => Ok(status),
            Ok(_) => Err("gave an answer to another question".to_owned()),
            Err(why) => Err(why),
        };
        // One that has just started has no settings of the group yet.
        let differing = match settings {
            Ok(Answer::Settings(keys)) => Some(keys),
            Ok(_) | Err(_) => None,
        };
        (*node, (status, differing))
    });
    join_all(asked).await.into_iter().collect()
}

fn own(inner: &Inner) -> Status {
    if let Some(several) = &inner.several {
        return several.door.status();
    }
    let seen = status::status(inner);
    let leads = inner.member.leadership().borrow().led().is_some();
    Status {
        node: inner.node,
        seat: inner.seat.clone(),
        peers: String::new(),
        incarnation: None,
        founder: None,
        has_log: true,
        term: seen.term,
        leader: leads.then(|| (inner.node, inner.seat.clone())),
        figures: Figures {
            build: BUILD.to_owned(),
            last: (seen.term, seen.last.map_or(0, LogIndex::get)),
            hears: leads,
            contacts: BTreeMap::from([(inner.node, 0)]),
        },
    }
}

fn assemble(name: &str, seat: &str, incarnation: Option<u64>, members: &Members, said: &Said) -> GroupView {
    let statuses = || said.values().filter_map(|(answer, _)| answer.as_ref().ok());
    let term = statuses().map(|status| status.term).max().unwrap_or_default();
    // One whose leader is gone goes on naming it until there is another one, and so does a leader that nobody hears.
    let mut heard = statuses().filter(|status| status.term == term && status.figures.hears);
    let leader = heard.find_map(|status| status.leader.clone());
    let leading = leader.as_ref().and_then(|(node, _)| said.get(node)?.0.as_ref().ok());
    // One that answered before it was deposed counts contacts of another time.
    let leading = leading.filter(|status| status.term == term).map(|status| &status.figures);
    let of = |(node, address): (&u64, &String)| {
        let (answer, differing) = said.get(node).map_or((None, None), |(answer, keys)| (Some(answer), keys.clone()));
        let figures = answer.and_then(|answer| answer.as_ref().ok()).map(|status| &status.figures);
        let last = figures.map(|figures| (figures.last.0, LogIndex(figures.last.1)));
        let lag = leading.zip(last).map(|(leading, (_, last))| leading.last.1.saturating_sub(last.get()));
        let named = if address.is_empty() { seat.to_owned() } else { seat_name(address) };
        MemberView {
            node: *node,
            seat: named,
            address: seat_of(address).map(|seat| seat.address()).unwrap_or_default(),
            votes: members.voters.contains(node),
            last,
            lag,
            contact: leading.and_then(|leading| leading.contacts.get(node)).copied().map(Duration::from_millis),
            build: figures.map(|figures| figures.build.clone()),
            differing,
            problem: answer.and_then(|answer| answer.as_ref().err()).cloned(),
        }
    };
    let mut all: Vec<MemberView> = members.addresses.iter().map(of).collect();
    all.sort_by(|one, other| (&one.seat, one.node).cmp(&(&other.seat, other.node)));
    GroupView {
        name: name.to_owned(),
        seat: seat.to_owned(),
        incarnation,
        term,
        leader: leader.map(|(_, address)| seat_name(&address)),
        is_changing: members.is_joint || !members.is_committed && !members.is_empty(),
        members: all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: u64, term: u64, leader: Option<u64>, last: u64) -> Status {
        Status {
            node,
            seat: format!("n{node}"),
            peers: String::new(),
            incarnation: Some(7),
            founder: None,
            has_log: true,
            term,
            leader: leader.map(|leader| (leader, format!("n{leader}-127.0.0.1:{}", leader + 1))),
            figures: Figures {
                build: "1.2.3".to_owned(),
                last: (term, last),
                hears: leader.is_some(),
                contacts: if leader == Some(node) { BTreeMap::from([(node, 0), (1, 30)]) } else { BTreeMap::new() },
            },
        }
    }

    fn members() -> Members {
        Members {
            voters: [0, 1, 2].into(),
            is_joint: false,
            addresses: (0..4).map(|node| (node, format!("n{node}-127.0.0.1:{}", node + 1))).collect(),
            is_committed: true,
        }
    }

    #[test]
    fn what_the_leader_knows_is_shown_by_any_member() {
        let said = Said::from([
            (0, (Ok(status(0, 4, Some(2), 90)), Some(vec!["traceOn".to_owned()]))),
            (1, (Ok(status(1, 5, Some(1), 100)), Some(vec![]))),
            (2, (Err("cannot be reached".to_owned()), None)),
            (3, (Ok(status(3, 5, Some(1), 40)), None)),
        ]);
        let view = assemble("orders", "n0", Some(7), &members(), &said);
        assert_eq!((view.term, view.leader.as_deref()), (5, Some("n1")), "the newest term counts");
        let lags: Vec<_> = view.members.iter().map(|member| member.lag).collect();
        assert_eq!(lags, [Some(10), Some(0), None, Some(60)]);
        assert_eq!(view.members[1].contact, Some(Duration::from_millis(30)));
        let differing: Vec<_> = view.members.iter().map(|member| member.differing.as_ref().map(Vec::len)).collect();
        assert_eq!(differing, [Some(1), Some(0), None, None]);
        assert_eq!(view.members[2].problem.as_deref(), Some("cannot be reached"));
        assert!(view.members[2].votes && !view.members[3].votes);
    }

    #[test]
    fn without_a_leader_the_last_entries_are_shown_all_the_same() {
        let mut deaf = status(0, 4, Some(1), 90);
        deaf.figures.hears = false;
        let said = Said::from([(0, (Ok(deaf), None)), (1, (Err("gone".to_owned()), None))]);
        let view = assemble("orders", "n0", Some(7), &members(), &said);
        assert_eq!((view.term, view.leader), (4, None));
        assert_eq!((view.members[0].last, view.members[0].lag), (Some((4, LogIndex(90))), None));
    }
}
