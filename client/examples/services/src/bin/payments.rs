//! See [`escrowmq_examples::payments`].

use escrowmq_client::Outbox;
use escrowmq_examples::{graceful, payments};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (_, client, pool) = escrowmq_examples::begin().await?;
    let outbox = Outbox::new(pool.clone());
    outbox.create_tables().await?;
    let producer = client.producer("payments").topics([payments::TOPIC]).start().await?;
    let relay = outbox.relay(&producer).start()?;
    let _consumer = payments::start(&client, pool, outbox).await?;
    println!("payments are made");
    graceful::ended().await?;
    relay.shutdown().await;
    client.shutdown().await;
    Ok(())
}
