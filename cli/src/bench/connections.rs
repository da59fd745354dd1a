//! `bench connections`: what many connections cost that do nothing.

use anyhow::bail;
use serde_json::{Value, json};

use super::backlog::ratio;
use super::engine::now;
use super::histogram::Histogram;
use super::link::Link;
use super::options::{Common, Load};
use super::report::{Object, rounded};
use super::sender::Work;
use super::session::{Session, make_room_for};
use super::target::Topic;
use crate::words::counted;

/// Connections that are opened at a time, before their heartbeats' answers are awaited.
const TOGETHER: usize = 64;

/// Arguments of `bench connections`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    load: Load,
    /// Idle connections
    #[arg(long, default_value_t = 1000)]
    open: usize,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Object> {
    if arguments.load.count.is_some() || arguments.open == 0 {
        bail!("rates with and without the connections are compared over a time: use --seconds, and --open at least 1");
    }
    arguments.load.check()?;
    let mut session = Session::open(&arguments.common).await?;
    let topic = session.target.topic(&arguments.common, "connections").await?;
    let result = measure(&mut session, &topic, arguments).await;
    session.finish("connections", &topic, Some(&arguments.load), result).await
}

async fn measure(session: &mut Session<'_>, topic: &Topic, arguments: &Arguments) -> anyhow::Result<Object> {
    let mut object = Object::new();
    make_room_for(arguments.open + arguments.common.connections)?;
    let before = session.sends(topic, Work::Send, &arguments.load, "before").await?;
    object.insert("send_before".to_owned(), Value::Object(before));
    if session.is_interrupted {
        return Ok(object);
    }
    let memory = session.watched.memory();
    let started = now();
    let mut times = Histogram::default();
    let idle = open(session, arguments.open, &mut times)?;
    let seconds = (now() - started) as f64 / 1e9;
    let rate = idle.len() as f64 / seconds;
    let mut notes = vec![format!("{} at {rate:.0}/s", counted(idle.len(), "connection"))];
    object.insert("open".to_owned(), json!(idle.len()));
    object.insert("open_per_s".to_owned(), json!(rounded(rate, 1)));
    object.insert("open_ms".to_owned(), times.json());
    if !session.watched.is_empty() {
        let grown = session.watched.memory().resident - memory.resident;
        let each = grown * 1024.0 / idle.len() as f64;
        notes.push(format!("{each:.1} KiB of the broker's resident memory for each"));
        object.insert("kib_per_connection".to_owned(), json!(rounded(each, 2)));
    }
    let after = session.sends(topic, Work::Send, &arguments.load, "after").await?;
    object.insert("send_after".to_owned(), Value::Object(after));
    if let Some(ratio) = ratio(&object, "send") {
        notes.push(format!("send: {:.1} % of the rate without them", ratio * 100.0));
        object.insert("send_ratio".to_owned(), json!(rounded(ratio, 4)));
    }
    let closed = idle.iter().filter(|link| link.is_closed()).count();
    object.insert("closed_meanwhile".to_owned(), json!(closed));
    if closed > 0 {
        notes.push(format!("the broker closed {closed} of them meanwhile"));
    }
    object.insert("notes".to_owned(), json!(notes));
    Ok(object)
}

/// Opens connections, each with a heartbeat that is answered.
fn open(session: &Session<'_>, count: usize, times: &mut Histogram) -> anyhow::Result<Vec<Link>> {
    let brokers = session.target.brokers();
    let mut links: Vec<Link> = Vec::with_capacity(count);
    while links.len() < count {
        let first = links.len();
        let mut started = Vec::new();
        for nth in first..count.min(first + TOGETHER) {
            started.push(now());
            let mut link = Link::connect_idle(&brokers[nth % brokers.len()])?;
            // Numbers that the sending connections do not have.
            link.start_heartbeat(&session.hello(1_000_000 + nth))?;
            links.push(link);
        }
        for (link, started) in links[first..].iter_mut().zip(started) {
            link.finish_heartbeat()?;
            times.add(now() - started);
        }
    }
    Ok(links)
}
