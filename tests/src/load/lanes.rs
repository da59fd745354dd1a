//! What the SDK does: transactions, plain sends, a consumer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_client::{
    Client, ConsumeFrom, Decision, Half, Message, MessageExt, Outcome, Producer, PushConsumer, TransactionError,
    TransactionListener, TransactionProducer,
};

use super::{READERS, Shared, TOPIC, key_of, place};
use crate::history::{Ending, What, hash};

/// Between two sends of a message that was not acknowledged.
const AGAIN: Duration = Duration::from_millis(50);

/// The application behind all instances of the producer group: its database, and the history.
#[derive(Clone)]
pub(super) struct Application {
    shared: Arc<Shared>,
}

impl Application {
    pub(super) fn new(shared: &Arc<Shared>) -> Application {
        Application { shared: Arc::clone(shared) }
    }

    /// Ends a local transaction: on disk, then in the history, then the decision is sent.
    fn settle(&self, key: &str, wanted: Ending) -> Decision {
        match self.shared.settle(key, wanted) {
            Ending::Commit => Decision::Commit,
            Ending::Rollback => Decision::Rollback,
        }
    }
}

impl Shared {
    pub(super) fn settle(&self, key: &str, wanted: Ending) -> Ending {
        let ending = self.database.settle(key, wanted);
        self.history.note("database", What::Local { key: key.to_owned(), ending });
        ending
    }
}

impl TransactionListener for Application {
    async fn execute_local_transaction(&self, message: &Message, _: &Half) -> Decision {
        let key = key_of(message.body());
        let number: usize = key.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        self.shared.history.note("database", What::HalfStored { key: key.clone() });
        // A check may have come first, and then its answer stands: this local transaction finds the mark and gives up.
        let decision = self.settle(&key, if number % 3 == 1 { Ending::Rollback } else { Ending::Commit });
        // Every fifth producer forgets to tell.
        if number % 5 == 4 { Decision::Unknown } else { decision }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        self.shared.checks.fetch_add(1, Ordering::Relaxed);
        // Nothing there: never ran, or does not run yet. The mark keeps it from running later.
        self.settle(&key_of(message.body()), Ending::Rollback)
    }
}

/// Runs one transaction after the other.
pub(super) async fn transact(shared: &Shared, producer: &TransactionProducer, name: String) {
    let history = &shared.history;
    for number in 0.. {
        if shared.over.is_cancelled() {
            return;
        }
        let key = format!("{name}/{number}");
        history.note(&name, What::Half { key: key.clone(), hash: hash(key.as_bytes()) });
        match producer.send(Message::new(TOPIC, key.clone())).await {
            Ok(result) => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                let decided = match result.outcome {
                    Outcome::Committed { queue, queue_offset, .. } => {
                        let at = queue_offset.map(|offset| place(queue.broker(), queue.id(), offset));
                        Some((Ending::Commit, at))
                    }
                    Outcome::RolledBack { .. } => Some((Ending::Rollback, None)),
                    _ => None,
                };
                if let Some((ending, place)) = decided {
                    history.note(&name, What::Decided { key, ending, place });
                }
            }
            Err(error @ (TransactionError::Half(_) | TransactionError::Unresolved { .. })) => {
                shared.failed(error.outcome_unknown());
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => panic!("{key}: {error}"),
        }
        tokio::time::sleep(shared.rate.pause).await;
    }
}

/// Sends one plain message after the other, each one until it is acknowledged.
pub(super) async fn send(shared: &Shared, producer: &Producer, name: String) {
    for number in 0.. {
        if shared.over.is_cancelled() {
            return;
        }
        let key = format!("{name}/{number}");
        shared.history.note(&name, What::Send { key: key.clone(), hash: hash(key.as_bytes()) });
        let message = Message::new(TOPIC, key.clone()).unique_id(key.clone());
        let sent = loop {
            match producer.send(message.clone()).await {
                Ok(sent) => break sent,
                Err(error) => {
                    assert!(error.is_retryable(), "{key}: {error}");
                    shared.failed(error.outcome_unknown());
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        let place = Some(place(sent.queue.broker(), sent.queue.id(), sent.queue_offset));
        shared.history.note(&name, What::Sent { key, level: shared.rate.level, place });
        tokio::time::sleep(shared.rate.pause).await;
    }
}

/// A consumer of everything.
pub(super) async fn read(client: &Client, shared: &Shared) -> PushConsumer {
    let history = shared.history.clone();
    let consumer = client.push_consumer(READERS).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        let queue = message.queue();
        let delivered = What::Delivered {
            group: READERS.to_owned(),
            key: key_of(message.body()),
            place: place(queue.broker(), queue.id(), message.queue_offset()),
            hash: hash(message.body()),
            attempt: message.reconsume_times(),
        };
        history.note("reader", delivered);
        async { Ok::<(), Infallible>(()) }
    });
    consumer.await.expect("the reader starts")
}
