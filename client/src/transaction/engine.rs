//! The engine under all styles of transactions: halves out, decisions out, checks in.
//!
//! ```text
//!  listener, closure, handle, barrier
//!        | begin              -> Open: prepare .. finish | abandon
//!        v
//!      Engine -- send_half --> Sender --> broker
//!        |  `--- tell, extend ----------> broker
//!        |                                  | check
//!        `--- Running, Orphans <--- Checks <'   (then the listener)
//! ```

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::frame::Frame;
use escrowmq_common::message::properties::name;
use escrowmq_common::message::{Message as Unit, unique_id};
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;

use super::check::{Check, Checks};
use super::listener::Listener;
use super::open::Open;
use super::orphans::Orphans;
use super::running::Running;
use super::tell::{DecisionPolicy, Subject, extend, tell};
use super::{Decision, Half, Outcome, TransactionError};
use crate::client::Client;
use crate::groups::{Closing, ProducerMember};
use crate::message::Message;
use crate::producer::{HalfNeeds, Prepared, SendResult, Sender, SenderError};
use crate::stats::ProducerStats;

/// The transactional producer's inside. Lives as long as a producer or an open transaction does.
pub(crate) struct Engine {
    pub(super) client: Client,
    pub(super) sender: Sender,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) orphans: Arc<Mutex<Orphans>>,
    pub(super) running: Running,
    pub(super) checks: Checks,
    pub(super) decisions: DecisionPolicy,
    /// Brokers that confirm no decisions are refused.
    pub(super) needs_confirmation: bool,
    pub(super) tasks: Tasks,
    pub(super) shutdown: Shutdown,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionProducer").field("group", &self.sender.group()).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Engine {
    /// Begins a transaction and marks it as running. Its id is `id`, or a new one.
    pub(crate) fn begin(self: &Arc<Self>, id: Option<String>, several: bool) -> Open {
        let id = id.unwrap_or_else(|| unique_id().to_string());
        let run = self.running.begin(&id);
        Open::new(Arc::clone(self), id, several, run)
    }

    /// Begins a transaction of which `message` is the first, and stores that. One that is not safe is rolled back.
    pub(crate) async fn open(self: &Arc<Self>, message: Message) -> Result<(Open, SendResult), TransactionError> {
        let open = self.begin(message.get(name::UNIQUE_KEY).map(str::to_owned), false);
        match open.prepare(message).await {
            Ok(sent) => Ok((open, sent)),
            Err(error) => {
                if matches!(error, TransactionError::HalfNotSafe { .. }) {
                    // If this gets lost too, the check is answered the same way.
                    let _ = open.finish(Decision::Rollback, None).await;
                }
                Err(error)
            }
        }
    }

    /// A place among what is in flight, which [`close`](ProducerMember::close) waits for.
    pub(crate) async fn enter(&self) -> Result<SemaphorePermit<'_>, TransactionError> {
        self.sender.enter().await.map_err(TransactionError::Half)
    }

    /// A place if there is one: decisions do not queue up after new messages, and are told during a shutdown, too.
    pub(crate) fn enter_if_free(&self) -> Option<SemaphorePermit<'_>> {
        self.sender.enter_if_free()
    }

    pub(super) fn needs_confirmation(&self) -> bool {
        self.needs_confirmation
    }

    /// The message in the form in which it is sent as a half.
    pub(super) fn half_of(&self, mut message: Message) -> Result<Prepared, TransactionError> {
        message.set(name::TRANSACTION_PREPARED, "true");
        message.set(name::PRODUCER_GROUP, self.sender.group());
        Prepared::new(message, self.sender.settings()).map_err(TransactionError::Half)
    }

    /// Stores a half.
    pub(super) async fn send_half(
        &self,
        prepared: &mut Prepared,
        needs: &HalfNeeds,
    ) -> Result<(SendResult, Half), SenderError> {
        self.sender.send_half(prepared, needs).await
    }

    /// The first half of a transaction counts where it lies; others of its id, elsewhere, are strays.
    pub(super) fn lives_on(&self, half: &Half, may_have_left_others: bool) {
        self.orphans.lock().lives_on(&half.transaction_id, half.queue.broker_shared(), may_have_left_others);
    }

    /// The transaction is to be rolled back, whatever the listener may say: its check is answered so.
    pub(super) fn never_ran(&self, transaction_id: &str) {
        self.orphans.lock().never_ran(transaction_id);
    }

    /// Tells the broker what was decided about a transaction, and waits for the confirmation.
    pub(crate) async fn tell(
        &self,
        halves: &[Half],
        decision: Decision,
        remark: Option<String>,
    ) -> Result<Outcome, TransactionError> {
        tell(self.client.core(), self.subject(halves), decision, remark, self.decisions).await
    }

    /// Asks the broker for more time for a transaction.
    pub(crate) async fn extend(&self, halves: &[Half], retry_after: Duration) -> Result<(), TransactionError> {
        extend(self.client.core(), self.subject(halves), retry_after, self.decisions).await
    }

    fn subject<'a>(&'a self, halves: &'a [Half]) -> Subject<'a> {
        Subject { group: self.sender.group(), halves }
    }
}

impl ProducerMember for Engine {
    fn group(&self) -> &str {
        self.sender.group()
    }

    fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    fn check(&self, connection: &Arc<Connection>, request: Frame, unit: Unit) {
        self.checks.push(Check { connection: Arc::clone(connection), request, unit });
    }

    fn stats(&self) -> ProducerStats {
        self.sender.stats()
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
