//! See [`escrowmq_examples::saga`]: both booking services and ten journeys for seven flights and five hotel rooms.

use std::time::Duration;

use escrowmq_client::Outbox;
use escrowmq_examples::saga::{ANSWERS, Journeys, ORDERS, Service, State, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (_, client, pool) = escrowmq_examples::begin().await?;
    let outbox = Outbox::new(pool.clone());
    outbox.create_tables().await?;
    let producer = client.producer("saga").topics([ORDERS, ANSWERS]).start().await?;
    let relay = outbox.relay(&producer).start()?;
    let _flights = serve(&client, pool.clone(), outbox.clone(), Service::Flight, 7).await?;
    let _hotels = serve(&client, pool.clone(), outbox.clone(), Service::Hotel, 5).await?;
    let journeys = Journeys::start(&client, pool, outbox).await?;
    for number in 1..=10 {
        journeys.begin(number).await?;
    }
    for number in 1..=10 {
        loop {
            match journeys.state(number).await? {
                Some(state @ (State::Booked | State::Cancelled)) => break println!("journey {number}: {state:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    relay.shutdown().await;
    client.shutdown().await;
    Ok(())
}
