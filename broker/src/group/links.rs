//! The ways to other members, as Raft needs them, over the connections between members.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::care::seat_of;
use crate::peer::{self, CallError, Peers, Target};
use crate::raft::{Lane, Link, Links};

/// Raft has deadlines of its own. These only bound how long an answer that nobody waits for holds its place.
const APPEND_TIME: Duration = Duration::from_secs(10);
/// As above, for votes and heartbeats, which Raft gives up within a lease.
const PULSE_TIME: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct PeerLinks(pub(super) Peers);

/// The way to one member on one lane.
#[derive(Clone)]
pub(super) struct PeerLink {
    link: Result<peer::Link, String>,
    time: Duration,
}

impl Links for PeerLinks {
    type Link = PeerLink;

    fn link(&self, to: u64, address: &str, lane: Lane) -> PeerLink {
        let (lane, time) = match lane {
            Lane::Append => (peer::Lane::Append, APPEND_TIME),
            Lane::Pulse => (peer::Lane::Pulse, PULSE_TIME),
        };
        // A broker that was alone has none, and tells it to the group before there are others.
        let seat = seat_of(address).ok_or_else(|| format!("node {to} has no address in the group: '{address}'"));
        PeerLink { link: seat.map(|seat| self.0.link(&Target::Node(to), &seat.address(), lane)), time }
    }
}

impl Link for PeerLink {
    fn call(&self, request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        // The request is queued here, not when somebody polls.
        let called = self.link.as_ref().map(|link| link.call(request, self.time)).map_err(String::clone);
        async move {
            match called {
                Ok(call) => call.await.map_err(io_error),
                Err(why) => Err(io::Error::new(io::ErrorKind::NotConnected, why)),
            }
        }
    }
}

/// `NotConnected` says that nothing was sent.
pub(super) fn io_error(error: CallError) -> io::Error {
    let kind = match &error {
        CallError::Unreachable { .. } | CallError::Busy { .. } | CallError::Refused(_) => io::ErrorKind::NotConnected,
        CallError::TooLarge { .. } => io::ErrorKind::InvalidInput,
        CallError::Broken { .. } => io::ErrorKind::ConnectionReset,
        CallError::TimedOut { .. } => io::ErrorKind::TimedOut,
    };
    io::Error::new(kind, error)
}
