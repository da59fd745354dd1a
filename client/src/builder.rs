//! Settings of a client, and its start.

use std::time::Duration;

use escrowmq_common::name::TRACE_TOPIC;

use crate::client::Client;
use crate::error::StartError;

/// The settings of a client; made by [`ClientBuilder`].
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namesrv: String,
    pub(crate) instance: Option<String>,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) route_interval: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) message_trace: bool,
    pub(crate) trace_topic: String,
}

impl Settings {
    /// Where records of the message trace go, if they are wanted.
    pub(crate) fn trace_topic(&self) -> Option<&str> {
        self.message_trace.then_some(&self.trace_topic)
    }
}

/// Collects the settings of a [`Client`]. Made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder {
    settings: Settings,
}

impl ClientBuilder {
    pub(crate) fn new(namesrv: String) -> ClientBuilder {
        ClientBuilder {
            settings: Settings {
                namesrv,
                instance: None,
                request_timeout: Duration::from_secs(3),
                connect_timeout: Duration::from_secs(3),
                heartbeat_interval: Duration::from_secs(30),
                route_interval: Duration::from_secs(30),
                shutdown_timeout: Duration::from_secs(30),
                message_trace: false,
                trace_topic: TRACE_TOPIC.to_owned(),
            },
        }
    }

    /// The part of the client id after the `@`. By default the process id and a number that no other client of the
    /// process has. Members of a group must differ in their ids: set it only if you give each one its own.
    pub fn instance_name(mut self, name: impl Into<String>) -> ClientBuilder {
        self.settings.instance = Some(name.into());
        self
    }

    /// How long one request waits for its answer, sends and pulls excepted. Default 3 s.
    pub fn request_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.settings.request_timeout = timeout;
        self
    }

    /// How long one attempt to connect may take. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How often the client tells its brokers that its groups are alive. Default 30 s; brokers forget a client after
    /// 120 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> ClientBuilder {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How often the routes of all topics in use are asked for again. Default 30 s. A connection that fails asks at
    /// once.
    pub fn route_interval(mut self, interval: Duration) -> ClientBuilder {
        self.settings.route_interval = interval;
        self
    }

    /// How long [`Client::shutdown`] waits for sends, handlers and listeners to end. Default 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.settings.shutdown_timeout = timeout;
        self
    }

    /// Whether the client writes records of RocketMQ's message trace: one for each message that is sent, for the beginning and
    /// the end of its handler, and for a decision about it. `mqadmin queryMsgTraceById` and the dashboard show them. Default
    /// no. Records are sent in the background, those that cannot be are dropped and
    /// [counted](crate::Client::dropped_trace_records), and no send or handler waits for them.
    pub fn message_trace(mut self, on: bool) -> ClientBuilder {
        self.settings.message_trace = on;
        self
    }

    /// The topic that records of the message trace go to. Default `RMQ_SYS_TRACE_TOPIC`, which brokers make that are configured
    /// so (`traceTopicEnable`).
    pub fn message_trace_topic(mut self, topic: impl Into<String>) -> ClientBuilder {
        self.settings.trace_topic = topic.into();
        self
    }

    /// Connects to a name server and starts the client. Brokers are connected to when they are needed.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for an address list that cannot be read, [`StartError::Request`] if no name server can be
    /// reached.
    pub async fn connect(self) -> Result<Client, StartError> {
        Client::start(self.checked()?).await
    }

    /// Starts the client whether a name server answers or not, within a Tokio runtime: the application may be there before its
    /// cluster is. Producers and consumers can be started; sends fail as retryable, and consumers begin, once there is a route.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for an address list that cannot be read.
    pub fn connect_lazy(self) -> Result<Client, StartError> {
        Client::start_lazily(self.checked()?)
    }

    fn checked(self) -> Result<Settings, StartError> {
        if self.settings.heartbeat_interval.is_zero() || self.settings.route_interval.is_zero() {
            return Err(StartError::setting("interval", "must not be zero"));
        }
        Ok(self.settings)
    }
}
