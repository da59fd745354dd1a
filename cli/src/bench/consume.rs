//! `bench consume`: reads a topic to its end.

use anyhow::bail;
use serde_json::json;

use super::conduct::{Length, deal, timing};
use super::engine::Peer;
use super::options::{Common, Load};
use super::puller::{Asking, Puller};
use super::report::{Counted, Object, measurement, rounded};
use super::sender::Work;
use super::session::Session;
use super::target::{Extent, Topic};

/// Requests under way per connection while the topic is filled.
const FILL_IN_FLIGHT: usize = 32;

/// Arguments of `bench consume`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Number of messages to send first
    #[arg(long)]
    load: Option<u64>,
    /// Most messages per pull
    #[arg(long, default_value_t = 32)]
    batch: u16,
    /// Seconds after which to give up
    #[arg(long, default_value_t = 600.0)]
    limit: f64,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Object> {
    let mut session = Session::open(&arguments.common).await?;
    if arguments.load.is_none() && arguments.common.topic.is_none() {
        bail!("name the topic to read with --topic, or fill a new one with --load");
    }
    if !(0.0..=1e6).contains(&arguments.limit) {
        bail!("--limit is a time in seconds");
    }
    let topic = session.target.topic(&arguments.common, "consume").await?;
    let result = drain(&mut session, &topic, arguments).await;
    session.finish("consume", &topic, None, result).await
}

async fn drain(session: &mut Session<'_>, topic: &Topic, arguments: &Arguments) -> anyhow::Result<Object> {
    let mut filled = None;
    if let Some(count) = arguments.load {
        let load = Load { in_flight: FILL_IN_FLIGHT, seconds: 1.0, warmup: 0.0, rate: None, count: Some(count) };
        filled = Some(session.sends(topic, Work::Send, &load, "filling").await?);
    }
    let extents = session.target.extents(topic).await?;
    let expected: i64 = extents.iter().map(|extent| extent.max - extent.min).sum();
    let asking = Asking {
        group: &arguments.common.group,
        topic: &topic.name,
        encoding: arguments.common.header.encoding(),
        batch: i32::from(arguments.batch.max(1)),
        live_run: None,
    };
    let mut peers = Vec::new();
    for (broker, queues) in split(&extents, session.target.brokers().len(), arguments.common.connections) {
        let link = super::link::Link::connect(&session.target.brokers()[broker])?.unblocked()?;
        let queues: Vec<_> = queues.iter().map(|extent| (extent.queue, extent.min, Some(extent.max))).collect();
        peers.push((link, Peer::Puller(Puller::new(asking, &queues))));
    }
    let length = Length::End { limit: arguments.limit };
    let connections = peers.len();
    let groups = deal(peers, arguments.common.threads);
    let outcome = session.conduct(groups, timing(length), length, "consume", None).await?;

    let threads = arguments.common.threads;
    let mut object = measurement(&outcome, Counted::Received, &session.watched, threads);
    let tally = &outcome.tally;
    let rate = tally.received_bytes as f64 / 1e6 / outcome.elapsed.max(1e-9);
    let latency = object.remove("latency_ms");
    let per_pull = tally.received as f64 / tally.pulls.max(1) as f64;
    object.insert("mb_per_s".to_owned(), json!(rounded(rate, 2)));
    object.insert("pull_latency_ms".to_owned(), json!(latency));
    object.insert("expected".to_owned(), json!(expected));
    object.insert("received".to_owned(), json!(tally.received));
    object.insert("disordered".to_owned(), json!(tally.disordered));
    object.insert("reading_connections".to_owned(), json!(connections));
    object.insert("messages_per_pull".to_owned(), json!(rounded(per_pull, 2)));
    if let Some(filled) = filled {
        object.insert("filled".to_owned(), json!(filled));
    }
    if !outcome.is_interrupted && i64::try_from(tally.received) != Ok(expected) {
        let note = format!("{} of {expected} messages were received", tally.received);
        object.insert("notes".to_owned(), json!([note]));
    }
    Ok(object)
}

/// The queues of each broker over as many connections as there are, or as many as there are queues.
pub(super) fn split(extents: &[Extent], brokers: usize, connections: usize) -> Vec<(usize, Vec<Extent>)> {
    let per_broker = connections.div_ceil(brokers.max(1)).max(1);
    let mut parts = Vec::new();
    for broker in 0..brokers {
        let queues: Vec<Extent> = extents.iter().copied().filter(|extent| extent.broker == broker).collect();
        let groups = deal(queues, per_broker);
        parts.extend(groups.into_iter().filter(|group| !group.is_empty()).map(|group| (broker, group)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_split_over_connections_to_their_broker() {
        let extent = |broker, queue| Extent { broker, queue, min: 0, max: 1 };
        let extents = [extent(0, 0), extent(0, 1), extent(0, 2), extent(1, 0)];
        let parts = split(&extents, 2, 4);
        let short: Vec<(usize, Vec<i32>)> = parts
            .iter()
            .map(|(broker, queues)| (*broker, queues.iter().map(|extent| extent.queue).collect()))
            .collect();
        assert_eq!(short, [(0, vec![0, 2]), (0, vec![1]), (1, vec![0])]);
    }
}
