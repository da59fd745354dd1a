//! Zstandard frames read by a decoder in Rust, for programs that are built without a C compiler. It cannot compress.
//!
//! It takes one frame and nothing after it, which is what producers send. Dictionaries and skippable frames are refused.

use std::io::{self, Read};

use bytes::Bytes;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::{CompressionError, read_bounded};

/// The window that every decoder should accept (RFC 8878, section 3.1.1.1.2), in bytes. Producers that compress by the levels of
/// this protocol stay within it.
const WINDOW_BYTES: u64 = 8 << 20;

/// Decompresses a frame into at most `limit` bytes. The decoder keeps a window of the output beside it: memory grows with
/// what was decoded, to `limit` for the output and twice the larger of `limit` and 8 MiB for the window.
pub fn decompress(body: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    // The decoder passes over the bit that the format keeps for later (section 3.1.1.1.1.4).
    if body.get(4).is_some_and(|descriptor| descriptor & 1 << 3 != 0) {
        return Err(CompressionError::Corrupt(io::ErrorKind::InvalidData.into()));
    }
    let mut rest = body;
    // The decoder reads on until its window is full, so that the window bounds what it makes before it is asked for more.
    let mut decoder = StreamingDecoder::new_with_max_window_size(&mut rest, WINDOW_BYTES.max(limit as u64))
        .map_err(|error| CompressionError::Corrupt(io::Error::other(error)))?;
    // 0 where the frame does not say.
    let declared = decoder.decoder.content_size();
    if declared > limit as u64 {
        return Err(CompressionError::TooLarge { limit });
    }
    let plain = read_bounded(decoder.by_ref(), body.len(), limit)?;
    let frame = decoder.into_frame_decoder();
    let is_whole = rest.is_empty() && is_intact(&frame) && (declared == 0 || declared == plain.len() as u64);
    if is_whole { Ok(plain) } else { Err(CompressionError::Corrupt(io::ErrorKind::InvalidData.into())) }
}

/// Whether the checksum is right, if the frame has one.
fn is_intact(frame: &FrameDecoder) -> bool {
    frame.get_checksum_from_data().is_none_or(|sum| frame.get_calculated_checksum() == Some(sum))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Frames as Java's streams make them: no declared size, a window that is larger than the body.
    fn stream(plain: &[u8], level: i32, has_checksum: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
        encoder.include_checksum(has_checksum).unwrap();
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0_u32..)
            .flat_map(|line| format!("{line}: order {}\n", line.wrapping_mul(2_654_435_761)).into_bytes())
            .take(bytes)
            .collect()
    }

    #[test]
    fn what_the_library_wrote_is_read() {
        for bytes in [0, 1, 300, 70_000, 3_000_000] {
            let plain = text(bytes);
            for level in [1, 5, 9] {
                let frame = zstd::bulk::compress(&plain, level).unwrap();
                assert_eq!(decompress(&frame, bytes).unwrap(), plain, "{bytes} {level}");
                let frame = stream(&plain, level, true);
                assert_eq!(decompress(&frame, bytes).unwrap(), plain, "{bytes} {level}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let plain = vec![0; 1 << 24];
        for bomb in [zstd::bulk::compress(&plain, 3).unwrap(), stream(&plain, 3, false), stream(&plain, 9, false)] {
            assert!(bomb.len() < 1 << 12);
            for limit in [0, 1000, (1 << 24) - 1] {
                assert!(matches!(decompress(&bomb, limit), Err(CompressionError::TooLarge { .. })));
            }
            assert_eq!(decompress(&bomb, 1 << 24).unwrap().len(), 1 << 24);
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(b"small").unwrap();
        let frame = encoder.finish().unwrap();
        assert!(matches!(decompress(&frame, 1000), Err(CompressionError::Corrupt(_))));
        assert_eq!(decompress(&frame, 1 << 24).unwrap(), &b"small"[..]);
    }

    #[test]
    fn damage_and_what_follows_a_frame_are_errors() {
        let plain = text(5000);
        let mut frame = stream(&plain, 3, true);
        *frame.last_mut().unwrap() ^= 1;
        assert!(matches!(decompress(&frame, 5000), Err(CompressionError::Corrupt(_))), "the checksum is wrong");
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(decompress(&frame, 5000).unwrap(), plain);
        frame.push(0);
        assert!(matches!(decompress(&frame, 5000), Err(CompressionError::Corrupt(_))), "a byte follows");
        frame.pop();
        for cut in 0..frame.len() {
            assert!(decompress(&frame[..cut], 5000).is_err(), "{cut}");
        }
    }
}
