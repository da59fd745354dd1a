//! Spilling producers, a real broker and real deaths: what a receipt calls spilled arrives, in the order of its key.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, Message, Receipt, Spill, SpillingProducer, StartError};
use escrowmq_common::task::Tasks;
use escrowmq_tests::dying::{CrashPoints, dying_at_sleep};
use escrowmq_tests::processes::{Process, free_port};
use escrowmq_tests::{Cluster, Settings, until, until_within};
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};

const TOPIC: &str = "Orders";
/// A topic that is not there before the end: its messages wait all the while, between those that are sent.
const LATER: &str = "Later";
const QUEUES: u32 = 4;

/// Children at the same time.
const LANES: usize = 8;
/// Most points.
const POINTS: u32 = 400;
/// Messages of a key that a child sends before and after brokers are there.
const MESSAGES: u32 = 3;
/// Bytes of a spill: room for the messages of those children that die before they send any, in segments that are often moved. And of
/// a message, which is more than those have together that wait to the end, and too few to be compressed.
const CAPACITY: u64 = 512 << 10;
const BYTES: usize = 4000;
/// How long a child may take.
const CHILD: Duration = Duration::from_secs(60);

/// A child's orders: nameserver, port that it is told of, folder, number, point of death.
const ORDER: &str = "ESCROWMQ_SPILL_CHILD";

/// Gives up soon, so that messages are spilled.
async fn producer(client: &Client, group: &str, folder: &Path) -> Result<SpillingProducer, StartError> {
    let builder = client.producer(group).deadline(Duration::from_secs(1)).attempt_timeout(Duration::from_millis(500));
    // The tests read bodies as brokers have them.
    builder.compress_above(usize::MAX).spill(Spill::dir(folder)).start().await
}

/// Bodies in each queue, in their order.
async fn visible(cluster: &Cluster) -> Vec<Vec<String>> {
    let wire = cluster.broker.wire();
    let mut queues = Vec::new();
    for queue in 0..QUEUES.cast_signed() {
        let messages = wire.read_queue(TOPIC, queue).await;
        queues.push(messages.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect());
    }
    queues
}

async fn until_empty(producer: &SpillingProducer) {
    until("an empty spill", async || (producer.stats().waiting == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_outage_arrive_once_and_in_order() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, QUEUES).await;
    let folder = tempfile::tempdir().expect("a folder");
    let shop = producer(&client, "shop", folder.path()).await.expect("a producer");
    let send = async |number: u32, key: &str| {
        let message = Message::new(TOPIC, format!("{key}-{number:06}"));
        let message = if key == "free" { message } else { message.sharding_key(key) };
        shop.send(message).await.expect("sent or kept")
    };
    let keys = ["a", "b", "free"];
    for key in keys {
        assert!(send(0, key).await.stored().is_some(), "the broker is there");
    }
    cluster.broker.kill();
    for number in 1..50 {
        for key in keys {
            let receipt = send(number, key).await;
            let spilled = receipt.spilled().expect("the broker is dead");
            assert!(spilled.is_synced);
        }
    }
    let stats = shop.stats();
    assert_eq!((stats.waiting, stats.spilled), (147, 147));
    // The process ends meanwhile, and another one goes on.
    shop.shutdown().await;
    client.shutdown().await;
    cluster.broker.start_again().await;
    let client = cluster.client().await;
    let shop = producer(&client, "shop", folder.path()).await.expect("a producer");
    let mut number = 50;
    // Behind those that wait, until none does.
    loop {
        let receipt = shop.send(Message::new(TOPIC, format!("a-{number:06}")).sharding_key("a")).await;
        number += 1;
        if matches!(receipt.expect("sent or kept"), Receipt::Stored(_)) {
            break;
        }
    }
    until_empty(&shop).await;
    let queues = visible(&cluster).await;
    let mut all = queues.concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 150 + number as usize - 50);
    for key in ["a", "b"] {
        let of_key: Vec<Vec<&String>> =
            queues.iter().map(|queue| queue.iter().filter(|body| body.starts_with(key)).collect()).collect();
        let in_queue: Vec<_> = of_key.into_iter().filter(|bodies| !bodies.is_empty()).collect();
        assert_eq!(in_queue.len(), 1, "a key is in one queue");
        // Repeats may come after newer ones.
        let (mut first, mut seen) = (in_queue.concat(), BTreeSet::new());
        first.retain(|body| seen.insert(*body));
        assert!(first.is_sorted(), "{first:?}");
    }
    shop.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_one_process_alone_and_free_after_its_death() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, QUEUES).await;
    let folder = tempfile::tempdir().expect("a folder");
    let spill = folder.path().join("spill");
    let mut child = start_child(&cluster, folder.path(), &spill, 0, 0);
    let refused = until("a child that has the folder", async || {
        // Whoever is first has it; this one lets go at once.
        match producer(&client, "second", &spill).await {
            Ok(producer) => {
                producer.shutdown().await;
                None
            }
            Err(error) => Some(error),
        }
    });
    let refused = refused.await;
    assert!(matches!(&refused, StartError::SpillInUse { .. }) && refused.is_retryable(), "{refused}");
    child.kill();
    let second = producer(&client, "second", &spill).await.expect("the folder is free");
    until_empty(&second).await;
    client.shutdown().await;
}

/// A child finds no nameserver, spills, finds it, sends what waits, and sends more. It kills itself when its thread goes to sleep
/// for the n-th time; children with all n run until none dies any more. The next one of a lane goes on in the folder of the dead.
#[tokio::test(flavor = "multi_thread")]
async fn dying_wherever_it_waits_loses_nothing_and_keeps_the_order() {
    let cluster = Cluster::start(Settings::default().with("autoCreateTopicEnable", false)).await;
    cluster.broker.wire().create_topic(TOPIC, QUEUES.cast_signed()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let lane_folder = |lane: usize| folder.path().join(format!("lane-{lane}"));
    let mut died = BTreeSet::new();
    let points = CrashPoints::up_to(POINTS);
    for points_of_lanes in points.lanes(LANES) {
        let mut children: Vec<(usize, Process)> = Vec::new();
        for (number, point) in points_of_lanes {
            let child = start_child(&cluster, folder.path(), &lane_folder(number % LANES), number, point);
            children.push((number, child));
        }
        let before = died.len();
        for (number, child) in &mut children {
            let status = child.wait(CHILD).await;
            if status.signal() == Some(Signal::KILL.as_raw()) {
                died.insert(*number);
            } else {
                assert!(status.success(), "{number} failed: {status}\n{}", child.log());
            }
        }
        if died.len() == before && points.ends_without_death() {
            break;
        }
    }
    let client = cluster.client_with_topic(LATER, 1).await;
    for lane in 0..LANES {
        let rest = producer(&client, &format!("rest-{lane}"), &lane_folder(lane)).await.expect("a producer");
        until_within(CHILD, "an empty spill", async || (rest.stats().waiting == 0).then_some(())).await;
        assert_eq!(rest.stats().failed, 0);
        rest.shutdown().await;
    }
    let mut queues = visible(&cluster).await;
    let later = cluster.broker.wire().read_queue(LATER, 0).await;
    queues.push(later.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect());
    queues.iter_mut().flatten().for_each(|body| body.truncate(body.trim_end_matches('.').len()));
    let arrived: BTreeSet<String> = queues.concat().into_iter().collect();
    let (mut acknowledged, mut spilled_by_the_dead) = (0, 0);
    for lane in 0..LANES {
        let told = std::fs::read_to_string(told_file(&lane_folder(lane))).unwrap_or_default();
        for line in told.lines() {
            let (how, body) = line.split_once(' ').expect("two words");
            assert!(arrived.contains(body), "{body} was told to be {how} and is lost");
            acknowledged += 1;
            let number: usize = body.split('-').nth(2).and_then(|number| number.parse().ok()).expect("a number");
            spilled_by_the_dead += usize::from(how == "spilled" && died.contains(&number));
        }
        // Repeats may come after newer ones; what arrives for the first time is in order.
        let (key, mut seen) = (format!("key-{lane}-"), BTreeSet::new());
        let mut of_key =
            queues.iter().map(|queue| queue.iter().filter(|body| body.starts_with(&key)).collect::<Vec<_>>());
        let in_queue = of_key.find(|bodies| !bodies.is_empty()).unwrap_or_default();
        assert!(of_key.all(|bodies| bodies.is_empty()), "a key is in one queue");
        let first: Vec<&String> = in_queue.into_iter().filter(|body| seen.insert(*body)).collect();
        assert!(first.is_sorted(), "lane {lane}: {first:?}");
    }
    eprintln!(
        "spill: {} deaths, {acknowledged} receipts, {spilled_by_the_dead} of them spilled by a process that died",
        died.len()
    );
    assert!(spilled_by_the_dead > 0, "no death after a message was spilled");
    client.shutdown().await;
}

/// Where a lane's children write what they were told.
fn told_file(spill: &Path) -> PathBuf {
    spill.with_extension("told")
}

fn start_child(cluster: &Cluster, logs: &Path, spill: &Path, number: usize, point: u32) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args(["--exact", "spill::child", "--ignored", "--nocapture"]);
    let words = [
        cluster.nameserver.address(),
        free_port().to_string(),
        spill.display().to_string(),
        number.to_string(),
        point.to_string(),
    ];
    command.env(ORDER, words.join(" "));
    Process::start(&format!("child-{number}"), command, &logs.join(format!("child-{number}.log")))
}

#[test]
#[ignore = "the process that the tests above kill"]
fn child() {
    let Ok(words) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [nameserver, port, folder, number, point] = words[..] else { panic!("{ORDER}={words:?}") };
    let counts = Arc::new(AtomicBool::new(false));
    let runtime = dying_at_sleep(point.parse().expect("a number"), Arc::clone(&counts));
    let port = port.parse().expect("a number");
    runtime.block_on(live(
        nameserver,
        port,
        Path::new(folder),
        number.parse().expect("a number"),
        &counts,
        point == "0",
    ));
}

async fn live(nameserver: &str, port: u16, folder: &Path, number: usize, counts: &AtomicBool, stays: bool) {
    let lane = number % LANES;
    let told = OpenOptions::new().create(true).append(true).open(told_file(folder)).expect("a file");
    counts.store(true, Ordering::Relaxed);
    // Nobody listens there yet.
    let client = Client::builder(format!("127.0.0.1:{port}")).connect_lazy().expect("good settings");
    let shop = until("a folder that nobody else has", async || {
        let builder = client.producer(format!("lane-{lane}")).deadline(Duration::from_millis(200));
        let builder = builder.compress_above(usize::MAX);
        match builder.spill(Spill::dir(folder).capacity(CAPACITY)).start().await {
            Err(StartError::SpillInUse { .. }) => None,
            started => Some(started.expect("a producer")),
        }
    })
    .await;
    let send = async |step: u32, kind: &str| {
        let body = format!("{kind}-{lane}-{number:05}-{step}");
        // Those that wait are small, so that they need not fill the spill by themselves.
        let message = match kind {
            "later" => Message::new(LATER, body.clone()),
            _ => Message::new(TOPIC, format!("{body:.<BYTES$}")),
        };
        let message = if kind == "key" { message.sharding_key(format!("k{lane}")) } else { message };
        let how = match shop.send(message).await.expect("sent or kept") {
            Receipt::Stored(_) => "stored",
            _ => "spilled",
        };
        writeln!(&told, "{how} {body}").expect("written");
    };
    for step in 0..MESSAGES {
        send(step, "key").await;
    }
    send(0, "free").await;
    send(0, "later").await;
    if stays {
        return std::future::pending().await;
    }
    let tasks = Tasks::new();
    let (address, way) = (nameserver.to_owned(), tasks.clone());
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    tasks.spawn("way to the nameserver", async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let address = address.clone();
            way.spawn("connection", async move {
                let mut to = TcpStream::connect(address).await.expect("a nameserver");
                // Ends when either side does.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    for step in MESSAGES..2 * MESSAGES {
        send(step, "key").await;
    }
    until("a spill of what has to wait", async || (shop.stats().waiting_bytes < BYTES as u64).then_some(())).await;
    send(2 * MESSAGES, "key").await;
    // The process ends here without a word, as most do.
}
