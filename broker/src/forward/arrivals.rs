//! Streams of other members' clients, as they arrive at the leader.

use escrowmq_common::some_lines;
use std::net::TcpStream as StdStream;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::peer::{Hello, Streams};

/// Streams that were accepted and not yet taken up.
const WAITING: usize = 256;

/// Takes streams on the thread of members, and hands them to the runtime of clients.
pub(crate) struct Arrivals {
    runtime: Handle,
    streams: mpsc::Sender<TcpStream>,
}

impl Arrivals {
    /// The receiver gets the streams.
    pub(crate) fn new(runtime: Handle) -> (Self, mpsc::Receiver<TcpStream>) {
        let (streams, receiver) = mpsc::channel(WAITING);
        (Self { runtime, streams }, receiver)
    }
}

impl Streams for Arrivals {
    fn take(&self, from: &Hello, stream: StdStream) {
        let _entered = self.runtime.enter();
        let taken = TcpStream::from_std(stream).map(|stream| self.streams.try_send(stream));
        // The stream is closed then, and its tunnel finds out.
        if !matches!(taken, Ok(Ok(()))) {
            some_lines!(
                warn,
                seat = from.seat,
                "a client's connection that another member passes on is not taken: too many wait"
            );
        }
    }
}
