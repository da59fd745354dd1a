//! Requests of clients whose member does not lead: held until there is a leader, and passed on to it.
//!
//! ```text
//!  client <-> its connection <-> Tunnel (one per client) <-> stream between members <-> connection <-> handlers of the leader
//! ```
//!
//! A tunnel is a connection of its own to the leader, in the client's name: it carries the client's frames as they are, and
//! the leader's. So the leader knows the client, holds its pulls, asks it about its transactions and tells it of its groups, as
//! if it were connected there. It is opened with the first request, and again when another member leads; the client's last
//! heartbeat goes first then. If this member leads itself, it carries that heartbeat out.
//!
//! Promises: a request is passed on once, and by one member only: the leader's side ([`Arrivals`]) passes nothing on. What
//! waits for a leader has a bound in time, number and bytes. A request whose tunnel breaks is answered that its outcome is
//! unknown, unless it is a pull, which is harmless; it is never sent again.
//! Leaves to others: who leads (`raft`), the streams between members (`peer`), what requests mean (`server`).

mod arrivals;
mod counts;
mod relay;
mod tunnel;
mod way;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dashmap::DashMap;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Budget, Connection, ConnectionLimits};
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::watch;

use crate::planted::{Bug, planted};
use crate::raft::{Leadership, Office};

pub(crate) use arrivals::Arrivals;
pub(crate) use counts::Counts;
pub(crate) use tunnel::Handle;
pub(crate) use way::Way;

use tunnel::Tunnel;

/// See the module.
pub(crate) struct Forwarder {
    leadership: watch::Receiver<Leadership>,
    office: Arc<Office>,
    /// None in a group of one, and for what other members pass on.
    way: Option<Arc<dyn Way>>,
    tunnels: DashMap<u64, Tunnel>,
    limits: ConnectionLimits,
    budget: Arc<Budget>,
    counts: Arc<Counts>,
    tasks: Tasks,
    shutdown: Shutdown,
}

/// The side that requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Clients of this member.
    Clients,
    /// Clients of other members, which pass them on to this one.
    Members,
}

impl Forwarder {
    /// Passes requests on by `way`. Without one this member is alone and carries out everything itself. What other members pass
    /// on is passed on no further: two members that take each other for the leader would do that for ever.
    pub(crate) fn new(
        origin: Origin,
        leadership: watch::Receiver<Leadership>,
        office: Arc<Office>,
        way: Option<Arc<dyn Way>>,
        limits: ConnectionLimits,
        budget: Arc<Budget>,
        shutdown: Shutdown,
    ) -> Self {
        let way = way.filter(|_| origin == Origin::Clients || planted(Bug::ForwardingLoop));
        let (tunnels, counts, tasks) = (DashMap::new(), Arc::default(), Tasks::new());
        Self { leadership, office, way, tunnels, limits, budget, counts, tasks, shutdown }
    }

    /// Counts of requests that are passed on.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Whether requests are carried out here: this member leads, no other can, and it is ready.
    pub(crate) fn is_here(&self) -> bool {
        self.office.is_held()
    }

    /// Holds a request until there is a leader, and passes it on, or hands it to `handle` if that is this member then.
    pub(crate) fn pass(&self, connection: &Arc<Connection>, request: Frame, handle: &Handle) {
        self.with_tunnel(connection, handle, |tunnel| tunnel.pass(request));
    }

    /// Tells the leader a heartbeat that was answered here; if that is this member by then, hands it to `handle`. Later leaders get it,
    /// too. One that another member has passed on waits in the same way: its leader may not be ready yet.
    pub(crate) fn tell(&self, connection: &Arc<Connection>, beat: Frame, handle: &Handle) {
        self.with_tunnel(connection, handle, |tunnel| tunnel.beat(beat, false));
    }

    /// Notes a heartbeat that is carried out here, for leaders after this one. Those of other members' clients are noted there.
    pub(crate) fn note(&self, connection: &Arc<Connection>, beat: Frame, handle: &Handle) {
        if self.way.is_some() {
            self.with_tunnel(connection, handle, |tunnel| tunnel.beat(beat, true));
        }
    }

    /// A client answers a request that nobody here has asked: it goes to the leader.
    pub(crate) fn answer(&self, connection: &Connection, response: Frame) {
        if let Some(tunnel) = self.tunnels.get(&connection.id()) {
            tunnel.answer(response);
        }
    }

    /// A client's connection has ended.
    pub(crate) fn closed(&self, connection: &Connection) {
        self.tunnels.remove(&connection.id());
    }

    /// Waits until no tunnel is left. The broker is stopping.
    pub(crate) async fn end(&self) {
        self.tunnels.clear();
        self.tasks.join().await;
    }

    fn with_tunnel(&self, connection: &Arc<Connection>, handle: &Handle, with: impl FnOnce(&Tunnel)) {
        let tunnel = self.tunnels.entry(connection.id()).or_insert_with(|| {
            let course = tunnel::Course {
                client: Arc::clone(connection),
                leadership: self.leadership.clone(),
                office: Arc::clone(&self.office),
                way: self.way.clone(),
                handle: Arc::clone(handle),
                limits: self.limits.clone(),
                budget: Arc::clone(&self.budget),
                counts: Arc::clone(&self.counts),
                tasks: self.tasks.clone(),
                shutdown: self.shutdown.clone(),
            };
            Tunnel::open(course, &self.tasks)
        });
        with(&tunnel);
        drop(tunnel);
        if !connection.is_open() {
            // It ended before its tunnel was entered, so nobody else would remove it.
            self.closed(connection);
        }
    }
}
