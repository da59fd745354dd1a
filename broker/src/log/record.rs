//! A record, as it is given to the log and as it is read from it.

use bytes::Bytes;

use super::format::{RECORD_HEADER_BYTES, record_bytes};
use crate::terms::{LogIndex, Position};

/// A record to append. Its position is the log's end at that time.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Raft term; never lower than the previous record's.
    pub term: u64,
    /// Raft index; one more than the previous record's.
    pub index: LogIndex,
    /// The kind of the payload, for the caller; the log keeps it without looking at it.
    pub kind: u8,
    /// The payload; shared, not copied.
    pub payload: Bytes,
    /// In a replica: the checksum of this record in the leader's log. An append fails if it would get another one here.
    pub crc: Option<u32>,
}

impl NewRecord {
    /// The bytes that this record will take in the log, by which the position of the next one is larger.
    pub fn bytes(&self) -> u64 {
        Self::bytes_with(self.payload.len())
    }

    /// The bytes that a record with a payload of this length will take.
    pub fn bytes_with(payload_len: usize) -> u64 {
        record_bytes(payload_len)
    }
}

/// A record of the log. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: LogIndex,
    /// The kind of the payload, as given at the append.
    pub kind: u8,
    /// Where the record begins.
    pub position: Position,
    /// Its checksum, which covers all records before it; the same in every replica.
    pub crc: u32,
    /// The payload.
    pub payload: Bytes,
}

impl Record {
    /// The bytes that this record takes in the log.
    pub fn bytes(&self) -> u64 {
        record_bytes(self.payload.len())
    }

    /// Where the record ends and the next one begins.
    pub fn end(&self) -> Position {
        self.position.advance(self.bytes())
    }

    /// Where the first byte of the payload lies: what [`LogReader::read`](super::LogReader::read) takes.
    pub fn payload_position(&self) -> Position {
        self.position.advance(RECORD_HEADER_BYTES)
    }
}

/// Names a record by its Raft coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: LogIndex,
}
