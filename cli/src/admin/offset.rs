//! Consumer offsets.

use anyhow::{Context as _, bail};
use escrowmq_common::body::{ConsumeStats, ResetOffsetBody};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetConsumeStatsHeader, ResetOffsetHeader};
use escrowmq_common::name::retry_topic;
use serde_json::json;

use super::connection::{Cluster, unknown_group};
use super::output::Output;
use super::time;
use crate::words::counted;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show how far a consumer group has come, queue by queue
    Show {
        /// Name of the group
        group: String,
        /// Only this topic
        #[arg(long, short)]
        topic: Option<String>,
    },
    /// Set a group's offsets in a topic to a time
    Reset {
        /// Name of the group
        group: String,
        /// Topic whose queues are meant
        topic: String,
        /// A time such as 2026-11-20T21:14:09Z, milliseconds since 1970, "earliest" or "latest"
        #[arg(long)]
        to: String,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::Show { group, topic } => show(cluster, group, topic.as_deref()).await,
        Command::Reset { group, topic, to } => reset(cluster, group, topic, to).await,
    }
}

async fn show(cluster: &Cluster, group: &str, topic: Option<&str>) -> anyhow::Result<Output> {
    if let Some(topic) = topic {
        cluster.masters_of(topic).await?;
    }
    // Every broker that knows the group serves its retry topic; a group without one may still have offsets.
    let masters = match cluster.masters_that_serve(&retry_topic(group)).await? {
        Some(masters) if !masters.is_empty() => masters,
        _ => cluster.masters(None).await?,
    };
    let header = GetConsumeStatsHeader { consumer_group: group, topic, topic_list: None };
    let mut output = Output::new(&["TOPIC", "BROKER", "QUEUE", "OFFSET", "MAX OFFSET", "LAG"]);
    let (mut lag, mut has_rows) = (0, false);
    for master in &masters {
        let ask = Frame::request(request::GET_CONSUME_STATS).with_header(&header);
        let stats: ConsumeStats = cluster.ask(&master.address, ask).await?;
        for (queue, offset) in stats.offset_table {
            has_rows = true;
            let behind = offset.broker_offset - offset.consumer_offset;
            lag += behind;
            output.row([
                json!(queue.topic),
                json!(queue.broker_name),
                json!(queue.queue_id),
                json!(offset.consumer_offset),
                json!(offset.broker_offset),
                json!(behind),
            ]);
        }
    }
    // A lag of zero is good news only of a group that is there. If a topic is named, its queues have rows for any group.
    if (topic.is_some() || !has_rows) && !cluster.knows_group(&masters, group).await? {
        bail!(unknown_group(group));
    }
    output.note(match (has_rows, topic) {
        (true, _) => format!("{} behind", counted(lag.max(0), "message")),
        (false, None) => format!("group {group} has consumed nothing yet"),
        (false, Some(topic)) => format!("group {group} has consumed nothing of {topic} yet"),
    });
    Ok(output)
}

/// The form that a request has it in.
fn timestamp(to: &str) -> Option<i64> {
    match to {
        "earliest" => Some(0),
        "latest" => Some(-1),
        time => time.parse().ok().filter(|millis| *millis >= 0).or_else(|| time::parse(time)),
    }
}

async fn reset(cluster: &Cluster, group: &str, topic: &str, to: &str) -> anyhow::Result<Output> {
    let timestamp = timestamp(to).with_context(|| {
        format!("--to {to}: expected a time such as 2026-11-20T21:14:09Z, milliseconds since 1970, earliest or latest")
    })?;
    let header = ResetOffsetHeader { topic, group, timestamp, is_force: true, queue_id: None, offset: None };
    let mut output = Output::new(&["BROKER", "QUEUE", "OFFSET"]);
    let masters = cluster.masters_of(topic).await?;
    if !cluster.knows_group(&cluster.masters(None).await?, group).await? {
        bail!(unknown_group(group));
    }
    for master in masters {
        let ask = Frame::request(request::INVOKE_BROKER_TO_RESET_OFFSET).with_header(&header);
        let body: ResetOffsetBody = cluster.ask(&master.address, ask).await?;
        for (queue, offset) in body.offset_table {
            output.row([json!(queue.broker_name), json!(queue.queue_id), json!(offset)]);
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_word_a_number_or_a_date() {
        for (text, expected) in [
            ("earliest", Some(0)),
            ("latest", Some(-1)),
            ("0", Some(0)),
            ("1795209249770", Some(1_795_209_249_770)),
            ("2026-11-20T22:14:09.770+01:00", Some(1_795_209_249_770)),
            ("-1", None),
            ("yesterday", None),
            ("2026-11-20", None),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
    }
}
