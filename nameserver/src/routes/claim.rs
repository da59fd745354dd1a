//! The right to speak for a broker, and to take another one's place.
//!
//! Nobody proves an identity here. A registration can show the leader's term (`stateVersion`), and the table can
//! see whether the registered process is still there: its connection is open, and it is heard of.

use std::sync::Arc;
use std::time::Duration;

use super::table::Live;
use super::{BrokerId, Changes, Origin, Refused, Registration, RouteTable};

/// The outcome of a broker's goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// The broker is out of the routes, or was not in them.
    Heard,
    /// It is for a broker that another process registered, or a later one, and changes nothing.
    ForSomebodyElse,
}

impl RouteTable {
    /// Whether a registration may take the place of those that stand in its way: the holder of its id, and the broker that
    /// is listed under its address.
    ///
    /// * A newer `stateVersion` takes the id: its leader was elected later. An older one does not.
    /// * Who wants to lead a group is refused while any other member of it has registered with a newer version: that one
    ///   has heard of a later leader, which may only be on its way here. Who leads already stays until the later one
    ///   comes.
    /// * At equal versions the place is free when the other one's connection is closed (then it is not listed any more) or
    ///   it was silent for two heartbeats.
    /// * A broker's own address is its own, whatever its version, as long as the request comes from where the broker is:
    ///   it was restarted.
    pub(super) fn claim(&self, now: Duration, broker: &Registration) -> Result<(), Refused> {
        let holder = self.brokers().group(&broker.group).and_then(|group| group.addresses.get(&broker.id));
        if let Some(holder) = holder.filter(|holder| **holder != broker.address) {
            Self::succeed(now, broker, holder, self.live(holder))?;
        }
        match self.live.get_key_value(&broker.address) {
            Some((address, live)) if !broker.origin.speaks_for(&live.origin) => {
                Self::succeed(now, broker, address, live)?;
            }
            _ => {}
        }
        self.check_newest(broker, holder)
    }

    /// Refuses a leader that is older than what another member of its group knows.
    fn check_newest(&self, broker: &Registration, holder: Option<&Arc<str>>) -> Result<(), Refused> {
        let leads_already = holder.is_some_and(|holder| *holder == broker.address);
        if broker.id != BrokerId::MASTER || leads_already {
            return Ok(());
        }
        let group = self.brokers().group(&broker.group);
        let others = group.into_iter().flat_map(|group| group.addresses.values());
        let others = others.filter(|address| **address != broker.address);
        let newest = others.max_by_key(|address| self.live(address).version.state_version);
        match newest {
            Some(address) if self.live(address).version.state_version > broker.version.state_version => {
                Err(Refused::older(broker, address, self.live(address)))
            }
            _ => Ok(()),
        }
    }

    fn succeed(now: Duration, broker: &Registration, holder: &Arc<str>, live: &Live) -> Result<(), Refused> {
        let (version, newest) = (broker.version.state_version, live.version.state_version);
        // Terms of different groups say nothing about each other.
        if live.group == broker.group && version != newest {
            if version > newest {
                return Ok(());
            }
            return Err(Refused::older(broker, holder, live));
        }
        let silent = now.saturating_sub(live.seen);
        if silent > live.patience() {
            return Ok(());
        }
        Err(Refused::Taken {
            group: Arc::clone(&live.group),
            id: live.id,
            holder: Arc::clone(holder),
            silent_seconds: silent.as_secs(),
            patience_seconds: live.patience().as_secs(),
            address: Arc::clone(&broker.address),
        })
    }

    /// A broker says goodbye and leaves the routes; a group without members leaves them with it.
    ///
    /// It is heard over the connection over which that address was registered last, whatever id it names; from
    /// elsewhere on the same machine with the id under which the address is listed, because another member of the group
    /// may have taken an address that moves. Any other is for somebody else and changes nothing, and so is one that
    /// speaks for an older term than what is listed: it was overtaken by a registration, as after a quick restart. One
    /// for an address that is not listed in that group has nothing to change, and counts as heard: whoever repeats a
    /// goodbye is not refused.
    pub fn unregister(
        &mut self,
        origin: Origin,
        group: &str,
        address: &str,
        id: BrokerId,
        term: Option<i64>,
        changes: &mut Changes,
    ) -> Goodbye {
        let Some(live) = self.live.get(address).filter(|live| *live.group == *group) else {
            return Goodbye::Heard;
        };
        let is_registered_connection = live.origin.connection == origin.connection;
        let may_say_so = is_registered_connection || (origin.speaks_for(&live.origin) && live.id == id);
        let is_overtaken = term.is_some_and(|term| term < live.version.state_version);
        if !may_say_so || is_overtaken {
            return Goodbye::ForSomebodyElse;
        }
        self.drop_brokers(&[Arc::from(address)], changes);
        Goodbye::Heard
    }

    /// A sign of life between registrations. One that does not come from where the broker registered, or that is for no
    /// listed broker, changes nothing.
    pub fn heartbeat(&mut self, now: Duration, origin: Origin, address: &str) {
        if let Some(live) = self.live.get_mut(address).filter(|live| origin.speaks_for(&live.origin)) {
            live.heard(now);
        }
    }

    /// A registration came that cannot be taken as it is: if it is one of a listed broker, that one is alive, and what is
    /// known of it stays in force.
    pub fn stays(&mut self, now: Duration, origin: Origin, group: &str, address: &str, id: BrokerId) -> bool {
        let listed = self.live.get_mut(address);
        let listed = listed.filter(|live| *live.group == *group && live.id == id && origin.speaks_for(&live.origin));
        let Some(live) = listed else {
            return false;
        };
        live.heard(now);
        // It may have reconnected: the end of the old connection is not its own.
        live.origin = origin;
        true
    }
}

impl Live {
    /// Notes a sign of life.
    pub(super) fn heard(&mut self, now: Duration) {
        self.beat = self.beat.max(now.saturating_sub(self.seen));
        self.seen = now;
    }

    /// How long it may be silent before another one takes its place: two heartbeats. A heartbeat is the longest time that
    /// has passed between two signs of life; at least a quarter of the time after which it is dropped, which is how brokers
    /// choose that time, and at most half of it.
    pub(super) fn patience(&self) -> Duration {
        2 * self.beat.clamp(self.silence_max / 4, self.silence_max / 2)
    }
}
