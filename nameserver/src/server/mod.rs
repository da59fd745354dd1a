//! Requests in, answers out.
//!
//! Lookups are answered right on the connection's task from the published [`Routes`]. Every change of routes goes
//! through one queue to the [`registrar`], which owns the route table; changes of the KV configuration go to its
//! writer. Each request is answered once, by the one who is done with it, and one connection's requests keep their order
//! ([`order`]).
//!
//! ```text
//!                              lookups, short lists --> Routes, Kv, Config (read only)      --> reply
//!  on_request -> order -+----> registrations, topics --> registrar (one thread, one table)   --> reply, Routes
//!                       +----> KV changes            --> KvWriter (one file)                 --> reply
//!                       `----> settings, long lists  --> a blocking task, few at a time      --> reply
//! ```
//!
//! No body is read on a connection's task, and no header above [`HEADER_BYTES_MAX`] gets further than here. Refusals are
//! counted ([`refusals`]).
//!
//! One file per family of requests; the dispatch below is the only place that knows the codes.

mod admin;
mod audit;
mod kv;
mod lists;
mod names;
#[cfg(test)]
mod net;
mod order;
pub(crate) mod refusals;
mod registrar;
mod registration;
mod routing;
mod topics;
mod waiting;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use escrowmq_common::audit::Trail;
use escrowmq_common::clock::Clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::HeaderError;
use escrowmq_common::monitoring::{ByCode, Count};
use escrowmq_common::remoting::{Connection, Service};
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::kv::Kv;
use crate::routes::Routes;
use order::{Dispatch, Order, Orders, Turn, Way};
use refusals::{Refusal, Refusals};
use registrar::Registry;

pub(crate) use registrar::Registrar;

/// Most bytes of all fields of a request. The longest that is taken is a KV value.
const HEADER_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(HEADER_BYTES_MAX > 2 * crate::kv::VALUE_BYTES_MAX);

/// The state that all request families share.
#[derive(Debug)]
pub(crate) struct Server {
    /// The settings in force.
    config: Arc<ArcSwap<Config>>,
    /// One change of settings at a time.
    settings: Arc<tokio::sync::Mutex<()>>,
    /// Places for long lists.
    lists: Arc<Semaphore>,
    routes: Arc<Routes>,
    registry: Registry,
    kv: Kv,
    /// Where the lines of administrators' acts go.
    audit: Arc<Trail>,
    clock: Clock,
    started: Duration,
    tasks: Tasks,
    orders: Arc<Orders>,
    refusals: Arc<Refusals>,
    /// Requests that came, by code.
    requests: ByCode<Count>,
    /// Itself, for what is answered later.
    me: Weak<Server>,
    /// Itself, as the one who takes requests whose turn has come.
    dispatch: Weak<dyn Dispatch>,
}

/// The parts of which a server is made.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) kv: Kv,
    pub(crate) audit: Arc<Trail>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

impl Server {
    /// A server and the registrar that has to run beside it.
    pub(crate) fn new(parts: Parts) -> (Arc<Server>, Registrar) {
        let config = Arc::new(ArcSwap::from_pointee(parts.config));
        let routes = Arc::new(Routes::default());
        let refusals = Arc::<Refusals>::default();
        let (registry, registrar) = registrar::new(registrar::Parts {
            config: Arc::clone(&config),
            routes: Arc::clone(&routes),
            kv: parts.kv.clone(),
            clock: parts.clock.clone(),
            refusals: Arc::clone(&refusals),
            shutdown: parts.shutdown,
        });
        let server = Arc::new_cyclic(|me| Server {
            config,
            settings: Arc::default(),
            lists: Arc::new(Semaphore::new(lists::LISTS_AT_A_TIME)),
            routes,
            registry,
            kv: parts.kv,
            audit: parts.audit,
            started: parts.clock.monotonic(),
            clock: parts.clock,
            tasks: parts.tasks,
            orders: Arc::default(),
            refusals,
            requests: ByCode::new(request::ALL.iter().copied().filter(|(_, code)| is_served(*code))),
            me: Weak::clone(me),
            dispatch: Weak::clone(me) as Weak<dyn Dispatch>,
        });
        (server, registrar)
    }

    /// Lets the registrar finish what it has and end.
    pub(crate) fn stop_registrar(&self) {
        self.registry.stop();
    }

    /// How many requests were refused for this reason since the start.
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.of(refusal)
    }

    /// Requests that came, by code.
    pub(crate) fn requests(&self) -> &ByCode<Count> {
        &self.requests
    }

    /// The routes that lookups read.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The settings in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Whether lookups fail because brokers may not have registered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        let config = self.config.load();
        config.need_wait_for_service && !self.has_waited(&config)
    }

    /// Counts a refusal and makes its answer.
    fn refuse(&self, connection: &Connection, request: &Frame, refusal: Refusal, why: impl Into<String>) -> Frame {
        let why = why.into();
        self.refusals.count(refusal, connection.peer(), &why);
        failed(request, why)
    }

    /// Answers a request that goes no further, with its line if it is an act of an administrator.
    fn turn_away(&self, connection: &Arc<Connection>, request: &Frame, answer: &Frame) {
        Turn::default().with(audit::act(request, connection, &self.audit)).answer(connection, answer);
    }

    fn busy(&self, connection: &Connection, request: &Frame, why: &'static str) -> Frame {
        self.refusals.count(Refusal::Busy, connection.peer(), why);
        busy(request)
    }
}

/// Where a request goes if it is not answered at once.
fn way(code: i32) -> Option<Way> {
    match code {
        request::REGISTER_BROKER
        | request::UNREGISTER_BROKER
        | request::BROKER_HEARTBEAT
        | request::QUERY_DATA_VERSION
        | request::WIPE_WRITE_PERM_OF_BROKER
        | request::ADD_WRITE_PERM_OF_BROKER
        | request::DELETE_TOPIC_IN_NAMESRV
        | request::REGISTER_TOPIC_IN_NAMESRV => Some(Way::Registrar),

        request::PUT_KV_CONFIG | request::DELETE_KV_CONFIG => Some(Way::Kv),

        request::UPDATE_NAMESRV_CONFIG
        | request::GET_BROKER_CLUSTER_INFO
        | request::GET_KVLIST_BY_NAMESPACE
        | request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
        | request::GET_TOPICS_BY_CLUSTER
        | request::GET_SYSTEM_TOPIC_LIST_FROM_NS
        | request::GET_UNIT_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => Some(Way::Task),

        _ => None,
    }
}

/// Whether requests of this code are carried out.
fn is_served(code: i32) -> bool {
    way(code).is_some()
        || matches!(
            code,
            request::GET_ROUTEINFO_BY_TOPIC
                | request::GET_BROKER_MEMBER_GROUP
                | request::GET_KV_CONFIG
                | request::GET_NAMESRV_CONFIG
        )
}

impl Service for Server {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        if let Some(why) = request.header_excess(HEADER_BYTES_MAX) {
            self.refusals.count(Refusal::Malformed, connection.peer(), &why);
            let answer = Frame::response(&request, response::MESSAGE_ILLEGAL).with_remark(why);
            return self.turn_away(connection, &request, &answer);
        }
        self.requests.of(request.code).add_one();
        let way = way(request.code);
        match self.orders.order(connection, request, way, &self.dispatch) {
            Order::Now(request, turn) => self.dispatch(connection, request, turn),
            Order::Waits => {}
            Order::Full(request) => {
                let why = "too many requests of the connection wait for the one before them";
                self.turn_away(connection, &request, &self.busy(connection, &request, why));
            }
        }
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        self.registry.connection_closed(connection);
    }
}

impl Dispatch for Server {
    fn dispatch(&self, connection: &Arc<Connection>, request: Frame, turn: Turn) {
        let turn = turn.with(audit::act(&request, connection, &self.audit));
        match way(request.code) {
            Some(Way::Registrar) => return self.registry.submit(connection, request, turn),
            Some(Way::Kv) => return self.change_kv(connection, &request, turn),
            Some(Way::Task) if request.code == request::UPDATE_NAMESRV_CONFIG => {
                return self.update_config(connection, request, turn);
            }
            Some(Way::Task) => return self.list(connection, request, turn),
            None => {}
        }
        match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(connection, &request),
            request::GET_BROKER_MEMBER_GROUP => connection.reply(&self.member_group(&request)),
            request::GET_KV_CONFIG => connection.reply(&self.get_kv(&request)),
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
}

/// The answer to a request that lacks a field, or has one that is unreadable or too long.
fn bad_header(request: &Frame, error: &HeaderError) -> Frame {
    Frame::response(request, error.code()).with_remark(error.to_string())
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
