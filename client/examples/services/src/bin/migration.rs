//! See [`escrowmq_examples::migration`].

use escrowmq_client::Outbox;
use escrowmq_examples::migration::move_rows;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (_, client, pool) = escrowmq_examples::begin().await?;
    let outbox = Outbox::new(pool.clone());
    outbox.create_tables().await?;
    let mut all = 0;
    loop {
        let moved = move_rows(&pool, &outbox, 500).await?;
        if moved == 0 {
            break;
        }
        all += moved;
        println!("{all} messages moved");
    }
    client.shutdown().await;
    Ok(())
}
