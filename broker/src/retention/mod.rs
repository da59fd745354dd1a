//! What happens as the disk fills up: who is refused, and what goes.
//!
//! Promises: a full disk refuses new messages with an error that clients try again after, and nothing else; decisions,
//! offsets and trims have a reserve; as soon as there is room again messages are taken again, by itself.

mod disk;
mod room;

pub use disk::DiskUse;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::metrics::Count;

/// Between looks.
const EVERY: Duration = Duration::from_secs(1);

/// What is known of room and age, for metrics and for decisions on old halves.
#[derive(Debug, Default)]
pub struct Retention {
    /// Percent of the disk in use, as of the last look.
    pub disk_used_percent: Count,
}

/// Looks every second until shutdown.
pub async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    loop {
        let looker = Arc::clone(&broker);
        // A panic is logged by whoever spawned it; the next look is in a second.
        let _ = broker.tasks.spawn_blocking("disk", move || room::look(&looker)).await;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
