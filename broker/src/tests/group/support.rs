//! A group of three brokers in this process, and a client that reaches each of them.

use std::sync::Arc;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, Language};
use escrowmq_common::remoting::{CallError, Connection, Remote, RemoteOptions, Service};
use futures_util::future::{join_all, try_join_all};

use crate::config::BrokerConfig;
use crate::start::{RunningBroker, StartError, start_speaking};
use crate::terms::FEATURE_LEVEL;
use crate::tests::support::{PATIENCE, settings, three_seats, until};

/// Three seats, of which some run.
pub(super) struct Bench {
    folder: tempfile::TempDir,
    peers: String,
    running: [Option<RunningBroker>; 3],
    remote: Remote,
}

/// Nobody asks this client anything.
struct Silent;

impl Service for Silent {
    fn on_request(&self, _connection: &Arc<Connection>, _request: Frame) {}
}

/// A client with connections of its own.
pub(super) fn remote() -> Remote {
    let options = RemoteOptions { language: Language::JAVA, ..RemoteOptions::default() };
    Remote::new(options, Arc::new(Silent) as Arc<dyn Service>)
}

/// Says how a member differs from the settings of a test.
pub(super) type Change = fn(usize, &mut BrokerConfig);

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            peers: three_seats(),
            running: [None, None, None],
            remote: remote(),
        }
    }

    /// Starts a member with a version that speaks this level at most.
    pub(super) async fn open(&self, at: usize, level: u32, change: Change) -> Result<RunningBroker, StartError> {
        let mut config = BrokerConfig {
            replication_peers: self.peers.parse().unwrap(),
            replication_self: format!("n{at}"),
            ..settings(&self.data(at))
        };
        change(at, &mut config);
        config.validate().unwrap();
        start_speaking(config, level).await
    }

    pub(super) fn data(&self, at: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("n{at}"))
    }

    /// Starts members together.
    pub(super) async fn start(&mut self, seats: &[usize], level: u32, change: Change) {
        // The others wait for one that cannot start.
        let opened = try_join_all(seats.iter().map(|at| self.open(*at, level, change))).await.unwrap();
        for (at, opened) in seats.iter().zip(opened) {
            self.running[*at] = Some(opened);
        }
    }

    /// Three members of this version, whose group has settings.
    pub(super) async fn founded(change: Change) -> Self {
        let mut bench = Self::new();
        bench.start(&[0, 1, 2], FEATURE_LEVEL, change).await;
        bench.until_logged().await;
        bench
    }

    pub(super) async fn until_logged(&self) {
        let has = |one: &RunningBroker| !one.broker().shard.agreed().settings.is_empty();
        until("all have the settings of the group", async || self.running.iter().flatten().all(has)).await;
    }

    pub(super) async fn stop(&mut self, at: usize) {
        self.running[at].take().unwrap().stop().await.unwrap();
    }

    pub(super) async fn stop_all(&mut self) {
        let running = self.running.iter_mut().filter_map(Option::take);
        join_all(running.map(async |one| one.stop().await.unwrap())).await;
    }

    pub(super) fn at(&self, at: usize) -> &RunningBroker {
        self.running[at].as_ref().unwrap()
    }

    /// The seat of a leader that serves.
    pub(super) async fn leader(&self) -> usize {
        let leads = |at: &usize| {
            let group = &self.running[*at].as_ref().unwrap().broker().group;
            group.leader().is_some_and(|leader| leader.node == group.node())
        };
        let alive = || (0..3).filter(|at| self.running[*at].is_some());
        until("one leads", async || alive().any(|at| leads(&at))).await;
        alive().find(leads).unwrap()
    }

    /// Asks a member.
    pub(super) async fn call(&self, at: usize, request: Frame) -> Result<Frame, CallError> {
        self.remote.call(&self.at(at).local_addr().to_string(), request, PATIENCE).await
    }

    /// Changes settings by a tool at a member.
    pub(super) async fn update(&self, at: usize, text: &'static str) -> Frame {
        self.call(at, Frame::request(request::UPDATE_BROKER_CONFIG).with_body(text)).await.unwrap()
    }

    /// Does so, and wants success.
    pub(super) async fn updated(&self, at: usize, text: &'static str) {
        let answer = self.update(at, text).await;
        assert_eq!(answer.code, response::SUCCESS, "{text}: {:?}", answer.remark);
    }

    /// The value that a member shows.
    pub(super) async fn shown(&self, at: usize, key: &str) -> String {
        let answer = self.call(at, Frame::request(request::GET_BROKER_CONFIG)).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned)).unwrap()
    }

    /// Waits until all that run show this value.
    pub(super) async fn until_shown(&self, key: &str, value: &str) {
        for at in (0..3).filter(|at| self.running[*at].is_some()) {
            until(&format!("n{at} shows {key}={value}"), async || self.shown(at, key).await == value).await;
        }
    }
}
