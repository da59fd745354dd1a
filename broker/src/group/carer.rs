//! Carries out the changes that a leader makes to the members of its group; `care` and `orders` decide about them.

use std::collections::BTreeSet;

use super::care::{Admission, Care, admit, care, closing};
use super::orders::{self, OrderError};
use crate::config::{Seat, Seats};
use crate::raft::{Member, Members};
use crate::shard::Applier;

/// See the module. Nothing is remembered: another leader goes on from the membership alone.
pub(crate) struct Carer<'a> {
    /// This member's id.
    pub(crate) own: u64,
    /// This member's seat.
    pub(crate) own_seat: &'a Seat,
    /// Its `dLegerPeers`.
    pub(crate) seats: &'a Seats,
    /// The member.
    pub(crate) member: &'a Member<Applier>,
}

impl Carer<'_> {
    fn leads(&self) -> bool {
        self.member.leadership().borrow().led().is_some()
    }

    fn members(&self) -> Members {
        self.member.members().borrow().clone()
    }

    /// Does what a leader has to do; says whether there is more to do soon.
    pub(crate) async fn care(&self) -> bool {
        if !self.leads() {
            return false;
        }
        let Some((last, progress)) = self.member.progress() else { return true };
        let members = self.members();
        let done = match care(self.own, self.own_seat, self.seats, &members, last, &progress) {
            Care::Nothing => return false,
            Care::Watch => return true,
            Care::SetAddress(node, address) => self.member.set_address(node, &address).await,
            Care::Voters(voters) => {
                tracing::info!(?voters, before = ?members.voters, "changing the voters of the group");
                self.member.replace_voters(voters).await
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the members of the group were not changed; it is tried again");
        }
        true
    }

    /// Takes the empty member `node`, which asks for the seat of its address. `removed` are ids that are members no more. An error
    /// says why it is not a member yet, for good or for now.
    pub(crate) async fn take(&self, node: u64, seat: &Seat, address: &str, removed: &[u64]) -> Result<(), String> {
        let (true, Some((_, progress))) = (self.leads(), self.member.progress()) else {
            return Err("this member does not lead".to_owned());
        };
        let members = self.members();
        let lost = match admit(node, seat, self.seats, &members, removed, &progress) {
            // Until it is, another leader may not know of it.
            Admission::Taken if members.is_committed => return Ok(()),
            Admission::Taken => return Err("a change of the members is under way".to_owned()),
            Admission::No(why) => return Err(why),
            Admission::Take(lost) => lost,
        };
        if !lost.is_empty() {
            self.member.remove_learners(lost).await.map_err(|error| error.to_string())?;
        }
        self.member.add_learner(node, address).await.map_err(|error| error.to_string())?;
        tracing::info!(node, %seat, "a member joins the group; it votes when it has caught up");
        Ok(())
    }

    /// Takes the empty member `node` at a seat that is not in the group, as an operator asks.
    pub(crate) async fn add(&self, node: u64, seat: &Seat) -> Result<(), OrderError> {
        orders::add(seat, &self.members())?;
        Ok(self.member.add_learner(node, &seat.to_string()).await?)
    }

    /// Lets the members of a seat go, as an operator asks. Says which voters stay, if a voter went.
    pub(crate) async fn remove(&self, seat: &str) -> Result<Option<BTreeSet<u64>>, OrderError> {
        let (true, Some((_, progress))) = (self.leads(), self.member.progress()) else {
            return Err(OrderError::NotLeading);
        };
        let members = self.members();
        let removal = orders::remove(self.own, seat, &members, &progress)?;
        // First, so that the seat does not come back by itself.
        if let Some((node, address)) = closing(&members) {
            self.member.set_address(node, &address).await?;
        }
        if !removal.learners.is_empty() {
            self.member.remove_learners(removal.learners).await?;
        }
        if let Some(voters) = &removal.voters {
            self.member.replace_voters(voters.clone()).await?;
        }
        Ok(removal.voters)
    }
}
