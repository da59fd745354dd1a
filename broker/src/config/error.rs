//! Why settings were not accepted.

use std::fmt;

use escrowmq_common::settings::{Place, SettingError};

/// A setting of RocketMQ's that promises what this broker does not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Where it was written.
    pub place: Place,
    /// The key.
    pub key: String,
    /// As it was written.
    pub value: String,
    /// The promise that is not kept.
    pub why: &'static str,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}={}: {}", self.place, self.key, self.value, self.why)
    }
}

/// Why settings were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, a key or a value, whatever the others are.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Settings that would be believed and not kept.
    #[error("{}; take them out, or set ignoreUnsupported=true to run without what they promise", list(all))]
    Unsupported {
        /// All of them.
        all: Vec<Unsupported>,
    },
    /// A secret among the settings, where the log and tools show it.
    #[error(
        "{place}groupSecret is no key, and its value is not used: settings are logged and shown to tools, so a secret must not be one. Write a new one into a file that the broker's user alone may read (chmod 600), and name it with groupSecretFile"
    )]
    SecretInTheOpen {
        /// Where it was written.
        place: Place,
    },
    /// There is no folder that data could go to.
    #[error(
        "storePathRootDir is not set, and without a home folder (HOME) there is no default: name the folder of the data"
    )]
    NoFolder,
    /// A tool asked to change a key that has an effect at start alone.
    #[error("{key} cannot be changed in a running broker; change the file and restart")]
    Fixed {
        /// The key.
        key: String,
    },
    /// A tool on another machine asked for a change that only one on the broker's own machine may make.
    #[error(
        "{key}={value} {why}: that is refused from other machines. Use a tool on the broker's machine, in a group that of the leader, such as mqadmin with -b 127.0.0.1:PORT; or change the file of a broker alone and restart"
    )]
    Elsewhere {
        /// The key.
        key: &'static str,
        /// The value that it was to have.
        value: String,
        /// The harm that it might do, or the values that are taken.
        why: String,
    },
    /// A tool asked to change what a group keeps from its founding on.
    #[error("{key} of a group cannot be changed: it is as it was when the settings of the group were first logged")]
    Founded {
        /// The key.
        key: String,
    },
    /// A tool asked to change settings of the group and of one member together.
    #[error("{group} belongs to the group and {local} to one member: nothing was changed, change them by two requests")]
    TwoScopes {
        /// A key of the group.
        group: String,
        /// A key of a member.
        local: String,
    },
    /// A tool asked to change what is logged where somebody else decides on that.
    #[error("logLevel: this broker runs within a program that has a log of its own; nothing was changed")]
    LogElsewhere,
    /// A tool asked to change a key of RocketMQ's that has no effect here.
    #[error("{key} means nothing in this broker; nothing was changed")]
    Meaningless {
        /// The key.
        key: String,
    },
}

fn list(all: &[Unsupported]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ConfigError {
    /// Whether the same settings may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Setting(error) if error.is_retryable())
    }

    /// Whether the settings make sense, and only this tool may not make them.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Fixed { .. } | Self::Founded { .. } | Self::Elsewhere { .. })
    }

    /// The same, with the place of the key that it names.
    pub(super) fn at(self, find: impl FnOnce(&str) -> Place) -> Self {
        match self {
            Self::Setting(error) => error.at(find).into(),
            other => other,
        }
    }
}
