//! The first bytes of each side: who it is, for which lane, and its challenge.
//!
//! ```text
//! offset size
//!      0    2  version of the protocol between members (1)
//!      2    1  lane
//!      3    1  1 if the sender has a secret, else 0
//!      4   32  nonce: random, never used again
//!     36    8  node id
//!     44    8  incarnation
//!     52    4  oldest format of the log that is read
//!     56    4  newest format
//!     60    4  feature level
//!     64       group, seat, build: each a 16-bit length and UTF-8
//!              bytes that a later version may add, passed over
//! ```
//!
//! All numbers are big-endian. A proof covers these bytes as they were sent.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::hello::{Hello, Lane};
use crate::terms::{Cursor, Malformed, TooLong, put_bounded};

/// The version that this code speaks.
pub(super) const VERSION: u16 = 1;
/// Most bytes of the name of a group, of a seat and of a build.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 32;

/// What one side sends first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) lane: Lane,
    pub(super) has_secret: bool,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) hello: Hello,
}

/// Why bytes are no greeting of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GreetingError {
    /// Another version, which may look otherwise from the third byte on.
    #[error("version {0} of the protocol between members")]
    Version(u16),
    /// Not what any member sends.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Greeting {
    /// The bytes. Fails if a name is too long, which those of a member that has started are not.
    pub(super) fn encode(&self) -> Result<Bytes, TooLong> {
        let mut out = BytesMut::with_capacity(128);
        out.put_u16(VERSION);
        out.put_u8(self.lane as u8);
        out.put_u8(u8::from(self.has_secret));
        out.put_slice(&self.nonce);
        let hello = &self.hello;
        out.put_u64(hello.node);
        out.put_u64(hello.incarnation);
        out.put_u32(*hello.formats.start());
        out.put_u32(*hello.formats.end());
        out.put_u32(hello.feature_level);
        put_names(&mut out, hello)?;
        Ok(out.freeze())
    }

    /// Reads what [`encode`](Self::encode) wrote, here or in a later version of the same number.
    pub(super) fn decode(bytes: &[u8]) -> Result<Greeting, GreetingError> {
        let mut cursor = Cursor::new(bytes);
        let version = cursor.u16("version")?;
        if version != VERSION {
            return Err(GreetingError::Version(version));
        }
        let lane = Lane::from_number(cursor.u8("lane")?).ok_or_else(|| cursor.malformed("lane"))?;
        let has_secret = match cursor.u8("mark of a secret")? {
            0 => false,
            1 => true,
            _ => return Err(cursor.malformed("mark of a secret").into()),
        };
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(cursor.take(NONCE_BYTES, "nonce")?);
        let (node, incarnation) = (cursor.u64("node id")?, cursor.u64("incarnation")?);
        let formats = cursor.u32("oldest format")?..=cursor.u32("newest format")?;
        let feature_level = cursor.u32("feature level")?;
        let mut name = |what| {
            let text = cursor.text(what)?;
            if text.len() > NAME_BYTES_MAX { Err(cursor.malformed(what)) } else { Ok(text.to_owned()) }
        };
        let (group, seat, build) = (name("group")?, name("seat")?, name("build")?);
        let hello = Hello { group, node, seat, incarnation, build, formats, feature_level };
        Ok(Greeting { lane, has_secret, nonce, hello })
    }
}

/// Refuses a hello whose names are too long to be sent.
pub(super) fn check(hello: &Hello) -> Result<(), TooLong> {
    put_names(&mut BytesMut::new(), hello)
}

fn put_names(out: &mut BytesMut, hello: &Hello) -> Result<(), TooLong> {
    put_bounded(out, "the name of the group", &hello.group, NAME_BYTES_MAX)?;
    put_bounded(out, "the name of the seat", &hello.seat, NAME_BYTES_MAX)?;
    put_bounded(out, "the version of the program", &hello.build, NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_greeting() -> impl Strategy<Value = Greeting> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
        let names = (".{0,60}", ".{0,60}", ".{0,60}");
        (0..Lane::ALL.len(), any::<bool>(), any::<[u8; NONCE_BYTES]>(), numbers, names).prop_map(
            |(lane, has_secret, nonce, numbers, (group, seat, build))| {
                let (node, incarnation, oldest, newest, feature_level) = numbers;
                let formats = oldest..=newest;
                let hello = Hello { group, node, seat, incarnation, build, formats, feature_level };
                Greeting { lane: Lane::ALL[lane], has_secret, nonce, hello }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(greeting in any_greeting(), more in prop::collection::vec(any::<u8>(), 0..20)) {
            let bytes = greeting.encode().unwrap();
            prop_assert_eq!(Greeting::decode(&bytes), Ok(greeting.clone()));
            let longer = [&bytes[..], &more[..]].concat();
            prop_assert_eq!(Greeting::decode(&longer), Ok(greeting), "a later version adds something");
        }

        #[test]
        fn a_cut_greeting_is_an_error(greeting in any_greeting(), at in any::<prop::sample::Index>()) {
            let bytes = greeting.encode().unwrap();
            prop_assert!(Greeting::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn no_bytes_harm_the_reader(
            greeting in any_greeting(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            random in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = greeting.encode().unwrap().to_vec();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for bytes in [bytes, random.clone(), [&[0, 1][..], &random].concat()] {
                if let Ok(greeting) = Greeting::decode(&bytes) {
                    let again = greeting.encode().expect("what was read is within the limits");
                    prop_assert_eq!(Greeting::decode(&again), Ok(greeting));
                }
            }
        }
    }

    #[test]
    fn another_version_is_named_whatever_follows() {
        assert_eq!(Greeting::decode(&[0, 2]), Err(GreetingError::Version(2)));
        assert!(matches!(Greeting::decode(&[0]), Err(GreetingError::Malformed(_))));
    }

    #[test]
    fn a_name_that_cannot_be_sent_is_told() {
        let hello = Hello {
            group: "g".repeat(256),
            node: 1,
            seat: "n0".to_owned(),
            incarnation: 1,
            build: String::new(),
            formats: 1..=1,
            feature_level: 1,
        };
        assert!(check(&hello).unwrap_err().to_string().contains("the name of the group has 256 bytes"));
        assert_eq!(check(&Hello { group: "g".repeat(255), ..hello }), Ok(()));
    }
}
