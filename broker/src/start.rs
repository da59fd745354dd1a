//! Starting and stopping a broker: which parts there are, in which order they come and go.

pub(crate) mod background;
mod embedded;
pub(crate) mod leader;
mod settings;
mod way;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::audit::{Trail, TrailError};
use escrowmq_common::monitoring;
use escrowmq_common::remoting::{
    Budget, BudgetLimits, ConnectionLimits, ServeLimits, Service, TrustedProxies, serve, serve_streams,
};
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::backup::prepare::Backups;
use crate::broker::Broker;
use crate::client_registry::ClientRegistry;
use crate::config::{BrokerConfig, CurrentConfig, FlushDisk};
use crate::creation::Creations;
use crate::delivery::{Delivery, helper_count};
use crate::forward::{Arrivals, Forwarder, Origin};
use crate::gate::Gate;
use crate::group::{self, Group};
use crate::key_index::KeyIndex;
use crate::latch::Failure;
use crate::limits::{FolderError, LockedFolder, raise_open_files, take_folder};
use crate::log::{Flush, LogSettings};
use crate::metrics::Metrics;
use crate::monitoring::Pages;
use crate::raft::Office;
use crate::registration::Registration;
use crate::server::{Server, request_times, topics};
use crate::spans::{Export, Service as ExportService, Spans};
use crate::stats::Stats;
use crate::storage::{Storage, StorageSettings};
use crate::terms::FEATURE_LEVEL;

pub use embedded::Embedding;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("{error}{hint}", error = .0, hint = folder_hint(.0))]
    Folder(#[from] FolderError),
    /// Log, index or state, or the group.
    #[error(transparent)]
    Storage(#[from] group::OpenError),
    /// A port.
    #[error("cannot listen at {address} ({keys}): {source}")]
    Listen {
        /// The address.
        address: String,
        /// The settings that it comes from.
        keys: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The files of the key index.
    #[error("the key index: {0}")]
    Keys(std::io::Error),
    /// Backups that an earlier process had prepared.
    #[error("cannot remove an earlier prepared backup: {0}")]
    Backups(std::io::Error),
    /// The file of the audit.
    #[error(transparent)]
    Audit(#[from] TrailError),
    /// Threads that help with pulls.
    #[error("a thread could not be started: {0}")]
    Helpers(std::io::Error),
    /// The topics that every broker has.
    #[error("the system topics: {0}")]
    Topics(String),
}

fn folder_hint(error: &FolderError) -> &'static str {
    if matches!(error, FolderError::Io { .. }) { "; storePathRootDir names another one" } else { "" }
}

/// A broker that runs. [`stop`](Self::stop) it to end in good order; dropping it leaves it running.
pub struct RunningBroker {
    broker: Arc<Broker>,
    storage: Storage,
    group: Group,
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    forwarders: [Arc<Forwarder>; 2],
    phases: Phases,
    _folder: LockedFolder,
}

/// The tasks that stop together, in the order of stopping.
struct Phases {
    /// Registration: producers and consumers go elsewhere.
    registration: Phase,
    /// Listeners and their connections.
    connections: Phase,
    /// Check-backs, timers, held pulls, metrics.
    runners: Phase,
    /// The export of spans: those of the last requests go out, too.
    export: Phase,
}

#[derive(Default)]
struct Phase {
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Phase {
    async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

/// Space set aside for what must pass when the disk is full: decisions, offsets, trims.
const RESERVE_BYTES: u64 = 8 << 20;
/// A leadership is handed over within milliseconds, or not at all.
const HAND_OVER_TIME: Duration = Duration::from_secs(2);
/// Connections that the system takes before they are accepted.
const BACKLOG: u32 = 1024;
/// The settings that say where clients connect.
const CLIENTS: &str = "bindAddress, listenPort";
/// The distance of the second port, which old clients and some tools use, below the first.
const FAST_PORT_BELOW: u16 = 2;

/// Opens the data folder, recovers, listens, registers. Returns when clients are served.
pub async fn start(config: BrokerConfig) -> Result<RunningBroker, StartError> {
    begin(config, FEATURE_LEVEL, Embedding::default()).await
}

/// Like [`start`], for a test that has the broker in its own process.
pub async fn start_embedded(config: BrokerConfig, embedding: Embedding) -> Result<RunningBroker, StartError> {
    begin(config, FEATURE_LEVEL, embedding).await
}

/// Like [`start`], as a version would that speaks this feature level at most.
#[cfg(test)]
pub(crate) async fn start_speaking(config: BrokerConfig, feature_level: u32) -> Result<RunningBroker, StartError> {
    begin(config, feature_level, Embedding::default()).await
}

async fn begin(
    config: BrokerConfig,
    feature_level: u32,
    Embedding { clock, told_port }: Embedding,
) -> Result<RunningBroker, StartError> {
    raise_open_files();
    let audit = Trail::open(config.audit_log_file.as_deref())?;
    let folder = take_folder(&config.data_folder()).await?;
    let listener = listen(&config.bind_address, config.listen_port, config.socket_send_bytes, CLIENTS).await?;
    let address = listener.local_addr().map_err(|source| StartError::Listen {
        address: config.bind_address.clone(),
        keys: CLIENTS,
        source,
    })?;
    let shutdown = Shutdown::new();
    let phases = Phases {
        registration: Phase::default(),
        connections: Phase::default(),
        runners: Phase { shutdown: shutdown.clone(), tasks: Tasks::new() },
        export: Phase::default(),
    };
    // Before the store: a member may wait long for its group, and says so there.
    let (pages, metrics_address) = phases.serve_pages(&config).await?;
    let log = LogSettings { feature_level, ..log_settings(&config) };
    let settings = StorageSettings { dir: folder.path().to_owned(), log };
    let (storage, group) = match group::open(&config, settings, clock.clone(), pages.waiting()).await {
        Ok(opened) => opened,
        Err(error) => {
            phases.runners.stop().await;
            return Err(error.into());
        }
    };
    let keys = KeyIndex::start(folder.path().join("keys"), &storage.shard, &phases.runners.tasks, &shutdown)
        .map_err(StartError::Keys)?;
    let audit = Arc::new(audit);
    let backups = Backups::new(folder.path(), Arc::clone(storage.applier())).map_err(StartError::Backups)?;
    let gate = Gate::new(config.max_searches, config.max_searches_waiting);
    let budget = Arc::new(Budget::new(BudgetLimits {
        bytes: config.connection_bytes_max,
        connections: config.max_connections,
        connections_per_address: config.max_connections_per_address,
    }));
    let told_port = told_port.unwrap_or(address.port());
    let store_host = SocketAddr::new(config.broker_ip.ip(), told_port);
    let public_address = config.broker_ip.with_port(told_port);
    let (spans, export) = spans(&config, &public_address, store_host.port()).unzip();
    let config = CurrentConfig::new(config);
    settings::begin(&config, &group, &storage.shard);
    let metrics = Arc::new(Metrics::default());
    let stats = Arc::new(Stats::new(storage.time.now()));
    let office = Arc::new(Office::new(Arc::clone(storage.lease())));
    let delivery = Delivery::new(
        storage.shard.clone(),
        &office,
        config.clone(),
        Arc::clone(&metrics),
        Arc::clone(&stats),
        clock.clone(),
        phases.runners.tasks.clone(),
    );
    let registration = Registration::new(
        storage.shard.clone(),
        config.clone(),
        Arc::clone(&metrics),
        public_address.clone(),
        store_host,
        leader::standing(&config.load(), *storage.leadership().borrow()),
    );
    let creations = Creations::new(storage.shard.clone(), config.clone(), Arc::clone(&metrics), clock.clone());
    let broker = Arc::new(Broker {
        group: group.clone(),
        shard: storage.shard.clone(),
        clients: Arc::new(ClientRegistry::new(clock.clone())),
        delivery: Arc::new(delivery),
        keys,
        transactions: Arc::default(),
        retention: Arc::default(),
        registration: Arc::new(registration),
        gate: Arc::new(gate),
        creations: Arc::new(creations),
        backups: Arc::new(backups),
        audit,
        metrics,
        request_times: Arc::new(request_times()),
        spans,
        stats,
        store_host,
        address: public_address,
        time: Arc::clone(&storage.time),
        clock,
        tasks: phases.runners.tasks.clone(),
        shutdown,
        config,
    });
    storage.shard.topics().count_from_now();
    let led = storage.leadership().borrow().led();
    if let Some(term) = led {
        // It is alone. What cannot be made now cannot be made later either.
        topics::create_system_topics(&broker).await.map_err(|error| StartError::Topics(error.to_string()))?;
        office.take_up(term);
    }
    phases.run(&broker, &storage, &office).map_err(StartError::Helpers)?;
    if let Some(export) = export {
        phases.export.tasks.spawn("spans", export.run(phases.export.shutdown.clone()));
    }
    let limits = serve_limits(&broker.config(), &budget);
    let forwarder = |origin| {
        let (leadership, office, way) = (storage.leadership(), Arc::clone(&office), way::to_members(&group));
        let (limits, budget) = (limits.connection.clone(), Arc::clone(&budget));
        let shutdown = phases.connections.shutdown.clone();
        Arc::new(Forwarder::new(origin, leadership, office, way, limits, budget, shutdown))
    };
    let (passing, arriving) = (forwarder(Origin::Clients), forwarder(Origin::Members));
    let stopping = phases.registration.shutdown.clone();
    pages.show(background::monitor(&broker, &storage, &office, &budget, [&passing, &arriving], stopping));
    if !group.is_alone() {
        phases.serve_members(&broker, &arriving, &group, &limits);
    }
    phases.serve_clients(&broker, &passing, &limits, listener, address).await;
    broker.registration.now().await;
    let forwarders = [passing, arriving];
    Ok(RunningBroker { broker, storage, group, address, metrics_address, forwarders, phases, _folder: folder })
}

impl RunningBroker {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are served, if they are.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Returns when this broker is to [`stop`](Self::stop) and to be started again, with its settings read anew: a copy of its
    /// group's state waits for that. Never, if it needs none.
    pub async fn must_restart(&self) {
        self.group.must_restart().await;
    }

    /// Returns when the threads that serve connections have come to a task of its own, and then the write path: late where they are
    /// busy, never where they hang. A store that takes no more writes answers, too, because reads go on.
    pub async fn pulse(&self) {
        let executor = self.broker.shard.executor().clone();
        let task = async move {
            let _ = executor.spawn(async {}).await;
        };
        let _ = self.phases.runners.tasks.spawn("pulse", task).await;
    }

    /// Its parts.
    #[cfg(test)]
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// A leader of several lets another one lead before it goes: an election without it would take a second.
    async fn hand_over(&self) {
        if self.group.is_alone() {
            return;
        }
        // This member forgets what is not stored when it leads no more.
        self.broker.delivery.flush_offsets().await;
        match self.group.hand_over(None).await {
            Ok(leader) => {
                tracing::info!(event = "stopping", seat = leader.seat, "stopping: handing the leadership over");
                let mut leadership = self.storage.leadership();
                let ceases = leadership.wait_for(|seen| seen.led().is_none());
                if timeout(HAND_OVER_TIME, ceases).await.is_err() {
                    tracing::warn!("nobody took the leadership over; the others will elect one");
                }
            }
            Err(error) => tracing::debug!(%error, "stopping: the leadership is not handed over"),
        }
    }

    /// Ends in good order: unregisters, stops accepting, finishes what is at hand, writes what is only in memory, flushes.
    pub async fn stop(self) -> Result<(), Failure> {
        self.hand_over().await;
        tracing::info!(event = "stopping", "stopping: unregistering from nameservers");
        self.phases.registration.stop().await;
        tracing::info!(event = "stopping", "stopping: closing connections");
        self.phases.connections.stop().await;
        for forwarder in &self.forwarders {
            forwarder.end().await;
        }
        tracing::info!(event = "stopping", "stopping: check-backs, timers and deliveries");
        self.phases.runners.stop().await;
        self.broker.delivery.flush_offsets().await;
        self.phases.export.stop().await;
        tracing::info!(event = "stopping", "stopping: flushing log and index");
        // What was taken still needs a majority.
        let result = self.storage.close().await;
        self.group.close().await;
        tracing::info!(event = "stopped", "stopped");
        result
    }
}

impl Phases {
    /// Starts what works in the background.
    fn run(&self, broker: &Arc<Broker>, storage: &Storage, office: &Arc<Office>) -> std::io::Result<()> {
        let runners = &self.runners;
        let spawn = &runners.tasks;
        let shutdown = &runners.shutdown;
        if !broker.group.is_alone() {
            spawn.spawn("settings", settings::run(Arc::clone(broker), shutdown.clone()));
        }
        let leads = leader::Leader { broker: Arc::clone(broker), office: Arc::clone(office) };
        spawn.spawn("leader", leader::run(Arc::new(leads), Arc::clone(office), storage.leadership(), shutdown.clone()));
        spawn.spawn("retention", background::keeper(broker, storage).run(shutdown.clone()));
        spawn.spawn("stats", background::sampler(broker).run(shutdown.clone()));
        spawn.spawn("delivery", Arc::clone(&broker.delivery).run(shutdown.clone()));
        let (registry, stop) = (Arc::clone(&broker.clients), shutdown.clone());
        spawn.spawn("client registry", async move { registry.run(stop).await });
        for _ in 0..helper_count(broker.config().connection_thread_count()) {
            let (delivery, runtime) = (Arc::clone(&broker.delivery), Handle::current());
            spawn.spawn_thread("pull-helper", move || {
                // Serving a pull may spawn a task (to read files, to hold it), which needs the runtime.
                let _entered = runtime.enter();
                delivery.helpers.run(&delivery);
            })?;
        }
        let (delivery, stop) = (Arc::clone(&broker.delivery), shutdown.clone());
        spawn.spawn("pull helpers", async move {
            stop.cancelled().await;
            delivery.helpers.stop();
        });
        let registering = Arc::clone(&broker.registration).run(self.registration.shutdown.clone());
        self.registration.tasks.spawn("registration", registering);
        Ok(())
    }

    /// Opens the port of metrics, if there is to be one and it can be had.
    async fn serve_pages(&self, config: &BrokerConfig) -> Result<(Arc<Pages>, Option<SocketAddr>), StartError> {
        let pages = Arc::new(Pages::new(config));
        let Some(port) = config.pages_port() else { return Ok((pages, None)) };
        let host = &config.metrics_bind_address;
        let listener = monitoring::listen(host, port).await.map_err(|source| StartError::Listen {
            address: format!("{host}:{}", port.number()),
            keys: "metricsBindAddress, metricsPort",
            source,
        })?;
        let Some(listener) = listener else { return Ok((pages, None)) };
        let address = listener.local_addr().ok();
        let serving = monitoring::serve(listener, Arc::clone(&pages) as _, self.runners.shutdown.clone());
        self.runners.tasks.spawn("metrics", serving);
        Ok((pages, address))
    }

    /// Serves clients whose requests other members pass on. They are passed on no further.
    fn serve_members(&self, broker: &Arc<Broker>, forwarder: &Arc<Forwarder>, group: &Group, limits: &ServeLimits) {
        let (arrivals, streams) = Arrivals::new(Handle::current());
        group.take_streams(Arc::new(arrivals));
        let service: Arc<dyn Service> = Arc::new(Server::for_members(Arc::clone(broker), Arc::clone(forwarder)));
        // Members have proven who they are, and say whose requests they bring.
        let limits = ServeLimits { proxies: Arc::new(TrustedProxies::everybody()), ..limits.clone() };
        let serving = serve_streams(streams, service, limits, self.connections.shutdown.clone());
        self.connections.tasks.spawn("serve members", serving);
    }

    /// Serves clients at the main port, and at the one below it where that is free. Both are open before either is served: a
    /// client that is answered at one may go on to the other.
    async fn serve_clients(
        &self,
        broker: &Arc<Broker>,
        forwarder: &Arc<Forwarder>,
        limits: &ServeLimits,
        listener: TcpListener,
        address: SocketAddr,
    ) {
        let config = broker.config();
        let mut listeners = vec![("serve", listener)];
        // Where a free port was asked for, nobody derives another one from it.
        if config.listen_port != 0 {
            let port = address.port().saturating_sub(FAST_PORT_BELOW);
            match listen(&config.bind_address, port, config.socket_send_bytes, CLIENTS).await {
                Ok(fast) => listeners.push(("serve fast port", fast)),
                Err(error) => tracing::warn!(%error, "the fast port is not served; only clients before 4.5 need it"),
            }
        }
        let service: Arc<dyn Service> = Arc::new(Server::new(Arc::clone(broker), Arc::clone(forwarder)));
        let phase = &self.connections;
        for (name, listener) in listeners {
            let serving = serve(listener, Arc::clone(&service), limits.clone(), phase.shutdown.clone());
            phase.tasks.spawn(name, serving);
        }
    }
}

/// Where requests get their spans, and their export, if spans are wanted.
fn spans(config: &BrokerConfig, address: &str, port: u16) -> Option<(Arc<Spans>, Export)> {
    let (collector, path) = config.trace_export_address.place()?;
    let service = ExportService {
        collector,
        path: path.to_owned(),
        cluster: config.broker_cluster_name.clone(),
        // Members of a group share a name.
        instance: format!("{}/{address}", config.broker_name),
        host: config.broker_ip.to_string(),
        port,
    };
    Some(Spans::new(config.trace_export_ratio, service))
}

fn serve_limits(config: &BrokerConfig, budget: &Arc<Budget>) -> ServeLimits {
    ServeLimits {
        connection: ConnectionLimits {
            idle: config.idle_time,
            out_soft: config.slow_reader_bytes_max / 8,
            out_hard: config.slow_reader_bytes_max,
            drain_time: config.slow_reader_time,
            drain_rate: config.slow_reader_rate,
            in_flight: config.requests_in_flight,
            ..ConnectionLimits::default()
        },
        budget: Arc::clone(budget),
        proxies: Arc::new(config.proxies.clone()),
    }
}

fn log_settings(config: &BrokerConfig) -> LogSettings {
    LogSettings {
        segment_bytes: config.segment_bytes,
        flush: match config.flush_disk_type {
            FlushDisk::Sync => Flush::Sync,
            FlushDisk::Async => Flush::Async { interval: config.flush_interval },
        },
        reserve_bytes: config.segment_bytes.min(RESERVE_BYTES),
        ..LogSettings::default()
    }
}

/// Listens. The system buffers `send_bytes` of the answers on each connection, or as many as it finds best for 0.
async fn listen(host: &str, port: u16, send_bytes: u32, keys: &'static str) -> Result<TcpListener, StartError> {
    let bind = async {
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => lookup_host((host, port)).await?.collect(),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            match listen_at(address, send_bytes) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    bind.await.map_err(|source| StartError::Listen { address: format!("{host}:{port}"), keys, source })
}

fn listen_at(address: SocketAddr, send_bytes: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port whose last connections are still being closed may be taken again.
    socket.set_reuseaddr(true)?;
    if send_bytes > 0 {
        // Connections that are accepted have it from their listener.
        socket.set_send_buffer_size(send_bytes)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
