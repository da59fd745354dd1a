//! `bench e2e`: how long a message takes from its intended send to its receipt by a consumer that waits for it.

use std::sync::Arc;

use anyhow::bail;
use serde_json::json;

use super::conduct::{Length, timing};
use super::consume::split;
use super::engine::Peer;
use super::link::Link;
use super::options::{Common, Load};
use super::pace::Pace;
use super::puller::{Asking, Puller};
use super::report::{Counted, Object, measurement};
use super::sender::{Letters, STAMP_BYTES, Sender, Work};
use super::session::Session;
use super::target::Topic;

/// Messages per second unless told otherwise.
const RATE: f64 = 2000.0;

/// Arguments of `bench e2e`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    load: Load,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Object> {
    let load = Load { rate: arguments.load.rate.or(Some(RATE)), ..arguments.load.clone() };
    load.check()?;
    let common = &arguments.common;
    if common.size < STAMP_BYTES {
        bail!("--size is at least {STAMP_BYTES}: each message carries its time");
    }
    if common.threads != 1 {
        bail!("sending and receiving share one thread, and one clock");
    }
    let mut session = Session::open(common).await?;
    let topic = session.target.topic(common, "e2e").await?;
    let result = measure(&mut session, &topic, &load).await;
    session.finish("e2e", &topic, Some(&load), result).await
}

async fn measure(session: &mut Session<'_>, topic: &Topic, load: &Load) -> anyhow::Result<Object> {
    let common = session.common;
    let (encoding, run) = (common.header.encoding(), session.run);
    let links = session.connect(topic, common.connections)?;
    let extents = session.target.extents(topic).await?;
    let asking = Asking { group: &common.group, topic: &topic.name, encoding, batch: 32, live_run: Some(run) };
    let mut peers = Vec::new();
    for (broker, queues) in split(&extents, session.target.brokers().len(), common.connections) {
        let link = Link::connect(&session.target.brokers()[broker])?.unblocked()?;
        let queues: Vec<_> = queues.iter().map(|extent| (extent.queue, extent.max, None)).collect();
        peers.push((link, Peer::Puller(Puller::new(asking, &queues))));
    }
    let length = match load.count {
        Some(count) => Length::Count(count),
        None => Length::Window { warmup: load.warmup, seconds: load.seconds },
    };
    let times = timing(length);
    let count = links.len();
    for (nth, (link, broker)) in links.into_iter().enumerate() {
        let names = (common.group.as_str(), topic.name.as_str());
        let letters = Letters::new(Work::Send, names, &topic.queues[broker], common.size, encoding, run);
        let pace = load.rate.map(|rate| Pace::new(rate, times.start, nth, count));
        peers.push((link, Peer::Sender(Sender::new(Arc::new(letters), nth, load.in_flight, pace))));
    }
    let outcome = session.conduct(vec![peers], times, length, "e2e", None).await?;

    let mut object = measurement(&outcome, Counted::Acknowledged, &session.watched, 1);
    let send_latency = object.insert("latency_ms".to_owned(), outcome.tally.receipts.json());
    object.insert("send_latency_ms".to_owned(), json!(send_latency));
    object.insert("received".to_owned(), json!(outcome.tally.received));
    object.insert("disordered".to_owned(), json!(outcome.tally.disordered));
    if outcome.tally.received == 0 && !outcome.is_interrupted {
        bail!("no message was received");
    }
    let missing = outcome.tally.acknowledged.saturating_sub(outcome.tally.received);
    if missing > 0 {
        object.insert("notes".to_owned(), json!([format!("{missing} acknowledged messages were not received")]));
    }
    Ok(object)
}
