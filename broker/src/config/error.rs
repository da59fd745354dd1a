//! Why settings were not accepted, and where the setting stands that is to blame.

use std::fmt;
use std::io;
use std::path::PathBuf;

use escrowmq_common::settings::properties::SyntaxError;

/// Where a setting was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is a default, or came with a request that its sender knows.
    #[default]
    Nowhere,
    /// In a properties file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// On the command line.
    Argument,
}

/// In front of what is said about the setting.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => Ok(()),
            Self::File { path, line } => write!(f, "{}, line {line}: ", path.display()),
            Self::Variable(name) => write!(f, "{name}: "),
            Self::Argument => f.write_str("command line: "),
        }
    }
}

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
    /// The file cannot be read or, for a change by a tool, written.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// The step that failed.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The text is no properties text.
    #[error("{place}{source}")]
    Syntax {
        /// In which text. The line is in the cause.
        place: FileName,
        /// The mistake.
        source: SyntaxError,
    },
    /// Nobody has such a key.
    #[error("{place}unknown key '{key}'; the nearest known one is '{nearest}'")]
    UnknownKey {
        /// Where it was written.
        place: Place,
        /// As it was written.
        key: String,
        /// The most similar key.
        nearest: &'static str,
    },
    /// The key is known, the value is not one of its kind, or does not go with the others.
    #[error("{place}{key}={value}: {why}")]
    BadValue {
        /// Where it was written.
        place: Place,
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// The mistake.
        why: String,
    },
    /// Settings that would be believed and not kept.
    #[error("{}; take them out, or set ignoreUnsupported=true to run without what they promise", list(all))]
    Unsupported {
        /// All of them.
        all: Vec<Unsupported>,
    },
    /// More than one member of a replication group.
    #[error(
        "{place}dLegerPeers names {peers} members: this version does not replicate. Leave dLegerPeers out, or name this broker alone"
    )]
    Replication {
        /// Where it was written.
        place: Place,
        /// How many were named.
        peers: usize,
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
        "{key}={value} {why}: that is refused from other machines. Use a tool on the broker's machine, such as mqadmin with -b 127.0.0.1:PORT, or change the file and restart"
    )]
    Elsewhere {
        /// The key.
        key: &'static str,
        /// The value that it was to have.
        value: String,
        /// The harm that it might do, or the values that are taken.
        why: String,
    },
    /// A tool asked to change a key of RocketMQ's that has no effect here.
    #[error("{key} means nothing in this broker; nothing was changed")]
    Meaningless {
        /// The key.
        key: String,
    },
}

/// The name of a file in front of what is said about it; nothing for the text of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileName(pub Option<PathBuf>);

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| write!(f, "{}, ", path.display()))
    }
}

fn list(all: &[Unsupported]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ConfigError {
    /// Whether the same settings may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Whether the settings make sense, and only this tool may not make them.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Fixed { .. } | Self::Elsewhere { .. })
    }

    /// The same, with the place of the key that it names.
    pub(super) fn at(mut self, find: impl FnOnce(&str) -> Place) -> Self {
        match &mut self {
            Self::BadValue { place, key, .. } => *place = find(key),
            Self::Replication { place, .. } => *place = find("dLegerPeers"),
            _ => {}
        }
        self
    }
}
