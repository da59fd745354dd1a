//! The loops that every client runs: heartbeats to the brokers, refreshes of the routes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{ConsumerData, Form, HeartbeatData, ProducerData, json};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::name::CLIENT_INNER_PRODUCER;
use escrowmq_common::remoting::CallError;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio::time::Instant;

use crate::brokers::Abilities;
use crate::core::{Core, expect_success};
use crate::error::RequestError;
use crate::events::ConnectionEvent;

/// The field of a heartbeat's answer by which our broker makes itself known.
const OURS: &str = "ESCROWMQ";
/// The one by which it says that it knows transactions of several messages and the answer "in progress".
const OURS_TRANSACTIONS: &str = "ESCROWMQ_TXN";

/// After a round in which a broker could not be greeted, the next one comes so soon, then doubling up to the interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// After a look at the routes that showed no leader of some group; an answer of the name servers counts for 200 ms.
const LOOK_FIRST: Duration = Duration::from_millis(200);

/// Topics looked up at the same time, and brokers greeted at the same time: a route names as many as its name server likes.
const LOOK_UPS_MAX: usize = 8;
const GREETINGS_MAX: usize = 64;

/// The part of a heartbeat that a consumer group reports.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerReport {
    pub(crate) data: ConsumerData,
}

impl ConsumerReport {
    /// The topics subscribed to.
    pub(crate) fn topics(&self) -> Vec<Arc<str>> {
        self.data.subscription_data_set.iter().map(|subscription| subscription.topic.as_str().into()).collect()
    }
}

/// Starts both loops.
pub(crate) fn start(core: &Arc<Core>) {
    core.tasks.spawn("client heartbeat", heartbeats(Arc::clone(core)));
    core.tasks.spawn("client routes", routes(Arc::clone(core)));
}

async fn heartbeats(core: Arc<Core>) {
    let interval = core.settings.heartbeat_interval;
    let mut pause = interval;
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = core.brokers.greet_soon.notified() => {}
            () = core.routes.broker_appeared.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let all_greeted = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            all = greet_all(&core) => all,
        };
        pause = if all_greeted {
            interval
        } else if pause == interval {
            RETRY_FIRST.min(interval)
        } else {
            (pause * 2).min(interval)
        };
    }
}

/// Asks for all routes again at each interval, and at once when a broker fails. As long as some group has no leader that
/// answers, the next look comes soon, then ever later.
async fn routes(core: Arc<Core>) {
    let interval = core.settings.route_interval;
    let mut pause = interval;
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = core.routes.member_failed.notified(), if pause == interval => {}
            () = tokio::time::sleep(pause) => {}
        }
        let pinned = core.groups.topics();
        let changed = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            changed = core.routes.refresh_all(&pinned) => changed,
        };
        if changed {
            for consumer in core.groups.consumers() {
                consumer.rebalance();
            }
        }
        pause = if core.routes.is_settled() {
            interval
        } else if pause == interval {
            LOOK_FIRST.min(interval)
        } else {
            (pause * 2).min(interval)
        };
    }
}

/// One heartbeat to every broker of the routes: leaders if there are only producers, else all members. Where a leader is away
/// the other members hear of producers, too: they tell the next one. Answers whether all of them answered.
pub(crate) async fn greet_all(core: &Core) -> bool {
    let (producers, consumers) = (core.groups.producers(), core.groups.consumers());
    if producers.is_empty() && consumers.is_empty() {
        return true;
    }
    // A topic that was only announced has no route yet, and without one its brokers would not hear of us.
    let unrouted = core.groups.topics().into_iter().filter(|topic| core.routes.cached(topic).is_none());
    let look_ups = stream::iter(unrouted.collect::<Vec<_>>()).map(|topic| async move {
        let _ = core.routes.refresh(&topic, true).await;
    });
    look_ups.buffer_unordered(LOOK_UPS_MAX).collect::<()>().await;
    let addrs = core.routes.broker_addrs(consumers.is_empty());
    let known = core.routes.broker_addrs(false).into_iter().collect::<HashSet<_>>();
    core.brokers.retain(&known);
    core.outages.retain(&known);
    let greetings = stream::iter(addrs).map(|addr| async move {
        let greeted = greet(core, &addr, Force::Always).await;
        if let Err(error) = &greeted
            && !error.is_outage()
        {
            tracing::warn!(%addr, %error, "heartbeat failed");
        }
        greeted.is_ok()
    });
    greetings.buffer_unordered(GREETINGS_MAX).fold(true, |all, greeted| async move { all & greeted }).await
}

/// Whether a heartbeat is sent although the broker knows everything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    Always,
    IfNeeded,
}

/// Makes sure that the broker at `addr` knows the present groups on the present connection, and says what it can do.
pub(crate) async fn greet(core: &Core, addr: &str, force: Force) -> Result<Abilities, RequestError> {
    let broker = core.brokers.at(addr);
    let connect = || async {
        // That a connection opens says nothing about whether anybody answers on it, so only the failure is news.
        let connection = core.remote.connection(addr).await;
        connection.or_else(|error| core.noted(addr, Instant::now(), Err(error)))
    };
    if force == Force::IfNeeded {
        let connection = connect().await?;
        if let Some(abilities) = broker.current(connection.id(), core.brokers.epoch()) {
            return Ok(abilities);
        }
    }
    let _greeting = broker.greeting.lock().await;
    let connection = connect().await?;
    // Read before the groups: a group that joins in between makes this greeting old, not wrong.
    let epoch = core.brokers.epoch();
    if force == Force::IfNeeded
        && let Some(abilities) = broker.current(connection.id(), epoch)
    {
        return Ok(abilities);
    }
    let heartbeat = Frame::request(request::HEART_BEAT).with_body(json::to_bytes(&data(core), Form::Strict));
    let asked = Instant::now();
    let answer = connection.call(heartbeat, core.settings.request_timeout).await;
    // A connection over which not even this is answered may lead to a machine that is gone: the system would notice after
    // minutes. The next use opens another.
    if matches!(answer, Err(CallError::Timeout { .. })) {
        connection.close("no answer to a heartbeat");
    }
    let answer = expect_success(addr, core.noted(addr, asked, answer)?)?;
    let has = |field: &str| answer.fields.get(field) == Some("1");
    let abilities = Abilities { confirms_decisions: has(OURS), transactions: has(OURS_TRANSACTIONS) };
    if broker.greeted(connection.id(), epoch, abilities) {
        core.bell.ring(ConnectionEvent::Connected { addr: addr.to_owned() });
    }
    if abilities.confirms_decisions {
        core.routes.is_ours(addr);
    }
    Ok(abilities)
}

/// Whether the members of `broker` are ours, and pass requests on. If none of them has answered a heartbeat so far, one has to.
pub(crate) async fn are_ours(core: &Core, broker: &str) -> bool {
    let addrs = core.routes.members(broker);
    if !core.routes.pass_on(broker) && !addrs.iter().any(|addr| core.brokers.at(addr).is_known()) {
        let mut greetings: FuturesUnordered<_> = addrs.iter().map(|addr| greet(core, addr, Force::IfNeeded)).collect();
        while greetings.next().await.is_some_and(|greeted| greeted.is_err()) {}
    }
    core.routes.pass_on(broker)
}

/// All groups of the client.
fn data(core: &Core) -> HeartbeatData {
    let mut producer_data_set = vec![ProducerData { group_name: CLIENT_INNER_PRODUCER.to_owned() }];
    producer_data_set.extend(
        core.groups.producers().iter().map(|producer| ProducerData { group_name: producer.group().to_owned() }),
    );
    HeartbeatData {
        client_id: core.id.clone(),
        producer_data_set,
        consumer_data_set: core.groups.consumers().iter().map(|consumer| consumer.report().data).collect(),
        ..HeartbeatData::default()
    }
}
