//! Calls to the nameservers and brokers of a cluster.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{ClusterInfo, TopicRouteData};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use serde::de::DeserializeOwned;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The broker id that takes writes.
const MASTER: i64 = 0;

/// Nobody asks a tool anything.
struct Nobody;

impl Service for Nobody {
    fn on_request(&self, _connection: &Arc<Connection>, _request: Frame) {}
}

/// The broker of a group that takes writes.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) address: String,
}

/// A cluster, as its nameservers know it.
pub(crate) struct Cluster {
    names: Vec<String>,
    remote: Remote,
}

impl Cluster {
    pub(crate) fn new(namesrv: &str) -> Self {
        let names = namesrv.split([';', ',']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        Self { names: names.collect(), remote: Remote::new(RemoteOptions::default(), Arc::new(Nobody)) }
    }

    /// Calls one process; an answer that is no success is an error with its remark.
    pub(crate) async fn call(&self, address: &str, request: Frame) -> anyhow::Result<Frame> {
        self.call_for(address, request, &[]).await
    }

    /// Like [`call`](Self::call), but answers with these codes are no errors either.
    pub(crate) async fn call_for(&self, address: &str, request: Frame, also: &[i32]) -> anyhow::Result<Frame> {
        let answer = self.remote.call(address, request, PATIENCE).await?;
        if answer.code != response::SUCCESS && !also.contains(&answer.code) {
            bail!("{address} answered {}: {}", answer.code, answer.remark.as_deref().unwrap_or("no reason given"));
        }
        Ok(answer)
    }

    /// Calls one process and reads its answer's body.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, address: &str, request: Frame) -> anyhow::Result<T> {
        let answer = self.call(address, request).await?;
        from_slice(&answer.body).with_context(|| format!("{address} answered something else"))
    }

    /// Asks the first nameserver that can be reached.
    pub(crate) async fn ask_names<T: DeserializeOwned>(&self, request: Frame) -> anyhow::Result<T> {
        let mut last = anyhow::anyhow!("no nameserver is named");
        for name in &self.names {
            match self.remote.connection(name).await {
                Ok(_) => return self.ask(name, request).await,
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Tells all nameservers.
    pub(crate) async fn tell_names(&self, request: &Frame) -> anyhow::Result<()> {
        for name in &self.names {
            self.call(name, request.clone()).await?;
        }
        Ok(())
    }

    /// The brokers that take writes, of one cluster or of all; an error if there is none.
    pub(crate) async fn masters(&self, only: Option<&str>) -> anyhow::Result<Vec<Master>> {
        let info: ClusterInfo = self.ask_names(Frame::request(request::GET_BROKER_CLUSTER_INFO)).await?;
        let brokers = info.broker_addr_table.into_values();
        let masters: Vec<Master> = brokers
            .filter(|broker| only.is_none_or(|only| broker.cluster == only))
            .filter_map(|mut broker| {
                let address = broker.broker_addrs.remove(&MASTER)?;
                Some(Master { cluster: broker.cluster, name: broker.broker_name, address })
            })
            .collect();
        if masters.is_empty() {
            bail!("no broker is registered{}", only.map_or_else(String::new, |only| format!(" in cluster {only}")));
        }
        Ok(masters)
    }

    /// The brokers that take writes and serve a topic.
    pub(crate) async fn masters_of(&self, topic: &str) -> anyhow::Result<Vec<Master>> {
        let ask = Frame::request(request::GET_ROUTEINFO_BY_TOPIC)
            .with_field("topic", topic)
            .with_field("acceptStandardJsonOnly", true);
        let route: TopicRouteData = self.ask_names(ask).await?;
        let masters = route.broker_datas.into_iter().filter_map(|mut broker| {
            let address = broker.broker_addrs.remove(&MASTER)?;
            Some(Master { cluster: broker.cluster, name: broker.broker_name, address })
        });
        Ok(masters.collect())
    }
}
