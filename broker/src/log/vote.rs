//! The vote file: the Raft vote, and the one claim about the log that truncation may lower.
//!
//! # Format
//!
//! Two slots of 4096 bytes, at offsets 0 and 4096, with the same content:
//!
//! ```text
//! offset size
//!      0    8  magic "ESCRVOTE"
//!      8    4  format version (1)
//!     12    4  length of the vote, 0xFFFF_FFFF when there is none yet
//!     16    8  sequence number, one more with each save
//!     24    8  durable end of the log when this was saved
//!     32    n  the vote
//!   4092    4  checksum of bytes 0..4092
//! ```
//!
//! A save writes and flushes the first slot, then the second, and only then reports success. So at any time at
//! least one slot is whole (a crash tears the one being written), and once a vote has been reported a single
//! damaged slot costs nothing. Opening takes the newer slot and writes it to both again, so that this
//! holds from the start and also when an earlier flush had failed without our knowing.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::format::{FORMAT_VERSION, get_u32, get_u64, is_zero, put_u32, put_u64};
use super::recovery::io_error;
use crate::planted::{Bug, planted};
use crate::terms::Position;
use crate::terms::to_u32;

const VOTE_FILE: &str = "vote";
const VOTE_MAGIC: &[u8; 8] = b"ESCRVOTE";
const SLOT_BYTES: usize = 4096;
const SLOT_HEADER_BYTES: usize = 32;
const NO_VOTE: u32 = u32::MAX;
/// The largest vote that fits into a slot.
pub(crate) const VOTE_BYTES_MAX: usize = SLOT_BYTES - SLOT_HEADER_BYTES - 4;

/// The content of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    durable_end: Position,
    vote: Option<Vec<u8>>,
}

enum SlotFault {
    Blank,
    Damaged,
    Newer(u32),
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SLOT_BYTES];
        out[0..8].copy_from_slice(VOTE_MAGIC);
        put_u32(&mut out, 8, FORMAT_VERSION);
        put_u64(&mut out, 16, self.sequence);
        put_u64(&mut out, 24, self.durable_end.get());
        match &self.vote {
            Some(vote) => {
                put_u32(&mut out, 12, to_u32(vote.len()));
                out[SLOT_HEADER_BYTES..SLOT_HEADER_BYTES + vote.len()].copy_from_slice(vote);
            }
            None => put_u32(&mut out, 12, NO_VOTE),
        }
        let crc = crc32fast::hash(&out[..SLOT_BYTES - 4]);
        put_u32(&mut out, SLOT_BYTES - 4, crc);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Slot, SlotFault> {
        if is_zero(bytes) {
            return Err(SlotFault::Blank);
        }
        if bytes.len() < SLOT_BYTES
            || &bytes[0..8] != VOTE_MAGIC
            || get_u32(bytes, SLOT_BYTES - 4) != crc32fast::hash(&bytes[..SLOT_BYTES - 4])
        {
            return Err(SlotFault::Damaged);
        }
        let version = get_u32(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(SlotFault::Newer(version));
        }
        let len = get_u32(bytes, 12);
        let vote = match len {
            NO_VOTE => None,
            _ if len as usize <= VOTE_BYTES_MAX => {
                Some(bytes[SLOT_HEADER_BYTES..SLOT_HEADER_BYTES + len as usize].to_vec())
            }
            _ => return Err(SlotFault::Damaged),
        };
        Ok(Slot { sequence: get_u64(bytes, 16), durable_end: Position(get_u64(bytes, 24)), vote })
    }
}

/// The open vote file.
pub(crate) struct VoteFile {
    file: Arc<dyn DiskFile>,
    latest: Slot,
}

impl VoteFile {
    /// Reads the vote file of a log folder, without changing anything; `exists` says whether there is one.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path, exists: bool) -> Result<SavedVote, OpenError> {
        let path = dir.join(VOTE_FILE);
        if !exists {
            return Ok(SavedVote { path, file: None, latest: Slot::default() });
        }
        let file = disk.open(&path).map_err(io_error("open", &path))?;
        let bytes = read_slots(&*file).map_err(io_error("read", &path))?;
        let latest = choose(&path, &bytes)?.unwrap_or_default();
        Ok(SavedVote { path, file: Some(file), latest })
    }

    /// Whether the vote file is among the names of a folder's files.
    pub(crate) fn exists(names: &[String]) -> bool {
        names.iter().any(|name| name == VOTE_FILE)
    }

    /// The slots that are damaged, without judging what that means. A blank slot is not damaged.
    pub(crate) fn damaged_slots(disk: &dyn Disk, dir: &Path, exists: bool) -> Result<Vec<SlotReport>, OpenError> {
        if !exists {
            return Ok(Vec::new());
        }
        let path = dir.join(VOTE_FILE);
        let bytes =
            read_slots(&*disk.open(&path).map_err(io_error("open", &path))?).map_err(io_error("read", &path))?;
        let slots = [0, SLOT_BYTES]
            .into_iter()
            .filter(|at| matches!(Slot::decode(&bytes[*at..*at + SLOT_BYTES]), Err(SlotFault::Damaged)));
        Ok(slots.map(|at| SlotReport { path: path.clone(), offset: at as u64 }).collect())
    }

    /// The last saved vote.
    pub(crate) fn vote(&self) -> Option<&[u8]> {
        self.latest.vote.as_deref()
    }

    /// Saves a vote durably.
    pub(crate) fn save(&mut self, vote: Vec<u8>, durable_end: Position) -> io::Result<()> {
        self.latest = Slot { sequence: self.latest.sequence + 1, durable_end, vote: Some(vote) };
        self.write()
    }

    /// Lowers the claimed durable end, durably. Must precede the removal of flushed records: recovery
    /// would take their absence for damage.
    pub(crate) fn lower_durable_end(&mut self, durable_end: Position) -> io::Result<()> {
        if self.latest.durable_end > durable_end {
            self.latest.durable_end = durable_end;
            self.latest.sequence += 1;
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let slot = self.latest.encode();
        for offset in [0, SLOT_BYTES as u64] {
            self.file.write_vectored_at(&[IoSlice::new(&slot)], offset)?;
            // The second slot is touched only when the first is safe: one of them is whole at any time.
            if !planted(Bug::VoteUnsynced) {
                self.file.sync_data()?;
            }
        }
        Ok(())
    }
}

/// The bytes of a vote file for a copy of a log that ends at `durable_end`.
pub fn encode_vote_file(vote: Option<Vec<u8>>, durable_end: Position) -> Vec<u8> {
    Slot { sequence: 1, durable_end, vote }.encode().repeat(2)
}

/// The bytes of a vote file for a copy of the closed log in `dir`, cut at `end`.
pub fn vote_for_copy(disk: &dyn Disk, dir: &Path, end: Position) -> Result<Vec<u8>, OpenError> {
    Ok(encode_vote_file(saved_vote(disk, dir)?, end))
}

/// The vote that the closed log in `dir` has on its disk.
pub(crate) fn saved_vote(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    Ok(VoteFile::load(disk, dir, VoteFile::exists(&names))?.latest.vote)
}

/// Both slots; a part that lies after the end of the file is blank.
fn read_slots(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2 * SLOT_BYTES];
    let read = file.read_at(&mut bytes, 0)?;
    bytes[read..].fill(0);
    Ok(bytes)
}

/// A damaged slot of the vote file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// The vote file.
    pub path: PathBuf,
    /// Where the slot begins in it.
    pub offset: u64,
}

/// The content of the vote file before it was opened for writing.
pub(crate) struct SavedVote {
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    latest: Slot,
}

impl SavedVote {
    /// The durable end that the newest slot names.
    pub(crate) fn durable_end(&self) -> Position {
        self.latest.durable_end
    }

    /// Makes both slots whole and equal, creating the file if there is none.
    pub(crate) fn open(self, disk: &dyn Disk, dir: &Path) -> Result<VoteFile, OpenError> {
        let SavedVote { path, file, latest } = self;
        let file = match file {
            Some(file) => file,
            None => disk.create(&path).map_err(io_error("create", &path))?,
        };
        // The file always has its full length from here on, so that saving a vote needs no space.
        file.allocate(2 * SLOT_BYTES as u64).map_err(io_error("allocate", &path))?;
        let mut vote_file = VoteFile { file, latest };
        vote_file.write().map_err(io_error("write", &path))?;
        disk.sync_dir(dir).map_err(io_error("flush the folder", dir))?;
        Ok(vote_file)
    }
}

/// The newer of the two slots; `None` if no vote was ever saved.
fn choose(path: &Path, bytes: &[u8]) -> Result<Option<Slot>, OpenError> {
    let slots = [Slot::decode(&bytes[..SLOT_BYTES]), Slot::decode(&bytes[SLOT_BYTES..])];
    let corrupt = |offset: usize, why: &str| OpenError::Corrupt {
        file: PathBuf::from(path),
        offset: offset as u64,
        position: Position::ZERO,
        why: why.into(),
    };
    match slots {
        [Err(SlotFault::Newer(found)), _] | [_, Err(SlotFault::Newer(found))] => {
            Err(OpenError::NewerFormat { file: path.into(), found, known: FORMAT_VERSION })
        }
        [Ok(first), Ok(second)] => Ok(Some(if second.sequence > first.sequence { second } else { first })),
        [Ok(slot), Err(fault)] | [Err(fault), Ok(slot)] => {
            if matches!(fault, SlotFault::Damaged) {
                tracing::warn!(file = %path.display(), "one of the two vote slots was torn or damaged; the other one is used");
            }
            Ok(Some(slot))
        }
        // The first save of all may be torn; the second slot is untouched then.
        [Err(SlotFault::Blank | SlotFault::Damaged), Err(SlotFault::Blank)] => Ok(None),
        [Err(_), Err(SlotFault::Damaged)] => Err(corrupt(SLOT_BYTES, "both vote slots are unreadable")),
    }
}
