//! Batches of spans on their way to the collector.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::causes::Causes;
use escrowmq_common::remoting::LogGate;
use escrowmq_common::task::Shutdown;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::post::post;
use super::{Span, Spans, otlp};

/// Most spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others at most.
const GATHER: Duration = Duration::from_secs(1);
/// Time for what is queued when the broker stops.
const LAST: Duration = Duration::from_secs(3);
/// A collector that is away is told of once in a while.
static AWAY: LogGate = LogGate::new(Duration::from_secs(60));

/// Who exports, and where to.
#[derive(Debug)]
pub(crate) struct Service {
    /// Host and port of the collector.
    pub collector: String,
    /// Path of its address, without a slash at the end.
    pub path: String,
    /// The cluster that the broker belongs to.
    pub cluster: String,
    /// The name of this broker, unlike that of others.
    pub instance: String,
    /// The host that clients are told.
    pub host: String,
    /// The port that clients are told.
    pub port: u16,
}

/// Takes spans out of the queue and sends them.
pub(crate) struct Export {
    spans: Arc<Spans>,
    queued: mpsc::Receiver<Span>,
    service: Service,
}

impl Export {
    pub(super) fn new(spans: Arc<Spans>, queued: mpsc::Receiver<Span>, service: Service) -> Self {
        Self { spans, queued, service }
    }

    /// Exports until `shutdown`, and then what is queued, as long as that takes seconds.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut batch = Vec::with_capacity(BATCH);
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = gather(&mut self.queued, &mut batch) => self.send(&mut batch).await,
            }
        }
        self.queued.close();
        let rest = async {
            loop {
                // What was gathered comes first.
                let room = BATCH - batch.len();
                if room > 0 {
                    self.queued.recv_many(&mut batch, room).await;
                }
                if batch.is_empty() {
                    return;
                }
                self.send(&mut batch).await;
            }
        };
        if timeout(LAST, rest).await.is_err() {
            tracing::warn!("spans were not exported: the collector did not take them in time before the end");
        }
    }

    /// Sends a batch, once: a collector that is away would hold newer ones up.
    async fn send(&self, batch: &mut Vec<Span>) {
        let count = batch.len() as u64;
        let body = otlp::body(&self.service, batch).to_string().into_bytes();
        batch.clear();
        let path = format!("{}/v1/traces", self.service.path);
        let refused = match post(&self.service.collector, &path, body).await {
            Ok(answer) => otlp::refused(&answer, count),
            Err(error) => {
                if AWAY.open().is_some() {
                    let (collector, error) = (&self.service.collector, Causes(&error));
                    tracing::warn!(collector, %error, "spans are dropped: the collector does not take them");
                }
                count
            }
        };
        self.spans.exported.add(count - refused);
        self.spans.dropped.add(refused);
    }
}

/// Fills a batch until it is full or its first span has waited long enough. Keeps what it has if it is dropped.
async fn gather(queued: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    queued.recv_many(batch, BATCH).await;
    let more = async {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            queued.recv_many(batch, room).await;
        }
    };
    tokio::select! {
        () = more => {}
        () = sleep(GATHER) => {}
    }
}
