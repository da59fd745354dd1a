//! The brokers that are measured, and the topic that is used for it.

use anyhow::{Context as _, bail};
use escrowmq_common::body::TopicStats;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use escrowmq_common::name::validate_topic;

use super::options::Common;
use crate::admin::connection::Cluster;

/// Brokers.
pub(super) struct Target {
    cluster: Cluster,
    brokers: Vec<String>,
    /// Whether nameservers know the brokers.
    has_names: bool,
}

/// A topic on the target's brokers.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// The queues of each broker.
    pub(super) queues: Vec<Vec<i32>>,
    /// Whether it was created for this run and is to be deleted.
    is_ours: bool,
}

/// One queue and what it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Place of the broker in [`Target::brokers`].
    pub(super) broker: usize,
    pub(super) queue: i32,
    pub(super) min: i64,
    pub(super) max: i64,
}

impl Target {
    /// The one broker that is named, or all that the nameserver knows.
    pub(super) async fn find(options: &Common) -> anyhow::Result<Target> {
        let cluster = Cluster::new(&options.namesrv);
        let brokers = if let Some(broker) = &options.broker {
            vec![broker.clone()]
        } else {
            let masters = cluster.masters(None).await;
            let masters = masters.with_context(|| format!("nameserver {}", options.namesrv))?;
            masters.into_iter().map(|master| master.address).collect()
        };
        Ok(Target { cluster, brokers, has_names: options.broker.is_none() })
    }

    /// Addresses, `host:port`.
    pub(super) fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// The topic that the options name, or a new one for `purpose`.
    pub(super) async fn topic(&self, options: &Common, purpose: &str) -> anyhow::Result<Topic> {
        let name = match &options.topic {
            Some(name) => {
                validate_topic(name)?;
                let queues = self.queues(name).await?;
                if queues.iter().any(|queues| !queues.is_empty()) {
                    return Ok(Topic { name: name.clone(), queues, is_ours: false });
                }
                name.clone()
            }
            None => format!("bench-{purpose}-{:x}-{:x}", clock::wall_ms(), std::process::id()),
        };
        let queues = i32::from(options.queues);
        for broker in &self.brokers {
            let header = CreateTopicHeader::new(&name, queues);
            let create = Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header);
            let created = self.cluster.call(broker, create).await;
            created.with_context(|| format!("topic {name} cannot be created; name an existing one with --topic"))?;
        }
        let queues = vec![(0..queues).collect(); self.brokers.len()];
        Ok(Topic { name, queues, is_ours: options.topic.is_none() && !options.keep_topic })
    }

    /// The queues of a topic on each broker; none where the topic is not.
    async fn queues(&self, topic: &str) -> anyhow::Result<Vec<Vec<i32>>> {
        let mut queues = vec![Vec::new(); self.brokers.len()];
        for extent in self.extents_of(topic).await? {
            queues[extent.broker].push(extent.queue);
        }
        Ok(queues)
    }

    /// The extent of each queue of the topic.
    pub(super) async fn extents(&self, topic: &Topic) -> anyhow::Result<Vec<Extent>> {
        self.extents_of(&topic.name).await
    }

    /// How many messages were ever stored in the topic: the sum of its queues' ends.
    pub(super) async fn stored(&self, topic: &Topic) -> anyhow::Result<u64> {
        let extents = self.extents(topic).await?;
        Ok(extents.iter().map(|extent| u64::try_from(extent.max).unwrap_or(0)).sum())
    }

    async fn extents_of(&self, topic: &str) -> anyhow::Result<Vec<Extent>> {
        let mut extents = Vec::new();
        for (at, broker) in self.brokers.iter().enumerate() {
            let ask = Frame::request(request::GET_TOPIC_STATS_INFO).with_field("topic", topic);
            let answer = self.cluster.call_for(broker, ask, &[response::TOPIC_NOT_EXIST]).await?;
            if answer.code == response::TOPIC_NOT_EXIST {
                continue;
            }
            let stats: TopicStats = escrowmq_common::body::json::from_slice(&answer.body)
                .with_context(|| format!("{broker} answered something else"))?;
            extents.extend(stats.offset_table.into_iter().map(|(queue, offset)| Extent {
                broker: at,
                queue: queue.queue_id,
                min: offset.min_offset.max(0),
                max: offset.max_offset.max(0),
            }));
        }
        extents.sort_unstable_by_key(|extent| (extent.broker, extent.queue));
        Ok(extents)
    }

    /// Deletes the topic if it was created for this run.
    pub(super) async fn clean_up(&self, topic: &Topic) {
        if !topic.is_ours {
            return;
        }
        let ask = |code| Frame::request(code).with_field("topic", &topic.name);
        for broker in &self.brokers {
            if let Err(error) = self.cluster.call(broker, ask(request::DELETE_TOPIC_IN_BROKER)).await {
                eprintln!("escrowmq: topic {} is left behind: {error:#}", topic.name);
                return;
            }
        }
        if self.has_names
            && let Err(error) = self.cluster.tell_names(&ask(request::DELETE_TOPIC_IN_NAMESRV)).await
        {
            eprintln!("escrowmq: nameservers still know topic {}: {error:#}", topic.name);
        }
    }

    /// An error if the topic has no queue to work with.
    pub(super) fn check(&self, topic: &Topic) -> anyhow::Result<()> {
        if topic.queues.iter().all(Vec::is_empty) {
            bail!("topic {} has no queues on {}", topic.name, self.brokers.join(", "));
        }
        Ok(())
    }
}
