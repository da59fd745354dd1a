//! Sees what any consumer could see, at any moment.

use std::time::Duration;

use anyhow::Context as _;
use escrowmq_client::{Admin, Client, MessageExt, MessageQueue, PullConsumer};

use crate::processes::DEADLINE;

/// The group in whose name it reads; it stores no offsets.
const GROUP: &str = "demo-observer";

/// Longest wait of one poll for messages that the queues' ends say are there.
const POLL: Duration = Duration::from_millis(500);

/// Reads all queues of a topic from their beginning to their end.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    admin: Admin,
    pull: PullConsumer,
    queues: Vec<MessageQueue>,
}

/// The visible messages, of all queues.
#[derive(Debug)]
pub(super) struct Visible {
    messages: Vec<MessageExt>,
}

impl Observer {
    /// An observer of `topic`.
    pub(super) async fn start(client: &Client, topic: &str) -> anyhow::Result<Observer> {
        let pull = client.pull_consumer(GROUP).start().await?;
        let queues = pull.queues(topic).await?;
        pull.assign(queues.clone()).await?;
        Ok(Observer { admin: client.admin(), pull, queues })
    }

    /// The number that the next message of the queue will get.
    pub(super) async fn end_of(&self, queue: &MessageQueue) -> anyhow::Result<i64> {
        Ok(self.admin.max_offset(queue).await?)
    }

    /// Pulls every queue from 0 to where it ends now. One caller at a time: positions are shared.
    pub(super) async fn look(&self) -> anyhow::Result<Visible> {
        let reading = async {
            let mut ends = Vec::new();
            for queue in &self.queues {
                ends.push((queue, self.end_of(queue).await?));
                self.pull.seek(queue, 0);
            }
            let mut messages = Vec::new();
            while ends.iter().any(|(queue, end)| self.pull.position(queue).is_some_and(|position| position < *end)) {
                messages.extend(self.pull.poll(POLL).await?);
            }
            // The ends say nothing is there; a pull must find nothing more either.
            messages.extend(self.pull.poll(Duration::ZERO).await?);
            Ok::<_, anyhow::Error>(Visible { messages })
        };
        tokio::time::timeout(DEADLINE, reading).await.context("reading all queues took too long")?
    }
}

impl Visible {
    /// Whether a message of this transaction is among them.
    pub(super) fn has(&self, transaction_id: &str) -> bool {
        self.messages.iter().any(|message| message.transaction_id() == Some(transaction_id))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.messages.len()
    }

    /// Their bodies, sorted.
    pub(super) fn bodies(&self) -> Vec<String> {
        let bodies = self.messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned());
        let mut bodies: Vec<String> = bodies.collect();
        bodies.sort();
        bodies
    }
}
