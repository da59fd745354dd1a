//! EscrowMQ's SDK: `WORKLOAD --name value ..`, one line of JSON. `run` says what the workloads are.

mod consuming;
mod producing;

use bench_common::Arguments;
use escrowmq_client::Client;

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let client = Client::builder(arguments.text("namesrv")).connect().await.expect("a cluster");
    let line = match arguments.workload() {
        "send" => producing::send(&client, &arguments).await,
        "batch" => producing::batch(&client, &arguments).await,
        "auto" => producing::auto(&client, &arguments).await,
        "fill" => producing::fill(&client, &arguments).await,
        "consume" => consuming::consume(&client, &arguments).await,
        other => panic!("no workload {other}"),
    };
    client.shutdown().await;
    println!("{line}");
}
