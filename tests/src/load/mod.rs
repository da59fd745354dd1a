//! Load: transactions, plain messages and consumers, all at the same time and all the time, while a test does something to
//! the brokers.
//!
//! ```text
//!  SDK: transactions of two instances of a producer group, plain sends, a consumer            [lanes]
//!  single frames: a walker per broker group, which pulls, commits offsets and asks for them   [walker]
//!  in the end: everything is decided and delivered, what is stored is read, all is judged     [ending]
//! ```
//!
//! Promises: the application's database is on disk before a broker hears of a decision; everything that was asked, answered and
//! seen is in the history that the checker judges; a plain message whose send failed is sent again under its id until it is
//! acknowledged, and failures are counted as *refused* or *unknown*; a run ends in bounded time.
//!
//! Leaves to others: what is done to the brokers, and that they are whole again when that ends.

mod ending;
mod lanes;
mod walker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, ClientBuilder, ProducerBuilder, TransactionProducerBuilder};
use escrowmq_common::task::Shutdown;
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::history::{Level, Place, Recorder, What};
use crate::local::LocalDatabase;
use crate::wait::until_within;
use crate::wire::Wire;

pub use ending::Report;

/// The topic of a load, and its queues on each broker group.
const TOPIC: &str = "Load";
const QUEUES: i32 = 4;
const PRODUCERS: &str = "load-producer";
const READERS: &str = "load-reader";
const WALKERS: &str = "load-walker";

/// Transactions, and senders of plain messages, that run at the same time.
const LANES: usize = 6;
const SENDERS: usize = 2;

/// Answers that a test waits for come within this time: an outage of a majority, and then every decision on its way.
const ANSWERS: Duration = Duration::from_secs(60);

/// The deadline of decisions, if none is given.
const DECISIONS: Duration = Duration::from_secs(10);

/// Clients learn of a new leader by their routes.
const ROUTES_EVERY: Duration = Duration::from_secs(1);

/// A broker group, or a broker alone: its name, and where its members listen for clients and show their metrics.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name that routes have.
    pub name: String,
    /// Addresses for clients, and ports of metrics.
    pub members: Vec<(String, u16)>,
}

/// How much is asked at the same time, and what an acknowledgement promises.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The level of an acknowledgement.
    pub level: Level,
    /// A lane waits so long between two messages, so that a history of half an hour fits into memory.
    pub pause: Duration,
    /// The deadline of sends and decisions; the client's own without one.
    pub deadline: Option<Duration>,
}

impl Rate {
    /// As fast as answers come.
    pub fn full(level: Level) -> Rate {
        Rate { level, pause: Duration::ZERO, deadline: None }
    }
}

/// What all parts of a load share.
#[derive(Debug)]
struct Shared {
    targets: Vec<Target>,
    rate: Rate,
    history: Recorder,
    database: LocalDatabase,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    unknown: AtomicUsize,
    checks: AtomicUsize,
    /// No message is begun any more.
    over: Shutdown,
    /// Everything is delivered.
    ended: Shutdown,
}

impl Shared {
    /// A call failed: whether it may have had its effect all the same.
    fn failed(&self, outcome_unknown: bool) {
        let count = if outcome_unknown { &self.unknown } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A load that runs from [`run`](Load::run) to its report.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: [Client; 2],
    _folder: TempDir,
}

/// The load as those see it who do something to the brokers meanwhile.
#[derive(Clone, Debug)]
pub struct Meanwhile {
    shared: Arc<Shared>,
}

impl Meanwhile {
    /// How many operations were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more operations are acknowledged.
    pub async fn until_more(&self, count: usize) {
        let enough = self.acknowledged() + count;
        let is_enough = async || (self.acknowledged() >= enough).then_some(());
        until_within(ANSWERS, &format!("{count} more acknowledgements"), is_enough).await;
    }

    /// Takes down that something was done to the brokers, or was meant to be.
    pub fn fault(&self, kind: &str, fired: bool) {
        self.shared.history.note("faults", What::Fault { kind: kind.to_owned(), fired });
    }
}

impl Load {
    /// Makes the topic on all targets, and two clients that know it.
    pub async fn start(builder: impl Fn() -> ClientBuilder, targets: Vec<Target>, rate: Rate) -> Load {
        for target in &targets {
            let wire = Wire::to(target.members[0].0.clone());
            // Longer than any run: what is sent again is there once.
            wire.create_topic_with(TOPIC, QUEUES, "+duplicate.window.seconds=86400").await;
            wire.close().await;
        }
        let client = async || builder().route_interval(ROUTES_EVERY).connect().await.expect("a client connects");
        let clients = [client().await, client().await];
        let all = QUEUES as usize * targets.len();
        for client in &clients {
            until_within(ANSWERS, "the route of the topic", async || {
                let found = client.admin().queues(TOPIC).await.ok()?;
                (found.len() == all).then_some(())
            })
            .await;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shared = Shared {
            targets,
            rate,
            history: Recorder::default(),
            database: LocalDatabase::open(&folder.path().join("ledger")).expect("a ledger"),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
            over: Shutdown::new(),
            ended: Shutdown::new(),
        };
        Load { shared: Arc::new(shared), clients, _folder: folder }
    }

    /// Runs the load while `meanwhile` runs, then until everything has come to its end, and judges it. The brokers must be whole
    /// when `meanwhile` ends.
    pub async fn run(self, meanwhile: impl AsyncFnOnce(Meanwhile)) -> Report {
        let shared = &self.shared;
        let reader = lanes::read(&self.clients[0], shared).await;
        let application = lanes::Application::new(shared);
        let mut producers = Vec::new();
        for client in &self.clients {
            let builder = client.transaction_producer(PRODUCERS, application.clone()).topics([TOPIC]);
            let builder = builder.decision_deadline(shared.rate.deadline.unwrap_or(DECISIONS));
            let builder = shared.rate.deadline.into_iter().fold(builder, TransactionProducerBuilder::deadline);
            producers.push(builder.start().await.expect("a producer starts"));
        }
        let plain = self.clients[1].producer("load-plain");
        let plain = shared.rate.deadline.into_iter().fold(plain, ProducerBuilder::deadline);
        let plain = plain.start().await.expect("a producer starts");
        let transactions =
            (0..LANES).map(|lane| lanes::transact(shared, &producers[lane % producers.len()], format!("t{lane}")));
        let sends = (0..SENDERS).map(|lane| lanes::send(shared, &plain, format!("p{lane}")));
        let walkers = shared.targets.iter().map(|target| walker::walk(shared, target));
        let faults = async {
            meanwhile(Meanwhile { shared: Arc::clone(shared) }).await;
            shared.over.cancel();
        };
        let work = async {
            tokio::join!(join_all(transactions), join_all(sends), faults);
            shared.history.note("faults", What::Healed);
            ending::finish(shared).await;
            shared.ended.cancel();
        };
        tokio::join!(work, join_all(walkers));
        reader.shutdown().await;
        for client in &self.clients {
            client.shutdown().await;
        }
        Report::of(shared)
    }
}

/// A queue of a broker group, as the history names it.
fn place(broker: &str, queue: i32, offset: i64) -> Place {
    Place { queue: format!("{broker}/{queue}"), offset: offset.cast_unsigned() }
}

fn key_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
