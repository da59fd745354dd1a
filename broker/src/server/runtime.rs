//! The running figures that tools show: one table of texts under the names that they look for.
//!
//! Names of things that do not exist here (page cache locks, transient buffers) are answered with what a healthy broker
//! says, because tools parse them without asking.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::KvTable;
use escrowmq_common::frame::Frame;

use super::answer::json_slowly;
use crate::broker::Broker;
use crate::group::Role;
use crate::raft::kind;
use crate::reply::Reply;
use crate::shard::Batch;
use crate::stats;
use crate::terms::{DiskUse, Stamp};

/// The name of the protocol version in every response: the release whose broker this one can replace.
const VERSION_NAME: &str = "V5_3_3";

/// Records that are looked at for the time of the oldest batch.
const OLDEST_RECORDS: u64 = 16;

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "runtime info", request, reply, |broker, _| Ok(KvTable { table: table(broker) }));
}

/// A table under construction.
#[derive(Default)]
struct Figures(BTreeMap<String, String>);

impl Figures {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.insert(name.to_owned(), format!("{value}"));
    }
}

fn table(broker: &Broker) -> BTreeMap<String, String> {
    let mut figures = Figures::default();
    let now = broker.now();
    put_identity(&mut figures, broker, now);
    put_traffic(&mut figures, broker, now);
    put_store(&mut figures, broker);
    put_queues(&mut figures);
    put_group(&mut figures, broker);
    figures.0
}

fn put_identity(figures: &mut Figures, broker: &Broker, now: Stamp) {
    let began = broker.stats.began();
    figures.put("brokerActive", true);
    figures.put("brokerVersion", escrowmq_common::frame::WIRE_VERSION);
    figures.put("brokerVersionDesc", VERSION_NAME);
    figures.put("bootTimestamp", began);
    // For tools that compare the clocks of a cluster.
    figures.put("wallClockMillis", broker.clock.wall_ms());
    figures.put("startAcceptSendRequestTimeStamp", 0);
    figures.put("runtime", in_days(now.since(began) / 1000));
}

/// As tools show it: `[ 1 days, 2 hours, 3 minutes, 4 seconds ]`.
fn in_days(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("[ {} days, {} hours, {} minutes, {} seconds ]", hours / 24, hours % 24, minutes % 60, seconds % 60)
}

fn put_traffic(figures: &mut Figures, broker: &Broker, now: Stamp) {
    let totals = stats::Totals::of(&broker.metrics);
    let rates = broker.stats.rates(now, totals);
    let metrics = &broker.metrics;
    let bytes = metrics.bytes_in.get();
    figures.put("msgPutTotalYesterdayMorning", rates.yesterday_morning.0);
    figures.put("msgPutTotalTodayMorning", rates.this_morning.0);
    figures.put("msgPutTotalTodayNow", totals.put);
    figures.put("msgGetTotalYesterdayMorning", rates.yesterday_morning.1);
    figures.put("msgGetTotalTodayMorning", rates.this_morning.1);
    figures.put("msgGetTotalTodayNow", totals.got);
    figures.put("putTps", rates.put);
    figures.put("getFoundTps", rates.found);
    figures.put("getMissTps", rates.missed);
    let total = stats::Rates(std::array::from_fn(|at| rates.found.0[at] + rates.missed.0[at]));
    figures.put("getTotalTps", total);
    figures.put("getTransferredTps", rates.got);
    // As releases before 5.0 spell it.
    figures.put("getTransferedTps", rates.got);
    figures.put("putMessageTimesTotal", totals.put);
    figures.put("putMessageSizeTotal", bytes);
    figures.put("putMessageAverageSize", if totals.put == 0 { 0.0 } else { bytes as f64 / totals.put as f64 });
}

fn put_store(figures: &mut Figures, broker: &Broker) {
    let shard = &broker.shard;
    let log = shard.log();
    let counters = shard.counters();
    let (first, end) = (log.first_position(), log.end());
    figures.put("commitLogMinOffset", first);
    figures.put("commitLogMaxOffset", end);
    figures.put("dispatchBehindBytes", end.since(counters.applied_end()));
    figures.put("remainHowManyDataToFlush", format!("{} B", end.since(log.durable_end())));
    figures.put("earliestMessageTimeStamp", oldest_stamp(broker).map_or(-1, Stamp::signed));
    figures.put("pageCacheLockTimeMills", 0);
    let folder = broker.config().data_folder();
    let disk = DiskUse::of(&folder).unwrap_or(DiskUse { used: 0, free: 0 });
    let total = disk.used.saturating_add(disk.free);
    figures.put("commitLogDirCapacity", format!("Total : {}, Free : {}.", in_gib(total), in_gib(disk.free)));
    figures.put("commitLogDiskRatio", disk.ratio());
    figures.put("consumeQueueDiskRatio", disk.ratio());
    figures.put("timerReadBehind", 0);
    figures.put("timerOffsetBehind", 0);
    figures.put("timerCongestNum", counters.timers());
    figures.put("timerEnqueueTps", 0.0_f64);
    figures.put("timerDequeueTps", 0.0_f64);
    figures.put("openHalfMessages", counters.open_halves());
    figures.put("parkedHalfMessages", counters.parked_halves());
}

/// Requests are handled where they come in: nothing waits in front of a pool.
fn put_queues(figures: &mut Figures) {
    for pool in ["send", "pull", "litePull", "query", "ack", "heartbeat"] {
        figures.put(&format!("{pool}ThreadPoolQueueSize"), 0);
        figures.put(&format!("{pool}ThreadPoolQueueCapacity"), 0);
        figures.put(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), 0);
    }
    figures.put("EndTransactionQueueSize", 0);
    figures.put("EndTransactionThreadPoolQueueCapacity", 0);
}

/// What this member is to its group, and what it lacks. A broker that is alone has no such rows.
fn put_group(figures: &mut Figures, broker: &Broker) {
    if broker.group.is_alone() {
        return;
    }
    let (status, group) = (broker.group.status(), broker.group.figures());
    let own = status.members.iter().find(|member| member.node == status.node);
    let role = match own.map(|member| member.role) {
        Some(Role::Leader) => "leader",
        Some(Role::Voter) => "voter",
        Some(Role::Learner) => "learner",
        None => "no member",
    };
    figures.put("groupRole", role);
    figures.put("groupTerm", status.term);
    figures.put("groupLagEntries", group.reach.group_committed.get().saturating_sub(group.reach.applied.get()));
    figures.put("groupMajoritySilenceMillis", group.majority_silence.as_millis());
}

/// The stamp of the oldest batch in the log. Reads a file.
fn oldest_stamp(broker: &Broker) -> Option<Stamp> {
    let log = broker.shard.log();
    let first = log.first_index();
    let records = log.read_entries(first, first + OLDEST_RECORDS, 1 << 20).ok()?;
    // Records that are no batches are the business of the replication group.
    records
        .iter()
        .filter(|record| record.kind == kind::BATCH)
        .find_map(|record| Batch::decode(&record.payload).ok())
        .map(|batch| batch.stamp)
}

fn in_gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_reads_as_tools_show_it() {
        assert_eq!(in_days(0), "[ 0 days, 0 hours, 0 minutes, 0 seconds ]");
        assert_eq!(in_days(86_400 + 2 * 3600 + 3 * 60 + 4), "[ 1 days, 2 hours, 3 minutes, 4 seconds ]");
    }

    #[test]
    fn sizes_are_shown_in_gib() {
        assert_eq!(in_gib(3 << 29), "1.5 GiB");
    }
}
