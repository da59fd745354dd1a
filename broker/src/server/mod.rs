//! Requests in, responses out.
//!
//! [`Server`] is the [`Service`] of every connection. [`Server::on_request`] runs on the connection's own task, in order
//! of arrival, and never blocks: a handler reads what is in memory and answers, submits a command and answers in its
//! completion, or spawns a task for what may wait.
//!
//! Promises: every request that is not one-way gets exactly one response, in the header encoding it came in; bad input
//! gets a code and a remark that says what is wrong; one client's input harms nobody else; each change by an operator leaves
//! a line in the log (`reply::audit`).
//!
//! [`dispatch`] is the table of all codes; there is one file per request family. Each handler has the shape
//! `handle(broker, request, reply)` and hands on the parts that it takes from the broker.
//!
//! Left to others: durability (`shard`), finding and holding messages for a pull (`delivery`), the members of groups
//! (`client_registry`).

#![allow(clippy::needless_pass_by_value, reason = "all handlers have one shape: they own their request")]

mod admin;
mod answer;
mod attributes;
mod backup;
mod dispatch;
mod end_transaction;
mod give_up;
mod groups;
mod halves;
mod lag;
mod local;
mod locks;
mod members;
mod membership;
mod messages;
mod offsets;
mod pace;
mod progress;
mod pull;
mod recall;
mod relay;
mod replication;
mod reset;
mod runtime;
mod send;
mod send_back;
pub(crate) mod settings;
mod slow;
mod spans;
mod stats;
pub(crate) mod topics;

pub(crate) use dispatch::request_times;

use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, Service};

use crate::broker::Broker;
use crate::forward::{Forwarder, Handle};
use crate::reply::Reply;

/// The service of the broker's connections.
pub(crate) struct Server {
    broker: Arc<Broker>,
    /// For what only a leader can do, while this member does not lead.
    forwarder: Arc<Forwarder>,
    handle: Handle,
    /// Whether its connections are those of other members, for their clients.
    serves_members: bool,
    pace: pace::Pace,
}

impl Server {
    /// Serves requests with the parts of this broker, or passes them on.
    pub(crate) fn new(broker: Arc<Broker>, forwarder: Arc<Forwarder>) -> Self {
        let carrying_out = Arc::clone(&broker);
        let handle: Handle = Arc::new(move |connection, request| handle(&carrying_out, connection, request));
        Self { broker, forwarder, handle, serves_members: false, pace: pace::Pace::default() }
    }

    /// Serves what other members pass on.
    pub(crate) fn for_members(broker: Arc<Broker>, forwarder: Arc<Forwarder>) -> Self {
        Self { serves_members: true, ..Self::new(broker, forwarder) }
    }

    /// Another member leads, or none: what any member can do is done here, the rest is for the leader.
    fn elsewhere(&self, connection: &Arc<Connection>, request: Frame) {
        match request.code {
            request::HEART_BEAT => {
                self.forwarder.tell(connection, request.clone(), &self.handle);
                membership::accept(way_back(&self.broker, connection, &request));
            }
            request::UPDATE_BROKER_CONFIG if settings::is_for_leader(&self.broker, &request) => {
                self.forwarder.pass(connection, request, &self.handle);
            }
            code if dispatch::is_of_any_member(code) => handle(&self.broker, connection, request),
            _ => self.forwarder.pass(connection, request, &self.handle),
        }
    }
}

/// The way back for a request that came just now, with its span.
fn way_back(broker: &Broker, connection: &Arc<Connection>, request: &Frame) -> Reply {
    Reply::new(connection, request, &broker.request_times, &broker.audit, spans::begin(broker, connection, request))
}

/// Carries a request out.
fn handle(broker: &Arc<Broker>, connection: &Arc<Connection>, request: Frame) {
    let code = request.code;
    // Builds the way back first: from here on, every path answers.
    let reply = way_back(broker, connection, &request);
    match dispatch::handler(code) {
        Some(handle) => handle(broker, request, reply),
        None => reply.unsupported(code),
    }
}

impl Service for Server {
    fn on_request(&self, connection: &Arc<Connection>, mut request: Frame) {
        let code = request.code;
        if self.serves_members {
            self.forwarder.counts().arrived.add_one();
        }
        if !dispatch::is_send(code) && !dispatch::parses_body(code) {
            // Nobody reads it, and it keeps a read buffer for as long as the request waits.
            request.body = Bytes::new();
        }
        if !self.forwarder.is_here() {
            return self.elsewhere(connection, request);
        }
        if code == request::HEART_BEAT {
            self.forwarder.note(connection, request.clone(), &self.handle);
        }
        handle(&self.broker, connection, request);
    }

    fn on_response(&self, connection: &Arc<Connection>, response: Frame) {
        if let Some(response) = connection.complete(response) {
            self.forwarder.answer(connection, response);
        }
    }

    fn parses_body(&self, code: i32) -> bool {
        dispatch::parses_body(code)
    }

    fn is_vital(&self, code: i32) -> bool {
        dispatch::is_vital(code)
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

    fn on_close(&self, connection: &Arc<Connection>) {
        self.forwarder.closed(connection);
        membership::closed(&self.broker, connection);
    }
}
