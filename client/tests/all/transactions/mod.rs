//! Transactions of every style against brokers that confirm decisions and brokers that do not, and the checks of all.

mod checks;
mod closure;
mod handle;
mod listener;
mod several;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Broker, Cluster, Hook, Kind, until};
use escrowmq_client::{Client, Decision, Half, Message, MessageExt, TransactionListener, TransactionProducer};
use escrowmq_common::code::request;

/// Does what the message's body says, and remembers what it was asked.
#[derive(Clone, Default)]
struct Obedient {
    ran: Arc<Mutex<Vec<String>>>,
    checked: Arc<Mutex<Vec<String>>>,
    /// The answers to checks, by body; otherwise commit.
    answers: Arc<Mutex<HashMap<String, Decision>>>,
}

impl Obedient {
    fn ran(&self) -> Vec<String> {
        self.ran.lock().expect("no panic inside").clone()
    }

    fn checked(&self) -> Vec<String> {
        self.checked.lock().expect("no panic inside").clone()
    }
}

impl TransactionListener for Obedient {
    async fn execute_local_transaction(&self, message: &Message, half: &Half) -> Decision {
        self.ran.lock().expect("no panic inside").push(half.transaction_id.clone());
        match &message.body()[..] {
            b"commit" => Decision::Commit,
            b"rollback" => Decision::Rollback,
            b"panic" => panic!("on purpose"),
            b"slow" => Decision::InProgress { retry_after: Duration::from_millis(7_500) },
            _ => Decision::Unknown,
        }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        let id = message.transaction_id().expect("a transaction").to_owned();
        self.checked.lock().expect("no panic inside").push(id);
        let body = String::from_utf8_lossy(message.body()).into_owned();
        assert_ne!(body, "panic", "on purpose");
        self.answers.lock().expect("no panic inside").get(&body).copied().unwrap_or(Decision::Commit)
    }
}

struct Stage {
    cluster: Cluster,
    client: Client,
    producer: TransactionProducer,
    listener: Obedient,
}

impl Stage {
    async fn set(brokers: usize, kind: Kind) -> Stage {
        let cluster = Cluster::start(brokers, kind, &[("T", 1), ("U", 2)]).await;
        let client = Client::builder(&cluster.namesrv).connect().await.expect("a name server");
        let listener = Obedient::default();
        let producer = client
            .transaction_producer("P", listener.clone())
            .topics(["T", "U"])
            .attempt_timeout(Duration::from_millis(300))
            .deadline(Duration::from_secs(2))
            .decision_timeout(Duration::from_millis(300))
            .decision_deadline(Duration::from_secs(2))
            .start()
            .await
            .expect("started");
        Stage { cluster, client, producer, listener }
    }

    async fn strike(self) {
        self.client.shutdown().await;
        self.cluster.stop().await;
    }

    /// The messages of `T` that consumers can see.
    fn visible(&self) -> Vec<String> {
        self.cluster.brokers.iter().flat_map(|broker| broker.bodies("T", 0)).collect()
    }

    /// The messages of `U` that consumers can see.
    fn visible_too(&self) -> Vec<String> {
        let of = |broker: &Arc<Broker>| [broker.bodies("U", 0), broker.bodies("U", 1)].concat();
        self.cluster.brokers.iter().flat_map(of).collect()
    }

    /// Asks the producer about the oldest open half of the only broker, until that has been answered.
    async fn check(&self) -> crate::fake::Seen {
        let broker = &self.cluster.brokers[0];
        let answers = || {
            let ends = broker.seen(request::END_TRANSACTION).into_iter();
            ends.filter(|end| end.field("fromTransactionCheck").as_deref() == Some("true")).collect::<Vec<_>>()
        };
        let before = answers().len();
        broker.check("P", broker.open_halves()[0]);
        until("the check is answered", || answers().len() > before).await;
        answers().pop().expect("just seen")
    }
}

/// Misbehaves on the first `count` requests with `code`.
fn first(
    code: i32,
    count: usize,
    hook: impl Fn() -> Hook + Send + Sync + 'static,
) -> impl Fn(&crate::fake::Seen) -> Hook + Send + Sync + Clone {
    let (left, hook) = (Arc::new(Mutex::new(count)), Arc::new(hook));
    move |seen| {
        let mut left = left.lock().expect("no panic inside");
        if seen.frame.code != code || *left == 0 {
            return Hook::Pass;
        }
        *left -= 1;
        hook()
    }
}
