//! Settings of a transactional producer.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use super::TransactionProducer;
use super::check::{Checks, Respondent};
use super::engine::Engine;
use super::listener::Listener;
use super::orphans::Orphans;
use super::running::Running;
use super::tell::DecisionPolicy;
use crate::client::Client;
use crate::error::StartError;
use crate::groups::ProducerMember;
use crate::heartbeat;
use crate::producer::{SendSettings, Sender, send_setters};

/// Collects the settings of a [`TransactionProducer`]. Made by
/// [`Client::transaction_producer`](crate::Client::transaction_producer).
#[must_use = "a builder does nothing until `start`"]
pub struct TransactionProducerBuilder {
    client: Client,
    group: String,
    listener: Arc<dyn Listener>,
    send: SendSettings,
    decisions: DecisionPolicy,
    checks_max: usize,
    needs_confirmation: bool,
}

impl std::fmt::Debug for TransactionProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionProducerBuilder").field("group", &self.group).finish_non_exhaustive()
    }
}

impl TransactionProducerBuilder {
    pub(crate) fn new(client: Client, group: String, listener: Arc<dyn Listener>) -> TransactionProducerBuilder {
        TransactionProducerBuilder {
            client,
            group,
            listener,
            send: SendSettings::default(),
            decisions: DecisionPolicy { attempt_timeout: Duration::from_secs(3), deadline: Duration::from_secs(15) },
            checks_max: 16,
            needs_confirmation: false,
        }
    }

    send_setters!();

    /// How long the decision is repeated until the broker confirms it, finding the broker included. Default 15 s.
    /// Afterwards the send ends with [`TransactionError::Unresolved`](crate::TransactionError::Unresolved) and the
    /// check settles the message. [`keep_alive`](crate::Transaction::keep_alive) takes no longer either.
    pub fn decision_deadline(mut self, deadline: Duration) -> Self {
        self.decisions.deadline = deadline;
        self
    }

    /// How long one attempt to tell the decision waits for the broker's answer. Default 3 s; never longer than what is
    /// left of [`decision_deadline`](TransactionProducerBuilder::decision_deadline).
    pub fn decision_timeout(mut self, timeout: Duration) -> Self {
        self.decisions.attempt_timeout = timeout;
        self
    }

    /// Refuses brokers that do not confirm decisions, before anything is sent to them. Off by default: the decision then
    /// goes to such a broker one way, as other clients send it.
    pub fn require_confirmation(mut self, require: bool) -> Self {
        self.needs_confirmation = require;
        self
    }

    /// Checks answered at the same time. Default 16.
    pub fn checks_max(mut self, count: usize) -> Self {
        self.checks_max = count;
        self
    }

    /// Registers the producer, and at the brokers of its [`topics`](TransactionProducerBuilder::topics) at once, so that
    /// they can ask it about transactions of an earlier process.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for a group name or setting that cannot be, [`StartError::GroupInUse`] if this client
    /// already has a producer of the group. A broker that does not answer is no error: it is greeted again.
    pub async fn start(self) -> Result<TransactionProducer, StartError> {
        let topics = self.send.validate(&self.group)?;
        // With no time at all no decision would ever be sent.
        if self.decisions.attempt_timeout.is_zero() || self.decisions.deadline.is_zero() {
            return Err(StartError::setting("decision_timeout", "must not be zero"));
        }
        let core = Arc::clone(self.client.core());
        let (tasks, shutdown) = (Tasks::new(), core.shutdown.child());
        let orphans = Arc::new(Mutex::new(Orphans::default()));
        let running = Running::default();
        let respondent = Respondent {
            core: Arc::clone(&core),
            group: self.group.clone(),
            listener: Arc::clone(&self.listener),
            orphans: Arc::clone(&orphans),
            running: running.clone(),
        };
        let checks = Checks::start(respondent, self.checks_max, &tasks, shutdown.clone());
        let engine = Arc::new(Engine {
            client: self.client,
            sender: Sender::new(&core, self.group, self.send),
            topics,
            listener: self.listener,
            orphans,
            running,
            checks,
            decisions: self.decisions,
            needs_confirmation: self.needs_confirmation,
            tasks,
            shutdown,
        });
        let member: Arc<dyn ProducerMember> = Arc::<Engine>::clone(&engine);
        core.groups.add_producer(&member)?;
        core.brokers.groups_changed();
        if !engine.topics.is_empty() {
            heartbeat::greet_all(&core).await;
        }
        Ok(TransactionProducer::new(engine))
    }
}
