//! The parts of a broker that only a leader uses, on a simulated node: its office, the newest offsets of consumers, check-backs
//! and timers. They are the product's own, and so is the order in which they come and go (`start/leader.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock::Clock;
use escrowmq_common::frame::{Frame, FrameDecoder, Language};
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::Shutdown;
use tokio::sync::watch;

use super::super::cuts::act::PRODUCERS;
use super::consumers::GROUPS;
use crate::client_registry::{Beat, Client, ClientRegistry};
use crate::config::{BrokerConfig, CurrentConfig};
use crate::delivery::Offsets;
use crate::executor::Blocking;
use crate::raft::{Leadership, Office};
use crate::schedule::Timers;
use crate::shard::{Admission, Command, Shard};
use crate::start::leader::{self, Duties};
use crate::steady_clock::SteadyClock;
use crate::storage::Storage;
use crate::terms::{GroupSettings, encode_cold};
use crate::transaction::Transactions;
use crate::transaction::runner::Runner;

/// Halves are checked as soon as that, and then as often.
pub(super) const FIRST_CHECK: Duration = Duration::from_millis(1500);
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// An instance of the producers, connected to one node.
pub(super) struct Instance {
    pub(super) connection: Arc<Connection>,
    client: Arc<Client>,
}

impl Instance {
    fn new(nth: u16, name: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + nth));
        let client = Client { id: name.into(), language: Language::RUST, version: 0 };
        Self { connection: Arc::new(Connection::unserved(address)), client: Arc::new(client) }
    }

    /// The requests that the node has sent to it since the last look.
    pub(super) fn requests(&self) -> Result<Vec<Frame>, String> {
        let mut sent = self.connection.take_sent();
        let mut frames = Vec::new();
        while let Some(frame) = FrameDecoder::default().next(&mut sent).map_err(|error| error.to_string())? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

/// See the module. It ends with the tasks of its shard.
pub(super) struct Desk {
    pub(super) office: Arc<Office>,
    pub(super) offsets: Arc<Offsets>,
    pub(super) transactions: Arc<Transactions>,
    pub(super) instances: Vec<Instance>,
    /// What `leader::run` waits for. Two who wait for the member's own are woken in a random order.
    leadership: watch::Sender<Leadership>,
}

impl Desk {
    /// Sets it up on a shard that has started, and leads whenever its member does.
    pub(super) fn open(storage: &Storage, clock: &Clock) -> Self {
        let shard = storage.shard.clone();
        let office = Arc::new(Office::new(Arc::clone(storage.lease())));
        let offsets = Arc::new(Offsets::new(Arc::clone(&office)));
        let (transactions, clients) = (Arc::<Transactions>::default(), Arc::new(ClientRegistry::new(clock.clone())));
        // Halves name the first one as their sender.
        let instances: Vec<Instance> =
            ["client", "other"].iter().zip(0..).map(|(name, nth)| Instance::new(nth, name)).collect();
        for Instance { connection, client } in &instances {
            clients.heartbeat(connection, client, &Beat { producers: vec![PRODUCERS], ..Beat::default() });
        }
        let config = BrokerConfig {
            transaction_time_out: FIRST_CHECK,
            transaction_check_interval: CHECK_EVERY,
            transaction_check_max: 1000,
            ..BrokerConfig::default()
        };
        let duties = Leader {
            shard: shard.clone(),
            time: Arc::clone(&storage.time),
            clock: clock.clone(),
            office: Arc::clone(&office),
            offsets: Arc::clone(&offsets),
            transactions: Arc::clone(&transactions),
            clients,
            config: CurrentConfig::new(config),
        };
        let (executor, stop) = (shard.executor().clone(), Shutdown::new());
        let (leadership, told) = watch::channel(*storage.leadership().borrow());
        let leads = leader::run(Arc::new(duties), Arc::clone(&office), told, stop.clone());
        drop(executor.spawn(leads));
        let keeper = Arc::clone(&offsets);
        drop(executor.spawn(async move { keeper.run(&shard, stop).await }));
        Self { office, offsets, transactions, instances, leadership }
    }

    /// Tells how the member stands.
    pub(super) fn tell(&self, seen: Leadership) {
        self.leadership.send_if_modified(|told| std::mem::replace(told, seen) != seen);
    }
}

/// The duties of a simulated broker.
struct Leader {
    shard: Shard,
    time: Arc<SteadyClock>,
    clock: Clock,
    office: Arc<Office>,
    offsets: Arc<Offsets>,
    transactions: Arc<Transactions>,
    clients: Arc<ClientRegistry>,
    config: CurrentConfig,
}

impl Duties for Leader {
    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn stands(&self, _seen: Leadership) {}

    fn forget(&self) {
        self.offsets.forget();
    }

    /// As a broker makes its topics: the groups of the consumers.
    async fn prepare(&self) -> bool {
        for group in GROUPS {
            if self.shard.groups().get(group).is_none() {
                let settings = encode_cold(&GroupSettings::new(group));
                if self.shard.propose(&Command::PutGroup(&settings), Admission::Reserved).await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    fn work(&self, shutdown: Shutdown) -> impl Future<Output = ()> + Send + 'static {
        let runner = Runner {
            shard: self.shard.clone(),
            clients: Arc::clone(&self.clients),
            transactions: Arc::clone(&self.transactions),
            config: self.config.clone(),
            time: Arc::clone(&self.time),
            clock: self.clock.clone(),
            office: Arc::clone(&self.office),
            blocking: Blocking::inline(),
            store_host: SocketAddr::from(([127, 0, 0, 1], 10_911)),
        };
        let timers = Timers {
            shard: self.shard.clone(),
            retention: Arc::default(),
            time: Arc::clone(&self.time),
            blocking: Blocking::inline(),
        };
        let executor = self.shard.executor();
        let (asking, firing) = (executor.spawn(runner.run(shutdown.clone())), executor.spawn(timers.run(shutdown)));
        async move {
            // A panic has closed the latch, and the run fails.
            let _ = (asking.await, firing.await);
        }
    }

    fn release(&self) {}

    fn is_alone(&self) -> bool {
        false
    }
}
