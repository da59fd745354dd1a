//! Transactions and plain messages under `kill -9` at random moments, judged from outside: by a database of the application
//! that is on disk before the broker hears of a decision, by a history of everything asked, answered and seen, and by the
//! checker.
//!
//! `ESCROWMQ_KILLS` is the number of kills per campaign, `ESCROWMQ_KILL_SEED` one seed, `ESCROWMQ_KILL_SECONDS` goes on with
//! fresh seeds for so long. The seed decides when the kills come; what they hit is up to the machine.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_client::{
    Client, ConsumeFrom, Decision, Half, Message, MessageExt, Outcome, Producer, SendError, TransactionError,
    TransactionListener, TransactionProducer,
};
use escrowmq_common::clock;
use escrowmq_tests::checker::{Terms, Verdict, judge};
use escrowmq_tests::dice::Dice;
use escrowmq_tests::history::{self, Ending, Level, Place, Recorder, What, hash};
use escrowmq_tests::local::LocalDatabase;
use escrowmq_tests::processes::free_port;
use escrowmq_tests::{Cluster, End, Settings, Wire, since, until_within};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) const TOPIC: &str = "Kills";
pub(super) const QUEUES: u32 = 4;
pub(super) const GROUP: &str = "kills-producer";
pub(super) const READERS: &str = "kills-reader";

/// Transactions, and senders of plain messages, that run at the same time.
pub(super) const LANES: usize = 6;
pub(super) const SENDERS: usize = 2;

/// Answers that must come between two kills: with fewer a kill hits nothing.
pub(super) const BETWEEN_KILLS: usize = 25;

/// Everything decided and delivered, after the last fault: two check intervals and time to reconnect.
pub(super) const HEALING: Duration = Duration::from_secs(60);

/// The state that all instances of the producer group share.
#[derive(Clone)]
pub(super) struct Application {
    database: Arc<LocalDatabase>,
    pub(super) history: Recorder,
    checks: Arc<AtomicUsize>,
    pub(super) answers: Arc<AtomicUsize>,
    /// What the client could not hide from it.
    pub(super) errors: Arc<Mutex<Vec<String>>>,
}

impl Application {
    /// One whose database is in this folder.
    pub(super) fn new(folder: &Path) -> Application {
        Application {
            database: Arc::new(LocalDatabase::open(&folder.join("ledger")).expect("a ledger")),
            history: Recorder::default(),
            checks: Arc::default(),
            answers: Arc::default(),
            errors: Arc::default(),
        }
    }

    /// Ends a local transaction: on disk, then in the history, then the decision is sent.
    fn settle(&self, key: &str, wanted: Ending) -> Decision {
        let ending = self.database.settle(key, wanted);
        self.history.note("database", What::Local { key: key.to_owned(), ending });
        match ending {
            Ending::Commit => Decision::Commit,
            Ending::Rollback => Decision::Rollback,
        }
    }
}

impl TransactionListener for Application {
    async fn execute_local_transaction(&self, message: &Message, _: &Half) -> Decision {
        let key = key_of(message.body());
        let number: usize = key.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        self.history.note("database", What::HalfStored { key: key.clone() });
        // A check may have come first, and then its answer stands: this local transaction finds the mark and gives up.
        let decision = self.settle(&key, if number % 3 == 1 { Ending::Rollback } else { Ending::Commit });
        // Every fifth producer forgets to tell.
        if number % 5 == 4 { Decision::Unknown } else { decision }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        self.checks.fetch_add(1, Ordering::Relaxed);
        // Nothing there: never ran, or does not run yet. The mark keeps it from running later.
        self.settle(&key_of(message.body()), Ending::Rollback)
    }
}

fn key_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

pub(super) fn place(queue: i32, offset: i64) -> Place {
    Place { queue: format!("{TOPIC}/{queue}"), offset: offset.cast_unsigned() }
}

/// Runs one transaction after the other until it is told to stop.
pub(super) async fn transact(
    producer: TransactionProducer,
    name: String,
    application: &Application,
    stop: &AtomicBool,
) {
    let history = &application.history;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{name}/{number}");
        history.note(&name, What::Half { key: key.clone(), hash: hash(key.as_bytes()) });
        match producer.send(Message::new(TOPIC, key.clone())).await {
            Ok(result) => {
                application.answers.fetch_add(1, Ordering::Relaxed);
                let (ending, place) = match result.outcome {
                    Outcome::Committed { queue, queue_offset, .. } => {
                        (Ending::Commit, queue_offset.map(|offset| place(queue.id(), offset)))
                    }
                    Outcome::RolledBack { .. } => (Ending::Rollback, None),
                    _ => continue,
                };
                history.note(&name, What::Decided { key, ending, place });
            }
            Err(error @ (TransactionError::Half(_) | TransactionError::Unresolved { .. })) => {
                application.errors.lock().push(format!("{key}: {error}"));
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

/// Sends one plain message after the other until it is told to stop.
pub(super) async fn send(producer: Producer, name: String, level: Level, application: &Application, stop: &AtomicBool) {
    let history = &application.history;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{name}/{number}");
        history.note(&name, What::Send { key: key.clone(), hash: hash(key.as_bytes()) });
        let sent: Result<_, SendError> = producer.send(Message::new(TOPIC, key.clone())).await;
        match sent {
            Ok(sent) => {
                application.answers.fetch_add(1, Ordering::Relaxed);
                let place = Some(place(sent.queue.id(), sent.queue_offset));
                history.note(&name, What::Sent { key, level, place });
            }
            // It proves nothing: the message may be there or not.
            Err(error) => application.errors.lock().push(format!("{key}: {error}")),
        }
    }
}

pub(super) async fn reader(client: &Client, history: &Recorder) -> escrowmq_client::PushConsumer {
    let history = history.clone();
    let consumer = client.push_consumer(READERS).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        let delivered = What::Delivered {
            group: READERS.to_owned(),
            key: key_of(message.body()),
            place: place(message.queue().id(), message.queue_offset()),
            hash: hash(message.body()),
            attempt: message.reconsume_times(),
        };
        history.note("reader", delivered);
        async { Ok::<(), Infallible>(()) }
    });
    consumer.await.expect("the reader starts")
}

/// One campaign of `kills` kills; what the checker says of it.
async fn campaign(flush: &str, kills: usize, seed: u64) -> (Verdict, Vec<history::Event>) {
    let metrics = free_port();
    let settings = Settings::default()
        .with("flushDiskType", flush)
        .with("transactionCheckMax", 1000)
        .with("mappedFileSizeCommitLog", 1 << 20)
        .with("metricsPort", metrics);
    let level = if flush == "SYNC_FLUSH" { Level::Flushed } else { Level::Written };
    let mut cluster = Cluster::start(settings).await;
    let clients = [cluster.client_with_topic(TOPIC, QUEUES).await, cluster.client().await];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let application = Application::new(folder.path());
    let history = application.history.clone();
    let reader = reader(&clients[0], &history).await;
    let mut producers = Vec::new();
    for client in &clients {
        let builder = client.transaction_producer(GROUP, application.clone()).topics([TOPIC]);
        producers.push(builder.decision_deadline(Duration::from_secs(10)).start().await.expect("a producer starts"));
    }
    let plain = clients[1].producer("kills-plain").start().await.expect("a producer starts");

    let stop = AtomicBool::new(false);
    let lanes = (0..LANES).map(|lane| transact(producers[lane % 2].clone(), format!("t{lane}"), &application, &stop));
    let senders = (0..SENDERS).map(|lane| send(plain.clone(), format!("p{lane}"), level, &application, &stop));
    let killing = async {
        let mut dice = Dice::new(seed);
        for _ in 0..kills {
            let enough = application.answers.load(Ordering::Relaxed) + BETWEEN_KILLS + dice.below(200);
            until_within(Duration::from_secs(60), "answers between two kills", async || {
                (application.answers.load(Ordering::Relaxed) >= enough).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_micros(dice.below(20_000) as u64)).await;
            let fired = cluster.broker.process().ended().is_none();
            cluster.broker.crash().await;
            history.note("killer", What::Fault { kind: "kill -9 of the broker".to_owned(), fired });
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(lanes), join_all(senders), killing);
    history.note("killer", What::Healed);
    finish(&cluster.broker.wire(), metrics, &application).await;
    reader.shutdown().await;
    for client in &clients {
        client.shutdown().await;
    }
    let events = history.events();
    (judge(&events, &Terms { groups: vec![READERS.to_owned()], acknowledged_min: 100 }), events)
}

/// Waits until everything has come to its end, and writes down what there is then.
async fn finish(wire: &Wire, metrics: u16, application: &Application) {
    let history = &application.history;
    // The last half of all: its counter says how many there were.
    let key = "last/0".to_owned();
    history.note("last", What::Half { key: key.clone(), hash: hash(key.as_bytes()) });
    let half = wire.half(GROUP, TOPIC, "last", &key).await;
    application.settle(&key, Ending::Commit);
    wire.end(&half, End::Commit).await.expect("the last decision is answered");
    let counts = until_within(HEALING, "decisions on everything", async || {
        let counts = Counts::read(metrics).await?;
        (counts.open == 0).then_some(counts)
    })
    .await;
    history.note(
        "end",
        What::Counted {
            halves: half.counter.cast_unsigned() + 1,
            committed: counts.committed,
            rolled_back: counts.rolled_back,
            pending: counts.open,
            parked: counts.parked,
        },
    );
    take_stock(wire, history).await;
}

/// Writes down what is in the queues, and waits until the reader has all of it.
pub(super) async fn take_stock(wire: &Wire, history: &Recorder) {
    let mut stored = BTreeSet::new();
    for queue in 0..QUEUES.cast_signed() {
        for message in wire.read_queue(TOPIC, queue).await {
            let (key, place) = (key_of(&message.body), place(queue, message.queue_offset));
            stored.insert(place.clone());
            history.note("end", What::Stored { key, place, hash: hash(&message.body) });
        }
    }
    // A message that is still missing then is missing for good, and the checker says which.
    let started = clock::monotonic();
    while since(started) < HEALING {
        let mut missing = stored.clone();
        for event in history.events() {
            if let What::Delivered { place, .. } = event.what {
                missing.remove(&place);
            }
        }
        if missing.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The broker's counts.
struct Counts {
    open: u64,
    parked: u64,
    committed: u64,
    rolled_back: u64,
}

impl Counts {
    async fn read(port: u16) -> Option<Counts> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.ok()?;
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("escrowmq_{name} ")));
            line.and_then(|value| value.trim().parse().ok())
        };
        Some(Counts {
            open: value("halves_open")?,
            parked: value("halves_parked")?,
            committed: value("transactions_committed_total")?,
            rolled_back: value("transactions_rolled_back_total")?,
        })
    }
}

/// A verdict, and where the history is kept.
pub(super) fn told(verdict: &Verdict, events: &[history::Event], seed: u64) -> String {
    let path = std::env::temp_dir().join(format!("escrowmq-kills-{seed}.jsonl"));
    let mut told = format!("seed {seed}: {verdict}");
    if history::save(events, &path).is_ok() {
        let _ = writeln!(told, "the history is in {}", path.display());
    }
    told
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Campaigns, one after the other: one, or as many as there is time for.
async fn campaigns(test: &str, flush: &str) {
    let kills = number("ESCROWMQ_KILLS").unwrap_or(5) as usize;
    let seconds = number("ESCROWMQ_KILL_SECONDS");
    let started = clock::monotonic();
    let (mut rounds, mut faults, mut acknowledged) = (0, 0, 0);
    loop {
        let fresh = if seconds.is_some() { clock::wall_ms().unsigned_abs() } else { 1 };
        let seed = number("ESCROWMQ_KILL_SEED").unwrap_or(fresh);
        let (verdict, events) = campaign(flush, kills, seed).await;
        (rounds, faults, acknowledged) = (rounds + 1, faults + verdict.faults, acknowledged + verdict.acknowledged);
        if !verdict.is_good() {
            let told = told(&verdict, &events, seed);
            panic!(
                "{told}again: ESCROWMQ_KILL_SEED={seed} ESCROWMQ_KILLS={kills} cargo test --release -p escrowmq-tests --test all {test}"
            );
        }
        eprintln!(
            "{test}: seed {seed}, {faults} kills in {rounds} campaigns, {acknowledged} acknowledged operations, {:?}",
            since(started)
        );
        if seconds.is_none_or(|seconds| since(started) >= Duration::from_secs(seconds)) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_synchronous_flush() {
    campaigns("kills_with_synchronous_flush", "SYNC_FLUSH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_asynchronous_flush() {
    campaigns("kills_with_asynchronous_flush", "ASYNC_FLUSH").await;
}
