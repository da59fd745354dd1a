//! One socket with frames on it.
//!
//! Promises: a request that is handed on keeps no memory alive but its own; a small frame is copied out of the read
//! buffer, a large one is read into memory of its own at once; a large body that is sent is not copied; one turn moves
//! a bounded number of bytes, so that connections with much to move leave the thread to others. Leaves to others: how
//! much is put into the out queue.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use escrowmq_common::frame::{Frame, FrameDecoder, FrameError, HeaderEncoding};
use tokio::net::TcpStream;

/// Most bytes of a request or an answer: the longest record of the log, and what describes it.
pub(crate) const REQUEST_BYTES_MAX: usize = (256 << 20) + (1 << 20);
/// Bytes that a frame has beyond a request.
const FRAME_OVERHEAD: usize = 1024;
/// Most bytes of a frame between members.
pub(super) const FRAME_BYTES_MAX: usize = REQUEST_BYTES_MAX + FRAME_OVERHEAD;

/// Room for a read of small frames; a longer frame is read into memory of its own.
const READ_BYTES: usize = 64 * 1024;
/// A body up to this is copied behind its header, so that the system gets one piece.
const COPIED_BYTES: usize = 8 * 1024;
/// Bytes that are moved in one turn and direction before others get theirs.
pub(super) const TURN_BYTES: usize = 512 * 1024;
/// Pieces that are handed to the system at once.
const PIECES: usize = 32;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side closed it.
    Peer,
    /// The system says that it is gone.
    Io(io::Error),
    /// The bytes that arrived are no frame.
    Undecodable(FrameError),
    /// The frame is none that a member sends at this point.
    Unexpected(&'static str),
    /// It was closed from this side.
    Us(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Io(error)
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> End {
        End::Undecodable(error)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Peer => f.write_str("closed by the other side"),
            End::Io(error) => write!(f, "{error}"),
            End::Undecodable(error) => write!(f, "{error}"),
            End::Unexpected(what) => write!(f, "unexpected: {what}"),
            End::Us(why) => f.write_str(why),
        }
    }
}

/// A socket, what was read from it and is no whole frame yet, and what waits to be written.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    decoder: FrameDecoder,
    /// Most bytes of one read of small frames.
    read_bytes: usize,
    /// Small frames, and the beginning of others.
    input: BytesMut,
    /// A frame that is longer than a read, and its whole length.
    large: Option<(BytesMut, usize)>,
    /// Bytes read in this turn.
    turn: usize,
    out: VecDeque<Bytes>,
    out_bytes: usize,
}

impl Wire {
    /// A wire that refuses frames of more than `frame_bytes_max` bytes.
    pub(super) fn new(stream: TcpStream, frame_bytes_max: usize) -> Wire {
        Wire {
            stream,
            decoder: FrameDecoder::between_equals(frame_bytes_max),
            read_bytes: frame_bytes_max.min(READ_BYTES),
            input: BytesMut::new(),
            large: None,
            turn: 0,
            out: VecDeque::new(),
            out_bytes: 0,
        }
    }

    /// From now on frames may have this many bytes.
    pub(super) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.decoder = FrameDecoder::between_equals(frame_bytes_max);
        self.read_bytes = frame_bytes_max.min(READ_BYTES);
    }

    /// The socket, for another use. Nothing may have come on it that was not taken.
    pub(super) fn into_stream(self) -> io::Result<std::net::TcpStream> {
        if !self.input.is_empty() || self.large.is_some() || self.out_bytes > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes that nobody waited for"));
        }
        self.stream.into_std()
    }

    /// The socket.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that wait to be written.
    pub(super) fn out_bytes(&self) -> usize {
        self.out_bytes
    }

    /// Puts a frame into the out queue. One that is too long leaves the queue as it was.
    pub(super) fn push(&mut self, mut frame: Frame) -> Result<(), FrameError> {
        frame.encoding = HeaderEncoding::Binary;
        let is_copied = frame.body.len() <= COPIED_BYTES;
        let mut head = BytesMut::with_capacity(64 + if is_copied { frame.body.len() } else { 0 });
        frame.encode_head(&mut head, FRAME_BYTES_MAX)?;
        self.out_bytes += head.len() + frame.body.len();
        if is_copied {
            head.put_slice(&frame.body);
            self.out.push_back(head.freeze());
        } else {
            self.out.extend([head.freeze(), frame.body]);
        }
        Ok(())
    }

    /// Writes until nothing waits, the socket takes no more, or the turn is over; it wakes the task for the next turn
    /// itself.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while !self.out.is_empty() {
            if written >= TURN_BYTES {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.stream.poll_write_ready(context))?;
            let mut pieces = [io::IoSlice::new(&[]); PIECES];
            let count = self.out.iter().zip(&mut pieces).map(|(piece, slot)| *slot = io::IoSlice::new(piece)).count();
            match self.stream.try_write_vectored(&pieces[..count]) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    written += bytes;
                    self.take_written(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take_written(&mut self, mut bytes: usize) {
        self.out_bytes -= bytes;
        while let Some(piece) = self.out.front_mut() {
            if piece.len() > bytes {
                piece.advance(bytes);
                return;
            }
            bytes -= piece.len();
            self.out.pop_front();
        }
    }

    /// The next whole frame. Its body is memory of its own.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        loop {
            if self.turn >= TURN_BYTES {
                self.turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(frame) = self.take_frame()? {
                return Poll::Ready(Ok(frame));
            }
            let Poll::Ready(ready) = self.stream.poll_read_ready(context) else {
                self.turn = 0;
                return Poll::Pending;
            };
            ready?;
            match self.read() {
                Ok(0) => return Poll::Ready(Err(End::Peer)),
                Ok(bytes) => self.turn += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(End::Io(error))),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        if let Some((large, whole)) = &mut self.large {
            let left = (*whole - large.len()).min(TURN_BYTES);
            return self.stream.try_read_buf(&mut large.limit(left));
        }
        self.input.reserve(self.read_bytes);
        self.stream.try_read_buf(&mut (&mut self.input).limit(self.read_bytes))
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some((large, whole)) = &mut self.large {
            if large.len() < *whole {
                return Ok(None);
            }
            let frame = self.decoder.next(large)?;
            self.large = None;
            return Ok(frame);
        }
        let Some(whole) = self.decoder.frame_len(&self.input)? else { return Ok(None) };
        if whole > self.input.len() && whole > READ_BYTES {
            // The sender has proven who it is, or its frames have a few KiB. The system gives the memory as it is
            // filled.
            let mut large = BytesMut::with_capacity(whole);
            large.extend_from_slice(&self.input);
            self.input.clear();
            self.large = Some((large, whole));
            return Ok(None);
        }
        let mut frame = self.decoder.next(&mut self.input)?;
        if let Some(frame) = &mut frame {
            frame.body = Bytes::copy_from_slice(&frame.body);
        }
        Ok(frame)
    }

    /// Sends a frame and waits until it is written.
    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), End> {
        self.push(frame)?;
        poll_fn(|context| self.poll_flush(context)).await?;
        Ok(())
    }

    /// Waits for the next frame.
    pub(super) async fn receive(&mut self) -> Result<Frame, End> {
        poll_fn(|context| self.poll_frame(context)).await
    }
}
