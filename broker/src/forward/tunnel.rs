//! One client's way to the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Budget, Connection, ConnectionLimits, join};
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::counts::{Counts, Waits};
use super::relay::Relay;
use super::way::Way;
use crate::raft::{Leadership, Office};

/// A request waits so long for a leader. An election takes half of it.
const HELD: Duration = Duration::from_millis(2500);
/// Between looks whether this member may answer: its lease comes a moment after its leadership.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A former leader may still answer what it has for so long.
const LINGER: Duration = Duration::from_secs(3);
/// Requests of one client that wait, and their bytes.
const WAITING: usize = 1024;
const WAITING_BYTES: usize = 16 << 20;
/// A heartbeat up to this size is kept for the next leader; its client repeats a larger one after 30 s. One with 2,000 subscriptions is
/// smaller.
const BEAT_BYTES_MAX: usize = 256 << 10;

/// Carries out a request here.
pub(crate) type Handle = Arc<dyn Fn(&Arc<Connection>, Frame) + Send + Sync>;

/// The parts that a tunnel uses.
pub(super) struct Course {
    pub(super) client: Arc<Connection>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) office: Arc<Office>,
    pub(super) way: Option<Arc<dyn Way>>,
    pub(super) handle: Handle,
    pub(super) limits: ConnectionLimits,
    pub(super) budget: Arc<Budget>,
    pub(super) counts: Arc<Counts>,
    pub(super) tasks: Tasks,
    pub(super) shutdown: Shutdown,
}

enum Input {
    Request(Frame, Instant, Waits),
    /// A heartbeat came: the newest one is told, unless it was.
    Beat,
    Answer(Frame),
}

/// The newest heartbeat that was not told yet, and whether it was carried out here.
type Untold = Arc<Mutex<Option<(Frame, bool)>>>;

/// The handle of a tunnel. It ends when this is dropped.
pub(super) struct Tunnel {
    client: Arc<Connection>,
    input: mpsc::Sender<Input>,
    untold: Untold,
    waiting_bytes: Arc<AtomicUsize>,
    counts: Arc<Counts>,
}

impl Tunnel {
    pub(super) fn open(course: Course, tasks: &Tasks) -> Self {
        let (input, inputs) = mpsc::channel(WAITING);
        let (client, counts) = (Arc::clone(&course.client), Arc::clone(&course.counts));
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let untold = Untold::default();
        let mut run = Run {
            waiting_bytes: Arc::clone(&waiting_bytes),
            untold: Arc::clone(&untold),
            beat: None,
            end: None,
            course,
        };
        tasks.spawn("tunnel", async move {
            let shutdown = run.course.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = run.run(inputs) => {}
            }
            // Left open it would end when it has been idle for long, and a member that stops would wait for it.
            if let Some(end) = run.end.take() {
                end.connection.close("its client is gone");
            }
        });
        Self { client, input, untold, waiting_bytes, counts }
    }

    pub(super) fn pass(&self, request: Frame) {
        let bytes = request.body.len();
        let too_much = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel) > WAITING_BYTES;
        let sent = if too_much {
            Err(request)
        } else {
            let input = Input::Request(request, Instant::now() + HELD, Waits::new(&self.counts));
            self.input.try_send(input).map_err(|error| {
                let (mpsc::error::TrySendError::Full(input) | mpsc::error::TrySendError::Closed(input)) = error;
                match input {
                    Input::Request(frame, ..) => frame,
                    Input::Beat | Input::Answer(_) => unreachable!("a request was put in"),
                }
            })
        };
        if let Err(request) = sent {
            self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            let remark = "[OVERLOAD]too many requests of this client wait for a leader of the group: nothing was done, try again";
            self.client.reply(&Frame::response(&request, response::SYSTEM_BUSY).with_remark(remark));
        }
    }

    pub(super) fn beat(&self, beat: Frame, is_carried_out: bool) {
        // It takes the place of one that waits: a client that sends many makes no queue.
        let mut untold = self.untold.lock();
        if untold.replace((beat, is_carried_out)).is_none() && self.input.try_send(Input::Beat).is_err() {
            // Its client repeats it.
            *untold = None;
        }
    }

    pub(super) fn answer(&self, response: Frame) {
        // One that finds no room is lost, as on a connection that breaks: whoever asked asks again.
        let _ = self.input.try_send(Input::Answer(response));
    }
}

/// The far end, as it is now.
struct End {
    leader: u64,
    term: u64,
    connection: Arc<Connection>,
    relay: Arc<Relay>,
}

/// Where a request goes.
enum Place {
    Here,
    There,
}

struct Run {
    course: Course,
    waiting_bytes: Arc<AtomicUsize>,
    untold: Untold,
    /// The client's last heartbeat, which a new leader has not seen.
    beat: Option<Frame>,
    end: Option<End>,
}

impl Run {
    async fn run(&mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut leadership = self.course.leadership.clone();
        // Until this member has ended, when nobody tells of changes any more.
        let mut is_told = true;
        loop {
            let input = tokio::select! {
                biased;
                input = inputs.recv() => input,
                changed = leadership.changed(), if is_told && self.beat.is_some() => {
                    is_told = changed.is_ok();
                    if is_told {
                        // A new leader shall know the client before it asks for anything.
                        if matches!(self.reach(Instant::now() + HELD).await, Some(Place::Here)) {
                            self.beat_here();
                        }
                    }
                    continue;
                }
            };
            match input {
                None => break,
                Some(Input::Request(frame, until, waits)) => {
                    self.waiting_bytes.fetch_sub(frame.body.len(), Ordering::AcqRel);
                    self.send(frame, until).await;
                    drop(waits);
                }
                Some(Input::Beat) => {
                    let newest = self.untold.lock().take();
                    if let Some((frame, is_carried_out)) = newest {
                        self.tell(frame, is_carried_out).await;
                    }
                }
                Some(Input::Answer(frame)) => {
                    if let Some(end) = &self.end {
                        end.connection.write_with(|out| frame.encode(out));
                    }
                }
            }
        }
    }

    async fn send(&mut self, frame: Frame, until: Instant) {
        match self.reach(until).await {
            Some(Place::Here) => (self.course.handle)(&self.course.client, frame),
            Some(Place::There) => {
                if let Some(end) = &self.end {
                    self.course.counts.passed.add_one();
                    end.relay.note(&frame);
                    end.connection.write_with(|out| frame.encode(out));
                    if !end.connection.is_open() {
                        // It ended before this was written, or after: the relay answers either way.
                        use escrowmq_common::remoting::Service as _;
                        end.relay.on_close(&end.connection);
                    }
                }
            }
            None => {
                self.course.counts.refused.add_one();
                let remark = "no leader of the group can be reached: nothing was done, try again";
                let refused = Frame::response(&frame, response::SERVICE_NOT_AVAILABLE).with_remark(remark);
                self.course.client.reply(&refused);
            }
        }
    }

    async fn tell(&mut self, mut beat: Frame, is_carried_out: bool) {
        beat.set_oneway();
        // A copy: the body is a part of a read buffer, and would keep all of it.
        let is_small = beat.body.len() <= BEAT_BYTES_MAX;
        self.beat = is_small.then(|| Frame { body: Bytes::copy_from_slice(&beat.body), ..beat.clone() });
        match self.reach(Instant::now() + HELD).await {
            Some(Place::There) => {
                if let Some(end) = &self.end {
                    end.connection.write_with(|out| beat.encode(out));
                }
            }
            Some(Place::Here) if !is_carried_out => (self.course.handle)(&self.course.client, beat),
            Some(Place::Here) | None => {}
        }
    }

    /// This member leads: it carries out the last heartbeat, which only a leader does.
    fn beat_here(&self) {
        if let Some(beat) = &self.beat {
            (self.course.handle)(&self.course.client, beat.clone());
        }
    }

    /// Waits until there is a leader that can be reached.
    async fn reach(&mut self, until: Instant) -> Option<Place> {
        let mut leadership = self.course.leadership.clone();
        loop {
            if self.course.office.is_held() {
                return Some(Place::Here);
            }
            let seen = *leadership.borrow_and_update();
            if let Leadership::Following { leader: Some(leader), term } = seen {
                if self.is_at(leader, term) {
                    return Some(Place::There);
                }
                tokio::select! {
                    biased;
                    // A leader that stands still takes connections, and answers none. Others elect the next one meanwhile.
                    changed = leadership.changed() => {
                        changed.ok()?;
                        continue;
                    }
                    opened = self.open(leader, term, until) => if opened {
                        return Some(Place::There);
                    }
                }
            }
            let look = Instant::now() + LOOK_EVERY;
            if look >= until {
                return None;
            }
            tokio::select! {
                changed = leadership.changed() => changed.ok()?,
                () = sleep_until(look) => {}
            }
        }
    }

    fn is_at(&self, leader: u64, term: u64) -> bool {
        self.end.as_ref().is_some_and(|end| (end.leader, end.term) == (leader, term) && end.connection.is_open())
    }

    async fn open(&mut self, leader: u64, term: u64, until: Instant) -> bool {
        if let Some(former) = self.end.take() {
            self.course.tasks.spawn("former tunnel", linger(former));
        }
        let Some(way) = &self.course.way else { return false };
        let rest = until.saturating_duration_since(Instant::now());
        let Ok(Ok(stream)) = timeout(rest, way.open(leader)).await else { return false };
        let relay = Arc::new(Relay::new(Arc::clone(&self.course.client), Arc::clone(&self.course.counts)));
        let Course { limits, budget, tasks, client, .. } = &self.course;
        let joined = TcpStream::from_std(stream).and_then(|stream| join(stream, relay.clone(), limits, budget, tasks));
        let Ok(connection) = joined else { return false };
        self.course.counts.opened.add_one();
        let header = proxy_header(client);
        connection.write_with(|out| out.extend_from_slice(header.as_bytes()));
        if let Some(beat) = &self.beat {
            connection.write_with(|out| beat.encode(out));
        }
        self.end = Some(End { leader, term, connection, relay });
        true
    }
}

/// The client's address, in front of its frames.
fn proxy_header(client: &Connection) -> String {
    let (peer, local) = (client.peer(), client.local());
    let family = if peer.is_ipv4() && local.is_ipv4() { "TCP4" } else { "TCP6" };
    let text = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) if family == "TCP6" => ip.to_ipv6_mapped().to_string(),
        ip => ip.to_string(),
    };
    format!("PROXY {family} {} {} {} {}\r\n", text(peer.ip()), text(local.ip()), peer.port(), local.port())
}

/// A former leader answers what it has; then its end of the tunnel is closed.
async fn linger(former: End) {
    let until = Instant::now() + LINGER;
    while !former.relay.is_idle() && former.connection.is_open() && Instant::now() < until {
        sleep_until(Instant::now() + LOOK_EVERY).await;
    }
    former.connection.close("another member leads");
}
