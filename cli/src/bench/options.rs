//! Options that several workloads have in common.

use anyhow::bail;
use clap::ValueEnum;
use escrowmq_common::frame::{HeaderEncoding, MAX_FRAME_LEN};

/// Where to, and how.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    /// Nameserver, host:port
    #[arg(long, short, default_value = "127.0.0.1:9876", env = "NAMESRV_ADDR")]
    pub(super) namesrv: String,
    /// Broker, host:port; no nameserver is asked then
    #[arg(long)]
    pub(super) broker: Option<String>,
    /// Topic; created if it is not there [default: a new one, which is deleted afterwards]
    #[arg(long, short)]
    pub(super) topic: Option<String>,
    /// Queues, on each broker, of a topic that is created
    #[arg(long, default_value_t = 8)]
    pub(super) queues: u16,
    /// Do not delete the new topic
    #[arg(long)]
    pub(super) keep_topic: bool,
    /// Name of the producer and consumer group
    #[arg(long, default_value = "escrowmq-bench")]
    pub(super) group: String,
    /// Connections, shared by the threads
    #[arg(long, short, default_value_t = 16)]
    pub(super) connections: usize,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
    /// Bytes of a message's body
    #[arg(long, short, default_value_t = 1024)]
    pub(super) size: usize,
    /// How headers are encoded
    #[arg(long, value_enum, default_value_t = Header::Json)]
    pub(super) header: Header,
    /// Process of the broker on this machine, to tell its CPU time and memory; may be repeated
    #[arg(long, value_delimiter = ',')]
    pub(super) pid: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// How much, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Load {
    /// Requests under way per connection
    #[arg(long, short, default_value_t = 1)]
    pub(super) in_flight: usize,
    /// Length of the measurement in seconds
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,
    /// Seconds under load before it
    #[arg(long, default_value_t = 2.0)]
    pub(super) warmup: f64,
    /// Messages per second, whatever the broker does: latency counts from the time at which a message was to be sent
    /// [default: as many as are answered]
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// Number of messages to send, all measured, instead of a time
    #[arg(long)]
    pub(super) count: Option<u64>,
}

/// How headers are encoded.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Header {
    /// As JSON, like clients by default.
    Json,
    /// RocketMQ's binary form.
    Binary,
}

impl Header {
    pub(super) fn encoding(self) -> HeaderEncoding {
        match self {
            Header::Json => HeaderEncoding::Json,
            Header::Binary => HeaderEncoding::Binary,
        }
    }
}

impl Common {
    /// An error for what cannot be done.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.connections == 0 || self.threads == 0 || self.queues == 0 {
            bail!("--connections, --threads and --queues are at least 1");
        }
        if self.size > MAX_FRAME_LEN - 64 * 1024 {
            bail!("--size {} does not fit into a request", self.size);
        }
        Ok(())
    }
}

impl Load {
    /// An error for what cannot be done.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let is_time = |seconds: f64| (0.0..=1e6).contains(&seconds);
        if !is_time(self.warmup) || !is_time(self.seconds) || self.seconds == 0.0 {
            bail!("--seconds and --warmup are times in seconds");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            bail!("--rate is a number of messages per second");
        }
        if self.count == Some(0) || !(1..=100_000).contains(&self.in_flight) {
            bail!("--count is at least 1, --in-flight 1 to 100000");
        }
        Ok(())
    }

    /// The same load without a rate or count.
    pub(super) fn closed(&self) -> Load {
        Load { rate: None, count: None, ..self.clone() }
    }
}
