//! See [`escrowmq_examples::order_service`].

use escrowmq_examples::graceful::ended;
use escrowmq_examples::order_service::Shop;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (arguments, client, pool) = escrowmq_examples::begin().await?;
    let shop = Shop::start(&client, pool).await?;
    let listener = tokio::net::TcpListener::bind(&arguments.listen).await?;
    println!("orders are taken at http://{}/orders", listener.local_addr()?);
    axum::serve(listener, shop.router()).with_graceful_shutdown(async { drop(ended().await) }).await?;
    shop.shutdown().await;
    client.shutdown().await;
    Ok(())
}
