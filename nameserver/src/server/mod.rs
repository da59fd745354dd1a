//! Requests in, answers out.
//!
//! Lookups are answered right on the connection's task from the published [`Routes`]. Whatever changes routes goes
//! through one queue to the [`registrar`], which owns the route table; changes of the KV configuration go to its
//! writer. Each request is answered once, by the one who is done with it.
//!
//! ```text
//!                   lookups, lists        --> Routes, Kv, Config (read only)      --> reply
//!  on_request -+--> registrations, topics --> registrar (one thread, one table)   --> reply, Routes
//!              +--> KV changes            --> KvWriter (one file)                 --> reply
//!              `--> settings              --> one blocking task at a time         --> reply
//! ```
//!
//! One file per family of requests; the dispatch below is the only place that knows the codes.

mod admin;
mod kv;
mod registrar;
mod registration;
mod routing;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use escrowmq_common::clock::Clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::HeaderError;
use escrowmq_common::remoting::{Connection, Service};
use escrowmq_common::task::{Shutdown, Tasks};

use crate::config::Config;
use crate::kv::Kv;
use crate::routes::Routes;
use registrar::Registry;

pub(crate) use registrar::Registrar;

/// What all request families share.
#[derive(Debug)]
pub(crate) struct Server {
    /// The settings in force.
    config: Arc<ArcSwap<Config>>,
    /// One change of settings at a time.
    settings: Arc<tokio::sync::Mutex<()>>,
    routes: Arc<Routes>,
    registry: Registry,
    kv: Kv,
    clock: Clock,
    started: Duration,
    tasks: Tasks,
}

/// What a server is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) kv: Kv,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

impl Server {
    /// A server and the registrar that has to run beside it.
    pub(crate) fn new(parts: Parts) -> (Arc<Server>, Registrar) {
        let config = Arc::new(ArcSwap::from_pointee(parts.config));
        let routes = Arc::new(Routes::default());
        let (registry, registrar) = registrar::new(registrar::Parts {
            config: Arc::clone(&config),
            routes: Arc::clone(&routes),
            kv: parts.kv.clone(),
            clock: parts.clock.clone(),
            shutdown: parts.shutdown,
        });
        let server = Server {
            config,
            settings: Arc::default(),
            routes,
            registry,
            kv: parts.kv,
            started: parts.clock.monotonic(),
            clock: parts.clock,
            tasks: parts.tasks,
        };
        (Arc::new(server), registrar)
    }

    /// Lets the registrar finish what it has and end.
    pub(crate) fn stop_registrar(&self) {
        self.registry.stop();
    }
}

impl Service for Server {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(connection, &request),
            request::GET_BROKER_CLUSTER_INFO => connection.reply(&self.cluster_info(&request)),
            request::GET_BROKER_MEMBER_GROUP => connection.reply(&self.member_group(&request)),

            request::REGISTER_BROKER
            | request::UNREGISTER_BROKER
            | request::BROKER_HEARTBEAT
            | request::QUERY_DATA_VERSION
            | request::WIPE_WRITE_PERM_OF_BROKER
            | request::ADD_WRITE_PERM_OF_BROKER
            | request::DELETE_TOPIC_IN_NAMESRV
            | request::REGISTER_TOPIC_IN_NAMESRV => self.registry.submit(connection, request),

            request::PUT_KV_CONFIG => self.put_kv(connection, request),
            request::DELETE_KV_CONFIG => self.delete_kv(connection, request),
            request::GET_KV_CONFIG => connection.reply(&self.get_kv(&request)),
            request::GET_KVLIST_BY_NAMESPACE => connection.reply(&self.list_kv(&request)),

            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
            | request::GET_TOPICS_BY_CLUSTER
            | request::GET_SYSTEM_TOPIC_LIST_FROM_NS
            | request::GET_UNIT_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                connection.reply(&self.topics(&request));
            }

            request::UPDATE_NAMESRV_CONFIG => self.update_config(connection, request),
            request::GET_NAMESRV_CONFIG => connection.reply(&self.get_config(&request)),

            // The Go client forgets the oneway mark, and its answer would be dropped by it; a decision that strays
            // here must not look like one that somebody took.
            request::END_TRANSACTION if request.is_oneway() => {}
            code => {
                let remark = format!(" request type {code} not supported");
                let code = response::REQUEST_CODE_NOT_SUPPORTED;
                connection.reply(&Frame::response(&request, code).with_remark(remark));
            }
        }
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        self.registry.connection_closed(connection);
    }
}

/// The answer to a request that lacks a field or has an unreadable one.
fn bad_header(request: &Frame, error: &HeaderError) -> Frame {
    failed(request, error.to_string())
}

/// The answer to a request that cannot be carried out.
fn failed(request: &Frame, why: impl Into<String>) -> Frame {
    Frame::response(request, response::SYSTEM_ERROR).with_remark(why)
}

/// The answer to a request that would have to wait for too many others.
fn busy(request: &Frame) -> Frame {
    Frame::response(request, response::SYSTEM_BUSY).with_remark("[OVERLOAD]system busy, start flow control for a while")
}

fn success(request: &Frame) -> Frame {
    Frame::response(request, response::SUCCESS)
}
