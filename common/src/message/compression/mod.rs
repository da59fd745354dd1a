//! Compressed bodies. End points compress and decompress; a broker passes bodies through untouched.
//!
//! LZ4 and zlib are always there. Zstandard is by choice: the feature `zstd` has its C library, which needs a C compiler and
//! works both ways, `ruzstd` a decoder in Rust. Without either such bodies are a
//! [`NotCompiledIn`](CompressionError::NotCompiledIn), which is no word about the bytes: another build reads them.

use std::io::{self, Read, Write};

use bytes::Bytes;
use thiserror::Error;

use super::cursor::Cursor;

#[cfg(feature = "ruzstd")]
pub mod zstd_decoder;
#[cfg(feature = "zstd")]
mod zstd_library;

/// Level that clients use unless told otherwise. It is zlib's scale; zstd takes the same number, LZ4 has no levels.
pub const DEFAULT_LEVEL: u32 = 5;

/// Bodies at least this large are compressed by producers unless told otherwise, in bytes.
pub const DEFAULT_THRESHOLD_BYTES: usize = 4096;

/// Bound for decompressed bodies unless the caller has a better one, in bytes: the largest body plus some room for
/// brokers that were configured a little more generously.
pub const DEFAULT_OUTPUT_BYTES_MAX: usize = 2 * super::BODY_BYTES_MAX;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompressionType {
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
    /// A zlib stream (RFC 1950). Also what a message without type bits uses.
    Zlib,
}

/// Why a body could not be compressed or decompressed.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// The type bits of the message name a compression that is not known here.
    #[error("unknown compression type {0:#x}")]
    UnknownType(i32),
    /// The body decompresses to more than the caller allows.
    #[error("decompressed body exceeds {limit} bytes")]
    TooLarge {
        /// The caller's bound in bytes.
        limit: usize,
    },
    /// This program was built without the codec.
    #[error("zstd is not compiled in: build with the feature `{feature}` of escrowmq-common")]
    NotCompiledIn {
        /// The feature of this package that has it.
        feature: &'static str,
    },
    /// The bytes are not a complete stream of the named type.
    #[error("not a valid compressed body: {0}")]
    Corrupt(#[source] io::Error),
}

impl CompressionType {
    /// The type named by the masked bits of a system flag; an unknown value comes back as the error.
    pub(super) const fn from_sys_flag_bits(bits: i32) -> Result<Self, i32> {
        match bits {
            0 | 0x300 => Ok(Self::Zlib),
            0x100 => Ok(Self::Lz4),
            0x200 => Ok(Self::Zstd),
            other => Err(other),
        }
    }

    /// The bits that a writer sets in the system flag besides the compressed bit.
    pub const fn sys_flag_bits(self) -> i32 {
        match self {
            Self::Lz4 => 0x100,
            Self::Zstd => 0x200,
            Self::Zlib => 0x300,
        }
    }

    /// Compresses `body`. `level` is 0 (fastest) to 9 and means nothing to LZ4.
    pub fn compress(self, body: &[u8], level: u32) -> Result<Vec<u8>, CompressionError> {
        let level = level.min(9);
        let compressed = match self {
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(body).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            Self::Zstd => return compress_zstd(body, level),
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        compressed.map_err(CompressionError::Corrupt)
    }

    /// Decompresses `body` into at most `limit` bytes; a body that would become larger is refused after `limit` bytes
    /// have been produced, whatever its header says.
    pub fn decompress(self, body: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
        match self {
            Self::Lz4 if !is_whole_lz4_frame(body) => {
                Err(CompressionError::Corrupt(io::ErrorKind::UnexpectedEof.into()))
            }
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(body), body.len(), limit),
            Self::Zstd => decompress_zstd(body, limit),
            Self::Zlib => read_bounded(flate2::read::ZlibDecoder::new(body), body.len(), limit),
        }
    }
}

fn read_bounded(reader: impl Read, compressed_bytes: usize, limit: usize) -> Result<Bytes, CompressionError> {
    // Text shrinks to about a third; a wrong guess costs one more growth step, not correctness.
    let mut plain = Vec::with_capacity(compressed_bytes.saturating_mul(3).min(limit));
    reader.take(limit as u64 + 1).read_to_end(&mut plain).map_err(CompressionError::Corrupt)?;
    if plain.len() > limit {
        return Err(CompressionError::TooLarge { limit });
    }
    Ok(plain.into())
}

/// Walks the blocks of an LZ4 frame up to its end mark. The library's reader takes a frame that ends early between two
/// blocks for a shorter one, and no bytes at all for an empty one.
fn is_whole_lz4_frame(frame: &[u8]) -> bool {
    const BLOCK_CHECKSUM: u8 = 1 << 4;
    const CONTENT_SIZE: u8 = 1 << 3;
    const CONTENT_CHECKSUM: u8 = 1 << 2;
    const DICTIONARY: u8 = 1;
    const UNCOMPRESSED: u32 = 1 << 31;
    let walk = || {
        let mut cursor = Cursor::new(frame);
        cursor.take(4)?;
        let flags = cursor.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let descriptor_bytes = 2 + if has(CONTENT_SIZE) { 8 } else { 0 } + if has(DICTIONARY) { 4 } else { 0 };
        cursor.take(descriptor_bytes)?;
        loop {
            // Alone in this protocol, the compressed formats are little-endian.
            let block = (cursor.i32()? as u32).swap_bytes();
            if block == 0 {
                return cursor.take(if has(CONTENT_CHECKSUM) { 4 } else { 0 });
            }
            let checksum_bytes = if has(BLOCK_CHECKSUM) { 4 } else { 0 };
            cursor.take((block & !UNCOMPRESSED) as usize + checksum_bytes)?;
        }
    };
    walk().is_some()
}

#[cfg(feature = "zstd")]
fn compress_zstd(body: &[u8], level: u32) -> Result<Vec<u8>, CompressionError> {
    zstd_library::compress(body, level).map_err(CompressionError::Corrupt)
}

#[cfg(not(feature = "zstd"))]
fn compress_zstd(_body: &[u8], _level: u32) -> Result<Vec<u8>, CompressionError> {
    Err(CompressionError::NotCompiledIn { feature: "zstd" })
}

/// By the C library where it is there: it is the faster one.
fn decompress_zstd(body: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    #[cfg(feature = "zstd")]
    return zstd_library::decompress(body, limit);
    #[cfg(all(feature = "ruzstd", not(feature = "zstd")))]
    return zstd_decoder::decompress(body, limit);
    #[cfg(not(any(feature = "zstd", feature = "ruzstd")))]
    {
        let _ = (body, limit);
        Err(CompressionError::NotCompiledIn { feature: "ruzstd" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CompressionType; 3] = [CompressionType::Lz4, CompressionType::Zstd, CompressionType::Zlib];

    #[test]
    fn every_type_takes_back_what_it_wrote() {
        for kind in ALL {
            for body in [&b""[..], b"x", &vec![7; 100_000], b"rocket rocket rocket rocket"] {
                let compressed = kind.compress(body, DEFAULT_LEVEL).unwrap();
                assert_eq!(kind.decompress(&compressed, body.len()).unwrap(), body, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        for kind in ALL {
            let bomb = kind.compress(&vec![0; 1 << 20], DEFAULT_LEVEL).unwrap();
            assert!(bomb.len() < 1 << 14);
            assert!(
                matches!(kind.decompress(&bomb, 1000), Err(CompressionError::TooLarge { limit: 1000 })),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        for kind in ALL {
            let compressed = kind.compress(b"some body that matters", DEFAULT_LEVEL).unwrap();
            for cut in 0..compressed.len() {
                assert!(kind.decompress(&compressed[..cut], 1000).is_err(), "{kind:?} {cut}");
            }
        }
    }
}
