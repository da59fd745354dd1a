//! Topics.

use anyhow::bail;
use escrowmq_common::body::{TopicList, TopicStats};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use escrowmq_common::limits::QUEUES_MAX;
use escrowmq_common::name::{DLQ_PREFIX, RETRY_PREFIX, is_system_topic, reply_topic, validate_topic};
use serde_json::json;

use super::connection::{Cluster, Master};
use super::output::Output;
use crate::confirm;
use crate::words::counted;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a topic on all brokers, or change the number of its queues
    Create {
        /// Name of the topic
        topic: String,
        /// Queues on each broker
        #[arg(long, short, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(QUEUES_MAX)))]
        queues: u32,
        /// An attribute of the topic, such as duplicate.window.seconds=600; -NAME takes one away. May be repeated
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = attribute, allow_hyphen_values = true)]
        attribute: Vec<String>,
        /// Only brokers of this cluster
        #[arg(long, short)]
        cluster: Option<String>,
    },
    /// List the topics
    List {
        /// Also those of the system, of retries and of dead letters
        #[arg(long, short)]
        all: bool,
    },
    /// Delete a topic with all its messages
    Delete {
        /// Name of the topic
        topic: String,
        /// Only brokers of this cluster
        #[arg(long, short)]
        cluster: Option<String>,
        /// Do not ask before it is done
        #[arg(long, short)]
        yes: bool,
    },
    /// Show the offsets of a topic's queues
    Status {
        /// Name of the topic
        topic: String,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::Create { topic, queues, cluster: only, attribute } => {
            create(cluster, topic, *queues, attribute, only.as_deref()).await
        }
        Command::List { all } => list(cluster, *all).await,
        Command::Delete { topic, cluster: only, yes } => delete(cluster, topic, only.as_deref(), *yes).await,
        Command::Status { topic } => status(cluster, topic).await,
    }
}

/// An attribute in the form of the protocol: `+name=value` sets it, `-name` takes it away.
fn attribute(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = text.trim_start_matches(['+', '-']).split('=').next().unwrap_or_default();
    if name.is_empty() || text.contains(',') {
        return Err("expected NAME=VALUE or -NAME, without ','".to_owned());
    }
    match (text.starts_with('-'), text.contains('=')) {
        (true, false) => Ok(text.to_owned()),
        (true, true) => Err("what is taken away has no value: expected -NAME".to_owned()),
        (false, false) => Err("a value is missing: expected NAME=VALUE".to_owned()),
        (false, true) => Ok(format!("+{}", text.trim_start_matches('+'))),
    }
}

async fn create(
    cluster: &Cluster,
    topic: &str,
    queues: u32,
    attributes: &[String],
    only: Option<&str>,
) -> anyhow::Result<Output> {
    validate_topic(topic)?;
    let attributes = (!attributes.is_empty()).then(|| attributes.join(","));
    let header =
        CreateTopicHeader { attributes: attributes.as_deref(), ..CreateTopicHeader::new(topic, queues.cast_signed()) };
    let masters = cluster.masters(only).await?;
    for master in &masters {
        cluster.call(&master.address, Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)).await?;
    }
    let (queues, brokers) = (counted(queues, "queue"), counted(masters.len(), "broker"));
    let attributes = attributes.map_or_else(String::new, |attributes| format!(", attributes {attributes}"));
    Ok(Output::done(format!("topic {topic} has {queues} on {brokers}{attributes}")))
}

async fn list(cluster: &Cluster, all: bool) -> anyhow::Result<Output> {
    let ask = Frame::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER);
    let mut topics = cluster.ask_names::<TopicList>(ask).await?.topic_list;
    let masters = cluster.masters(None).await?;
    let is_of_broker = |name: &str| {
        masters
            .iter()
            .any(|master| name == master.name || name == master.cluster || name == reply_topic(&master.cluster))
    };
    let is_own = |name: &str| {
        !(name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX) || is_system_topic(name) || is_of_broker(name))
    };
    topics.retain(|name| all || is_own(name));
    topics.sort_unstable();
    let mut output = Output::new(&["TOPIC"]);
    for topic in topics {
        output.row([json!(topic)]);
    }
    Ok(output)
}

async fn delete(cluster: &Cluster, topic: &str, only: Option<&str>, yes: bool) -> anyhow::Result<Output> {
    confirm::refuse_if_nobody_can_be_asked(yes)?;
    let masters = cluster.masters(only).await?;
    let serving = cluster.masters_of(topic).await?;
    let serving: Vec<&Master> = serving.iter().filter(|one| masters.iter().any(|all| all.name == one.name)).collect();
    if serving.is_empty() {
        bail!("no broker{} has topic {topic}", only.map_or_else(String::new, |only| format!(" of cluster {only}")));
    }
    if !yes {
        let (mut queues, mut messages) = (0_u64, 0_i64);
        for master in &serving {
            let stats = stats_of(cluster, &master.address, topic).await?;
            queues += stats.offset_table.len() as u64;
            messages += stats.offset_table.values().map(|offset| offset.max_offset - offset.min_offset).sum::<i64>();
        }
        let about = format!(
            "topic {topic}: {}, {}, {}\n",
            counted(serving.len(), "broker"),
            counted(queues, "queue"),
            counted(messages, "message")
        );
        if !confirm::ask(&about, "delete it with all its messages")? {
            bail!("nothing was done");
        }
    }
    for master in &masters {
        let ask = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", topic);
        cluster.call(&master.address, ask).await?;
    }
    if only.is_none() {
        cluster.tell_names(&Frame::request(request::DELETE_TOPIC_IN_NAMESRV).with_field("topic", topic)).await?;
    }
    Ok(Output::done(format!("topic {topic} is deleted on {}", counted(serving.len(), "broker"))))
}

async fn status(cluster: &Cluster, topic: &str) -> anyhow::Result<Output> {
    let mut output = Output::new(&["BROKER", "QUEUE", "MIN OFFSET", "MAX OFFSET", "LAST MESSAGE"]);
    let mut messages = 0;
    for master in cluster.masters_of(topic).await? {
        let stats = stats_of(cluster, &master.address, topic).await?;
        for (queue, offset) in stats.offset_table {
            messages += offset.max_offset - offset.min_offset;
            let last = (offset.last_update_timestamp > 0).then_some(offset.last_update_timestamp);
            output.row([
                json!(queue.broker_name),
                json!(queue.queue_id),
                json!(offset.min_offset),
                json!(offset.max_offset),
                json!(last.map(super::time::readable)),
            ]);
        }
    }
    output.note(counted(messages, "message"));
    Ok(output)
}

async fn stats_of(cluster: &Cluster, address: &str, topic: &str) -> anyhow::Result<TopicStats> {
    cluster.ask(address, Frame::request(request::GET_TOPIC_STATS_INFO).with_field("topic", topic)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_take_the_form_of_the_protocol() {
        assert_eq!(attribute("duplicate.window.seconds=600"), Ok("+duplicate.window.seconds=600".to_owned()));
        assert_eq!(attribute("+a=b=c"), Ok("+a=b=c".to_owned()));
        assert_eq!(attribute("-a"), Ok("-a".to_owned()));
        for bad in ["", "a", "=b", "-", "-a=b", "a=b,c=d", "+"] {
            assert!(attribute(bad).is_err(), "{bad:?}");
        }
    }
}
