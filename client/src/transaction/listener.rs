//! What the user decides: the local transaction, and what became of it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures_util::FutureExt;

use super::Half;
use crate::consumer::panic_text;
use crate::message::{Message, MessageExt};

/// What becomes of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Consumers get it.
    Commit,
    /// Nobody ever gets it.
    Rollback,
    /// Not decided yet: the broker asks again later.
    Unknown,
}

/// The local side of transactions, registered once per [`TransactionProducer`](super::TransactionProducer).
///
/// Both methods may run many times at once. `check_local_transaction` must be able to answer in any process of the
/// producer group, also after a restart: it looks into the database, not into memory. It may be asked about a message
/// whose send failed with an unknown outcome, and about one whose local transaction still runs in another process; it
/// answers [`Decision::Unknown`] as long as the database does not know. As long as a transaction runs in the producer's own
/// process, the producer answers so itself.
///
/// A panic counts as [`Decision::Unknown`].
pub trait TransactionListener: Send + Sync + 'static {
    /// Runs the local transaction of a half message that the broker has stored.
    fn execute_local_transaction(&self, message: &Message, half: &Half) -> impl Future<Output = Decision> + Send;

    /// Says what became of the local transaction of `message`, found by its
    /// [`transaction_id`](MessageExt::transaction_id), a key or its content.
    fn check_local_transaction(&self, message: &MessageExt) -> impl Future<Output = Decision> + Send;
}

type Deciding<'a> = Pin<Box<dyn Future<Output = Result<Decision, String>> + Send + 'a>>;

/// [`TransactionListener`] behind a pointer, with panics turned into text.
pub(crate) trait Listener: Send + Sync + 'static {
    fn execute<'a>(&'a self, message: &'a Message, half: &'a Half) -> Deciding<'a>;
    fn check<'a>(&'a self, message: &'a MessageExt) -> Deciding<'a>;
}

impl<L: TransactionListener> Listener for L {
    fn execute<'a>(&'a self, message: &'a Message, half: &'a Half) -> Deciding<'a> {
        Box::pin(caught(async move { self.execute_local_transaction(message, half).await }))
    }

    fn check<'a>(&'a self, message: &'a MessageExt) -> Deciding<'a> {
        Box::pin(caught(async move { self.check_local_transaction(message).await }))
    }
}

/// The decision, or the text of the panic.
pub(crate) async fn caught(deciding: impl Future<Output = Decision>) -> Result<Decision, String> {
    AssertUnwindSafe(deciding).catch_unwind().await.map_err(|panic| panic_text(panic.as_ref()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    struct Rude;

    impl TransactionListener for Rude {
        async fn execute_local_transaction(&self, _: &Message, _: &Half) -> Decision {
            Decision::Commit
        }

        async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
            assert_ne!(message.topic(), "T", "not that one");
            Decision::Commit
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_text() {
        let reason = Listener::check(&Rude, &delivered("T", 0, b"x")).await.expect_err("a panic");
        assert!(reason.contains("not that one"), "{reason}");
        assert_eq!(Listener::check(&Rude, &delivered("U", 0, b"x")).await, Ok(Decision::Commit));
    }
}
