//! The server side: accepts connections and runs them.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::budget::{Admitted, Budget, Refused};
use super::connection::Stamp;
use super::{Connection, ConnectionLimits, LogGate, Service, TrustedProxies, pipe};
use crate::task::{Shutdown, Tasks};

/// Bounds of a server.
#[derive(Clone, Debug, Default)]
pub struct ServeLimits {
    /// Bounds of each connection.
    pub connection: ConnectionLimits,
    /// The budget that all connections share. Listeners that are given the same one share it, too.
    pub budget: Arc<Budget>,
    /// Whose PROXY headers are believed. Default: nobody's; a header is passed over then.
    pub proxies: Arc<TrustedProxies>,
}

/// How an accepted connection came in.
pub(super) struct Entrance {
    pub(super) admitted: Arc<Mutex<Admitted>>,
    proxies: Arc<TrustedProxies>,
}

impl Entrance {
    /// Whether what a sender says about its client is believed.
    pub(super) fn trusts(&self, sender: IpAddr) -> bool {
        self.proxies.trusts(sender)
    }
}

/// How long to wait after accepting failed for want of descriptors or memory: retrying at once would only spin.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// At most one log line of a kind in this time.
const LOG_GAP: Duration = Duration::from_secs(10);

/// Accepts connections until `shutdown`, then closes them; returns after the last of them has ended.
///
/// Work that a service still has in hand at that moment is not waited for: stop taking requests first, then cancel.
pub async fn serve(listener: TcpListener, service: Arc<dyn Service>, limits: ServeLimits, shutdown: Shutdown) {
    let server = Server { service, limits, open: Arc::default(), tasks: Tasks::new(), full: LogGate::new(LOG_GAP) };
    let failing = LogGate::new(LOG_GAP);
    let mut pause = ACCEPT_PAUSE_MIN;
    let mut stop = pin!(shutdown.cancelled());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE_MIN;
                server.open(stream);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if failing.open().is_some() {
                    tracing::error!(%error, "cannot accept connections, trying again");
                }
                tokio::select! {
                    biased;
                    () = &mut stop => break,
                    () = sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE_MAX),
                }
            }
        }
    }
    drop(listener);
    server.end().await;
}

/// Like [`serve`], for streams that somebody else has accepted.
pub async fn serve_streams(
    mut streams: mpsc::Receiver<TcpStream>,
    service: Arc<dyn Service>,
    limits: ServeLimits,
    shutdown: Shutdown,
) {
    let server = Server { service, limits, open: Arc::default(), tasks: Tasks::new(), full: LogGate::new(LOG_GAP) };
    let mut stop = pin!(shutdown.cancelled());
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut stop => break,
            stream = streams.recv() => stream,
        };
        match stream {
            Some(stream) => server.open(stream),
            None => break,
        }
    }
    server.end().await;
}

/// Runs a connection on a stream that this side has opened, as one of `tasks`.
pub fn join(
    stream: TcpStream,
    service: Arc<dyn Service>,
    limits: &ConnectionLimits,
    budget: &Arc<Budget>,
    tasks: &Tasks,
) -> io::Result<Arc<Connection>> {
    let connection = wrap(&stream, Stamp::SERVER, limits, budget)?;
    tasks.spawn("connection", pipe::run(Arc::clone(&connection), stream, service, tasks.clone(), None));
    Ok(connection)
}

struct Server {
    service: Arc<dyn Service>,
    limits: ServeLimits,
    open: Arc<Mutex<HashMap<u64, Arc<Connection>>>>,
    tasks: Tasks,
    full: LogGate,
}

impl Server {
    async fn end(self) {
        let open: Vec<_> = self.open.lock().values().cloned().collect();
        for connection in open {
            connection.close("server stops");
        }
        self.tasks.join().await;
    }

    fn open(&self, stream: TcpStream) {
        let Ok(peer) = stream.peer_addr() else {
            return; // gone already
        };
        let admitted = match self.limits.budget.admit(peer.ip()) {
            Ok(admitted) => Arc::new(Mutex::new(admitted)),
            Err(refused) => return self.log_refused(peer.ip(), refused),
        };
        let Ok(connection) = wrap(&stream, Stamp::SERVER, &self.limits.connection, &self.limits.budget) else {
            return; // gone already
        };
        self.open.lock().insert(connection.id(), connection.clone());
        let (open, service, tasks) = (self.open.clone(), self.service.clone(), self.tasks.clone());
        let entrance = Entrance { admitted: admitted.clone(), proxies: self.limits.proxies.clone() };
        self.tasks.spawn("connection", async move {
            let id = connection.id();
            pipe::run(connection, stream, service, tasks, Some(entrance)).await;
            open.lock().remove(&id);
            drop(admitted);
        });
    }

    fn log_refused(&self, peer: IpAddr, refused: Refused) {
        let Some(others) = self.full.open() else { return };
        let limits = self.limits.budget.limits();
        match refused {
            Refused::All => {
                tracing::warn!(
                    event = "connections_full",
                    limit = limits.connections,
                    others,
                    "too many connections, refusing new ones"
                );
            }
            Refused::Address => {
                let limit = limits.connections_per_address;
                tracing::warn!(event = "connections_full", %peer, limit, others, "too many connections from one address, refusing new ones");
            }
        }
    }
}

/// Prepares a socket and makes the connection for it.
pub(super) fn wrap(
    stream: &TcpStream,
    stamp: Stamp,
    limits: &ConnectionLimits,
    budget: &Arc<Budget>,
) -> io::Result<Arc<Connection>> {
    stream.set_nodelay(true)?;
    Ok(Arc::new(Connection::new(stream.peer_addr()?, stream.local_addr()?, stamp, limits.clone(), budget)))
}

/// Whether an accept failed because of the connection it was about, so that the next one may be tried at once.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
