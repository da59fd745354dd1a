//! The faults that make bytes no frame. Each of these ends the connection that sent them, and only that one.

use thiserror::Error;

/// Why bytes could not be read as a frame, or a frame not be written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is below the four bytes that always follow it.
    #[error("frame length {0} is impossible")]
    BadLength(i64),
    /// The frame is above the limit of a connection.
    #[error("frame of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Whole length in bytes, including the length field.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The header length points beyond the end of the frame.
    #[error("header of {header} bytes does not fit into a frame of {frame}")]
    HeaderBeyondFrame {
        /// Declared header length.
        header: usize,
        /// Length of the frame without its length field.
        frame: usize,
    },
    /// The type byte names no encoding that exists.
    #[error("unknown header encoding {0}")]
    UnknownEncoding(u8),
    /// The JSON header does not parse.
    #[error("JSON header: {what} at byte {at}")]
    Json {
        /// The thing that was expected or wrong.
        what: &'static str,
        /// Byte position in the header.
        at: usize,
    },
    /// The binary header does not parse.
    #[error("binary header: {0}")]
    Binary(&'static str),
    /// More fields than any request has.
    #[error("more than {0} header fields")]
    TooManyFields(usize),
}
