//! `bench backlog`: whether undecided halves, or stored messages, make a broker slower.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::options::{Common, Load};
use super::report::{Object, rounded};
use super::sender::Work;
use super::session::Session;
use super::target::Topic;

/// Requests under way per connection while the backlog is built.
pub(super) const BUILD_IN_FLIGHT: usize = 32;

/// Arguments of `bench backlog`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    load: Load,
    /// Half messages to leave undecided [default: 100000]
    #[arg(long, conflicts_with = "messages")]
    halves: Option<u64>,
    /// Messages to leave unread instead
    #[arg(long)]
    messages: Option<u64>,
    /// Bytes of the backlog's bodies [default: as --size]
    #[arg(long)]
    backlog_size: Option<usize>,
    /// Seconds between building the backlog and measuring with it, for what follows a build: files are merged, halves are due
    #[arg(long, default_value_t = 0.0)]
    settle: f64,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Object> {
    if arguments.load.count.is_some() {
        bail!("rates with and without the backlog are compared over a time: use --seconds");
    }
    if !(0.0..=1e6).contains(&arguments.settle) {
        bail!("--settle is a time in seconds");
    }
    arguments.load.check()?;
    let mut session = Session::open(&arguments.common).await?;
    let topic = session.target.topic(&arguments.common, "backlog").await?;
    let result = measure(&mut session, &topic, arguments).await;
    session.finish("backlog", &topic, Some(&arguments.load), result).await
}

async fn measure(session: &mut Session<'_>, topic: &Topic, arguments: &Arguments) -> anyhow::Result<Object> {
    let works = [("send", Work::Send), ("txn", Work::Transaction { is_awaited: false })];
    let mut object = Object::new();
    for (name, work) in works {
        if !session.is_interrupted {
            let measured = session.sends(topic, work, &arguments.load, "before").await?;
            object.insert(format!("{name}_before"), Value::Object(measured));
        }
    }
    let (work, count) = match arguments.messages {
        Some(count) => (Work::Send, count),
        None => (Work::Half, arguments.halves.unwrap_or(100_000)),
    };
    if session.is_interrupted {
        return Ok(object);
    }
    let load = Load { in_flight: BUILD_IN_FLIGHT, count: Some(count.max(1)), ..arguments.load.closed() };
    let common = Common { size: arguments.backlog_size.unwrap_or(arguments.common.size), ..arguments.common.clone() };
    common.check()?;
    // A topic of its own, which stays while the second half is measured.
    let held = session.target.topic(&Common { topic: None, ..common.clone() }, "held").await?;
    let built = session.sends_as(&common, &held, work, &load, "building").await;
    let after = match built {
        Ok(built) => {
            let acknowledged = built.get("acknowledged").cloned();
            object.insert("backlog".to_owned(), json!(acknowledged));
            object.insert("built".to_owned(), Value::Object(built));
            tokio::time::sleep(Duration::from_secs_f64(arguments.settle)).await;
            again(session, topic, &works, arguments, &mut object).await
        }
        Err(error) => Err(error),
    };
    session.target.clean_up(&held).await;
    after?;
    Ok(object)
}

async fn again(
    session: &mut Session<'_>,
    topic: &Topic,
    works: &[(&str, Work)],
    arguments: &Arguments,
    object: &mut Object,
) -> anyhow::Result<()> {
    let mut notes = Vec::new();
    for (name, work) in works {
        if session.is_interrupted {
            break;
        }
        let measured = session.sends(topic, *work, &arguments.load, "after").await?;
        object.insert(format!("{name}_after"), Value::Object(measured));
        if let Some(ratio) = ratio(object, name) {
            notes.push(format!("{name}: {:.1} % of the rate without the backlog", ratio * 100.0));
            object.insert(format!("{name}_ratio"), json!(rounded(ratio, 4)));
        }
    }
    object.insert("notes".to_owned(), json!(notes));
    Ok(())
}

/// The rate after by the rate before.
pub(super) fn ratio(object: &Object, name: &str) -> Option<f64> {
    let rate = |when: &str| object.get(&format!("{name}_{when}"))?.get("throughput")?.as_f64();
    let before = rate("before").filter(|before| *before > 0.0)?;
    Some(rate("after")? / before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_both_rates() {
        let mut object = Object::new();
        object.insert("send_before".to_owned(), json!({ "throughput": 200.0 }));
        assert_eq!(ratio(&object, "send"), None);
        object.insert("send_after".to_owned(), json!({ "throughput": 150.0 }));
        assert_eq!(ratio(&object, "send"), Some(0.75));
    }
}
