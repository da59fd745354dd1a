//! Answering the broker's checks.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CheckTransactionStateHeader, EndTransactionHeader};
use escrowmq_common::message::Message as Unit;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::Decision;
use super::listener::{Listener, caught};
use super::orphans::Orphans;
use super::running::Running;
use super::tell::with_lease;
use crate::core::Core;
use crate::message::MessageExt;
use crate::trace;

/// Checks that wait for a free place; a broker that gets no answer asks again, so more are dropped. Twice what one of our
/// brokers leaves unanswered per connection.
const WAITING_MAX: usize = 2000;

/// A transaction that runs in this process is asked about again no earlier than after this time. Short, because the answer
/// tells nothing of a process that dies right after it.
const RUNNING_RETRY: Duration = Duration::from_secs(5);

/// A check as it arrived.
pub(super) struct Check {
    pub(super) connection: Arc<Connection>,
    pub(super) request: Frame,
    pub(super) unit: Unit,
}

/// The parts that answering needs.
pub(super) struct Respondent {
    pub(super) core: Arc<Core>,
    pub(super) group: String,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) orphans: Arc<Mutex<Orphans>>,
    pub(super) running: Running,
}

/// The queue in front of the listener.
#[derive(Debug)]
pub(super) struct Checks {
    waiting: mpsc::Sender<Check>,
}

impl Checks {
    /// Starts answering, at most `concurrency` at a time, until `shutdown`.
    pub(super) fn start(respondent: Respondent, concurrency: usize, tasks: &Tasks, shutdown: Shutdown) -> Checks {
        let (waiting, mut arriving) = mpsc::channel::<Check>(WAITING_MAX);
        let (respondent, inner) = (Arc::new(respondent), tasks.clone());
        tasks.spawn("transaction checks", async move {
            let places = Arc::new(Semaphore::new(concurrency.max(1)));
            loop {
                let next = async {
                    let place = Arc::clone(&places).acquire_owned().await.ok()?;
                    Some((arriving.recv().await?, place))
                };
                let (check, place) = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    next = next => match next {
                        Some(next) => next,
                        None => return,
                    },
                };
                let respondent = Arc::clone(&respondent);
                inner.spawn("transaction check", async move {
                    respondent.answer(check).await;
                    drop(place);
                });
            }
        });
        Checks { waiting }
    }

    /// Takes a check in, or drops it if too many wait.
    pub(super) fn push(&self, check: Check) {
        if let Err(error) = self.waiting.try_send(check) {
            let (mpsc::error::TrySendError::Full(check) | mpsc::error::TrySendError::Closed(check)) = error;
            tracing::warn!(id = %check.unit.message_id(), "check dropped: too many wait, or the producer is shut down");
        }
    }
}

impl Respondent {
    async fn answer(&self, check: Check) {
        let header: CheckTransactionStateHeader<'_> = match check.request.header() {
            Ok(header) => header,
            Err(error) => {
                tracing::warn!(peer = %check.connection.peer(), %error, "unreadable check");
                return;
            }
        };
        let message_id = check.unit.message_id();
        let transaction_id = header.transaction_id.unwrap_or(&message_id);
        let (decision, remark) = self.decide(transaction_id, header.broker_name, check.unit.clone()).await;
        tracing::debug!(id = transaction_id, ?decision, "check answered");
        let answer = EndTransactionHeader {
            producer_group: &self.group,
            tran_state_table_offset: header.tran_state_table_offset,
            commit_log_offset: header.commit_log_offset,
            commit_or_rollback: decision.wire_type(),
            from_transaction_check: true,
            msg_id: check.unit.unique_id().or(header.msg_id),
            transaction_id: header.transaction_id,
            topic: header.topic,
            broker_name: header.broker_name,
        };
        let mut end = Frame::request(request::END_TRANSACTION).with_header(&answer);
        end.remark = remark;
        if self.core.brokers.abilities_on(check.connection.id()).transactions {
            end = with_lease(end, decision);
        }
        // One way, to where the question came from: if it gets lost, the broker asks again, which is all the
        // confirmation that a check needs.
        match check.connection.send_oneway(end) {
            Ok(()) => {
                let broker = check.connection.peer();
                trace::check_answered(&self.core, &self.group, &check.unit, transaction_id, broker, decision);
            }
            Err(error) => tracing::warn!(id = transaction_id, %error, "check not answered"),
        }
    }

    async fn decide(&self, transaction_id: &str, broker: Option<&str>, unit: Unit) -> (Decision, Option<String>) {
        if self.running.has(transaction_id) {
            return (Decision::InProgress { retry_after: RUNNING_RETRY }, None);
        }
        if self.orphans.lock().is_stray(transaction_id, broker) {
            return (Decision::Rollback, None);
        }
        let message = MessageExt::from_unit(unit, broker.unwrap_or_default());
        match caught(self.listener.check(&message)).await {
            Ok(decision) => (decision, None),
            Err(panic) => {
                tracing::error!(id = transaction_id, panic, "check_local_transaction panicked");
                (Decision::Unknown, Some(panic))
            }
        }
    }
}
