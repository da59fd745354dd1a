//! The members of a broker group, as one of them reports them to operators. EscrowMQ's own.

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::json;
use super::wire_enum::wire_enum;

wire_enum! {
    /// What a member is to its group.
    MemberRole {
        /// It leads.
        Leader = "leader",
        /// It votes.
        Voter = "voter",
        /// It gets the log and has no vote.
        Learner = "learner",
        /// A role of a later release.
        #[default]
        Unknown = "unknown",
    }
}

/// Answer to `GET_MEMBERS`. Ids are text: they have more digits than some readers of JSON keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupMembers {
    /// The seat of the member that answers.
    pub answered_by: String,
    /// Whether a change of the members is under way.
    pub changing: bool,
    /// The name of the group.
    pub group: String,
    /// The number of the founding; missing for a broker that has always been alone.
    pub incarnation: Option<String>,
    /// The seat that leads; missing if nobody is known to.
    pub leader: Option<String>,
    /// In the order of their seats.
    pub members: Vec<MemberInfo>,
    /// The newest term that a member knows.
    #[serde(deserialize_with = "json::number")]
    pub term: i64,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberInfo {
    /// Where other members reach it; empty for a broker alone.
    pub address: String,
    /// The version of its program, if it answered.
    pub build: Option<String>,
    /// How many milliseconds ago the leader sent what this member has answered, if the leader told.
    pub contact_millis: Option<i64>,
    /// Its Raft id.
    pub id: String,
    /// How many entries of the leader's log it lacks, if both answered.
    pub lag: Option<i64>,
    /// The index of the last entry of its log, if it answered.
    pub last_index: Option<i64>,
    /// The term of that entry.
    pub last_term: Option<i64>,
    /// Why it did not answer the member that answers; missing if it did.
    pub problem: Option<String>,
    /// Whether it answered.
    pub reachable: bool,
    /// What it is.
    pub role: MemberRole,
    /// The name of its seat.
    pub seat: String,
    /// The keys of the group's settings to which its own file gives another value; missing if it did not say. The group's values
    /// count.
    pub settings_differ: Option<Vec<String>>,
}

/// Answer to `ADD_MEMBER`, `PROMOTE_MEMBER`, `REMOVE_MEMBER` and `TRANSFER_LEADER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MembersChanged {
    /// The change in words.
    pub done: String,
    /// What is not as it should be now.
    pub warning: Option<String>,
}

answers!(GroupMembers, MembersChanged);
