//! The bytes of requests between members and of their answers. All numbers are big-endian.
//!
//! ```text
//! request  kind (1 byte)
//!   append     vote, log id before the entries, committed log id, number of entries (4), the entries
//!   (pre-)vote vote, last log id, whether the leader asked for it (1)
//!   transfer   vote of the leader, node that shall lead (8), last log id
//! entry    term (8), index (8), kind of record (1), position (8), checksum (4), length of payload (4), payload
//! answer   kind (1 byte), its fields
//! state    the leader's vote, log id, its address
//! vote     term (8), node (8), whether it is a leader's (1)
//! log id   whether there is one (1), term (8), index (8)
//! ```
//!
//! An entry carries its position and its checksum in the leader's log. The checksum covers everything before it, so a member
//! whose log differs anywhere finds out at the next entry.
//!
//! Requests come from members that have shown that they know the group's secret. They are checked all the same: openraft takes
//! it for granted that entries follow each other.

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};

use super::entry::{LogEntry, Place};
use super::log_store::{payload_of, record_of};
use super::{LogId, TypeConfig, Vote, index_of, log_id, membership};
use crate::log::Record;
use crate::planted::{Bug, planted};
use crate::terms::{Cursor, LogIndex, Malformed, Position, to_u32};

/// What one member asks of another.
pub(super) enum Request {
    /// Take these entries, or none: then it says that the leader lives.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Vote for me.
    Vote(VoteRequest<TypeConfig>),
    /// Would you vote for me?
    PreVote(VoteRequest<TypeConfig>),
    /// Stand for election: I hand over to you.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// Have you applied everything up to here? This leader's log begins after it.
    State {
        /// The leader's vote.
        vote: Vote,
        /// The last entry that its log has lost.
        upto: LogId,
        /// Its address, as the membership has it: a new member knows none yet.
        address: String,
    },
}

/// The answer to a request.
pub(super) enum Answer {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`Request::Transfer`]; the text says why not.
    Transfer(Result<(), String>),
    /// To [`Request::State`]: yes, or this vote is higher.
    State(Vote),
    /// The member could not do it. It is not the end of it: ask again.
    Failed(String),
}

mod tag {
    pub(super) const APPEND: u8 = 1;
    pub(super) const VOTE: u8 = 2;
    pub(super) const PRE_VOTE: u8 = 3;
    pub(super) const TRANSFER: u8 = 4;
    pub(super) const FAILED: u8 = 5;
    pub(super) const STATE: u8 = 6;

    pub(super) const STORED: u8 = 1;
    pub(super) const STORED_UPTO: u8 = 2;
    pub(super) const CONFLICT: u8 = 3;
    pub(super) const HIGHER_VOTE: u8 = 4;
}

/// Bytes of an entry beside its payload.
const ENTRY_BYTES: usize = 8 + 8 + 1 + 8 + 4 + 4;
/// Bytes of a request beside its entries, at most.
const HEAD_BYTES: usize = 64;

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_slice(&membership::encode_vote(vote));
}

fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    out.put_u64(id.map_or(0, |id| id.committed_leader_id().term));
    out.put_u64(id.map_or(0, LogId::index));
}

fn vote(cursor: &mut Cursor<'_>) -> Result<Vote, Malformed> {
    membership::read_vote(cursor)
}

fn some_log_id(cursor: &mut Cursor<'_>) -> Result<Option<LogId>, Malformed> {
    let (is_some, term, index) = (cursor.u8("log id")?, cursor.u64("term")?, cursor.u64("index")?);
    Ok((is_some != 0).then(|| log_id(term, LogIndex(index))))
}

/// The bytes of a request to append.
///
/// # Errors
/// An entry that was not read from the log.
pub(super) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> std::io::Result<Bytes> {
    let payloads = request.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.payload.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    });
    let entries: usize = payloads.map(|bytes| bytes + ENTRY_BYTES).sum();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + entries);
    out.put_u8(tag::APPEND);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    out.put_u32(to_u32(request.entries.len()));
    for entry in &request.entries {
        let place = entry.place.ok_or_else(|| std::io::Error::other("an entry that was not read from the log"))?;
        let record = record_of(entry);
        out.put_u64(record.term);
        out.put_u64(record.index.get());
        out.put_u8(record.kind);
        out.put_u64(place.position.get());
        out.put_u32(place.crc);
        out.put_u32(to_u32(record.payload.len()));
        out.put_slice(&record.payload);
    }
    Ok(out.freeze())
}

/// The bytes of a request for a vote, or whether there would be one.
pub(super) fn encode_vote(request: &VoteRequest<TypeConfig>, is_question: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_u8(if is_question { tag::PRE_VOTE } else { tag::VOTE });
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

/// The bytes of a request to take over.
pub(super) fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_u8(tag::TRANSFER);
    put_vote(&mut out, request.from_leader());
    out.put_u64(*request.to_node_id());
    put_log_id(&mut out, request.last_log_id());
    out.freeze()
}

/// The bytes of the question whether a member has applied everything up to an entry.
pub(super) fn encode_state(vote: &Vote, upto: &LogId, address: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + address.len());
    out.put_u8(tag::STATE);
    put_vote(&mut out, vote);
    put_log_id(&mut out, Some(upto));
    out.put_slice(address.as_bytes());
    out.freeze()
}

/// Reads a request. Payloads are copied out of `bytes`: each would keep all of them in memory while it is in the tail cache.
pub(super) fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let request = match cursor.u8("request")? {
        tag::APPEND => Request::Append(append(&mut cursor)?),
        kind @ (tag::VOTE | tag::PRE_VOTE) => {
            let mut request = VoteRequest::new(vote(&mut cursor)?, some_log_id(&mut cursor)?);
            request.leadership_transfer = cursor.u8("transfer")? != 0;
            if kind == tag::VOTE { Request::Vote(request) } else { Request::PreVote(request) }
        }
        tag::TRANSFER => {
            let (from, to) = (vote(&mut cursor)?, cursor.u64("node")?);
            Request::Transfer(TransferLeaderRequest::new(from, to, some_log_id(&mut cursor)?))
        }
        tag::STATE => {
            let vote = vote(&mut cursor)?;
            let upto = some_log_id(&mut cursor)?.ok_or_else(|| cursor.malformed("log id"))?;
            let address = cursor.take(cursor.remaining(), "address")?;
            Request::State { vote, upto, address: String::from_utf8_lossy(address).into_owned() }
        }
        _ => return Err(cursor.malformed("request")),
    };
    if cursor.remaining() > 0 {
        return Err(cursor.malformed("the request's end"));
    }
    Ok(request)
}

fn append(cursor: &mut Cursor<'_>) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = vote(cursor)?;
    let (prev_log_id, leader_commit) = (some_log_id(cursor)?, some_log_id(cursor)?);
    let count = cursor.u32("number of entries")? as usize;
    if count > cursor.remaining() / ENTRY_BYTES {
        return Err(cursor.malformed("number of entries"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut next = prev_log_id.map_or(LogIndex::ZERO, |id| index_of(&id).next());
    let mut term = prev_log_id.map_or(0, |id| id.committed_leader_id().term);
    let mut position = None;
    for _ in 0..count {
        let entry = entry(cursor)?;
        let place = entry.place.expect("an entry that was sent has its place");
        let follows = entry.index() == next && (term..=vote.leader_id.term).contains(&entry.term());
        if !follows || position.is_some_and(|position| place.position != position) {
            return Err(cursor.malformed("an entry that follows the one before"));
        }
        (next, term, position) = (next.next(), entry.term(), Some(place.end));
        entries.push(entry);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn entry(cursor: &mut Cursor<'_>) -> Result<LogEntry, Malformed> {
    let (term, index, kind) = (cursor.u64("term")?, LogIndex(cursor.u64("index")?), cursor.u8("kind")?);
    let position = Position(cursor.u64("position")?);
    let position = if planted(Bug::PositionOffByOne) { position.advance(1) } else { position };
    let (crc, length) = (cursor.u32("checksum")?, cursor.u32("length")? as usize);
    let payload = Bytes::copy_from_slice(cursor.take(length, "payload")?);
    let record = Record { term, index, kind, position, crc, payload };
    let place = Place::of(&record);
    let payload = payload_of(record).map_err(|_| cursor.malformed("kind of entry"))?;
    Ok(LogEntry::stored(term, index, payload, place))
}

impl Answer {
    /// Its bytes.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        match self {
            Self::Append(answer) => {
                out.put_u8(tag::APPEND);
                match answer {
                    AppendEntriesResponse::Success => out.put_u8(tag::STORED),
                    AppendEntriesResponse::PartialSuccess(upto) => {
                        out.put_u8(tag::STORED_UPTO);
                        put_log_id(&mut out, upto.as_ref());
                    }
                    AppendEntriesResponse::Conflict => out.put_u8(tag::CONFLICT),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.put_u8(tag::HIGHER_VOTE);
                        put_vote(&mut out, vote);
                    }
                }
            }
            Self::Vote(answer) => {
                out.put_u8(tag::VOTE);
                put_vote(&mut out, &answer.vote);
                put_log_id(&mut out, answer.last_log_id.as_ref());
                out.put_u8(u8::from(answer.vote_granted));
            }
            Self::Transfer(answer) => {
                out.put_u8(tag::TRANSFER);
                out.put_slice(answer.as_ref().err().map_or("", String::as_str).as_bytes());
            }
            Self::State(vote) => {
                out.put_u8(tag::STATE);
                put_vote(&mut out, vote);
            }
            Self::Failed(why) => {
                out.put_u8(tag::FAILED);
                out.put_slice(why.as_bytes());
            }
        }
        out.freeze()
    }

    /// Reads an answer.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let rest = |cursor: &mut Cursor<'_>| {
            let text = cursor.take(cursor.remaining(), "reason")?;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        Ok(match cursor.u8("answer")? {
            tag::APPEND => Self::Append(match cursor.u8("answer")? {
                tag::STORED => AppendEntriesResponse::Success,
                tag::STORED_UPTO => AppendEntriesResponse::PartialSuccess(some_log_id(&mut cursor)?),
                tag::CONFLICT => AppendEntriesResponse::Conflict,
                tag::HIGHER_VOTE => AppendEntriesResponse::HigherVote(vote(&mut cursor)?),
                _ => return Err(cursor.malformed("answer")),
            }),
            tag::VOTE => {
                let (vote, last) = (vote(&mut cursor)?, some_log_id(&mut cursor)?);
                Self::Vote(VoteResponse::new(vote, last, cursor.u8("granted")? != 0))
            }
            tag::TRANSFER => {
                let why = rest(&mut cursor)?;
                Self::Transfer(if why.is_empty() { Ok(()) } else { Err(why) })
            }
            tag::STATE => Self::State(vote(&mut cursor)?),
            tag::FAILED => Self::Failed(rest(&mut cursor)?),
            _ => return Err(cursor.malformed("answer")),
        })
    }
}

/// The answer of a member to a request to take over.
pub(super) fn transfer_answer(answer: TransferLeaderResponse<TypeConfig>) -> Answer {
    Answer::Transfer(answer.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::Proposal;

    fn entry_at(term: u64, index: u64, position: u64, payload: &'static [u8]) -> LogEntry {
        let record = Record {
            term,
            index: LogIndex(index),
            kind: 1,
            position: Position(position),
            crc: 77,
            payload: Bytes::from_static(payload),
        };
        let place = Place::of(&record);
        LogEntry::stored(term, LogIndex(index), EntryPayload::Normal(Proposal::stored(record.payload)), place)
    }

    fn request(entries: Vec<LogEntry>) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 9),
            prev_log_id: Some(log_id(2, LogIndex(6))),
            entries,
            leader_commit: Some(log_id(2, LogIndex(5))),
        }
    }

    #[test]
    fn a_request_to_append_is_read_as_it_was_sent() {
        let sent = request(vec![entry_at(2, 7, 100, b"one"), entry_at(3, 8, 163, b"two")]);
        let bytes = encode_append(&sent).unwrap();
        let Ok(Request::Append(read)) = decode(&bytes) else { panic!("it is a request to append") };
        assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        let cases = [
            vec![entry_at(2, 8, 100, b"")],
            vec![entry_at(2, 6, 100, b"")],
            vec![entry_at(1, 7, 100, b"")],
            vec![entry_at(4, 7, 100, b"")],
            vec![entry_at(2, 7, 100, b""), entry_at(2, 9, 160, b"")],
            vec![entry_at(2, 7, 100, b""), entry_at(2, 8, 161, b"")],
            vec![entry_at(3, 7, 100, b""), entry_at(2, 8, 160, b"")],
        ];
        for entries in cases {
            let sent = request(entries);
            assert!(decode(&encode_append(&sent).unwrap()).is_err(), "{sent:?}");
        }
    }

    #[test]
    fn an_entry_that_is_only_proposed_is_not_sent() {
        let mut entry = entry_at(2, 7, 100, b"");
        entry.place = None;
        assert!(encode_append(&request(vec![entry])).is_err());
    }

    #[test]
    fn votes_transfers_and_answers_are_read_as_they_were_sent() {
        for transfer in [false, true] {
            let mut sent = VoteRequest::new(Vote::new(4, 2), Some(log_id(3, LogIndex(1))));
            sent.leadership_transfer = transfer;
            assert!(matches!(decode(&encode_vote(&sent, false)), Ok(Request::Vote(read)) if read == sent));
            assert!(matches!(decode(&encode_vote(&sent, true)), Ok(Request::PreVote(read)) if read == sent));
        }
        let sent = TransferLeaderRequest::new(Vote::new_committed(4, 2), 7, None);
        assert!(matches!(decode(&encode_transfer(&sent)), Ok(Request::Transfer(read)) if read == sent));
        let (vote, upto) = (Vote::new_committed(4, 2), log_id(3, LogIndex(7)));
        let Ok(Request::State { vote: read, upto: last, address }) = decode(&encode_state(&vote, &upto, "n0-a:1"))
        else {
            panic!("it is the question")
        };
        assert_eq!((read, last, address.as_str()), (vote, upto, "n0-a:1"));
        let answers = [
            Answer::State(vote),
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(1, LogIndex(2))))),
            Answer::Append(AppendEntriesResponse::Conflict),
            Answer::Append(AppendEntriesResponse::HigherVote(Vote::new(9, 1))),
            Answer::Vote(VoteResponse::new(Vote::new(9, 1), None, true)),
            Answer::Transfer(Ok(())),
            Answer::Transfer(Err("not now".to_owned())),
            Answer::Failed("the disk is full".to_owned()),
        ];
        for answer in answers {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes).unwrap().encode(), bytes);
        }
        assert!(Answer::decode(&[]).is_err());
        assert!(Answer::decode(&[99]).is_err());
    }
}
