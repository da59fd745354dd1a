//! The two ids of a message: where a broker stored it, and the one that its producer gave it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use thiserror::Error;

use super::cursor::Cursor;
use super::host;
use crate::calendar::CalendarTime;
use crate::clock;
use crate::net::outgoing_ip;

/// Digits of an id with an IPv4 address.
const V4_DIGITS: usize = 32;
/// Digits of an id with an IPv6 address.
const V6_DIGITS: usize = 56;

/// The text is not 32 or 56 hexadecimal digits of the expected form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a message id")]
pub struct MessageIdError;

/// The id that a broker gives: its advertised address and the position in its log. Clients take both apart again, to
/// find the broker that has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The broker's advertised address.
    pub host: SocketAddr,
    /// Byte position of the unit in its log.
    pub position: i64,
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; host::V6_BYTES + 8];
        let host_bytes = host::write(host::canonical(self.host), &mut bytes);
        bytes[host_bytes..host_bytes + 8].copy_from_slice(&self.position.to_be_bytes());
        f.write_str(&HexText::new(&bytes[..host_bytes + 8]))
    }
}

impl FromStr for OffsetMessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let bytes = DecodedId::new(text)?;
        let mut cursor = Cursor::new(bytes.as_slice());
        let host = host::read(&mut cursor, bytes.is_v6()).ok_or(MessageIdError)?;
        let position = cursor.i64().ok_or(MessageIdError)?;
        Ok(Self { host, position })
    }
}

/// An id given by a producer, as text on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UniqueId(HexText);

impl Deref for UniqueId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UniqueId {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The parts that the usual producers put into a unique id. Others use their own forms, so an id that does not parse is
/// still a good id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueIdParts {
    /// Address of the producer's machine, or random bytes if it had none.
    pub ip: IpAddr,
    /// Low 16 bits of the producer's process id.
    pub process: u16,
    /// Tells apart several generators in one process.
    pub generator: u32,
    /// Milliseconds since the first of the month. Which month, and in which time zone, is not said.
    pub month_millis: u32,
    /// Counter of the generator; wraps.
    pub counter: u16,
}

impl FromStr for UniqueIdParts {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let bytes = DecodedId::new(text)?;
        Self::read(&bytes).ok_or(MessageIdError)
    }
}

impl UniqueIdParts {
    fn read(bytes: &DecodedId) -> Option<Self> {
        let mut cursor = Cursor::new(bytes.as_slice());
        let ip = if bytes.is_v6() {
            Ipv6Addr::from(cursor.array::<16>()?).into()
        } else {
            Ipv4Addr::from(cursor.array::<4>()?).into()
        };
        Some(Self {
            ip,
            process: cursor.i16()? as u16,
            generator: cursor.i32()? as u32,
            month_millis: cursor.i32()? as u32,
            counter: cursor.i16()? as u16,
        })
    }
}

/// Makes unique ids. One per process is enough ([`unique_id`]); it takes no lock.
///
/// Two ids of one generator differ as long as fewer than 65,536 are made in one millisecond, and two generators differ
/// in their random part even on machines that share an address. The same instant comes again only in another month.
#[derive(Debug)]
pub struct UniqueIds {
    /// Address, process, generator; the part that never changes.
    prefix: [u8; 22],
    prefix_bytes: usize,
    counter: AtomicU16,
}

impl UniqueIds {
    /// A generator that puts `ip` in front of its ids.
    pub fn new(ip: IpAddr) -> Self {
        let mut prefix = [0; 22];
        let ip_bytes = match ip.to_canonical() {
            IpAddr::V4(ip) => {
                prefix[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                prefix[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        let process = std::process::id() as u16;
        prefix[ip_bytes..ip_bytes + 2].copy_from_slice(&process.to_be_bytes());
        let generator = random() as u32;
        prefix[ip_bytes + 2..ip_bytes + 6].copy_from_slice(&generator.to_be_bytes());
        Self { prefix, prefix_bytes: ip_bytes + 6, counter: AtomicU16::new(0) }
    }

    /// The next id.
    pub fn next_id(&self) -> UniqueId {
        self.at(clock::wall_ms())
    }

    fn at(&self, millis: i64) -> UniqueId {
        let mut bytes = [0; 28];
        let prefix = &self.prefix[..self.prefix_bytes];
        bytes[..prefix.len()].copy_from_slice(prefix);
        let month_millis = (millis - month_start(millis)) as u32;
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let at = prefix.len();
        bytes[at..at + 4].copy_from_slice(&month_millis.to_be_bytes());
        bytes[at + 4..at + 6].copy_from_slice(&counter.to_be_bytes());
        UniqueId(HexText::new(&bytes[..at + 6]))
    }
}

/// The next id of this process.
pub fn unique_id() -> UniqueId {
    static PROCESS: OnceLock<UniqueIds> = OnceLock::new();
    // Without a network any four bytes serve, as long as another process draws others.
    let address = || outgoing_ip().unwrap_or_else(|| Ipv4Addr::from(random() as u32).into());
    PROCESS.get_or_init(|| UniqueIds::new(address())).next_id()
}

/// The standard library seeds its hash maps from the system's randomness.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// First millisecond of the month, in UTC, that `millis` lies in.
fn month_start(millis: i64) -> i64 {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    millis - millis.rem_euclid(DAY) - (CalendarTime::of(millis).day - 1) * DAY
}

/// Upper-case hexadecimal text of up to 28 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct HexText {
    digits: [u8; V6_DIGITS],
    length: u8,
}

impl HexText {
    fn new(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut digits = [b'0'; V6_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self { digits, length: (bytes.len() * 2) as u8 }
    }
}

impl Deref for HexText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.digits[..usize::from(self.length)]).expect("digits are ASCII")
    }
}

/// The bytes of an id of 32 or 56 digits.
struct DecodedId {
    bytes: [u8; V6_DIGITS / 2],
    length: usize,
}

impl DecodedId {
    fn new(text: &str) -> Result<Self, MessageIdError> {
        let digits = text.as_bytes();
        if digits.len() != V4_DIGITS && digits.len() != V6_DIGITS {
            return Err(MessageIdError);
        }
        let mut bytes = [0; V6_DIGITS / 2];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self { bytes, length: digits.len() / 2 })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn is_v6(&self) -> bool {
        self.length * 2 == V6_DIGITS
    }
}

fn nibble(digit: u8) -> Result<u8, MessageIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(MessageIdError),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn offset_ids_are_read_back() {
        for host in ["192.0.2.1:10911", "[2001:db8::1]:65535"] {
            let id = OffsetMessageId { host: host.parse().unwrap(), position: i64::MAX };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in ["", "C0", "zz000201 0002A9F00000000075BCD15", &"0".repeat(33)] {
            assert_eq!(bad.parse::<OffsetMessageId>(), Err(MessageIdError));
        }
    }

    #[test]
    fn unique_ids_differ_and_can_be_taken_apart() {
        let ids = UniqueIds::new("192.0.2.7".parse().unwrap());
        let first: UniqueIdParts = ids.next_id().parse().unwrap();
        assert_eq!(first.ip, "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(first.process, std::process::id() as u16);
        assert!(u64::from(first.month_millis) < 31 * 86_400_000);
        let second: UniqueIdParts = ids.next_id().parse().unwrap();
        assert_eq!(second.counter, first.counter + 1);
        assert_eq!(second.generator, first.generator);
        let wide = UniqueIds::new("fd00::2".parse().unwrap()).next_id();
        assert_eq!(wide.len(), 56);
        assert_eq!(wide.parse::<UniqueIdParts>().unwrap().ip, "fd00::2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn threads_never_get_the_same_id() {
        let made: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..5000).map(|_| unique_id()).collect::<Vec<_>>())).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 20_000);
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        let day = 86_400_000;
        // 2024-02-29 12:00, 2024-03-01 00:00, 1970-01-31 23:59:59.999, 2023-11-14 22:13:20.
        assert_eq!(month_start(19_782 * day + day / 2), 19_754 * day);
        assert_eq!(month_start(19_783 * day), 19_783 * day);
        assert_eq!(month_start(31 * day - 1), 0);
        assert_eq!(month_start(1_700_000_000_000), 1_698_796_800_000);
    }
}
