//! The settings of a broker that is one of several: who the members are, which of them this one is, where they talk,
//! and what they prove to each other.
//!
//! Promises: settings that contradict each other are refused with what to do; names and addresses of members differ; a
//! secret is in no listing and no log; members that other machines can reach have one.
//!
//! Left to others: whether a host is there (names are resolved when they are connected to), whether members are as
//! listed (the list counts when a group is founded), and the proof itself.

mod host;
mod listen;
mod seat;
mod secret;

use std::fmt;
use std::net::Ipv4Addr;

use escrowmq_common::settings::SettingError;

use super::{BrokerConfig, ConfigError, rule};

pub use host::GroupHost;
pub use listen::ListenAt;
pub use seat::{Seat, Seats};
pub use secret::{GroupSecret, SecretError};

/// A port that is free in most installations, for hints.
const PORT_HINT: &str = "such as 40911";

/// The group that a broker is configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// The members that found it.
    pub seats: Seats,
    /// This broker's seat, one of them.
    pub own: Seat,
    /// The local address where other members are listened for; no host stands for all interfaces.
    pub listen: (Option<GroupHost>, u16),
}

impl BrokerConfig {
    /// The group that these settings describe; `None` for a broker alone, and for settings that
    /// [`validate`](Self::validate) refuses.
    pub fn group(&self) -> Option<GroupConfig> {
        let own = self.replication_peers.named(&self.replication_self)?.clone();
        let host = self.group_listen.host.clone().or_else(|| self.group_secret_file.is_none().then(|| own.loopback()));
        Some(GroupConfig {
            name: self.group_name().to_owned(),
            seats: self.replication_peers.clone(),
            listen: (host, self.group_listen.port.unwrap_or(own.port)),
            own,
        })
    }

    /// The name of the group: as set, or the broker's.
    pub fn group_name(&self) -> &str {
        if self.replication_group.is_empty() { &self.broker_name } else { &self.replication_group }
    }

    /// Reads the group's secret, if a file of one is named. The error names the file and what to do.
    pub fn read_group_secret(&self) -> Result<Option<GroupSecret>, ConfigError> {
        let Some(path) = &self.group_secret_file else { return Ok(None) };
        let secret = GroupSecret::read(path);
        let bad = |why: SecretError| SettingError::bad_value("groupSecretFile", path.display(), why.to_string());
        Ok(Some(secret.map_err(bad)?))
    }

    /// How many members have a message when its sender hears that it is stored: a majority of the founders.
    pub fn copies_kept(&self) -> u64 {
        self.replication_peers.count() as u64 / 2 + 1
    }

    /// Rules of the keys of a group that none of them can check alone.
    pub(super) fn validate_group(&self) -> Result<(), ConfigError> {
        let name = &self.replication_group;
        let is_name = name.len() <= 127 && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        rule("dLegerGroup", name, is_name, || "must be at most 127 bytes without blanks".to_owned())?;
        let seats = &self.replication_peers;
        let enabled = self.replication_enabled;
        if seats.is_empty() {
            return rule("enableDLegerCommitLog", true, enabled != Some(true), || {
                "needs the members of the group: add dLegerPeers=n0-host:port;n1-host:port;n2-host:port, the same for \
                 all, and dLegerSelfId, another one for each; or leave it out for a broker alone"
                    .to_owned()
            });
        }
        let count = seats.count();
        rule("enableDLegerCommitLog", false, count == 1 || enabled != Some(false), || {
            format!("contradicts dLegerPeers, which names {count} members: leave one of the two out")
        })?;
        let Some(own) = seats.named(&self.replication_self) else {
            let names: Vec<_> = seats.all().iter().map(|seat| seat.name.as_str()).collect();
            let why = format!("is none of dLegerPeers, which are {}", names.join(", "));
            return Err(SettingError::bad_value("dLegerSelfId", &self.replication_self, why).into());
        };
        self.validate_peer_ports(own)?;
        let needs_secret = count > 1 && self.group_secret_file.is_none();
        rule("groupSecretFile", "", !needs_secret || seats.are_loopback(), || {
            "must name the file of a secret that all members have: without one whoever reaches their ports could vote \
             and read messages. Only members that are all at loopback addresses go without"
                .to_owned()
        })?;
        let is_inside = self.group_listen.host.as_ref().is_some_and(GroupHost::is_loopback);
        let is_open = self.group_listen != ListenAt::default() && !is_inside;
        rule("groupListenAddress", &self.group_listen, !is_open || self.group_secret_file.is_some(), || {
            "must be a loopback address, or needs groupSecretFile: whoever reaches it could vote and read messages"
                .to_owned()
        })
    }

    /// Members talk at ports of their own. Those of this machine must not be where clients and metrics are served.
    fn validate_peer_ports(&self, own: &Seat) -> Result<(), ConfigError> {
        let clients = self.listen_port;
        let mut taken = vec![(self.metrics_port.unwrap_or_default(), "metricsPort")];
        if clients > 0 {
            taken.extend([(clients, "listenPort"), (clients.saturating_sub(2), "the fast port, two below listenPort")]);
        }
        let taken = |port: u16| taken.iter().find(|(one, _)| port > 0 && *one == port).map(|(_, whose)| *whose);
        let bad = |key, value: &dyn fmt::Display, port: u16, whose: &str| {
            let why = format!("has port {port}, which is {whose}; members need a port of their own, {PORT_HINT}");
            Err(SettingError::bad_value(key, value, why).into())
        };
        let bound = self.group_listen.port;
        if let Some((port, whose)) = bound.and_then(|port| taken(port).map(|whose| (port, whose))) {
            return bad("groupListenAddress", &self.group_listen, port, whose);
        }
        for seat in self.replication_peers.all() {
            let is_here = seat.host.same() == own.host.same();
            // Behind a forwarded port the number of the own seat is no local one.
            let is_forwarded = seat == own && bound.is_some();
            if let Some(whose) = taken(seat.port).filter(|_| is_here && !is_forwarded) {
                return bad("dLegerPeers", seat, seat.port, whose);
            }
        }
        Ok(())
    }
}

impl Seat {
    /// The loopback address for it: its own, if it has one.
    fn loopback(&self) -> GroupHost {
        if self.host.is_loopback() { self.host.clone() } else { GroupHost::Ip(Ipv4Addr::LOCALHOST.into()) }
    }
}

#[cfg(test)]
mod tests;
