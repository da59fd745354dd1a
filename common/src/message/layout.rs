//! Where the fields of a unit lie, and how to change those that a broker learns only after it stored the unit.

use std::ops::Range;

use super::cursor::Cursor;
use super::host;
use super::sys_flag::{SysFlag, TransactionType};
use super::unit::UnitError;
use crate::limits;

/// Byte offsets of the fields that lie at the same place in every unit. All numbers are big-endian.
pub mod field {
    /// i32: size of the whole unit, these four bytes included.
    pub const TOTAL_SIZE: usize = 0;
    /// u32: [`MAGIC_V1`] or [`MAGIC_V2`].
    pub const MAGIC: usize = 4;
    /// u32, top bit clear: CRC-32 of the body as stored.
    pub const BODY_CRC: usize = 8;
    /// i32.
    pub const QUEUE_ID: usize = 12;
    /// i32, the user's own.
    pub const FLAG: usize = 16;
    /// i64.
    pub const QUEUE_OFFSET: usize = 20;
    /// i64: where the unit lies in the log. Other brokers call it commit-log or physical offset.
    pub const POSITION: usize = 28;
    /// i32, see [`super::SysFlag`].
    pub const SYS_FLAG: usize = 36;
    /// i64, milliseconds since 1970 by the producer's clock.
    pub const BORN_TIMESTAMP: usize = 40;
    /// 8 or 20 bytes; everything after it shifts with its width.
    pub const BORN_HOST: usize = 48;

    /// Units whose topic has at most 127 bytes.
    pub const MAGIC_V1: u32 = 0xDAA3_20A7;
    /// Units with two bytes of topic length.
    pub const MAGIC_V2: u32 = 0xDAA3_20AB;
}

/// Longest topic that fits into a first-version unit: other readers take the length byte for signed.
pub(super) const TOPIC_V1_BYTES_MAX: usize = 127;
/// Longest topic and longest property string that the encoding can hold at all, in bytes.
pub(super) const SHORT_BYTES_MAX: usize = i16::MAX as usize;

// The texts of any request fit into the length fields of a unit and of a batch; created names fit into the first version.
const _: () = {
    assert!(limits::NAMED_TOPIC_BYTES_MAX <= SHORT_BYTES_MAX && limits::PROPERTIES_BYTES_MAX <= SHORT_BYTES_MAX);
    assert!(limits::TOPIC_BYTES_MAX <= TOPIC_V1_BYTES_MAX);
};

/// The fields after the two hosts, counted from the start of a unit.
///
/// Made from a unit's own bytes ([`UnitLayout::of`]); every range in it lies inside those bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitLayout {
    /// Offset of the store timestamp, i64.
    pub store_timestamp: usize,
    /// Offset of the store host.
    pub store_host: usize,
    /// Offset of the reconsume count, i32.
    pub reconsume_times: usize,
    /// Offset of the prepared transaction offset, i64.
    pub prepared_offset: usize,
    /// The body, without its length field.
    pub body: Range<usize>,
    /// The topic, without its length field.
    pub topic: Range<usize>,
    /// The property string, without its length field.
    pub properties: Range<usize>,
    /// Size of the whole unit in bytes.
    pub total: usize,
}

/// Offsets that depend on the width of the hosts alone.
#[derive(Clone, Copy)]
struct AfterHosts {
    store_timestamp: usize,
    store_host: usize,
    reconsume_times: usize,
    prepared_offset: usize,
    body_length: usize,
}

impl AfterHosts {
    fn new(sys_flag: SysFlag) -> Self {
        let store_timestamp = field::BORN_HOST + host::width(sys_flag.is_born_host_v6());
        let store_host = store_timestamp + 8;
        let reconsume_times = store_host + host::width(sys_flag.is_store_host_v6());
        let prepared_offset = reconsume_times + 4;
        Self { store_timestamp, store_host, reconsume_times, prepared_offset, body_length: prepared_offset + 8 }
    }
}

impl UnitLayout {
    /// The layout of the unit at the start of `bytes`, which may hold more after it. Checks every length: the fields
    /// must fill the declared size exactly.
    pub fn of(bytes: &[u8]) -> Result<Self, UnitError> {
        let mut cursor = Cursor::new(bytes);
        let short = UnitError::Truncated { available: bytes.len() };
        let (Some(declared), Some(magic)) = (cursor.i32(), cursor.i32()) else {
            return Err(short);
        };
        let magic = magic as u32;
        if magic != field::MAGIC_V1 && magic != field::MAGIC_V2 {
            return Err(UnitError::UnknownMagic(magic));
        }
        let total = usize::try_from(declared).map_err(|_| UnitError::Size(declared))?;
        let unit = bytes.get(..total).ok_or(short)?;
        Self::within(unit, magic).ok_or(UnitError::Size(declared))
    }

    /// `unit` is exactly the declared bytes. `None` if the fields do not fill them.
    fn within(unit: &[u8], magic: u32) -> Option<Self> {
        let sys_flag = SysFlag(Cursor::at(unit, field::SYS_FLAG).i32()?);
        let after = AfterHosts::new(sys_flag);
        let mut cursor = Cursor::at(unit, after.body_length);
        let body_bytes = cursor.i32()?;
        let body = span(&mut cursor, usize::try_from(body_bytes).ok()?)?;
        let topic_bytes = if magic == field::MAGIC_V1 {
            // Other readers take the byte for signed; nobody writes such a unit.
            let bytes = usize::from(cursor.u8()?);
            (bytes <= TOPIC_V1_BYTES_MAX).then_some(bytes)?
        } else {
            usize::try_from(cursor.i16()?).ok()?
        };
        let topic = span(&mut cursor, topic_bytes)?;
        let property_bytes = cursor.i16()?;
        let properties = span(&mut cursor, usize::try_from(property_bytes).ok()?)?;
        (properties.end == unit.len()).then_some(Self {
            store_timestamp: after.store_timestamp,
            store_host: after.store_host,
            reconsume_times: after.reconsume_times,
            prepared_offset: after.prepared_offset,
            body,
            topic,
            properties,
            total: unit.len(),
        })
    }
}

fn span(cursor: &mut Cursor<'_>, bytes: usize) -> Option<Range<usize>> {
    let start = cursor.position();
    cursor.take(bytes)?;
    Some(start..cursor.position())
}

/// The values that a broker puts into its copy of a stored unit when it hands the message out.
///
/// A unit is stored before its place in a queue is known, so these fields hold placeholders in the log. The body and
/// its CRC, the topic, the properties and the hosts stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitPatch {
    /// Queue that the message is read from.
    pub queue_id: i32,
    /// Its number in that queue.
    pub queue_offset: i64,
    /// Where the unit lies in the log, in bytes.
    pub position: i64,
    /// The transaction bits; all other bits of the system flag belong to the producer and stay.
    pub transaction: TransactionType,
    /// Milliseconds since 1970 by the broker's clock.
    pub store_timestamp: i64,
    /// Position of the half message of a committed message, else 0.
    pub prepared_offset: i64,
}

impl UnitPatch {
    /// Writes the fields into the unit at the start of `unit`, in constant time whatever the unit's size.
    ///
    /// Fails, changing nothing, if the bytes do not begin with a unit's magic or end before the patched fields do. The
    /// variable part is not looked at.
    pub fn apply(&self, unit: &mut [u8]) -> Result<(), UnitError> {
        let short = UnitError::Truncated { available: unit.len() };
        let mut head = Cursor::at(unit, field::MAGIC);
        let magic = head.i32().ok_or(short)? as u32;
        if magic != field::MAGIC_V1 && magic != field::MAGIC_V2 {
            return Err(UnitError::UnknownMagic(magic));
        }
        let short = UnitError::Truncated { available: unit.len() };
        let sys_flag = SysFlag(Cursor::at(unit, field::SYS_FLAG).i32().ok_or(short)?);
        let after = AfterHosts::new(sys_flag);
        if unit.len() < after.body_length {
            return Err(UnitError::Truncated { available: unit.len() });
        }
        put(unit, field::QUEUE_ID, self.queue_id.to_be_bytes());
        put(unit, field::QUEUE_OFFSET, self.queue_offset.to_be_bytes());
        put(unit, field::POSITION, self.position.to_be_bytes());
        let sys_flag = sys_flag.with_transaction(self.transaction);
        put(unit, field::SYS_FLAG, sys_flag.0.to_be_bytes());
        put(unit, after.store_timestamp, self.store_timestamp.to_be_bytes());
        put(unit, after.prepared_offset, self.prepared_offset.to_be_bytes());
        Ok(())
    }
}

fn put<const N: usize>(unit: &mut [u8], at: usize, value: [u8; N]) {
    unit[at..at + N].copy_from_slice(&value);
}
