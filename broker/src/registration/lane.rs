//! One nameserver: remembers what it was told, and tells it the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::DataVersion;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{BrokerIdentityHeader, RegisterBrokerHeader};
use escrowmq_common::remoting::{CallError, Connection};
use escrowmq_common::task::Shutdown;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{CALL_TIME, Registration, Standing, table};
use crate::shard::Topic;

/// Pause after a failure, before the next attempt: much shorter than the period, so that a nameserver that comes back
/// soon knows its brokers.
const RETRY_PAUSE: Duration = Duration::from_secs(3);

/// How far a lane is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The version that its nameserver took last.
    pub(super) version: Option<u64>,
    /// Whether the last attempt failed.
    pub(super) failing: bool,
}

/// Why a nameserver does not know us.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("refused with code {code}: {remark} (this broker has {topics} topics)")]
    Refused { code: i32, remark: String, topics: usize },
}

pub(super) struct Lane {
    registration: Arc<Registration>,
    address: String,
    progress: watch::Sender<Progress>,
    /// The topics that the nameserver was told, as long as it can be trusted to remember them.
    told: HashMap<Arc<str>, Arc<Topic>>,
    /// The connection that it was told on: another one may lead to a nameserver that was restarted.
    connection: Option<Arc<Connection>>,
    permission: u32,
    /// What this broker said it was, when it was told last.
    standing: Option<Standing>,
    /// The name of the state that it was told last, if it was told all of it.
    version: Option<DataVersion>,
    /// Counts the parts of registrations that were not the last one.
    serial: i64,
}

impl Lane {
    pub(super) fn new(registration: Arc<Registration>, address: String, progress: watch::Sender<Progress>) -> Self {
        Self {
            registration,
            address,
            progress,
            told: HashMap::new(),
            connection: None,
            permission: 0,
            standing: None,
            version: None,
            serial: 0,
        }
    }

    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let registration = Arc::clone(&self.registration);
        let mut wake = registration.wake.subscribe();
        let mut lost = registration.lost.subscribe();
        let mut full = true;
        loop {
            let version = registration.version();
            let standing = registration.standing();
            let registered = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                registered = self.register(version, full) => registered,
            };
            let failed = registered.is_err();
            // Many topics cost the nameserver something each time, and it will hardly answer otherwise in a moment.
            let waits = match &registered {
                Err(RegisterError::Refused { topics, .. }) => {
                    *topics > table::PART_TOPICS && self.progress.borrow().failing
                }
                _ => false,
            };
            self.note(version, registered);
            let pause = if failed && !waits { RETRY_PAUSE } else { registration.config.load().register_period };
            let over = tokio::time::sleep(pause);
            tokio::pin!(over);
            full = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return self.unregister().await,
                    () = &mut over => break true,
                    _ = wake.changed() => {
                        // What was refused of an older standing may be taken of this one.
                        if registration.standing() != standing {
                            break true;
                        }
                        // Woken for what the nameserver already has, or while it does not answer: no reason to ask.
                        if !failed && registration.version() != version {
                            break false;
                        }
                    }
                    _ = lost.changed() => {
                        // It may have forgotten us, and clients that ask it now find no route.
                        if !failed && !self.is_connected() {
                            break true;
                        }
                    }
                }
            };
        }
        self.unregister().await;
    }

    fn note(&mut self, version: u64, registered: Result<(), RegisterError>) {
        let metrics = &self.registration.metrics;
        match registered {
            Ok(()) => {
                metrics.registrations.add_one();
                let before = self.progress.send_replace(Progress { version: Some(version), failing: false });
                if before.failing || before.version.is_none() {
                    tracing::info!(event = "registered", nameserver = self.address, "registered");
                }
            }
            Err(error) => {
                metrics.registrations_failed.add_one();
                self.told.clear();
                let mut failing_before = false;
                self.progress.send_modify(|progress| {
                    failing_before = std::mem::replace(&mut progress.failing, true);
                });
                // Once per outage: the metric counts the rest.
                if !failing_before {
                    tracing::warn!(event = "not_registered", nameserver = self.address, %error, "not registered, trying again");
                }
            }
        }
    }

    /// Tells the nameserver everything, or what it does not know yet.
    async fn register(&mut self, version: u64, full: bool) -> Result<(), RegisterError> {
        let registration = Arc::clone(&self.registration);
        let connection = timeout(CALL_TIME, registration.remote.connection(&self.address)).await;
        let connection = connection.map_err(|_| CallError::Connect {
            address: self.address.clone(),
            reason: format!("no connection within {} ms", CALL_TIME.as_millis()),
        })??;
        let config = Arc::clone(&registration.config.load());
        let permission = config.broker_permission;
        let topics = registration.shard.topics().all();
        // Read after the version, which grows with it: a change meanwhile is told now, and once more.
        let standing = registration.standing();
        let is_full = full
            || self.told.is_empty()
            || !self.is_told_on(&connection)
            || self.permission != permission
            || self.standing != Some(standing);
        let mut news: Vec<&Arc<Topic>> = topics.iter().filter(|topic| is_full || !self.knows(topic)).collect();
        if news.is_empty() {
            // Topics went: all that are left are told again.
            news = topics.iter().collect();
        }
        let version = registration.data_version_at(version, standing);
        // A nameserver takes nothing over under a name that it knows. So a repeated registration keeps the name, and permissions
        // that an operator took away there stay away.
        let is_repeated = is_full && self.is_told_on(&connection) && self.version == Some(version);
        self.version = None;
        let parts = table::parts(&news);
        let is_some_only = parts.len() > 1 || news.len() < topics.len();
        for (n, part) in parts.iter().enumerate() {
            let is_last = n + 1 == parts.len();
            let name = if is_last || is_repeated {
                version
            } else {
                self.serial += 1;
                table::interim(version, self.serial)
            };
            let (body, compressed) = table::body(part, name, permission);
            let mut request = Frame::request(request::REGISTER_BROKER)
                .with_header(&RegisterBrokerHeader {
                    broker_name: &config.broker_name,
                    broker_addr: &registration.address,
                    cluster_name: &config.broker_cluster_name,
                    ha_server_addr: &table::replication_address(registration.store_host).to_string(),
                    broker_id: standing.id,
                    heartbeat_timeout_millis: None,
                    enable_acting_master: false,
                    compressed,
                    body_crc32: (crc32fast::hash(&body) & 0x7fff_ffff).cast_signed(),
                    zone_name: None,
                })
                .with_body(body);
            if is_some_only {
                request = request.with_field(table::PART_FIELD, true);
            }
            let answer = connection.call(request, CALL_TIME).await?;
            if answer.code != response::SUCCESS {
                let remark = answer.remark.unwrap_or_default();
                return Err(RegisterError::Refused { code: answer.code, remark, topics: topics.len() });
            }
        }
        self.connection = Some(connection);
        self.permission = permission;
        self.standing = Some(standing);
        self.version = Some(version);
        self.told = topics.into_iter().map(|topic| (Arc::from(topic.settings.name.as_str()), topic)).collect();
        Ok(())
    }

    /// Whether the connection on which the nameserver was told is still there.
    fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_open())
    }

    fn is_told_on(&self, connection: &Connection) -> bool {
        self.connection.as_ref().is_some_and(|told_on| told_on.id() == connection.id())
    }

    fn knows(&self, topic: &Arc<Topic>) -> bool {
        self.told.get(topic.settings.name.as_str()).is_some_and(|told| Arc::ptr_eq(told, topic))
    }

    async fn unregister(self) {
        if self.progress.borrow().version.is_none() {
            return;
        }
        let registration = &self.registration;
        let config = Arc::clone(&registration.config.load());
        // As which it is known there. Whoever registered under its address since then, with a newer term, stays.
        let standing = self.standing.unwrap_or_else(|| registration.standing());
        let request = Frame::request(request::UNREGISTER_BROKER)
            .with_header(&BrokerIdentityHeader {
                broker_name: &config.broker_name,
                broker_addr: &registration.address,
                cluster_name: &config.broker_cluster_name,
                broker_id: standing.id,
            })
            .with_field(table::TERM_FIELD, standing.term);
        match registration.remote.call(&self.address, request, CALL_TIME).await {
            Ok(_) => tracing::info!(nameserver = self.address, "unregistered"),
            // It will see the connection close.
            Err(error) => tracing::warn!(nameserver = self.address, %error, "not unregistered"),
        }
    }
}
