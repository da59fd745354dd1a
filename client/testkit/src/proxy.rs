//! The way between clients and the broker: whole frames are handed on, those that a fault takes are not.
//!
//! The broker tells clients this address, so they keep it over restarts. While the broker is down the port is bound and not listened
//! at: connecting is refused, and nobody else gets the port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use escrowmq_common::frame::{Frame, MAX_FRAME_LEN};
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::faults::{Fate, Faults};

/// Connections that the system takes before they are accepted.
const BACKLOG: u32 = 1024;
/// Pause after the system had no file descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Room in front of each read.
const READ_BYTES: usize = 16 * 1024;

/// The state that connections and the kit share.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Locked for a moment, once for each frame.
    pub(crate) faults: Mutex<Faults>,
    /// Ends the connections that there are.
    cut: Mutex<Shutdown>,
    connections: AtomicU64,
}

impl Wire {
    /// Breaks all connections. New ones are taken.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }
}

/// Listens while the broker runs.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Reserved(TcpSocket),
    Open {
        shutdown: Shutdown,
        tasks: Tasks,
    },
    /// Between the two, or after the port could not be had again.
    Nowhere,
}

impl Proxy {
    /// Reserves a free port.
    pub(crate) fn reserve(wire: Arc<Wire>) -> io::Result<Proxy> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Proxy { address: socket.local_addr()?, wire, place: Place::Reserved(socket) })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections, and makes one to the broker for each.
    pub(crate) fn open(&mut self, broker: SocketAddr) -> io::Result<()> {
        let listener = match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Reserved(socket) => socket.listen(BACKLOG)?,
            Place::Nowhere => bind(self.address)?.listen(BACKLOG)?,
            open @ Place::Open { .. } => {
                self.place = open;
                return Ok(());
            }
        };
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let accepting = accept(listener, broker, Arc::clone(&self.wire), tasks.clone(), shutdown.clone());
        tasks.spawn("testkit proxy", accepting);
        self.place = Place::Open { shutdown, tasks };
        Ok(())
    }

    /// Ends all connections, and refuses new ones.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        if let Place::Open { shutdown, tasks } = &self.place {
            shutdown.cancel();
            tasks.join().await;
            self.place = Place::Nowhere;
            self.place = Place::Reserved(bind(self.address)?);
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The last connections may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, broker: SocketAddr, wire: Arc<Wire>, tasks: Tasks, shutdown: Shutdown) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let number = wire.connections.fetch_add(1, Ordering::Relaxed);
        let (wire, cut, shutdown) = (Arc::clone(&wire), wire.cut.lock().clone(), shutdown.clone());
        tasks.spawn("testkit connection", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = cut.cancelled() => {}
                // One end has failed, or a fault breaks it: so does the other.
                _ = connect(client, broker, &wire, number) => {}
            }
            wire.faults.lock().ended(number);
        });
    }
}

/// Carries both ways until both ends have closed.
async fn connect(client: TcpStream, broker: SocketAddr, wire: &Wire, number: u64) -> io::Result<()> {
    let broker = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let sent = |frame: &Frame| wire.faults.lock().sent(number, frame);
    let answered = |frame: &Frame| wire.faults.lock().answered(number, frame);
    tokio::try_join!(carry(from_client, to_broker, wire, sent), carry(from_broker, to_client, wire, answered)).map(drop)
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &Wire,
    fate: impl Fn(&Frame) -> Fate,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            // The other way may still have something: a request that waits for its answer.
            return to.shutdown().await;
        }
        while let Some(bytes) = whole_frame(&mut buffer)? {
            let is_idle = wire.faults.lock().is_idle();
            let fate = if is_idle {
                Fate::Pass
            } else {
                // What nobody can read is the receiver's to judge.
                Frame::decode(bytes.slice(4..)).map_or(Fate::Pass, |frame| fate(&frame))
            };
            match fate {
                Fate::Pass => to.write_all(&bytes).await?,
                Fate::Drop => {}
                Fate::Break => return Err(io::Error::other("broken by a fault")),
            }
        }
    }
}

/// Takes a whole frame, its length in front, from the buffer.
fn whole_frame(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(mut length) = buffer.get(..4) else { return Ok(None) };
    let length = length.get_u32() as usize;
    if length > MAX_FRAME_LEN {
        return Err(io::Error::other("a frame that no broker takes"));
    }
    Ok((buffer.len() >= length + 4).then(|| buffer.split_to(length + 4).freeze()))
}
