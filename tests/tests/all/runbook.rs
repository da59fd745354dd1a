//! The commands of docs/runbook.md, each section's against brokers in the state that it is about: they print what the page shows.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::processes::{binary, free_port, spawn_broker_at};
use escrowmq_tests::shown::{Look, Section, sections_of};
use escrowmq_tests::small_disk::{DISK_MIB, SmallDisk};
use escrowmq_tests::tracer::Tracer;
use escrowmq_tests::{Broker, Cluster, End, Settings, Wire, until};

const PAGE: &str = "docs/runbook.md";
/// The names that the page has.
const TOPIC: &str = "Orders";
const PRODUCERS: &str = "orders";
const CONSUMERS: &str = "shipping";
/// States come about within a second or so, on a busy machine later.
const PATIENCE: Duration = Duration::from_secs(30);

fn section(title: &str) -> Section {
    let found = sections_of(PAGE).into_iter().find(|section| section.title == title);
    found.unwrap_or_else(|| panic!("{PAGE} has no section {title:?}"))
}

/// What stands in the place of the addresses and paths of the page.
#[derive(Debug, Default)]
struct Scene {
    places: Vec<(&'static str, String)>,
}

impl Scene {
    /// A broker with its clients' address, the port of its metrics, and its data.
    fn of(address: &str, metrics: u16, data: &Path) -> Scene {
        Scene::default()
            .with("127.0.0.1:10911", address)
            .with("127.0.0.1:10917", &format!("127.0.0.1:{metrics}"))
            .with("/var/lib/escrowmq/broker", &data.display().to_string())
            // Nobody waits so long here.
            .with("--older-than 10m", "--older-than 1ms")
    }

    fn with(mut self, on_the_page: &'static str, here: &str) -> Scene {
        self.places.push((on_the_page, here.to_owned()));
        self
    }

    fn here(&self, script: &str) -> String {
        self.places.iter().fold(script.to_owned(), |script, (page, here)| script.replace(page, here))
    }

    /// Runs commands of the page; what they print.
    fn run(&self, script: &str) -> String {
        let mut shell = Command::new("sh");
        let folder = binary("escrowmq").parent().expect("a folder").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).expect("a path");
        shell.arg("-c").arg(self.here(script)).env("PATH", path);
        if let Some((_, names)) = self.places.iter().find(|(page, _)| *page == "127.0.0.1:9876") {
            shell.env("NAMESRV_ADDR", names);
        }
        let output = shell.output().expect("a shell runs");
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.stderr.is_empty() {
            writeln!(printed, "(stderr) {}", String::from_utf8_lossy(&output.stderr)).expect("a string takes it");
        }
        printed
    }

    /// The commands of this section print what it shows, once the state is there.
    async fn shows(&self, title: &str) {
        let section = section(title);
        assert!(!section.looks.is_empty(), "{title} shows nothing");
        for look in &section.looks {
            self.shows_look(title, look).await;
        }
    }

    async fn shows_look(&self, title: &str, look: &Look) {
        let mut found = String::new();
        let all_of_it = until("what the page shows", async || {
            found = self.run(&look.script);
            look.missing_in(&found).is_none().then_some(())
        });
        let is_shown = tokio::time::timeout(PATIENCE, all_of_it).await.is_ok();
        assert!(is_shown, "{title}: {:?} is missing from what is printed:\n{found}", look.missing_in(&found));
    }

    /// Carries out the command of this section that has `what` in it, without its question; what it prints.
    fn acts(&self, title: &str, what: &str) -> String {
        let section = section(title);
        let lines = section.others.iter().flat_map(|script| script.lines());
        let line = lines.clone().find(|line| line.contains(what));
        self.run(line.unwrap_or_else(|| panic!("{title} has no command {what:?}")))
    }
}

/// A nameserver and a broker, and what the page calls them.
async fn cluster(settings: Settings) -> (Cluster, Scene) {
    let metrics = free_port();
    let cluster = Cluster::start(settings.with("metricsPort", metrics)).await;
    let names = cluster.nameserver.address();
    let scene = Scene::of(&cluster.broker.address(), metrics, &cluster.broker.data_folder());
    (cluster, scene.with("127.0.0.1:9876", &names))
}

#[tokio::test(flavor = "multi_thread")]
async fn half_messages_that_nobody_decides() {
    let (cluster, scene) = cluster(Settings::default()).await;
    let producer = cluster.broker.wire();
    producer.create_topic(TOPIC, 1).await;
    producer.greet("producer-1", PRODUCERS, &[]).await;
    let half = producer.half(PRODUCERS, TOPIC, "7F0000013039A1B2C3D4E5F600000000", "order 17").await;
    // Asked, it does not answer.
    producer.until_checked("7F0000013039A1B2C3D4E5F600000000").await;
    scene.shows("Half messages are old").await;
    producer.close().await;
    scene.shows("Checks find no instance").await;
    let scene = scene.with("broker-a:4711", &format!("broker-a:{} --yes", half.position));
    let told = scene.acts("Half messages are old", "txn commit");
    assert!(told.contains("commit"), "{told}");
    let read = cluster.broker.wire().read_queue(TOPIC, 0).await;
    assert_eq!(read.len(), 1, "it is visible now: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_messages_that_are_parked() {
    let settings = Settings::default().with("transactionCheckMax", 1).with("transactionCheckInterval", 100);
    let (cluster, scene) = cluster(settings).await;
    let producer = cluster.broker.wire();
    producer.create_topic(TOPIC, 1).await;
    producer.greet("producer-1", PRODUCERS, &[]).await;
    let half = producer.half(PRODUCERS, TOPIC, "7F0000013039A1B2C3D4E5F600000000", "order 17").await;
    scene.shows("Half messages are parked").await;
    let scene = scene.with("broker-a:4711", &format!("broker-a:{} --yes", half.position));
    let checks = producer.checks().len();
    let told = scene.acts("Half messages are parked", "txn resume");
    until("another check", async || (producer.checks().len() > checks).then_some(())).await;
    assert!(told.contains("resume"), "{told}");
    // The other way: the opposite of a decision is refused and counted.
    assert_eq!(producer.end(&half, End::Rollback).await.expect("answered").code, response::SUCCESS);
    assert_ne!(producer.end(&half, End::Commit).await.expect("answered").code, response::SUCCESS);
    scene.shows("Decisions contradict each other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_away_and_dead_letters() {
    let backups = tempfile::tempdir().unwrap();
    let (cluster, scene) = cluster(Settings::default()).await;
    let scene = scene.with("/backups/broker-a", &backups.path().display().to_string());
    let wire = cluster.broker.wire();
    wire.create_topic(TOPIC, 1).await;
    let consumer = cluster.broker.wire();
    consumer.greet("consumer-1", CONSUMERS, &[(TOPIC, "*")]).await;
    for number in 0..4 {
        wire.send(TOPIC, 0, format!("order {number}"), &[]).await.expect("an answer");
    }
    let pulled = consumer.pull(CONSUMERS, TOPIC, 0, 0, 1).await;
    // One that it could not handle, and that is not to be tried again.
    let position = pulled.messages[0].position;
    assert_eq!(consumer.send_back(CONSUMERS, TOPIC, position, -1).await, response::SUCCESS);
    consumer.commit_offset(CONSUMERS, TOPIC, 0, 1).await;
    consumer.close().await;
    scene.shows("A group falls behind").await;
    scene.shows("Dead letters arrive").await;
    scene.shows("Open files run out").await;
    scene.shows("Flushes are slow").await;
    scene.shows("The backup is old").await;
    let told = scene.acts("The backup is old", "escrowmq backup");
    let listed = scene.acts("The backup is old", "restore --from");
    assert!(listed.lines().count() >= 1 && !listed.contains("stderr"), "{told}\n{listed}");
    let made = scene.run("curl -s http://127.0.0.1:10917/metrics | grep ^escrowmq_backup_prepared_timestamp_seconds");
    assert!(!made.trim().ends_with(" 0"), "{told}\n{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_a_limit() {
    let metrics = free_port();
    let broker =
        Broker::start(Settings::default().with("metricsPort", metrics).with("maxConnectionsPerAddress", 2)).await;
    let mut wires: Vec<Wire> = Vec::new();
    for _ in 0..3 {
        let wire = broker.wire();
        let ask = escrowmq_common::code::request::GET_BROKER_RUNTIME_INFO;
        // The last of them is closed before it is answered.
        let _ = wire.call(escrowmq_common::frame::Frame::request(ask)).await;
        wires.push(wire);
    }
    Scene::of(&broker.address(), metrics, &broker.data_folder()).shows("Connections are refused").await;
}

/// As much of the disk as makes it this full.
fn fill_to(disk: &SmallDisk, percent: usize) {
    let used = rustix::fs::statvfs(disk.data()).expect("the file system says how full it is");
    let free = (used.f_bfree * used.f_frsize) as usize;
    disk.fill(free.saturating_sub((DISK_MIB << 20) * (100 - percent) / 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up() {
    let Some(disk) = SmallDisk::mount("a_disk_that_fills_up") else { return };
    let metrics = free_port();
    let settings = Settings::default().with("mappedFileSizeCommitLog", 1 << 20).with("metricsPort", metrics);
    let (process, port) = spawn_broker_at(&settings, disk.folder());
    let wire = Wire::to(format!("127.0.0.1:{port}"));
    let scene = Scene::of(&format!("127.0.0.1:{port}"), metrics, &disk.data());
    until("the broker", async || scene.run("curl -s http://127.0.0.1:10917/ready").contains("ready").then_some(()))
        .await;
    wire.create_topic(TOPIC, 1).await;
    fill_to(&disk, 78);
    scene.shows("The disk fills up").await;
    fill_to(&disk, 93);
    until("a refusal", async || {
        let answer = wire.send(TOPIC, 0, "order 17", &[]).await.ok()?;
        (answer.code == response::SERVICE_NOT_AVAILABLE).then_some(())
    })
    .await;
    scene.shows("The disk is full").await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_failed() {
    let metrics = free_port();
    let mut broker = Broker::start(Settings::default().with("metricsPort", metrics)).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    let output = broker.data_folder().join("trace");
    let pid = broker.process().id();
    let Some(tracer) = Tracer::failing(pid, "fdatasync:error=EIO", &output).await else {
        eprintln!("SKIPPED a_store_that_failed: no tracer that may follow a process");
        return;
    };
    assert_ne!(wire.send(TOPIC, 0, "order 17", &[]).await.expect("an answer").code, response::SUCCESS);
    drop(tracer);
    Scene::of(&broker.address(), metrics, &broker.data_folder()).shows("The store has failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_loses_its_members() {
    let mut group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    group.until_equal().await;
    // On the page n1 leads, and n0, which follows, is left in the end.
    let scene = Scene::of(&group.address(0), group.metrics_port(0), &group.data_folder(0));
    if leader != 1 {
        scene.run("escrowmq group transfer n1 -b 127.0.0.1:10911");
    }
    until("n1 leads", async || (group.leader().await == Some(1)).then_some(())).await;
    group.kill(2);
    scene.shows("A member is missing").await;
    group.kill(1);
    scene.shows("Nobody leads").await;
    scene.shows("No majority").await;
    scene.shows("A broker is not ready").await;
}

#[test]
fn each_section_says_all_that_it_must() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE)).unwrap();
    for section in sections_of(PAGE) {
        let begin = text.find(&format!("\n## {}\n", section.title)).expect("it is there") + 1;
        let end = text[begin..].find("\n## ").map_or(text.len(), |length| begin + length);
        for part in ["**Users notice.**", "**Look.**", "**Do not**"] {
            assert!(text[begin..end].contains(part), "{}: no {part}", section.title);
        }
        assert!(!section.names.is_empty(), "{}: no alert leads there", section.title);
    }
}
