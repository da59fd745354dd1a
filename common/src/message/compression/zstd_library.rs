//! Zstandard by its own C library, both ways.

use std::io;

use bytes::Bytes;

use super::CompressionError;

pub(super) fn compress(body: &[u8], level: u32) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(body, level as i32)
}

/// One shot into a buffer of known size: the streaming decoder would first allocate the window that the frame's header
/// asks for, which a hostile sender may set to 128 MiB.
pub(super) fn decompress(body: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let declared = zstd::zstd_safe::get_frame_content_size(body)
        .map_err(|_| CompressionError::Corrupt(io::ErrorKind::InvalidData.into()))?;
    let capacity = match declared {
        Some(size) if size > limit as u64 => return Err(CompressionError::TooLarge { limit }),
        Some(size) => size as usize,
        None => limit,
    };
    let mut plain = zstd::bulk::decompress(body, capacity).map_err(|error| {
        // The library names the cause only in its text. With a declared size the data contradict their own header,
        // without one they are larger than the bound or broken.
        if declared.is_none() && error.to_string().contains("too small") {
            CompressionError::TooLarge { limit }
        } else {
            CompressionError::Corrupt(error)
        }
    })?;
    plain.shrink_to_fit();
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_frame_without_declared_size_is_bounded_too() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(&vec![1; 50_000]).unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(decompress(&frame, 50_000).unwrap().len(), 50_000);
        assert!(matches!(decompress(&frame, 49_999), Err(CompressionError::TooLarge { .. })));
    }
}
