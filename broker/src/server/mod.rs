//! Requests in, responses out: what each request code means here.
//!
//! [`Server`] is the [`Service`] of every connection. [`Server::on_request`] runs on the connection's own task, in order
//! of arrival, and never blocks: a handler reads what is in memory and answers, submits a command and answers in its
//! completion, or spawns a task for what may wait.
//!
//! Promises: every request that is not one-way gets exactly one response, in the header encoding it came in; bad input
//! gets a code and a remark that says what is wrong; one client's input harms nobody else; what an operator changes leaves
//! a line in the log (`reply::audit`). One file per request family.
//!
//! Left to others: durability (`shard`), what a group may consume (`delivery`), who is connected (`client_registry`).

mod admin;
mod answer;
mod attributes;
mod backup;
mod end_transaction;
mod give_up;
pub(crate) mod groups;
mod halves;
mod lag;
mod local;
mod locks;
mod membership;
mod messages;
mod offsets;
mod pace;
mod progress;
mod pull;
mod recall;
mod relay;
mod reset;
mod runtime;
mod send;
mod send_back;
mod settings;
mod slow;
mod stats;
pub(crate) mod topics;

use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, Service};

use crate::broker::Broker;
use crate::reply::Reply;

/// The service of the broker's connections.
pub(crate) struct Server {
    broker: Arc<Broker>,
    pace: pace::Pace,
}

impl Server {
    /// Serves requests with the parts of this broker.
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker, pace: pace::Pace::default() }
    }
}

/// Whether a request brings a message, or several, in its body.
fn is_send(code: i32) -> bool {
    matches!(
        code,
        request::SEND_MESSAGE
            | request::SEND_MESSAGE_V2
            | request::SEND_BATCH_MESSAGE
            | request::SEND_REPLY_MESSAGE
            | request::SEND_REPLY_MESSAGE_V2
    )
}

impl Service for Server {
    fn on_request(&self, connection: &Arc<Connection>, mut request: Frame) {
        let broker = &self.broker;
        if !is_send(request.code) && !self.parses_body(request.code) {
            // Nobody reads it, and it keeps a read buffer for as long as the request waits.
            request.body = Bytes::new();
        }
        // Builds the way back first: from here on, every path answers.
        let reply = Reply::new(connection, &request);
        match request.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                send::handle(broker, connection, request, reply);
            }
            request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                send::handle_reply(broker, connection, request, reply);
            }
            request::RECALL_MESSAGE => recall::handle(broker, &request, reply),
            request::CONSUMER_SEND_MSG_BACK => send_back::handle(broker, request, reply),
            request::END_TRANSACTION => end_transaction::end(broker, &request, reply),
            request::RESUME_CHECK_HALF_MESSAGE => end_transaction::resume(broker, &request, reply),
            request::LIST_TRANSACTIONS
            | request::GET_TRANSACTION
            | request::COUNT_TRANSACTIONS
            | request::DECIDE_TRANSACTION => halves::handle(broker, &request, reply),
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => pull::handle(broker, connection, request, reply),
            request::QUERY_CONSUMER_OFFSET
            | request::UPDATE_CONSUMER_OFFSET
            | request::GET_MAX_OFFSET
            | request::GET_MIN_OFFSET
            | request::SEARCH_OFFSET_BY_TIMESTAMP
            | request::GET_EARLIEST_MSG_STORETIME => offsets::handle(broker, connection, &request, reply),
            request::HEART_BEAT
            | request::UNREGISTER_CLIENT
            | request::GET_CONSUMER_LIST_BY_GROUP
            | request::CHECK_CLIENT_CONFIG
            | request::QUERY_ASSIGNMENT => membership::handle(broker, connection, &request, reply),
            request::LOCK_BATCH_MQ | request::UNLOCK_BATCH_MQ => locks::handle(broker, &request, reply),
            request::VIEW_MESSAGE_BY_ID | request::QUERY_MESSAGE => messages::handle(broker, &request, reply),
            request::UPDATE_AND_CREATE_TOPIC
            | request::UPDATE_AND_CREATE_TOPIC_LIST
            | request::DELETE_TOPIC_IN_BROKER
            | request::GET_TOPIC_CONFIG
            | request::GET_ALL_TOPIC_CONFIG => topics::handle(broker, request, reply),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
            | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
            | request::DELETE_SUBSCRIPTIONGROUP
            | request::GET_SUBSCRIPTIONGROUP_CONFIG
            | request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::handle(broker, request, reply),
            request::UPDATE_BROKER_CONFIG | request::GET_BROKER_CONFIG | request::GET_BROKER_RUNTIME_INFO => {
                settings::handle(broker, connection, request, reply);
            }
            request::INVOKE_BROKER_TO_RESET_OFFSET
            | request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS
            | request::GET_CONSUMER_RUNNING_INFO
            | request::CONSUME_MESSAGE_DIRECTLY => relay::handle(broker, connection, request, reply),
            request::GET_TOPIC_STATS_INFO
            | request::GET_CONSUME_STATS
            | request::GET_CONSUMER_CONNECTION_LIST
            | request::GET_PRODUCER_CONNECTION_LIST
            | request::QUERY_TOPIC_CONSUME_BY_WHO => stats::handle(broker, request, reply),
            request::GIVE_UP_LOG => give_up::handle(broker, &request, reply),
            request::PREPARE_BACKUP | request::RENEW_BACKUP | request::RELEASE_BACKUP => {
                backup::handle(broker, connection, request, reply);
            }
            _ => admin::handle(broker, connection, request, reply),
        }
    }

    fn parses_body(&self, code: i32) -> bool {
        // All whose body is JSON or text. Sends have their own form, which is cheap to read; others have no body.
        matches!(
            code,
            request::HEART_BEAT
                | request::CHECK_CLIENT_CONFIG
                | request::LOCK_BATCH_MQ
                | request::UNLOCK_BATCH_MQ
                | request::UPDATE_AND_CREATE_TOPIC_LIST
                | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
                | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
                | request::UPDATE_BROKER_CONFIG
        )
    }

    fn is_vital(&self, code: i32) -> bool {
        matches!(
            code,
            request::END_TRANSACTION
                | request::UPDATE_CONSUMER_OFFSET
                | request::CONSUMER_SEND_MSG_BACK
                | request::HEART_BEAT
                | request::UNREGISTER_CLIENT
        )
    }

    fn on_read(&self, requests: &mut dyn FnMut()) -> bool {
        let executor = self.broker.shard.executor();
        let held = executor.hold(requests);
        if held && self.pace.read() {
            self.after_reads();
            return false;
        }
        held
    }

    /// The thread that read what was submitted carries it out.
    fn after_reads(&self) {
        self.pace.carried_out();
        self.broker.shard.executor().lend();
    }

    fn on_open(&self, _connection: &Arc<Connection>) {
        self.broker.metrics.connections.add_one();
        self.broker.metrics.connections_opened.add_one();
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        self.broker.metrics.connections.take_one();
        membership::closed(&self.broker, connection);
    }
}
