//! Brokers.

use escrowmq_common::body::{ClusterInfo, KvTable};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use serde_json::json;

use super::connection::Cluster;
use super::output::Output;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the brokers: what each is to its group, the committed entries that it lacks, its rates of messages per second
    List,
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::List => list(cluster).await,
    }
}

async fn list(cluster: &Cluster) -> anyhow::Result<Output> {
    let info: ClusterInfo = cluster.ask_names(Frame::request(request::GET_BROKER_CLUSTER_INFO)).await?;
    if info.broker_addr_table.is_empty() {
        return Err(cluster.no_broker(None));
    }
    let mut output = Output::new(&[
        "CLUSTER",
        "BROKER",
        "ID",
        "ROLE",
        "LAG",
        "ADDRESS",
        "VERSION",
        "IN TPS",
        "OUT TPS",
        "MESSAGES IN",
        "OPEN HALVES",
    ]);
    for broker in info.broker_addr_table.into_values() {
        for (id, address) in broker.broker_addrs {
            let ask = Frame::request(request::GET_BROKER_RUNTIME_INFO);
            // A broker that does not answer is listed all the same: that is what one wants to see.
            let figures = cluster.ask::<KvTable>(&address, ask).await.map(|figures| figures.table).unwrap_or_default();
            let first = |name: &str| figures.get(name).and_then(|rates| rates.split(' ').next()?.parse::<f64>().ok());
            let number = |name: &str| figures.get(name).and_then(|number| number.parse::<i64>().ok());
            output.row([
                json!(broker.cluster),
                json!(broker.broker_name),
                json!(id),
                json!(figures.get("groupRole")),
                json!(number("groupLagEntries")),
                json!(address),
                json!(figures.get("brokerVersionDesc")),
                json!(first("putTps").map(rounded)),
                json!(first("getTransferredTps").map(rounded)),
                json!(number("msgPutTotalTodayNow")),
                json!(number("openHalfMessages")),
            ]);
        }
    }
    Ok(output)
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
