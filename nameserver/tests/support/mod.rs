//! A nameserver in a folder of its own, and a client that talks to it over a real socket.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, NoRequests, Remote, RemoteOptions};
use escrowmq_nameserver::{Config, Nameserver};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Stage {
    pub nameserver: Nameserver,
    pub remote: Remote,
    pub clock: Clock,
    pub folder: TempDir,
}

impl Stage {
    pub async fn start() -> Stage {
        Stage::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Stage {
        Stage::start_in(tempfile::tempdir().expect("a temporary folder"), change).await
    }

    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Stage {
        let mut config = Config {
            listen_port: 0,
            bind_address: "127.0.0.1".to_owned(),
            kv_config_path: folder.path().join("kvConfig.json"),
            scan_not_active_broker_interval: Duration::from_millis(2),
            ..Config::default()
        };
        change(&mut config);
        let clock = Clock::manual(0);
        let nameserver = Nameserver::start_with(config, clock.clone()).await.expect("the nameserver starts");
        Stage { nameserver, remote: remote(), clock, folder }
    }

    pub fn address(&self) -> String {
        self.nameserver.local_addr().to_string()
    }

    /// Asks over the stage's own connection.
    pub async fn call(&self, request: Frame) -> Frame {
        let answer = self.remote.call(&self.address(), request, PATIENCE).await;
        answer.expect("every request is answered")
    }

    /// A connection that nobody shares.
    pub async fn connect(&self) -> Line {
        let remote = remote();
        let connection = remote.connection(&self.address()).await;
        Line { connection: connection.expect("the nameserver listens"), remote }
    }

    pub async fn route(&self, topic: &str) -> Option<String> {
        let asked = Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", topic);
        let answer = self.call(asked).await;
        (answer.code == 0).then(|| text(&answer.body))
    }

    /// Waits until the route of `topic` is as wanted.
    pub async fn until_route(&self, topic: &str, wanted: impl Fn(Option<&str>) -> bool) {
        let waiting = async {
            while !wanted(self.route(topic).await.as_deref()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the route changes in time");
    }
}

/// One connection, closed when dropped.
pub struct Line {
    pub connection: Arc<Connection>,
    remote: Remote,
}

impl Line {
    pub async fn call(&self, request: Frame) -> Frame {
        let answer = self.connection.call(request, PATIENCE).await;
        answer.expect("every request is answered")
    }
}

/// A client with connections of its own.
pub fn remote() -> Remote {
    Remote::new(RemoteOptions::default(), Arc::new(NoRequests))
}

pub fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

/// A broker's registration with the given topics.
pub fn registration(address: &str, id: i64, counter: i64, topics: &[&str]) -> Frame {
    let topics: Vec<String> = topics
        .iter()
        .map(|name| {
            format!(
                r#""{name}":{{"attributes":{{}},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"{name}","topicSysFlag":0,"writeQueueNums":4}}"#
            )
        })
        .collect();
    let body = format!(
        r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":{counter},"stateVersion":1,"timestamp":5}},"topicConfigTable":{{{}}}}}}}"#,
        topics.join(",")
    );
    Frame::request(request::REGISTER_BROKER)
        .with_field("brokerName", "a")
        .with_field("brokerAddr", address)
        .with_field("clusterName", "c")
        .with_field("haServerAddr", format!("ha-{address}"))
        .with_field("brokerId", id)
        .with_field("enableActingMaster", false)
        .with_field("compressed", false)
        .with_field("bodyCrc32", 0)
        .with_body(body)
}

/// Keeps what the other side asks for.
#[derive(Default)]
pub struct Told {
    requests: std::sync::Mutex<Vec<Frame>>,
    arrived: tokio::sync::Notify,
}

impl escrowmq_common::remoting::Service for Told {
    fn on_request(&self, _: &Arc<Connection>, request: Frame) {
        self.requests.lock().expect("nobody panicked").push(request);
        self.arrived.notify_one();
    }
}

/// A connection whose incoming requests are kept.
pub async fn listening(address: &str) -> (Arc<Told>, Line) {
    let told = Arc::new(Told::default());
    let remote = Remote::new(RemoteOptions::default(), told.clone());
    let connection = remote.connection(address).await;
    let connection = connection.expect("the nameserver listens");
    (told, Line { connection, remote })
}

/// The next request that arrived.
pub async fn next(told: &Told) -> Frame {
    let waiting = async {
        loop {
            let first = {
                let mut requests = told.requests.lock().expect("nobody panicked");
                (!requests.is_empty()).then(|| requests.remove(0))
            };
            match first {
                Some(request) => return request,
                None => told.arrived.notified().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("a request arrives in time")
}
