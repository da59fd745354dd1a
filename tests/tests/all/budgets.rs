//! The ledger of memory: peers that do not read and frames that are never finished, with real sockets, stay under the
//! budget of all connections and a quarter of it, and an ordinary client goes on beside them.
//!
//! `ESCROWMQ_PEERS=10000` sets how many there are of each kind; from then on the ordinary client must keep half its rate.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::task::{Shutdown, Tasks};
use escrowmq_tests::metrics::{Page, metric};
use escrowmq_tests::processes::free_port;
use escrowmq_tests::wire::pull_request;
use escrowmq_tests::{Broker, Settings, since};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const TOPIC: &str = "Large";

/// Peers of each kind in `make test`.
const PEERS: usize = 1_000;

/// The budget of the broker for each two of them: a fraction of what they ask for.
const BUDGET_PER_PEER: u64 = 128 * 1024;

/// The attack lasts so long, from when all are connected.
const ATTACK: Duration = Duration::from_secs(10);

/// What the messages of the ordinary client take meanwhile, in the index's tables in memory.
const ORDINARY: u64 = 16 << 20;

/// A peer comes again after so long, times the thousands of peers of each kind: coming takes the machine's time from everybody, and
/// what is tried here is what they hold.
const COME_AGAIN: Duration = Duration::from_secs(4);

/// Bytes of memory that a process has in use.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Raises the limit of open files towards `files`, as far as it goes; says how many are allowed.
fn may_open(files: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < files) else { return files };
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    // Beyond the maximum only with privileges.
    for (wanted, maximum) in [(files, maximum.max(files)), (maximum.min(files), maximum)] {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|_| maximum) };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return wanted;
        }
    }
    current
}

/// Opens connections again and again that write some bytes and never read, until the end.
async fn peer(address: Arc<str>, bytes: Bytes, come_again: Duration, connected: Arc<AtomicUsize>, end: Shutdown) {
    let mut is_first = true;
    loop {
        let Ok(mut stream) = connect(&address).await else { return };
        connected.fetch_add(usize::from(std::mem::take(&mut is_first)), Ordering::Relaxed);
        let attack = async {
            // As much as the broker takes; it may close in the middle. Nothing is read.
            let _ = tokio::time::timeout(come_again, stream.write_all(&bytes)).await;
            tokio::time::sleep(come_again).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = attack => {}
        }
    }
}

/// A connection whose side of the network takes little in advance.
async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address.parse().expect("an address")).await
}

/// Sends and pulls until the end; counts both together. Refusals that a client tries again are allowed, losses are not.
async fn ordinary_client(broker: &Broker, topic: &str, time: Duration) -> f64 {
    let wire = broker.wire();
    let start = clock::monotonic();
    // Not by pulls: those are put off while others hold the budget.
    let end = async || {
        let ask = Frame::request(request::GET_MAX_OFFSET).with_field("topic", topic).with_field("queueId", 0);
        wire.ask(ask).await.fields.get("offset").and_then(|offset| offset.parse::<i64>().ok()).expect("an offset")
    };
    let (mut rounds, mut stored) = (0, end().await);
    while since(start) < time {
        let sent = wire.send(topic, 0, "x", &[]).await.expect("a connection that is used stays open");
        assert_eq!(sent.code, response::SUCCESS, "a small send is never refused: {:?}", sent.remark);
        stored += 1;
        let pulled = wire.pull("ordinary", topic, 0, stored - 1, 1).await;
        rounds += usize::from(pulled.messages.len() == 1);
    }
    let rate = rounds as f64 / since(start).as_secs_f64();
    assert_eq!(end().await, stored, "all that was acknowledged is there, and nothing else");
    wire.close().await;
    rate
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_hold_memory_stay_under_the_ceiling() {
    let wanted: usize = std::env::var("ESCROWMQ_PEERS").map_or(PEERS, |peers| peers.parse().expect("a number"));
    let files = 2 * wanted as u64 + 1_000;
    let peers = wanted.min((may_open(files).saturating_sub(1_000) / 2) as usize);
    if peers < wanted {
        eprintln!(
            "LIMITED: {wanted} peers of each kind need {files} open files, which are not allowed here: {peers} instead"
        );
    }
    let budget = peers as u64 * BUDGET_PER_PEER;
    let metrics = free_port();
    let settings = Settings::default().with("connectionBytesMax", budget).with("metricsPort", metrics);
    // On a loopback the system itself would keep megabytes for each peer.
    let settings = settings.with("serverSocketSndBufSize", 64 * 1024);
    let mut broker = Broker::start(settings).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    wire.create_topic("Ordinary", 1).await;
    for _ in 0..32 {
        wire.send(TOPIC, 0, vec![7; 8 * 1024], &[]).await.expect("an answer");
    }
    let quiet = ordinary_client(&broker, "Ordinary", Duration::from_secs(3)).await;
    let process = broker.process().id();
    let Some(before) = resident(process) else {
        eprintln!("SKIPPED: this system does not tell how much memory a process uses");
        return;
    };

    let (end, tasks, connected) = (Shutdown::new(), Tasks::new(), Arc::new(AtomicUsize::new(0)));
    let address: Arc<str> = broker.address().into();
    let come_again = COME_AGAIN * peers.div_ceil(PEERS) as u32;
    // A quarter of a frame, and requests for two answers of 256 KiB.
    let mut half = BytesMut::new();
    Frame::request(request::SEND_MESSAGE_V2).with_body(vec![7; 1 << 20]).encode(&mut half);
    half.truncate(256 * 1024);
    let mut pulls = BytesMut::new();
    (0..2).for_each(|_| pull_request("deaf", TOPIC, 0, 0, 32).encode(&mut pulls));
    for bytes in [half.freeze(), pulls.freeze()] {
        for _ in 0..peers {
            tasks.spawn("peer", peer(address.clone(), bytes.clone(), come_again, connected.clone(), end.clone()));
        }
    }
    let (most, most_counted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let watch = async {
        loop {
            most.fetch_max(resident(process).unwrap_or(0) as usize, Ordering::Relaxed);
            let counted = metric(metrics, "connection_bytes").await.unwrap_or(0);
            most_counted.fetch_max(counted as usize, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let attacked = async {
        let start = clock::monotonic();
        while connected.load(Ordering::Relaxed) < 2 * peers {
            assert!(since(start) < Duration::from_secs(120), "all peers connect");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ordinary_client(&broker, "Ordinary", ATTACK).await
    };
    let beside = tokio::select! {
        rate = attacked => rate,
        () = watch => unreachable!("it watches until the other ends"),
    };
    end.cancel();
    tasks.join().await;

    let (most, most_counted) = (most.into_inner() as u64, most_counted.into_inner() as u64);
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{peers} half-sent frames and {peers} deaf peers: budget {} MiB, counted {} MiB, memory {} MiB before and {} MiB at most; \
         an ordinary client {quiet:.0} rounds a second before, {beside:.0} beside them",
        mib(budget),
        mib(most_counted),
        mib(before),
        mib(most),
    );
    let page = Page::of(metrics).await.expect("a page");
    let closed = page.by_label("connections_closed_total", "reason");
    let evicted: u64 = closed.filter(|(reason, _)| *reason == "evicted").map(|(_, count)| count).sum();
    let stopped = evicted + page.value("requests_refused_busy_total").expect("a count");
    assert!(
        most_counted > budget / 2 && stopped > 0,
        "the budget was not tried: {most_counted} of {budget}, {stopped}"
    );
    let ceiling = budget + budget / 4;
    assert!(most_counted <= ceiling, "{most_counted} bytes counted, the ceiling is {ceiling}");
    let used = most - before;
    assert!(used <= ceiling + ORDINARY, "{used} bytes more in use, the ceiling is {ceiling} and {ORDINARY}");
    assert!(beside > 0.0, "the ordinary client stood still");
    if peers >= 10 * PEERS {
        assert!(beside >= quiet / 2.0, "{beside:.0} rounds a second beside them, {quiet:.0} before");
    }
    assert_eq!(broker.process().ended(), None);
    assert!(!broker.process().log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_share_the_number_of_connections() {
    let mut broker = Broker::start(Settings::default().with("maxConnections", 3)).await;
    let mut open = Vec::new();
    // One that is refused is closed at once.
    let mut serves = async |port: u16| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the port is open");
        let mut ask = BytesMut::new();
        Frame::request(request::HEART_BEAT).encode(&mut ask);
        let _ = stream.write_all(&ask).await;
        let served = stream.read_u8().await.is_ok();
        open.push(stream);
        served
    };
    let port = broker.port();
    // The client that waited for the start may not have gone yet.
    let mut served = 0;
    for turn in 0..6 {
        served += usize::from(serves(if turn % 2 == 0 { port } else { port - 2 }).await);
    }
    assert!((2..=3).contains(&served), "{served} of 6 were served");
    assert!(broker.process().log().contains("too many connections"));
}
