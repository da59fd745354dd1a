//! Work that only the leader of the group does: its commands would come twice if every member proposed them.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;
use tokio::sync::watch;

use super::{Phase, background};
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::forward::Office;
use crate::raft::Leadership;
use crate::registration::Standing;
use crate::server::topics;

/// Between looks whether the lease holds.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What nameservers are told of this member: a leader is broker 0, another member has its seat's number and one.
pub(super) fn standing(config: &BrokerConfig, seen: Leadership) -> Standing {
    let follower = config.group().filter(|group| group.seats.count() > 1).map(|group| group.own.follower_id());
    match (seen, follower) {
        (Leadership::Following { term, .. }, Some(id)) => Standing { term, id },
        _ => Standing::leader(seen.term()),
    }
}

/// Starts the work when this member begins to lead, and stops it when it ceases to, until shutdown or until the member ends.
pub(super) async fn run(
    broker: Arc<Broker>,
    office: Arc<Office>,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: Shutdown,
) {
    loop {
        broker.registration.stands(standing(&broker.config(), *leadership.borrow()));
        let leads = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            leads = leadership.wait_for(|seen| matches!(seen, Leadership::Leading { .. })) => leads.map(|seen| *seen),
        };
        // The member has ended.
        let Ok(leads) = leads else { return };
        // The only member of its group took up its office when it started.
        if !office.is_held() {
            // What an earlier leadership left behind is older than what others have done since.
            broker.delivery.offsets.forget();
            if !prepare(&broker).await {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => continue,
                }
            }
            office.take_up();
        }
        broker.registration.stands(standing(&broker.config(), leads));
        let phase = Phase::default();
        let spawn = &phase.tasks;
        spawn.spawn("check-back", background::check_backs(&broker).run(phase.shutdown.clone()));
        spawn.spawn("timers", background::timers(&broker).run(phase.shutdown.clone()));
        spawn.spawn("expiry", background::expiry(&broker).run(phase.shutdown.clone()));
        spawn.spawn("unused groups", background::unused_groups(&broker).run(phase.shutdown.clone()));
        spawn.spawn("lease", release_without_lease(Arc::clone(&broker), Arc::clone(&office), phase.shutdown.clone()));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = leadership.wait_for(|seen| *seen != leads) => tracing::info!("no longer the leader: its work stops"),
        }
        phase.stop().await;
        if shutdown.is_cancelled() {
            return;
        }
        if broker.group.is_alone() {
            // The store has failed. Reads go on, and nobody else could answer anything.
            continue;
        }
        office.lay_down();
        broker.delivery.offsets.forget();
        broker.delivery.holds.release(&broker.delivery);
    }
}

/// Makes the topics that every broker has. Says whether it led for long enough.
async fn prepare(broker: &Arc<Broker>) -> bool {
    let created = topics::create_system_topics(broker).await;
    if let Err(error) = &created {
        tracing::warn!(%error, "the system topics are not there yet");
    }
    created.is_ok()
}

/// A leader that hears from no majority answers the pulls that it holds: another may lead by now, and their clients ask again.
async fn release_without_lease(broker: Arc<Broker>, office: Arc<Office>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !office.is_held() {
            broker.delivery.holds.release(&broker.delivery);
        }
    }
}
