//! The log's bytes on disk. All numbers are big-endian, all checksums CRC-32 (IEEE).
//!
//! # Segment file
//!
//! Name: the position of its first record in 20 decimal digits, then `.log`.
//! A record at position `p` lies at file offset `4096 + (p - start)`. Positions go on without a gap from one segment to
//! the next; after the last record of a segment there is preallocated space (zeros) or a mark.
//!
//! ```text
//! offset size  segment header, one block of 4096 bytes
//!      0    8  magic "ESCROWLG"
//!      8    4  format version (1)
//!     12    4  flags: bit 0 = there is a previous record, bit 1 = the committed index is known
//!     16    8  start: position of the first record, equals the file name
//!     24    8  salt: random, seeds the checksums of this file's local parts and marks
//!     32    8  previous record's term           \
//!     40    8  previous record's index           | the record right before `start`, also when its own
//!     48    8  previous record's position        | segment has been deleted since
//!     56    4  previous record's checksum       /
//!     60    8  committed index known when the segment was created
//!     68 4024  zeros
//!   4092    4  checksum of bytes 0..4092
//! ```
//!
//! # Record
//!
//! ```text
//! offset size  chained part: equal on every replica
//!      0    4  length: bytes of the whole record, 60 + payload
//!      4    4  checksum of bytes 0..4, bytes 8..40 and the payload's own CRC-32 (4 bytes)
//!      8    4  the previous record's checksum; 0 in the first record of all
//!     12    8  Raft term
//!     20    8  Raft index
//!     28    8  position
//!     36    1  record version (1)
//!     37    1  kind: kept, not interpreted
//!     38    2  reserved, zero
//!     40    n  payload
//!              local part: this replica's own knowledge at the time of the write
//!   40+n    8  durable end: everything before this position had been flushed
//!   48+n    8  committed index, all ones when unknown
//!   56+n    4  checksum of salt, position, durable end, committed index
//! ```
//!
//! The checksum covers the previous record's checksum, so records form a chain: bytes left over from another
//! history do not continue it. The payload enters through its own CRC so that the expensive part
//! can be computed before the record's position is known.
//!
//! The local part never decides whether a record is good. It only says what recovery may not cut away. Its
//! checksum is salted because a message's bytes come from outside: without the salt a sender could
//! place a forged local part in a payload, and a torn write in front of it would look like lost data.
//!
//! # Mark
//!
//! Written without a flush right after the last record when the log goes idle; the next record overwrites it (a record
//! is longer than a mark).
//!
//! ```text
//! offset size
//!      0    4  magic 0xE5C0_4D4B, which no length can be
//!      4    4  checksum of salt and bytes 8..32
//!      8    8  position of the mark = end of the last record
//!     16    8  durable end
//!     24    8  committed index, all ones when unknown
//! ```
//!
//! # Vote file
//!
//! See `vote.rs`.

use std::path::{Path, PathBuf};

use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// Bytes of a segment file's header block.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Bytes of a record in front of its payload.
pub const RECORD_HEADER_BYTES: u64 = 40;
/// Bytes of a record after its payload.
pub const LOCAL_BYTES: u64 = 20;
/// Bytes that a record takes beyond its payload.
pub const RECORD_OVERHEAD_BYTES: u64 = RECORD_HEADER_BYTES + LOCAL_BYTES;
/// Bytes of a mark.
pub const MARK_BYTES: u64 = 32;
/// Space kept free at the end of a segment so that a mark always fits without an allocation.
pub const MARK_SLACK_BYTES: u64 = 64;
/// The largest record. Messages are 4 MiB by default, so this is a guard and no working limit.
pub const RECORD_BYTES_MAX: u64 = 256 << 20;
/// The newest format version that this code reads, and the one it writes.
pub const FORMAT_VERSION: u32 = 1;
/// The newest record version that this code reads, and the one it writes.
pub const RECORD_VERSION: u8 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"ESCROWLG";
const MARK_MAGIC: u32 = 0xE5C0_4D4B;
const UNKNOWN_INDEX: LogIndex = LogIndex::MAX;
const FLAG_PREVIOUS: u32 = 1;
const FLAG_COMMITTED: u32 = 2;
const SEGMENT_SUFFIX: &str = ".log";
const SEGMENT_DIGITS: usize = 20;

// The next record must overwrite a mark entirely, else its remains would lie inside that record.
const _: () = assert!(RECORD_OVERHEAD_BYTES >= MARK_BYTES);
// A record's length can never be read as a mark's magic number.
const _: () = assert!(RECORD_BYTES_MAX < MARK_MAGIC as u64);

/// The bytes that a record with a payload of `payload_len` bytes takes on disk, and by which positions advance.
pub const fn record_bytes(payload_len: usize) -> u64 {
    RECORD_OVERHEAD_BYTES + payload_len as u64
}

/// The file name of the segment that starts at `start`.
pub(crate) fn segment_path(dir: &Path, start: Position) -> PathBuf {
    dir.join(segment_file_name(start))
}

/// The name of the segment that starts at `start`, without its folder.
pub fn segment_file_name(start: Position) -> String {
    format!("{:020}{SEGMENT_SUFFIX}", start.get())
}

/// The start position that a file name stands for; `None` for a file that is not a segment.
pub(crate) fn parse_segment_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != SEGMENT_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Position)
}

/// The position of the first record in a segment, from its file name; `None` for a file that is not a segment.
pub fn segment_start(name: &str) -> Option<Position> {
    parse_segment_name(name)
}

/// Identifies the record before a position: what the next record chains to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) term: u64,
    pub(crate) index: LogIndex,
    pub(crate) position: Position,
    pub(crate) crc: u32,
}

/// The header block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) start: Position,
    pub(crate) salt: u64,
    pub(crate) previous: Option<Link>,
    pub(crate) committed: Option<LogIndex>,
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// The block is shorter than a header or all zeros: the file was never begun.
    Blank,
    /// The magic number or the checksum is wrong.
    Damaged,
    /// Written by a newer version of this program.
    Newer(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
        let mut flags = 0;
        block[0..8].copy_from_slice(SEGMENT_MAGIC);
        put_u32(&mut block, 8, FORMAT_VERSION);
        put_u64(&mut block, 16, self.start.get());
        put_u64(&mut block, 24, self.salt);
        if let Some(previous) = self.previous {
            flags |= FLAG_PREVIOUS;
            put_u64(&mut block, 32, previous.term);
            put_u64(&mut block, 40, previous.index.get());
            put_u64(&mut block, 48, previous.position.get());
            put_u32(&mut block, 56, previous.crc);
        }
        if let Some(committed) = self.committed {
            flags |= FLAG_COMMITTED;
            put_u64(&mut block, 60, committed.get());
        }
        put_u32(&mut block, 12, flags);
        let crc = crc32fast::hash(&block[..4092]);
        put_u32(&mut block, 4092, crc);
        block
    }

    pub(crate) fn decode(block: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        if block.len() < to_usize(SEGMENT_HEADER_BYTES) || is_zero(block) {
            return Err(HeaderFault::Blank);
        }
        if &block[0..8] != SEGMENT_MAGIC || get_u32(block, 4092) != crc32fast::hash(&block[..4092]) {
            return Err(HeaderFault::Damaged);
        }
        let version = get_u32(block, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let flags = get_u32(block, 12);
        Ok(SegmentHeader {
            start: Position(get_u64(block, 16)),
            salt: get_u64(block, 24),
            previous: (flags & FLAG_PREVIOUS != 0).then(|| Link {
                term: get_u64(block, 32),
                index: LogIndex(get_u64(block, 40)),
                position: Position(get_u64(block, 48)),
                crc: get_u32(block, 56),
            }),
            committed: (flags & FLAG_COMMITTED != 0).then(|| LogIndex(get_u64(block, 60))),
        })
    }
}

/// The fixed part of a record in front of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes of the whole record.
    pub(crate) length: u32,
    pub(crate) crc: u32,
    pub(crate) previous_crc: u32,
    pub(crate) term: u64,
    pub(crate) index: LogIndex,
    pub(crate) position: Position,
    pub(crate) version: u8,
    pub(crate) kind: u8,
}

impl RecordHeader {
    /// Encodes the header, computing its checksum. `self.crc` is ignored; the computed one is returned.
    pub(crate) fn encode(&self, payload_crc: u32) -> ([u8; to_usize(RECORD_HEADER_BYTES)], u32) {
        let mut out = [0; to_usize(RECORD_HEADER_BYTES)];
        put_u32(&mut out, 0, self.length);
        put_u32(&mut out, 8, self.previous_crc);
        put_u64(&mut out, 12, self.term);
        put_u64(&mut out, 20, self.index.get());
        put_u64(&mut out, 28, self.position.get());
        out[36] = self.version;
        out[37] = self.kind;
        let crc = chained_crc(&out, payload_crc);
        put_u32(&mut out, 4, crc);
        (out, crc)
    }

    /// Reads the fields without judging them. `bytes` holds at least 40 bytes.
    pub(crate) fn decode(bytes: &[u8]) -> RecordHeader {
        RecordHeader {
            length: get_u32(bytes, 0),
            crc: get_u32(bytes, 4),
            previous_crc: get_u32(bytes, 8),
            term: get_u64(bytes, 12),
            index: LogIndex(get_u64(bytes, 20)),
            position: Position(get_u64(bytes, 28)),
            version: bytes[36],
            kind: bytes[37],
        }
    }

    /// Whether the length can be a record's at all. Checked before anything is read by it.
    pub(crate) fn length_is_plausible(&self) -> bool {
        (RECORD_OVERHEAD_BYTES..=RECORD_BYTES_MAX).contains(&u64::from(self.length))
    }

    pub(crate) fn link(&self) -> Link {
        Link { term: self.term, index: self.index, position: self.position, crc: self.crc }
    }
}

/// Whether the chained part of `record` (one whole record) has the checksum that it states.
pub(crate) fn chained_part_is_good(record: &[u8]) -> bool {
    let payload = &record[to_usize(RECORD_HEADER_BYTES)..record.len() - to_usize(LOCAL_BYTES)];
    get_u32(record, 4) == chained_crc(record, crc32fast::hash(payload))
}

fn chained_crc(header: &[u8], payload_crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[0..4]);
    hasher.update(&header[8..to_usize(RECORD_HEADER_BYTES)]);
    hasher.update(&payload_crc.to_be_bytes());
    hasher.finalize()
}

/// This replica's knowledge when it wrote: the local part of a record, and the content of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Everything before this position had been flushed.
    pub(crate) durable_end: Position,
    /// The committed index, if known.
    pub(crate) committed: Option<LogIndex>,
}

impl Claim {
    /// Encodes the local part of the record at `position`.
    pub(crate) fn encode_local(&self, salt: u64, position: Position, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.durable_end.get().to_be_bytes());
        out.extend_from_slice(&self.committed.unwrap_or(UNKNOWN_INDEX).get().to_be_bytes());
        let crc = local_crc(salt, position, &out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// Reads the local part of the record at `position`; `None` if its checksum is wrong.
    pub(crate) fn decode_local(bytes: &[u8], salt: u64, position: Position) -> Option<Claim> {
        (get_u32(bytes, 16) == local_crc(salt, position, &bytes[..16])).then(|| Claim::decode(bytes))
    }

    /// Encodes a mark at `position`.
    pub(crate) fn encode_mark(&self, salt: u64, position: Position) -> [u8; to_usize(MARK_BYTES)] {
        let mut out = [0; to_usize(MARK_BYTES)];
        put_u32(&mut out, 0, MARK_MAGIC);
        put_u64(&mut out, 8, position.get());
        put_u64(&mut out, 16, self.durable_end.get());
        put_u64(&mut out, 24, self.committed.unwrap_or(UNKNOWN_INDEX).get());
        let crc = mark_crc(salt, &out);
        put_u32(&mut out, 4, crc);
        out
    }

    /// Reads the mark at `position`; `None` if the bytes are no mark, or one of another place.
    pub(crate) fn decode_mark(bytes: &[u8], salt: u64, position: Position) -> Option<Claim> {
        let good = bytes.len() >= to_usize(MARK_BYTES)
            && get_u32(bytes, 0) == MARK_MAGIC
            && get_u64(bytes, 8) == position.get()
            && get_u32(bytes, 4) == mark_crc(salt, bytes);
        good.then(|| Claim::decode(&bytes[16..]))
    }

    fn decode(bytes: &[u8]) -> Claim {
        let committed = LogIndex(get_u64(bytes, 8));
        Claim { durable_end: Position(get_u64(bytes, 0)), committed: (committed != UNKNOWN_INDEX).then_some(committed) }
    }
}

fn local_crc(salt: u64, position: Position, fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(&position.get().to_be_bytes());
    hasher.update(fields);
    hasher.finalize()
}

fn mark_crc(salt: u64, mark: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(&mark[8..to_usize(MARK_BYTES)]);
    hasher.finalize()
}

/// Whether all bytes are zero; compares words, because recovery asks it of whole segments.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            length: record_bytes(payload.len()) as u32,
            crc: 0,
            previous_crc: 0x0102_0304,
            term: 5,
            index: LogIndex(6),
            position: Position(7),
            version: RECORD_VERSION,
            kind: 1,
        };
        let (bytes, _) = header.encode(crc32fast::hash(payload));
        let mut out = bytes.to_vec();
        out.extend_from_slice(payload);
        Claim { durable_end: Position(7), committed: Some(LogIndex(3)) }.encode_local(9, Position(7), &mut out);
        out
    }

    #[test]
    fn a_record_has_these_very_bytes() {
        let bytes = record(b"half");
        assert_eq!(bytes.len() as u64, record_bytes(4));
        assert_eq!(&bytes[0..4], &[0, 0, 0, 64]);
        assert_eq!(&bytes[8..12], &[1, 2, 3, 4]);
        assert_eq!(get_u64(&bytes, 12), 5);
        assert_eq!(get_u64(&bytes, 20), 6);
        assert_eq!(get_u64(&bytes, 28), 7);
        assert_eq!(&bytes[36..40], &[1, 1, 0, 0]);
        assert_eq!(&bytes[40..44], b"half");
        assert_eq!(get_u64(&bytes, 44), 7);
        assert_eq!(get_u64(&bytes, 52), 3);
        // Golden checksums: a change of these is a change of the disk format.
        assert_eq!((get_u32(&bytes, 4), get_u32(&bytes, 60)), (0xBFE4_5B12, 0x4D70_162C));
        assert!(chained_part_is_good(&bytes));
        let header = RecordHeader::decode(&bytes);
        assert_eq!((header.term, header.index, header.length), (5, LogIndex(6), 64));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let good = record(b"some payload bytes");
        let local = good.len() - to_usize(LOCAL_BYTES);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if bit / 8 < local {
                assert!(!chained_part_is_good(&bad), "bit {bit} went unseen");
            } else {
                assert_eq!(Claim::decode_local(&bad[local..], 9, Position(7)), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_segment_header_survives_its_encoding_and_shows_every_flip() {
        let header = SegmentHeader {
            start: Position(123_456),
            salt: 77,
            previous: Some(Link { term: 3, index: LogIndex(90), position: Position(123_000), crc: 8 }),
            committed: Some(LogIndex(88)),
        };
        let block = header.encode();
        assert_eq!(SegmentHeader::decode(&block), Ok(header));
        let bare = SegmentHeader { previous: None, committed: None, ..header };
        assert_eq!(SegmentHeader::decode(&bare.encode()), Ok(bare));
        for byte in 0..block.len() {
            let mut bad = block.clone();
            bad[byte] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&bad), Err(HeaderFault::Damaged), "byte {byte}");
        }
        assert_eq!(SegmentHeader::decode(&vec![0; 4096]), Err(HeaderFault::Blank));
        assert_eq!(SegmentHeader::decode(&block[..4000]), Err(HeaderFault::Blank));
    }

    #[test]
    fn a_newer_segment_is_named_as_such() {
        let mut block = SegmentHeader { start: Position(0), salt: 0, previous: None, committed: None }.encode();
        put_u32(&mut block, 8, 2);
        let crc = crc32fast::hash(&block[..4092]);
        put_u32(&mut block, 4092, crc);
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Newer(2)));
    }

    #[test]
    fn a_mark_belongs_to_its_place_and_file() {
        let claim = Claim { durable_end: Position(500), committed: None };
        let mark = claim.encode_mark(4, Position(500));
        assert_eq!(Claim::decode_mark(&mark, 4, Position(500)), Some(claim));
        assert_eq!(Claim::decode_mark(&mark, 5, Position(500)), None);
        assert_eq!(Claim::decode_mark(&mark, 4, Position(501)), None);
        assert!(!RecordHeader { length: get_u32(&mark, 0), ..RecordHeader::decode(&[0; 40]) }.length_is_plausible());
    }

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(parse_segment_name("00000000000000001024.log"), Some(Position(1024)));
        for name in
            ["1024.log", "0000000000000000102x.log", "00000000000000001024.tmp", "vote", "99999999999999999999.log"]
        {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }
}
