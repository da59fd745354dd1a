//! Whole services built with the SDK, small enough to be read at once. Each is a module with what it does, and a program that runs it:
//!
//! | module and program | what it shows |
//! | --- | --- |
//! | [`order_service`] | orders over HTTP, written to PostgreSQL together with their messages: by the outbox, and by the barrier |
//! | [`payments`] | a consumer whose payments happen once, and whose answer leaves by the outbox of the same transaction |
//! | [`saga`] | a journey of two bookings that is booked as a whole or cancelled: each step a state in the database, the first one with a check-back |
//! | [`migration`] | an application that leaves its own table of messages *being sent* for the outbox, without losing one |
//! | [`graceful`] | the end of a process on a signal: what runs is finished, offsets are committed |
//!
//! They need a nameserver and a broker (`bin/escrowmq standalone`) and a PostgreSQL database:
//!
//! ```text
//! cargo run --release -p escrowmq-examples --bin order_service -- --database postgres://shop@localhost/shop
//! ```

pub mod graceful;
pub mod migration;
pub mod order_service;
pub mod payments;
pub mod saga;

use clap::Parser;
use escrowmq_client::Client;
use sqlx::PgPool;

/// The arguments of each program.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    pub namesrv: String,
    /// The database.
    #[arg(long, default_value = "postgres://localhost/shop")]
    pub database: String,
    /// Where to listen for HTTP, if the service does.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: String,
}

/// Reads the arguments, and connects to the cluster and the database. Each program begins with it.
///
/// # Errors
///
/// Either of them cannot be reached.
pub async fn begin() -> anyhow::Result<(Arguments, Client, PgPool)> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let pool = PgPool::connect(&arguments.database).await?;
    Ok((arguments, client, pool))
}
