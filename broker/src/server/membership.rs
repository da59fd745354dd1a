//! Members of groups: heartbeats, leaving, and questions about them.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{CheckClientBody, HeartbeatData};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetConsumerListByGroupHeader, UnregisterClientHeader};
use escrowmq_common::name;
use escrowmq_common::remoting::{Connection, LogGate};
use parking_lot::Mutex;

use super::pull::check_sql;
use crate::broker::Broker;
use crate::client_registry::{Beat, Client, ConsumerBeat};
use crate::creation::Maker;
use crate::filter::Filter;
use crate::reply::Reply;

/// Lines about groups that could not be made: each heartbeat may name thousands.
static NOT_CREATED: LogGate = LogGate::new(Duration::from_secs(1));
/// The heartbeat's answer has this field with the value 1 where decisions can be awaited.
const AWAITED_DECISIONS: &str = "ESCROWMQ";
/// And this one where transactions of several messages and leases are known.
const TRANSACTIONS: &str = "ESCROWMQ_TXN";

pub(super) fn closed(broker: &Arc<Broker>, connection: &Arc<Connection>) {
    broker.delivery.holds.drop_connection(connection.id());
    broker.clients.closed(connection);
    broker.transactions.connection_closed(connection.id());
}

pub(super) fn heartbeat(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let data: HeartbeatData = match from_slice(&request.body) {
        Ok(data) => data,
        Err(error) => return reply.refuse(error),
    };
    if data.client_id.is_empty() {
        return reply.error(response::SYSTEM_ERROR, "clientID: missing");
    }
    let client =
        Client { id: Arc::from(data.client_id.as_str()), language: request.language, version: request.version };
    let config = broker.config();
    let mut new_groups = Vec::new();
    let mut consumers = Vec::with_capacity(data.consumer_data_set.len());
    for group in &data.consumer_data_set {
        let name = group.group_name.as_str();
        let settings = broker.shard.groups().get(name);
        if settings.is_none() {
            if !may_create(name, config.auto_create_subscription_group) {
                continue;
            }
            new_groups.push(name);
        } else if broker.shard.topics().get(&name::retry_topic(name)).is_none() {
            new_groups.push(name);
        }
        let notify = config.notify_consumer_ids_changed
            && settings.is_none_or(|settings| settings.notify_consumer_ids_changed_enable);
        consumers.push(ConsumerBeat { data: group, notify });
    }
    let producers = data.producer_data_set.iter().map(|group| group.group_name.as_str());
    let beat = Beat {
        producers: producers.filter(|group| !group.trim().is_empty()).collect(),
        consumers,
        without_subscriptions: data.without_sub,
        life: config.client_expiry,
        wall_ms: broker.clock.wall_ms(),
    };
    broker.clients.heartbeat(reply.connection(), &Arc::new(client), &beat);
    after_creation(broker, &new_groups, reply);
}

/// Whether a group that is not there will be.
fn may_create(group: &str, automatically: bool) -> bool {
    (automatically || name::is_system_group(group)) && name::validate_group(group).is_ok()
}

/// Answers when all new groups are there with their retry topics: the client pulls next.
fn after_creation(broker: &Arc<Broker>, groups: &[&str], reply: Reply) {
    if groups.is_empty() {
        return accept(reply);
    }
    let maker = Maker::Connection(reply.connection().id());
    let waiting = Arc::new(Mutex::new((groups.len(), Some(reply))));
    for group in groups {
        let (waiting, name) = (Arc::clone(&waiting), (*group).to_owned());
        broker.creations.group(maker, group, move |created| {
            if let Err(error) = created {
                // The next heartbeat tries again; meanwhile the group's pulls are refused.
                if let Some(others) = NOT_CREATED.open() {
                    tracing::warn!(group = name, %error, others, "consumer group not created");
                }
            }
            let mut waiting = waiting.lock();
            waiting.0 -= 1;
            if waiting.0 == 0
                && let Some(reply) = waiting.1.take()
            {
                accept(reply);
            }
        });
    }
}

pub(super) fn accept(reply: Reply) {
    reply.send(
        response::SUCCESS,
        None,
        |fields| {
            fields.text(AWAITED_DECISIONS, "1");
            fields.text(TRANSACTIONS, "1");
        },
        &[],
    );
}

pub(super) fn unregister(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: UnregisterClientHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    broker.clients.unregister(reply.connection(), header.producer_group, header.consumer_group);
    reply.ok();
}

pub(super) fn consumer_ids(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: GetConsumerListByGroupHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let ids = broker.clients.consumer_ids(header.consumer_group);
    if ids.consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {}", header.consumer_group);
        return reply.error(response::SYSTEM_ERROR, &remark);
    }
    reply.body(&to_bytes(&ids, Form::Strict));
}

pub(super) fn check(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let body: CheckClientBody = match from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return reply.refuse(error),
    };
    let subscription = &body.subscription_data;
    if subscription.is_tag_type() {
        return reply.ok();
    }
    if let Err(refused) = check_sql(broker) {
        return reply.refuse(refused);
    }
    match Filter::of_subscription(subscription) {
        Ok(_) => reply.ok(),
        Err(error) => reply.error(response::SUBSCRIPTION_PARSE_FAILED, &error.to_string()),
    }
}
