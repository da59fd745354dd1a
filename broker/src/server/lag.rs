//! How far groups are behind: in time, and all of them at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::{BrokerConsumeStats, ConsumeTimeSpan, ConsumeTimeSpanBody};
use escrowmq_common::calendar::CalendarTime;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetBrokerConsumeStatsHeader, GroupTopicHeader};

use super::answer::{json_slowly, no_topic};
use super::progress;
use super::stats::consume_stats_of;
use crate::broker::Broker;
use crate::reply::{Refused, Reply};
use crate::shard::Queue;
use crate::terms::QueueOffset;

/// Most groups of one answer.
const GROUPS_MAX: usize = 10_000;

/// For each queue of a topic: its first and last message's time, and the time of the last one consumed.
pub(super) fn time_spans(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "time spans", request, reply, |broker, request| {
        let asked: GroupTopicHeader<'_> = request.header()?;
        let topic = broker.shard.topics().get(asked.topic).ok_or_else(|| no_topic(asked.topic))?;
        let spans: Result<Vec<_>, Refused> =
            progress::queues(&topic).map(|queue| time_span(broker, asked.group, queue)).collect();
        Ok(ConsumeTimeSpanBody { consume_time_span_set: spans? })
    });
}

fn time_span(broker: &Broker, group: &str, queue: &Queue) -> Result<ConsumeTimeSpan, Refused> {
    let (min, max) = (queue.min_offset(), queue.max_offset());
    let time = |offset: QueueOffset| progress::store_time(broker, queue, offset).map(|time| time.unwrap_or(-1));
    let first = time(min)?;
    let last = max.previous().map_or(Ok(-1), time)?;
    let consumed = progress::offset(broker, group, queue)?.unwrap_or(QueueOffset::ZERO);
    let consumed_time = consumed.previous().map_or(Ok(first), time)?;
    let delay = if consumed < max {
        let waiting_since = time(consumed.max(min))?;
        (broker.now().signed() - waiting_since).max(0)
    } else {
        0
    };
    Ok(ConsumeTimeSpan {
        consume_time_stamp: consumed_time,
        consume_time_stamp_str: Some(readable(consumed_time)),
        delay_time: delay,
        max_time_stamp: last,
        max_time_stamp_str: Some(readable(last)),
        message_queue: progress::name_of(broker, queue),
        min_time_stamp: first,
        min_time_stamp_str: Some(readable(first)),
    })
}

/// A time as tools show it, UTC: `2026-11-20#21:14:09:770`.
fn readable(millis: i64) -> String {
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(millis);
    format!("{year:04}-{month:02}-{day:02}#{hour:02}:{minute:02}:{second:02}:{millis:03}")
}

/// How far all groups are behind, those that consume in order or the others.
pub(super) fn of_all(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "lag of all groups", request, reply, |broker, request| {
        let is_order = request.header::<GetBrokerConsumeStatsHeader>()?.is_order;
        let mut all = BrokerConsumeStats { broker_addr: Some(broker.address.clone()), ..Default::default() };
        let mut groups = broker.shard.groups().all();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups.retain(|group| group.consume_message_orderly == is_order);
        for group in groups.iter().take(GROUPS_MAX) {
            let mut of_group = Vec::new();
            for topic in progress::topics_of(broker, &group.name)? {
                let stats = consume_stats_of(broker, &group.name, &topic)?;
                for offset in stats.offset_table.values() {
                    all.total_diff += offset.broker_offset - offset.consumer_offset;
                    all.total_inflight_diff += offset.pull_offset - offset.consumer_offset;
                }
                of_group.push(stats);
            }
            all.consume_stats_list.push(BTreeMap::from([(group.name.clone(), of_group)]));
        }
        Ok(all)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_tools_show_them() {
        assert_eq!(readable(1_795_209_249_770), "2026-11-20#21:14:09:770");
        assert_eq!(readable(0), "1970-01-01#00:00:00:000");
        assert_eq!(readable(-1), "1969-12-31#23:59:59:999");
        assert_eq!(readable(951_782_400_000), "2000-02-29#00:00:00:000");
        assert_eq!(readable(951_868_800_000), "2000-03-01#00:00:00:000");
        assert_eq!(readable(4_107_542_399_000), "2100-02-28#23:59:59:000");
    }
}
