//! A run: an immutable file of entries, sorted by hash and then by position, that covers a range of the log.
//!
//! ```text
//! | head (one block) | block | block | ...
//! head:  "ESCROWKEYS" | version u8 | level u8 | entries u64 | first index u64 | last index u64 | last term u64
//!        | start u64 | end u64 | newest stamp u64 | zeros | CRC-32 of all before u32
//! block: up to 204 x (hash u64 | position u64 | seconds u32) | zeros | CRC-32 of all before u32
//! ```
//!
//! Hashes are spread evenly, so a lookup guesses the block and is rarely off by more than one: a filter in front would
//! cost memory for all runs and save one read of a page that is mostly cached. A block is verified when it is read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::Entry;
use crate::terms::{Cursor, LogIndex, Malformed, Position, Stamp};

const MAGIC: &[u8] = b"ESCROWKEYS";
const VERSION: u8 = 1;
/// Bytes of head and blocks alike.
const BLOCK_BYTES: usize = 4096;
const CRC_AT: usize = BLOCK_BYTES - 4;
const ENTRY_BYTES: usize = 20;
const BLOCK_ENTRIES: usize = CRC_AT / ENTRY_BYTES;

/// The end of a run's file name.
const EXTENSION: &str = "run";
/// The end of the name of a file that is being written.
pub(super) const UNFINISHED: &str = "tmp";

/// The part of the log that a run covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Raft index of the first record.
    pub(super) first_index: LogIndex,
    /// Raft index of the last record.
    pub(super) last_index: LogIndex,
    /// Raft term of the last record: tells whether this log is the one that the run was made from.
    pub(super) last_term: u64,
    /// Log position where the first record begins.
    pub(super) start: Position,
    /// Log position after the last record.
    pub(super) end: Position,
    /// Stamp of the last batch.
    pub(super) newest_stamp: Stamp,
}

/// An immutable file of entries.
#[derive(Debug)]
pub(super) struct Run {
    path: PathBuf,
    file: File,
    pub(super) coverage: Coverage,
    /// How often its entries have been merged.
    pub(super) level: u8,
    entries: u64,
}

type Block = [u8; BLOCK_BYTES];

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

fn newer(path: &Path, found: u8) -> io::Error {
    let path = path.display();
    let why =
        format!("{path} has format version {found}, this program knows versions up to {VERSION}; use a newer program");
    io::Error::new(io::ErrorKind::Unsupported, why)
}

impl Run {
    /// Opens the run in a file, and verifies its head and size.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let head = read_block(&file, 0, &path)?;
        let version = head[MAGIC.len()];
        if head.starts_with(MAGIC) && version > VERSION {
            return Err(newer(&path, version));
        }
        let (level, entries, coverage) = decode_head(&head).map_err(|error| damaged(&path, &error.to_string()))?;
        let run = Self { path, file, coverage, level, entries };
        let bytes = run.file.metadata()?.len();
        let expected = run.blocks().checked_add(1).and_then(|blocks| blocks.checked_mul(BLOCK_BYTES as u64));
        if expected != Some(bytes) {
            return Err(damaged(&run.path, "its size is not what its head says"));
        }
        Ok(run)
    }

    /// Reads every block and checks order and count of the entries; the offset in the file and the reason of the first
    /// thing that is wrong.
    pub(super) fn verify(self: &Arc<Self>) -> Result<(), (u64, io::Error)> {
        let mut last = None;
        for (nth, entry) in (0..).zip(self.scan()) {
            let offset = (1 + nth / BLOCK_ENTRIES as u64) * BLOCK_BYTES as u64;
            let entry = entry.map_err(|error| (offset, error))?;
            if last.is_some_and(|last| last > entry) {
                return Err((offset, damaged(&self.path, "its entries are not in order")));
            }
            last = Some(entry);
        }
        Ok(())
    }

    /// Whether a file of this name is a run.
    pub(super) fn is_name(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == EXTENSION)
    }

    /// Deletes the file. Lookups that are under way still see it.
    pub(super) fn delete(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK_ENTRIES as u64)
    }

    /// How many entries a block holds.
    fn entries_of(&self, block: u64) -> usize {
        let before = block * BLOCK_ENTRIES as u64;
        (self.entries - before).min(BLOCK_ENTRIES as u64) as usize
    }

    /// Block number `block`, counted from 0 after the head.
    fn block(&self, block: u64) -> io::Result<Box<Block>> {
        read_block(&self.file, block + 1, &self.path)
    }

    /// The last block that begins at or below `hash`.
    fn last_block_for(&self, hash: u64) -> io::Result<Option<u64>> {
        // Blocks below `low` begin at or below the hash, those from `high` on above it.
        let (mut low, mut high) = (0, self.blocks());
        let guess = (u128::from(hash) * u128::from(high)) >> 64;
        let mut probe = guess as u64;
        let mut stride = 1;
        let mut direction = None;
        while low < high {
            let below = entry_at(&*self.block(probe)?, 0).hash <= hash;
            if below {
                low = probe + 1;
            } else {
                high = probe;
            }
            if direction.is_some_and(|direction| direction != below) {
                // Enclosed from both sides: halve from here on.
                stride = u64::MAX;
            }
            direction = Some(below);
            if stride == u64::MAX {
                probe = low + (high - low) / 2;
            } else {
                probe = if below { low + (stride - 1) } else { high.saturating_sub(stride) };
                probe = probe.clamp(low, high.saturating_sub(1).max(low));
                stride *= 2;
            }
        }
        Ok(low.checked_sub(1))
    }

    /// The entries with this hash, newest first.
    pub(super) fn find(self: &Arc<Self>, hash: u64) -> Hits {
        Hits { run: Arc::clone(self), hash, state: HitsState::Start }
    }

    /// All entries in order, from one sequential pass over the file.
    pub(super) fn scan(self: &Arc<Self>) -> Scan {
        Scan { run: Arc::clone(self), block: Box::new([0; BLOCK_BYTES]), next: 0 }
    }
}

enum HitsState {
    Start,
    /// Entries of this block below `at` have not been given out.
    In {
        number: u64,
        block: Box<Block>,
        at: usize,
    },
    End,
}

/// Entries of one hash in one run, newest first.
pub(super) struct Hits {
    run: Arc<Run>,
    hash: u64,
    state: HitsState,
}

impl Hits {
    /// The run that is looked at.
    pub(super) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    fn enter(&mut self, number: Option<u64>) -> io::Result<()> {
        self.state = HitsState::End;
        if let Some(number) = number {
            let block = self.run.block(number)?;
            let at = upper_bound(&block, self.run.entries_of(number), self.hash);
            self.state = HitsState::In { number, block, at };
        }
        Ok(())
    }

    fn try_next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            match &mut self.state {
                HitsState::Start => {
                    let number = self.run.last_block_for(self.hash)?;
                    self.enter(number)?;
                }
                HitsState::In { block, at, .. } if *at > 0 => {
                    *at -= 1;
                    let entry = entry_at(block, *at);
                    if entry.hash == self.hash {
                        return Ok(Some(entry));
                    }
                    self.state = HitsState::End;
                }
                HitsState::In { number, .. } => {
                    let before = number.checked_sub(1);
                    self.enter(before)?;
                }
                HitsState::End => return Ok(None),
            }
        }
    }
}

impl Iterator for Hits {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        let result = self.try_next();
        if result.is_err() {
            self.state = HitsState::End;
        }
        result.transpose()
    }
}

/// A sequential pass over a run.
pub(super) struct Scan {
    run: Arc<Run>,
    block: Box<Block>,
    next: u64,
}

impl Iterator for Scan {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if self.next == self.run.entries {
            return None;
        }
        let (number, at) = (self.next / BLOCK_ENTRIES as u64, self.next % BLOCK_ENTRIES as u64);
        if at == 0 {
            match self.run.block(number) {
                Ok(block) => self.block = block,
                Err(error) => return Some(Err(error)),
            }
        }
        self.next += 1;
        Some(Ok(entry_at(&self.block, at as usize)))
    }
}

/// How many of the first `count` entries of a block have a hash at or below `hash`.
fn upper_bound(block: &Block, count: usize, hash: u64) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry_at(block, middle).hash <= hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn entry_at(block: &Block, at: usize) -> Entry {
    let bytes = &block[at * ENTRY_BYTES..(at + 1) * ENTRY_BYTES];
    let word = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
    let seconds = u32::from_be_bytes(bytes[16..20].try_into().expect("four bytes"));
    Entry { hash: word(0), position: Position(word(8)), seconds }
}

fn read_block(file: &File, number: u64, path: &Path) -> io::Result<Box<Block>> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    match file.read_exact_at(&mut block[..], number * BLOCK_BYTES as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged(path, "it ends within a block"));
        }
        result => result?,
    }
    if crc32fast::hash(&block[..CRC_AT]).to_be_bytes() != block[CRC_AT..] {
        return Err(damaged(path, &format!("checksum of block {number} is wrong")));
    }
    Ok(block)
}

fn decode_head(head: &Block) -> Result<(u8, u64, Coverage), Malformed> {
    let mut cursor = Cursor::new(head);
    if cursor.take(MAGIC.len(), "magic")? != MAGIC || cursor.u8("version")? == 0 {
        return Err(cursor.malformed("magic or version"));
    }
    let level = cursor.u8("level")?;
    let entries = cursor.u64("entries")?;
    let coverage = Coverage {
        first_index: LogIndex(cursor.u64("first index")?),
        last_index: LogIndex(cursor.u64("last index")?),
        last_term: cursor.u64("last term")?,
        start: Position(cursor.u64("start")?),
        end: Position(cursor.u64("end")?),
        newest_stamp: Stamp(cursor.u64("newest stamp")?),
    };
    if coverage.first_index > coverage.last_index || coverage.start > coverage.end {
        return Err(cursor.malformed("coverage"));
    }
    Ok((level, entries, coverage))
}

fn seal(block: &mut Block) {
    let crc = crc32fast::hash(&block[..CRC_AT]);
    block[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
}

/// Writes one run. Until [`finish`](Self::finish) it has a name that nobody reads; dying before that leaves a file that
/// the next start deletes.
pub(super) struct RunWriter {
    dir: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    block: Box<Block>,
    in_block: usize,
    level: u8,
    entries: u64,
    last: Option<Entry>,
}

impl RunWriter {
    /// Begins a run in `dir`. `name` tells apart the runs that are written at the same time.
    pub(super) fn create(dir: &Path, name: &str, level: u8) -> io::Result<Self> {
        let unfinished = dir.join(name).with_extension(UNFINISHED);
        let mut out = BufWriter::with_capacity(16 * BLOCK_BYTES, File::create(&unfinished)?);
        out.write_all(&[0; BLOCK_BYTES])?;
        let block = Box::new([0; BLOCK_BYTES]);
        Ok(Self { dir: dir.to_owned(), unfinished, out, block, in_block: 0, level, entries: 0, last: None })
    }

    /// Appends an entry; they come in order.
    pub(super) fn push(&mut self, entry: Entry) -> io::Result<()> {
        assert!(self.last.is_none_or(|last| last <= entry), "entries of a run are sorted");
        self.last = Some(entry);
        let bytes = &mut self.block[self.in_block * ENTRY_BYTES..(self.in_block + 1) * ENTRY_BYTES];
        bytes[..8].copy_from_slice(&entry.hash.to_be_bytes());
        bytes[8..16].copy_from_slice(&entry.position.get().to_be_bytes());
        bytes[16..].copy_from_slice(&entry.seconds.to_be_bytes());
        self.in_block += 1;
        self.entries += 1;
        if self.in_block == BLOCK_ENTRIES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        seal(&mut self.block);
        self.out.write_all(&self.block[..])?;
        self.block.fill(0);
        self.in_block = 0;
        Ok(())
    }

    /// Writes the head, makes all of it durable and gives the file its name.
    pub(super) fn finish(mut self, coverage: Coverage) -> io::Result<Run> {
        if self.in_block > 0 {
            self.end_block()?;
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&self.head(&coverage)[..])?;
        self.out.flush()?;
        self.out.get_ref().sync_data()?;
        let name = format!("{:020}-{:020}", coverage.first_index, coverage.last_index);
        let path = self.dir.join(name).with_extension(EXTENSION);
        fs::rename(&self.unfinished, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Run::open(path)
    }

    fn head(&self, coverage: &Coverage) -> Box<Block> {
        let mut head = Box::new([0; BLOCK_BYTES]);
        let numbers = [
            self.entries,
            coverage.first_index.get(),
            coverage.last_index.get(),
            coverage.last_term,
            coverage.start.get(),
            coverage.end.get(),
            coverage.newest_stamp.get(),
        ];
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        head[MAGIC.len()] = VERSION;
        head[MAGIC.len() + 1] = self.level;
        let mut at = MAGIC.len() + 2;
        for number in numbers {
            head[at..at + 8].copy_from_slice(&number.to_be_bytes());
            at += 8;
        }
        seal(&mut head);
        head
    }

    /// Gives the unfinished file up.
    pub(super) fn abandon(self) {
        // The next start deletes what is left.
        let _ = fs::remove_file(&self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVERAGE: Coverage = Coverage {
        first_index: LogIndex(5),
        last_index: LogIndex(9),
        last_term: 2,
        start: Position(100),
        end: Position(900),
        newest_stamp: Stamp(7),
    };

    fn write(dir: &Path, entries: &[Entry]) -> Arc<Run> {
        let mut writer = RunWriter::create(dir, "test", 0).unwrap();
        for entry in entries {
            writer.push(*entry).unwrap();
        }
        Arc::new(writer.finish(COVERAGE).unwrap())
    }

    fn positions(run: &Arc<Run>, hash: u64) -> Vec<Position> {
        run.find(hash).map(|entry| entry.unwrap().position).collect()
    }

    fn spread(count: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..count)
            .map(|n| Entry { hash: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), position: Position(n), seconds: n as u32 })
            .collect();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 203, 204, 205, 5_000] {
            let entries = spread(count);
            let run = write(dir.path(), &entries);
            assert_eq!(run.entries, count);
            for entry in &entries {
                assert_eq!(positions(&run, entry.hash), [entry.position]);
                assert!(positions(&run, entry.hash ^ 1).is_empty());
            }
            assert_eq!(run.scan().map(Result::unwrap).collect::<Vec<_>>(), entries);
            let reopened = Arc::new(Run::open(run.path.clone()).unwrap());
            assert_eq!(reopened.coverage, COVERAGE);
            for hash in [0, 1, u64::MAX / 2, u64::MAX] {
                assert_eq!(positions(&reopened, hash), positions(&run, hash));
            }
        }
    }

    #[test]
    fn a_key_of_very_many_messages_comes_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut entries = spread(1_000);
        let hash = entries[700].hash;
        entries.extend((0..3_000).map(|n| Entry { hash, position: Position(10_000 + n), seconds: 0 }));
        entries.sort_unstable();
        let run = write(dir.path(), &entries);
        let found = positions(&run, hash);
        assert_eq!(found.len(), 3_001);
        assert!(found.is_sorted_by(|a, b| a > b));
        for entry in entries.iter().filter(|entry| entry.hash != hash) {
            assert_eq!(positions(&run, entry.hash), [entry.position]);
        }
    }

    #[test]
    fn hashes_that_are_not_spread_are_found_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let entries: Vec<Entry> =
            (0..4_000).map(|n| Entry { hash: n * 3, position: Position(n), seconds: 0 }).collect();
        let run = write(dir.path(), &entries);
        for entry in &entries {
            assert_eq!(positions(&run, entry.hash), [entry.position]);
            assert!(positions(&run, entry.hash + 1).is_empty());
        }
    }

    #[test]
    fn damage_is_an_error_and_no_wrong_answer() {
        let dir = tempfile::tempdir().unwrap();
        let entries = spread(1_000);
        let run = write(dir.path(), &entries);
        let mut bytes = fs::read(&run.path).unwrap();
        bytes[BLOCK_BYTES + 100] ^= 1;
        fs::write(&run.path, &bytes).unwrap();
        let reopened = Arc::new(Run::open(run.path.clone()).unwrap());
        let error = reopened.find(entries[0].hash).next().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(reopened.scan().any(|entry| entry.is_err()));
        bytes.truncate(bytes.len() - 1);
        fs::write(&run.path, &bytes).unwrap();
        assert!(Run::open(run.path.clone()).is_err());
        bytes[3] ^= 1;
        fs::write(&run.path, &bytes).unwrap();
        assert!(Run::open(run.path.clone()).is_err());
    }

    #[test]
    fn a_run_that_was_not_finished_has_no_run_name() {
        let dir = tempfile::tempdir().unwrap();
        let writer = RunWriter::create(dir.path(), "test", 0).unwrap();
        let path = writer.unfinished.clone();
        assert!(path.exists() && !Run::is_name(&path));
        writer.abandon();
        assert!(!path.exists());
    }
}
