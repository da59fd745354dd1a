//! Log, index and disk.

use std::sync::atomic::Ordering;

use escrowmq_common::monitoring::Families;

use super::Monitor;
use crate::latch::Failure;
use crate::terms::Stamp;

pub(super) fn collect(families: &mut Families<'_>, monitor: &Monitor) {
    let (log, intake) = (monitor.shard.log(), monitor.shard.intake());
    let (counters, retention, config) = (monitor.shard.counters(), &monitor.retention, monitor.config.load());
    for (name, help, value) in [
        ("escrowmq_topics", "Topics.", monitor.shard.topics().len() as u64),
        ("escrowmq_queues", "Queues of all topics.", monitor.shard.topics().queue_count()),
        ("escrowmq_groups", "Consumer groups.", monitor.shard.groups().len() as u64),
        ("escrowmq_timers", "Messages that wait for their time.", counters.timers()),
        ("escrowmq_entries_quarantined", "Entries of the log that are set aside.", monitor.shard.quarantined()),
        ("escrowmq_intake_bytes", "Bytes accepted and not yet applied.", intake.bytes()),
        ("escrowmq_log_first_position_bytes", "Log position of the oldest kept byte.", log.first_position().get()),
        ("escrowmq_log_end_position_bytes", "Log position behind the newest byte.", log.end().get()),
        (
            "escrowmq_log_durable_position_bytes",
            "Log position up to which bytes are on the device.",
            log.durable_end().get(),
        ),
        (
            "escrowmq_applied_position_bytes",
            "Log position up to which the state is applied.",
            counters.applied_end().get(),
        ),
        (
            "escrowmq_log_pinned_bytes",
            "Bytes of log that would go if half messages and waiting ones did not need some of them.",
            retention.pinned_bytes.get(),
        ),
        (
            "escrowmq_clock_alarm",
            "1 while the wall clock is more than a minute away from the broker's time, or a leader's was ahead of its group's.",
            u64::from(monitor.time.is_alarmed()),
        ),
        ("escrowmq_disk_full", "1 while new messages are refused for want of room.", u64::from(intake.is_disk_full())),
    ] {
        families.gauge(name, help, value);
    }
    for (name, help, percent) in [
        (
            "escrowmq_disk_used_ratio",
            "Part of the disk with the data folder that is in use.",
            retention.disk_used_percent.get(),
        ),
        (
            "escrowmq_disk_soft_mark_ratio",
            "Use of the disk above which a warning is logged: diskMaxUsedSpaceRatio.",
            config.disk_max_used_percent.into(),
        ),
        (
            "escrowmq_disk_clean_mark_ratio",
            "Use of the disk above which the oldest messages go before their time: diskSpaceCleanForciblyRatio.",
            config.disk_clean_percent.into(),
        ),
        (
            "escrowmq_disk_hard_mark_ratio",
            "Use of the disk above which new messages are refused: diskSpaceWarningLevelRatio.",
            config.disk_full_percent.into(),
        ),
    ] {
        families.gauge(name, help, percent as f64 / 100.0);
    }
    families.gauge(
        "escrowmq_backup_prepared_timestamp_seconds",
        "When the newest backup was prepared, in seconds since 1970; 0 if none was since the start.",
        monitor.backups.newest().map_or(0, Stamp::get) as f64 / 1e3,
    );
    for (name, help, count) in [
        (
            "escrowmq_messages_lost_ever_total",
            "Messages that operators have given up because their bytes are lost, since the data folder was made.",
            monitor.shard.lost().messages(),
        ),
        (
            "escrowmq_commands_refused_total",
            "Commands of the log that could not be carried out.",
            counters.refused_commands.load(Ordering::Relaxed),
        ),
        (
            "escrowmq_batches_unencodable_total",
            "Batches that did not read back and were not stored: each is a fault of the broker.",
            intake.unencodable(),
        ),
        ("escrowmq_disk_full_refusals_total", "Messages refused for want of room.", intake.refused_full()),
        ("escrowmq_log_trimmed_bytes_total", "Bytes of log files that went.", retention.trimmed_bytes.get()),
        (
            "escrowmq_log_moved_bytes_total",
            "Bytes of half messages and waiting ones that were written anew.",
            retention.moved_bytes.get(),
        ),
    ] {
        families.counter(name, help, count);
    }
    families.histograms("escrowmq_log_flush_seconds", "Time that flushes of the log took.", |samples| {
        samples.histogram(&[], log.flushes());
    });
    let durations = monitor.shard.durations();
    families.histograms("escrowmq_index_flush_seconds", "Time that flushes of the index took.", |samples| {
        samples.histogram(&[], &durations.index_flush);
    });
    let help = "Time of commands (messages, decisions, offsets) in each phase of the write path. Each has the time of its batch.";
    families.histograms("escrowmq_write_seconds", help, |samples| {
        for (phase, times) in [
            ("queued", &durations.queued),
            ("flush", &durations.flush),
            ("apply", &durations.apply),
            ("answer", &durations.answer),
        ] {
            samples.histogram(&[("phase", phase)], times);
        }
    });
    failure(families, intake.latch().failure());
}

/// Whether the store failed; if so also the first failure, and where it was seen.
fn failure(families: &mut Families<'_>, failure: Option<&Failure>) {
    families.gauge("escrowmq_store_failed", "1 after the store failed, until a restart.", u64::from(failure.is_some()));
    let help = "1, with the first failure: the operation, or the promise that does not hold, and where.";
    families.gauges("escrowmq_store_failure_info", help, |samples| {
        let Some(failure) = failure else { return };
        let (entry, position) = failure.place();
        let entry = entry.map(|entry| entry.to_string()).unwrap_or_default();
        let position = position.map(|position| position.to_string()).unwrap_or_default();
        let what = failure.what();
        samples.gauge(&[("what", what), ("entry", &entry), ("position", &position)], 1_u64);
    });
}

#[cfg(test)]
mod tests {
    use escrowmq_common::monitoring::text;

    use super::*;
    use crate::latch::{FailureLatch, Promise};
    use crate::terms::{LogIndex, Position};

    #[test]
    fn a_broken_promise_is_named_with_its_place() {
        let latch = FailureLatch::default();
        latch.broken(Promise::StampsRise, Some(LogIndex(7)), Some(Position(90)), "4 after 5".to_owned());
        let page = text(move |families| failure(families, latch.failure()));
        let line = "escrowmq_store_failure_info{what=\"P5: stamps do not fall\",entry=\"7\",position=\"90\"} 1\n";
        assert!(page.contains("escrowmq_store_failed 1\n") && page.ends_with(line), "{page}");
    }
}
