//! Telling the nameservers which topics are here.
//!
//! ```text
//!  topic changed, period over, [`Registration::now`] --wake--> one lane per nameserver --REGISTER_BROKER--> nameserver
//! ```
//!
//! Promises: each nameserver has a lane of its own, so one that is down delays no other; a lane registers at once after
//! a change, and then only what changed; everything goes out again every `registerNameServerPeriod`, as soon as a
//! nameserver is back whose connection was lost, and after a failure. However many topics there are, no registration is
//! longer than a frame may be: it goes out in parts. A new standing in the group (another term, or another id) goes out
//! at once, and in full: another member may have told something else meanwhile. Lanes unregister when the broker stops.
//!
//! Left to others: when this broker may be registered at all (the start-up runs this only once it serves).

mod lane;
mod table;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::body::DataVersion;
use escrowmq_common::clock;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, NoRequests, Remote, RemoteOptions, Service};
use escrowmq_common::task::{Shutdown, Tasks};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use table::topic_config;

use crate::config::CurrentConfig;
use crate::metrics::Metrics;
use crate::shard::Shard;
use lane::{Lane, Progress};

/// Longest time that one nameserver gets for an answer, and that [`Registration::now`] waits.
const CALL_TIME: Duration = Duration::from_secs(3);

/// Longest time that [`Registration::told`] waits: a client waits for its caller, and gives up after three seconds.
const TOLD_TIME: Duration = Duration::from_secs(1);

/// What this broker is in its group, which nameservers compare with what others say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The term of the leadership that it knows of. Nameservers refuse a leader of an older one.
    pub term: u64,
    /// 0 while it leads, so that clients send to it.
    pub id: i64,
}

impl Standing {
    /// The leader of this term.
    pub(crate) fn leader(term: u64) -> Self {
        Self { term, id: 0 }
    }
}

/// The handle: asks for a registration, and waits for it.
pub(crate) struct Registration {
    shard: Shard,
    config: CurrentConfig,
    metrics: Arc<Metrics>,
    /// Where clients connect, as it was set: it may be a name.
    address: String,
    /// The same as numbers.
    store_host: SocketAddr,
    remote: Remote,
    /// What this broker is in its group.
    standing: Mutex<Standing>,
    /// Changes that are no topic changes: the broker's permission, its standing.
    others: AtomicU64,
    /// When this process began to count, in milliseconds since 1970: its versions differ from those of earlier ones.
    started_at: i64,
    /// Wakes the lanes.
    wake: watch::Sender<()>,
    /// Tells the lanes that some connection has ended.
    lost: watch::Sender<()>,
    /// How far each lane is, by address.
    lanes: Mutex<HashMap<String, watch::Receiver<Progress>>>,
    /// Whether the lanes of all configured nameservers are there.
    started: watch::Sender<bool>,
}

/// The broker's end of its connections to nameservers.
struct Line {
    lost: watch::Sender<()>,
}

impl Service for Line {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        NoRequests.on_request(connection, request);
    }

    fn on_close(&self, _: &Arc<Connection>) {
        self.lost.send_replace(());
    }
}

impl Registration {
    /// The handle for the topics of this shard, which clients find at `address`. Nothing is registered before
    /// [`run`](Self::run).
    pub(crate) fn new(
        shard: Shard,
        config: CurrentConfig,
        metrics: Arc<Metrics>,
        address: String,
        store_host: SocketAddr,
        standing: Standing,
    ) -> Self {
        let lost = watch::Sender::new(());
        Self {
            shard,
            config,
            metrics,
            address,
            store_host,
            remote: Remote::new(RemoteOptions::default(), Arc::new(Line { lost: lost.clone() })),
            lost,
            standing: Mutex::new(standing),
            others: AtomicU64::new(0),
            started_at: clock::wall_ms(),
            wake: watch::Sender::new(()),
            lanes: Mutex::default(),
            started: watch::Sender::new(false),
        }
    }

    /// This broker has another standing in its group from now on. Nameservers hear of it at once.
    pub(crate) fn stands(&self, standing: Standing) {
        let before = std::mem::replace(&mut *self.standing.lock(), standing);
        if before != standing {
            self.changed();
        }
    }

    /// The number by which nameservers know this broker: 0 while it leads.
    pub(crate) fn id(&self) -> i64 {
        self.standing().id
    }

    /// What this broker is in its group now.
    fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    /// Something besides topics changed that nameservers must hear of.
    pub(crate) fn changed(&self) {
        self.others.fetch_add(1, Ordering::AcqRel);
        self.wake.send_replace(());
    }

    /// Grows with everything that nameservers must hear of; never 0.
    fn version(&self) -> u64 {
        self.shard.topics().version() + self.others.load(Ordering::Acquire) + 1
    }

    /// Names the state of this broker's topics now.
    pub(crate) fn data_version(&self) -> DataVersion {
        self.data_version_at(self.version(), self.standing())
    }

    /// Names a state of this broker's topics: the leader's term, the start of this process, and the changes since.
    fn data_version_at(&self, version: u64, standing: Standing) -> DataVersion {
        DataVersion {
            counter: version.cast_signed(),
            state_version: standing.term.cast_signed(),
            timestamp: self.started_at,
        }
    }

    /// Registers what is not registered yet, and waits until each nameserver that answered last time has answered
    /// again, or 3 seconds have passed. Without any nameserver it returns at once.
    pub(crate) async fn now(&self) {
        let _ = timeout(CALL_TIME, self.registered()).await;
    }

    /// Waits until the nameservers know the topics that there are now: those that answered last time, and for a second at
    /// most. Not while the broker only starts.
    pub(crate) async fn told(&self) {
        if *self.started.borrow() {
            let _ = timeout(TOLD_TIME, self.registered()).await;
        }
    }

    async fn registered(&self) {
        let wanted = self.version();
        let mut started = self.started.subscribe();
        // An error would mean that this handle is gone.
        let _ = started.wait_for(|started| *started).await;
        let lanes: Vec<_> = self.lanes.lock().values().cloned().collect();
        self.wake.send_replace(());
        let rounds = lanes.into_iter().map(|mut lane| async move {
            // An error means that the lane has ended: its nameserver is no longer ours.
            let _ = lane.wait_for(|progress| progress.failing || progress.version >= Some(wanted)).await;
        });
        join_all(rounds).await;
    }

    /// Keeps this broker registered until `shutdown`, then unregisters it.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let tasks = Tasks::new();
        let mut running: HashMap<String, Shutdown> = HashMap::new();
        let mut woken = self.wake.subscribe();
        loop {
            // The list may be changed in a running broker.
            let wanted = self.config.load().namesrv_addr.clone();
            running.retain(|address, lane| {
                let stays = wanted.contains(address);
                if !stays {
                    lane.cancel();
                    self.lanes.lock().remove(address);
                }
                stays
            });
            for address in wanted {
                if let Entry::Vacant(free) = running.entry(address) {
                    let (progress, seen) = watch::channel(Progress::default());
                    let stop = shutdown.child();
                    let lane = Lane::new(Arc::clone(&self), free.key().clone(), progress);
                    tasks.spawn("registration", lane.run(stop.clone()));
                    self.lanes.lock().insert(free.key().clone(), seen);
                    free.insert(stop);
                }
            }
            self.started.send_replace(true);
            let period = self.config.load().register_period;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.shard.signals().topics.notified() => { self.wake.send_replace(()); }
                _ = woken.changed() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
        tasks.join().await;
        self.lanes.lock().clear();
        self.remote.close().await;
    }
}
