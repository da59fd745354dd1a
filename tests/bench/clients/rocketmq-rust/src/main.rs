//! rocketmq-client-rust as its README says how to use it: `WORKLOAD --name value ..`, one line of JSON. `run` says what the workloads are.

use std::error::Error;
use std::sync::Arc;

use bench_common::{Arguments, Bodies, Tally, sending};
use rocketmq_client_rust::{
    ClientResult, ClientRuntime, ClientRuntimeConfig, ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus,
    DefaultMQProducer, DefaultMQPushConsumer, MQPushConsumer, MessageListenerConcurrently, SendResult, SendStatus,
};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_single::Message;
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_runtime::RuntimeOwner;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read();
    let owner = RuntimeOwner::new()?;
    let telemetry = TelemetryRuntimeGuard::noop();
    let runtime = ClientRuntime::try_new(
        owner.root_context().component("bench-clients"),
        ClientRuntimeConfig::default(),
        telemetry.handle(),
    )?;
    let line = owner.block_on(async {
        let line = match arguments.workload() {
            "send" | "auto" | "batch" => produce(&runtime, &arguments).await,
            "consume" => consume(&runtime, &arguments).await,
            other => panic!("no workload {other}"),
        };
        runtime.shutdown().await;
        line
    })?;
    println!("{line}");
    owner.shutdown_runtime_blocking()?;
    Ok(())
}

async fn produce(runtime: &Arc<ClientRuntime>, arguments: &Arguments) -> ClientResult<Value> {
    let workload = arguments.workload();
    let mut producer = DefaultMQProducer::builder(Arc::clone(runtime))
        .producer_group("bench_clients")
        .name_server_addr(arguments.text("namesrv"))
        .auto_batch(workload == "auto")
        .build();
    if workload == "auto" {
        // Without it, `auto_batch` has no effect.
        producer.init_produce_accumulator();
    }
    producer.start().await?;
    let shared = Arc::new(producer);
    let (topic, bodies) = (arguments.text("topic").to_owned(), Arc::new(Bodies::new(arguments.count("bytes"))));
    let line = if workload == "batch" {
        let (count, producer) = (arguments.count("batch"), Arc::clone(&shared));
        let call = move || {
            let producer = Arc::clone(&producer);
            let messages: Vec<_> = (0..count).map(|_| Message::new_with_vec(topic.as_str(), bodies.next())).collect();
            async move { stored(Some(producer.send_batch(messages).await.map_err(|error| error.to_string())?)) }
        };
        sending(arguments, count, call).await
    } else {
        let producer = Arc::clone(&shared);
        let call = move || {
            let producer = Arc::clone(&producer);
            let message = Message::new_with_vec(topic.as_str(), bodies.next());
            async move { stored(producer.send(message).await.map_err(|error| error.to_string())?) }
        };
        sending(arguments, 1, call).await
    };
    if let Some(mut producer) = Arc::into_inner(shared) {
        producer.shutdown().await;
    }
    Ok(line)
}

fn stored(result: Option<SendResult>) -> Result<(), String> {
    match result {
        Some(result) if result.send_status == SendStatus::SendOk => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

struct Listener(Arc<Tally>);

impl MessageListenerConcurrently for Listener {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        _context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        for message in messages {
            self.0.note(&message.body().unwrap_or_default());
        }
        Ok(ConsumeConcurrentlyStatus::ConsumeSuccess)
    }
}

async fn consume(runtime: &Arc<ClientRuntime>, arguments: &Arguments) -> ClientResult<Value> {
    let tally = Arc::new(Tally::new(arguments));
    let mut consumer = DefaultMQPushConsumer::builder(Arc::clone(runtime))
        .consumer_group(arguments.text("group"))
        .name_server_addr(arguments.text("namesrv"))
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .build();
    consumer.subscribe(arguments.text("topic"), "*").await?;
    consumer.register_message_listener_concurrently(Listener(Arc::clone(&tally)));
    consumer.start().await?;
    tally.all(arguments).await;
    consumer.shutdown().await;
    Ok(tally.line())
}
