//! `bench checks`: how fast a broker asks about undecided transactions when somebody comes who can answer.
//!
//! Half messages are left undecided until all of them are due and nobody of their group is connected. Then one instance
//! registers and answers each check with a commit; what counts is the time until consumers could see all messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{CheckTransactionStateHeader, EndTransactionHeader};
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use serde_json::{Value, json};

use super::backlog::BUILD_IN_FLIGHT;
use super::options::{Common, Load};
use super::report::{Object, rounded};
use super::sender::Work;
use super::session::Session;
use super::target::Topic;
use crate::words::counted;

/// Between two looks whether all are there.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Between two heartbeats of the instance that answers.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Arguments of `bench checks`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Half messages that are left undecided
    #[arg(long, default_value_t = 100_000)]
    halves: u64,
    /// Seconds after the last one until all of them are due: more than the broker's transactionTimeOut
    #[arg(long, default_value_t = 8.0)]
    wait: f64,
    /// Seconds after which checks are not waited for any longer
    #[arg(long, default_value_t = 120.0)]
    deadline: f64,
}

/// The instance that answers.
#[derive(Debug)]
struct Checker {
    group: String,
    answered: AtomicU64,
}

impl Service for Checker {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        if request.code != request::CHECK_TRANSACTION_STATE {
            return;
        }
        let Ok(check) = request.header::<CheckTransactionStateHeader<'_>>() else { return };
        let answer = Frame::request(request::END_TRANSACTION).with_header(&EndTransactionHeader {
            producer_group: &self.group,
            tran_state_table_offset: check.tran_state_table_offset,
            commit_log_offset: check.commit_log_offset,
            commit_or_rollback: EndTransactionHeader::COMMIT,
            from_transaction_check: true,
            msg_id: check.msg_id,
            transaction_id: check.transaction_id,
            topic: check.topic,
            broker_name: check.broker_name,
        });
        if connection.send_oneway(answer).is_ok() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Object> {
    if arguments.halves == 0 || !(0.0..=1e6).contains(&arguments.wait) || !(0.0..=1e6).contains(&arguments.deadline) {
        bail!("--halves is at least 1, --wait and --deadline are times in seconds");
    }
    let mut session = Session::open(&arguments.common).await?;
    let topic = session.target.topic(&arguments.common, "checks").await?;
    let result = measure(&mut session, &topic, arguments).await;
    session.finish("checks", &topic, None, result).await
}

async fn measure(session: &mut Session<'_>, topic: &Topic, arguments: &Arguments) -> anyhow::Result<Object> {
    let mut object = Object::new();
    let before = session.target.stored(topic).await?;
    let load =
        Load { in_flight: BUILD_IN_FLIGHT, seconds: 1.0, warmup: 0.0, rate: None, count: Some(arguments.halves) };
    let built = session.sends(topic, Work::Half, &load, "building").await?;
    let halves = built.get("acknowledged").and_then(Value::as_u64).unwrap_or_default();
    object.insert("built".to_owned(), Value::Object(built));
    // The connections that sent them are closed: nobody can be asked.
    tokio::time::sleep(Duration::from_secs_f64(arguments.wait)).await;

    let checker = Arc::new(Checker { group: session.common.group.clone(), answered: AtomicU64::new(0) });
    let remote = Remote::new(RemoteOptions::default(), Arc::clone(&checker) as Arc<dyn Service>);
    let cpu = session.watched.cpu();
    let started = clock::monotonic();
    let deadline = started + Duration::from_secs_f64(arguments.deadline);
    let mut greet_at = started;
    let seen = loop {
        let now = clock::monotonic();
        if now >= greet_at {
            greet_at = now + HEARTBEAT;
            for broker in session.target.brokers() {
                let greeted = remote.call(broker, session.hello(0), HEARTBEAT).await;
                greeted.with_context(|| format!("heartbeat to {broker}"))?;
            }
        }
        let seen = session.target.stored(topic).await?.saturating_sub(before);
        if seen >= halves || now > deadline {
            break seen;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let seconds = clock::monotonic().saturating_sub(started).as_secs_f64();
    let used = session.watched.cpu().watched - cpu.watched;
    let rate = seen as f64 / seconds;
    let answered = checker.answered.load(Ordering::Relaxed);
    let mut notes =
        vec![format!("{seen} of {halves} halves were checked and committed in {seconds:.2} s: {rate:.0}/s")];
    if answered > seen {
        notes.push(format!("asked again: {}", counted(answered - seen, "check")));
    }
    object.insert("halves".to_owned(), json!(halves));
    object.insert("committed".to_owned(), json!(seen));
    object.insert("checks_answered".to_owned(), json!(answered));
    object.insert("seconds".to_owned(), json!(rounded(seconds, 3)));
    object.insert("throughput".to_owned(), json!(rounded(rate, 1)));
    if !session.watched.is_empty() {
        object.insert("broker_cpu_seconds".to_owned(), json!(rounded(used, 2)));
        notes.push(format!("{used:.2} s of the broker's processor time"));
    }
    object.insert("notes".to_owned(), json!(notes));
    Ok(object)
}
