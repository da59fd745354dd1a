//! Requests about topics: creating, changing, deleting, listing them.
//!
//! A creation is answered after the nameservers that are there have heard of it, so that the client that created a topic can
//! send to it at once.

use std::sync::Arc;

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{TopicConfig, TopicConfigList, TopicConfigTable};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CreateTopicHeader, GetAllTopicConfigHeader, GetTopicConfigHeader, TopicHeader};
use escrowmq_common::limits::QUEUES_MAX;
use escrowmq_common::name;

use super::attributes::{self, Attributes};
use super::slow;
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::creation::{CreationError, Maker, done};
use crate::registration::topic_config;
use crate::reply::Reply;
use crate::shard::{Admission, Command};
use crate::terms::{TopicSettings, encode_cold};

/// Where users look up what went wrong with a topic.
pub(super) const HINT: &str = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// Creates the topics that clients and tools expect of every broker, as far as they are missing.
pub(crate) async fn create_system_topics(broker: &Arc<Broker>) -> Result<(), CreationError> {
    let config = Arc::clone(&broker.config());
    for wanted in system_topics(&config) {
        let current = broker.shard.topics().get(&wanted.name);
        // The template is the one topic whose settings follow the configuration.
        let follows = wanted.name == name::AUTO_CREATE_TOPIC;
        match current {
            None => drop(broker.creations.topic_of(Maker::Broker, wanted).await?),
            Some(topic) if follows && topic.settings != wanted => put(broker, Maker::Broker, &wanted).await?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// The topics that clients and tools expect of every broker.
fn system_topics(config: &BrokerConfig) -> Vec<TopicSettings> {
    let template = TopicSettings::READ | TopicSettings::WRITE | TopicSettings::INHERIT;
    let of = |name: &str, queues: u32, perm: u32| TopicSettings { perm, ..TopicSettings::new(name, queues) };
    let plain = |name: &str| TopicSettings::new(name, 1);
    let mut topics = vec![
        plain(name::SELF_TEST_TOPIC),
        plain(name::OFFSET_MOVED_EVENT),
        plain(&name::reply_topic(&config.broker_cluster_name)),
        of(&config.broker_cluster_name, 1, template),
        of(&config.broker_name, 1, template),
    ];
    let inherit = if config.auto_create_topic_enable { TopicSettings::INHERIT } else { 0 };
    let perm = TopicSettings::READ | TopicSettings::WRITE | inherit;
    topics.push(of(name::AUTO_CREATE_TOPIC, config.default_topic_queue_nums, perm));
    if config.trace_topic_enable {
        topics.push(plain(name::TRACE_TOPIC));
    }
    topics
}

/// Whether clients may neither create nor delete the topic here.
pub(super) fn is_system_topic(config: &BrokerConfig, topic: &str) -> bool {
    name::is_system_topic(topic)
        || topic == config.broker_name
        || topic == config.broker_cluster_name
        || topic.strip_suffix(name::REPLY_TOPIC_SUFFIX) == Some(&config.broker_cluster_name)
}

async fn put(broker: &Arc<Broker>, maker: Maker, settings: &TopicSettings) -> Result<(), CreationError> {
    let _place = broker.creations.place_of_topic(maker, settings)?;
    let bytes = encode_cold(settings);
    done(broker.shard.propose(&Command::PutTopic(&bytes), Admission::Normal).await)
}

pub(super) fn create(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: CreateTopicHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let current = attributes_of(broker, header.topic);
    let attributes = match attributes::change(&current, header.attributes.unwrap_or_default()) {
        Ok(attributes) => attributes,
        Err(why) => return reply.error(response::INVALID_PARAMETER, &why),
    };
    if let Some(filter) = header.topic_filter_type
        && !matches!(filter, "" | "SINGLE_TAG" | "MULTI_TAG")
    {
        return reply.error(response::INVALID_PARAMETER, "topicFilterType is neither SINGLE_TAG nor MULTI_TAG");
    }
    let settings = TopicSettings {
        name: header.topic.to_owned(),
        // Negative counts become huge ones, and are refused as such.
        read_queues: header.read_queue_nums.cast_unsigned(),
        write_queues: header.write_queue_nums.cast_unsigned(),
        perm: header.perm.cast_unsigned(),
        sys_flag: header.topic_sys_flag.cast_unsigned(),
        order: header.order,
        attributes,
    };
    create_all(broker, vec![settings], reply);
}

pub(super) fn create_list(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let list: TopicConfigList = match from_slice(&request.body) {
        Ok(list) => list,
        Err(error) => return reply.refuse(error),
    };
    let all: Result<Vec<TopicSettings>, String> =
        list.topic_config_list.into_iter().map(|config| settings_of(broker, config)).collect();
    match all {
        Ok(all) => create_all(broker, all, reply),
        Err(why) => reply.error(response::INVALID_PARAMETER, &why),
    }
}

/// The attributes that a topic has; none if there is no such topic.
fn attributes_of(broker: &Broker, topic: &str) -> Attributes {
    broker.shard.topics().get(topic).map(|topic| topic.settings.attributes.clone()).unwrap_or_default()
}

fn settings_of(broker: &Broker, config: TopicConfig) -> Result<TopicSettings, String> {
    let attributes = attributes::merge(&attributes_of(broker, &config.topic_name), &config.attributes)?;
    Ok(TopicSettings {
        name: config.topic_name,
        read_queues: config.read_queue_nums.cast_unsigned(),
        write_queues: config.write_queue_nums.cast_unsigned(),
        perm: config.perm.cast_unsigned(),
        sys_flag: config.topic_sys_flag.cast_unsigned(),
        order: config.order,
        attributes,
    })
}

/// Creates or changes all, registers, answers.
fn create_all(broker: &Arc<Broker>, all: Vec<TopicSettings>, reply: Reply) {
    let config = broker.config();
    if let Some(why) = all.iter().find_map(|settings| objection(&config, settings)) {
        return reply.error(response::INVALID_PARAMETER, &why);
    }
    let maker = Maker::Connection(reply.connection().id());
    let creator = Arc::clone(broker);
    broker.tasks.spawn("create topic", async move {
        for settings in &all {
            let old = creator.shard.topics().get(&settings.name);
            if old.as_ref().is_some_and(|topic| topic.settings == *settings) {
                continue;
            }
            if let Err(error) = put(&creator, maker, settings).await {
                return reply.refuse(error);
            }
            let old = old.map_or_else(|| "none".to_owned(), |topic| format!("{:?}", topic.settings));
            reply.audit(&settings.name, old, format_args!("{settings:?}"));
        }
        creator.registration.now().await;
        reply.ok();
    });
}

/// Finds a setting that is wrong.
fn objection(config: &BrokerConfig, settings: &TopicSettings) -> Option<String> {
    if let Err(error) = name::validate_topic(&settings.name) {
        return Some(error.to_string());
    }
    if is_system_topic(config, &settings.name) {
        return Some(format!("The topic[{}] is conflict with system topic.", settings.name));
    }
    if settings.read_queues > QUEUES_MAX || settings.write_queues > QUEUES_MAX || settings.queue_count() == 0 {
        let (read, write) = (settings.read_queues.cast_signed(), settings.write_queues.cast_signed());
        return Some(format!("{read} read and {write} write queues, must be 1 to {QUEUES_MAX}"));
    }
    if settings.perm & !7 != 0 {
        return Some(format!("perm {} is no sum of 4 (read), 2 (write) and 1 (inherit)", settings.perm.cast_signed()));
    }
    None
}

pub(super) fn delete(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let topic = match request.header::<TopicHeader<'_>>() {
        Ok(header) if header.topic.trim().is_empty() => {
            return reply.error(response::SYSTEM_ERROR, "The specified topic is blank.");
        }
        Ok(header) => header.topic,
        Err(error) => return reply.refuse(error),
    };
    if is_system_topic(&broker.config(), topic) {
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        return reply.error(response::SYSTEM_ERROR, &remark);
    }
    let Some(known) = broker.shard.topics().get(topic) else {
        // Deleting twice is no error: tools ask every broker of a cluster.
        return reply.ok();
    };
    let topic = topic.to_owned();
    let remover = Arc::clone(broker);
    broker.tasks.spawn("delete topic", async move {
        let outcome = remover.shard.propose(&Command::DeleteTopic(&topic), Admission::Reserved).await;
        match done(outcome) {
            Ok(()) => {
                let settings = &known.settings;
                reply.audit(&topic, format_args!("{settings:?}"), "none; its undecided half messages are parked");
                if let Some(first) = known.queues.first() {
                    remover.transactions.topic_deleted(first.id);
                }
                remover.registration.now().await;
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        }
    });
}

pub(super) fn show(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: GetTopicConfigHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    if let Some(topic) = broker.shard.topics().get(header.topic) {
        return reply.body(&to_bytes(&topic_config(&topic.settings), Form::Strict));
    }
    let remark = format!("No topic in this broker. topic: {}", header.topic);
    reply.error(response::TOPIC_NOT_EXIST, &remark);
}

pub(super) fn show_all(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: GetAllTopicConfigHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let page = Page::new(header.topic_seq, header.max_topic_num);
    // With a hundred thousand topics this takes a while.
    slow::run(broker, "list topics", reply, move |broker, reply| {
        let mut topics = broker.shard.topics().all();
        topics.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));
        let data_version = broker.registration.data_version();
        let table = TopicConfigTable {
            data_version,
            mapping_data_version: Some(data_version),
            topic_config_table: page
                .of(&topics)
                .iter()
                .map(|topic| (topic.settings.name.clone(), topic_config(&topic.settings)))
                .collect(),
            ..TopicConfigTable::default()
        };
        let fields = |fields: &mut escrowmq_common::frame::FieldWriter<'_>| {
            fields.number("totalTopicNum", topics.len() as i64);
        };
        reply.send(response::SUCCESS, None, fields, &[&to_bytes(&table, Form::Strict)]);
    });
}

/// The part of a long list that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    from: usize,
    count: usize,
}

impl Page {
    /// Everything, unless both numbers say otherwise.
    pub(super) fn new(from: Option<i32>, count: Option<i32>) -> Self {
        let count = count.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        let from = from.and_then(|from| usize::try_from(from).ok()).unwrap_or_default();
        Self { from: if count.is_some() { from } else { 0 }, count: count.unwrap_or(usize::MAX) }
    }

    pub(super) fn of<T>(self, all: &[T]) -> &[T] {
        let from = self.from.min(all.len());
        &all[from..from + self.count.min(all.len() - from)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let config = BrokerConfig { broker_name: "b".into(), ..BrokerConfig::default() };
        let good = TopicSettings::new("T", 4);
        assert_eq!(objection(&config, &good), None);
        assert_eq!(objection(&config, &TopicSettings { read_queues: 0, ..good.clone() }), None);
        for bad in [
            TopicSettings::new("a b", 4),
            TopicSettings::new("", 4),
            TopicSettings::new("TBW102", 4),
            TopicSettings::new("b", 4),
            TopicSettings::new("DefaultCluster", 4),
            TopicSettings::new("DefaultCluster_REPLY_TOPIC", 4),
            TopicSettings::new("T", 0),
            TopicSettings::new("T", u32::MAX),
            TopicSettings { perm: 8, ..good.clone() },
        ] {
            assert!(objection(&config, &bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn the_template_inherits_only_while_topics_are_created_automatically() {
        let perm = |enable| {
            let config = BrokerConfig { auto_create_topic_enable: enable, ..BrokerConfig::default() };
            system_topics(&config).into_iter().find(|topic| topic.name == "TBW102").unwrap().perm
        };
        assert_eq!((perm(true), perm(false)), (7, 6));
    }

    #[test]
    fn pages_stay_inside_the_list() {
        let all = [1, 2, 3];
        assert_eq!(Page::new(None, None).of(&all), [1, 2, 3]);
        assert_eq!(Page::new(Some(1), Some(1)).of(&all), [2]);
        assert_eq!(Page::new(Some(9), Some(1)).of(&all), [0; 0]);
        assert_eq!(Page::new(Some(-1), Some(-1)).of(&all), [1, 2, 3]);
    }
}
