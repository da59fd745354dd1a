//! The server side: accepts connections and runs them.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::connection::Stamp;
use super::{Connection, ConnectionLimits, Service, pipe};
use crate::task::{Shutdown, Tasks};

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Most connections at a time; further ones are accepted and closed. Default 65,535.
    pub connections: usize,
    /// Bounds of each of them.
    pub connection: ConnectionLimits,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits { connections: 65_535, connection: ConnectionLimits::default() }
    }
}

/// How long to wait after accepting failed for want of descriptors or memory: retrying at once would only spin.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// At most one log line of a kind in this time.
const LOG_GAP: Duration = Duration::from_secs(10);

/// Accepts connections until `shutdown`, then closes them; returns after the last of them has ended.
///
/// What a service still has in hand at that moment is not waited for: stop taking requests first, then cancel.
pub async fn serve(listener: TcpListener, service: Arc<dyn Service>, limits: ServeLimits, shutdown: Shutdown) {
    let mut server = Server { service, limits, open: Arc::default(), tasks: Tasks::new(), full: LogGate::default() };
    let mut failing = LogGate::default();
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
                if failing.is_open() {
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
    let open: Vec<_> = server.open.lock().values().cloned().collect();
    for connection in open {
        connection.close("server stops");
    }
    server.tasks.join().await;
}

struct Server {
    service: Arc<dyn Service>,
    limits: ServeLimits,
    open: Arc<Mutex<HashMap<u64, Arc<Connection>>>>,
    tasks: Tasks,
    full: LogGate,
}

impl Server {
    fn open(&mut self, stream: TcpStream) {
        if self.open.lock().len() >= self.limits.connections {
            if self.full.is_open() {
                tracing::warn!(limit = self.limits.connections, "too many connections, refusing new ones");
            }
            return;
        }
        let Ok(connection) = wrap(&stream, Stamp::SERVER, &self.limits.connection) else {
            return; // gone already
        };
        self.open.lock().insert(connection.id(), connection.clone());
        let (open, service) = (self.open.clone(), self.service.clone());
        self.tasks.spawn("connection", async move {
            let id = connection.id();
            pipe::run(connection, stream, service).await;
            open.lock().remove(&id);
        });
    }
}

/// Prepares a socket and makes the connection for it.
pub(super) fn wrap(stream: &TcpStream, stamp: Stamp, limits: &ConnectionLimits) -> io::Result<Arc<Connection>> {
    stream.set_nodelay(true)?;
    Ok(Arc::new(Connection::new(stream.peer_addr()?, stream.local_addr()?, stamp, limits.clone())))
}

/// Whether an accept failed because of the connection it was about, so that the next one may be tried at once.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Lets one log line through per [`LOG_GAP`].
#[derive(Debug, Default)]
struct LogGate {
    last: Option<Instant>,
}

impl LogGate {
    fn is_open(&mut self) -> bool {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < LOG_GAP) {
            return false;
        }
        self.last = Some(now);
        true
    }
}
