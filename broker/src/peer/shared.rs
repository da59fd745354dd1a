//! What all connections of a member share.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use escrowmq_common::remoting::LogGate;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;

use super::counts::Counters;
use super::hello::{Hello, Lane, Target};
use super::link::{Core, Interrupt};
use super::roles::{Gate, Serve, Streams};
use super::secret::Secret;

/// Who we are, as of one connection.
pub(super) struct Identity {
    pub(super) hello: Arc<Hello>,
    pub(super) secret: Option<Secret>,
    pub(super) gate: Arc<dyn Gate>,
}

/// The shared parts.
pub(super) struct Shared {
    pub(super) hello: ArcSwap<Hello>,
    pub(super) secret: Option<Secret>,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) serve: Arc<dyn Serve>,
    /// Who takes connections of clients that others pass on.
    pub(super) streams: OnceLock<Arc<dyn Streams>>,
    /// Most bytes of requests in flight on a connection, on either side.
    pub(super) bytes_max: usize,
    /// Longest time for a handshake, on either side.
    pub(super) handshake_time: Duration,
    pub(super) links: Mutex<HashMap<(Target, Lane), Arc<Core>>>,
    pub(super) served: Mutex<Served>,
    pub(super) counters: Counters,
    /// Lines about connections that were not let in.
    pub(super) not_let_in: LogGate,
    /// All tasks of the peer thread.
    pub(super) tasks: Tasks,
    /// Cancelled when the member stops.
    pub(super) stop: Shutdown,
}

impl Shared {
    /// Who we are now.
    pub(super) fn identity(&self) -> Identity {
        Identity { hello: self.hello.load_full(), secret: self.secret.clone(), gate: Arc::clone(&self.gate) }
    }

    /// A member has shown that it is there: whoever waits to dial it need wait no longer.
    pub(super) fn seen(&self, hello: &Hello) {
        for core in self.links_where(|target| target.is(hello)) {
            core.retry_now();
        }
    }

    /// The network leads to a member no more: its other connections would find out one by one.
    pub(super) fn path_lost(&self, target: &Target) {
        for core in self.links_where(|other| other == target) {
            core.interrupt(Interrupt::PathLost);
        }
    }

    /// The links whose targets are such.
    pub(super) fn links_where(&self, is_meant: impl Fn(&Target) -> bool) -> Vec<Arc<Core>> {
        let links = self.links.lock();
        links.iter().filter(|((target, _), _)| is_meant(target)).map(|(_, core)| Arc::clone(core)).collect()
    }
}

/// The connections of other members that are served: one for each member and lane.
#[derive(Debug, Default)]
pub(super) struct Served {
    next: u64,
    open: HashMap<(u64, Lane), (u64, Shutdown)>,
}

/// The most of them. Members are few; without a secret whoever is on this machine can name any number of ids.
const SERVED_MAX: usize = 256;

impl Served {
    /// Takes a connection in, in place of an older one of the same member and lane: that is dead, or will be. Gives its
    /// number, or `None` if there are too many.
    pub(super) fn enter(&mut self, node: u64, lane: Lane, stop: Shutdown) -> Option<u64> {
        if self.open.len() >= SERVED_MAX && !self.open.contains_key(&(node, lane)) {
            return None;
        }
        self.next += 1;
        if let Some((_, older)) = self.open.insert((node, lane), (self.next, stop)) {
            older.cancel();
        }
        Some(self.next)
    }

    /// The connection with this number has ended.
    pub(super) fn leave(&mut self, node: u64, lane: Lane, number: u64) {
        if self.open.get(&(node, lane)).is_some_and(|(current, _)| *current == number) {
            self.open.remove(&(node, lane));
        }
    }

    /// Ends all of them.
    pub(super) fn close_all(&self) {
        for (_, stop) in self.open.values() {
            stop.cancel();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
