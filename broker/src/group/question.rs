//! What members ask each other about the group itself, on a lane of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::peer::Link;
use crate::terms::{decode_cold, encode_cold};

/// The longest question. The answers come from members that have proven to know the secret.
const BYTES_MAX: usize = 64 << 10;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Who are you, and what do you know of the group?
    Status,
    /// Do you take part in this founding, and in no other one?
    Promise(Founding),
    /// Will you take me in? To the leader.
    Join {
        /// Seat and address, as in `dLegerPeers`.
        address: String,
    },
    /// To which keys of the group's settings does your own file give another value? Since feature level 2.
    Settings,
}

/// A founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founding {
    /// Its number; no other founding has it.
    pub(super) incarnation: u64,
    /// The member that founds.
    pub(super) founder: u64,
    /// All founders, with seats and addresses.
    pub(super) members: BTreeMap<u64, String>,
}

/// What a member knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status {
    /// Its Raft id.
    pub(super) node: u64,
    /// The name of its seat.
    pub(super) seat: String,
    /// Its `dLegerPeers`, ordered by number.
    pub(super) peers: String,
    /// The founding that it belongs to, if it knows one.
    pub(super) incarnation: Option<u64>,
    /// Who asked it to promise that founding.
    pub(super) founder: Option<u64>,
    /// Whether it has a log or has voted: then the group is founded.
    pub(super) has_log: bool,
    /// Its term.
    pub(super) term: u64,
    /// The leader of that term, with seat and address.
    pub(super) leader: Option<(u64, String)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Question::Status`].
    Status(Status),
    /// The promise is on disk.
    Promised,
    /// The asker is a member of this incarnation.
    Taken {
        /// The incarnation.
        incarnation: u64,
    },
    /// No, for this reason. The same question may be answered otherwise later.
    No(String),
    /// To [`Question::Settings`].
    Settings(Vec<String>),
}

/// Asks; the error is for people.
pub(super) async fn ask(link: &Link, question: &Question, time: Duration) -> Result<Answer, String> {
    let answer = link.call(encode(question), time).await.map_err(|error| error.to_string())?;
    decode(&answer)
}

pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    encode_cold(value).into()
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() > BYTES_MAX { Err("too long".to_owned()) } else { decode_cold(bytes) }
}
