//! What brokers and operators say about brokers and topics. Runs on the registrar's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{DataVersion, Form, RegisterBrokerBody, TopicConfig, TopicRouteData, json};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    AddWritePermResponse, BrokerHeartbeatHeader, BrokerIdentityHeader, BrokerNameHeader, DeleteTopicInNamesrvHeader,
    QueryDataVersionResponse, RegisterBrokerHeader, RegisterBrokerResponse, WipeWritePermResponse,
};
use escrowmq_common::remoting::Connection;
use serde::Deserialize;

use super::registrar::Registrar;
use super::{bad_header, failed, success};
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::routes::{BrokerId, ConnectionId, QueueMapping, Queues, Registration, SILENCE_MAX, TopicSettings};

/// Brokers from this version on (3.0.11) send their topics inside a larger body.
const WHOLE_BODY_VERSION: i32 = 37;

/// Longest silence that a registration may ask for; more would be a mistake in its unit.
const SILENCE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

impl Registrar {
    /// `REGISTER_BROKER`. The answer carries all queue orders, and for slaves where their master is.
    pub(super) fn register_broker(&mut self, connection: &Arc<Connection>, request: &Frame) -> Frame {
        let registration = match registration(connection, request) {
            Ok(registration) => registration,
            Err(why) => return failed(request, why),
        };
        let outcome = self.change(|table, now, changes| table.register(now, registration, changes));
        let registered = match outcome {
            Ok(registered) => registered,
            Err(refused) => return failed(request, refused.to_string()),
        };
        let answer = success(request).with_header(&RegisterBrokerResponse {
            ha_server_addr: registered.ha_address.as_deref(),
            master_addr: registered.master_address.as_deref(),
        });
        let with_order = self.parts.config.load().return_order_topic_config_to_broker;
        let order = with_order.then(|| self.parts.kv.tables().list(ORDER_TOPIC_CONFIG));
        match order.flatten() {
            Some(order) => answer.with_body(order),
            None => answer,
        }
    }

    /// `UNREGISTER_BROKER`.
    pub(super) fn unregister_broker(&mut self, connection: &Connection, request: &Frame) -> Frame {
        let broker = match request.header::<BrokerIdentityHeader<'_>>() {
            Ok(broker) => broker,
            Err(error) => return bad_header(request, &error),
        };
        let (connection, id) = (ConnectionId(connection.id()), BrokerId(broker.broker_id));
        self.change(|table, _, changes| {
            table.unregister(connection, broker.broker_addr, id, changes);
        });
        success(request)
    }

    /// `BROKER_HEARTBEAT`. One from a broker that is not listed is answered like any other: it will register anyway.
    pub(super) fn broker_heartbeat(&mut self, request: &Frame) -> Frame {
        match request.header::<BrokerHeartbeatHeader<'_>>() {
            Ok(broker) => {
                self.change(|table, now, _| table.heartbeat(now, broker.broker_addr));
                success(request)
            }
            Err(error) => bad_header(request, &error),
        }
    }

    /// `QUERY_DATA_VERSION`: a broker asks whether it has to register at all.
    pub(super) fn query_data_version(&mut self, request: &Frame) -> Frame {
        let broker = match request.header::<BrokerIdentityHeader<'_>>() {
            Ok(broker) => broker,
            Err(error) => return bad_header(request, &error),
        };
        let theirs: DataVersion = match json::from_slice(&request.body) {
            Ok(version) => version,
            Err(error) => return failed(request, error.to_string()),
        };
        let ours = self.change(|table, now, _| table.query_version(now, broker.broker_addr));
        let answer =
            success(request).with_header(&QueryDataVersionResponse { changed: ours.as_ref() != Some(&theirs) });
        match ours {
            Some(ours) => answer.with_body(json::to_bytes(&ours, Form::Strict)),
            None => answer,
        }
    }

    /// `WIPE_WRITE_PERM_OF_BROKER`.
    pub(super) fn wipe_write_permission(&mut self, request: &Frame) -> Frame {
        match request.header::<BrokerNameHeader<'_>>() {
            Ok(broker) => {
                let group = broker.broker_name;
                let topics = self.change(|table, _, c| table.wipe_write_permission(group, c));
                success(request).with_header(&WipeWritePermResponse { wipe_topic_count: topics as i32 })
            }
            Err(error) => bad_header(request, &error),
        }
    }

    /// `ADD_WRITE_PERM_OF_BROKER`.
    pub(super) fn add_write_permission(&mut self, request: &Frame) -> Frame {
        match request.header::<BrokerNameHeader<'_>>() {
            Ok(broker) => {
                let group = broker.broker_name;
                let topics = self.change(|table, _, c| table.add_write_permission(group, c));
                success(request).with_header(&AddWritePermResponse { add_topic_count: topics as i32 })
            }
            Err(error) => bad_header(request, &error),
        }
    }

    /// `DELETE_TOPIC_IN_NAMESRV`.
    pub(super) fn delete_topic(&mut self, request: &Frame) -> Frame {
        match request.header::<DeleteTopicInNamesrvHeader<'_>>() {
            Ok(delete) => {
                let cluster = delete.cluster_name.filter(|cluster| !cluster.is_empty());
                self.change(|table, _, changes| table.delete_topic(delete.topic, cluster, changes));
                success(request)
            }
            Err(error) => bad_header(request, &error),
        }
    }

    /// `REGISTER_TOPIC_IN_NAMESRV`.
    pub(super) fn register_topic(&mut self, request: &Frame) -> Frame {
        let Some(topic) = request.fields.get("topic").filter(|topic| !topic.is_empty()) else {
            return failed(request, "topic: missing");
        };
        let route: TopicRouteData = match json::from_slice(&request.body) {
            Ok(route) => route,
            Err(error) => return failed(request, error.to_string()),
        };
        let queues = route.queue_datas.into_iter().map(|queues| Queues {
            group: queues.broker_name.into(),
            read: queues.read_queue_nums,
            write: queues.write_queue_nums,
            perm: queues.perm,
            sys_flag: queues.topic_sys_flag,
        });
        let queues = queues.collect();
        self.change(|table, _, changes| table.register_topic(topic, queues, changes));
        success(request)
    }
}

/// Takes a request apart; the error is a text for its sender.
fn registration(connection: &Connection, request: &Frame) -> Result<Registration, String> {
    let header: RegisterBrokerHeader<'_> = request.header().map_err(|error| error.to_string())?;
    let names =
        [("brokerName", header.broker_name), ("brokerAddr", header.broker_addr), ("clusterName", header.cluster_name)];
    if let Some((field, _)) = names.iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(format!("{field}: blank"));
    }
    // They are logged and shown by tools.
    let unprintable = |(_, value): &&(_, &str)| value.chars().any(char::is_control);
    if let Some((field, _)) = names.iter().find(unprintable) {
        return Err(format!("{field}: control characters"));
    }
    if header.broker_id < 0 {
        return Err("brokerId: below 0".to_owned());
    }
    if header.body_crc32 != 0 && header.body_crc32 != checksum(&request.body) {
        return Err("crc32 not match".to_owned());
    }
    let asked = header.heartbeat_timeout_millis.map(u64::try_from);
    let silence_max = match asked {
        Some(Ok(millis @ 1..)) => Duration::from_millis(millis).min(SILENCE_LIMIT),
        _ => SILENCE_MAX,
    };
    let topics = body(&header, request)?.topic_config_serialize_wrapper;
    // Brokers before 5.0 do not send the field at all, and that makes a difference.
    let knows_acting = request.fields.get("enableActingMaster").is_some();
    Ok(Registration {
        connection: ConnectionId(connection.id()),
        cluster: header.cluster_name.into(),
        group: header.broker_name.into(),
        address: header.broker_addr.into(),
        id: BrokerId(header.broker_id),
        ha_address: header.ha_server_addr.into(),
        zone: header.zone_name.filter(|zone| !zone.is_empty()).map(Arc::from),
        acting_master: knows_acting.then_some(header.enable_acting_master),
        silence_max,
        version: topics.data_version,
        mappings: mappings(topics.topic_queue_mapping_info_map)?,
        topics: settings(topics.topic_config_table),
    })
}

fn body(header: &RegisterBrokerHeader<'_>, request: &Frame) -> Result<RegisterBrokerBody, String> {
    if request.body.is_empty() {
        return Ok(RegisterBrokerBody::default());
    }
    if request.version < WHOLE_BODY_VERSION {
        let topics = json::from_slice(&request.body).map_err(|error| error.to_string())?;
        return Ok(RegisterBrokerBody { topic_config_serialize_wrapper: topics, ..RegisterBrokerBody::default() });
    }
    let body = RegisterBrokerBody::decode(&request.body, header.compressed);
    body.map_err(|error| error.to_string())
}

fn settings(topics: BTreeMap<String, TopicConfig>) -> Vec<TopicSettings> {
    let topic = |(name, config): (String, TopicConfig)| TopicSettings {
        name,
        read: config.read_queue_nums,
        write: config.write_queue_nums,
        perm: config.perm,
        sys_flag: config.topic_sys_flag,
    };
    topics.into_iter().map(topic).collect()
}

/// A static topic's mapping, as brokers write it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MappingInfo {
    bname: String,
    curr_id_map: BTreeMap<i32, i32>,
    dirty: bool,
    epoch: i64,
    scope: Option<String>,
    topic: String,
    total_queues: i32,
}

fn mappings(of: BTreeMap<String, serde_json::Value>) -> Result<Vec<QueueMapping>, String> {
    let mapping = |(topic, info)| {
        let info: MappingInfo =
            serde_json::from_value(info).map_err(|error| format!("mapping of static topic {topic}: {error}"))?;
        Ok(QueueMapping {
            topic: info.topic,
            scope: info.scope,
            total_queues: info.total_queues,
            group: info.bname,
            epoch: info.epoch,
            dirty: info.dirty,
            current: info.curr_id_map,
        })
    };
    of.into_iter().map(mapping).collect()
}

/// What brokers compute over the body: the CRC-32 without its sign bit.
fn checksum(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7fff_ffff) as i32
}
