//! The owner of a setting: the group, or each member.

use std::fmt;

use super::KEYS;
use super::table::SCOPES;

/// The owner of a setting.
///
/// A setting that clients can see, or that decides on messages, must not change when another member leads: it belongs to
/// the group. Paths, ports, flushes, marks of the disk, threads and budgets of connections depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One value for all members of the group. The file's counts when the group is founded.
    Group,
    /// Each member has its own, out of its file.
    Local,
}

impl Scope {
    /// The owner of the setting of this name; `None` if there is none of this name.
    pub fn of(key: &str) -> Option<Self> {
        KEYS.iter().position(|one| one.name == key).map(|at| SCOPES[at])
    }
}

/// As docs/configuration.md has it.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Local => "local",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_somebodys() {
        assert_eq!(SCOPES.len(), KEYS.len());
        for key in KEYS {
            assert!(Scope::of(key.name).is_some(), "{}", key.name);
        }
        assert_eq!(Scope::of("noSuchKey"), None);
    }

    #[test]
    fn clients_see_one_group_and_machines_differ() {
        for key in
            ["maxMessageSize", "transactionCheckMax", "messageDelayLevel", "fileReservedTime", "brokerPermission"]
        {
            assert_eq!(Scope::of(key), Some(Scope::Group), "{key}");
        }
        for key in KEYS.iter().map(|key| key.name) {
            let is_groups = ["autoCreate", "transaction", "timer"].iter().any(|prefix| key.starts_with(prefix));
            let is_machines = ["Path", "Port", "Address", "flush", "Ratio", "Threads", "Connections"];
            let is_machines = is_machines.iter().any(|part| key.contains(part));
            assert!(!is_groups || Scope::of(key) == Some(Scope::Group), "{key}");
            assert!(!is_machines || Scope::of(key) == Some(Scope::Local), "{key}");
        }
    }
}
