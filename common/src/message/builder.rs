//! Writing a unit in one pass.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};

use super::host;
use super::layout::{SHORT_BYTES_MAX, TOPIC_V1_BYTES_MAX, field};
use super::sys_flag::SysFlag;
use super::unit::{MessageUnit, UnitError, body_crc};

/// The parts of a unit, borrowed from wherever they are.
///
/// [`UnitBuilder::write`] copies each part once. Properties come in pieces, so that a broker adds its own after the
/// producer's string without joining them first; pieces that follow one another must be separated by 0x02 as
/// [`super::properties`] describes.
#[derive(Clone, Copy, Debug)]
pub struct UnitBuilder<'a> {
    /// Topic; above 127 bytes the second encoding is used, which old clients cannot read.
    pub topic: &'a str,
    /// Queue, or a placeholder.
    pub queue_id: i32,
    /// The user's own flag.
    pub flag: i32,
    /// Number in the queue, or a placeholder.
    pub queue_offset: i64,
    /// Position in the log, or a placeholder.
    pub position: i64,
    /// Compression and transaction bits. The two host bits are set from the hosts.
    pub sys_flag: SysFlag,
    /// Milliseconds since 1970 by the producer's clock.
    pub born_timestamp: i64,
    /// The producer's address. IPv4 inside IPv6 is written as IPv4.
    pub born_host: SocketAddr,
    /// Milliseconds since 1970 by the broker's clock, or a placeholder.
    pub store_timestamp: i64,
    /// The broker's advertised address.
    pub store_host: SocketAddr,
    /// How often the message has been sent back.
    pub reconsume_times: i32,
    /// Position of the half message, else 0.
    pub prepared_offset: i64,
    /// Body as it is to be stored.
    pub body: &'a [u8],
    /// Checksum of the body if it is known already; computed otherwise.
    pub body_crc: Option<u32>,
    /// The property string, in pieces.
    pub properties: &'a [&'a str],
}

/// Everything in front of the body, with both hosts at their widest: total size to body length.
const HEAD_BYTES_MAX: usize = field::BORN_HOST + 2 * host::V6_BYTES + 8 + 4 + 8 + 4;

impl<'a> UnitBuilder<'a> {
    /// A unit of the broker's own that is to be stored. Queue offset, position and time of storing are placeholders, which the
    /// write path replaces; a message of a producer replaces flags, born time and born host as well.
    pub fn to_store(
        topic: &'a str,
        queue_id: i32,
        host: SocketAddr,
        body: &'a [u8],
        properties: &'a [&'a str],
    ) -> Self {
        Self {
            topic,
            queue_id,
            flag: 0,
            queue_offset: 0,
            position: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 0,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body,
            body_crc: None,
            properties,
        }
    }

    /// The parts of `unit` with another topic and other properties, for a message that is written again (retries,
    /// dead letters, checks). The checksum is taken over, because the body is.
    pub fn rewrite(unit: &MessageUnit<'a>, topic: &'a str, properties: &'a [&'a str]) -> Self {
        Self {
            topic,
            queue_id: unit.queue_id(),
            flag: unit.flag(),
            queue_offset: unit.queue_offset(),
            position: unit.position(),
            sys_flag: unit.sys_flag(),
            born_timestamp: unit.born_timestamp(),
            born_host: unit.born_host(),
            store_timestamp: unit.store_timestamp(),
            store_host: unit.store_host(),
            reconsume_times: unit.reconsume_times(),
            prepared_offset: unit.prepared_offset(),
            body: unit.body(),
            body_crc: Some(unit.body_crc()),
            properties,
        }
    }

    /// Size of the unit in bytes. Fails if a part does not fit into its length field.
    pub fn size(&self) -> Result<usize, UnitError> {
        let property_bytes = self.properties.iter().map(|piece| piece.len()).sum();
        check("topic", self.topic.len(), SHORT_BYTES_MAX)?;
        check("properties", property_bytes, SHORT_BYTES_MAX)?;
        let hosts = width_of(self.born_host) + width_of(self.store_host);
        let around_body = HEAD_BYTES_MAX - 2 * host::V6_BYTES
            + hosts
            + self.topic_length_bytes()
            + self.topic.len()
            + 2
            + property_bytes;
        check("body", self.body.len(), i32::MAX as usize - around_body)?;
        Ok(around_body + self.body.len())
    }

    /// Appends the unit to `out` and returns its size in bytes. On an error nothing is written.
    pub fn write(&self, out: &mut BytesMut) -> Result<usize, UnitError> {
        let size = self.size()?;
        out.reserve(size);
        let start = out.len();
        self.write_head(size, out);
        out.put_slice(self.body);
        if self.topic_length_bytes() == 1 {
            out.put_u8(self.topic.len() as u8);
        } else {
            out.put_i16(self.topic.len() as i16);
        }
        out.put_slice(self.topic.as_bytes());
        let property_bytes: usize = self.properties.iter().map(|piece| piece.len()).sum();
        out.put_i16(property_bytes as i16);
        for piece in self.properties {
            out.put_slice(piece.as_bytes());
        }
        assert_eq!(out.len() - start, size, "a unit has the size it declares");
        Ok(size)
    }

    /// The fixed part is put together on the stack and copied once: a check of the buffer's capacity for each of
    /// fifteen fields would cost more than the fields.
    fn write_head(&self, size: usize, out: &mut BytesMut) {
        let (born, store) = (host::canonical(self.born_host), host::canonical(self.store_host));
        let sys_flag = self.sys_flag.with_hosts(born.is_ipv6(), store.is_ipv6());
        let magic = if self.topic_length_bytes() == 1 { field::MAGIC_V1 } else { field::MAGIC_V2 };
        let crc = self.body_crc.unwrap_or_else(|| body_crc(self.body));

        let mut head = [0; HEAD_BYTES_MAX];
        let mut at = 0;
        let mut put = |head: &mut [u8; HEAD_BYTES_MAX], value: &[u8]| {
            head[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        let mut host_bytes = [0; host::V6_BYTES];
        put(&mut head, &(size as i32).to_be_bytes());
        put(&mut head, &magic.to_be_bytes());
        put(&mut head, &crc.to_be_bytes());
        put(&mut head, &self.queue_id.to_be_bytes());
        put(&mut head, &self.flag.to_be_bytes());
        put(&mut head, &self.queue_offset.to_be_bytes());
        put(&mut head, &self.position.to_be_bytes());
        put(&mut head, &sys_flag.0.to_be_bytes());
        put(&mut head, &self.born_timestamp.to_be_bytes());
        let width = host::write(born, &mut host_bytes);
        put(&mut head, &host_bytes[..width]);
        put(&mut head, &self.store_timestamp.to_be_bytes());
        let width = host::write(store, &mut host_bytes);
        put(&mut head, &host_bytes[..width]);
        put(&mut head, &self.reconsume_times.to_be_bytes());
        put(&mut head, &self.prepared_offset.to_be_bytes());
        put(&mut head, &(self.body.len() as i32).to_be_bytes());
        out.put_slice(&head[..at]);
    }

    fn topic_length_bytes(&self) -> usize {
        if self.topic.len() <= TOPIC_V1_BYTES_MAX { 1 } else { 2 }
    }
}

fn width_of(address: SocketAddr) -> usize {
    host::width(host::canonical(address).is_ipv6())
}

fn check(part: &'static str, bytes: usize, limit: usize) -> Result<(), UnitError> {
    if bytes <= limit { Ok(()) } else { Err(UnitError::TooLong { part, bytes, limit }) }
}

#[cfg(test)]
mod tests {
    use super::super::TransactionType;
    use super::super::layout::UnitPatch;
    use super::*;

    fn parts<'a>(topic: &'a str, properties: &'a [&'a str]) -> UnitBuilder<'a> {
        UnitBuilder {
            topic,
            queue_id: 3,
            flag: 9,
            queue_offset: 0,
            position: 0,
            sys_flag: SysFlag(0x305),
            born_timestamp: 1_700_000_000_123,
            born_host: "192.0.2.10:50123".parse().unwrap(),
            store_timestamp: 0,
            store_host: "198.51.100.7:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_offset: 0,
            body: b"body",
            body_crc: None,
            properties,
        }
    }

    fn written(parts: &UnitBuilder<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        assert_eq!(parts.write(&mut out).unwrap(), out.len());
        out
    }

    #[test]
    fn pieces_of_properties_are_joined() {
        let bytes = written(&parts("T", &["TAGS\u{1}a\u{2}", "", "KEYS\u{1}k\u{2}"]));
        let unit = MessageUnit::decode(&bytes).unwrap();
        assert_eq!(unit.properties_text(), "TAGS\u{1}a\u{2}KEYS\u{1}k\u{2}");
        assert_eq!(unit.property("KEYS"), Some("k"));
        assert_eq!(unit.size(), 91 + 4 + 1 + 14);
        unit.check_crc().unwrap();
    }

    #[test]
    fn the_encoding_changes_above_127_bytes_of_topic() {
        for (length, overhead) in [(127, 91), (128, 92), (255, 92)] {
            let topic = "t".repeat(length);
            let bytes = written(&parts(&topic, &[]));
            assert_eq!(bytes.len(), overhead + 4 + length);
            assert_eq!(MessageUnit::decode(&bytes).unwrap().topic(), topic);
        }
    }

    #[test]
    fn mapped_hosts_are_written_as_ipv4_and_others_widen_the_unit() {
        let mut parts = parts("T", &[]);
        parts.born_host = "[::ffff:192.0.2.1]:5".parse().unwrap();
        let narrow = written(&parts);
        assert_eq!(MessageUnit::decode(&narrow).unwrap().born_host(), "192.0.2.1:5".parse().unwrap());
        parts.born_host = "[2001:db8::1]:5".parse().unwrap();
        parts.store_host = "[2001:db8::2]:6".parse().unwrap();
        let wide = written(&parts);
        assert_eq!(wide.len(), narrow.len() + 24);
        let unit = MessageUnit::decode(&wide).unwrap();
        assert_eq!(unit.born_host(), parts.born_host);
        assert_eq!(unit.store_host(), parts.store_host);
        assert_eq!(unit.sys_flag().0, 0x335);
    }

    #[test]
    fn a_patch_changes_its_fields_and_nothing_else() {
        for born in ["192.0.2.10:50123", "[2001:db8::1]:50123"] {
            let mut parts = parts("T", &["TAGS\u{1}a\u{2}"]);
            parts.born_host = born.parse().unwrap();
            let mut patched = written(&parts);
            let patch = UnitPatch {
                queue_id: 7,
                queue_offset: 1 << 40,
                position: 1 << 50,
                transaction: TransactionType::Commit,
                store_timestamp: 1_700_000_000_456,
                prepared_offset: 1 << 49,
            };
            patch.apply(&mut patched).unwrap();
            parts.queue_id = 7;
            parts.queue_offset = 1 << 40;
            parts.position = 1 << 50;
            parts.sys_flag = SysFlag(0x309);
            parts.store_timestamp = 1_700_000_000_456;
            parts.prepared_offset = 1 << 49;
            assert_eq!(patched, written(&parts));
        }
    }

    #[test]
    fn a_patch_refuses_what_is_no_unit() {
        let mut bytes = written(&parts("T", &[]));
        for cut in 0..84 {
            let mut short = bytes[..cut].to_vec();
            assert!(UnitPatch::default().apply(&mut short).is_err(), "{cut}");
            assert_eq!(short, bytes[..cut]);
        }
        bytes[4] = 0;
        assert!(matches!(UnitPatch::default().apply(&mut bytes), Err(UnitError::UnknownMagic(_))));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_and_nothing_is_written() {
        let long = "p".repeat(32_768);
        let mut out = BytesMut::new();
        assert_eq!(
            parts("T", &[&long]).write(&mut out),
            Err(UnitError::TooLong { part: "properties", bytes: 32_768, limit: 32_767 })
        );
        assert!(parts(&long, &[]).write(&mut out).is_err());
        assert!(out.is_empty());
    }
}
