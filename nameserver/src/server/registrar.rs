//! The one thread that changes routes.
//!
//! It takes registrations and the like as [`Waiting`] hands them out, decides with its [`RouteTable`], publishes and answers.
//! A thread of its own, because a full registration with 100,000 topics takes a good part of a second to read and to apply,
//! which no connection's task may wait for; lookups do not notice it.
//!
//! No broker is taken for silent as long as something waits that arrived in time.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::{DashMap, DashSet};
use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::NotifyMinBrokerIdChangeHeader;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::Shutdown;
use tokio::runtime::Handle;

use super::busy;
use super::order::Turn;
use super::refusals::{Refusal, Refusals};
use super::waiting::{Next, Waiting};
use crate::config::Config;
use crate::kv::Kv;
use crate::routes::{
    Changes, ConnectionId, MinBrokerChange, Origin, RouteLimits, RouteTable, RouteTableOptions, Routes,
};

/// The way to the registrar.
#[derive(Debug)]
pub(super) struct Registry {
    shared: Arc<Shared>,
    clock: Clock,
    refusals: Arc<Refusals>,
}

/// State that the registrar's thread shares with the connections' tasks.
#[derive(Debug, Default)]
struct Shared {
    waiting: Waiting,
    /// Connections over which a broker tried to register, for as long as they are open.
    registrants: DashMap<ConnectionId, Arc<Connection>>,
    /// Those of them whose broker was listed.
    brokers: DashSet<ConnectionId>,
}

/// The thread's own state.
pub(crate) struct Registrar {
    pub(super) table: RouteTable,
    pub(super) parts: Parts,
    shared: Arc<Shared>,
    /// Requests that waited for one of ours go on from here, and may start tasks.
    runtime: Handle,
}

/// The parts that the registrar shares with the server.
pub(super) struct Parts {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) routes: Arc<Routes>,
    pub(super) kv: Kv,
    pub(super) clock: Clock,
    pub(super) refusals: Arc<Refusals>,
    pub(super) shutdown: Shutdown,
}

pub(super) fn new(parts: Parts) -> (Registry, Registrar) {
    let shared = Arc::<Shared>::default();
    let registry =
        Registry { shared: Arc::clone(&shared), clock: parts.clock.clone(), refusals: Arc::clone(&parts.refusals) };
    let registrar =
        Registrar { table: RouteTable::new(RouteTableOptions::default()), parts, shared, runtime: Handle::current() };
    (registry, registrar)
}

impl Registry {
    /// Hands a request over, or answers that there are too many. `turn` is held until it is answered.
    pub(super) fn submit(&self, connection: &Arc<Connection>, request: Frame, turn: Turn) {
        let id = ConnectionId(connection.id());
        if request.code == request::REGISTER_BROKER {
            self.shared.registrants.insert(id, Arc::clone(connection));
            // It may have waited for the request before it until its connection was gone, whose end is not told again.
            if !connection.is_open() {
                return self.connection_closed(connection);
            }
        }
        let is_stranger = !self.shared.brokers.contains(&id);
        let now = self.clock.monotonic();
        if let Err((request, turn)) = self.shared.waiting.push(connection, request, turn, is_stranger, now) {
            self.refusals.count(Refusal::Busy, connection.peer(), "too many registrations wait");
            turn.answer(connection, &busy(&request));
        }
    }

    /// Tells that a connection has ended, if it matters.
    pub(super) fn connection_closed(&self, connection: &Connection) {
        let id = ConnectionId(connection.id());
        if self.shared.registrants.remove(&id).is_some() {
            self.shared.waiting.push_closed(id, self.clock.monotonic());
        }
    }

    /// Lets the registrar end after what it was handed.
    pub(super) fn stop(&self) {
        self.shared.waiting.stop();
    }
}

/// Stops the process's server if the thread ends in any other way than by being asked to: a nameserver that answers
/// from a table that nobody keeps would send clients to dead brokers.
struct Vital(Shutdown);

impl Drop for Vital {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Registrar {
    /// The thread. Ends after the last request once it was asked to stop.
    pub(crate) fn run(mut self) {
        let _vital = Vital(self.parts.shutdown.clone());
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        let mut next_scan = self.parts.clock.monotonic();
        loop {
            let config = self.parts.config.load_full();
            self.table.set_options(RouteTableOptions {
                delete_missing_topics: config.delete_topic_with_broker_registration,
                notify_min_broker: config.notify_min_broker_id_changed,
                limits: RouteLimits { route_bytes: config.route_bytes_max, brokers: config.brokers_max },
            });
            let interval = config.scan_not_active_broker_interval;
            match self.shared.waiting.next(interval) {
                Next::Request(connection, request, turn) => {
                    self.take(&connection, &request, &turn);
                    drop(turn);
                }
                // When the server stops all end, and their topics need not be looked for.
                Next::Closed(_) if self.parts.shutdown.is_cancelled() => {}
                Next::Closed(id) => {
                    self.shared.brokers.remove(&id);
                    self.change(|table, _, changes| table.connection_closed(id, changes));
                }
                Next::Stop => return,
                Next::Nothing => {}
            }
            // Under a steady load no wait times out: look at the clock after each event as well.
            let now = self.parts.clock.monotonic();
            if now >= next_scan {
                let looked_at = self.shared.waiting.oldest().map_or(now, |oldest| oldest.min(now));
                self.change(|table, _, changes| table.tick(looked_at, changes));
                next_scan = now + interval;
            }
        }
    }

    /// One event: decide, publish, carry out.
    pub(super) fn change<T>(&mut self, event: impl FnOnce(&mut RouteTable, Duration, &mut Changes) -> T) -> T {
        let mut changes = Changes::default();
        let now = self.parts.clock.monotonic();
        let outcome = event(&mut self.table, now, &mut changes);
        self.parts.routes.publish(&mut changes);
        for id in changes.close {
            if let Some(connection) = self.shared.registrants.get(&id) {
                connection.close("broker fell silent");
            }
        }
        for change in &changes.notify {
            self.notify(change);
        }
        outcome
    }

    /// Notes that a connection's broker is listed.
    pub(super) fn note_broker(&self, connection: &Connection) {
        self.shared.brokers.insert(ConnectionId(connection.id()));
    }

    fn take(&mut self, connection: &Arc<Connection>, asked: &Frame, turn: &Turn) {
        // A registration over a connection that has ended meanwhile would stay until it expires, since that end may have
        // been handled already. If the connection is open now, its end will be handled after this request.
        if asked.code == request::REGISTER_BROKER && !connection.is_open() {
            return;
        }
        let answer = match asked.code {
            request::REGISTER_BROKER => self.register_broker(connection, asked),
            request::UNREGISTER_BROKER => self.unregister_broker(connection, asked),
            request::BROKER_HEARTBEAT => self.broker_heartbeat(connection, asked),
            request::QUERY_DATA_VERSION => self.query_data_version(connection, asked),
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_permission(connection, asked, turn),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write_permission(connection, asked, turn),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(connection, asked, turn),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(connection, asked, turn),
            code => unreachable!("the dispatch sends no {code} here"),
        };
        turn.answer(connection, &answer);
    }

    /// `NOTIFY_MIN_BROKER_ID_CHANGE`; a broker that misses it finds out with its next registration.
    fn notify(&self, change: &MinBrokerChange) {
        let header = NotifyMinBrokerIdChangeHeader {
            min_broker_id: Some(change.min_id.0),
            broker_name: Some(&change.group),
            min_broker_addr: Some(&change.min_address),
            offline_broker_addr: change.offline_address.as_deref(),
            ha_broker_addr: change.ha_address.as_deref(),
        };
        for id in &change.connections {
            let Some(connection) = self.shared.registrants.get(id) else {
                continue;
            };
            let code = request::NOTIFY_MIN_BROKER_ID_CHANGE;
            let request = Frame::request(code).with_header(&header);
            if let Err(error) = connection.send_oneway(request) {
                tracing::debug!(group = %change.group, %error, "a broker was not told of the smallest id");
            }
        }
    }
}

/// Where a request came from.
pub(super) fn origin(connection: &Connection) -> Origin {
    Origin { connection: ConnectionId(connection.id()), host: connection.peer().ip().to_canonical() }
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registrar")
    }
}
