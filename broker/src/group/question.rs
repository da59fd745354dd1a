//! What members ask each other about the group itself, on a lane of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::peer::Link;
use crate::terms::{decode_cold, encode_cold};

/// The longest question. The answers come from members that have proven to know the secret.
const BYTES_MAX: usize = 64 << 10;

/// The time for one question: the other side writes to its disk before it promises.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(3);

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
    /// What time is it?
    Time,
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
    /// For those who look at the group.
    pub(super) figures: Figures,
}

/// What tools show of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// The version of its program.
    pub(super) build: String,
    /// Term and index of the last entry of its log; zeros for none.
    pub(super) last: (u64, u64),
    /// Whether it hears from the leader that it knows; of a leader, whether a majority heard from it just now.
    pub(super) hears: bool,
    /// How many milliseconds ago it sent what each other member has answered; only a leader knows.
    pub(super) contacts: BTreeMap<u64, u64>,
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
    /// To [`Question::Time`].
    Time {
        /// Milliseconds since 1970 by the wall clock.
        wall: i64,
    },
    /// To [`Question::Settings`].
    Settings(Vec<String>),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    encode_cold(value).into()
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() > BYTES_MAX { Err("too long".to_owned()) } else { decode_cold(bytes) }
}

/// Asks over a link. The error says in words why there is no answer.
pub(super) async fn ask(link: &Link, question: &Question, time: Duration) -> Result<Answer, String> {
    let answer = link.call(encode(question), time).await.map_err(|error| error.to_string())?;
    decode(&answer)
}

/// Like [`ask`], and waits for a connection first.
pub(super) async fn reach(link: &Link, question: &Question, time: Duration) -> Result<Answer, String> {
    // If it comes to nothing the call says why.
    let _ = tokio::time::timeout(time, link.ready()).await;
    ask(link, question, time).await
}
