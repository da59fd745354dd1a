//! Work that only the leader of the group does: its commands would come twice if every member proposed them.

use std::sync::Arc;

use escrowmq_common::task::Shutdown;
use tokio::sync::watch;

use super::{Phase, background};
use crate::broker::Broker;
use crate::raft::Leadership;
use crate::registration::Standing;

/// What nameservers are told of this member.
pub(super) fn standing(seen: Leadership) -> Standing {
    match seen {
        Leadership::Leading { term } => Standing::leader(term),
        // No member follows another one yet; before its first leadership it has no term to tell.
        Leadership::Following { .. } => Standing::leader(0),
    }
}

/// Starts the work when this member begins to lead, and stops it when it ceases to, until shutdown or until the member ends.
pub(super) async fn run(broker: Arc<Broker>, mut leadership: watch::Receiver<Leadership>, shutdown: Shutdown) {
    loop {
        let leads = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            leads = leadership.wait_for(|seen| matches!(seen, Leadership::Leading { .. })) => leads.map(|seen| *seen),
        };
        // The member has ended.
        let Ok(leads) = leads else { return };
        broker.registration.stands(standing(leads));
        let phase = Phase::default();
        let spawn = &phase.tasks;
        spawn.spawn("check-back", background::check_backs(&broker).run(phase.shutdown.clone()));
        spawn.spawn("timers", background::timers(&broker).run(phase.shutdown.clone()));
        spawn.spawn("expiry", background::expiry(&broker).run(phase.shutdown.clone()));
        spawn.spawn("unused groups", background::unused_groups(&broker).run(phase.shutdown.clone()));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = leadership.wait_for(|seen| *seen != leads) => tracing::info!("no longer the leader: its work stops"),
        }
        phase.stop().await;
    }
}
