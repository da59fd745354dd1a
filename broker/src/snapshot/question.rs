//! What a member asks for, and what it is told.
//!
//! ```text
//! answer   0, a cold value          or   1, checksum of the bytes (4), the bytes
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Cut;
use crate::terms::{decode_cold, encode_cold};

/// Bytes of a file that are told at once.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// Most files of a copy. An index of 100 GB has some thousand.
const FILES_MAX: usize = 100_000;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Which copy is there? An earlier offer to the same member ends.
    Offer,
    /// Up to [`CHUNK_BYTES`] of a file.
    Read {
        /// The number of the offer.
        offer: u64,
        /// The file's place in the list.
        file: u32,
        /// Where to begin.
        offset: u64,
    },
    /// The copy is whole.
    Done {
        /// The number of the offer.
        offer: u64,
    },
}

/// A copy that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Its number.
    pub(super) number: u64,
    /// The entry that it ends with.
    pub(super) cut: Cut,
    /// Its files.
    pub(super) files: Vec<OfferedFile>,
}

/// A file of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OfferedFile {
    /// Its name in the store: folder, a slash, name.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To [`Ask::Offer`].
    Offer(Offer),
    /// To [`Ask::Read`].
    Bytes(Bytes),
    /// To [`Ask::Done`].
    Fine,
    /// There is no such offer any more.
    Gone,
    /// Not now, for this reason.
    No(String),
}

#[derive(Serialize, Deserialize)]
enum Cold {
    Offer(Offer),
    Fine,
    Gone,
    No(String),
}

impl Ask {
    pub(super) fn encode(&self) -> Bytes {
        encode_cold(self).into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        decode_cold(bytes)
    }
}

impl Told {
    pub(super) fn encode(self) -> Bytes {
        let cold = match self {
            Self::Bytes(bytes) => {
                let mut out = BytesMut::with_capacity(5 + bytes.len());
                out.put_u8(1);
                out.put_u32(crc32fast::hash(&bytes));
                out.put_slice(&bytes);
                return out.freeze();
            }
            Self::Offer(offer) => Cold::Offer(offer),
            Self::Fine => Cold::Fine,
            Self::Gone => Cold::Gone,
            Self::No(why) => Cold::No(why),
        };
        let mut out = vec![0];
        out.extend(encode_cold(&cold));
        out.into()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, String> {
        match bytes.first() {
            Some(0) => Ok(match decode_cold(&bytes[1..])? {
                Cold::Offer(offer) => Self::Offer(offer.checked()?),
                Cold::Fine => Self::Fine,
                Cold::Gone => Self::Gone,
                Cold::No(why) => Self::No(why),
            }),
            Some(1) if bytes.len() >= 5 => {
                let body = bytes.slice(5..);
                let sum = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
                let is_whole = crc32fast::hash(&body) == sum && body.len() <= CHUNK_BYTES;
                if is_whole { Ok(Self::Bytes(body)) } else { Err("bytes that changed on the way".to_owned()) }
            }
            _ => Err("no answer about a copy of the state".to_owned()),
        }
    }
}

impl Offer {
    /// Names lead into the store and nowhere else.
    fn checked(self) -> Result<Self, String> {
        let is_name = |name: &str| {
            let Some((folder, file)) = name.split_once('/') else { return false };
            let is_plain = !file.is_empty() && !file.contains('/') && !file.starts_with('.');
            super::place::FOLDERS.contains(&folder) && is_plain && name != super::place::VOTE
        };
        if self.files.len() > FILES_MAX {
            return Err(format!("it has {} files", self.files.len()));
        }
        match self.files.iter().find(|file| !is_name(&file.name)) {
            Some(file) => Err(format!("{:?} is the name of no file of a store", file.name)),
            None => Ok(self),
        }
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}
