//! Topics.

use escrowmq_common::body::{TopicList, TopicStats};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use escrowmq_common::name::{
    AUTO_CREATE_TOPIC, DLQ_PREFIX, Perm, RETRY_PREFIX, is_system_topic, reply_topic, validate_topic,
};
use serde_json::json;

use super::connection::Cluster;
use super::output::Output;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a topic on all brokers, or change the number of its queues
    Create {
        /// Name of the topic
        topic: String,
        /// Queues on each broker
        #[arg(long, short, default_value_t = 4)]
        queues: u16,
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
    },
    /// Show the offsets of a topic's queues
    Status {
        /// Name of the topic
        topic: String,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::Create { topic, queues, cluster: only } => create(cluster, topic, *queues, only.as_deref()).await,
        Command::List { all } => list(cluster, *all).await,
        Command::Delete { topic, cluster: only } => delete(cluster, topic, only.as_deref()).await,
        Command::Status { topic } => status(cluster, topic).await,
    }
}

async fn create(cluster: &Cluster, topic: &str, queues: u16, only: Option<&str>) -> anyhow::Result<Output> {
    validate_topic(topic)?;
    let header = CreateTopicHeader {
        topic,
        default_topic: Some(AUTO_CREATE_TOPIC),
        read_queue_nums: i32::from(queues),
        write_queue_nums: i32::from(queues),
        perm: Perm::READ_WRITE.0,
        topic_filter_type: Some("SINGLE_TAG"),
        topic_sys_flag: 0,
        order: false,
        attributes: None,
        force: None,
    };
    let masters = cluster.masters(only).await?;
    for master in &masters {
        cluster.call(&master.address, Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)).await?;
    }
    Ok(Output::done(format!("topic {topic} has {queues} queues on {} broker(s)", masters.len())))
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

async fn delete(cluster: &Cluster, topic: &str, only: Option<&str>) -> anyhow::Result<Output> {
    let masters = cluster.masters(only).await?;
    for master in &masters {
        let ask = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", topic);
        cluster.call(&master.address, ask).await?;
    }
    if only.is_none() {
        cluster.tell_names(&Frame::request(request::DELETE_TOPIC_IN_NAMESRV).with_field("topic", topic)).await?;
    }
    Ok(Output::done(format!("topic {topic} is deleted on {} broker(s)", masters.len())))
}

async fn status(cluster: &Cluster, topic: &str) -> anyhow::Result<Output> {
    let mut output = Output::new(&["BROKER", "QUEUE", "MIN OFFSET", "MAX OFFSET", "LAST MESSAGE"]);
    let mut messages = 0;
    for master in cluster.masters_of(topic).await? {
        let ask = Frame::request(request::GET_TOPIC_STATS_INFO).with_field("topic", topic);
        let stats: TopicStats = cluster.ask(&master.address, ask).await?;
        for (queue, offset) in stats.offset_table {
            messages += offset.max_offset - offset.min_offset;
            let last = (offset.last_update_timestamp > 0).then_some(offset.last_update_timestamp);
            output.row([
                json!(queue.broker_name),
                json!(queue.queue_id),
                json!(offset.min_offset),
                json!(offset.max_offset),
                json!(last.map(super::message::readable)),
            ]);
        }
    }
    output.note(format!("{messages} messages"));
    Ok(output)
}
