//! The nameserver: tells clients which broker groups serve a topic, and where their members are.
//!
//! It keeps what brokers say about themselves, in memory only, and forgets a broker with its connection. Nameservers
//! share nothing: brokers register with each of them, clients ask any. The one thing that lasts is the KV
//! configuration, which operators write to each nameserver through their tools.
//!
//! * [`routes`][]: the route table. Pure decisions, and the published view that lookups read.
//! * [`kv`][]: the KV configuration and its file.
//! * [`config`][]: settings.
//! * `server`: requests and answers.
//! * `monitoring`: what those who watch it are shown.
//!
//! Several nameservers can run in one process.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use escrowmq_nameserver::{Config, Nameserver};
//!
//! let nameserver = Nameserver::start(Config { listen_port: 0, ..Config::default() }).await?;
//! println!("{}", nameserver.local_addr());
//! nameserver.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod config;
pub mod kv;
mod monitoring;
pub mod routes;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::audit::{Trail, TrailError};
use escrowmq_common::clock::Clock;
use escrowmq_common::monitoring as watching;
use escrowmq_common::remoting::{Budget, BudgetLimits, ConnectionLimits, ServeLimits, serve};
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::net::TcpListener;

pub use config::{Config, ConfigError, KEYS};
use kv::{Kv, KvError};
use monitoring::Pages;
pub use server::refusals::Refusal;
use server::{Parts, Server};

/// A running nameserver. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Nameserver {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    server: Arc<Server>,
    tasks: Tasks,
    shutdown: Shutdown,
}

/// Why a nameserver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The KV configuration cannot be used.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The file of the audit.
    #[error(transparent)]
    Audit(#[from] TrailError),
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address} port {port}: {source}")]
    Listen {
        /// As configured.
        address: String,
        /// As configured.
        port: u16,
        /// The system's words.
        source: io::Error,
    },
    /// The system has no thread left.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    /// Whether the same start may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            StartError::Config(error) => error.is_retryable(),
            StartError::Kv(error) => error.is_retryable(),
            StartError::Audit(_) | StartError::Listen { .. } | StartError::Thread(_) => true,
        }
    }
}

impl Nameserver {
    /// Starts one; when this returns it answers. Needs a tokio runtime.
    pub async fn start(config: Config) -> Result<Nameserver, StartError> {
        Nameserver::start_with(config, Clock::system()).await
    }

    /// Starts one that expires brokers by a clock of the caller's.
    pub async fn start_with(config: Config, clock: Clock) -> Result<Nameserver, StartError> {
        config.validate()?;
        let (kv, kv_writer) = Kv::open(&config.kv_config_path, config.kv_bytes_max)?;
        let audit = Arc::new(Trail::open(config.audit_log_file.as_deref())?);
        let limits = serve_limits(&config);
        let (address, port) = (config.bind_address.clone(), config.listen_port);
        let listen = async {
            let listener = TcpListener::bind((address.trim_matches(['[', ']']), port)).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) =
            listen.await.map_err(|source| StartError::Listen { address: address.clone(), port, source })?;

        let pages = match config.pages_port() {
            None => None,
            Some(port) => {
                let address = config.metrics_bind_address.clone();
                let failed = |source| StartError::Listen { address: address.clone(), port: port.number(), source };
                watching::listen(&address, port).await.map_err(failed)?
            }
        };

        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let (server, registrar) =
            Server::new(Parts { config, kv, audit, clock, tasks: tasks.clone(), shutdown: shutdown.clone() });
        let thread = tasks.spawn_thread("routes", move || registrar.run());
        thread.map_err(StartError::Thread)?;
        let writer = kv_writer.run(tasks.clone(), shutdown.clone());
        tasks.spawn_vital("kv", shutdown.clone(), writer);
        let metrics_addr = pages.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = pages {
            let (server, budget) = (Arc::clone(&server), Arc::clone(&limits.budget));
            let site = Arc::new(Pages { server, budget, stopping: shutdown.clone() });
            tasks.spawn("metrics", watching::serve(listener, site, shutdown.clone()));
        }
        let serving = serve(listener, Arc::clone(&server) as _, limits, shutdown.clone());
        tasks.spawn_vital("serve", shutdown.clone(), serving);
        Ok(Nameserver { local_addr, metrics_addr, server, tasks, shutdown })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics are served, if they are.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// How many requests were refused for this reason since the start.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.server.refused(refusal)
    }

    /// Stops it: closes the port and all connections, finishes what it has in hand, and waits for all of that.
    /// Returns at once if it has stopped.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        self.server.stop_registrar();
        self.tasks.join().await;
    }

    /// Returns when the threads that serve have come to a task of its own: late where they are busy, never where they hang.
    pub async fn pulse(&self) {
        let _ = self.tasks.spawn("pulse", async {}).await;
    }

    /// Waits until it has stopped serving, for whatever reason.
    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.server.stop_registrar();
    }
}

/// The bounds of the connections, in all and of each.
fn serve_limits(config: &Config) -> ServeLimits {
    let idle = config.server_channel_max_idle_time_seconds;
    let budget = BudgetLimits {
        bytes: config.connection_bytes_max,
        connections: config.max_connections,
        connections_per_address: config.max_connections_per_address,
    };
    ServeLimits {
        connection: ConnectionLimits { idle, ..ConnectionLimits::default() },
        budget: Arc::new(Budget::new(budget)),
        proxies: Arc::new(config.proxy_protocol_trusted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connections_are_served_within_what_is_configured() {
        let config = Config {
            server_channel_max_idle_time_seconds: Duration::from_secs(31),
            connection_bytes_max: 64 << 20,
            max_connections: 3,
            max_connections_per_address: 2,
            proxy_protocol_trusted: "10.0.0.1".parse().unwrap(),
            ..Config::default()
        };
        let limits = serve_limits(&config);
        let budget = limits.budget.limits();
        assert_eq!((budget.bytes, budget.connections, budget.connections_per_address), (64 << 20, 3, 2));
        assert_eq!(limits.connection.idle, Duration::from_secs(31));
        assert_eq!(*limits.proxies, config.proxy_protocol_trusted);
    }
}
