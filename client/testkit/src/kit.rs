//! The handle that tests hold.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use escrowmq_client::{Client, MessageExt, StartError as ClientError, TransactionInfo};
use escrowmq_common::clock::{self, Clock};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::builder::KitBuilder;
use crate::error::StartError;
use crate::faults::Call;
use crate::host::{Host, Inside, Plan};
use crate::inspect::{self, InspectError};
use crate::proxy::Wire;

/// The longest step of the clock: beyond it milliseconds would not fit where they are stored.
const ADVANCE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Between looks for something that must happen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A nameserver and a broker in this process, for one test. Dropping it ends both and removes their folder.
///
/// They run on threads of their own: any runtime of the test will do, and several kits in one process have nothing in common. See
/// [the crate](crate) for an example and for what is real here and what is not.
#[derive(Debug)]
pub struct Kit {
    host: Host,
    wire: Arc<Wire>,
    clock: Clock,
    patience: Duration,
}

/// A fault that waits for its request, or has met it. Dropping this takes nothing back.
#[derive(Debug)]
pub struct Fault {
    hit: watch::Receiver<bool>,
    inside: Inside,
    patience: Duration,
}

impl Fault {
    /// Waits until the fault has happened.
    ///
    /// # Panics
    ///
    /// If it does not within the kit's [patience](KitBuilder::patience).
    pub async fn hit(&self) {
        let (mut hit, patience) = (self.hit.clone(), self.patience);
        let waited = self.inside.run(async move { timeout(patience, hit.wait_for(|hit| *hit)).await.is_ok() });
        assert!(waited.await == Some(true), "no request came within {patience:?} that the fault is about");
    }
}

impl Kit {
    /// Starts a kit without topics: the first message that is sent to one creates it.
    pub async fn start() -> Result<Kit, StartError> {
        Kit::builder().start().await
    }

    /// Begins a kit with topics and settings.
    pub fn builder() -> KitBuilder {
        KitBuilder::new()
    }

    pub(crate) async fn start_as(builder: KitBuilder) -> Result<Kit, StartError> {
        let KitBuilder { topics, settings, patience } = builder;
        let (wire, clock) = (Arc::new(Wire::default()), Clock::skipping());
        let plan = Plan { topics, settings, wire: Arc::clone(&wire), clock: clock.clone() };
        Ok(Kit { host: Host::start(plan).await?, wire, clock, patience })
    }

    /// The nameserver's address, `host:port`, for clients of any language.
    pub fn nameserver(&self) -> &str {
        self.host.nameserver()
    }

    /// The temporary folder with the data, for a look into it or `escrowmq fsck` after [`kill_broker`](Kit::kill_broker). It goes
    /// with the kit.
    pub fn folder(&self) -> &Path {
        self.host.folder()
    }

    /// A new client of this cluster, on the caller's runtime. [`Client::builder`] with [`nameserver`](Kit::nameserver) makes one
    /// with other settings.
    pub async fn client(&self) -> Result<Client, ClientError> {
        Client::builder(self.nameserver()).connect().await
    }

    /// The broker's time: the machine's, and what was [advanced](Kit::advance). For
    /// [`deliver_at`](escrowmq_client::Message::deliver_at).
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(clock::wall_ms().unsigned_abs()) + self.clock.skipped()
    }

    /// Lets time pass at once for everything that the broker has a time for: checks of transactions, delay levels, timers, retries,
    /// duplicate windows, parking. Returns when messages that became due are visible, and checks that became due are on their way to their
    /// producers. A transaction is checked once by it, however long it is: the next check is due an interval after the one
    /// before was sent.
    ///
    /// Time of connections, heartbeats and locks of queues does not pass: no client is forgotten by it. What the client does by
    /// itself, such as waiting for an answer, goes by the clock of its own runtime.
    ///
    /// # Panics
    ///
    /// If `by` is more than a hundred years.
    pub async fn advance(&self, by: Duration) {
        assert!(by <= ADVANCE_MAX, "{by:?} is more than a hundred years");
        self.host.advance(by).await;
    }

    /// The next decision of a transaction does not reach the broker, nor does any repeat of it, until its producer has answered a
    /// check with a decision: so the check settles the transaction. Answers to checks arrive. A producer that waits for the
    /// confirmation repeats its decision meanwhile, and gets the confirmation in the end or gives up after its
    /// `decision_deadline`.
    pub fn drop_next_end_transaction(&self) -> Fault {
        self.fault(self.wire.faults.lock().drop_decision())
    }

    /// The broker carries the next request of this kind out, and its answer does not arrive: the connection breaks instead, as
    /// it would in earnest. Whoever sent it cannot know whether it was done.
    pub fn lose_next_answer(&self, call: Call) -> Fault {
        self.fault(self.wire.faults.lock().lose_answer(call))
    }

    fn fault(&self, hit: watch::Receiver<bool>) -> Fault {
        Fault { hit, inside: self.host.inside().clone(), patience: self.patience }
    }

    /// Breaks all connections of clients with the broker. They may connect again at once.
    pub fn break_connections(&self) {
        self.wire.cut();
    }

    /// Ends the broker as `kill -9` would: connections break, nothing is written any more, and what was only in memory is lost.
    /// Connecting is refused until [`restart`](Kit::restart). Nothing happens if it does not run.
    pub async fn kill_broker(&self) {
        self.host.kill().await;
    }

    /// Starts the broker again in its folder, at the address that it had; one that runs is ended in good order before. Returns when it has
    /// recovered and clients are served.
    pub async fn restart(&self) -> Result<(), StartError> {
        self.host.restart().await
    }

    /// Ends broker and nameserver in good order. Dropping the kit ends them too, like a kill.
    pub async fn stop(self) {
        self.host.stop().await;
    }

    /// All messages of a topic that consumers can read now, by queue and offset; none if there is no such topic. Reads in the name
    /// of the consumer group `escrowmq-testkit` and stores no offset.
    ///
    /// # Panics
    ///
    /// If the broker cannot be read, because it was killed for example. So do all looks and assertions below.
    pub async fn messages(&self, topic: &str) -> Vec<MessageExt> {
        self.look(inspect::messages(self.nameserver().to_owned(), topic.to_owned())).await
    }

    /// The transactions that are undecided and asked about, oldest first.
    pub async fn open_transactions(&self) -> Vec<TransactionInfo> {
        self.look(inspect::transactions(self.nameserver().to_owned(), false)).await
    }

    /// The transactions that the broker asks about no more and that wait for an operator, oldest first.
    pub async fn parked_transactions(&self) -> Vec<TransactionInfo> {
        self.look(inspect::transactions(self.nameserver().to_owned(), true)).await
    }

    /// Waits until consumers of the topic can read a message with this key, message id or transaction id, and returns it.
    ///
    /// # Panics
    ///
    /// If none comes within the kit's [patience](KitBuilder::patience), or if there is more than one.
    pub async fn assert_delivered_once(&self, topic: &str, key_or_id: &str) -> MessageExt {
        let deadline = clock::monotonic() + self.patience;
        loop {
            let mut found = self.named(topic, key_or_id).await;
            match found.len() {
                1 => return found.remove(0),
                0 if clock::monotonic() < deadline => self.pause().await,
                0 => panic!("{topic} has no message '{key_or_id}' after {:?}", self.patience),
                count => panic!("{topic} has {count} messages '{key_or_id}': {}", places(&found)),
            }
        }
    }

    /// Looks that no consumer of the topic can read a message with this key, message id or transaction id. It says nothing of later:
    /// [`advance`](Kit::advance) first beyond everything that could make it visible.
    ///
    /// # Panics
    ///
    /// If there is one.
    pub async fn assert_never_visible(&self, topic: &str, key_or_id: &str) {
        let found = self.named(topic, key_or_id).await;
        assert!(found.is_empty(), "{topic} has '{key_or_id}', which must not be visible: {}", places(&found));
    }

    /// Waits until no transaction is open: each is decided, or parked.
    ///
    /// # Panics
    ///
    /// If some are still open after the kit's [patience](KitBuilder::patience).
    pub async fn assert_all_settled(&self) {
        let deadline = clock::monotonic() + self.patience;
        loop {
            let open = self.open_transactions().await;
            if open.is_empty() {
                return;
            }
            let ids: Vec<_> = open.iter().map(|one| one.transaction_id.as_str()).collect();
            assert!(clock::monotonic() < deadline, "still open after {:?}: {}", self.patience, ids.join(", "));
            self.pause().await;
        }
    }

    /// Waits until exactly so many messages wait in the broker for their time: those with a delay or a timer, and those that consumers
    /// handed back to get them again. What a test does before it [advances](Kit::advance) beyond a retry.
    ///
    /// # Panics
    ///
    /// If it is another number after the kit's [patience](KitBuilder::patience).
    pub async fn assert_waiting(&self, count: u64) {
        let deadline = clock::monotonic() + self.patience;
        loop {
            let waiting = self.host.waiting().await;
            if waiting == count {
                return;
            }
            let is_late = clock::monotonic() >= deadline;
            assert!(!is_late, "{waiting} messages wait for their time after {:?}, not {count}", self.patience);
            self.pause().await;
        }
    }

    async fn named(&self, topic: &str, key_or_id: &str) -> Vec<MessageExt> {
        let mut messages = self.messages(topic).await;
        messages.retain(|message| {
            message.message_id() == key_or_id
                || message.transaction_id() == Some(key_or_id)
                || message.keys().any(|key| key == key_or_id)
        });
        messages
    }

    /// On the kit's runtime, where no test has stopped the clock.
    async fn pause(&self) {
        self.host.inside().run(tokio::time::sleep(LOOK_EVERY)).await;
    }

    async fn look<T: Send + 'static>(&self, look: impl Future<Output = Result<T, InspectError>> + Send + 'static) -> T {
        match self.host.inside().run(look).await {
            Some(Ok(seen)) => seen,
            Some(Err(error)) => panic!("the broker cannot be looked into: {error}"),
            None => panic!("the kit's own task has ended; its log says why"),
        }
    }
}

fn places(messages: &[MessageExt]) -> String {
    let place =
        |message: &MessageExt| format!("{} at {} of {}", message.message_id(), message.queue_offset(), message.queue());
    messages.iter().map(place).collect::<Vec<_>>().join("; ")
}
