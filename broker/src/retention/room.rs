//! Whether new messages may come in: the disk's marks, and the log's own room.
//!
//! The log and the index say at once when they get no room, see [`Full`]. This look notices that there is room again, and
//! refuses in time, before the disk is full to the last byte.

use super::Keeper;
use crate::shard::Full;
use crate::terms::DiskUse;

/// One look. Blocks: it may create a file.
pub(super) fn look(keeper: &Keeper) {
    let intake = keeper.shard.intake();
    match DiskUse::of(keeper.shard.index().path()) {
        Ok(disk) => {
            let percent = disk.percent();
            keeper.retention.disk_used_percent.set(u64::from(percent));
            let (soft, mark) = (keeper.config.load().disk_max_used_percent, keeper.config.load().disk_full_percent);
            keeper.retention.warn(percent, soft);
            let full = percent > mark;
            if intake.set_full(Full::Mark, full) {
                if full {
                    tracing::error!(
                        event = "disk_full",
                        percent,
                        mark,
                        "disk full: new messages are refused; decisions and reads go on"
                    );
                } else {
                    tracing::info!(event = "disk_has_room", percent, "the disk has room again");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot ask how full the disk is"),
    }
    if intake.is_full(Full::Log) && keeper.shard.replenish_log() && intake.set_full(Full::Log, false) {
        tracing::info!("the log has room again");
    }
}
