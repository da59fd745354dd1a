//! One open transaction: the halves prepared so far, and whether it may still be committed. All four styles are this.
//!
//! ```text
//!            prepare: Ok            commit, rollback
//!  empty ---------------> whole ---------------------> ended
//!    |  prepare: unknown    |  ^                         ^
//!    `------------.         |  | the same message again  | rollback
//!                 v         v  |                         |
//!                   doubtful --------------------------->'
//! ```
//!
//! Promises: a transaction is committed only while every message whose `prepare` was begun is known to be stored or known
//! not to be; a doubtful one can only be rolled back, and this process answers its check so. From `begin` until a decision is
//! told or the transaction is dropped the check is answered "in progress".

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::message::properties::name;
use parking_lot::Mutex;

use super::engine::Engine;
use super::running::Run;
use super::{Decision, Half, Outcome, TransactionError};
use crate::error::{RequestError, SendError};
use crate::message::Message;
use crate::producer::{First, HalfNeeds, Prepared, SendResult, SenderError, StoreLevel};

/// A transaction that is not decided yet.
pub(crate) struct Open {
    engine: Arc<Engine>,
    id: String,
    /// Whether it is meant to have several messages: then the first one already needs a broker that can join others.
    several: bool,
    /// Held while a half is being prepared or the decision begins: halves join one after the other.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were prepared; the first one is the transaction.
    halves: Vec<Half>,
    doubt: Option<Doubt>,
    /// Keeps checks away from the listener; gone when it has ended.
    run: Option<Run>,
    has_ended: bool,
}

/// A message of which nobody knows whether the broker holds it, or for how long.
struct Doubt {
    message_id: String,
    /// How its last attempt failed; `None` if the attempt was given up.
    last: Option<RequestError>,
}

/// A message that may be sent.
struct Begun {
    prepared: Prepared,
    needs: HalfNeeds,
    /// It is sent again, after it was unknown whether it is stored.
    was_doubtful: bool,
}

impl Open {
    pub(super) fn new(engine: Arc<Engine>, id: String, several: bool, run: Run) -> Open {
        let state = State { run: Some(run), ..State::default() };
        Open { engine, id, several, turn: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }

    /// The transaction's id: the unique id of its first message.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The engine that it runs on.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The first half, once it is prepared.
    pub(crate) fn half(&self) -> Option<Half> {
        self.state.lock().halves.first().cloned()
    }

    /// Stores one more half. The caller holds a place among the sends in flight.
    pub(crate) async fn prepare(&self, message: Message) -> Result<SendResult, TransactionError> {
        let _turn = self.turn.lock().await;
        let Begun { mut prepared, needs, was_doubtful } = self.before(message)?;
        let sent = self.engine.send_half(&mut prepared, &needs).await;
        let mut state = self.state.lock();
        let (sent, mut half) = match sent {
            Ok(stored) => stored,
            Err(error) => {
                if let SenderError::Send(SendError::OutcomeUnknown { last, .. }) = &error {
                    state.doubt = Some(Doubt { message_id: prepared.message_id, last: Some(last.clone()) });
                } else if !was_doubtful {
                    // Certain, and no earlier attempt takes the certainty away.
                    state.doubt = None;
                }
                return Err(self.told(error));
            }
        };
        // A member's answer names the member; for the user all of them are one transaction.
        half.transaction_id.clone_from(&self.id);
        if needs.first.is_none() {
            self.engine.lives_on(&half, sent.possible_duplicate || was_doubtful);
        }
        state.halves.push(half);
        if sent.level != StoreLevel::Full {
            // As other clients do: a half that the next crash may take must not carry a local transaction.
            let (message_id, code) = (prepared.message_id, sent.level.code());
            state.doubt = Some(Doubt { message_id: message_id.clone(), last: None });
            return Err(TransactionError::HalfNotSafe { transaction_id: self.id.clone(), message_id, code });
        }
        state.doubt = None;
        Ok(sent)
    }

    /// Checks that the message may join, and counts it as doubtful from here on: the send may be given up at any point.
    fn before(&self, mut message: Message) -> Result<Begun, TransactionError> {
        let invalid = |reason: String| TransactionError::Half(SendError::Invalid { reason });
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(invalid(format!("transaction {} has ended", self.id)));
        }
        let given = message.get(name::UNIQUE_KEY);
        let is_in = state.halves.iter().any(|half| given == Some(&half.message_id));
        if let Some(doubt) = &state.doubt
            && (is_in || given != Some(&doubt.message_id))
        {
            return Err(self.incomplete(doubt));
        }
        if is_in {
            return Err(invalid(format!("the message is in transaction {} already", self.id)));
        }
        let first = state.halves.first();
        if first.is_none() {
            if given.is_some_and(|given| given != self.id) {
                let reason = format!("the first message of transaction {} has another unique id", self.id);
                return Err(invalid(reason));
            }
            message.set(name::UNIQUE_KEY, self.id.clone());
        }
        let needs = HalfNeeds {
            confirmation: self.engine.needs_confirmation(),
            several: self.several,
            first: first.map(|half| First { broker: half.queue.broker_shared(), position: half.position }),
        };
        let prepared = self.engine.half_of(message)?;
        let was_doubtful = state.doubt.is_some();
        if !was_doubtful {
            state.doubt = Some(Doubt { message_id: prepared.message_id.clone(), last: None });
        }
        Ok(Begun { prepared, needs, was_doubtful })
    }

    fn incomplete(&self, doubt: &Doubt) -> TransactionError {
        TransactionError::Incomplete { transaction_id: self.id.clone(), message_id: doubt.message_id.clone() }
    }

    /// As the user hears of a half that was not stored.
    fn told(&self, error: SenderError) -> TransactionError {
        let transaction_id = self.id.clone();
        match error {
            SenderError::Send(error) => TransactionError::Half(error),
            SenderError::Unconfirmable { addr } => TransactionError::Unconfirmable { addr },
            SenderError::Single { addr } => {
                TransactionError::Unsupported { addr, what: "take several messages in one transaction" }
            }
            SenderError::OtherBroker { topic, broker } => {
                TransactionError::OtherBrokerGroup { transaction_id, topic, broker }
            }
            SenderError::Decided { settled, remark, .. } => {
                TransactionError::AlreadyDecided { transaction_id, settled, remark }
            }
        }
    }

    /// Ends the transaction with this decision.
    pub(crate) async fn finish(&self, decision: Decision, remark: Option<String>) -> Result<Outcome, TransactionError> {
        let halves = {
            let _turn = self.turn.lock().await;
            match self.ended_by(decision)? {
                Some(halves) => halves,
                None => return Ok(Outcome::RolledBack { repeated: false }),
            }
        };
        let told = self.engine.tell(&halves, decision, remark).await;
        if decision == Decision::Rollback && matches!(told, Err(TransactionError::Unresolved { .. })) {
            // Said here and not heard there: the check gets the same answer.
            self.engine.never_ran(&self.id);
        }
        told
    }

    /// Marks the end; answers the halves to decide about, or `None` if a rollback finds nothing to do.
    fn ended_by(&self, decision: Decision) -> Result<Option<Vec<Half>>, TransactionError> {
        let mut state = self.state.lock();
        if state.has_ended {
            let reason = format!("transaction {} has ended", self.id);
            return Err(TransactionError::Half(SendError::Invalid { reason }));
        }
        let doubt = self.end(&mut state);
        let transaction_id = self.id.clone();
        match doubt {
            Some(doubt) if decision != Decision::Rollback => Err(self.incomplete(&doubt)),
            // The only half, and nobody knows where it lies: the check settles it.
            Some(Doubt { last, .. }) if state.halves.is_empty() => {
                let unanswered = || RequestError::malformed("the broker", "the send was given up before its answer");
                let last = last.unwrap_or_else(unanswered);
                Err(TransactionError::Unresolved { transaction_id, decision, last })
            }
            None if state.halves.is_empty() && decision != Decision::Rollback => {
                let reason = format!("transaction {transaction_id} has no message");
                Err(TransactionError::Half(SendError::Invalid { reason }))
            }
            None if state.halves.is_empty() => Ok(None),
            _ => Ok(Some(std::mem::take(&mut state.halves))),
        }
    }

    /// Ends it without a decision: the check asks the listener, or is answered with a rollback if the transaction is
    /// doubtful. Does nothing after a decision.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        if !state.has_ended {
            self.end(&mut state);
        }
    }

    /// From here on the listener knows as much as we do, except about what was never whole.
    fn end(&self, state: &mut State) -> Option<Doubt> {
        state.has_ended = true;
        let doubt = state.doubt.take();
        if doubt.is_some() {
            self.engine.never_ran(&self.id);
        }
        state.run = None;
        doubt
    }

    /// Asks the broker for more time. Nothing to do before the first half.
    pub(crate) async fn keep_alive(&self, retry_after: Duration) -> Result<(), TransactionError> {
        let halves: Vec<Half> = self.half().into_iter().collect();
        if halves.is_empty() { Ok(()) } else { self.engine.extend(&halves, retry_after).await }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Transaction")
            .field("id", &self.id)
            .field("messages", &state.halves.len())
            .field("is_doubtful", &state.doubt.is_some())
            .finish_non_exhaustive()
    }
}
