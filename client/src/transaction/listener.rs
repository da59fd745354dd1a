//! The user's part: the local transaction, and the answer about its end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;

use super::{Decision, Half};
use crate::consumer::panic_text;
use crate::message::{Message, MessageExt};

/// The local side of transactions, registered once per [`TransactionProducer`](super::TransactionProducer).
///
/// Both methods may run many times at once. `check_local_transaction` must be able to answer in any process of the
/// producer group, also after a restart: it looks into the database, not into memory. It may be asked about a message
/// whose send failed with an unknown outcome, and about one whose local transaction still runs in another process; it
/// answers [`Decision::Unknown`] or [`Decision::InProgress`] as long as the database does not know. As long as a
/// transaction runs in the producer's own process, the producer answers so itself.
///
/// A panic counts as [`Decision::Unknown`].
///
/// A producer whose transactions are not run by the listener (those of [`run`](super::TransactionProducer::run) and
/// [`prepare`](super::TransactionProducer::prepare)) needs its checks alone: a [`Checker`] is enough.
pub trait TransactionListener: Send + Sync + 'static {
    /// Runs the local transaction of a half message that the broker has stored, for
    /// [`send`](super::TransactionProducer::send). By default there is nothing to run: the check decides.
    fn execute_local_transaction(&self, message: &Message, half: &Half) -> impl Future<Output = Decision> + Send {
        let _ = (message, half);
        std::future::ready(Decision::Unknown)
    }

    /// Says what became of the local transaction of `message`, found by its
    /// [`transaction_id`](MessageExt::transaction_id), a key or its content. Of a transaction of several messages it is
    /// asked once, about the first one.
    fn check_local_transaction(&self, message: &MessageExt) -> impl Future<Output = Decision> + Send;
}

/// Several producers, or several routes of a [`Router`](super::Router), may share one listener.
impl<L: TransactionListener> TransactionListener for Arc<L> {
    fn execute_local_transaction(&self, message: &Message, half: &Half) -> impl Future<Output = Decision> + Send {
        L::execute_local_transaction(self, message, half)
    }

    fn check_local_transaction(&self, message: &MessageExt) -> impl Future<Output = Decision> + Send {
        L::check_local_transaction(self, message)
    }
}

/// A listener that only answers checks, made of a closure.
///
/// ```
/// use escrowmq_client::{Checker, Decision, MessageExt};
///
/// # async fn is_paid(order: &str) -> Option<bool> { None }
/// let checker = Checker::new(|message: MessageExt| async move {
///     match is_paid(message.transaction_id().unwrap_or_default()).await {
///         Some(true) => Decision::Commit,
///         Some(false) => Decision::Rollback,
///         None => Decision::Unknown,
///     }
/// });
/// ```
#[derive(Clone, Copy)]
pub struct Checker<F> {
    check: F,
}

impl<F> std::fmt::Debug for Checker<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl<F, R> Checker<F>
where
    F: Fn(MessageExt) -> R + Send + Sync + 'static,
    R: Future<Output = Decision> + Send + 'static,
{
    /// Answers checks with what `check` says of the message.
    pub fn new(check: F) -> Checker<F> {
        Checker { check }
    }
}

impl<F, R> TransactionListener for Checker<F>
where
    F: Fn(MessageExt) -> R + Send + Sync + 'static,
    R: Future<Output = Decision> + Send + 'static,
{
    fn check_local_transaction(&self, message: &MessageExt) -> impl Future<Output = Decision> + Send {
        (self.check)(message.clone())
    }
}

type Deciding<'a> = Pin<Box<dyn Future<Output = Decision> + Send + 'a>>;

/// [`TransactionListener`] behind a pointer.
pub(crate) trait Listener: Send + Sync + 'static {
    fn execute<'a>(&'a self, message: &'a Message, half: &'a Half) -> Deciding<'a>;
    fn check<'a>(&'a self, message: &'a MessageExt) -> Deciding<'a>;
}

impl<L: TransactionListener> Listener for L {
    fn execute<'a>(&'a self, message: &'a Message, half: &'a Half) -> Deciding<'a> {
        // Called inside of the future, so that a panic of the call itself is caught with the others.
        Box::pin(async move { self.execute_local_transaction(message, half).await })
    }

    fn check<'a>(&'a self, message: &'a MessageExt) -> Deciding<'a> {
        Box::pin(async move { self.check_local_transaction(message).await })
    }
}

/// The decision, or the text of the panic.
pub(super) async fn caught(deciding: impl Future<Output = Decision>) -> Result<Decision, String> {
    AssertUnwindSafe(deciding).catch_unwind().await.map_err(|panic| panic_text(panic.as_ref()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    struct Rude;

    impl TransactionListener for Rude {
        fn check_local_transaction(&self, message: &MessageExt) -> impl Future<Output = Decision> + Send {
            assert_ne!(message.topic(), "T", "not that one");
            std::future::ready(Decision::Commit)
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_text_even_before_there_is_a_future() {
        let message = delivered("T", 0, b"x");
        let reason = caught(Listener::check(&Rude, &message)).await.expect_err("a panic");
        assert!(reason.contains("not that one"), "{reason}");
        assert_eq!(caught(Listener::check(&Rude, &delivered("U", 0, b"x"))).await, Ok(Decision::Commit));
    }

    #[tokio::test]
    async fn a_checker_is_asked_with_the_message_and_shared_by_a_pointer() {
        let checker = Arc::new(Checker::new(|message: MessageExt| async move {
            if message.topic() == "T" { Decision::Rollback } else { Decision::Unknown }
        }));
        assert_eq!(Listener::check(&checker, &delivered("T", 0, b"x")).await, Decision::Rollback);
        assert_eq!(Listener::check(&checker, &delivered("U", 0, b"x")).await, Decision::Unknown);
    }
}
