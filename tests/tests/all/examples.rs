//! The examples of the client: each does what its first lines say, at a real broker.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use escrowmq_tests::processes::Process;
use escrowmq_tests::{Cluster, DEADLINE, Settings, until};
use tempfile::TempDir;

/// A cluster with the topics of the examples. Checks come soon.
struct World {
    cluster: Cluster,
    logs: TempDir,
}

impl World {
    async fn start(topics: &[&str]) -> World {
        let settings = Settings::default().with("transactionTimeOut", 500).with("transactionCheckInterval", 200);
        let cluster = Cluster::start(settings).await;
        for topic in topics {
            cluster.broker.wire().create_topic(topic, 1).await;
        }
        World { cluster, logs: tempfile::tempdir().expect("a folder") }
    }

    /// Starts an example. `run` tells it from others of its name.
    fn begin(&self, name: &str, run: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(example(name));
        command.args(["--namesrv", &self.cluster.nameserver.address()]).args(arguments);
        Process::start(name, command, &self.logs.path().join(format!("{name}-{run}")))
    }

    /// Runs one to its end; answers what it printed.
    async fn run(&self, name: &str, run: &str, arguments: &[&str]) -> String {
        let mut process = self.begin(name, run, arguments);
        ended_well(process.wait(DEADLINE).await, &process)
    }

    /// What consumers see of a topic, sorted.
    async fn visible(&self, topic: &str) -> Vec<String> {
        let messages = self.cluster.broker.wire().read_queue(topic, 0).await;
        let mut bodies: Vec<String> =
            messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect();
        bodies.sort();
        bodies
    }
}

/// Beside this program: `cargo test` builds them all.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the running test is a file");
    let path = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps").join("examples").join(name);
    let built_by = "cargo build --release -p escrowmq-client --examples --features opentelemetry";
    assert!(path.is_file(), "{} is missing: `{built_by}` makes it", path.display());
    path
}

fn ended_well(status: ExitStatus, process: &Process) -> String {
    let printed = process.log();
    assert!(status.success(), "{status}\n{printed}");
    printed
}

async fn until_printed(process: &Process, text: &str, count: usize) {
    let what = format!("{count} times {text:?}");
    until(&what, async || (process.log().matches(text).count() >= count).then_some(())).await;
}

/// Ends one that runs until Ctrl-C.
async fn end(mut process: Process) -> String {
    process.interrupt();
    ended_well(process.wait(DEADLINE).await, &process)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_and_consumed() {
    let world = World::start(&["Orders"]).await;
    let consumer = world.begin("push_consumer", "", &["--fail-first"]);
    let printed = world.run("producer", "", &["--count", "3"]).await;
    assert_eq!(printed.matches(" stored in ").count(), 3, "{printed}");
    until_printed(&consumer, "attempt 1: order", 3).await;
    until_printed(&consumer, "attempt 2: order", 3).await;
    assert!(end(consumer).await.contains("leaving ["));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_replied_to() {
    let world = World::start(&["Prices"]).await;
    let answering = world.begin("request_reply", "answer", &["answer"]);
    // It begins at the end of the topic, wherever that is when it has found its queues.
    until("a reply", async || {
        let printed = world.run("request_reply", "ask", &["ask", "apples", "pears"]).await;
        (printed.contains("apples: 60 cents") && printed.contains("pears: 50 cents")).then_some(())
    })
    .await;
    assert!(end(answering).await.contains("asked for pears"));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_end_as_their_examples_say() {
    let world = World::start(&["Orders", "Invoices", "Held"]).await;
    let printed = world.run("transaction_closure", "", &["--count", "6"]).await;
    assert_eq!(printed.matches("rolled back: no money").count(), 2, "{printed}");
    assert_eq!(world.visible("Orders").await, ["order 0", "order 1", "order 3", "order 4"]);
    let invoices = ["0", "1", "3", "4"].map(|number| format!("invoice of order {number}"));
    assert_eq!(world.visible("Invoices").await, invoices);

    for (decision, told) in [("commit", "Committed"), ("rollback", "RolledBack")] {
        let printed =
            world.run("transaction_handle", decision, &["--topic", "Held", "--hold", "1", "--end", decision]).await;
        assert!(printed.contains("is prepared") && printed.contains(told), "{printed}");
        assert_eq!(world.visible("Held").await, ["order 17"], "that of the commit");
    }
    let left = world.begin(
        "transaction_handle",
        "leave",
        &["--topic", "Held", "--hold", "1", "--end", "leave", "--linger", "600"],
    );
    until_printed(&left, "nobody said commit", 1).await;
    assert_eq!(world.visible("Held").await, ["order 17"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_find_what_was_left_undecided() {
    let world = World::start(&["Orders"]).await;
    let producer = world.begin("transaction_producer", "", &["--count", "6", "--linger", "600"]);
    until_printed(&producer, "check of ", 2).await;
    let committed = ["order 0", "order 2", "order 3", "order 5"];
    until("the commits of the checks", async || (world.visible("Orders").await == committed).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_order_to_its_handler() {
    let world = World::start(&["Orders"]).await;
    let printed = world.run("opentelemetry", "", &[]).await;
    // With one tab before it: with more it is another thing's.
    let all = |label: &str| printed.lines().filter_map(|line| line.strip_prefix(label)).collect::<Vec<_>>();
    let (mut names, mut traces) = (all("\tName         : "), all("\tTraceId      : "));
    names.sort_unstable();
    assert_eq!(names, ["order", "process Orders", "send Orders", "ship"], "{printed}");
    traces.dedup();
    assert_eq!(traces.len(), 1, "{printed}");
}
