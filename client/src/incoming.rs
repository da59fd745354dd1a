//! The requests that brokers send to clients.

use std::sync::{Arc, OnceLock, Weak};

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::{Message as Unit, properties::name};
use escrowmq_common::remoting::{Connection, Service};

use crate::consumer::ResetRequest;
use crate::core::Core;
use crate::request_reply;

/// The service behind a client's connections. Everything here is a look-up and a hand-over: the connection's task waits.
#[derive(Default)]
pub(crate) struct Incoming {
    /// Set once, right after the core was made.
    core: OnceLock<Weak<Core>>,
}

impl Incoming {
    pub(crate) fn attach(&self, core: &Arc<Core>) {
        let first = self.core.set(Arc::downgrade(core)).is_ok();
        assert!(first, "a client has one core");
    }

    fn core(&self) -> Option<Arc<Core>> {
        self.core.get()?.upgrade()
    }
}

impl Service for Incoming {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        let Some(core) = self.core() else {
            return;
        };
        match request.code {
            request::CHECK_TRANSACTION_STATE => check(&core, connection, request),
            request::PUSH_REPLY_MESSAGE_TO_CLIENT => request_reply::arrived(&core, connection, &request),
            request::NOTIFY_CONSUMER_IDS_CHANGED => {
                let group = request.fields.get("consumerGroup").unwrap_or_default();
                if let Some(consumer) = core.groups.consumer(group) {
                    consumer.rebalance();
                }
            }
            request::RESET_CONSUMER_CLIENT_OFFSET => match ResetRequest::decode(&request) {
                Ok(reset) => {
                    if let Some(consumer) = core.groups.consumer(&reset.group) {
                        consumer.reset(reset);
                    }
                }
                Err(error) => {
                    tracing::warn!(peer = %connection.peer(), %error, "unreadable offset reset");
                }
            },
            request::GET_CONSUMER_STATUS_FROM_CLIENT => asked(&core, connection, request, "group"),
            request::GET_CONSUMER_RUNNING_INFO | request::CONSUME_MESSAGE_DIRECTLY => {
                asked(&core, connection, request, "consumerGroup");
            }
            code => {
                if !request.is_oneway() {
                    let remark = format!(" request type {code} not supported");
                    let answer = Frame::response(&request, response::REQUEST_CODE_NOT_SUPPORTED);
                    connection.reply(&answer.with_remark(remark));
                }
            }
        }
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        if let Some(core) = self.core()
            && !core.shutdown.is_cancelled()
        {
            core.brokers.connection_lost(connection.id());
        }
    }
}

/// Hands a tool's question to the consumer group that the field names.
fn asked(core: &Core, connection: &Arc<Connection>, request: Frame, field: &str) {
    let group = request.fields.get(field).unwrap_or_default();
    if let Some(consumer) = core.groups.consumer(group) {
        consumer.asked(connection, request);
    } else {
        let remark = format!("the consumer group {group:?} is not in this client");
        connection.reply(&Frame::response(&request, response::SYSTEM_ERROR).with_remark(remark));
    }
}

/// Hands a check to the producer group that the message names. One that is not here is nobody's: the broker asks again.
fn check(core: &Core, connection: &Arc<Connection>, request: Frame) {
    let unit = match Unit::decode(&request.body) {
        Ok(unit) => unit,
        Err(error) => {
            tracing::warn!(peer = %connection.peer(), %error, "unreadable check");
            return;
        }
    };
    let group = unit.property(name::PRODUCER_GROUP);
    if let Some(producer) = group.and_then(|group| core.groups.producer(group)) {
        producer.check(connection, request, unit);
    } else {
        tracing::debug!(peer = %connection.peer(), "check for a group that is not here");
    }
}
