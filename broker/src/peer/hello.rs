//! How members name themselves and each other.

use std::fmt;
use std::ops::RangeInclusive;

/// What a member says of itself. All of it is covered by the proof of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The group.
    pub(crate) group: String,
    /// Its Raft id. Never used again by another folder.
    pub(crate) node: u64,
    /// Its place in the group, as operators name it (`n0`).
    pub(crate) seat: String,
    /// Of the group: raised when a group is founded anew from what is left, so that members of before are strangers.
    pub(crate) incarnation: u64,
    /// Version of the program, for people.
    pub(crate) build: String,
    /// Formats of the log that it reads.
    pub(crate) formats: RangeInclusive<u32>,
    /// The highest feature level that it knows.
    pub(crate) feature_level: u32,
}

/// What a connection is for. Each has its own, so that one does not wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Lane {
    /// Entries of the log: many, large, one after the other.
    Append = 1,
    /// Votes and heartbeats: small, and never behind anything large.
    Pulse = 2,
    /// A client's connection that one member passes on to another: the frames of clients, and no requests between members.
    Forward = 3,
    /// Files.
    Fetch = 4,
    /// Questions about the group itself: who is there, who founds it, who wants to join.
    Group = 5,
}

impl Lane {
    /// All of them.
    pub(crate) const ALL: [Lane; 5] = [Lane::Append, Lane::Pulse, Lane::Forward, Lane::Fetch, Lane::Group];

    /// The lane with this number on the wire.
    pub(super) fn from_number(number: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| *lane as u8 == number)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Append => "append",
            Lane::Pulse => "pulse",
            Lane::Forward => "forward",
            Lane::Fetch => "fetch",
            Lane::Group => "group",
        })
    }
}

/// The member that is meant by a link. Another one that answers at its address is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The member with this id.
    Node(u64),
    /// Whoever has this seat: before a group is founded nobody knows the others' ids.
    Seat(String),
}

impl Target {
    /// Whether a member is the one that is meant.
    pub(super) fn is(&self, hello: &Hello) -> bool {
        match self {
            Target::Node(node) => hello.node == *node,
            Target::Seat(seat) => hello.seat == *seat,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Node(node) => write!(f, "node {node}"),
            Target::Seat(seat) => write!(f, "seat {}", seat.escape_debug()),
        }
    }
}
