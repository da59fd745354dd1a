//! The bytes of a segment: a header, then records. And of its list of records that are done. Pure.
//!
//! ```text
//!  segment:  magic 8 | salt 8 | crc 4        record:  magic 4 | length 4 | crc of both 4 | crc of the payload 4 | payload
//!  done:     offset 4 | crc 4, as often as it takes
//! ```
//!
//! All numbers are big-endian. The salt is drawn for each segment, and each checksum begins with it and with the record's offset:
//! bytes of another file, or of a message that holds a copy of a segment, are never taken for a record.

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 20;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// Bytes of an entry in the list of what is done.
pub(super) const DONE_BYTES: usize = 8;
/// The largest segment: offsets have 32 bits.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 31;

const SEGMENT_MAGIC: &[u8; 8] = b"ESPILL\x00\x01";
const RECORD_MAGIC: &[u8; 4] = b"ESrc";

/// The header of a segment.
pub(super) fn header(salt: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(SEGMENT_MAGIC);
    bytes[8..16].copy_from_slice(&salt.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The salt of a segment; `None` if its header is not whole.
pub(super) fn salt(segment: &[u8]) -> Option<u64> {
    let header = segment.get(..HEADER_BYTES)?;
    let is_whole = header[..8] == SEGMENT_MAGIC[..] && number(header, 16) == crc32fast::hash(&header[..16]);
    is_whole.then(|| u64::from_be_bytes(header[8..16].try_into().expect("eight bytes")))
}

/// A record at `offset`, which is where it will be written.
pub(super) fn record(salt: u64, offset: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(RECORD_MAGIC);
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    let header_crc = checksum(salt, offset, &bytes);
    bytes.extend_from_slice(&header_crc.to_be_bytes());
    bytes.extend_from_slice(&checksum(salt, offset, payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An entry that says that the record at `offset` is done.
pub(super) fn done(salt: u64, offset: u32) -> [u8; DONE_BYTES] {
    let mut bytes = [0; DONE_BYTES];
    bytes[..4].copy_from_slice(&offset.to_be_bytes());
    let crc = checksum(salt, offset, b"done");
    bytes[4..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The offsets that a list of done records names. Entries that are not whole count for nothing: their records are sent again.
pub(super) fn dones(salt: u64, list: &[u8]) -> impl Iterator<Item = u32> {
    let entries = list.chunks_exact(DONE_BYTES).map(|entry| (number(entry, 0), number(entry, 4)));
    entries.filter(move |(offset, crc)| *crc == checksum(salt, *offset, b"done")).map(|(offset, _)| offset)
}

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A record that is whole, with the offset and length of all of it.
    Record { offset: u32, length: u32 },
    /// Bytes that were a record, or several, and are none any more.
    Damaged { offset: u32, length: u32 },
    /// The beginning of a record whose rest was never written, up to the end of the file. Nobody was told that it is kept.
    Torn { offset: u32 },
}

/// The parts of a segment after its header. Only the segment that was written last has a torn end: elsewhere that is damage.
pub(super) fn parts(segment: &[u8], salt: u64, is_last: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = HEADER_BYTES;
    while at < segment.len() {
        if let Some(length) = whole(segment, salt, at) {
            parts.push(Part::Record { offset: at as u32, length: length as u32 });
            at += length;
            continue;
        }
        let next = (at + 1..segment.len()).find(|next| whole(segment, salt, *next).is_some());
        if next.is_none() && is_last && is_torn(segment, salt, at) {
            parts.push(Part::Torn { offset: at as u32 });
            break;
        }
        let end = next.unwrap_or(segment.len());
        parts.push(Part::Damaged { offset: at as u32, length: (end - at) as u32 });
        at = end;
    }
    parts
}

/// The payload of a record that was read from `offset`; `None` if it is damaged.
pub(super) fn payload(salt: u64, offset: u32, record: &[u8]) -> Option<&[u8]> {
    let length = claimed(record, salt, offset)?;
    let payload = record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length)?;
    (number(record, 12) == checksum(salt, offset, payload)).then_some(payload)
}

/// The length of the whole record at `at`.
fn whole(segment: &[u8], salt: u64, at: usize) -> Option<usize> {
    let record = &segment[at..];
    payload(salt, at as u32, record).map(|payload| RECORD_HEADER_BYTES + payload.len())
}

/// The payload's length as a header says it that is whole.
fn claimed(record: &[u8], salt: u64, offset: u32) -> Option<usize> {
    let is_header = record.len() >= RECORD_HEADER_BYTES
        && record[..4] == RECORD_MAGIC[..]
        && number(record, 8) == checksum(salt, offset, &record[..8]);
    is_header.then(|| number(record, 4) as usize)
}

/// Whether the bytes from `at` to the end can be a record whose writing was cut off: too few of them, or none but zeros, which is
/// what a file system shows for bytes that did not reach the disk.
fn is_torn(segment: &[u8], salt: u64, at: usize) -> bool {
    let rest = &segment[at..];
    let is_short = match claimed(rest, salt, at as u32) {
        Some(length) => rest.len() < RECORD_HEADER_BYTES + length,
        None => rest.len() < RECORD_HEADER_BYTES,
    };
    is_short || rest.iter().all(|byte| *byte == 0)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn checksum(salt: u64, offset: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(&offset.to_be_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<Part>) {
        let mut bytes = header(SALT).to_vec();
        let mut parts = Vec::new();
        for payload in payloads {
            let record = record(SALT, bytes.len() as u32, payload);
            parts.push(Part::Record { offset: bytes.len() as u32, length: record.len() as u32 });
            bytes.extend(record);
        }
        (bytes, parts)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, expected) = segment(&[b"one", b"", b"three"]);
        assert_eq!(salt(&bytes), Some(SALT));
        assert_eq!(parts(&bytes, SALT, true), expected);
        let Part::Record { offset, .. } = expected[2] else { panic!() };
        assert_eq!(payload(SALT, offset, &bytes[offset as usize..]), Some(&b"three"[..]));
        assert_eq!(salt(&bytes[..19]), None);
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(salt(&damaged), None, "{at}");
        }
    }

    #[test]
    fn a_power_cut_at_any_byte_of_the_last_record_leaves_those_before() {
        let (bytes, mut expected) = segment(&[b"one", b"two", b"the last"]);
        let Some(Part::Record { offset, .. }) = expected.pop() else { panic!() };
        assert_eq!(parts(&bytes[..offset as usize], SALT, true), expected);
        expected.push(Part::Torn { offset });
        for end in offset as usize + 1..bytes.len() {
            assert_eq!(parts(&bytes[..end], SALT, true), expected, "cut at {end}");
            let mut zeros = bytes[..offset as usize].to_vec();
            zeros.resize(end, 0);
            assert_eq!(parts(&zeros, SALT, true), expected, "zeros up to {end}");
            // In a segment that was finished nothing may be missing.
            let damaged = parts(&bytes[..end], SALT, false);
            assert_eq!(damaged.last(), Some(&Part::Damaged { offset, length: end as u32 - offset }));
        }
    }

    #[test]
    fn a_flipped_bit_takes_its_own_record_alone() {
        let (bytes, expected) = segment(&[b"one", b"the second", b"three"]);
        for (index, part) in expected.iter().enumerate() {
            let Part::Record { offset, length } = *part else { panic!() };
            for at in offset..offset + length {
                let mut damaged = bytes.clone();
                damaged[at as usize] ^= 0x10;
                let mut wanted = expected.clone();
                wanted[index] = Part::Damaged { offset, length };
                assert_eq!(parts(&damaged, SALT, true), wanted, "byte {at}");
            }
        }
    }

    #[test]
    fn a_copy_of_a_segment_in_a_message_holds_no_records() {
        let (inner, _) = segment(&[b"secret"]);
        let (mut bytes, expected) = segment(&[&inner, b"two"]);
        let Part::Record { offset, length } = expected[0] else { panic!() };
        // The length of the record that holds the copy is lost, so that what follows is searched.
        bytes[offset as usize + 5] ^= 1;
        assert_eq!(parts(&bytes, SALT, true), [Part::Damaged { offset, length }, expected[1]]);
    }

    #[test]
    fn of_a_list_of_done_records_whole_entries_count() {
        let mut list = [done(SALT, 20), done(SALT, 99), done(SALT, 7)].concat();
        list[DONE_BYTES + 1] ^= 1;
        list.truncate(2 * DONE_BYTES + 3);
        assert_eq!(dones(SALT, &list).collect::<Vec<_>>(), [20]);
        assert_eq!(dones(SALT + 1, &list).count(), 0, "of another segment");
    }
}
