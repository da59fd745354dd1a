//! The log while a broker is away, and when a consumer starts before its topic is there.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::fake::{Cluster, Hook, Kind, until};
use escrowmq_client::{Client, ConsumeFrom, MessageExt};
use escrowmq_common::code::request;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// The lines of the log, level first.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Collects everything that this thread logs while the guard lives. The runtime of a test has this thread alone.
    fn collect() -> (Lines, tracing::subscriber::DefaultGuard) {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_max_level(tracing::Level::INFO)
            .without_time()
            .with_ansi(false)
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn with(&self, part: &str) -> Vec<String> {
        let bytes = self.0.lock();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

async fn client(cluster: &Cluster) -> Client {
    let client = Client::builder(&cluster.namesrv).heartbeat_interval(Duration::from_millis(100));
    client.connect().await.expect("a name server")
}

#[tokio::test]
async fn a_broker_that_is_away_is_one_line_and_its_return_another() {
    let (lines, _guard) = Lines::collect();
    let cluster = Cluster::start(1, Kind::Ours, &[("T", 5)]).await;
    let client = client(&cluster).await;
    let broker = Arc::clone(&cluster.brokers[0]);
    let seen = Arc::new(Mutex::new(0_usize));
    let counted = Arc::clone(&seen);
    let consumer = client
        .push_consumer("G")
        .subscribe("T", "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(50))
        .start(move |_: MessageExt| {
            *counted.lock() += 1;
            async { Ok::<(), String>(()) }
        })
        .await
        .expect("started");
    for queue in 0..5 {
        broker.store("T", queue, &format!("before-{queue}"), "a");
    }
    until("all are consumed", || *seen.lock() == 5).await;

    broker.hook(|_| Hook::Cut);
    for queue in 0..5 {
        broker.store("T", queue, &format!("during-{queue}"), "a");
    }
    let asked = broker.seen(request::HEART_BEAT).len();
    until("the broker was asked again and again", || broker.seen(request::HEART_BEAT).len() > asked + 10).await;
    broker.hook(|_| Hook::Pass);
    until("all are consumed", || *seen.lock() >= 10).await;
    until("the return is told", || !lines.with("is back after").is_empty()).await;

    let warned = lines.with("WARN");
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert!(warned[0].contains("broker is away"), "{warned:#?}");
    let back = lines.with("is back after");
    assert!(back.len() == 1 && back[0].contains("INFO"), "{back:#?}");
    consumer.shutdown().await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_not_there_yet_is_told_once_and_is_no_warning() {
    let (lines, _guard) = Lines::collect();
    let cluster = Cluster::start(1, Kind::Ours, &[]).await;
    let client = client(&cluster).await;
    let consumer = client
        .push_consumer("G")
        .subscribe("New", "*")
        .consume_from(ConsumeFrom::First)
        .rebalance_interval(Duration::from_millis(10))
        .start(|_: MessageExt| async { Ok::<(), String>(()) })
        .await
        .expect("started");
    until("the absence is told", || !lines.with("topic=New").is_empty()).await;
    let asked = cluster.look_ups("New");
    until("the consumer looks again and again", || cluster.look_ups("New") > asked + 5).await;
    assert_eq!(lines.with("is not there yet").len(), 1, "{:#?}", lines.with("topic=New"));
    assert!(lines.with("WARN").is_empty(), "{:#?}", lines.with("WARN"));
    cluster.set_topic("New", 1);
    until("the topic is consumed", || !lines.with("rebalanced").is_empty()).await;
    consumer.shutdown().await;
    client.shutdown().await;
    cluster.stop().await;
}
