//! The group, in the words of RocketMQ's tools: a leader is a master, the others are its slaves, a term is an epoch.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use serde_json::{Value, json};

use super::answer::json_slowly;
use crate::broker::Broker;
use crate::group::{Figures, OtherMember};
use crate::reply::{Refused, Reply};

/// Most terms in one answer, the newest.
const EPOCHS_MAX: usize = 100;

/// How far the members are. The leader knows it of all, another member of itself.
pub(super) fn status(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "replication", request, reply, |broker, _| Ok(ha_status(broker)));
}

fn ha_status(broker: &Broker) -> Value {
    let figures = broker.group.figures();
    let end = broker.shard.log().end();
    let connections: Vec<Value> = figures.others.iter().filter_map(connection).collect();
    json!({
        "haClientRuntimeInfo": client(broker, &figures),
        "inSyncSlaveNums": connections.iter().filter(|connection| connection["inSync"] == json!(true)).count(),
        "haConnectionInfo": connections,
        "master": figures.leads,
        "masterCommitLogMaxOffset": end,
    })
}

/// Another member, as its leader knows it.
fn connection(other: &OtherMember) -> Option<Value> {
    let followed = other.followed.as_ref()?;
    Some(json!({
        "addr": format!("{} {}", other.seat, other.address),
        "diff": followed.lag_bytes,
        "inSync": followed.in_sync,
        "slaveAckOffset": followed.acknowledged,
        "transferFromWhere": followed.acknowledged,
        "transferredByteInSecond": followed.sent_per_second,
    }))
}

/// A member that follows, as it knows itself. What it knows to be committed a majority has flushed.
fn client(broker: &Broker, figures: &Figures) -> Value {
    let Some(leader) = &figures.followed_leader else {
        return json!({
            "lastReadTimestamp": 0,
            "lastWriteTimestamp": 0,
            "masterFlushOffset": 0,
            "maxOffset": 0,
            "transferredByteInSecond": 0,
        });
    };
    // It answers each request of its leader, so the last one that it read is the last one that it answered.
    let heard = broker.clock.wall_ms().saturating_sub(millis(figures.leader_silence));
    json!({
        "lastReadTimestamp": heard,
        "lastWriteTimestamp": heard,
        "masterAddr": leader,
        "masterFlushOffset": figures.committed_end.unwrap_or_default(),
        "maxOffset": broker.shard.log().end(),
        "transferredByteInSecond": figures.received_per_second,
    })
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Where each term begins in this member's log, and where the log ends.
pub(super) fn epochs(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "epochs", request, reply, |broker, _| {
        let (log, config) = (broker.shard.log(), broker.config());
        let unreadable = |error| Refused::new(response::SYSTEM_ERROR, format!("the log cannot be read: {error}"));
        let starts = log.term_starts(EPOCHS_MAX).map_err(unreadable)?;
        let end = log.end();
        let ends = starts.iter().skip(1).map(|next| next.position).chain([end]);
        let epochs = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| json!({"epoch": start.term, "startOffset": start.position, "endOffset": end}));
        Ok(json!({
            "brokerId": broker.registration.id(),
            "brokerName": config.broker_name,
            "clusterName": config.broker_cluster_name,
            "epochList": epochs.collect::<Vec<_>>(),
            "maxOffset": end,
        }))
    });
}
