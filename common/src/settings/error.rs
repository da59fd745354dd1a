//! Why settings were not accepted, and where the setting stands that is to blame.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::properties::SyntaxError;

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

/// Why a setting was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
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
}

/// The name of a file in front of what is said about it; nothing for the text of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileName(pub Option<PathBuf>);

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| write!(f, "{}, ", path.display()))
    }
}

impl SettingError {
    /// A value that a rule forbids. Its place is not known to the rule.
    pub fn bad_value(key: &'static str, value: impl fmt::Display, why: impl Into<String>) -> Self {
        Self::BadValue { place: Place::Nowhere, key, value: value.to_string(), why: why.into() }
    }

    /// Whether the same settings may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// The same, with the place of the key whose value it blames.
    #[must_use]
    pub fn at(mut self, find: impl FnOnce(&str) -> Place) -> Self {
        if let Self::BadValue { place, key, .. } = &mut self {
            *place = find(key);
        }
        self
    }
}
