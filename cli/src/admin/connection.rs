//! Calls to the nameservers and brokers of a cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{Body, ClusterInfo, SubscriptionGroupTable, TopicRouteData};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{CallError, Connection, Remote, RemoteOptions, Service};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The broker id that takes writes.
const MASTER: i64 = 0;

/// Nobody asks a tool anything.
struct Nobody;

impl Service for Nobody {
    fn on_request(&self, _connection: &Arc<Connection>, _request: Frame) {}
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    address: String,
    /// The code of the protocol.
    pub(crate) code: i32,
    remark: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, code, remark } = self;
        match plain(remark.as_deref().unwrap_or_default()) {
            "" => write!(f, "{address} refused without a reason (code {code})"),
            remark => write!(f, "{address} refused: {remark} (code {code})"),
        }
    }
}

impl std::error::Error for Refused {}

/// A remark without what servers of the protocol append for developers of other products: addresses of web pages, and
/// traces of calls after the first line.
fn plain(remark: &str) -> &str {
    let line = remark.trim().lines().next().unwrap_or_default();
    let end = ["See http", "For more information", "CODE: "].iter().filter_map(|mark| line.find(mark)).min();
    line[..end.unwrap_or(line.len())].trim_end_matches([' ', ',', ';', '.'])
}

/// The code of the refusal that the error is, if it is one.
pub(crate) fn code_of(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<Refused>().map(|refused| refused.code)
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
            let (address, code) = (address.to_owned(), answer.code);
            bail!(Refused { address, code, remark: answer.remark });
        }
        Ok(answer)
    }

    /// Calls one process and reads its answer's body.
    pub(crate) async fn ask<T: Body>(&self, address: &str, request: Frame) -> anyhow::Result<T> {
        let answer = self.call(address, request).await?;
        from_slice(&answer.body).with_context(|| format!("{address} answered something else"))
    }

    /// Asks the first nameserver that answers.
    pub(crate) async fn ask_names<T: Body>(&self, request: Frame) -> anyhow::Result<T> {
        let mut last = anyhow::anyhow!("no nameserver is named");
        for name in &self.names {
            match self.ask(name, request.clone()).await {
                Err(error) if error.is::<CallError>() => last = error,
                answered => return answered,
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
            return Err(self.no_broker(only));
        }
        Ok(masters)
    }

    /// Nobody is there to be asked.
    pub(crate) fn no_broker(&self, only: Option<&str>) -> anyhow::Error {
        let of = only.map_or_else(String::new, |only| format!(" in cluster {only}"));
        anyhow::anyhow!("no broker is registered{of} at {}", self.names.join(";"))
    }

    /// The brokers that take writes and serve a topic; an error if nobody knows it.
    pub(crate) async fn masters_of(&self, topic: &str) -> anyhow::Result<Vec<Master>> {
        self.masters_that_serve(topic).await?.with_context(|| unknown_topic(topic))
    }

    /// The brokers that take writes and serve a topic; `None` if nobody knows it.
    pub(crate) async fn masters_that_serve(&self, topic: &str) -> anyhow::Result<Option<Vec<Master>>> {
        let ask = Frame::request(request::GET_ROUTEINFO_BY_TOPIC)
            .with_field("topic", topic)
            .with_field("acceptStandardJsonOnly", true);
        let route: TopicRouteData = match self.ask_names(ask).await {
            Err(error) if code_of(&error) == Some(response::TOPIC_NOT_EXIST) => {
                // Without a broker no topic has a route, which says nothing about the topic.
                self.masters(None).await?;
                return Ok(None);
            }
            route => route?,
        };
        let masters = route.broker_datas.into_iter().filter_map(|mut broker| {
            let address = broker.broker_addrs.remove(&MASTER)?;
            Some(Master { cluster: broker.cluster, name: broker.broker_name, address })
        });
        Ok(Some(masters.collect()))
    }

    /// Whether one of these brokers knows the consumer group, by its settings.
    pub(crate) async fn knows_group(&self, masters: &[Master], group: &str) -> anyhow::Result<bool> {
        for master in masters {
            let ask = Frame::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG);
            let table: SubscriptionGroupTable = self.ask(&master.address, ask).await?;
            if table.subscription_group_table.contains_key(group) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The error text for a topic that nobody knows.
pub(crate) fn unknown_topic(topic: &str) -> String {
    format!("there is no topic {topic:?}; `escrowmq admin topic list` shows those that are there")
}

/// The error text for a consumer group that nobody knows.
pub(crate) fn unknown_group(group: &str) -> String {
    format!("there is no consumer group {group:?}; `escrowmq admin group list` shows those that are there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_wrong_and_nothing_of_other_products() {
        let said = |remark: &str| {
            let (address, remark) = ("h:1".to_owned(), Some(remark.to_owned()));
            Refused { address, code: 17, remark }.to_string()
        };
        let faq = "No topic route info in name server for the topic: Nope\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
        assert_eq!(said(faq), "h:1 refused: No topic route info in name server for the topic: Nope (code 17)");
        assert_eq!(said("topic[x] not exist, See https://a.b/c"), "h:1 refused: topic[x] not exist (code 17)");
        assert_eq!(said(" \n"), "h:1 refused without a reason (code 17)");
        assert_eq!(said("the disk is full; try again"), "h:1 refused: the disk is full; try again (code 17)");
    }
}
