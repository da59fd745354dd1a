//! Sends all the time, as many in a second as were asked for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use escrowmq_client::{Client, Message, Producer};
use escrowmq_common::clock;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::members::{Cluster, GROUPS};
use crate::processes::{DEADLINE, until};

const TOPIC: &str = "Cluster";
const QUEUES: u32 = 4;

/// Senders, each with its part of the rate: one that waits for a dead leader does not hold up the others.
const SENDERS: u32 = 8;

/// How the sends went so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sends {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// The longest time from a send to its acknowledgement, or between two acknowledgements.
    pub(super) longest_wait: Duration,
}

#[derive(Debug)]
struct Tally {
    sends: Sends,
    last: Duration,
}

/// The senders. They end with the process.
#[derive(Debug)]
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    _client: Client,
}

impl Load {
    /// Makes the topic on both groups and begins.
    pub(super) async fn start(cluster: &Cluster, rate: u32) -> anyhow::Result<Load> {
        let client = Client::builder(cluster.namesrv()).connect().await?;
        let admin = client.admin();
        // A leader serves before the nameservers know of it.
        let all = GROUPS.len() * QUEUES as usize;
        until(DEADLINE, "route to the topic", async || {
            if admin.create_topic(TOPIC, QUEUES).await.is_err() {
                return Ok(None);
            }
            Ok(admin.queues(TOPIC).await.ok().filter(|queues| queues.len() == all))
        })
        .await?;
        let producer = client.producer("cluster").start().await.context("the sender")?;
        let tally = Arc::new(Mutex::new(Tally { sends: Sends::default(), last: clock::monotonic() }));
        if rate > 0 {
            let every = Duration::from_secs(1) * SENDERS / rate;
            for _ in 0..SENDERS {
                Tasks::new().spawn("sender", send(producer.clone(), Arc::clone(&tally), every));
            }
        }
        Ok(Load { tally, _client: client })
    }

    /// How it goes.
    pub(super) fn look(&self) -> Sends {
        self.tally.lock().sends
    }
}

async fn send(producer: Producer, tally: Arc<Mutex<Tally>>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = clock::monotonic();
        let sent = producer.send(Message::new(TOPIC, "a message")).await;
        let now = clock::monotonic();
        let mut tally = tally.lock();
        match sent {
            Ok(_) => {
                let silence = now.saturating_sub(tally.last);
                tally.sends.acknowledged += 1;
                tally.sends.longest_wait = tally.sends.longest_wait.max(silence).max(now.saturating_sub(began));
                tally.last = now;
            }
            Err(error) if error.outcome_unknown() => tally.sends.unknown += 1,
            Err(_) => tally.sends.refused += 1,
        }
    }
}
