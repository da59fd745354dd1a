//! A group of three brokers in one process.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::ports::free_port;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};
use futures_util::future::try_join_all;
use serde_json::Value;
use tempfile::TempDir;

use crate::config::BrokerConfig;
use crate::start::{RunningBroker, start};
use crate::tests::support::{PATIENCE, get, settings, three_seats, until};

/// See the module. Members are numbered from 0; member 1 has the seat `n1`.
pub(super) struct Three {
    folder: TempDir,
    peers: String,
    metrics_ports: [u16; 3],
    running: [Option<RunningBroker>; 3],
    remote: Remote,
}

impl Three {
    /// Nobody runs yet.
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            peers: three_seats(),
            metrics_ports: std::array::from_fn(|_| free_port().unwrap()),
            running: [None, None, None],
            remote: Remote::new(RemoteOptions::default(), Arc::new(NoRequests)),
        }
    }

    /// The settings of a member.
    pub(super) fn config(&self, at: usize) -> BrokerConfig {
        BrokerConfig {
            replication_peers: self.peers.parse().unwrap(),
            replication_self: format!("n{at}"),
            metrics_port: Some(self.metrics_ports[at]),
            ..settings(&self.folder.path().join(format!("n{at}")))
        }
    }

    /// Starts these members, and waits until all of them serve.
    pub(super) async fn start(&mut self, members: &[usize]) {
        // The others wait for one that cannot start.
        let started = try_join_all(members.iter().map(|at| start(self.config(*at)))).await.unwrap();
        for (at, running) in members.iter().zip(started) {
            self.took(*at, running);
        }
    }

    /// This member was started elsewhere.
    pub(super) fn took(&mut self, at: usize, running: RunningBroker) {
        self.running[at] = Some(running);
    }

    /// Whether a member runs.
    pub(super) fn runs(&self, at: usize) -> bool {
        self.running[at].is_some()
    }

    /// Stops a member in good order, which takes moments.
    pub(super) async fn stop(&mut self, at: usize) {
        self.stopping(at).await;
    }

    /// Stops a member in good order while the caller uses the others.
    pub(super) fn stopping(&mut self, at: usize) -> impl Future<Output = ()> + use<> {
        let stopping = self.running[at].take().unwrap().stop();
        async { tokio::time::timeout(PATIENCE, stopping).await.expect("a member stops within moments").unwrap() }
    }

    /// Stops all.
    pub(super) async fn end(mut self) {
        for at in 0..3 {
            if self.running[at].is_some() {
                self.stop(at).await;
            }
        }
    }

    /// The body of the answer to a `GET` at a member, with its status.
    pub(super) async fn get(&self, at: usize, path: &str) -> (u16, String) {
        get(self.metrics_ports[at], path).await.unwrap()
    }

    /// The figures of a member by name and labels, without their prefix.
    pub(super) async fn page(&self, at: usize) -> BTreeMap<String, f64> {
        let (status, page) = self.get(at, "/metrics").await;
        assert_eq!(status, 200, "{page}");
        let lines = page.lines().filter(|line| line.starts_with("escrowmq_"));
        let figure = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.strip_prefix("escrowmq_")?.to_owned(), value.parse().ok()?))
        };
        lines.map(|line| figure(line).unwrap_or_else(|| panic!("no figure: {line}"))).collect()
    }

    /// Waits until a member says of itself that it leads; says which one.
    pub(super) async fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", async || {
            for at in (0..3).filter(|at| self.running[*at].is_some()) {
                if self.page(at).await.contains_key("group_role{role=\"leader\"}") {
                    leader = Some(at);
                }
            }
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// Waits until a figure of a member is such.
    pub(super) async fn until(&self, at: usize, name: &str, is_such: impl Fn(f64) -> bool) {
        until(name, async || self.page(at).await.get(name).is_some_and(|value| is_such(*value))).await;
    }

    /// Where a member takes requests.
    pub(super) fn address(&self, at: usize) -> String {
        self.running[at].as_ref().unwrap().local_addr().to_string()
    }

    /// Sends a request to a member.
    pub(super) async fn call(&self, at: usize, request: Frame) -> Frame {
        self.remote.call(&self.address(at), request, PATIENCE).await.unwrap()
    }

    /// Sends a request to a member, which must succeed.
    pub(super) async fn done(&self, at: usize, request: Frame) -> Frame {
        let answer = self.call(at, request).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        answer
    }

    /// The JSON body of the answer to a request without fields.
    pub(super) async fn ask(&self, at: usize, code: i32) -> Value {
        serde_json::from_slice(&self.done(at, Frame::request(code)).await.body).unwrap()
    }
}

/// The same while the member may not have come so far.
pub(super) async fn get_when_open(port: u16, path: &str) -> (u16, String) {
    let mut got = None;
    until("the port of metrics", async || {
        got = get(port, path).await;
        got.is_some()
    })
    .await;
    got.unwrap()
}

/// A send of one message.
pub(super) fn send(topic: &str) -> Frame {
    let header = SendMessageHeader::new("PG", topic, 0, 1_700_000_000_000, "");
    Frame::request(request::SEND_MESSAGE_V2).with_header(&header).with_body("a body")
}
