//! Consumer groups.

use std::collections::BTreeMap;

use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{ConsumerConnections, SubscriptionGroupConfig, SubscriptionGroupTable};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::name::{is_system_group, validate_group};
use serde_json::json;

use super::connection::Cluster;
use super::output::Output;
use crate::words::counted;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a consumer group on all brokers, or change its settings
    Create {
        /// Name of the group
        group: String,
        /// Deliveries after the first one before a message becomes a dead letter
        #[arg(long, default_value_t = 16)]
        retries: u16,
        /// Only brokers of this cluster
        #[arg(long, short)]
        cluster: Option<String>,
    },
    /// List the consumer groups
    List {
        /// Also those of the system
        #[arg(long, short)]
        all: bool,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::Create { group, retries, cluster: only } => create(cluster, group, *retries, only.as_deref()).await,
        Command::List { all } => list(cluster, *all).await,
    }
}

async fn create(cluster: &Cluster, group: &str, retries: u16, only: Option<&str>) -> anyhow::Result<Output> {
    validate_group(group)?;
    let config = SubscriptionGroupConfig { retry_max_times: i32::from(retries), ..SubscriptionGroupConfig::new(group) };
    let body = to_bytes(&config, Form::Strict);
    let masters = cluster.masters(only).await?;
    for master in &masters {
        let ask = Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body.clone());
        cluster.call(&master.address, ask).await?;
    }
    let (retries, brokers) = (
        if retries == 1 { "1 retry".to_owned() } else { format!("{retries} retries") },
        counted(masters.len(), "broker"),
    );
    Ok(Output::done(format!("group {group} with {retries} is on {brokers}")))
}

async fn list(cluster: &Cluster, all: bool) -> anyhow::Result<Output> {
    let masters = cluster.masters(None).await?;
    let mut groups: BTreeMap<String, (SubscriptionGroupConfig, usize)> = BTreeMap::new();
    for master in &masters {
        let ask = Frame::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG);
        let table: SubscriptionGroupTable = cluster.ask(&master.address, ask).await?;
        for (name, config) in table.subscription_group_table {
            if !all && is_system_group(&name) {
                continue;
            }
            let ask = Frame::request(request::GET_CONSUMER_CONNECTION_LIST).with_field("consumerGroup", &name);
            // The refusal means that nobody is connected.
            let online = cluster.ask::<ConsumerConnections>(&master.address, ask).await;
            let members = online.map_or(0, |online| online.connection_set.len());
            let known = groups.entry(name).or_insert((config, 0));
            known.1 = known.1.max(members);
        }
    }
    let mut output = Output::new(&["GROUP", "MEMBERS", "RETRIES", "ENABLED", "BROADCAST"]);
    for (name, (config, members)) in groups {
        output.row([
            json!(name),
            json!(members),
            json!(config.retry_max_times),
            json!(config.consume_enable),
            json!(config.consume_broadcast_enable),
        ]);
    }
    Ok(output)
}
