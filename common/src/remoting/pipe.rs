//! The task of a connection: reads, hands on, writes, and ends it.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::{Connection, Service};
use crate::frame::{FrameDecoder, FrameError};

/// Least and most room for one read. It grows while reads fill it and shrinks while they do not.
const READ_MIN: usize = 4 * 1024;
const READ_MAX: usize = 256 * 1024;

/// A buffer above this is given back after use, a smaller one when the connection pauses.
const KEEP: usize = 64 * 1024;

/// Runs a connection until it ends.
pub(super) async fn run(connection: Arc<Connection>, stream: TcpStream, service: Arc<dyn Service>) {
    let peer = connection.peer();
    let mut pipe = Pipe::new(connection.clone(), stream, service.clone());
    let end = AssertUnwindSafe(async {
        service.on_open(&connection);
        pipe.turns().await
    });
    // A request whose handling panics costs its own connection and nothing else.
    let end = end.catch_unwind().await.unwrap_or(End::Panic);
    drop(pipe);
    connection.end();
    if end.is_ordinary() {
        tracing::debug!(%peer, reason = %end, "connection closed");
    } else {
        tracing::warn!(%peer, reason = %end, "connection closed");
    }
    service.on_close(&connection);
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    Peer,
    Io(io::Error),
    Us(&'static str),
    Undecodable(FrameError),
    SlowFrame,
    Idle,
    Panic,
}

impl End {
    /// Whether this happens in a healthy system every day.
    fn is_ordinary(&self) -> bool {
        match self {
            End::Peer | End::Io(_) | End::Idle => true,
            End::Us(why) => *why != super::connection::NOT_READING,
            End::Undecodable(_) | End::SlowFrame | End::Panic => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Peer => f.write_str("closed by peer"),
            End::Io(error) => write!(f, "{error}"),
            End::Us(why) => f.write_str(why),
            End::Undecodable(error) => write!(f, "{error}"),
            End::SlowFrame => f.write_str("a frame was begun and not finished in time"),
            End::Idle => f.write_str("idle"),
            End::Panic => f.write_str("handling a request panicked"),
        }
    }
}

/// What the task woke up for.
enum Event {
    Read(usize),
    /// Reading goes on after a pause that began in the middle of a batch.
    Resume,
    Tick,
    End(End),
}

/// Tells the service that the reads of the moment are done, at the latest when the connection ends.
struct AfterReads(Arc<dyn Service>);

impl Drop for AfterReads {
    fn drop(&mut self) {
        self.0.after_reads();
    }
}

struct Pipe {
    connection: Arc<Connection>,
    stream: TcpStream,
    service: Arc<dyn Service>,
    decoder: FrameDecoder,
    /// Bytes read and not yet decoded; only a part of one frame between turns.
    input: BytesMut,
    /// Room to make for the next read.
    read_len: usize,
    /// When the frame that is partly in `input` was begun.
    frame_begun: Option<Instant>,
    /// Bytes taken from the out buffer, and how many of them are written.
    output: BytesMut,
    written: usize,
    /// Not reading, because the peer does not read either.
    paused: bool,
    /// `input` may hold whole frames, left there by a pause.
    backlog: bool,
    last_activity: Instant,
    /// Whether anything happened since the last tick.
    active: bool,
    /// What the service asked for after the last read.
    after_reads: Option<AfterReads>,
    tick: Pin<Box<Sleep>>,
}

impl Pipe {
    fn new(connection: Arc<Connection>, stream: TcpStream, service: Arc<dyn Service>) -> Pipe {
        let limits = &connection.limits;
        Pipe {
            decoder: FrameDecoder::new(limits.frame_len),
            input: BytesMut::new(),
            read_len: READ_MIN,
            frame_begun: None,
            output: BytesMut::new(),
            written: 0,
            paused: false,
            backlog: false,
            last_activity: Instant::now(),
            active: false,
            after_reads: None,
            tick: Box::pin(sleep(limits.idle.min(limits.frame_time) / 4)),
            connection,
            stream,
            service,
        }
    }

    async fn turns(&mut self) -> End {
        loop {
            let end = match poll_fn(|context| self.poll_event(context)).await {
                Event::Read(0) => Some(End::Peer),
                Event::Read(bytes) => {
                    self.adapt_read_len(bytes);
                    self.take_input()
                }
                Event::Resume => self.take_input(),
                Event::Tick => self.on_tick(),
                Event::End(end) => Some(end),
            };
            if let Some(end) = end {
                return end;
            }
            if let Some(after_reads) = self.after_reads.take() {
                // To the end of the queue: connections that are ready as well read theirs first.
                tokio::task::yield_now().await;
                drop(after_reads);
            }
        }
    }

    /// Writes what waits, then looks for something to do.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // Before the first look: whoever writes or closes after it wakes us again.
        self.connection.waker.register(context.waker());
        if let Err(error) = self.flush(context) {
            return Poll::Ready(Event::End(End::Io(error)));
        }
        if let Some(why) = self.connection.close_reason() {
            return Poll::Ready(Event::End(End::Us(why)));
        }
        self.pause_or_resume();
        if !self.paused {
            if self.backlog {
                return Poll::Ready(Event::Resume);
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(bytes)) => return Poll::Ready(Event::Read(bytes)),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::End(End::Io(error))),
                Poll::Pending => {}
            }
        }
        self.tick.as_mut().poll(context).map(|()| Event::Tick)
    }

    /// Writes until the out buffer is empty or the socket takes no more.
    fn flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                if self.output.capacity() > KEEP {
                    self.output = BytesMut::new();
                }
                let mut out = self.connection.out.lock();
                if out.buffer.is_empty() {
                    out.attended = false;
                    return Ok(());
                }
                std::mem::swap(&mut out.buffer, &mut self.output);
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => self.on_written(bytes),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn on_written(&mut self, bytes: usize) {
        self.written += bytes;
        self.touch();
        let soft = self.connection.limits.out_soft;
        let before = self.connection.queued.fetch_sub(bytes, Ordering::AcqRel);
        if before > soft && before - bytes <= soft {
            self.connection.drained.notify_waiters();
        }
    }

    /// Stops reading above the soft bound of the out buffer, goes on when half of it has drained.
    fn pause_or_resume(&mut self) {
        let queued = self.connection.queued.load(Ordering::Acquire);
        let soft = self.connection.limits.out_soft;
        if self.paused && queued <= soft / 2 {
            self.paused = false;
            // The time in which we did not read is not the sender's.
            self.frame_begun = self.frame_begun.map(|_| Instant::now());
        } else if queued > soft {
            self.paused = true;
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Room is made only when there is something to read: an idle connection has no buffer.
        match self.stream.poll_read_ready(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        self.input.reserve(self.read_len);
        let read = pin!(self.stream.read_buf(&mut self.input));
        let read = read.poll(context);
        if read.is_ready() {
            // Answers of this batch are flushed behind it without anybody waking us.
            self.connection.out.lock().attended = true;
        } else if self.input.is_empty() {
            // The socket was thought ready and is not, as a fresh one always is.
            self.input = BytesMut::new();
        }
        read
    }

    fn adapt_read_len(&mut self, bytes: usize) {
        if bytes >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_MAX);
        } else if bytes < self.read_len / 4 {
            self.read_len = (self.read_len / 2).max(READ_MIN);
        }
    }

    /// Decodes and hands on all whole frames of the read buffer, as long as there is room for their answers.
    fn take_input(&mut self) -> Option<End> {
        self.touch();
        let mut whole_frames = false;
        self.backlog = true;
        let mut undecodable = None;
        let asked = self.service.on_read(&mut || {
            while self.connection.is_writable() {
                match self.decoder.next(&mut self.input) {
                    Ok(Some(frame)) if frame.is_response() => self.connection.complete(frame),
                    Ok(Some(frame)) => self.service.on_request(&self.connection, frame),
                    Ok(None) => {
                        self.backlog = false;
                        break;
                    }
                    Err(error) => {
                        undecodable = Some(error);
                        break;
                    }
                }
                whole_frames = true;
            }
        });
        self.after_reads = asked.then(|| AfterReads(Arc::clone(&self.service)));
        if let Some(error) = undecodable {
            return Some(End::Undecodable(error));
        }
        if self.input.is_empty() {
            self.frame_begun = None;
            if self.input.capacity() > KEEP {
                self.input = BytesMut::new();
            }
        } else if whole_frames || self.frame_begun.is_none() {
            self.frame_begun = Some(self.last_activity);
        }
        None
    }

    fn touch(&mut self) {
        self.last_activity = Instant::now();
        self.active = true;
    }

    /// Ends what takes too long, gives buffers back, sets the next tick.
    fn on_tick(&mut self) -> Option<End> {
        let limits = &self.connection.limits;
        let now = Instant::now();
        let idle_left = left(self.last_activity + limits.idle, now);
        let frame_left = match self.frame_begun.filter(|_| !self.paused) {
            Some(begun) => left(begun + limits.frame_time, now),
            None => limits.frame_time,
        };
        if frame_left.is_zero() {
            return Some(End::SlowFrame);
        }
        if idle_left.is_zero() {
            return Some(End::Idle);
        }
        if !std::mem::take(&mut self.active) {
            self.give_buffers_back();
        }
        let limits = &self.connection.limits;
        let regular = limits.idle.min(limits.frame_time) / 4;
        self.tick.as_mut().reset(now + idle_left.min(frame_left).min(regular));
        None
    }

    fn give_buffers_back(&mut self) {
        self.read_len = READ_MIN;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        let mut out = self.connection.out.lock();
        if out.buffer.is_empty() {
            out.buffer = BytesMut::new();
        }
    }
}

fn left(deadline: Instant, now: Instant) -> Duration {
    deadline.saturating_duration_since(now)
}
