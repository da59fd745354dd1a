//! Producers: single messages, batches of the caller's, batches of the client's.

use std::sync::Arc;

use bench_common::{Arguments, Bodies, sending};
use escrowmq_client::{BatchingProducer, Client, Message, Producer, SendError};
use serde_json::{Value, json};
use tokio::task::JoinSet;

async fn start(client: &Client) -> Producer {
    client.producer("bench_clients").start().await.expect("a producer")
}

async fn start_batching(client: &Client) -> BatchingProducer {
    start(client).await.batching().start().expect("good settings")
}

/// The topic, and bodies for it.
fn messages(arguments: &Arguments) -> (Arc<str>, Arc<Bodies>) {
    (arguments.text("topic").into(), Arc::new(Bodies::new(arguments.count("bytes"))))
}

/// Each call sends a message.
pub(crate) async fn send(client: &Client, arguments: &Arguments) -> Value {
    let (producer, (topic, bodies)) = (start(client).await, messages(arguments));
    let call = move || {
        let (producer, message) = (producer.clone(), Message::new(Arc::clone(&topic), bodies.next()));
        async move { producer.send(message).await.map(drop) }
    };
    sending(arguments, 1, call).await
}

/// Each call sends `--batch` messages together.
pub(crate) async fn batch(client: &Client, arguments: &Arguments) -> Value {
    let (producer, (topic, bodies)) = (start(client).await, messages(arguments));
    let count = arguments.count("batch");
    let call = move || {
        let producer = producer.clone();
        let messages = (0..count).map(|_| Message::new(Arc::clone(&topic), bodies.next())).collect();
        async move { producer.send_batch(messages).await.map(drop) }
    };
    sending(arguments, count, call).await
}

/// Each call gives the batching producer a message and awaits its receipt.
pub(crate) async fn auto(client: &Client, arguments: &Arguments) -> Value {
    let (producer, (topic, bodies)) = (start_batching(client).await, messages(arguments));
    let call = move || {
        let (producer, message) = (producer.clone(), Message::new(Arc::clone(&topic), bodies.next()));
        async move { enqueue(&producer, message).await }
    };
    sending(arguments, 1, call).await
}

/// Sends `--messages`, numbered from 0, for consumers.
pub(crate) async fn fill(client: &Client, arguments: &Arguments) -> Value {
    let (producer, (topic, bodies)) = (start_batching(client).await, messages(arguments));
    let most = arguments.count("messages");
    let mut callers = JoinSet::new();
    for _ in 0..arguments.count("in-flight") {
        let (producer, topic, bodies) = (producer.clone(), Arc::clone(&topic), Arc::clone(&bodies));
        callers.spawn(async move {
            while let Some(body) = bodies.next_of(most as u64) {
                enqueue(&producer, Message::new(Arc::clone(&topic), body)).await.expect("a message");
            }
        });
    }
    callers.join_all().await;
    json!({ "messages": most, "acknowledged": most })
}

async fn enqueue(producer: &BatchingProducer, message: Message) -> Result<(), SendError> {
    producer.enqueue(message).await?.await.map(drop)
}
