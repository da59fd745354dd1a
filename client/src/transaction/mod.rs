//! Transactional messages: stored as halves, settled by what the local transaction decided.
//!
//! ```text
//!  send: half -> broker        (only full success goes on)
//!        listener runs the local transaction -> Commit | Rollback | Unknown
//!        decision -> broker    (our broker: awaited and repeated until certain; others: one way)
//!  later, if the broker heard nothing certain:
//!        check <- broker, on any connection of any producer of the group
//!        listener looks the local transaction up -> the same decision -> broker
//! ```
//!
//! Promises: the local transaction runs only after the broker holds the half at its full level, and the broker knows whom
//! to ask before the half is there; a panic in the listener means [`Decision::Unknown`] and costs nobody else anything; an
//! unconfirmed decision is an error that says so, never a silent success.
//!
//! Left to others: what the local transaction is, and remembering it: the listener must be able to answer a check after a
//! restart. First decision wins at the broker, so a check that overtakes a decision does no harm if both say the same.

mod builder;
mod check;
mod decision;
mod listener;
mod orphans;
mod running;

use std::future::Future;
use std::sync::Arc;

use escrowmq_common::frame::Frame;
use escrowmq_common::message::Message as Unit;
use escrowmq_common::message::properties::name;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;

pub use builder::TransactionProducerBuilder;
pub use decision::Outcome;
pub use listener::{Decision, TransactionListener};

pub use crate::producer::Half;

use check::{Check, Checks};
use decision::{DecisionPolicy, tell};
use listener::{Listener, caught};
use orphans::Orphans;
use running::Running;

use crate::client::Client;
use crate::error::{SendError, TransactionError};
use crate::groups::{Closing, ProducerMember};
use crate::message::Message;
use crate::producer::{HalfNeeds, Prepared, SendResult, Sender, SenderError, StoreLevel};

/// A transactional message whose local transaction ran and whose decision is on its way or settled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransactionResult {
    /// The half message, as the broker stored it.
    pub half: SendResult,
    /// What the local transaction decided.
    pub decision: Decision,
    /// What became of the message.
    pub outcome: Outcome,
}

/// Sends transactional messages. Cheap to clone; made by
/// [`Client::transaction_producer`](crate::Client::transaction_producer).
///
/// A send whose future is dropped after the half was stored leaves the decision to the broker's check.
#[derive(Clone, Debug)]
pub struct TransactionProducer {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    sender: Sender,
    topics: Vec<Arc<str>>,
    listener: Arc<dyn Listener>,
    orphans: Arc<Mutex<Orphans>>,
    running: Running,
    checks: Checks,
    decisions: DecisionPolicy,
    needs: HalfNeeds,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionProducer").field("group", &self.sender.group()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl TransactionProducer {
    /// The producer's group: the one whose members the broker asks.
    pub fn group(&self) -> &str {
        self.shared.sender.group()
    }

    /// Sends `message` as a half, runs the listener's local transaction, and settles the message by its decision.
    pub async fn send(&self, message: Message) -> Result<TransactionResult, TransactionError> {
        let listener = Arc::clone(&self.shared.listener);
        let local = message.clone();
        let run = async move |half: Half| listener.execute(&local, &half).await;
        self.shared.send(message, run).await
    }

    /// Like [`send`](TransactionProducer::send), with the local transaction given here instead of the listener's
    /// `execute_local_transaction`. Checks still go to the listener.
    pub async fn send_with<F, R>(&self, message: Message, local: F) -> Result<TransactionResult, TransactionError>
    where
        F: FnOnce(Half) -> R,
        R: Future<Output = Decision>,
    {
        let run = async move |half: Half| caught(async move { local(half).await }).await;
        self.shared.send(message, run).await
    }

    /// Refuses further sends, waits for the transactions in flight and the checks being answered, and tells the brokers.
    /// A second call does nothing.
    pub async fn shutdown(&self) {
        self.shared.close().await;
    }
}

impl Shared {
    async fn send<F>(&self, mut message: Message, local: F) -> Result<TransactionResult, TransactionError>
    where
        F: AsyncFnOnce(Half) -> Result<Decision, String>,
    {
        let _place = self.sender.enter().await.map_err(TransactionError::Half)?;
        message.set(name::TRANSACTION_PREPARED, "true");
        message.set(name::PRODUCER_GROUP, self.sender.group());
        let prepared = Prepared::new(message, self.sender.settings()).map_err(TransactionError::Half)?;
        let run = self.running.begin(&prepared.message_id);
        let (sent, half) = self.send_half(&prepared).await?;
        if sent.level != StoreLevel::Full {
            // As other clients do: a half that may be lost by the next crash must not carry a local transaction. If this
            // gets lost too, the check is answered the same way.
            self.orphans.lock().never_ran(&half.transaction_id);
            let _ = self.tell(&half, Decision::Rollback, None).await;
            let (transaction_id, code) = (half.transaction_id, sent.level.code());
            return Err(TransactionError::HalfNotSafe { transaction_id, code });
        }
        let (decision, remark) = match local(half.clone()).await {
            Ok(decision) => (decision, None),
            Err(panic) => {
                tracing::error!(id = %half.transaction_id, panic, "local transaction panicked");
                (Decision::Unknown, Some(panic))
            }
        };
        // From here on the listener knows as much as we do.
        drop(run);
        let outcome = self.tell(&half, decision, remark).await?;
        Ok(TransactionResult { half: sent, decision, outcome })
    }

    async fn send_half(&self, prepared: &Prepared) -> Result<(SendResult, Half), TransactionError> {
        match self.sender.send_half(prepared, self.needs).await {
            Ok((sent, half)) => {
                let home = half.queue.broker_shared();
                self.orphans.lock().lives_on(&half.transaction_id, home, sent.possible_duplicate);
                Ok((sent, half))
            }
            Err(SenderError::Unconfirmable { addr }) => Err(TransactionError::Unconfirmable { addr }),
            Err(SenderError::Send(error)) => {
                if let SendError::OutcomeUnknown { message_id, .. } = &error {
                    self.orphans.lock().never_ran(message_id);
                }
                Err(TransactionError::Half(error))
            }
        }
    }

    async fn tell(&self, half: &Half, decision: Decision, remark: Option<String>) -> Result<Outcome, TransactionError> {
        tell(self.client.core(), self.sender.group(), half, decision, remark, self.decisions).await
    }
}

impl ProducerMember for Shared {
    fn group(&self) -> &str {
        self.sender.group()
    }

    fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    fn check(&self, connection: &Arc<Connection>, request: Frame, unit: Unit) {
        self.checks.push(Check { connection: Arc::clone(connection), request, unit });
    }

    fn close(&self) -> Closing<'_> {
        Box::pin(async {
            if self.sender.close().await {
                // The brokers ask others of the group from here on; the checks in hand are answered first.
                let core = self.client.core();
                core.groups.remove_producer(self.sender.group());
                core.leave(Some(self.sender.group()), None).await;
                self.shutdown.cancel();
                self.tasks.join().await;
            }
        })
    }
}
