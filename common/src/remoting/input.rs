//! Bytes that were read from a connection and not yet handed on.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::budget::{Budget, Charge, SMALL};
use super::proxy_header::{self, Beginning};
use crate::frame::{Frame, FrameDecoder, FrameError};

/// Least and most room for one read. It grows while reads fill it and shrinks while they do not.
const READ_MIN: usize = SMALL;
const READ_MAX: usize = 256 * 1024;

/// A buffer above this is given back after use, a smaller one when the connection pauses.
pub(super) const KEEP: usize = 64 * 1024;

/// The read buffer of a connection, cut into frames.
#[derive(Debug)]
pub(super) struct Input {
    decoder: FrameDecoder,
    /// Bytes read and not yet decoded; only a part of one frame between turns.
    buffer: BytesMut,
    /// Room to make for the next read.
    read_len: usize,
    /// Bytes of the memory of which `buffer` may be a part.
    block: usize,
    charge: Charge,
    /// Bytes of a refused frame that are still to come, and to be thrown away.
    skip: usize,
}

/// A body that was handed on, with what it is charged.
struct Body {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A frame that gets no room.
pub(super) enum Unwanted {
    /// Its header is here, its body will be thrown away.
    Request(Box<Frame>),
    /// Not even its header is complete.
    Nothing,
}

impl Input {
    pub(super) fn new(frame_len: usize, budget: &Arc<Budget>) -> Input {
        Input {
            decoder: FrameDecoder::new(frame_len),
            buffer: BytesMut::new(),
            read_len: READ_MIN,
            block: 0,
            charge: Charge::new(budget),
            skip: 0,
        }
    }

    /// Bytes that wait for the rest of their frame.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits, and nothing is to be thrown away.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.skip == 0
    }

    /// Makes room for the next read; says whether the budget allows it.
    pub(super) fn make_room(&mut self) -> bool {
        let mut room = self.read_len;
        let needed = self.buffer.len() + room;
        if needed > self.charge.bytes() && needed > SMALL && !self.charge.raise(needed) {
            // A connection may use the bytes that it has already.
            room = self.charge.bytes().max(SMALL).saturating_sub(self.buffer.len());
        }
        if room == 0 {
            return false;
        }
        self.buffer.reserve(room);
        self.block = self.block.max(self.buffer.capacity());
        self.settle();
        true
    }

    /// Reads into the room that was made. Zero bytes are the end.
    pub(super) fn poll_read(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = pin!(stream.read_buf(&mut self.buffer)).poll(context);
        match &read {
            Poll::Ready(Ok(bytes)) => self.on_read(*bytes),
            // The socket was thought ready and is not, as a fresh one always is.
            Poll::Pending if self.buffer.is_empty() => self.give_back(),
            _ => {}
        }
        read
    }

    fn on_read(&mut self, bytes: usize) {
        if bytes >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_MAX);
        } else if bytes < self.read_len / 4 {
            self.read_len = (self.read_len / 2).max(READ_MIN);
        }
        if self.skip > 0 {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
        }
    }

    /// The beginning of the connection; a header is taken off.
    pub(super) fn beginning(&mut self) -> Beginning {
        let beginning = proxy_header::beginning(&self.buffer);
        if let Beginning::Header(length, _) = beginning {
            self.buffer.advance(length);
        }
        beginning
    }

    /// The next whole frame. A large body takes its charge along: whoever keeps the frame keeps the memory.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut frame = self.decoder.next(&mut self.buffer)?;
        if let Some(frame) = frame.as_mut().filter(|frame| frame.body.len() > KEEP) {
            let charge = self.charge.split(frame.body.len());
            self.block = self.charge.bytes();
            frame.body = Bytes::from_owner(Body { bytes: std::mem::take(&mut frame.body), _charge: charge });
        }
        Ok(frame)
    }

    /// Gives up the frame that is begun: its bytes go, those that follow are thrown away as they come.
    pub(super) fn refuse(&mut self) -> Result<Unwanted, FrameError> {
        let Some((frame, whole)) = self.decoder.head(&self.buffer)? else { return Ok(Unwanted::Nothing) };
        self.skip = whole - self.buffer.len();
        self.give_back();
        Ok(Unwanted::Request(Box::new(frame)))
    }

    /// After a turn: a large buffer that nothing waits in is given back.
    pub(super) fn end_turn(&mut self) {
        if self.buffer.is_empty() && self.block > KEEP {
            self.give_back();
        }
    }

    /// The connection pauses: keeps no more room than for what is there.
    pub(super) fn shrink(&mut self) {
        self.read_len = READ_MIN;
        if self.buffer.is_empty() {
            self.give_back();
        } else if self.block > READ_MIN.max(2 * self.buffer.len()) {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.block = self.buffer.capacity();
            self.settle();
        }
    }

    fn give_back(&mut self) {
        self.buffer = BytesMut::new();
        self.block = 0;
        self.settle();
    }

    fn settle(&mut self) {
        if self.block != self.charge.bytes() {
            self.charge.set(self.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BudgetLimits;
    use super::*;
    use crate::frame::MAX_FRAME_LEN;

    fn budget(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget::new(BudgetLimits { bytes, ..BudgetLimits::default() }))
    }

    fn put(input: &mut Input, bytes: &[u8]) {
        assert!(input.buffer.capacity() - input.buffer.len() >= bytes.len());
        input.buffer.extend_from_slice(bytes);
        input.on_read(bytes.len());
    }

    #[test]
    fn room_beyond_a_little_needs_budget() {
        let budget = budget(SMALL);
        let mut one = Input::new(MAX_FRAME_LEN, &budget);
        assert!(one.make_room());
        put(&mut one, &[0; SMALL]);
        assert_eq!(budget.bytes_used(), SMALL);
        assert!(!one.make_room(), "there is no more");
        // Another connection gets its little all the same.
        let mut two = Input::new(MAX_FRAME_LEN, &budget);
        assert!(two.make_room());
        assert_eq!(budget.bytes_used(), 2 * SMALL);
        drop(one);
        assert_eq!(budget.bytes_used(), SMALL);
    }

    #[test]
    fn a_refused_frame_is_thrown_away_and_the_next_one_read() {
        let budget = budget(SMALL);
        let mut input = Input::new(MAX_FRAME_LEN, &budget);
        let mut bytes = BytesMut::new();
        let mut frame = Frame::request(310).with_body(vec![7; 10_000]);
        frame.opaque = 9;
        frame.encode(&mut bytes);
        let next_at = bytes.len();
        Frame::request(34).encode(&mut bytes);
        assert!(input.make_room());
        put(&mut input, &bytes.split_to(SMALL));
        assert!(input.next().unwrap().is_none());
        let Unwanted::Request(refused) = input.refuse().unwrap() else { panic!("the header is there") };
        assert_eq!((refused.code, refused.opaque), (310, 9));
        assert_eq!((input.skip, budget.bytes_used()), (next_at - SMALL, 0));
        while !bytes.is_empty() {
            assert!(!input.is_empty() && input.make_room());
            let most = bytes.len().min(SMALL - input.len());
            put(&mut input, &bytes.split_to(most));
        }
        assert_eq!(input.next().unwrap().map(|frame| frame.code), Some(34));
        assert!(input.is_empty());
    }

    #[test]
    fn a_large_body_is_charged_until_nobody_has_it() {
        let budget = budget(1 << 20);
        let mut input = Input::new(MAX_FRAME_LEN, &budget);
        let mut bytes = BytesMut::new();
        Frame::request(310).with_body(vec![7; 2 * KEEP]).encode(&mut bytes);
        input.read_len = READ_MAX;
        assert!(input.make_room());
        put(&mut input, &bytes);
        let body = input.next().unwrap().expect("it is whole").body;
        input.end_turn();
        input.shrink();
        assert_eq!((body.len(), budget.bytes_used()), (2 * KEEP, 2 * KEEP));
        let part = body.slice(..1);
        drop((input, body));
        assert_eq!(budget.bytes_used(), 2 * KEEP, "a part keeps all of it");
        drop(part);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn a_frame_without_its_header_cannot_be_answered() {
        let mut input = Input::new(MAX_FRAME_LEN, &budget(SMALL));
        assert!(input.make_room());
        put(&mut input, &[0, 0, 0x80, 0, 0, 0, 0x7f, 0, b'{']);
        assert!(matches!(input.refuse(), Ok(Unwanted::Nothing)));
    }

    #[test]
    fn a_paused_connection_keeps_no_more_than_it_needs() {
        let budget = budget(1 << 20);
        let mut input = Input::new(MAX_FRAME_LEN, &budget);
        input.read_len = READ_MAX;
        assert!(input.make_room());
        put(&mut input, &[0; 10]);
        assert!(budget.bytes_used() >= READ_MAX);
        input.shrink();
        assert!(budget.bytes_used() < 100 && input.len() == 10);
        input.buffer.clear();
        input.shrink();
        assert_eq!(budget.bytes_used(), 0);
    }
}
