//! The handle of everything here: the port, the links, and the thread that both run on.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use escrowmq_common::net::split_address;
use escrowmq_common::remoting::LogGate;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::accept::{HalfOpen, accept};
use super::counts::{Counters, Counts};
use super::dial::{self, Closing};
use super::error::CallError;
use super::greeting;
use super::hello::{Hello, Lane, Target};
use super::link::{Core, Interrupt, Link};
use super::roles::{Gate, Serve, Streams};
use super::secret::{Secret, Unguarded, check_unguarded};
use super::shared::{Served, Shared};
use super::status::LinkStatus;
use crate::terms::TooLong;

/// At most one line in this time about connections that were not let in.
const LOG_GAP: Duration = Duration::from_secs(10);

/// After so many steps of tasks the thread looks at sockets and timers. A step moves half a megabyte at most, so a
/// small frame waits for two, and not for what tokio's default of 61 would let pass before it.
const STEPS_BETWEEN_LOOKS: u32 = 4;

/// What a member is to its peers.
pub(crate) struct Settings {
    /// `host:port` that is listened on. Port 0 takes a free one.
    pub(crate) listen: String,
    /// Who we are.
    pub(crate) hello: Hello,
    /// What proves that a member is one of the group. Without one, only addresses of loopback are talked to.
    pub(crate) secret: Option<Secret>,
    /// Bytes of requests in flight on a connection, on either side: further calls are refused as busy, and further
    /// requests are not read. A single larger request passes alone. [`BYTES_MAX`] is a good value.
    pub(crate) bytes_max: usize,
    /// Longest time for a handshake, on either side. [`HANDSHAKE_TIME`] is a good value.
    pub(crate) handshake_time: Duration,
    /// Who may talk to us.
    pub(crate) gate: Arc<dyn Gate>,
    /// What is done with requests.
    pub(crate) serve: Arc<dyn Serve>,
}

/// The usual [`Settings::bytes_max`].
pub(crate) const BYTES_MAX: usize = 64 << 20;
/// The usual [`Settings::handshake_time`].
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Why a member cannot talk to others. A retry ends the same way until it is put right.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen for other members of the group at {address}: {source}; end what uses that port, or name another one"
    )]
    Listen {
        /// The address.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// No secret, and others could connect.
    #[error(transparent)]
    Unguarded(#[from] Unguarded),
    /// A name does not fit into the handshake.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The thread cannot be started.
    #[error("cannot start the thread for other members: {0}; the system is short of threads or open files")]
    Thread(io::Error),
}

/// A member's connections. Clones share them; they end with [`close`](Self::close) or with the last clone.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    half_open: Arc<HalfOpen>,
    address: SocketAddr,
    runtime: Handle,
    /// Cancelled when the thread is gone.
    ended: Shutdown,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Peers {
    /// Listens, and starts the thread as one of `tasks`.
    pub(crate) fn start(settings: Settings, tasks: &Tasks) -> Result<Peers, StartError> {
        greeting::check(&settings.hello)?;
        if settings.secret.is_none() {
            check_unguarded([settings.listen.as_str()])?;
        }
        let failed = |source| StartError::Listen { address: settings.listen.clone(), source };
        let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "the address is not of the form host:port");
        let address = split_address(&settings.listen).ok_or_else(no_address).map_err(failed)?;
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut builder = Builder::new_current_thread();
        builder.enable_io().enable_time().event_interval(STEPS_BETWEEN_LOOKS);
        let runtime = builder.build().map_err(StartError::Thread)?;
        let shared = Arc::new(Shared {
            hello: ArcSwap::from_pointee(settings.hello),
            secret: settings.secret,
            gate: settings.gate,
            serve: settings.serve,
            streams: OnceLock::new(),
            bytes_max: settings.bytes_max,
            handshake_time: settings.handshake_time,
            links: Mutex::new(HashMap::new()),
            served: Mutex::new(Served::default()),
            counters: Counters::default(),
            not_let_in: LogGate::new(LOG_GAP),
            tasks: Tasks::new(),
            stop: Shutdown::new(),
        });
        let inner = Inner {
            shared: Arc::clone(&shared),
            half_open: Arc::default(),
            address,
            runtime: runtime.handle().clone(),
            ended: Shutdown::new(),
        };
        let (half_open, ended) = (Arc::clone(&inner.half_open), Ended(inner.ended.clone()));
        let work = move || {
            runtime.block_on(run(listener, &shared, half_open));
            // A look-up of a name may take longer than anybody waits for.
            runtime.shutdown_background();
            drop(ended);
        };
        tasks.spawn_thread("peers", work).map_err(StartError::Thread)?;
        Ok(Peers { inner: Arc::new(inner) })
    }

    /// The address that is listened on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The way to a member (`host:port`; a name is looked up at each attempt) on a lane. The same target and lane give
    /// the same link; another address than before ends its connection, and the member is dialed there.
    pub(crate) fn link(&self, target: &Target, address: &str, lane: Lane) -> Link {
        let shared = &self.inner.shared;
        let mut links = shared.links.lock();
        if let Some(core) = links.get(&(target.clone(), lane)) {
            core.relocate(address);
            return Link { core: Arc::clone(core) };
        }
        let core = Arc::new(Core::new(target.clone(), lane, address.to_owned(), shared.bytes_max));
        links.insert((target.clone(), lane), Arc::clone(&core));
        // After the member has stopped nothing runs: the task is dropped, and that closes the link.
        let task = dial::run(Closing(Arc::clone(&core)), Arc::clone(shared));
        let _guard = self.inner.runtime.enter();
        shared.tasks.spawn("link to a member", task);
        Link { core }
    }

    /// Closes and forgets the links to all other targets: to those that are members no more.
    pub(crate) fn retain(&self, is_kept: impl Fn(&Target) -> bool) {
        self.inner.shared.links.lock().retain(|(target, _), core| {
            let is_kept = is_kept(target);
            if !is_kept {
                core.interrupt(Interrupt::Closed);
            }
            is_kept
        });
    }

    /// How a member that votes and beats with this one introduced itself last; `None` before it first did.
    pub(crate) fn introduced(&self, node: u64) -> Option<Arc<Hello>> {
        // The lane of heartbeats is opened anew soon after a member restarts; others may wait until they are used.
        let links = self.inner.shared.links.lock();
        links.get(&(Target::Node(node), Lane::Pulse))?.status().member
    }

    /// Hands connections on [`Lane::Forward`] to `streams` from now on. Before that, and a second time, they are closed.
    pub(crate) fn take_streams(&self, streams: Arc<dyn Streams>) {
        let _ = self.inner.shared.streams.set(streams);
    }

    /// Opens a connection to a member on [`Lane::Forward`], for whatever the caller sends on it.
    pub(crate) fn stream(
        &self,
        target: Target,
        address: String,
    ) -> impl Future<Output = Result<std::net::TcpStream, CallError>> + Send + use<> {
        let shared = Arc::clone(&self.inner.shared);
        let (sender, opened) = oneshot::channel();
        let member = target.to_string();
        let _guard = self.inner.runtime.enter();
        shared.clone().tasks.spawn("stream to a member", async move {
            // The caller may have given up.
            let _ = sender.send(dial::stream(&shared, &target, &address).await);
        });
        async move {
            let gone = |_| Err(CallError::Unreachable { member, why: "this member stops".to_owned() });
            opened.await.unwrap_or_else(gone)
        }
    }

    /// From now on this member introduces itself so. Connections that were made under another introduction end, and are
    /// made again.
    pub(crate) fn introduce(&self, hello: Hello) -> Result<(), TooLong> {
        greeting::check(&hello)?;
        let shared = &self.inner.shared;
        if **shared.hello.load() == hello {
            return Ok(());
        }
        shared.hello.store(Arc::new(hello));
        shared.served.lock().close_all();
        for core in shared.links_where(|_| true) {
            core.interrupt(Interrupt::Introduced);
        }
        Ok(())
    }

    /// How all links do, in the order of targets and lanes.
    pub(crate) fn links(&self) -> Vec<LinkStatus> {
        let mut links: Vec<_> = self.inner.shared.links_where(|_| true).iter().map(|core| core.status()).collect();
        links.sort_by(|a, b| (&a.target, a.lane).cmp(&(&b.target, b.lane)));
        links
    }

    /// What happened on the port.
    pub(crate) fn counts(&self) -> Counts {
        let shared = &self.inner.shared;
        let served = shared.served.lock().len();
        shared.counters.read(served, self.inner.half_open.len())
    }

    /// Ends all connections and calls, and waits until the thread is gone. Later calls fail as unreachable.
    pub(crate) async fn close(&self) {
        self.inner.shared.stop.cancel();
        self.inner.ended.cancelled().await;
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

/// Says that the thread is gone, however it went.
struct Ended(Shutdown);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What the thread does.
async fn run(listener: TcpListener, shared: &Arc<Shared>, half_open: Arc<HalfOpen>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => accept(listener, Arc::clone(shared), half_open).await,
        // Members that dial us find out; those that we dial are reached all the same.
        Err(error) => tracing::error!(%error, "cannot listen for other members of the group"),
    }
    shared.stop.cancelled().await;
    shared.tasks.join().await;
}
