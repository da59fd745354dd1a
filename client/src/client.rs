//! The handle that users hold, and the identity and tasks behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use escrowmq_common::clock;
use escrowmq_common::limits::CLIENT_ID_BYTES_MAX;
use escrowmq_common::net::outgoing_ip;
use escrowmq_common::remoting::{Remote, RemoteOptions};

use crate::admin::Admin;
use crate::builder::{ClientBuilder, Settings};
use crate::consumer::{PullConsumerBuilder, PushConsumerBuilder, StreamBuilder};
use crate::core::Core;
use crate::error::StartError;
use crate::events::{Bell, ConnectionEvents};
use crate::heartbeat;
use crate::incoming::Incoming;
use crate::limit;
use crate::names::NameServers;
use crate::producer::ProducerBuilder;
use crate::stats::ClientStats;
use crate::trace::Writer;
use crate::transaction::{TransactionListener, TransactionProducerBuilder};

/// A client of one cluster: its identity, its connections and its routes. Cheap to clone; all clones are one client.
///
/// Producers and consumers are made from it and share its connections. A client has one member per group; to run two
/// members of a consumer group in one process, make two clients.
///
/// Call [`Client::shutdown`] at the end. A client that is merely dropped stops without waiting for anything; brokers
/// notice by the lost connection, and what was not acknowledged is delivered again.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Stops the background tasks when the last handle goes: they themselves keep the core alive.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.shutdown.cancel();
    }
}

/// The parts that a client's identity is found with.
struct Parts {
    names: NameServers,
    incoming: Arc<Incoming>,
    remote: Remote,
    bell: Bell,
}

impl Parts {
    fn new(settings: &Settings) -> Result<Parts, StartError> {
        let bell = Bell::new();
        let names = NameServers::parse(&settings.namesrv, bell.clone())?;
        let incoming = Arc::new(Incoming::default());
        let options = RemoteOptions { connect_timeout: settings.connect_timeout, ..RemoteOptions::default() };
        let remote = Remote::new(options, incoming.clone());
        Ok(Parts { names, incoming, remote, bell })
    }
}

impl Client {
    /// A client of the cluster whose name servers are `namesrv`: `host:port`, several joined by `;`.
    pub fn builder(namesrv: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(namesrv.into())
    }

    pub(crate) async fn start(settings: Settings) -> Result<Client, StartError> {
        let parts = Parts::new(&settings)?;
        // The address by which this machine reaches the cluster is the one that tells operators most.
        let ip = parts.names.local_ip(&parts.remote).await?;
        Client::assemble(settings, parts, ip)
    }

    pub(crate) fn start_lazily(settings: Settings) -> Result<Client, StartError> {
        let parts = Parts::new(&settings)?;
        let ip = outgoing_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Client::assemble(settings, parts, ip)
    }

    fn assemble(settings: Settings, parts: Parts, ip: IpAddr) -> Result<Client, StartError> {
        let Parts { names, incoming, remote, bell } = parts;
        let id = client_id(ip, settings.instance.as_deref());
        limit::bytes(&id, CLIENT_ID_BYTES_MAX).map_err(|error| StartError::setting("instance_name", error))?;
        limit::topic(&settings.trace_topic).map_err(|error| StartError::setting("message_trace_topic", error))?;
        let core = Arc::new(Core::new(id, settings, names, remote, bell));
        incoming.attach(&core);
        heartbeat::start(&core);
        Writer::start(&core);
        tracing::info!(client = %core.id, "client started");
        Ok(Client { handle: Arc::new(Handle { core }) })
    }

    /// The id under which brokers and tools know this client: address, `@`, process id, `#` and a number.
    pub fn id(&self) -> &str {
        &self.handle.core.id
    }

    /// Begins a producer of `group`.
    pub fn producer(&self, group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), group.into())
    }

    /// Begins a transactional producer of `group`. The broker's checks go to `listener`, which may run the local transactions,
    /// too: a [`TransactionListener`] of your own, a [`Checker`](crate::Checker) for checks alone, or a
    /// [`Router`](crate::Router) to several.
    pub fn transaction_producer<L: TransactionListener>(
        &self,
        group: impl Into<String>,
        listener: L,
    ) -> TransactionProducerBuilder {
        TransactionProducerBuilder::new(self.clone(), group.into(), Arc::new(listener))
    }

    /// Begins a consumer of `group` that hands messages to a handler.
    pub fn push_consumer(&self, group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(self.clone(), group.into())
    }

    /// Begins a consumer of `group` whose messages are a stream.
    pub fn stream(&self, group: impl Into<String>) -> StreamBuilder {
        StreamBuilder::new(self.clone(), group.into())
    }

    /// Begins a consumer of `group` that is told which queues to read, and asked for messages.
    pub fn pull_consumer(&self, group: impl Into<String>) -> PullConsumerBuilder {
        PullConsumerBuilder::new(self.clone(), group.into())
    }

    /// The requests of operators and tools.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Records of the message trace that were dropped since the client started, because too many waited or no broker took them.
    /// 0 without [`message_trace`](ClientBuilder::message_trace).
    pub fn dropped_trace_records(&self) -> u64 {
        self.core().trace.as_ref().map_or(0, Writer::dropped)
    }

    /// Ends everything made from this client, in order: consumers stop pulling, their handlers finish and their offsets
    /// are stored; sends in flight end; brokers are told; connections are closed. Waits at most the shutdown timeout for
    /// each of them. A second call does nothing.
    pub async fn shutdown(&self) {
        self.core().close().await;
    }

    /// Numbers for metrics of yours: sends, handlers, retries, lag, servers that are away.
    pub fn stats(&self) -> ClientStats {
        let core = self.core();
        let mut away = core.outages.away();
        away.extend(core.routes.name_servers_away());
        let mut stats = ClientStats {
            producers: core.groups.producers().iter().map(|producer| producer.stats()).collect(),
            consumers: core.groups.consumers().iter().filter_map(|consumer| consumer.stats()).collect(),
            away,
        };
        stats.producers.sort_by(|one, other| one.group.cmp(&other.group));
        stats.consumers.sort_by(|one, other| one.group.cmp(&other.group));
        stats
    }

    /// The events of the connections from now on. Reconnecting is the client's own business; this is for logs, metrics and health
    /// checks of yours.
    pub fn events(&self) -> ConnectionEvents {
        self.core().bell.listen()
    }

    /// Waits for a signal of yours and ends everything then, as [`shutdown`](Client::shutdown) does. The library installs no handler
    /// of signals itself.
    ///
    /// ```no_run
    /// # async fn run(client: escrowmq_client::Client) {
    /// client.shutdown_on(tokio::signal::ctrl_c()).await;
    /// # }
    /// ```
    pub async fn shutdown_on(&self, signal: impl Future) {
        signal.await;
        self.shutdown().await;
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

/// `ip@pid#nanos`, as other clients make theirs. The number is the time in nanoseconds, moved on where two clients of a
/// process start in the same instant.
fn client_id(ip: IpAddr, instance: Option<&str>) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if let Some(instance) = instance {
        return format!("{ip}@{instance}");
    }
    let now = clock::wall_ms() as u64 * 1_000_000 + u64::from(clock::monotonic().subsec_nanos() % 1_000_000);
    let number = LAST
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
        .map_or(now, |last| now.max(last + 1));
    format!("{ip}@{}#{number}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_unless_given() {
        let ip: IpAddr = "192.0.2.2".parse().expect("an address");
        assert_ne!(client_id(ip, None), client_id(ip, None));
        assert!(client_id(ip, None).starts_with(&format!("192.0.2.2@{}#", std::process::id())));
        assert_eq!(client_id(ip, Some("mine")), "192.0.2.2@mine");
    }
}
