//! The state that all parts of a client share: identity, connections, routes, the register of groups.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::UnregisterClientHeader;
use escrowmq_common::remoting::{CallError, Remote};
use escrowmq_common::task::{Shutdown, Tasks};

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::brokers::Brokers;
use crate::builder::Settings;
use crate::error::{RequestError, misses_leader};
use crate::events::{Bell, ServerKind};
use crate::groups::Groups;
use crate::members::Trouble;
use crate::names::NameServers;
use crate::outage::Outages;
use crate::request_reply::Waiting;
use crate::routes::Routes;
use crate::trace::Writer;

/// Pauses between two ways to the same leader.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The shared part of a client.
pub(crate) struct Core {
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) remote: Remote,
    pub(crate) routes: Routes,
    /// Each broker's knowledge of this client, and its abilities.
    pub(crate) brokers: Brokers,
    /// The brokers that are away.
    pub(crate) outages: Outages,
    /// Where the user hears of connections.
    pub(crate) bell: Bell,
    pub(crate) groups: Groups,
    /// The requests that wait for their replies.
    pub(crate) waiting: Waiting,
    /// Where records of the message trace go, if there are to be any.
    pub(crate) trace: Option<Writer>,
    /// The client's own loops; producers and consumers have their own sets.
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(id: String, settings: Settings, names: NameServers, remote: Remote, bell: Bell) -> Core {
        Core {
            id,
            routes: Routes::new(names, remote.clone(), settings.request_timeout),
            brokers: Brokers::default(),
            outages: Outages::new(ServerKind::Broker, bell.clone()),
            bell,
            groups: Groups::default(),
            waiting: Waiting::default(),
            trace: settings.trace_topic().map(Writer::new),
            tasks: Tasks::new(),
            shutdown: Shutdown::new(),
            settings,
            remote,
        }
    }

    /// One request to one address; the answer may carry any code.
    pub(crate) async fn call(&self, addr: &str, request: Frame, timeout: Duration) -> Result<Frame, RequestError> {
        let asked = Instant::now();
        let answer = self.noted(addr, asked, self.remote.call(addr, request, timeout).await);
        if matches!(answer, Err(RequestError::TimedOut { .. })) {
            // Slow, or gone without a word? A heartbeat tells, and closes a dead connection.
            self.brokers.greet_soon.notify_one();
        }
        let answer = answer?;
        if answer.code == response::SERVICE_NOT_AVAILABLE {
            self.routes.failed(addr, Trouble::NoLeader);
        } else {
            self.routes.answered(addr, asked, true);
        }
        Ok(answer)
    }

    /// Takes note of a server that is away, or back.
    pub(crate) fn noted<T>(&self, addr: &str, asked: Instant, ended: Result<T, CallError>) -> Result<T, RequestError> {
        match ended {
            Ok(answer) => {
                self.outages.answered(addr, asked);
                self.routes.answered(addr, asked, false);
                Ok(answer)
            }
            Err(error) => {
                let error = RequestError::from_call(addr, &error);
                // A client that ends has closed its connections itself.
                if !self.shutdown.is_cancelled() && error.is_outage() {
                    self.outages.failed(addr, &error);
                    self.routes.failed(addr, Trouble::Away);
                }
                Err(error)
            }
        }
    }

    /// One request to one address within the usual time, whose answer must be a success.
    pub(crate) async fn request(&self, addr: &str, request: Frame) -> Result<Frame, RequestError> {
        expect_success(addr, self.call(addr, request, self.settings.request_timeout).await?)
    }

    /// One request that wants no answer.
    pub(crate) async fn oneway(&self, addr: &str, request: Frame) -> Result<(), RequestError> {
        let sent = self.remote.oneway(addr, request).await;
        // That it left says nothing about whether anybody reads it, so only the failure is news.
        sent.or_else(|error| self.noted(addr, Instant::now(), Err(error)))
    }

    /// Where a request goes that the leader of `broker` carries out; asks the name servers once if they named nobody.
    pub(crate) async fn way_to(&self, broker: &str, topic: &str) -> Result<Arc<str>, RequestError> {
        if let Some(addr) = self.routes.way(broker) {
            return Ok(addr);
        }
        self.routes.refresh(topic, false).await?;
        self.routes.way(broker).ok_or_else(|| RequestError::NoRoute { topic: topic.to_owned() })
    }

    /// Asks the leader of `broker` something that may be carried out twice. While there is none it is asked again, over
    /// another member, until the usual time for an answer has passed. The answer may carry any other code.
    pub(crate) async fn ask(&self, broker: &str, topic: &str, ask: &Frame) -> Result<(Arc<str>, Frame), RequestError> {
        let timeout = self.settings.request_timeout;
        let ends = Instant::now() + timeout;
        let mut pause = PAUSE_FIRST;
        loop {
            let attempt = async {
                let way = tokio::time::timeout_at(ends, self.way_to(broker, topic)).await;
                let addr = way.unwrap_or_else(|_| Err(RequestError::too_late(broker, timeout)))?;
                let rest = ends.saturating_duration_since(Instant::now());
                let answer = self.call(&addr, ask.clone(), rest).await?;
                if misses_leader(answer.code, answer.remark.as_deref()) {
                    return Err(refused(&addr, answer));
                }
                Ok((addr, answer))
            };
            let failure = match attempt.await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            let again = Instant::now() + pause;
            if !failure.misses_leader() || again >= ends {
                return Err(failure);
            }
            if !self.routes.has_way(broker) {
                // A failed refresh leaves what is known.
                let _ = tokio::time::timeout_at(ends, self.routes.refresh(topic, false)).await;
            }
            tokio::time::sleep_until(again).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tells the brokers that the client has left a producer group or a consumer group. The group must be out of the
    /// register already, or the next heartbeat would bring it back.
    pub(crate) async fn leave(&self, producer_group: Option<&str>, consumer_group: Option<&str>) {
        let farewells = self.brokers.greeted().into_iter().map(|(addr, broker)| async move {
            // A heartbeat under way may still name the group: the farewell has to come after it.
            let _greeting = broker.greeting.lock().await;
            if let Err(error) = self.unregister(&addr, &self.id, producer_group, consumer_group).await {
                tracing::debug!(%addr, %error, "broker not told that a group was left");
            }
        });
        join_all(farewells).await;
    }

    /// Takes a client out of a group at one broker.
    pub(crate) async fn unregister(
        &self,
        addr: &str,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Result<(), RequestError> {
        let header = UnregisterClientHeader { client_id, producer_group, consumer_group };
        self.request(addr, Frame::request(request::UNREGISTER_CLIENT).with_header(&header)).await.map(drop)
    }

    /// Ends all members, then the client itself.
    pub(crate) async fn close(&self) {
        if self.shutdown.is_cancelled() {
            return;
        }
        let grace = self.settings.shutdown_timeout;
        for consumer in self.groups.consumers() {
            if tokio::time::timeout(grace, consumer.close()).await.is_err() {
                tracing::warn!(group = consumer.group(), "consumer did not end in time");
            }
        }
        for producer in self.groups.producers() {
            if tokio::time::timeout(grace, producer.close()).await.is_err() {
                tracing::warn!(group = producer.group(), "producer did not end in time");
            }
        }
        if let Some(trace) = &self.trace {
            trace.flush().await;
        }
        self.shutdown.cancel();
        self.tasks.join().await;
        self.remote.close().await;
        tracing::info!(client = %self.id, "client ended");
    }
}

/// Turns every code but success into an error.
pub(crate) fn expect_success(addr: &str, answer: Frame) -> Result<Frame, RequestError> {
    if answer.code == response::SUCCESS { Ok(answer) } else { Err(refused(addr, answer)) }
}

/// The error that an answer stands for.
pub(crate) fn refused(addr: &str, answer: Frame) -> RequestError {
    RequestError::Refused { addr: addr.to_owned(), code: answer.code, remark: answer.remark.unwrap_or_default() }
}
