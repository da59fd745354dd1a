//! Bad input costs its sender the connection, or a clear error, and nobody else anything.
//!
//! While one side attacks, an ordinary client sends and pulls: no error, bounded latency, and in the end everything is
//! there and the broker is of ordinary size.

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use escrowmq_client::Message;
use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::task::{Shutdown, Tasks};
use escrowmq_tests::dice::Dice;
use escrowmq_tests::{Cluster, Settings, since, until, wire};
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TOPIC: &str = "Undisturbed";

/// The slowest of a hundred ordinary requests may take this long, on a machine that runs attackers and tests besides.
const P99: Duration = Duration::from_millis(500);

/// Fewer than these say nothing about a p99.
const PROBES_MIN: usize = 300;

/// Memory of a broker that holds a few messages and was attacked.
const RESIDENT_MAX: u64 = 512 << 20;

/// Frames of each kind of damage.
const MUTANTS_PER_FRAME: usize = 20;

/// Runs an attack beside an ordinary client, and judges how the client fared.
async fn attacked(cluster: &mut Cluster, attack: impl Future<Output = ()> + Send + 'static) {
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let producer = client.producer("undisturbed").start().await.unwrap();
    let wire = cluster.broker.wire();
    let tasks = Tasks::new();
    let attack = tasks.spawn("attack", attack);
    let mut latencies = Vec::new();
    let mut sent = 0;
    while !attack.is_finished() || latencies.len() < PROBES_MIN {
        let start = clock::monotonic();
        producer.send(Message::new(TOPIC, format!("{sent}"))).await.expect("an ordinary send succeeds");
        latencies.push(since(start));
        let start = clock::monotonic();
        let pulled = wire.pull("undisturbed-reader", TOPIC, 0, sent, 32).await;
        latencies.push(since(start));
        assert_eq!(pulled.messages.len(), 1, "what was acknowledged can be pulled: {} {}", pulled.code, pulled.remark);
        sent += 1;
    }
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    eprintln!("{} ordinary requests beside the attack: p99 {p99:?}", latencies.len());
    assert!(p99 < P99, "p99 of {} requests was {p99:?}", latencies.len());
    assert_eq!(wire.read_queue(TOPIC, 0).await.len() as i64, sent);
    assert_eq!(cluster.broker.process().ended(), None, "the broker lives");
    assert_eq!(cluster.nameserver.process().ended(), None, "the nameserver lives");
    for process in [cluster.broker.process(), cluster.nameserver.process()] {
        let log = process.log();
        assert!(!log.contains("panicked"), "{}", log.lines().filter(|line| line.contains("panicked")).count());
        if let Some(resident) = resident(process.id()) {
            assert!(resident < RESIDENT_MAX, "{resident} bytes resident");
        }
    }
}

/// Bytes of memory that a process has in use, where the system tells.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Writes to a new connection and reads whatever comes until the other side closes, or for a moment.
async fn throw(address: &str, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    // A peer that closes early is what we are after.
    let _ = stream.write_all(bytes).await;
    let mut answers = [0; 4096];
    let reading = async { while stream.read(&mut answers).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(Duration::from_millis(5), reading).await;
}

fn addresses(cluster: &Cluster) -> [String; 2] {
    [cluster.broker.address(), cluster.nameserver.address()]
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The recorded requests, with their length bytes. Changing a broker's settings is not an attack: that is left out.
fn golden_requests() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/tests/vectors");
    let mut frames = Vec::new();
    for file in std::fs::read_dir(folder).expect("the golden vectors") {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("text");
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let vector: serde_json::Value = serde_json::from_str(line).expect("a vector");
            let is_request = matches!(vector["kind"].as_str(), Some("request" | "oneway"));
            let code = vector["code"].as_i64().unwrap_or_default();
            if let Some(text) = vector["hex"].as_str()
                && is_request
                && code != i64::from(request::UPDATE_BROKER_CONFIG)
            {
                frames.push(hex(text));
            }
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let addresses = addresses(&cluster);
    attacked(&mut cluster, async move {
        let mut dice = Dice::new(0x5eed_0001);
        for round in 0..600 {
            let count = 1 + dice.below(if round % 50 == 0 { 300_000 } else { 3_000 });
            let bytes = dice.bytes(count);
            throw(&addresses[round % 2], &bytes).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let addresses = addresses(&cluster);
    attacked(&mut cluster, async move {
        let sizes = [0, 1, 3, 4, 5, 100, 0xff_ffff, 0x100_0000, 0x100_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
        for _ in 0..4 {
            for length in sizes {
                for header in sizes {
                    for kind in [0, 1, 2] {
                        let mut frame = BytesMut::new();
                        frame.put_u32(length);
                        frame.put_u32(kind << 24 | header & 0xff_ffff);
                        frame.put_slice(br#"{"code":10,"flag":0,"opaque":1,"language":"JAVA","version":479}"#);
                        throw(&addresses[(kind % 2) as usize], &frame).await;
                    }
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_golden_frames() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let addresses = addresses(&cluster);
    let golden = golden_requests();
    assert!(golden.len() > 100, "{} vectors", golden.len());
    attacked(&mut cluster, async move {
        let mut dice = Dice::new(0x5eed_0002);
        for frame in &golden {
            // Several on one connection: what follows a damaged frame must be read as if nothing had happened, or not.
            let mut bytes = frame.clone();
            for _ in 0..MUTANTS_PER_FRAME {
                let mut mutant = frame.clone();
                for _ in 0..=dice.below(4) {
                    let at = 4 + dice.below(mutant.len() - 4);
                    mutant[at] = dice.roll() as u8;
                }
                if dice.below(3) == 0 {
                    mutant.truncate(4 + dice.below(mutant.len() - 4));
                    let length = (mutant.len() as u32 - 4).to_be_bytes();
                    mutant[..4].copy_from_slice(&length);
                }
                bytes.extend(mutant);
                if dice.below(4) == 0 {
                    for address in &addresses {
                        throw(address, &bytes).await;
                    }
                    bytes.clear();
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_byte_by_byte() {
    const SLOW: usize = 200;
    let mut cluster = Cluster::start(Settings::default()).await;
    let addresses = addresses(&cluster);
    attacked(&mut cluster, async move {
        let mut streams = Vec::new();
        for number in 0..SLOW {
            streams.push(TcpStream::connect(&addresses[number % 2]).await.expect("a connection"));
        }
        let mut frame = BytesMut::new();
        wire::send_request("slow", "Slow", 0, "body", &[]).encode(&mut frame);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in frame.iter().take(200) {
            tick.tick().await;
            for stream in &mut streams {
                let _ = stream.write_all(&[*byte]).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_and_never_reads() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let address = cluster.broker.address();
    let wire = cluster.broker.wire();
    wire.create_topic("Unread", 1).await;
    for _ in 0..32 {
        wire.send("Unread", 0, vec![7; 8 * 1024], &[]).await.expect("an answer");
    }
    let mut pull = BytesMut::new();
    wire::pull_request("unread", "Unread", 0, 0, 32).encode(&mut pull);
    // Each of these asks for about 256 KiB, 2,000 times on each of 8 connections: 4 GiB of answers.
    attacked(&mut cluster, async move {
        let asking = (0..8).map(|_| async {
            let mut stream = TcpStream::connect(&address).await.expect("a connection");
            for _ in 0..2_000 {
                // The broker stops reading from us sooner or later, or closes.
                let writing = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&pull)).await;
                if !matches!(writing, Ok(Ok(()))) {
                    break;
                }
            }
            stream
        });
        drop(join_all(asking).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections() {
    const IDLE: usize = 10_000;
    let needed = IDLE as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        eprintln!("SKIPPED: {needed} open files are not allowed here (hard limit {:?})", limit.maximum);
        return;
    }
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("a limit can be raised to its maximum");
    }
    let mut cluster = Cluster::start(Settings::default()).await;
    let address = cluster.broker.address();
    let done = Shutdown::new();
    let (finished, tasks) = (done.clone(), Tasks::new());
    let mut idle = Vec::with_capacity(IDLE);
    while idle.len() < IDLE {
        let some = (0..100).map(|_| TcpStream::connect(&address));
        idle.extend(join_all(some).await.into_iter().map(|stream| stream.expect("a connection")));
    }
    tasks.spawn("idle", async move {
        finished.cancelled().await;
        drop(idle);
    });
    attacked(&mut cluster, async {}).await;
    // They go all at once, and the broker is still there.
    done.cancel();
    tasks.join().await;
    let wire = cluster.broker.wire();
    until("answer after all have gone", async || {
        wire.pull("undisturbed-reader", TOPIC, 0, 0, 1).await.messages.first().map(drop)
    })
    .await;
}
