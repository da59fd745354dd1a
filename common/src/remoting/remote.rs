//! The client side: one connection per address, opened when it is needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::Stamp;
use super::serve::wrap;
use super::{Budget, CallError, Connection, ConnectionLimits, Service, pipe};
use crate::frame::{Frame, HeaderEncoding, Language, WIRE_VERSION};
use crate::net::{connect_any, split_address};
use crate::task::Tasks;

/// How a client connects and what its requests say of it.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Longest time for opening a connection, look-up of the name included. Default 3 s.
    pub connect_timeout: Duration,
    /// Header encoding of requests. Default JSON.
    pub encoding: HeaderEncoding,
    /// Language named in requests. Default Rust.
    pub language: Language,
    /// Version named in requests. Default [`WIRE_VERSION`].
    pub version: i32,
    /// Bounds of each connection. The default idle time is 100 s, below the server's 120 s: a client that closes first
    /// does not send a request into a connection that the server is just closing.
    pub limits: ConnectionLimits,
}

impl Default for RemoteOptions {
    fn default() -> RemoteOptions {
        RemoteOptions {
            connect_timeout: Duration::from_secs(3),
            encoding: HeaderEncoding::Json,
            language: Language::RUST,
            version: WIRE_VERSION,
            limits: ConnectionLimits { idle: Duration::from_secs(100), ..ConnectionLimits::default() },
        }
    }
}

/// At each multiple of this many addresses those without a connection are forgotten.
const TARGETS_KEPT: usize = 1024;

/// Calls to other processes. Clones share their connections; the last clone closes them.
#[derive(Clone, Debug)]
pub struct Remote {
    pool: Arc<Pool>,
}

struct Pool {
    options: RemoteOptions,
    incoming: Arc<dyn Service>,
    /// Without bounds: we choose ourselves whom we connect to.
    budget: Arc<Budget>,
    tasks: Tasks,
    targets: RwLock<HashMap<String, Arc<Target>>>,
    closed: AtomicBool,
}

/// One address.
#[derive(Default)]
struct Target {
    current: ArcSwapOption<Connection>,
    /// Held by the one caller that connects. Holds the last failure, so that those who waited for it share it instead of
    /// trying one after the other.
    connecting: Mutex<Option<Failure>>,
}

struct Failure {
    at: Instant,
    error: CallError,
}

impl Remote {
    /// A client. Requests that peers send on its connections go to `incoming`.
    pub fn new(options: RemoteOptions, incoming: Arc<dyn Service>) -> Remote {
        let pool = Pool {
            options,
            incoming,
            budget: Arc::new(Budget::unlimited()),
            tasks: Tasks::new(),
            targets: RwLock::default(),
            closed: AtomicBool::new(false),
        };
        Remote { pool: Arc::new(pool) }
    }

    /// Sends a request to an address (`host:port`) and waits for the response; `timeout` covers connecting too.
    pub async fn call(&self, addr: &str, request: Frame, timeout: Duration) -> Result<Frame, CallError> {
        let deadline = Instant::now() + timeout;
        let Ok(connection) = timeout_at(deadline, self.connection(addr)).await else {
            return Err(CallError::Connect {
                address: addr.to_owned(),
                reason: format!("no connection within {} ms", timeout.as_millis()),
            });
        };
        let connection = connection?;
        connection.call(request, deadline.saturating_duration_since(Instant::now())).await
    }

    /// Sends a request that gets no answer.
    pub async fn oneway(&self, addr: &str, request: Frame) -> Result<(), CallError> {
        self.connection(addr).await?.send_oneway(request)
    }

    /// The connection to an address, opened if there is none. Concurrent callers share one attempt.
    pub async fn connection(&self, addr: &str) -> Result<Arc<Connection>, CallError> {
        let target = self.target(addr);
        if let Some(connection) = target.open_connection() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let mut last_failure = target.connecting.lock().await;
        if let Some(connection) = target.open_connection() {
            return Ok(connection);
        }
        if let Some(failure) = last_failure.as_ref().filter(|failure| failure.at > asked) {
            return Err(failure.error.clone());
        }
        match self.connect(addr).await {
            Ok(connection) => {
                *last_failure = None;
                target.current.store(Some(connection.clone()));
                // `close` may have swept the targets while we connected.
                if self.pool.closed.load(Ordering::Acquire) {
                    connection.close("client stops");
                }
                Ok(connection)
            }
            Err(error) => {
                *last_failure = Some(Failure { at: Instant::now(), error: error.clone() });
                Err(error)
            }
        }
    }

    /// Closes all connections and waits until they have ended. Later calls fail.
    pub async fn close(&self) {
        self.pool.close_all();
        self.pool.tasks.join().await;
    }

    /// The pooled connection, open or not, without connecting.
    #[cfg(test)]
    pub(super) fn pool_connection(&self, addr: &str) -> Option<Arc<Connection>> {
        self.target(addr).current.load_full()
    }

    fn target(&self, addr: &str) -> Arc<Target> {
        if let Some(target) = self.pool.targets.read().get(addr) {
            return target.clone();
        }
        let mut targets = self.pool.targets.write();
        // Addresses come from others, who may name ever new ones: those that nobody uses are forgotten.
        if targets.len() >= TARGETS_KEPT && targets.len().is_multiple_of(TARGETS_KEPT) {
            targets.retain(|_, target| Arc::strong_count(target) > 1 || target.open_connection().is_some());
        }
        targets.entry(addr.to_owned()).or_default().clone()
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    pub(super) fn target_count(&self) -> usize {
        self.pool.targets.read().len()
    }

    async fn connect(&self, addr: &str) -> Result<Arc<Connection>, CallError> {
        if self.pool.closed.load(Ordering::Acquire) {
            return Err(CallError::NotSent { address: addr.to_owned(), reason: "client is closed" });
        }
        let (host, port) = split_address(addr).ok_or_else(|| CallError::BadAddress { address: addr.to_owned() })?;
        let options = &self.pool.options;
        let failed = |reason: String| CallError::Connect { address: addr.to_owned(), reason };
        let stream = match timeout(options.connect_timeout, connect_any(host, port)).await {
            Ok(stream) => stream.map_err(|error| failed(error.to_string()))?,
            Err(_) => {
                return Err(failed(format!("no answer within {} ms", options.connect_timeout.as_millis())));
            }
        };
        let stamp = Stamp { encoding: options.encoding, language: options.language, version: options.version };
        let connection = wrap(&stream, stamp, &options.limits, &self.pool.budget);
        let connection = connection.map_err(|error| failed(error.to_string()))?;
        let (incoming, tasks) = (self.pool.incoming.clone(), self.pool.tasks.clone());
        self.pool.tasks.spawn("connection", pipe::run(connection.clone(), stream, incoming, tasks, None));
        Ok(connection)
    }
}

impl Target {
    fn open_connection(&self) -> Option<Arc<Connection>> {
        self.current.load_full().filter(|connection| connection.is_open())
    }
}

impl Pool {
    fn close_all(&self) {
        self.closed.store(true, Ordering::Release);
        for target in self.targets.read().values() {
            if let Some(connection) = target.current.load_full() {
                connection.close("client stops");
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", &self.options).finish_non_exhaustive()
    }
}
