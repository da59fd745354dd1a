//! The thread that nameserver and broker run on, with a runtime of their own.
//!
//! So a test may have any runtime, be blocked, or end in the middle: what runs here goes on, and ends when the [`Host`] is dropped. One
//! loop owns the parts and carries out orders one after the other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use escrowmq_broker::config::BrokerConfig;
use escrowmq_broker::start::{Embedding, RunningBroker, start_embedded};
use escrowmq_common::clock::Clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use escrowmq_common::name::DUPLICATE_WINDOW;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};
use escrowmq_common::task::Tasks;
use escrowmq_nameserver::{Config as NameserverConfig, Nameserver};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

use crate::builder::Topic;
use crate::error::StartError;
use crate::proxy::{Proxy, Wire};

const LOOPBACK: &str = "127.0.0.1";
/// Threads of the runtime.
const WORKERS: usize = 2;
/// Orders that wait: tests give one after the other.
const ORDERS_MAX: usize = 16;
/// The longest wait for a topic to be created.
const CREATION_TIME: Duration = Duration::from_secs(10);

/// Settings that make a broker small and keep a test from failing for the machine's sake: answers do not wait for the device, and a
/// disk that is nearly full is none of a test's concern.
const SETTINGS: &[(&str, &str)] = &[
    ("flushDiskType", "ASYNC_FLUSH"),
    ("mappedFileSizeCommitLog", "16777216"),
    ("serverSelectorThreads", "1"),
    ("diskMaxUsedSpaceRatio", "100"),
    ("diskSpaceCleanForciblyRatio", "100"),
    ("diskSpaceWarningLevelRatio", "100"),
];

/// The things that a kit is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) topics: Vec<Topic>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) clock: Clock,
}

enum Order {
    Advance { by: Duration, done: oneshot::Sender<()> },
    Waiting { done: oneshot::Sender<u64> },
    Kill { done: oneshot::Sender<()> },
    Restart { done: oneshot::Sender<Result<(), StartError>> },
    Stop { done: oneshot::Sender<()> },
}

/// The handle of the thread. Dropping it ends everything, and waits for that.
#[derive(Debug)]
pub(crate) struct Host {
    /// Taken when the host ends.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    inside: Inside,
    nameserver: String,
    folder: PathBuf,
}

/// The way into the thread's runtime.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    runtime: Handle,
    tasks: Tasks,
}

impl Inside {
    /// Runs a future there: its timers are real, even where the test has paused the clock of its own. `None` if the runtime has ended.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        {
            let _entered = self.runtime.enter();
            self.tasks.spawn("testkit", async move {
                // The caller may have been given up.
                let _ = tell.send(work.await);
            });
        }
        told.await.ok()
    }
}

/// What the thread tells when it serves.
struct Ready {
    runtime: Handle,
    nameserver: String,
    folder: PathBuf,
}

impl Host {
    pub(crate) async fn start(plan: Plan) -> Result<Host, StartError> {
        let (orders, incoming) = mpsc::channel(ORDERS_MAX);
        let (tell, told) = oneshot::channel();
        let thread = Tasks::new().spawn_thread("testkit", move || serve(plan, incoming, tell));
        let thread = thread.map_err(StartError::system("a thread"))?;
        let Ready { runtime, nameserver, folder } = told.await.map_err(|_| StartError::Ended)??;
        let inside = Inside { runtime, tasks: Tasks::new() };
        Ok(Host { orders: Some(orders), thread: Some(thread), inside, nameserver, folder })
    }

    /// Where the nameserver listens.
    pub(crate) fn nameserver(&self) -> &str {
        &self.nameserver
    }

    /// Where the data is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn inside(&self) -> &Inside {
        &self.inside
    }

    pub(crate) async fn advance(&self, by: Duration) {
        self.order(|done| Order::Advance { by, done }).await;
    }

    pub(crate) async fn waiting(&self) -> u64 {
        self.order(|done| Order::Waiting { done }).await.unwrap_or_default()
    }

    pub(crate) async fn kill(&self) {
        self.order(|done| Order::Kill { done }).await;
    }

    pub(crate) async fn restart(&self) -> Result<(), StartError> {
        self.order(|done| Order::Restart { done }).await.unwrap_or(Err(StartError::Ended))
    }

    pub(crate) async fn stop(&self) {
        self.order(|done| Order::Stop { done }).await;
    }

    /// `None` if the thread has ended.
    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.orders.as_ref()?.send(order(tell)).await.ok()?;
        told.await.ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if it had one, was logged there.
            let _ = thread.join();
        }
    }
}

/// The thread.
fn serve(plan: Plan, mut orders: mpsc::Receiver<Order>, ready: oneshot::Sender<Result<Ready, StartError>>) {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("testkit").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(StartError::system("a runtime")(error)))),
    };
    runtime.block_on(async {
        let mut house = match House::start(plan).await {
            Ok(house) => house,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let (nameserver, folder) = (house.nameserver.local_addr().to_string(), house.folder.path().to_owned());
        // Nobody may wait any more: then there are no orders either.
        let _ = ready.send(Ok(Ready { runtime: Handle::current(), nameserver, folder }));
        while let Some(order) = orders.recv().await {
            if house.carry_out(order).await.is_break() {
                break;
            }
        }
        house.close().await;
    });
}

/// The parts.
struct House {
    config: BrokerConfig,
    clock: Clock,
    nameserver: Nameserver,
    proxy: Proxy,
    broker: Option<RunningBroker>,
    folder: TempDir,
}

impl House {
    async fn start(plan: Plan) -> Result<House, StartError> {
        let folder = tempfile::Builder::new().prefix("escrowmq-testkit-").tempdir();
        let folder = folder.map_err(StartError::system("a temporary folder"))?;
        let config = config(plan.settings, &folder.path().join("broker"))?;
        let proxy = Proxy::reserve(plan.wire).map_err(StartError::system("a port"))?;
        let nameserver = Nameserver::start(NameserverConfig {
            listen_port: 0,
            bind_address: LOOPBACK.to_owned(),
            kv_config_path: folder.path().join("nameserver/kvConfig.json"),
            ..NameserverConfig::default()
        });
        let nameserver = nameserver.await?;
        let config = BrokerConfig { namesrv_addr: vec![nameserver.local_addr().to_string()], ..config };
        let mut house = House { config, clock: plan.clock, nameserver, proxy, broker: None, folder };
        let started = house.start_with(&plan.topics).await;
        if let Err(error) = started {
            house.close().await;
            return Err(error);
        }
        Ok(house)
    }

    /// Whoever waits for the answer may have been given up.
    async fn carry_out(&mut self, order: Order) -> ControlFlow<()> {
        match order {
            Order::Advance { by, done } => {
                self.advance(by).await;
                let _ = done.send(());
            }
            Order::Waiting { done } => {
                let _ = done.send(self.broker.as_ref().map_or(0, RunningBroker::waiting_messages));
            }
            Order::Kill { done } => {
                self.kill().await;
                let _ = done.send(());
            }
            Order::Restart { done } => {
                let _ = done.send(self.restart().await);
            }
            Order::Stop { done } => {
                self.stop_broker().await;
                let _ = done.send(());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    async fn start_with(&mut self, topics: &[Topic]) -> Result<(), StartError> {
        self.start_broker().await?;
        for topic in topics {
            self.create(topic).await?;
        }
        Ok(())
    }

    async fn start_broker(&mut self) -> Result<(), StartError> {
        let embedding = Embedding { clock: self.clock.clone(), told_port: Some(self.proxy.address().port()) };
        let broker = self.broker.insert(start_embedded(self.config.clone(), embedding).await?);
        self.proxy.open(broker.local_addr()).map_err(StartError::system("the broker's port"))
    }

    async fn create(&self, topic: &Topic) -> Result<(), StartError> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let refused = |reason| StartError::Topic { topic: topic.name.clone(), reason };
        let queues = i32::try_from(topic.queues).map_err(|error| refused(error.to_string()))?;
        let window = format!("+{DUPLICATE_WINDOW}={}", topic.duplicate_window.as_secs());
        let attributes = (!topic.duplicate_window.is_zero()).then_some(window.as_str());
        let header = CreateTopicHeader { attributes, ..CreateTopicHeader::new(&topic.name, queues) };
        let create = Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header);
        let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
        let answer = remote.call(&broker.local_addr().to_string(), create, CREATION_TIME).await;
        remote.close().await;
        match answer {
            Ok(answer) if answer.code == response::SUCCESS => Ok(()),
            Ok(answer) => Err(refused(answer.remark.unwrap_or_else(|| format!("code {}", answer.code)))),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    async fn advance(&mut self, by: Duration) {
        match &self.broker {
            Some(broker) => broker.skip_time(by).await,
            // It finds out when it starts.
            None => self.clock.advance(by),
        }
    }

    async fn kill(&mut self) {
        self.cut_off().await;
        if let Some(broker) = self.broker.take() {
            broker.kill().await;
        }
    }

    async fn restart(&mut self) -> Result<(), StartError> {
        self.stop_broker().await;
        self.start_broker().await
    }

    /// In good order.
    async fn stop_broker(&mut self) {
        if let Some(broker) = self.broker.take()
            && let Err(error) = broker.stop().await
        {
            tracing::warn!(%error, "the broker did not end in good order");
        }
        self.cut_off().await;
    }

    /// Clients see their connections break before the broker could tell them anything.
    async fn cut_off(&mut self) {
        if let Err(error) = self.proxy.close().await {
            tracing::warn!(%error, "the broker's port could not be kept; a restart tries to get it again");
        }
    }

    async fn close(mut self) {
        // The folder goes: what is not in it needs no flush.
        self.kill().await;
        self.nameserver.stop().await;
    }
}

fn config(settings: BTreeMap<String, String>, folder: &Path) -> Result<BrokerConfig, StartError> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let folder = folder.display().to_string();
    let ours = [
        ("brokerName", "testkit"),
        ("brokerIP1", LOOPBACK),
        ("bindAddress", LOOPBACK),
        ("listenPort", "0"),
        ("storePathRootDir", folder.as_str()),
    ];
    // Later ones win.
    let all = SETTINGS.iter().copied().map(owned).chain(settings).chain(ours.map(owned));
    Ok(BrokerConfig::load(None, [], all)?.config)
}
