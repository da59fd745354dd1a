//! Asks nameservers and brokers. Nothing is decided here.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use escrowmq_broker::config::BrokerConfig;
use escrowmq_common::body::{ClusterInfo, KvTable};
use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::net::connect_any;
use tokio::time::timeout;

use super::clock::Skew;
use super::finding::Finding;
use super::route::{self, Route, Told};
use crate::admin::connection::{Cluster, code_of};
use crate::words::told;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The findings about the routes to the broker, and the clocks of all brokers that its nameservers know.
pub(super) async fn look(config: &BrokerConfig, is_running: bool) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut brokers = BTreeSet::new();
    if config.namesrv_addr.is_empty() {
        findings.push(route::none());
    }
    for nameserver in &config.namesrv_addr {
        let cluster = Cluster::new(nameserver);
        let told = match clusters(&cluster, nameserver).await {
            Ok(info) => {
                brokers
                    .extend(info.broker_addr_table.values().flat_map(|broker| broker.broker_addrs.values().cloned()));
                addresses(config, &cluster, &info).await
            }
            Err(error) => Told::Nothing(error),
        };
        let route = Route { nameserver: nameserver.clone(), is_here: is_here(nameserver).await, told };
        findings.push(route::route(&route, is_running));
    }
    for broker in brokers {
        findings.extend(skew(&Cluster::new(""), &broker).await.map(|skew| super::clock::skew(&skew)));
    }
    Ok(findings)
}

async fn clusters(cluster: &Cluster, nameserver: &str) -> Result<ClusterInfo, String> {
    let asked = cluster.ask(nameserver, Frame::request(request::GET_BROKER_CLUSTER_INFO));
    let answer = timeout(PATIENCE, asked).await.map_err(|_| format!("not within {} s", PATIENCE.as_secs()))?;
    answer.map_err(|error| told(&error))
}

async fn addresses(config: &BrokerConfig, cluster: &Cluster, info: &ClusterInfo) -> Told {
    let Some(broker) = info.broker_addr_table.get(&config.broker_name) else {
        return Told::Unknown { name: config.broker_name.clone() };
    };
    let all: Vec<String> = broker.broker_addrs.values().cloned().collect();
    let mut mute = Vec::new();
    for address in &all {
        let asked = cluster.call(address, Frame::request(request::GET_BROKER_CONFIG));
        let answers = match timeout(PATIENCE, asked).await {
            Ok(Ok(_)) => true,
            // A refusal is an answer.
            Ok(Err(error)) => code_of(&error).is_some(),
            Err(_) => false,
        };
        if !answers {
            mute.push(address.clone());
        }
    }
    let own = config.broker_ip.with_port(config.listen_port);
    Told::Addresses { own, all, mute }
}

/// Whether an address is one of this machine's own.
async fn is_here(address: &str) -> bool {
    let Some((host, port)) = escrowmq_common::net::split_address(address) else { return false };
    let connected = timeout(PATIENCE, connect_any(host, port)).await;
    let Ok(Ok(stream)) = connected else { return false };
    let Ok(stream): Result<TcpStream, _> = stream.into_std() else { return false };
    let (own, theirs) = (stream.local_addr(), stream.peer_addr());
    own.is_ok_and(|own| theirs.is_ok_and(|theirs| own.ip() == theirs.ip() || theirs.ip().is_loopback()))
}

/// How far a broker's clock is from this machine's; `None` if it does not say.
async fn skew(cluster: &Cluster, broker: &str) -> Option<Skew> {
    let before = clock::wall_ms();
    let asked = cluster.ask::<KvTable>(broker, Frame::request(request::GET_BROKER_RUNTIME_INFO));
    let info = timeout(PATIENCE, asked).await.ok()?.ok()?;
    let theirs = info.table.get("wallClockMillis")?.parse().ok()?;
    Some(Skew::of(broker, theirs, before, clock::wall_ms()))
}
