//! The settings of the group, put in force on this member as they are applied.

use std::sync::Arc;

use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::config::CurrentConfig;
use crate::group::Group;
use crate::server::settings::follow;
use crate::shard::Shard;

/// The settings of a start: a member's are those of its group, as far as its log says; a broker alone has its own.
pub(super) fn begin(config: &CurrentConfig, group: &Group, shard: &Shard) {
    let agreed = shard.agreed();
    if !group.is_alone() {
        group.take_settings(config.clone());
        config.follow(|| agreed.settings.clone());
        return;
    }
    let unlike = config.own().unlike(&agreed.settings);
    if !unlike.is_empty() {
        let keys = unlike.join(",");
        tracing::warn!(keys, "this broker was a member of a group with other settings; alone, those of its file count");
    }
}

/// Follows each change, until shutdown.
pub(super) async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    let mut agreement = broker.shard.watch_agreed();
    loop {
        follow(&broker);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = agreement.changed() => if changed.is_err() { return },
        }
    }
}
