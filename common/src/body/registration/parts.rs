//! A packed registration, read piece by piece: what it unpacks to is never in memory as a whole.

use std::io::{self, BufRead, BufReader, Read, Take};

use flate2::read::ZlibDecoder;

use super::{REGISTRATION_BYTES_MAX, REGISTRATION_PART_BYTES_MAX, REGISTRATION_TOPICS_MAX, RegistrationError};
use crate::limits::REGISTRATION_MAPPINGS_MAX;
use crate::message::CompressionError;

/// Room for what is unpacked ahead.
const AHEAD: usize = 64 * 1024;

/// The counts and length-prefixed parts of a packed registration, in order.
pub(super) struct Parts<'a> {
    plain: BufReader<Take<ZlibDecoder<&'a [u8]>>>,
    part: Vec<u8>,
    limit: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn unpack(body: &'a [u8]) -> Self {
        Self::unpack_up_to(body, REGISTRATION_BYTES_MAX)
    }

    /// Refuses a body that unpacks to more than `limit` bytes, as soon as this many were read.
    fn unpack_up_to(body: &'a [u8], limit: usize) -> Self {
        let plain = ZlibDecoder::new(body).take(limit as u64 + 1);
        Parts { plain: BufReader::with_capacity(AHEAD, plain), part: Vec::new(), limit }
    }

    /// How many topics follow. Nothing is allocated by it: what it counts has to be there.
    pub(super) fn topic_count(&mut self) -> Result<usize, RegistrationError> {
        let topics = self.count()?;
        if topics > REGISTRATION_TOPICS_MAX {
            return Err(RegistrationError::TooManyTopics { topics });
        }
        Ok(topics)
    }

    /// The next part.
    pub(super) fn part(&mut self) -> Result<&[u8], RegistrationError> {
        let length = self.count()?;
        if length > REGISTRATION_PART_BYTES_MAX {
            return Err(RegistrationError::LongPart { length });
        }
        self.part.clear();
        let read = self.plain.by_ref().take(length as u64).read_to_end(&mut self.part).map_err(corrupt)?;
        if read < length {
            return Err(self.ended());
        }
        Ok(&self.part)
    }

    /// Calls `mapping` with each static topic's part. Brokers before version 413 have none, and no count of them.
    pub(super) fn mappings(
        &mut self,
        mut mapping: impl FnMut(&[u8]) -> Result<(), RegistrationError>,
    ) -> Result<(), RegistrationError> {
        if self.plain.fill_buf().map_err(corrupt)?.is_empty() {
            return Ok(());
        }
        let mappings = self.count()?;
        if mappings > REGISTRATION_MAPPINGS_MAX {
            return Err(RegistrationError::TooManyMappings);
        }
        for _ in 0..mappings {
            mapping(self.part()?)?;
        }
        Ok(())
    }

    /// Reads to the end of the stream, whose checksum stands there. Bytes that newer brokers may have put after the mappings
    /// are passed over.
    pub(super) fn finish(mut self) -> Result<(), RegistrationError> {
        loop {
            let passed = self.plain.fill_buf().map_err(corrupt)?.len();
            if passed == 0 {
                break;
            }
            self.plain.consume(passed);
        }
        match self.plain.get_ref().limit() {
            0 => Err(self.too_large()),
            _ => Ok(()),
        }
    }

    fn count(&mut self) -> Result<usize, RegistrationError> {
        let mut number = [0; 4];
        match self.plain.read_exact(&mut number) {
            Ok(()) => usize::try_from(i32::from_be_bytes(number)).map_err(|_| RegistrationError::Truncated),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.ended()),
            Err(error) => Err(corrupt(error)),
        }
    }

    /// The stream ended where more should be: it is cut off, or it was cut by our bound.
    fn ended(&self) -> RegistrationError {
        if self.plain.get_ref().limit() == 0 { self.too_large() } else { RegistrationError::Truncated }
    }

    fn too_large(&self) -> RegistrationError {
        CompressionError::TooLarge { limit: self.limit }.into()
    }
}

fn corrupt(error: io::Error) -> RegistrationError {
    CompressionError::Corrupt(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CompressionType;

    const LIMIT: usize = 1000;

    fn read(plain: &[u8]) -> Result<(), RegistrationError> {
        let packed = CompressionType::Zlib.compress(plain, 1).unwrap();
        let mut parts = Parts::unpack_up_to(&packed, LIMIT);
        for _ in 0..parts.topic_count()? {
            parts.part()?;
        }
        parts.mappings(|_| Ok(()))?;
        parts.finish()
    }

    fn is_too_large(outcome: &Result<(), RegistrationError>) -> bool {
        matches!(outcome, Err(RegistrationError::Compression(CompressionError::TooLarge { limit: LIMIT })))
    }

    #[test]
    fn a_bomb_ends_at_the_bound() {
        let no_topics_no_mappings = [0; 8];
        let mut plain = no_topics_no_mappings.to_vec();
        plain.resize(LIMIT, 0);
        assert!(read(&plain).is_ok(), "what newer brokers put behind is passed over");
        plain.push(0);
        assert!(is_too_large(&read(&plain)));
        plain.resize(10 * LIMIT, 0);
        assert!(is_too_large(&read(&plain)));
        let mut long_part = [0, 0, 0, 1, 0, 0, 4, 0].to_vec();
        long_part.resize(2 * LIMIT, b'x');
        assert!(is_too_large(&read(&long_part)), "a part that begins within the bound and ends beyond it");
    }
}
