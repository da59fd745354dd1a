//! Why there is no such topic or group.

use super::bounds::TooMany;
use crate::shard::{Outcome, Refusal, SubmitError};

/// Why there is no such topic or group.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CreationError {
    /// Groups are not created automatically, or not under this name.
    #[error("subscription group not exist, {0}")]
    NoGroup(String),
    /// The command has no outcome.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There are as many as there may be, or the client makes them too fast.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Too many requests wait for it.
    #[error("{0} is being created, and too many requests wait for that: nothing was stored, try again")]
    Crowded(String),
    /// Deleted again before anybody saw it.
    #[error("{0} was deleted while it was created")]
    Gone(String),
}

/// The result of a command that settings are changed by: it has no other outcome than that it is done.
pub(crate) fn done(outcome: Result<Outcome, SubmitError>) -> Result<(), CreationError> {
    match outcome? {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Published(_)
        | Outcome::Prepared(_)
        | Outcome::Settled(_)
        | Outcome::Locked(_)
        | Outcome::Handled(_) => unreachable!("settings commands are done or refused"),
    }
}
