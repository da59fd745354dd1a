//! The task of a connection: reads, hands on, writes, and ends it.

use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::budget::{Pressure, SMALL, count};
use super::end::End;
use super::input::{Input, KEEP, Unwanted};
use super::proxy_header::{Beginning, HEADER_MAX};
use super::serve::Entrance;
use super::slow_reader::SlowReader;
use super::{Connection, LogGate, Service, busy};
use crate::code::response;
use crate::frame::Frame;
use crate::limits::HEADER_BYTES_MAX;
use crate::task::Tasks;

/// Bodies above this are parsed away from the connection's task.
const LARGE_BODY: usize = 64 * 1024;

/// How long a connection is read no further for want of budget before the request that needs it is refused.
const SLOWED_TIME: Duration = Duration::from_secs(3);
/// How long a connection with too many unanswered requests is read no further before further ones are refused.
const FLOODED_TIME: Duration = Duration::from_secs(1);
/// Between looks for budget.
const SLOWED_TICK: Duration = Duration::from_millis(100);
/// Between looks at a connection that holds bytes: while there is room for all, and while there is not.
const WATCH: Duration = Duration::from_secs(2);
const WATCH_CLOSELY: Duration = Duration::from_secs(1);
/// Within this time a connection must move what it holds, where others need it.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// A PROXY header must be complete within this time.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// Lines about connections that ended badly.
static BAD_ENDS: LogGate = LogGate::new(Duration::from_secs(1));

/// Runs a connection until it ends. `entrance` is how it came in, for those that were accepted.
pub(super) async fn run(
    connection: Arc<Connection>,
    stream: TcpStream,
    service: Arc<dyn Service>,
    tasks: Tasks,
    entrance: Option<Entrance>,
) {
    let mut pipe = Pipe::new(connection.clone(), stream, tasks, entrance);
    let end = AssertUnwindSafe(async {
        service.on_open(&connection);
        pipe.turns(&service).await
    });
    // A request whose handling panics costs its own connection and nothing else.
    let end = end.catch_unwind().await.unwrap_or(End::Panic);
    let elsewhere = pipe.elsewhere.take();
    if end.is_abrupt() {
        // Fails only where the connection is gone already.
        let _ = pipe.stream.set_zero_linger();
    }
    drop(pipe);
    connection.end();
    let peer = connection.peer();
    end.count(connection.budget.counts());
    if end.is_ordinary() {
        tracing::debug!(%peer, reason = %end, "connection closed");
    } else if let Some(others) = BAD_ENDS.open() {
        tracing::warn!(event = "connection_closed", %peer, reason = %end, others, "connection closed");
    }
    if let Some(work) = elsewhere {
        // No request of the connection comes after its end was told.
        work.await;
    }
    service.on_close(&connection);
}

/// The reason why the task woke up.
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

/// A request that is carried out on another thread; answers whether that went well.
type Elsewhere = Pin<Box<dyn Future<Output = bool> + Send>>;

struct Pipe {
    connection: Arc<Connection>,
    stream: TcpStream,
    tasks: Tasks,
    /// How the connection came in; gone when its first bytes have told whether a header stands in front.
    entrance: Option<Entrance>,
    input: Input,
    /// When the frame, or header, that is partly in `input` was begun.
    frame_begun: Option<Instant>,
    /// Bytes taken from the out buffer, and how many of them are written.
    output: BytesMut,
    written: usize,
    /// Not reading, because the peer does not read either.
    paused: bool,
    /// `input` may hold whole frames, left there by a pause.
    backlog: bool,
    /// Since when there is no budget for what is to be read.
    starved: Option<Instant>,
    /// Since when too many requests are unanswered.
    flooded: Option<Instant>,
    /// Requests that are to be answered.
    asked: u64,
    /// The request before the next one, if that is carried out on another thread.
    elsewhere: Option<Elsewhere>,
    last_activity: Instant,
    /// Whether anything happened since the last tick.
    active: bool,
    /// The service's wish after the last read.
    after_reads: Option<AfterReads>,
    /// Since when the connection holds bytes, as far as ticks have seen, and what had been moved then.
    watched: Option<(Instant, u64)>,
    /// Bytes read and written since the connection was opened, and those written alone.
    moved: u64,
    sent: u64,
    slow_reader: SlowReader,
    tick: Pin<Box<Sleep>>,
}

impl Pipe {
    fn new(connection: Arc<Connection>, stream: TcpStream, tasks: Tasks, entrance: Option<Entrance>) -> Pipe {
        let limits = &connection.limits;
        Pipe {
            input: Input::new(limits.frame_len, &connection.budget),
            frame_begun: None,
            output: BytesMut::new(),
            written: 0,
            paused: false,
            backlog: false,
            starved: None,
            flooded: None,
            asked: 0,
            elsewhere: None,
            last_activity: Instant::now(),
            active: false,
            after_reads: None,
            watched: None,
            moved: 0,
            sent: 0,
            slow_reader: SlowReader::default(),
            tick: Box::pin(sleep(limits.idle.min(limits.frame_time) / 4)),
            connection,
            stream,
            tasks,
            entrance,
        }
    }

    async fn turns(&mut self, service: &Arc<dyn Service>) -> End {
        loop {
            let end = match poll_fn(|context| self.poll_event(context)).await {
                Event::Read(0) => Some(End::Peer),
                Event::Read(bytes) => {
                    self.moved += bytes as u64;
                    self.take_input(service)
                }
                Event::Resume => self.take_input(service),
                Event::Tick => self.on_tick(),
                Event::End(end) => Some(end),
            };
            if let Some(end) = end {
                return end;
            }
            if self.watched.is_none() && self.holds_bytes() {
                self.watch();
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
        match self.poll_elsewhere(context) {
            Poll::Ready(None) if !self.paused && !self.is_flooded() => {
                if self.backlog {
                    return Poll::Ready(Event::Resume);
                }
                match self.poll_read(context) {
                    Poll::Ready(Ok(bytes)) => return Poll::Ready(Event::Read(bytes)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::End(End::Io(error))),
                    Poll::Pending => {}
                }
            }
            Poll::Ready(Some(event)) => return Poll::Ready(event),
            Poll::Ready(None) | Poll::Pending => {}
        }
        self.tick.as_mut().poll(context).map(|()| Event::Tick)
    }

    /// Whether the request that is carried out on another thread is done, if there is one.
    fn poll_elsewhere(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(work) = &mut self.elsewhere else { return Poll::Ready(None) };
        let went_well = std::task::ready!(work.as_mut().poll(context));
        self.elsewhere = None;
        // The time in which we did not read is not the sender's.
        self.frame_begun = self.frame_begun.map(|_| Instant::now());
        Poll::Ready(Some(if went_well { Event::Resume } else { Event::End(End::Panic) }))
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
                let is_done = out.buffer.is_empty();
                if is_done {
                    out.attended = false;
                } else {
                    std::mem::swap(&mut out.buffer, &mut self.output);
                }
                out.taken = self.output.capacity();
                out.settle();
                if is_done {
                    return Ok(());
                }
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    self.written += bytes;
                    self.moved += bytes as u64;
                    self.sent += bytes as u64;
                    self.touch();
                    self.connection.on_written(bytes);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn queued(&self) -> usize {
        self.connection.queued.load(Ordering::Acquire)
    }

    /// Stops reading above the soft bound of the out buffer, goes on when half of it has drained.
    fn pause_or_resume(&mut self) {
        let (queued, soft) = (self.queued(), self.connection.out_soft());
        if self.paused && queued <= soft / 2 {
            self.paused = false;
            // The time in which we did not read is not the sender's.
            self.frame_begun = self.frame_begun.map(|_| Instant::now());
        } else if queued > soft {
            self.paused = true;
        }
    }

    fn unanswered(&self) -> u64 {
        self.asked.saturating_sub(self.connection.answered())
    }

    /// Whether too many requests are unanswered to read more; after a while they are read again, and refused.
    fn is_flooded(&mut self) -> bool {
        let limit = self.connection.limits.in_flight;
        let unanswered = self.unanswered();
        if unanswered < limit {
            self.flooded = None;
            return false;
        }
        let now = Instant::now();
        let since = if let Some(since) = self.flooded {
            since
        } else {
            count(&self.connection.budget.counts().slowed);
            self.tick_within(FLOODED_TIME);
            *self.flooded.insert(now)
        };
        // Vital requests are taken then, and have a bound, too.
        now - since < FLOODED_TIME || unanswered >= limit.saturating_mul(2)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Room is made only when there is something to read: an idle connection has no buffer.
        match self.stream.poll_read_ready(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        if !self.input.make_room() {
            if self.starved.is_none() {
                count(&self.connection.budget.counts().slowed);
                self.starved = Some(Instant::now());
                self.tick_within(SLOWED_TICK);
            }
            return Poll::Pending;
        }
        self.starved = None;
        let read = self.input.poll_read(&mut self.stream, context);
        if read.is_ready() {
            // Answers of this batch are flushed after it without anybody waking us.
            self.connection.out.lock().attended = true;
        }
        read
    }

    /// Decodes and hands on all whole frames of the read buffer, as long as there is room for their answers.
    fn take_input(&mut self, service: &Arc<dyn Service>) -> Option<End> {
        self.touch();
        if self.entrance.is_some() {
            match self.look_at_beginning() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(end) => return Some(end),
            }
        }
        let (mut whole_frames, mut end) = (false, None);
        self.backlog = true;
        let asked = service.on_read(&mut || {
            while self.connection.is_writable() && self.elsewhere.is_none() && !self.is_flooded() {
                match self.input.next() {
                    Ok(Some(frame)) if frame.is_response() => service.on_response(&self.connection, frame),
                    Ok(Some(frame)) => self.hand_on(service, frame),
                    Ok(None) => {
                        self.backlog = false;
                        break;
                    }
                    Err(error) => {
                        end = Some(End::Undecodable(error));
                        break;
                    }
                }
                whole_frames = true;
            }
        });
        self.after_reads = asked.then(|| AfterReads(Arc::clone(service)));
        if end.is_some() {
            return end;
        }
        if self.input.is_empty() {
            self.frame_begun = None;
        } else if whole_frames || self.frame_begun.is_none() {
            self.frame_begun = Some(self.last_activity);
        }
        self.input.end_turn();
        None
    }

    fn hand_on(&mut self, service: &Arc<dyn Service>, request: Frame) {
        if !request.is_oneway() {
            self.asked += 1;
        }
        if self.flooded.is_some() && !service.is_vital(request.code) {
            count(&self.connection.budget.counts().refused_requests);
            return self.connection.reply(&busy(&request, "too many requests of this connection are unanswered"));
        }
        if let Some(why) = request.header_excess(HEADER_BYTES_MAX) {
            return self.connection.reply(&Frame::response(&request, response::MESSAGE_ILLEGAL).with_remark(why));
        }
        if request.body.len() > LARGE_BODY && service.parses_body(request.code) {
            self.elsewhere = Some(self.carry_out_elsewhere(service, request));
        } else {
            service.on_request(&self.connection, request);
        }
    }

    fn carry_out_elsewhere(&self, service: &Arc<dyn Service>, request: Frame) -> Elsewhere {
        let (service, connection, tasks) = (Arc::clone(service), Arc::clone(&self.connection), self.tasks.clone());
        Box::pin(async move {
            let places = Arc::clone(&connection.budget.large_bodies);
            let place = places.acquire_owned().await.expect("never closed");
            let work = tasks.spawn_blocking("large body", move || {
                let _place = place;
                service.on_request(&connection, request);
            });
            matches!(work.await, Ok(Some(())))
        })
    }

    /// Looks for a PROXY header; says whether frames follow now.
    fn look_at_beginning(&mut self) -> Result<bool, End> {
        match self.input.beginning() {
            Beginning::Unfinished if self.input.len() < HEADER_MAX => {
                if self.frame_begun.is_none() {
                    self.frame_begun = Some(self.last_activity);
                    self.tick_within(HEADER_TIME);
                }
                return Ok(false);
            }
            Beginning::Unfinished => return Err(End::Header("a PROXY header of more than 536 bytes")),
            Beginning::Malformed(why) => return Err(End::Header(why)),
            Beginning::Header(_, client) => {
                self.frame_begun = None;
                let entrance = self.entrance.as_mut().filter(|entrance| entrance.trusts(self.connection.sender().ip()));
                if let (Some(entrance), Some(client)) = (entrance, client) {
                    self.connection.set_client(client);
                    entrance.admitted.lock().count_for(client.ip()).map_err(|_| End::TooMany)?;
                }
            }
            Beginning::None => {}
        }
        self.entrance = None;
        Ok(true)
    }

    fn touch(&mut self) {
        self.last_activity = Instant::now();
        self.active = true;
    }

    /// Whether the connection holds more than every connection may.
    fn holds_bytes(&self) -> bool {
        self.input.len() >= SMALL || self.queued() > SMALL
    }

    fn watch(&mut self) {
        self.watched = Some((Instant::now(), self.moved));
        self.tick_within(self.watch_time());
    }

    fn watch_time(&self) -> Duration {
        if self.connection.budget.pressure() == Pressure::None { WATCH } else { WATCH_CLOSELY }
    }

    /// Lets the next tick come within a time.
    fn tick_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        if at < self.tick.deadline() {
            self.tick.as_mut().reset(at);
        }
    }

    /// Ends what takes too long, gives buffers back, sets the next tick.
    fn on_tick(&mut self) -> Option<End> {
        let now = Instant::now();
        let connection = Arc::clone(&self.connection);
        let limits = &connection.limits;
        let idle_left = left(self.last_activity + limits.idle, now);
        let frame_time = if self.entrance.is_some() { HEADER_TIME } else { limits.frame_time };
        let frame_left = match self.frame_begun.filter(|_| !self.paused && self.elsewhere.is_none()) {
            Some(begun) => left(begun + frame_time, now),
            None => frame_time,
        };
        if frame_left.is_zero() {
            return Some(if self.entrance.is_some() { End::SlowHeader } else { End::SlowFrame });
        }
        if idle_left.is_zero() {
            return Some(End::Idle);
        }
        if self.slow_reader.look(limits, self.queued(), self.sent, now) {
            return Some(End::SlowReader);
        }
        if self.is_in_the_way(now) {
            return Some(End::InTheWay);
        }
        if self.starved.is_some_and(|since| now - since >= SLOWED_TIME)
            && let Err(end) = self.refuse_frame()
        {
            return Some(end);
        }
        if !std::mem::take(&mut self.active) {
            self.give_buffers_back();
        }
        let mut next = idle_left.min(frame_left).min(limits.idle.min(limits.frame_time) / 4);
        next = self.slow_reader.left(limits, now).map_or(next, |left| left.min(next));
        if self.watched.is_some() {
            next = next.min(self.watch_time());
        }
        if self.starved.is_some() {
            next = next.min(SLOWED_TICK);
        }
        if let Some(since) = self.flooded {
            next = next.min(left(since + FLOODED_TIME, now).max(SLOWED_TICK));
        }
        self.tick.as_mut().reset(now + next);
        None
    }

    /// Whether the connection holds bytes that others need, and has moved next to none since the last look.
    fn is_in_the_way(&mut self, now: Instant) -> bool {
        if !self.holds_bytes() {
            self.watched = None;
            return false;
        }
        let Some((since, moved)) = self.watched.replace((now, self.moved)) else { return false };
        // While it waits for us it cannot move.
        if self.starved.is_some() || self.flooded.is_some() || self.elsewhere.is_some() {
            return false;
        }
        if now - since < WATCH_CLOSELY {
            self.watched = Some((since, moved));
            return false;
        }
        let least = least_progress(self.input.len() + self.queued(), now - since);
        self.moved - moved < least && self.connection.budget.pressure() >= Pressure::Evict
    }

    /// Answers the frame that gets no room as busy; its rest is thrown away as it comes.
    fn refuse_frame(&mut self) -> Result<(), End> {
        match self.input.refuse() {
            Ok(Unwanted::Request(frame)) => {
                self.starved = None;
                if !frame.is_response() {
                    if !frame.is_oneway() {
                        self.asked += 1;
                    }
                    count(&self.connection.budget.counts().refused_requests);
                    let why = "all connections together hold more unfinished requests than they may";
                    self.connection.reply(&busy(&frame, why));
                }
                Ok(())
            }
            Ok(Unwanted::Nothing) => Err(End::NoRoom),
            Err(error) => Err(End::Undecodable(error)),
        }
    }

    fn give_buffers_back(&mut self) {
        self.input.shrink();
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        let mut out = self.connection.out.lock();
        if out.buffer.is_empty() {
            out.buffer = BytesMut::new();
        }
        out.taken = self.output.capacity();
        out.settle();
    }
}

/// The bytes that a connection must move within a time, where others need what it holds: at least [`SMALL`] a second, and so
/// many that what it holds is gone within [`DRAIN_TIME`]. The first alone would let a peer hold megabytes for minutes.
fn least_progress(held: usize, time: Duration) -> u64 {
    let a_second = (SMALL as u64).max(held as u64 / DRAIN_TIME.as_secs());
    a_second.saturating_mul(time.as_secs())
}

fn left(deadline: Instant, now: Instant) -> Duration {
    deadline.saturating_duration_since(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_much_must_move_much() {
        let seconds = Duration::from_secs;
        assert_eq!(least_progress(5000, seconds(1)), 4096);
        assert_eq!(least_progress(5000, seconds(3)), 3 * 4096);
        assert_eq!(least_progress(60 << 20, seconds(1)), 1 << 20);
        assert_eq!(least_progress(5000, Duration::from_millis(900)), 0, "too short a time tells nothing");
    }
}
