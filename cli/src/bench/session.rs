//! One command's dealings with its target: connections, topics, and runs of sends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::clock;
use escrowmq_common::signals::Signals;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::conduct::{Conductor, Length, Outcome, deal, timing};
use super::engine::Peer;
use super::link::{Link, heartbeat};
use super::options::{Common, Load};
use super::pace::Pace;
use super::process::Watched;
use super::report::{Counted, Object, measurement};
use super::sender::{Letters, Sender, Work};
use super::target::{Target, Topic};

/// How long one-way commits are waited for after the last one was sent.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks whether they are there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Descriptors for other things than connections.
const OTHER_FILES: u64 = 64;

/// A target and what is needed to work with it.
pub(super) struct Session<'a> {
    pub(super) common: &'a Common,
    pub(super) target: Target,
    pub(super) watched: Watched,
    /// Tells this process's messages from others'.
    pub(super) run: u64,
    signals: Option<Signals>,
    pub(super) is_interrupted: bool,
}

impl<'a> Session<'a> {
    /// Finds the brokers.
    pub(super) async fn open(common: &'a Common) -> anyhow::Result<Session<'a>> {
        common.check()?;
        let watched = Watched::new(&common.pid)?;
        let target = Target::find(common).await?;
        let run = (clock::wall_ms() as u64) << 16 ^ u64::from(std::process::id());
        let signals = Some(Signals::new()?);
        Ok(Session { common, target, watched, run, signals, is_interrupted: false })
    }

    /// One connection for each number, dealt out over those brokers that have the topic: connection and broker.
    pub(super) fn connect(&self, topic: &Topic, count: usize) -> anyhow::Result<Vec<(Link, usize)>> {
        self.target.check(topic)?;
        make_room_for(count)?;
        let serving: Vec<usize> = (0..topic.queues.len()).filter(|at| !topic.queues[*at].is_empty()).collect();
        (0..count)
            .map(|nth| {
                let broker = serving[nth % serving.len()];
                let address = &self.target.brokers()[broker];
                let link = Link::connect(address)?.greet(&self.hello(nth)).with_context(|| address.clone())?;
                Ok((link, broker))
            })
            .collect()
    }

    /// The heartbeat of a producer's connection.
    pub(super) fn hello(&self, nth: usize) -> escrowmq_common::frame::Frame {
        let client = format!("127.0.0.1@bench-{:x}-{nth}", self.run);
        heartbeat(&client, &self.common.group, None, self.common.header.encoding())
    }

    /// Runs these connections; `visible` counts what became visible in the topic.
    pub(super) async fn conduct(
        &mut self,
        groups: Vec<Vec<(Link, Peer)>>,
        times: super::tally::Timing,
        length: Length,
        label: &'static str,
        visible: Option<&Topic>,
    ) -> anyhow::Result<Outcome> {
        let signals = self.signals.take().context("one run after the other")?;
        let visible = visible.map(|topic| (&self.target, topic));
        let mut conductor = Conductor { watched: &self.watched, signals, visible, label };
        let outcome = conductor.run(groups, times, length).await;
        self.signals = Some(conductor.signals);
        if let Ok(outcome) = &outcome {
            self.is_interrupted |= outcome.is_interrupted;
        }
        outcome
    }

    /// Sends to a topic and measures it; what was stored is compared with what was acknowledged.
    pub(super) async fn sends(
        &mut self,
        topic: &Topic,
        work: Work,
        load: &Load,
        label: &'static str,
    ) -> anyhow::Result<Object> {
        self.sends_as(self.common, topic, work, load, label).await
    }

    /// Like [`sends`](Session::sends) with other options.
    pub(super) async fn sends_as(
        &mut self,
        common: &Common,
        topic: &Topic,
        work: Work,
        load: &Load,
        label: &'static str,
    ) -> anyhow::Result<Object> {
        load.check()?;
        let before = self.target.stored(topic).await?;
        let links = self.connect(topic, common.connections)?;
        let encoding = common.header.encoding();
        let letters: Vec<Option<Arc<Letters>>> = topic
            .queues
            .iter()
            .map(|queues| {
                let names = (common.group.as_str(), topic.name.as_str());
                let letters = || Letters::new(work, names, queues, common.size, encoding, self.run);
                (!queues.is_empty()).then(|| Arc::new(letters()))
            })
            .collect();
        let length = match load.count {
            Some(count) => Length::Count(count),
            None => Length::Window { warmup: load.warmup, seconds: load.seconds },
        };
        let times = timing(length);
        let count = links.len();
        let peers = links.into_iter().enumerate().map(|(nth, (link, broker))| {
            let letters = letters[broker].as_ref().expect("connected to brokers with queues");
            let pace = load.rate.map(|rate| Pace::new(rate, times.start, nth, count));
            (link, Peer::Sender(Sender::new(Arc::clone(letters), nth, load.in_flight, pace)))
        });
        let groups = deal(peers.collect(), common.threads);
        let is_transaction = matches!(work, Work::Transaction { .. });
        let outcome = self.conduct(groups, times, length, label, is_transaction.then_some(topic)).await?;
        let expected = if work == Work::Half { 0 } else { outcome.tally.acknowledged };
        let stored = self.settled(topic, before, expected).await?;

        let counted = if is_transaction { Counted::Visible } else { Counted::Acknowledged };
        let mut object = measurement(&outcome, counted, &self.watched, common.threads);
        object.insert("stored".to_owned(), json!(stored));
        if outcome.tally.acknowledged == 0 && !outcome.is_interrupted {
            bail!("nothing was acknowledged: {}", why(&outcome));
        }
        Ok(object)
    }

    /// Waits a while for what was acknowledged to be there; answers what is there.
    async fn settled(&self, topic: &Topic, before: u64, expected: u64) -> anyhow::Result<u64> {
        let until = clock::monotonic() + SETTLE;
        loop {
            let stored = self.target.stored(topic).await?.saturating_sub(before);
            if stored >= expected || clock::monotonic() > until {
                return Ok(stored);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends a command with its result: the topic that was made for it goes, and the run is described.
    pub(super) async fn finish(
        self,
        command: &str,
        topic: &Topic,
        load: Option<&Load>,
        result: anyhow::Result<Object>,
    ) -> anyhow::Result<Object> {
        self.target.clean_up(topic).await;
        let mut object = result?;
        self.describe(&mut object, command, topic, load);
        Ok(object)
    }

    /// The part of a result that describes its run, the same for all workloads.
    fn describe(&self, object: &mut Object, command: &str, topic: &Topic, load: Option<&Load>) {
        let common = self.common;
        let header = format!("{:?}", common.header).to_lowercase();
        let mut title = format!(
            "{command}: {} at {}, {} connections",
            topic.name,
            self.target.brokers().join(", "),
            common.connections
        );
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        if let Some(load) = load {
            use std::fmt::Write as _;
            let _ = write!(title, " x {} in flight, {} bytes, {header} headers", load.in_flight, common.size);
            if let Some(rate) = load.rate {
                let _ = write!(title, ", {rate} messages/s");
            }
            put("in_flight", json!(load.in_flight));
            put("rate", json!(load.rate));
        }
        put("title", json!(title));
        put("interrupted", json!(self.is_interrupted));
        put("command", json!(command));
        put("brokers", json!(self.target.brokers()));
        put("topic", json!(topic.name));
        put("connections", json!(common.connections));
        put("threads", json!(common.threads));
        put("size", json!(common.size));
        put("header", json!(header));
    }
}

/// Why nothing came of a run.
fn why(outcome: &Outcome) -> String {
    let refusal = outcome.tally.refusals.iter().next();
    match (refusal, &outcome.tally.broken) {
        (Some((code, refusals)), _) => format!("{}: {}", super::names::name(*code), refusals.remark),
        (None, Some(broken)) => broken.clone(),
        (None, None) => "no answer came".to_owned(),
    }
}

/// Raises the limit of open files as far as needed.
pub(super) fn make_room_for(connections: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // Those that are open already count as well.
    let open = std::fs::read_dir(Path::new("/proc/self/fd")).map_or(OTHER_FILES, |files| files.count() as u64);
    let wanted = connections as u64 + open + OTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        bail!("{wanted} open files are needed and {} allowed; see ulimit -n", limit.maximum.unwrap_or_default());
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map_or(Some(wanted), Some), ..limit })?;
    Ok(())
}
