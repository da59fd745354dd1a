//! Who this member is: a file in its data folder, which is on disk before anything of it is told to others.
//!
//! ```text
//! offset size
//!      0    8  magic "ESCRMEMB"
//!      8    4  checksum (CRC-32) of what follows
//!     12       version and fields, as `terms/cold.rs` encodes them
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::limits::MEMBER;
use crate::planted::{Bug, planted};
use crate::raft::ALONE;
use crate::terms::{FIRST_LEVEL, decode_cold, encode_cold};

const NEW_FILE: &str = "member.new";
const MAGIC: &[u8; 8] = b"ESCRMEMB";
/// The most removed members that are remembered. The oldest are forgotten first: they are refused by Raft all the same.
const REMOVED_MAX: usize = 64;

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberFile {
    /// The group.
    pub(super) group: String,
    /// The Raft id. Drawn for an empty folder, and never used by another one.
    pub(super) node: u64,
    /// The name of its seat.
    pub(super) seat: String,
    /// The founding that this folder belongs to; `None` before it knows one. It is promised to it alone from then on.
    pub(super) incarnation: Option<u64>,
    /// The member that asked for the promise. `None` if the group had been founded already.
    pub(super) founder: Option<u64>,
    /// Whether there has been a log. If it is gone then, this member has forgotten what it promised.
    pub(super) had_log: bool,
    /// The feature level that its log may use.
    pub(super) feature_level: u32,
    /// Ids that were members and are none any more, the newest last.
    pub(super) removed: Vec<u64>,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("the identity of this member, {}: {source}; a retry is safe when that is put right", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is damaged, or of a newer version.
    #[error(
        "the identity of this member, {}, cannot be read: {why}. Empty the whole data folder: the member joins its group again under a new id",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl MemberFile {
    /// The identity of an empty folder.
    pub(super) fn new(group: &str, seat: &str) -> io::Result<Self> {
        Ok(Self {
            group: group.to_owned(),
            node: new_id(seat, draw()?),
            seat: seat.to_owned(),
            incarnation: None,
            founder: None,
            had_log: false,
            feature_level: FIRST_LEVEL,
            removed: Vec::new(),
        })
    }

    /// Remembers that an id was removed; says whether that is news.
    pub(super) fn remove(&mut self, node: u64) -> bool {
        if self.removed.contains(&node) {
            return false;
        }
        if self.removed.len() >= REMOVED_MAX {
            self.removed.remove(0);
        }
        self.removed.push(node);
        true
    }

    /// Reads it from a data folder; `None` if there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(MEMBER);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        decode(&bytes).map(Some).map_err(|why| IdentityError::Damaged { path, why })
    }

    /// Puts it into a data folder. It is on disk when this returns; after an error the one before is, or this one.
    pub(super) fn write(&self, folder: &Path) -> Result<(), IdentityError> {
        let write = || {
            let new = folder.join(NEW_FILE);
            let mut file = File::create(&new)?;
            file.write_all(&self.encode())?;
            file.sync_all()?;
            fs::rename(&new, folder.join(MEMBER))?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| IdentityError::Io { path: folder.join(MEMBER), source })
    }

    fn encode(&self) -> Vec<u8> {
        let body = encode_cold(self);
        let checksum = crc32fast::hash(&body).to_be_bytes();
        [MAGIC.as_slice(), &checksum, &body].concat()
    }
}

fn decode(bytes: &[u8]) -> Result<MemberFile, String> {
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or("it is no such file")?;
    let (checksum, body) = rest.split_at_checked(4).ok_or("it is cut off")?;
    if checksum != crc32fast::hash(body).to_be_bytes() {
        return Err("its checksum is wrong".to_owned());
    }
    decode_cold(body)
}

/// The id of the member of an empty folder at a seat, if this was drawn for it.
pub(crate) fn new_id(seat: &str, drawn: u64) -> u64 {
    if planted(Bug::IdUsedAgain) { seat.bytes().map(u64::from).sum() } else { drawn }
}

/// A number that nobody has drawn before, above [`ALONE`].
pub(super) fn draw() -> io::Result<u64> {
    loop {
        let mut bytes = [0; 8];
        if getrandom(&mut bytes, GetRandomFlags::empty())? == bytes.len() {
            let drawn = u64::from_be_bytes(bytes);
            if drawn > ALONE {
                return Ok(drawn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(MemberFile::read(folder.path()).unwrap(), None);
        let mut member = MemberFile::new("orders", "n0").unwrap();
        member.write(folder.path()).unwrap();
        member.incarnation = Some(7);
        member.founder = Some(member.node);
        assert!(member.remove(3) && !member.remove(3));
        member.write(folder.path()).unwrap();
        assert_eq!(MemberFile::read(folder.path()).unwrap(), Some(member));
    }

    #[test]
    fn two_folders_have_two_ids() {
        let ids: Vec<_> = (0..2).map(|_| MemberFile::new("orders", "n0").unwrap().node).collect();
        assert!(ids[0] != ids[1] && ids.iter().all(|id| *id > ALONE), "{ids:?}");
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let whole = MemberFile::new("orders", "n0").unwrap().encode();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(folder.path().join(MEMBER), &bytes).unwrap();
            let error = MemberFile::read(folder.path()).unwrap_err();
            assert!(error.to_string().contains("Empty the whole data folder"), "{at}: {error}");
            fs::write(folder.path().join(MEMBER), &whole[..at]).unwrap();
            assert!(MemberFile::read(folder.path()).is_err(), "{at}");
        }
    }

    #[test]
    fn removed_ids_are_bounded() {
        let mut member = MemberFile::new("orders", "n0").unwrap();
        for id in 0..2 * REMOVED_MAX as u64 {
            assert!(member.remove(id));
        }
        assert_eq!(member.removed.len(), REMOVED_MAX);
        assert!(!member.remove(2 * REMOVED_MAX as u64 - 1));
    }
}
