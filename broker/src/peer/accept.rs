//! The port for members: lets connections in, one task for each.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::counts::count;
use super::handshake::{Fault, Known, answer};
use super::hello::{Hello, Lane};
use super::serving::serve;
use super::shared::Shared;

/// Most connections that have not yet proven who they are. One more takes the place of the oldest: a member proves
/// itself within milliseconds, a stranger sits there.
pub(super) const HALF_OPEN_MAX: usize = 64;

/// How long to wait after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that have not yet proven who they are, the oldest first.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: VecDeque<(u64, Shutdown)>,
}

impl HalfOpen {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.lock().taken.len()
    }

    /// Takes a connection in; says whether an older one had to go.
    fn enter(self: &Arc<HalfOpen>, displaced: Shutdown) -> (Place, bool) {
        let mut places = self.places.lock();
        places.next += 1;
        let number = places.next;
        let oldest = if places.taken.len() >= HALF_OPEN_MAX { places.taken.pop_front() } else { None };
        places.taken.push_back((number, displaced));
        if let Some((_, displaced)) = &oldest {
            displaced.cancel();
        }
        (Place { half_open: Arc::clone(self), number }, oldest.is_some())
    }
}

/// The place of one of them.
struct Place {
    half_open: Arc<HalfOpen>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.half_open.places.lock().taken.retain(|(number, _)| *number != self.number);
    }
}

/// Accepts connections until the member stops.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, half_open: Arc<HalfOpen>) {
    let stop = shared.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => open(stream, address, &shared, &half_open),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if shared.not_let_in.open().is_some() {
                    tracing::error!(%error, "cannot accept connections of other members, trying again");
                }
                tokio::select! {
                    biased;
                    () = &mut stopped => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

fn open(stream: TcpStream, address: SocketAddr, shared: &Arc<Shared>, half_open: &Arc<HalfOpen>) {
    let displaced = shared.stop.child();
    let (place, is_full) = half_open.enter(displaced.clone());
    if is_full {
        count(&shared.counters.displaced);
        log_not_let_in(shared, address, "the oldest of too many connections that have not proven who they are");
    }
    let shared = Arc::clone(shared);
    let task = shared.tasks.clone();
    task.spawn("member connection", async move {
        let known = tokio::select! {
            biased;
            // Counted when it lost its place, unless the member stops.
            () = displaced.cancelled() => return,
            known = welcome(stream, address, &shared) => known,
        };
        drop(place);
        if let Some((known, ours)) = known {
            run(known, &ours, address, &shared).await;
        }
    });
}

/// The handshake, with its time; gives the other side and what we told it of us. What is not let in is counted, and now
/// and then in the log.
async fn welcome(stream: TcpStream, address: SocketAddr, shared: &Shared) -> Option<(Known, Arc<Hello>)> {
    let identity = shared.identity();
    let (counter, why) = match timeout(shared.handshake_time, answer(stream, &identity)).await {
        Ok(Ok(known)) => {
            count(&shared.counters.welcomed);
            return Some((known, identity.hello));
        }
        Ok(Err(Fault::Refused(refusal))) => (&shared.counters.refused, refusal.text),
        Ok(Err(Fault::Ended(end))) => (&shared.counters.strange, end.to_string()),
        Err(_) => (&shared.counters.silent, "no handshake in time".to_owned()),
    };
    count(counter);
    log_not_let_in(shared, address, &why);
    None
}

fn log_not_let_in(shared: &Shared, address: SocketAddr, why: &str) {
    if let Some(others) = shared.not_let_in.open() {
        tracing::warn!(%address, reason = why, others, "a connection to the port for members was not let in");
    }
}

/// A connection's entry among those that are served.
struct Entry<'a> {
    shared: &'a Shared,
    node: u64,
    lane: Lane,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.served.lock().leave(self.node, self.lane, self.number);
    }
}

async fn run(known: Known, ours: &Arc<Hello>, address: SocketAddr, shared: &Shared) {
    let (hello, lane) = (Arc::clone(&known.hello), known.lane);
    if lane == Lane::Forward {
        // There are as many as that member has clients; whoever takes them counts them.
        let Some(streams) = shared.streams.get() else { return };
        match known.wire.into_stream() {
            Ok(stream) => streams.take(&hello, stream),
            Err(error) => log_not_let_in(shared, address, &error.to_string()),
        }
        return;
    }
    let stop = shared.stop.child();
    let Some(number) = shared.served.lock().enter(hello.node, lane, stop.clone()) else {
        log_not_let_in(shared, address, "too many connections of members");
        return;
    };
    let _entry = Entry { shared, node: hello.node, lane, number };
    if !Arc::ptr_eq(ours, &shared.hello.load()) {
        // We are introduced otherwise since the handshake began, and that ended only the connections that had their
        // entry.
        return;
    }
    tracing::debug!(%address, seat = hello.seat, node = hello.node, %lane, build = hello.build, "a member has connected");
    shared.seen(&hello);
    let end = serve(known, &*shared.serve, shared.bytes_max, &stop).await;
    tracing::debug!(%address, seat = hello.seat, node = hello.node, %lane, reason = %end, "the connection of a member ended");
}

/// Whether an accept failed because of the connection it was about, so that the next one may be tried at once.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
