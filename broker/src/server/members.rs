//! The members of the broker's group: shown by any of them, changed by the leader.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{GroupMembers, MemberInfo, MemberRole, MembersChanged};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{MemberHeader, TransferLeaderHeader};

use super::answer;
use crate::broker::Broker;
use crate::config::Seat;
use crate::group::{Changed, GroupView, MemberChange, MemberView, OrderError, TransferError};
use crate::raft::ChangeError;
use crate::reply::{Refused, Reply};

pub(super) fn show(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    let theirs = Arc::clone(broker);
    broker.tasks.spawn("show members", async move {
        let busy = || Refused::new(response::SYSTEM_BUSY, "the group is being looked at already, try again");
        answer::body(reply, theirs.group.view().await.as_ref().map(told).ok_or_else(busy));
    });
}

pub(super) fn add(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let seat = named(&request).and_then(|seat| {
        seat.parse::<Seat>().map_err(|why| Refused::new(response::INVALID_PARAMETER, format!("seat: {why}")))
    });
    change(broker, seat.map(MemberChange::Add), reply);
}

pub(super) fn promote(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    change(broker, named(&request).map(MemberChange::Promote), reply);
}

pub(super) fn remove(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    change(broker, named(&request).map(MemberChange::Remove), reply);
}

pub(super) fn transfer(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let to = match request.header() {
        Ok(TransferLeaderHeader { seat }) => seat.map(str::to_owned),
        Err(error) => return reply.refuse(error),
    };
    let theirs = Arc::clone(broker);
    broker.tasks.spawn("transfer leadership", async move {
        let body = match theirs.group.transfer(to.as_deref()).await {
            Ok(over) => Ok(MembersChanged {
                done: format!("{} leads the group; it took {} ms", over.seat, over.took.as_millis()),
                warning: None,
            }),
            Err(error) => Err(transfer_refused(&error)),
        };
        answer::body(reply, body);
    });
}

/// The seat that a request names.
fn named(request: &Frame) -> Result<String, Refused> {
    let MemberHeader { seat } = request.header()?;
    Ok(seat.to_owned())
}

fn change(broker: &Arc<Broker>, change: Result<MemberChange, Refused>, reply: Reply) {
    let change = match change {
        Ok(change) => change,
        Err(refused) => return reply.refuse(refused),
    };
    let theirs = Arc::clone(broker);
    broker.tasks.spawn("change members", async move {
        let changed = theirs.group.change(change).await;
        let body =
            changed.map(|Changed { done, warning }| MembersChanged { done, warning: warning.map(str::to_owned) });
        answer::body(reply, body.map_err(|error| change_refused(&error)));
    });
}

fn change_refused(error: &OrderError) -> Refused {
    let code = match error {
        OrderError::NotLeading | OrderError::Change(ChangeError::NotLeading | ChangeError::Ended) => {
            response::SERVICE_NOT_AVAILABLE
        }
        OrderError::Busy => response::SYSTEM_BUSY,
        OrderError::Refused(_) | OrderError::Change(ChangeError::Refused(_)) => response::ILLEGAL_OPERATION,
        OrderError::Change(ChangeError::Unknown(_)) => response::SYSTEM_ERROR,
    };
    Refused::new(code, error.to_string())
}

fn transfer_refused(error: &TransferError) -> Refused {
    let code = match error {
        TransferError::NotLeading => response::SERVICE_NOT_AVAILABLE,
        TransferError::Busy => response::SYSTEM_BUSY,
        TransferError::Nobody(_) => response::ILLEGAL_OPERATION,
        TransferError::Other { .. } | TransferError::Unknown { .. } | TransferError::Ended(_) => response::SYSTEM_ERROR,
    };
    Refused::new(code, error.to_string())
}

fn told(view: &GroupView) -> GroupMembers {
    GroupMembers {
        answered_by: view.seat.clone(),
        changing: view.is_changing,
        group: view.name.clone(),
        incarnation: view.incarnation.map(|incarnation| incarnation.to_string()),
        leader: view.leader.clone(),
        members: view.members.iter().map(|member| member_told(view, member)).collect(),
        term: view.term.cast_signed(),
    }
}

fn member_told(view: &GroupView, member: &MemberView) -> MemberInfo {
    let role = match member.votes {
        true if view.leader.as_deref() == Some(&member.seat) => MemberRole::Leader,
        true => MemberRole::Voter,
        false => MemberRole::Learner,
    };
    let millis = |ago: Duration| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    MemberInfo {
        address: member.address.clone(),
        build: member.build.clone(),
        contact_millis: member.contact.map(millis),
        id: member.node.to_string(),
        lag: member.lag.map(u64::cast_signed),
        last_index: member.last.map(|(_, index)| index.get().cast_signed()),
        last_term: member.last.map(|(term, _)| term.cast_signed()),
        problem: member.problem.clone(),
        reachable: member.problem.is_none(),
        role,
        seat: member.seat.clone(),
        settings_differ: member.differing.clone(),
    }
}
