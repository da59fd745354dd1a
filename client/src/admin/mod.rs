//! Requests of operators and tools to a cluster.

mod decide;
mod transactions;

pub use decide::{DecideError, Decided, MessagePlace};
pub use transactions::TransactionQuery;

use std::time::{SystemTime, UNIX_EPOCH};

use escrowmq_common::body::{ClusterInfo, json};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CreateTopicHeader, ViewMessageHeader};
use escrowmq_common::limits::{CLIENT_ID_BYTES_MAX, NAMED_GROUP_BYTES_MAX, QUEUES_MAX};
use escrowmq_common::message::{Message as Unit, OffsetMessageId};

use crate::client::Client;
use crate::consumer::{offset_max, offset_min, offset_put, offset_search, offset_stored};
use crate::core::{expect_success, refused};
use crate::error::RequestError;
use crate::limit;
use crate::message::MessageExt;
use crate::names::LookUpError;
use crate::queue::MessageQueue;
use crate::route::MASTER;

/// A few questions and commands that programs need besides sending and consuming. Made by
/// [`Client::admin`](crate::Client::admin).
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// A broker that takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Its name.
    pub broker: String,
    /// `host:port`.
    pub addr: String,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client }
    }

    /// Creates `topic` with `queues` queues on every broker group of the cluster, or changes the number of its queues.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<(), RequestError> {
        if queues == 0 || queues > QUEUES_MAX {
            let reason = format!("a topic has 1 to {QUEUES_MAX} queues on each broker, not {queues}");
            return Err(RequestError::invalid(reason));
        }
        let core = self.client.core();
        limit::topic(topic).map_err(|error| RequestError::invalid(format!("topic {error}")))?;
        let header = CreateTopicHeader::new(topic, queues as i32);
        for BrokerAddress { addr, .. } in self.masters().await? {
            core.request(&addr, Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)).await?;
        }
        Ok(())
    }

    /// The queues of `topic` that can be read now, in order.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, RequestError> {
        Ok(self.client.core().routes.for_reading(topic).await?.readable.iter().cloned().collect())
    }

    /// The offset of the oldest message that the queue keeps.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64, RequestError> {
        self.client.core().routes.for_reading(queue.topic()).await?;
        offset_min(self.client.core(), queue).await
    }

    /// The offset that the next message of the queue will get.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64, RequestError> {
        self.client.core().routes.for_reading(queue.topic()).await?;
        offset_max(self.client.core(), queue).await
    }

    /// The offset of the first message stored at or after `time`; the end of the queue if there is none.
    pub async fn search_offset(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64, RequestError> {
        self.client.core().routes.for_reading(queue.topic()).await?;
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        offset_search(self.client.core(), queue, millis).await
    }

    /// The offset that a consumer group has stored for the queue.
    pub async fn consumer_offset(&self, group: &str, queue: &MessageQueue) -> Result<Option<i64>, RequestError> {
        bounded("group", group, NAMED_GROUP_BYTES_MAX)?;
        self.client.core().routes.for_reading(queue.topic()).await?;
        offset_stored(self.client.core(), group, queue).await
    }

    /// Stores an offset for a consumer group. Members that run go on where they are and may overwrite it.
    pub async fn set_consumer_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
    ) -> Result<(), RequestError> {
        bounded("group", group, NAMED_GROUP_BYTES_MAX)?;
        if offset < 0 {
            return Err(RequestError::invalid(format!("an offset is not negative: {offset}")));
        }
        self.client.core().routes.for_reading(queue.topic()).await?;
        offset_put(self.client.core(), group, queue, offset).await
    }

    /// The message with this offset message id, from the broker that the id names; `None` if it is not there (any more).
    pub async fn view_message(&self, topic: &str, offset_message_id: &str) -> Result<Option<MessageExt>, RequestError> {
        let core = self.client.core();
        let id: OffsetMessageId = offset_message_id.parse().map_err(RequestError::invalid)?;
        let addr = id.host.to_string();
        let header = ViewMessageHeader { offset: id.position, topic: Some(topic) };
        let ask = Frame::request(request::VIEW_MESSAGE_BY_ID).with_header(&header);
        let answer = core.call(&addr, ask, core.settings.request_timeout).await?;
        match answer.code {
            response::SUCCESS => {}
            // Brokers answer these codes when there is no such message.
            response::SYSTEM_ERROR | response::QUERY_NOT_FOUND => return Ok(None),
            _ => return Err(refused(&addr, answer)),
        }
        let unit = Unit::decode(&answer.body).map_err(|error| RequestError::malformed(&addr, error))?;
        Ok(Some(MessageExt::from_unit(unit, "")))
    }

    /// Tells every broker that the client `client_id` has left its producer group, its consumer group, or both. For
    /// clients that are gone without having said so; those that live come back with their next heartbeat.
    pub async fn unregister(
        &self,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Result<(), RequestError> {
        bounded("client id", client_id, CLIENT_ID_BYTES_MAX)?;
        for group in producer_group.into_iter().chain(consumer_group) {
            bounded("group", group, NAMED_GROUP_BYTES_MAX)?;
        }
        let core = self.client.core();
        for BrokerAddress { addr, .. } in self.masters().await? {
            core.unregister(&addr, client_id, producer_group, consumer_group).await?;
        }
        Ok(())
    }

    /// The brokers that take writes, of all clusters that the name servers know.
    pub async fn masters(&self) -> Result<Vec<BrokerAddress>, RequestError> {
        let core = self.client.core();
        let ask = Frame::request(request::GET_BROKER_CLUSTER_INFO);
        let (addr, answer) = core.routes.ask_names(&ask).await?;
        let answer = expect_success(&addr, answer).map_err(LookUpError::refused)?;
        let info: ClusterInfo = json::from_slice(&answer.body).map_err(|error| LookUpError::malformed(&addr, error))?;
        let masters = info.broker_addr_table.into_values().filter_map(|mut broker| {
            let addr = broker.broker_addrs.remove(&MASTER)?;
            Some(BrokerAddress { cluster: broker.cluster, broker: broker.broker_name, addr })
        });
        Ok(masters.collect())
    }
}

/// Whether a text may be sent, as the error of a request that was not.
fn bounded(field: &str, text: &str, max: usize) -> Result<(), RequestError> {
    limit::bytes(text, max).map_err(|error| RequestError::invalid(format!("{field} {error}")))
}
