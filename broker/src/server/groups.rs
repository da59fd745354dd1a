//! Requests about consumer groups: creating, changing, deleting, listing them.

use std::sync::Arc;

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{DataVersion, SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupTable};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{DeleteSubscriptionGroupHeader, GetAllSubscriptionGroupHeader, GroupHeader};
use escrowmq_common::name;

use super::topics::Page;
use super::{attributes, slow};
use crate::broker::Broker;
use crate::creation::{CreationError, Maker, done};
use crate::reply::Reply;
use crate::shard::{Admission, Command};
use crate::terms::{GroupSettings, TopicSettings, encode_cold};

pub(super) fn create(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    match from_slice::<SubscriptionGroupConfig>(&request.body) {
        Ok(config) => create_all(broker, vec![config], reply),
        Err(error) => reply.refuse(error),
    }
}

pub(super) fn create_list(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    match from_slice::<SubscriptionGroupList>(&request.body) {
        Ok(list) => create_all(broker, list.group_config_list, reply),
        Err(error) => reply.refuse(error),
    }
}

/// A group as the protocol shows it.
pub(crate) fn group_config(settings: &GroupSettings) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig {
        attributes: settings.shown_attributes().cloned().collect(),
        broker_id: settings.broker_id.cast_signed(),
        consume_broadcast_enable: settings.consume_broadcast_enable,
        consume_enable: settings.consume_enable,
        consume_from_min_enable: settings.consume_from_min_enable,
        consume_message_orderly: settings.consume_message_orderly,
        consume_timeout_minute: settings.consume_timeout_minutes.cast_signed(),
        group_sys_flag: settings.group_sys_flag.cast_signed(),
        notify_consumer_ids_changed_enable: settings.notify_consumer_ids_changed_enable,
        retry_max_times: settings.retry_max_times,
        retry_queue_nums: settings.retry_queues.cast_signed(),
        which_broker_when_consume_slowly: settings.which_broker_when_consume_slowly.cast_signed(),
        ..SubscriptionGroupConfig::new(settings.name.clone())
    }
}

fn settings_of(config: SubscriptionGroupConfig) -> GroupSettings {
    GroupSettings {
        name: config.group_name,
        consume_enable: config.consume_enable,
        consume_from_min_enable: config.consume_from_min_enable,
        consume_broadcast_enable: config.consume_broadcast_enable,
        consume_message_orderly: config.consume_message_orderly,
        retry_queues: u32::try_from(config.retry_queue_nums).unwrap_or_default(),
        retry_max_times: config.retry_max_times,
        broker_id: config.broker_id.cast_unsigned(),
        which_broker_when_consume_slowly: config.which_broker_when_consume_slowly.cast_unsigned(),
        notify_consumer_ids_changed_enable: config.notify_consumer_ids_changed_enable,
        group_sys_flag: config.group_sys_flag.cast_unsigned(),
        consume_timeout_minutes: u32::try_from(config.consume_timeout_minute).unwrap_or_default(),
        // An operator's settings are never those of a group that use alone made.
        attributes: config.attributes.into_iter().filter(|(name, _)| name != GroupSettings::MADE_BY_USE).collect(),
    }
}

/// More retry queues than this are a mistake.
const RETRY_QUEUES_MAX: u32 = 1_024;

fn create_all(broker: &Arc<Broker>, all: Vec<SubscriptionGroupConfig>, reply: Reply) {
    if let Some(why) = all.iter().find_map(objection) {
        return reply.error(response::INVALID_PARAMETER, &why);
    }
    let all: Vec<GroupSettings> = all.into_iter().map(settings_of).collect();
    for settings in &all {
        if let Err(error) = name::validate_group(&settings.name) {
            return reply.error(response::INVALID_PARAMETER, &error.to_string());
        }
        if settings.retry_queues > RETRY_QUEUES_MAX {
            let remark = format!("{} retry queues, must be at most {RETRY_QUEUES_MAX}", settings.retry_queues);
            return reply.error(response::INVALID_PARAMETER, &remark);
        }
    }
    let maker = Maker::Connection(reply.connection().id());
    let creator = Arc::clone(broker);
    broker.tasks.spawn("create group", async move {
        let mut changed = false;
        for settings in &all {
            let _place = match creator.creations.place_of_group(maker, &settings.name).map_err(CreationError::from) {
                Ok(place) => place,
                Err(error) => return reply.refuse(error),
            };
            let old = creator.shard.groups().get(&settings.name);
            let bytes = encode_cold(settings);
            let outcome = creator.shard.propose(&Command::PutGroup(&bytes), Admission::Normal).await;
            if let Err(error) = done(outcome) {
                return reply.refuse(error);
            }
            let old = old.map_or_else(|| "none".to_owned(), |old| format!("{old:?}"));
            reply.audit(&settings.name, old, format_args!("{settings:?}"));
            match retry_topic(&creator, maker, settings).await {
                Ok(is_new) => changed |= is_new,
                Err(error) => return reply.refuse(error),
            }
        }
        if changed {
            // Tools ask nameservers for the route of the retry topic next.
            creator.registration.now().await;
        }
        reply.ok();
    });
}

/// Whether a value says anything.
fn is_set(value: &serde_json::Value) -> bool {
    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
}

/// Finds a setting of a group that could never do what was meant.
fn objection(config: &SubscriptionGroupConfig) -> Option<String> {
    for (name, number) in
        [("retryQueueNums", config.retry_queue_nums), ("consumeTimeoutMinute", config.consume_timeout_minute)]
    {
        if number < 0 {
            return Some(format!("{name} {number} is negative"));
        }
    }
    let policy = &config.group_retry_policy;
    let is_own = policy.get("type").and_then(|kind| kind.as_str()).is_some_and(|kind| kind != "CUSTOMIZED")
        || ["exponentialRetryPolicy", "customizedRetryPolicy"].iter().any(|name| policy.get(name).is_some_and(is_set));
    if is_own {
        return Some("groupRetryPolicy is for pop consumers, which are not served; see messageDelayLevel".to_owned());
    }
    if config.subscription_data_set.as_ref().is_some_and(is_set) {
        return Some("subscriptionDataSet is not served: a group subscribes to what its members name".to_owned());
    }
    attributes::group_objection(&config.attributes)
}

/// Makes the retry topic of a group, which tools expect before its first member connects, or gives it the queues that the group
/// wants. It never loses queues: there may be messages in them. Says whether anything changed.
async fn retry_topic(broker: &Arc<Broker>, maker: Maker, group: &GroupSettings) -> Result<bool, CreationError> {
    if group.retry_queues == 0 {
        return Ok(false);
    }
    let was_there = broker.shard.topics().get(&name::retry_topic(&group.name)).is_some();
    let wanted = TopicSettings::new(name::retry_topic(&group.name), group.retry_queues);
    let topic = broker.creations.topic_of(maker, wanted).await?;
    let (read, write) = (topic.settings.read_queues, topic.settings.write_queues);
    if read >= group.retry_queues && write >= group.retry_queues {
        return Ok(!was_there);
    }
    let grown = TopicSettings {
        read_queues: read.max(group.retry_queues),
        write_queues: write.max(group.retry_queues),
        ..topic.settings.clone()
    };
    let _place = broker.creations.place_of_topic(maker, &grown)?;
    done(broker.shard.propose(&Command::PutTopic(&encode_cold(&grown)), Admission::Normal).await)?;
    Ok(true)
}

pub(super) fn delete(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: DeleteSubscriptionGroupHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let (group, offsets) = (header.group_name.to_owned(), header.clean_offset);
    let known = broker.shard.groups().get(&group);
    let remover = Arc::clone(broker);
    broker.tasks.spawn("delete group", async move {
        let command = Command::DeleteGroup { group: &group, offsets };
        let shard = &remover.shard;
        let outcome = if offsets {
            remover.delivery.offsets.delete_group(shard, &group, &command).await
        } else {
            shard.propose(&command, Admission::Reserved).await
        };
        match done(outcome) {
            // Deleting twice is no error: tools ask every broker of a cluster.
            Ok(()) | Err(CreationError::Refused(crate::shard::Refusal::NoSuchGroup(_))) => {
                let old = known.map_or_else(|| "none".to_owned(), |known| format!("{known:?}"));
                reply.audit(&group, old, if offsets { "none, offsets deleted" } else { "none, offsets kept" });
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        }
    });
}

pub(super) fn show(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: GroupHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    if let Some(group) = broker.shard.groups().get(header.group) {
        return reply.body(&to_bytes(&group_config(&group), Form::Strict));
    }
    let remark = format!("No group in this broker. group: {}", header.group);
    reply.error(response::SUBSCRIPTION_GROUP_NOT_EXIST, &remark);
}

pub(super) fn show_all(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: GetAllSubscriptionGroupHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let page = Page::new(header.group_seq, header.max_group_num);
    slow::run(broker, "list groups", reply, move |broker, reply| {
        let mut groups = broker.shard.groups().all();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let counter = broker.shard.groups().version().cast_signed();
        let table = SubscriptionGroupTable {
            data_version: DataVersion { counter, ..broker.registration.data_version() },
            subscription_group_table: page
                .of(&groups)
                .iter()
                .map(|group| (group.name.clone(), group_config(group)))
                .collect(),
            ..SubscriptionGroupTable::default()
        };
        let fields = |fields: &mut escrowmq_common::frame::FieldWriter<'_>| {
            fields.number("totalGroupNum", groups.len() as i64);
        };
        reply.send(response::SUCCESS, None, fields, &[&to_bytes(&table, Form::Strict)]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_do_nothing_are_refused() {
        let objection = |text: &str| objection(&from_slice::<SubscriptionGroupConfig>(text.as_bytes()).unwrap());
        // As mqadmin sends it.
        let plain = r#"{"groupName":"G","groupRetryPolicy":{"type":"CUSTOMIZED","exponentialRetryPolicy":null},"attributes":{}}"#;
        assert_eq!(objection(plain), None);
        assert_eq!(objection(r#"{"groupName":"G","subscriptionDataSet":[],"groupRetryPolicy":null}"#), None);
        for bad in [
            r#"{"groupName":"G","groupRetryPolicy":{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000}}}"#,
            r#"{"groupName":"G","groupRetryPolicy":{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000]}}}"#,
            r#"{"groupName":"G","subscriptionDataSet":[{"topic":"T","expression":"*"}]}"#,
            r#"{"groupName":"G","attributes":{"+k":"v"}}"#,
            r#"{"groupName":"G","retryQueueNums":-1}"#,
        ] {
            assert!(objection(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn settings_survive_the_way_through_the_protocol() {
        let mut settings = GroupSettings::new("G");
        settings.retry_max_times = 3;
        settings.consume_enable = false;
        settings.attributes.push(("k".into(), "v".into()));
        assert_eq!(settings_of(group_config(&settings)), settings);
        assert_eq!(group_config(&GroupSettings::new("G")), SubscriptionGroupConfig::new("G"));
    }
}
