//! Spans of requests, as a collector gets them from a broker: `traceExportAddress`.

use std::sync::Arc;

use escrowmq_client::{Checker, Decision, Message, MessageExt};
use escrowmq_common::code::response;
use escrowmq_common::task::Tasks;
use escrowmq_tests::metrics::metric;
use escrowmq_tests::processes::free_port;
use escrowmq_tests::{Cluster, Settings, until};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const TOPIC: &str = "Orders";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Takes spans over HTTP.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Value>>>,
    tasks: Tasks,
}

impl Collector {
    /// A collector, and its address.
    async fn start() -> (Collector, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Collector::default();
        let taking = collector.clone();
        collector.tasks.spawn("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                taking.take(stream).await;
            }
        });
        (collector, address)
    }

    /// One request.
    async fn take(&self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
                assert!(head.contains("content-type: application/json"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                if body.len() == length.parse::<usize>().expect("a number") {
                    self.keep(&serde_json::from_str(body).expect("JSON"));
                    break;
                }
            }
            assert!(stream.read_buf(&mut read).await.expect("bytes") > 0, "the request has no end");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.expect("written");
    }

    fn keep(&self, body: &Value) {
        let of_broker = &body["resourceSpans"][0];
        let service = &of_broker["resource"]["attributes"][0];
        assert_eq!(
            (&service["key"], &service["value"]["stringValue"]),
            (&"service.name".into(), &"escrowmq-broker".into())
        );
        let spans = of_broker["scopeSpans"][0]["spans"].as_array().expect("spans");
        self.spans.lock().extend(spans.iter().cloned());
    }

    /// The names of the spans that came, with their traces and their parents.
    fn named(&self) -> Vec<[String; 3]> {
        let text = |span: &Value, key: &str| span[key].as_str().unwrap_or_default().to_owned();
        self.spans.lock().iter().map(|span| ["name", "traceId", "parentSpanId"].map(|key| text(span, key))).collect()
    }
}

fn message(body: &'static str, flags: &str) -> Message {
    Message::new(TOPIC, body).property("traceparent", format!("00-{TRACE}-{SPAN}-{flags}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_with_the_trace_of_their_message() {
    let (collector, address) = Collector::start().await;
    // Without a context nothing is recorded: so all spans are those of the messages here.
    let settings = Settings::default().with("traceExportAddress", address).with("traceExportRatio", 0);
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let producer = client.producer("shop").start().await.expect("a producer starts");
    producer.send(message("without a trace that is recorded", "00")).await.expect("sent");
    producer.send(message("with one", "01")).await.expect("sent");
    producer.send(Message::new(TOPIC, "without a trace")).await.expect("sent");
    let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
    let transactions = client.transaction_producer("bank", checker).start().await.expect("a producer starts");
    transactions.prepare(message("half", "01")).await.expect("prepared").commit().await.expect("committed");
    client.shutdown().await;
    let wire = cluster.broker.wire();
    let stored = wire.read_queue(TOPIC, 0).await;
    let recorded = stored.iter().find(|message| message.body == "with one").expect("it is stored");
    assert_eq!(wire.send_back("shipping", TOPIC, recorded.position, 0).await, response::SUCCESS);
    // What is queued goes out before the broker ends.
    let broker = cluster.broker.process();
    broker.terminate();
    broker.wait(escrowmq_tests::wait::DEADLINE).await;
    let named = collector.named();
    let child = |name: &str| [name, TRACE, SPAN].map(str::to_owned);
    assert_eq!(named, [child("send Orders"), child("send Orders"), child("commit Orders"), child("nack Orders")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (metrics, nobody) = (free_port(), free_port());
    let settings = Settings::default()
        .with("metricsPort", metrics)
        .with("traceExportAddress", format!("http://127.0.0.1:{nobody}"))
        .with("traceExportRatio", 1);
    let cluster = Cluster::start(settings).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let producer = client.producer("shop").start().await.expect("a producer starts");
    producer.send(message("m", "01")).await.expect("sent");
    until("dropped spans", async || metric(metrics, "trace_spans_dropped_total").await.filter(|dropped| *dropped > 0))
        .await;
    assert_eq!(metric(metrics, "trace_spans_total").await, Some(0));
    producer.send(message("m", "01")).await.expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_there_are_no_spans() {
    let metrics = free_port();
    let settings = Settings::default().with("metricsPort", metrics).with("traceExportRatio", 1);
    let cluster = Cluster::start(settings).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let producer = client.producer("shop").start().await.expect("a producer starts");
    producer.send(message("m", "01")).await.expect("sent");
    for count in ["trace_spans_total", "trace_spans_dropped_total"] {
        assert_eq!(metric(metrics, count).await, Some(0), "{count}");
    }
}
