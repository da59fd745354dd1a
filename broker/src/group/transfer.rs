//! A hand-over of the leadership that an operator waits for.

use std::time::Duration;

use escrowmq_common::clock;

use super::Inner;
use super::status::{self, HandOverError, Leader};
use crate::raft::Leadership;

/// A hand-over is done within milliseconds. One that nobody takes ends after a second, with an election.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The leadership went over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transferred {
    /// The seat that leads now.
    pub(crate) seat: String,
    /// How long it took until this member knew it.
    pub(crate) took: Duration,
}

/// Why the leadership did not go where it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// Only the leader can. A retry at the leader is safe.
    #[error("this member does not lead the group; nothing was done, ask the leader")]
    NotLeading,
    /// Others are under way. A retry is safe.
    #[error("the group is being looked at or handed over already; nothing was done, try again")]
    Busy,
    /// There is nobody to lead.
    #[error("{0}")]
    Nobody(HandOverError),
    /// The member has ended.
    #[error("{0}")]
    Ended(HandOverError),
    /// The member that leads it now is not the one that was asked. A retry is safe.
    #[error("'{asked}' did not take the leadership over, and '{leads}' leads after an election; a retry is safe")]
    Other {
        /// The seat that was asked.
        asked: String,
        /// The seat that leads.
        leads: String,
    },
    /// Nobody leads yet.
    #[error("'{asked}' was asked to lead, and nobody leads yet: look at `escrowmq group status` before trying again")]
    Unknown {
        /// The seat that was asked.
        asked: String,
    },
}

impl From<HandOverError> for TransferError {
    fn from(error: HandOverError) -> Self {
        match error {
            HandOverError::NotLeading => Self::NotLeading,
            HandOverError::Nobody { .. } => Self::Nobody(error),
            HandOverError::Ended(_) => Self::Ended(error),
        }
    }
}

pub(super) async fn transfer(inner: &Inner, to: Option<&str>) -> Result<Transferred, TransferError> {
    let mut leadership = inner.member.leadership();
    let Some(term) = leadership.borrow().led() else { return Err(TransferError::NotLeading) };
    let began = clock::monotonic();
    let Leader { node, seat: asked, .. } = status::hand_over(inner, to).await?;
    let settled =
        leadership.wait_for(|seen| seen.term() > term && !matches!(seen, Leadership::Following { leader: None, .. }));
    let settled = tokio::time::timeout(PATIENCE, settled).await.ok().and_then(Result::ok).map(|seen| *seen);
    let leads = match settled {
        None | Some(Leadership::Following { leader: None, .. }) => return Err(TransferError::Unknown { asked }),
        Some(Leadership::Following { leader: Some(leader), .. }) if leader == node => {
            let took = clock::monotonic().saturating_sub(began);
            tracing::info!(seat = asked, ?took, "an operator has handed the leadership over");
            return Ok(Transferred { seat: asked, took });
        }
        Some(Leadership::Following { leader: Some(leader), .. }) => leader,
        Some(Leadership::Leading { .. }) => inner.node,
    };
    let member = status::status(inner).members.into_iter().find(|member| member.node == leads);
    let leads = member.map_or_else(|| format!("node {leads}"), |member| member.seat);
    Err(TransferError::Other { asked, leads })
}
