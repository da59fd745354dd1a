//! Work that only the leader of the group does: its commands would come twice if every member proposed them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::watch;

use super::background;
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::raft::{Leadership, Office};
use crate::registration::Standing;
use crate::server::topics;
use crate::shard::Shard;

/// Between looks whether the lease is back, and between tries to prepare.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between looks at a lease that nobody else can end.
const LOOK_SELDOM: Duration = Duration::from_secs(60);

/// The acts of a member when it begins to lead, while it leads, and when it ceases to. The group's simulation has others than a
/// broker.
pub(crate) trait Duties: Send + Sync + 'static {
    /// Where commands go.
    fn shard(&self) -> &Shard;

    /// Tells others how this member stands.
    fn stands(&self, seen: Leadership);

    /// Forgets what only a leader remembers: another one has newer values, or will have.
    fn forget(&self);

    /// Makes what every leader needs. Says whether it is there; if not, it is tried again.
    fn prepare(&self) -> impl Future<Output = bool> + Send;

    /// Starts the work of a leader, before this returns. The future is ready when all of it has stopped, which it does after
    /// `shutdown`.
    fn work(&self, shutdown: Shutdown) -> impl Future<Output = ()> + Send + 'static;

    /// Answers the requests that are held: this member may not lead any more.
    fn release(&self);

    /// Whether there are no other members.
    fn is_alone(&self) -> bool;
}

/// Starts the work when this member begins to lead, and stops it when it ceases to, until shutdown or until the member ends.
pub(crate) async fn run(
    duties: Arc<impl Duties>,
    office: Arc<Office>,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: Shutdown,
) {
    loop {
        let seen = *leadership.borrow();
        // A leader stands as one when it is prepared.
        if !matches!(seen, Leadership::Leading { .. }) {
            duties.stands(seen);
        }
        let leads = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            leads = leadership.wait_for(|seen| matches!(seen, Leadership::Leading { .. })) => leads.map(|seen| *seen),
        };
        // The member has ended.
        let Ok(leads) = leads else { return };
        // The only member of its group took up its office when it started.
        if !office.is_held_in(leads.term()) {
            // What an earlier leadership left behind is older than what others have done since.
            duties.forget();
            let executor = duties.shard().executor();
            let prepared = async {
                // Raft says that this member leads a moment before its commands are taken.
                duties.shard().intake().takes().await;
                while !duties.prepare().await {
                    executor.sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = leadership.wait_for(|seen| *seen != leads) => continue,
                () = prepared => {}
            }
            office.take_up(leads.term());
            tracing::info!(event = "leading", term = leads.term(), "this member leads");
        }
        duties.stands(leads);
        let stop = Shutdown::new();
        let work = duties.work(stop.clone());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = leadership.wait_for(|seen| *seen != leads) => {
                tracing::info!(event = "leading_ended", "no longer the leader: its work stops");
            }
        }
        stop.cancel();
        // Alone: the store has failed. Reads go on, and nobody else could answer anything.
        let is_deposed = !shutdown.is_cancelled() && !duties.is_alone();
        if is_deposed {
            office.lay_down();
            // Clients do not wait for the work.
            duties.release();
        }
        work.await;
        if shutdown.is_cancelled() {
            return;
        }
        if is_deposed {
            duties.forget();
            // The work may have opened the holds a moment before it stopped.
            duties.release();
        }
    }
}

/// What nameservers are told of this member: a leader is broker 0, another member has its seat's number and one.
pub(super) fn standing(config: &BrokerConfig, seen: Leadership) -> Standing {
    let follower = config.group().filter(|group| group.seats.count() > 1).map(|group| group.own.follower_id());
    match (seen, follower) {
        (Leadership::Following { term, .. }, Some(id)) => Standing { term, id },
        _ => Standing::leader(seen.term()),
    }
}

/// The duties of a broker.
pub(super) struct Leader {
    pub(super) broker: Arc<Broker>,
    pub(super) office: Arc<Office>,
}

impl Duties for Leader {
    fn shard(&self) -> &Shard {
        &self.broker.shard
    }

    fn stands(&self, seen: Leadership) {
        self.broker.registration.stands(standing(&self.broker.config(), seen));
    }

    fn forget(&self) {
        self.broker.delivery.offsets.forget();
    }

    /// Makes the topics that every broker has.
    async fn prepare(&self) -> bool {
        let created = topics::create_system_topics(&self.broker).await;
        if let Err(error) = &created {
            tracing::warn!(%error, "the system topics are not there yet");
        }
        created.is_ok()
    }

    fn work(&self, shutdown: Shutdown) -> impl Future<Output = ()> + Send + 'static {
        let (broker, office, tasks) = (&self.broker, Arc::clone(&self.office), Tasks::new());
        broker.delivery.holds.open();
        tasks.spawn("check-back", background::check_backs(broker, &office).run(shutdown.clone()));
        tasks.spawn("timers", background::timers(broker).run(shutdown.clone()));
        tasks.spawn("expiry", background::expiry(broker).run(shutdown.clone()));
        tasks.spawn("unused groups", background::unused_groups(broker).run(shutdown.clone()));
        tasks.spawn("lease", release_without_lease(Arc::clone(broker), office, shutdown));
        async move { tasks.join().await }
    }

    fn release(&self) {
        self.broker.delivery.holds.release(&self.broker.delivery);
    }

    fn is_alone(&self) -> bool {
        self.broker.group.is_alone()
    }
}

/// A leader that hears from no majority answers the pulls that it holds when its lease ends, and holds none before it is back: another
/// may lead by now, and their clients ask again.
async fn release_without_lease(broker: Arc<Broker>, office: Arc<Office>, shutdown: Shutdown) {
    let holds = &broker.delivery.holds;
    let mut is_lost = false;
    loop {
        let left = office.left();
        let look_in = if left > Duration::ZERO {
            if is_lost {
                holds.open();
            }
            left.min(LOOK_SELDOM)
        } else {
            holds.release(&broker.delivery);
            LOOK_EVERY
        };
        is_lost = left == Duration::ZERO;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(look_in) => {}
        }
    }
}
