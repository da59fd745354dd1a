//! Request-reply: one process answers, another asks.
//!
//! ```text
//! cargo run -p escrowmq-client --example request_reply -- --topic Prices answer
//! cargo run -p escrowmq-client --example request_reply -- --topic Prices ask apples pears
//! ```

use std::time::Duration;

use clap::{Parser, Subcommand};
use escrowmq_client::{Client, Message, MessageExt, NoReply};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where requests are sent to.
    #[arg(long, default_value = "Prices")]
    topic: String,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answers requests until Ctrl-C.
    Answer,
    /// Makes one request for each word.
    Ask {
        words: Vec<String>,
        /// How long each waits for its reply, in seconds.
        #[arg(long, default_value_t = 5)]
        patience: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let producer = client.producer("example_request_reply").start().await?;
    match arguments.role {
        Role::Answer => {
            let consumer = client.push_consumer("example_answers").subscribe(&arguments.topic, "*");
            let consumer = consumer.start(move |request: MessageExt| {
                let producer = producer.clone();
                async move {
                    if !request.wants_reply() {
                        return Ok(());
                    }
                    let word = String::from_utf8_lossy(request.body()).into_owned();
                    println!("asked for {word}");
                    producer.reply(&request, format!("{word}: {} cents", word.len() * 10)).await
                }
            });
            let _consumer = consumer.await?;
            tokio::signal::ctrl_c().await?;
        }
        Role::Ask { words, patience } => {
            for word in words {
                let request = Message::new(arguments.topic.as_str(), word);
                match producer.request(request, Duration::from_secs(patience)).await {
                    Ok(reply) => println!("{}", String::from_utf8_lossy(reply.body())),
                    // Asking again would be safe here, and is not where an answer has side effects.
                    Err(error @ NoReply::TimedOut { .. }) => println!("perhaps handled: {error}"),
                    Err(error) => println!("not asked: {error}"),
                }
            }
        }
    }
    client.shutdown().await;
    Ok(())
}
