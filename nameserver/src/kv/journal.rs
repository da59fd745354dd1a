//! The changes since the file was last written, one after the other.
//!
//! ```text
//!  head:    "ESCKVJ01" | generation u64 | salt u64 | CRC-32 of these
//!  record:  length u32 | CRC-32 of the payload | CRC-32 of salt, position, length and that | payload
//!  payload: changes: 1 (put) or 2 (delete) | namespace | key | value of a put; each text is length u32 | bytes
//! ```
//!
//! All numbers are big-endian. A batch of changes is one record, which is on disk before the next one is written: so only
//! the last record can be torn, by a crash before anybody was told of it. It is cut off. A broken record with a whole one
//! after it is damage, and refused. The salt is random, so that no value can be made to look like a record.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use escrowmq_common::disk::{self, FILE_MODE, Failed, at};
use rustix::fs::{FlockOperation, flock};

use super::KvChange;

const MAGIC: &[u8; 8] = b"ESCKVJ01";
const HEAD: usize = 28;
const RECORD_HEAD: usize = 12;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A journal as it was read.
#[derive(Debug)]
pub(super) struct Contents {
    /// Which file its changes come after.
    pub(super) generation: u64,
    salt: u64,
    /// In order.
    pub(super) changes: Vec<KvChange>,
    /// Bytes up to the end of the last whole record.
    pub(super) length: u64,
    /// Bytes after it: a change that nobody was told of.
    pub(super) torn: u64,
}

/// Reads a journal; the error says what is damaged, and at which byte.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let head: &[u8; HEAD] = bytes.first_chunk().ok_or("it is cut off within its first 28 bytes")?;
    if &head[..8] != MAGIC || crc32fast::hash(&head[..24]) != be32(&head[24..]) {
        return Err("its first 28 bytes are damaged".to_owned());
    }
    let (generation, salt) = (be64(&head[8..16]), be64(&head[16..24]));
    let mut contents = Contents { generation, salt, changes: Vec::new(), length: 0, torn: 0 };
    let mut position = HEAD;
    while position < bytes.len() {
        let Some(payload) = record(bytes, position, salt) else {
            if (position + 1..bytes.len()).any(|later| record(bytes, later, salt).is_some()) {
                return Err(format!("the record at byte {position} is damaged, and there are whole ones behind it"));
            }
            break;
        };
        decode(payload, &mut contents.changes)
            .ok_or_else(|| format!("the record at byte {position} is whole, but has no changes that are known here"))?;
        position += RECORD_HEAD + payload.len();
    }
    contents.length = position as u64;
    contents.torn = (bytes.len() - position) as u64;
    Ok(contents)
}

/// The payload of the record at a position, if there is a whole one.
fn record(bytes: &[u8], position: usize, salt: u64) -> Option<&[u8]> {
    let head: &[u8; RECORD_HEAD] = bytes.get(position..)?.first_chunk()?;
    let (length, sum) = (be32(&head[..4]), be32(&head[4..8]));
    if head_sum(salt, position as u64, &head[..8]) != be32(&head[8..]) {
        return None;
    }
    let payload = bytes.get(position + RECORD_HEAD..)?.get(..length as usize)?;
    (crc32fast::hash(payload) == sum).then_some(payload)
}

fn head_sum(salt: u64, position: u64, head: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&salt.to_be_bytes());
    sum.update(&position.to_be_bytes());
    sum.update(head);
    sum.finalize()
}

/// A journal to append to. The lock on its file keeps other processes from doing the same.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    salt: u64,
    /// Bytes up to the end of the last whole record.
    length: u64,
    /// Whether a write failed: the bytes after `length` are unknown, and nothing more is appended.
    is_broken: bool,
}

impl Journal {
    /// Makes an empty one in the place of any other.
    pub(super) fn create(path: &Path, generation: u64) -> Result<Journal, Failed> {
        let salt = RandomState::new().build_hasher().finish();
        let mut head = Vec::with_capacity(HEAD);
        head.extend(MAGIC);
        head.extend(generation.to_be_bytes());
        head.extend(salt.to_be_bytes());
        head.extend(crc32fast::hash(&head).to_be_bytes());
        disk::replace_file(path, &head, Some(FILE_MODE))?;
        Journal::open(path, salt, HEAD as u64, HEAD as u64)
    }

    /// Goes on with the one that was read, after its last whole record.
    pub(super) fn go_on(path: &Path, contents: &Contents) -> Result<Journal, Failed> {
        Journal::open(path, contents.salt, contents.length, contents.length + contents.torn)
    }

    /// Opens one that is as it was read: `found` bytes long, of which the first `length` stay.
    fn open(path: &Path, salt: u64, length: u64, found: u64) -> Result<Journal, Failed> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(at("open", path))?;
        let theirs = |_| io::Error::other("another nameserver writes it: give each its own kvConfigPath");
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(theirs).map_err(at("lock", path))?;
        // It may have been replaced, or written on, before the lock was ours.
        let (ours, there) = (file.metadata(), path.metadata());
        let is_there = matches!((&ours, &there), (Ok(ours), Ok(there)) if ours.ino() == there.ino());
        let mut head = [0; HEAD];
        let is_as_read = ours.is_ok_and(|ours| ours.len() == found)
            && file.read_exact_at(&mut head, 0).is_ok()
            && be64(&head[16..24]) == salt;
        if !is_there || !is_as_read {
            let changed = io::Error::other("another process has changed it; start again");
            return Err(at("go on with", path)(changed));
        }
        file.set_len(length).map_err(at("cut", path))?;
        file.seek(SeekFrom::Start(length)).map_err(at("open", path))?;
        Ok(Journal { path: path.to_owned(), file, salt, length, is_broken: false })
    }

    /// Bytes that it has.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Whether it can be appended to.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Appends changes; when this returns well they are on disk.
    pub(super) fn append<'a>(&mut self, changes: impl Iterator<Item = &'a KvChange>) -> Result<(), Failed> {
        assert!(!self.is_broken, "nothing is appended behind a write that failed");
        let mut record = vec![0; RECORD_HEAD];
        for change in changes {
            encode(change, &mut record);
        }
        let length = u32::try_from(record.len() - RECORD_HEAD).expect("a batch is far below 4 GiB");
        let sum = crc32fast::hash(&record[RECORD_HEAD..]);
        record[..4].copy_from_slice(&length.to_be_bytes());
        record[4..8].copy_from_slice(&sum.to_be_bytes());
        let sum = head_sum(self.salt, self.length, &record[..8]);
        record[8..RECORD_HEAD].copy_from_slice(&sum.to_be_bytes());

        self.is_broken = true;
        let written = self.file.write_all(&record).map_err(at("write", &self.path));
        let synced = written.and_then(|()| self.file.sync_data().map_err(at("sync", &self.path)));
        if let Err(failed) = synced {
            // As far as that goes: a refused change should not come back with the next start.
            let _ = self.file.set_len(self.length);
            return Err(failed);
        }
        self.is_broken = false;
        self.length += record.len() as u64;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn fail_from_now_on(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

fn encode(change: &KvChange, out: &mut Vec<u8>) {
    let (kind, namespace, key, value) = match change {
        KvChange::Put { namespace, key, value } => (PUT, namespace, key, Some(value)),
        KvChange::Delete { namespace, key } => (DELETE, namespace, key, None),
    };
    out.push(kind);
    for text in [Some(namespace), Some(key), value].into_iter().flatten() {
        out.extend((text.len() as u32).to_be_bytes());
        out.extend(text.as_bytes());
    }
}

fn decode(mut payload: &[u8], changes: &mut Vec<KvChange>) -> Option<()> {
    fn text(payload: &mut &[u8]) -> Option<String> {
        let (length, rest) = payload.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *payload = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    while let Some((kind, rest)) = payload.split_first() {
        payload = rest;
        let (namespace, key) = (text(&mut payload)?, text(&mut payload)?);
        changes.push(match *kind {
            PUT => KvChange::Put { namespace, key, value: text(&mut payload)? },
            DELETE => KvChange::Delete { namespace, key },
            _ => return None,
        });
    }
    Some(())
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(key: &str, value: &str) -> KvChange {
        KvChange::Put { namespace: "N".into(), key: key.into(), value: value.into() }
    }

    fn delete(key: &str) -> KvChange {
        KvChange::Delete { namespace: "N".into(), key: key.into() }
    }

    /// A journal of three records with four changes, its bytes, and where its records begin.
    fn journal() -> (Vec<KvChange>, Vec<u8>, Vec<usize>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let changes = vec![put("k", "1"), put("ö", "two\nlines"), delete("k"), put("k", "")];
        let mut journal = Journal::create(&path, 7).unwrap();
        let mut begins = Vec::new();
        for batch in [&changes[..2], &changes[2..3], &changes[3..]] {
            begins.push(journal.len() as usize);
            journal.append(batch.iter()).unwrap();
        }
        (changes, fs::read(&path).unwrap(), begins)
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let (changes, bytes, _) = journal();
        let contents = read(&bytes).unwrap();
        assert_eq!((contents.generation, contents.torn), (7, 0));
        assert_eq!(contents.changes, changes);
        assert_eq!(contents.length, bytes.len() as u64);
    }

    #[test]
    fn every_cut_leaves_whole_batches_or_is_refused() {
        let (changes, bytes, begins) = journal();
        for cut in 0..bytes.len() {
            let outcome = read(&bytes[..cut]);
            if cut < HEAD {
                assert!(outcome.unwrap_err().contains("cut off"), "{cut}");
                continue;
            }
            let whole = match cut {
                _ if cut < begins[1] => 0,
                _ if cut < begins[2] => 2,
                _ => 3,
            };
            let contents = outcome.unwrap();
            assert_eq!(contents.changes, changes[..whole], "{cut}");
            assert_eq!(contents.length + contents.torn, cut as u64);
        }
    }

    #[test]
    fn a_torn_last_record_is_cut_off_whatever_is_in_it() {
        let (changes, bytes, begins) = journal();
        for torn_from in begins[2]..bytes.len() {
            for byte in [0, 0xff, b'x'] {
                let mut torn = bytes.clone();
                torn[torn_from..].fill(byte);
                if torn != bytes {
                    assert_eq!(read(&torn).unwrap().changes, changes[..3], "{torn_from} {byte}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_record_before_a_whole_one_is_refused() {
        let (_, bytes, begins) = journal();
        for at in 0..begins[2] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let error = read(&damaged).unwrap_err();
            assert!(error.contains("damaged"), "{at}: {error}");
        }
    }

    #[test]
    fn appending_goes_on_behind_the_last_whole_record() {
        let (mut changes, bytes, _) = journal();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let contents = read(&fs::read(&path).unwrap()).unwrap();
        let mut journal = Journal::go_on(&path, &contents).unwrap();
        journal.append([put("new", "v")].iter()).unwrap();
        changes.pop();
        changes.push(put("new", "v"));
        assert_eq!(read(&fs::read(&path).unwrap()).unwrap().changes, changes);
    }

    #[test]
    fn one_process_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let _ours = Journal::create(&path, 0).unwrap();
        let contents = read(&fs::read(&path).unwrap()).unwrap();
        let (step, _, source) = Journal::go_on(&path, &contents).unwrap_err();
        assert_eq!(step, "lock");
        assert!(source.to_string().contains("kvConfigPath"), "{source}");
    }
}
