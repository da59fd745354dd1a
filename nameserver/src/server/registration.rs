//! Requests of brokers and operators about brokers and topics. Runs on the registrar's thread.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{
    Body, DataVersion, Form, QueueMappingInfo, RegisteredTopic, RegisteredTopics, TopicRouteData, json,
};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    AddWritePermResponse, BrokerHeartbeatHeader, BrokerIdentityHeader, BrokerNameHeader, DeleteTopicInNamesrvHeader,
    HeaderError, QueryDataVersionResponse, RegisterBrokerHeader, RegisterBrokerResponse, WipeWritePermResponse,
};
use escrowmq_common::limits::{ADDRESS_BYTES_MAX, BROKER_NAME_BYTES_MAX, NAMED_TOPIC_BYTES_MAX};
use escrowmq_common::remoting::Connection;
use escrowmq_common::some_lines;

use super::names::{self, BadName};
use super::order::Turn;
use super::refusals::Refusal;
use super::registrar::{Registrar, origin};
use super::{bad_header, failed, success};
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::routes::{BrokerId, Goodbye, QueueMapping, Queues, Refused, Registration, SILENCE_MAX};

/// Brokers from this version on (3.0.11) send their topics inside a larger body.
const WHOLE_BODY_VERSION: i32 = 37;

/// Longest silence that a registration may ask for; more would be a mistake in its unit.
const SILENCE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Most queues of a topic at a group that a route shows, for reading and for writing each: clients make an entry for each.
const QUEUES_MAX: i32 = 65_536;

/// Most groups at which a topic is registered by hand in one request.
const GROUPS_BY_HAND_MAX: usize = 1024;

/// Largest body of a request other than a registration, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Our own brokers mark a registration that has some of their topics only. Others ignore the field.
const PART_FIELD: &str = "escrowmqPart";

/// Our own brokers say up to which term a goodbye speaks. Others have no such field.
const TERM_FIELD: &str = "escrowmqTerm";

impl Registrar {
    /// `REGISTER_BROKER`. The answer carries all queue orders, and for slaves where their master is.
    pub(super) fn register_broker(&mut self, connection: &Arc<Connection>, request: &Frame) -> Frame {
        let registration = match self.registration(connection, request) {
            Ok(registration) => registration,
            Err(Unreadable::Header(error)) => return self.refuse_header(connection, request, &error),
            Err(Unreadable::Other(why)) => return self.refuse(connection, request, Refusal::Malformed, why),
        };
        let outcome = self.change(|table, now, changes| table.register(now, registration, changes));
        let registered = match outcome {
            Ok(registered) => registered,
            // Every broker meets this one now and then.
            Err(refused @ Refused::NotYetRegistered) => return failed(request, refused.to_string()),
            Err(refused @ Refused::Full { .. }) => {
                return self.refuse(connection, request, Refusal::RoutesFull, refused.to_string());
            }
            Err(refused @ Refused::Older { .. }) => {
                return self.refuse(connection, request, Refusal::Older, refused.to_string());
            }
            Err(refused @ Refused::Taken { .. }) => {
                return self.refuse(connection, request, Refusal::Taken, refused.to_string());
            }
        };
        self.note_broker(connection);
        let answer = success(request).with_header(&RegisterBrokerResponse {
            ha_server_addr: registered.ha_address.as_deref(),
            master_addr: registered.master_address.as_deref(),
        });
        let with_order = self.parts.config.load().return_order_topic_config_to_broker;
        let order = with_order.then(|| self.parts.kv.list(ORDER_TOPIC_CONFIG));
        match order.flatten() {
            Some(order) => answer.with_body(order),
            None => answer,
        }
    }

    /// `UNREGISTER_BROKER`.
    pub(super) fn unregister_broker(&mut self, connection: &Connection, request: &Frame) -> Frame {
        let broker = match request.header::<BrokerIdentityHeader<'_>>() {
            Ok(broker) => broker,
            Err(error) => return self.refuse_header(connection, request, &error),
        };
        let Ok(term) = request.fields.get(TERM_FIELD).map(str::parse::<i64>).transpose() else {
            return self.refuse(connection, request, Refusal::Malformed, format!("{TERM_FIELD}: no number"));
        };
        let (from, id) = (origin(connection), BrokerId(broker.broker_id));
        let (group, address) = (broker.broker_name, broker.broker_addr);
        let outcome = self.change(|table, _, changes| table.unregister(from, group, address, id, term, changes));
        let (name, address) = (names::shown(broker.broker_name), names::shown(broker.broker_addr));
        match outcome {
            Goodbye::Heard => {
                some_lines!(info, event = "broker_unregistered", peer = %connection.peer(), group = %name, address = %address, %id, "broker unregistered");
                success(request)
            }
            Goodbye::ForSomebodyElse => {
                let why = format!(
                    "{name} at {address} was registered by another process, or with a newer term, and stays: whoever registered it \
                     has to unregister it"
                );
                self.refuse(connection, request, Refusal::Stranger, why)
            }
        }
    }

    /// `BROKER_HEARTBEAT`. One from a broker that is not listed is answered like any other: it will register anyway.
    pub(super) fn broker_heartbeat(&mut self, connection: &Connection, request: &Frame) -> Frame {
        match request.header::<BrokerHeartbeatHeader<'_>>() {
            Ok(broker) => {
                let from = origin(connection);
                self.change(|table, now, _| table.heartbeat(now, from, broker.broker_addr));
                success(request)
            }
            Err(error) => self.refuse_header(connection, request, &error),
        }
    }

    /// `QUERY_DATA_VERSION`: a broker asks whether it has to register at all.
    pub(super) fn query_data_version(&mut self, connection: &Connection, request: &Frame) -> Frame {
        let broker = match request.header::<BrokerIdentityHeader<'_>>() {
            Ok(broker) => broker,
            Err(error) => return self.refuse_header(connection, request, &error),
        };
        let theirs: DataVersion = match body(request) {
            Ok(version) => version,
            Err(why) => return self.refuse(connection, request, Refusal::Malformed, why),
        };
        let from = origin(connection);
        let ours = self.change(|table, now, _| table.query_version(now, from, broker.broker_addr));
        let answer =
            success(request).with_header(&QueryDataVersionResponse { changed: ours.as_ref() != Some(&theirs) });
        match ours {
            Some(ours) => answer.with_body(json::to_bytes(&ours, Form::Strict)),
            None => answer,
        }
    }

    /// `WIPE_WRITE_PERM_OF_BROKER`.
    pub(super) fn wipe_write_permission(&mut self, connection: &Connection, request: &Frame, turn: &Turn) -> Frame {
        match request.header::<BrokerNameHeader<'_>>() {
            Ok(broker) => {
                let group = broker.broker_name;
                let topics = self.change(|table, _, c| table.wipe_write_permission(group, c));
                turn.tell(group, "as registered", format_args!("no writing, {topics} topics"));
                success(request).with_header(&WipeWritePermResponse { wipe_topic_count: topics as i32 })
            }
            Err(error) => self.refuse_header(connection, request, &error),
        }
    }

    /// `ADD_WRITE_PERM_OF_BROKER`.
    pub(super) fn add_write_permission(&mut self, connection: &Connection, request: &Frame, turn: &Turn) -> Frame {
        match request.header::<BrokerNameHeader<'_>>() {
            Ok(broker) => {
                let group = broker.broker_name;
                let topics = self.change(|table, _, c| table.add_write_permission(group, c));
                turn.tell(group, "as before", format_args!("writing, {topics} topics"));
                success(request).with_header(&AddWritePermResponse { add_topic_count: topics as i32 })
            }
            Err(error) => self.refuse_header(connection, request, &error),
        }
    }

    /// `DELETE_TOPIC_IN_NAMESRV`.
    pub(super) fn delete_topic(&mut self, connection: &Connection, request: &Frame, turn: &Turn) -> Frame {
        match request.header::<DeleteTopicInNamesrvHeader<'_>>() {
            Ok(delete) => {
                let cluster = delete.cluster_name.filter(|cluster| !cluster.is_empty());
                let old = self.queues_of(delete.topic);
                self.change(|table, _, changes| table.delete_topic(delete.topic, cluster, changes));
                let new = self.queues_of(delete.topic);
                turn.tell(delete.topic, old, new);
                success(request)
            }
            Err(error) => self.refuse_header(connection, request, &error),
        }
    }

    /// `REGISTER_TOPIC_IN_NAMESRV`.
    pub(super) fn register_topic(&mut self, connection: &Connection, request: &Frame, turn: &Turn) -> Frame {
        let Some(topic) = request.fields.get("topic").filter(|topic| !topic.is_empty()) else {
            return self.refuse(connection, request, Refusal::Malformed, "topic: missing".to_owned());
        };
        let queues = match queues_by_hand(topic, request) {
            Ok(queues) => queues,
            Err(why) => return self.refuse(connection, request, Refusal::Malformed, why),
        };
        let old = self.queues_of(topic);
        let outcome = self.change(|table, _, changes| table.register_topic(topic, queues, changes));
        match outcome {
            Ok(_) => {
                let new = self.queues_of(topic);
                turn.tell(topic, old, new);
                success(request)
            }
            Err(refused) => self.refuse(connection, request, Refusal::RoutesFull, refused.to_string()),
        }
    }

    fn refuse_header(&self, connection: &Connection, request: &Frame, error: &HeaderError) -> Frame {
        self.parts.refusals.count(Refusal::Malformed, connection.peer(), error);
        bad_header(request, error)
    }

    fn refuse(&self, connection: &Connection, request: &Frame, refusal: Refusal, why: String) -> Frame {
        self.parts.refusals.count(refusal, connection.peer(), &why);
        failed(request, why)
    }

    /// A topic's queues in a line, as the log shows old and new.
    fn queues_of(&self, topic: &str) -> String {
        const SHOWN: usize = 8;
        let Some(route) = self.parts.routes.topic(topic) else {
            return "none".to_owned();
        };
        let shown = route.queues().iter().take(SHOWN).map(|queues| {
            let Queues { group, read, write, perm, .. } = queues;
            format!("{}:read={read},write={write},perm={perm}", names::shown(group))
        });
        let mut shown: Vec<_> = shown.collect();
        if route.queues().len() > SHOWN {
            shown.push(format!("and at {} groups more", route.queues().len() - SHOWN));
        }
        shown.join(" ")
    }

    /// Takes a request apart; the error is a text for its sender. A listed broker that sends an unreadable body
    /// stays in the routes as it was.
    fn registration(&mut self, connection: &Connection, request: &Frame) -> Result<Registration, Unreadable> {
        let header: RegisterBrokerHeader<'_> = request.header().map_err(Unreadable::Header)?;
        check_names(&header).map_err(|bad| bad.to_string())?;
        if header.broker_id < 0 {
            return Err("brokerId: below 0".to_owned().into());
        }
        let (from, id) = (origin(connection), BrokerId(header.broker_id));
        let topics = topics(&header, request).map_err(|why| {
            let stays = self.change(|table, now, _| table.stays(now, from, header.broker_name, header.broker_addr, id));
            if stays { format!("{why}; the topics that were registered before stay") } else { why }
        })?;
        let asked = header.heartbeat_timeout_millis.map(u64::try_from);
        let silence_max = match asked {
            Some(Ok(millis @ 1..)) => Duration::from_millis(millis).min(SILENCE_LIMIT),
            _ => SILENCE_MAX,
        };
        // Brokers before 5.0 do not send the field at all, and that makes a difference.
        let knows_acting = request.fields.get("enableActingMaster").is_some();
        Ok(Registration {
            origin: from,
            cluster: header.cluster_name.into(),
            group: header.broker_name.into(),
            address: header.broker_addr.into(),
            id,
            ha_address: header.ha_server_addr.into(),
            zone: header.zone_name.filter(|zone| !zone.is_empty()).map(Arc::from),
            acting_master: knows_acting.then_some(header.enable_acting_master),
            silence_max,
            version: topics.data_version,
            is_part: request.fields.get(PART_FIELD) == Some("true"),
            mappings: topics.mappings.into_iter().map(mapping).collect(),
            topics: topics.topics,
        })
    }
}

/// Why a registration cannot be taken apart.
enum Unreadable {
    Header(HeaderError),
    Other(String),
}

impl From<String> for Unreadable {
    fn from(why: String) -> Self {
        Unreadable::Other(why)
    }
}

fn check_names(header: &RegisterBrokerHeader<'_>) -> Result<(), BadName> {
    names::check("brokerName", header.broker_name, BROKER_NAME_BYTES_MAX)?;
    names::check("brokerAddr", header.broker_addr, ADDRESS_BYTES_MAX)?;
    names::check("clusterName", header.cluster_name, BROKER_NAME_BYTES_MAX)?;
    names::check_optional("haServerAddr", header.ha_server_addr, ADDRESS_BYTES_MAX)?;
    names::check_optional("__ZONE_NAME", header.zone_name.unwrap_or_default(), BROKER_NAME_BYTES_MAX)
}

/// The topics of a registration. A topic of which no route can be made is left out: whoever made it must not take the
/// others' routes away.
fn topics(header: &RegisterBrokerHeader<'_>, request: &Frame) -> Result<RegisteredTopics, String> {
    if header.body_crc32 != 0 && header.body_crc32 != checksum(&request.body) {
        return Err("crc32 not match".to_owned());
    }
    let read = if request.body.is_empty() {
        Ok(RegisteredTopics::default())
    } else if request.version < WHOLE_BODY_VERSION {
        RegisteredTopics::decode_bare(&request.body)
    } else {
        RegisteredTopics::decode(&request.body, header.compressed)
    };
    let mut read = read.map_err(|error| error.to_string())?;
    let (topics, mappings) = (read.topics.len(), read.mappings.len());
    read.topics.retain(is_topic);
    read.mappings.retain(is_mapping);
    let left_out = read.unnameable + topics - read.topics.len() + mappings - read.mappings.len();
    if left_out > 0 {
        let group = header.broker_name;
        some_lines!(warn, group, left_out, "topics that no client could use are left out: see docs/limits.md");
    }
    Ok(read)
}

fn is_topic(topic: &RegisteredTopic) -> bool {
    let queues = 0..=QUEUES_MAX;
    names::check("topic", &topic.name, NAMED_TOPIC_BYTES_MAX).is_ok()
        && queues.contains(&topic.read)
        && queues.contains(&topic.write)
}

fn is_mapping(mapping: &QueueMappingInfo) -> bool {
    names::check("topic", &mapping.topic, NAMED_TOPIC_BYTES_MAX).is_ok()
        && names::check_optional("bname", &mapping.bname, BROKER_NAME_BYTES_MAX).is_ok()
        && names::check_optional("scope", mapping.scope.as_deref().unwrap_or_default(), BROKER_NAME_BYTES_MAX).is_ok()
        && mapping.curr_id_map.len() <= QUEUES_MAX as usize
}

fn mapping(info: QueueMappingInfo) -> QueueMapping {
    QueueMapping {
        topic: info.topic,
        scope: info.scope,
        total_queues: info.total_queues,
        group: info.bname,
        epoch: info.epoch,
        dirty: info.dirty,
        current: info.curr_id_map,
    }
}

fn queues_by_hand(topic: &str, request: &Frame) -> Result<Vec<Queues>, String> {
    names::check("topic", topic, NAMED_TOPIC_BYTES_MAX).map_err(|bad| bad.to_string())?;
    let route: TopicRouteData = body(request)?;
    let groups = route.queue_datas.len();
    if groups > GROUPS_BY_HAND_MAX {
        return Err(format!("queueDatas: {groups} entries, the limit is {GROUPS_BY_HAND_MAX}"));
    }
    let queues = route.queue_datas.into_iter().map(|queues| {
        let (read, write) = (queues.read_queue_nums, queues.write_queue_nums);
        for (field, number) in [("readQueueNums", read), ("writeQueueNums", write)] {
            if !(0..=QUEUES_MAX).contains(&number) {
                return Err(format!("{field}: {number} is not between 0 and {QUEUES_MAX}"));
            }
        }
        let group = queues.broker_name.into();
        Ok(Queues { group, read, write, perm: queues.perm, sys_flag: queues.topic_sys_flag })
    });
    queues.collect()
}

/// A body of few texts and numbers.
fn body<T: Body>(request: &Frame) -> Result<T, String> {
    let bytes = request.body.len();
    if bytes > BODY_BYTES_MAX {
        return Err(format!("body: {bytes} bytes, the limit is {BODY_BYTES_MAX}"));
    }
    json::from_slice(&request.body).map_err(|error| error.to_string())
}

/// The checksum that brokers compute over the body: the CRC-32 without its sign bit.
fn checksum(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7fff_ffff) as i32
}
