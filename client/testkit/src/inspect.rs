//! Looks at a cluster as any client could: what consumers can read, and which transactions are undecided. Each look has a client of its
//! own, which knows nothing of before a restart.

use std::time::Duration;

use escrowmq_client::{Admin, Client, MessageExt, RequestError, StartError, TransactionInfo, TransactionQuery};

/// The consumer group in whose name it reads. It stores no offsets.
const GROUP: &str = "escrowmq-testkit";
/// Longest wait of one poll for messages that the queues' ends say are there.
const POLL: Duration = Duration::from_millis(500);

/// Why something could not be seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("no broker is registered: was it killed and not restarted?")]
    NoBroker,
}

/// All messages of a topic that consumers can read now, queue by queue; none if there is no such topic.
pub(crate) async fn messages(nameserver: String, topic: String) -> Result<Vec<MessageExt>, InspectError> {
    let client = Client::builder(nameserver).connect().await?;
    let read = read(&client, &topic).await;
    client.shutdown().await;
    read
}

/// All undecided transactions, oldest first: the parked ones, or those that are still asked about.
pub(crate) async fn transactions(nameserver: String, parked: bool) -> Result<Vec<TransactionInfo>, InspectError> {
    let client = Client::builder(nameserver).connect().await?;
    let listed = list(&client.admin(), parked).await;
    client.shutdown().await;
    listed
}

async fn read(client: &Client, topic: &str) -> Result<Vec<MessageExt>, InspectError> {
    let admin = client.admin();
    let queues = match admin.queues(topic).await {
        Ok(queues) => queues,
        Err(RequestError::NoRoute { .. }) if !admin.masters().await?.is_empty() => return Ok(Vec::new()),
        Err(RequestError::NoRoute { .. }) => return Err(InspectError::NoBroker),
        Err(error) => return Err(error.into()),
    };
    let pull = client.pull_consumer(GROUP).start().await?;
    pull.assign(queues.clone()).await?;
    let mut ends = Vec::new();
    for queue in &queues {
        ends.push((queue, admin.max_offset(queue).await?));
        pull.seek(queue, admin.min_offset(queue).await?);
    }
    let mut messages = Vec::new();
    while ends.iter().any(|(queue, end)| pull.position(queue).is_some_and(|position| position < *end)) {
        messages.extend(pull.poll(POLL).await?);
    }
    messages.sort_by_key(|message| (message.queue().id(), message.queue_offset()));
    Ok(messages)
}

async fn list(admin: &Admin, parked: bool) -> Result<Vec<TransactionInfo>, InspectError> {
    let (masters, mut found) = (admin.masters().await?, Vec::new());
    if masters.is_empty() {
        return Err(InspectError::NoBroker);
    }
    for master in masters {
        let mut query = TransactionQuery { parked: Some(parked), ..TransactionQuery::default() };
        loop {
            let page = admin.list_transactions(&master.addr, &query).await?;
            found.extend(page.transactions);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    }
    Ok(found)
}
